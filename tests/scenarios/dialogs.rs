//! Every transcript in `tests/dialogs`, in whole packets and with every byte in its own.

use std::fs;
use std::path::Path;

use tests::dialog::{Packets, run};

#[test]
fn every_transcript_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("dialogs");
    let mut failures = Vec::new();
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let transcript = fs::read_to_string(&path).unwrap();
        for packets in [Packets::Whole, Packets::Bytes] {
            count += 1;
            if let Err(error) = run(&transcript, packets) {
                failures.push(format!("{} ({packets:?}): {error}", path.file_name().unwrap().to_string_lossy()));
            }
        }
    }
    failures.sort();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(count > 0, "there are no transcripts");
}
