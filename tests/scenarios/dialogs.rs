//! Every transcript in `tests/dialogs`, in whole packets and with every byte in its own; and the page that refers to them.

use std::fs;
use std::path::{Path, PathBuf};

use tests::dialog::{Packets, run};

fn transcripts() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("dialogs");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    paths.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn every_transcript_holds() {
    let transcripts = transcripts();
    assert!(!transcripts.is_empty(), "there are no transcripts");
    let mut failures = Vec::new();
    for (name, transcript) in &transcripts {
        for packets in [Packets::Whole, Packets::Bytes] {
            if let Err(error) = run(transcript, packets) {
                failures.push(format!("{name} ({packets:?}): {error}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_transcript_says_what_it_is_for() {
    for (name, transcript) in transcripts() {
        assert!(transcript.starts_with("# "), "{name} begins with no comment");
    }
}

#[test]
fn the_pages_on_the_wire_name_transcripts_that_exist() {
    let transcripts = transcripts();
    for page in ["newlines.md", "smuggling.md", "wire.md"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page);
        let text = fs::read_to_string(path).unwrap();
        let named = text.split('`').filter(|word| word.ends_with(".txt") && !word.contains(' '));
        let missing: Vec<&str> = named.filter(|word| !transcripts.iter().any(|(name, _)| name == word)).collect();
        assert!(missing.is_empty(), "{page}: {missing:?}");
    }
}
