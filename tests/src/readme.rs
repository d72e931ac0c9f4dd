//! README's own code blocks, so that what it advises is what the scenarios try.

use std::fs;
use std::path::Path;

/// The text of the code block whose fence names this file (`cfg main.cf`), with README's example addresses and domain
/// exchanged for others.
pub fn block(file: &str, exchanged: &[(&str, &str)]) -> String {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(readme).expect("README.md");
    let named = |fence: &str| fence.split_once(' ').is_some_and(|(_, name)| name == file);
    let mut lines = readme.lines();
    let is_begun = lines.any(|line| line.strip_prefix("```").is_some_and(named));
    assert!(is_begun, "README has no code block for {file}");
    let mut text = String::new();
    for line in lines.take_while(|line| *line != "```") {
        text.push_str(line);
        text.push('\n');
    }
    exchanged.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "README's block for {file} does not name {from}:\n{text}");
        text.replace(from, to)
    })
}
