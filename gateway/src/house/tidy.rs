//! What a reader may count on in every file of the workspace.

use std::fs;
use std::path::{Path, PathBuf};

/// Lines that can be read in one go.
const LINES_MAX: usize = 450;
/// Longer files, and why.
const LONGER: [(&str, &str); 0] = [];
/// Folders with sources.
const CRATES: [&str; 5] = ["gateway", "gateway-common", "gateway-ebpf", "tests", "xtask"];

/// The workspace's Rust files, relative to its root, and their text.
fn files() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut open: Vec<PathBuf> = CRATES.iter().map(|name| root.join(name)).collect();
    let mut files = Vec::new();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path());
            open.extend(entries.filter(|path| !path.ends_with("target")));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push((path.strip_prefix(&root).unwrap().to_owned(), fs::read_to_string(&path).unwrap()));
        }
    }
    assert!(files.len() > 150, "the sources have moved");
    files
}

/// Lines of code and comments that `is_fault`, as `path:line`.
fn faults(is_fault: impl Fn(&Path, &str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in files().iter().filter(|(path, _)| !path.ends_with("house/tidy.rs")) {
        let lines = text.lines().enumerate().filter(|(_, line)| is_fault(path, line));
        found.extend(lines.map(|(number, line)| format!("{}:{}: {}", path.display(), number + 1, line.trim())));
    }
    found
}

#[test]
fn files_can_be_read_in_one_go() {
    for (path, text) in files() {
        let lines = text.lines().count();
        match LONGER.iter().find(|(longer, _)| path == Path::new(longer)) {
            Some(_) => assert!(lines > LINES_MAX, "{} is short enough: take it off the list", path.display()),
            None => assert!(lines <= LINES_MAX, "{} has {lines} lines: split it by meaning", path.display()),
        }
    }
}

#[test]
fn every_module_says_what_it_is_for() {
    // A file of tests is about the file above it.
    let is_test =
        |path: &Path| path.components().any(|part| matches!(part.as_os_str().to_str(), Some("tests.rs" | "tests")));
    for (path, text) in files() {
        let head = text.lines().find(|line| !line.starts_with("#!") && !line.is_empty());
        let has_head = head.is_some_and(|line| line.starts_with("//!"));
        assert!(has_head || is_test(&path), "{} does not say what it is for", path.display());
    }
}

#[test]
fn nothing_is_left_for_later() {
    let marks = ["TODO", "FIXME", "XXX", "HACK"];
    let found =
        faults(|_, line| marks.iter().any(|mark| line.split(|c: char| !c.is_alphanumeric()).any(|word| word == *mark)));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn what_is_allowed_has_a_reason() {
    let found = faults(|_, line| line.trim_start().starts_with("#") && line.contains("[allow("));
    assert!(found.is_empty(), "write #[expect(…, reason = \"…\")] instead:\n{}", found.join("\n"));
}

/// A sentence is for people; whoever calls must be able to tell errors apart, and to follow them to their source.
#[test]
fn errors_are_types() {
    // There a sentence is all that is made of an error.
    let for_people = ["gateway/src/cli", "gateway/src/sink", "gateway/src/house", "tests", "xtask"];
    let found = faults(|path, line| {
        let is_for_people = for_people.iter().any(|folder| path.starts_with(folder));
        let is_test = path.ends_with("tests.rs") || path.components().any(|part| part.as_os_str() == "tests");
        let words = line.split_once("Result<").map_or("", |(_, rest)| rest);
        !is_for_people && !is_test && (words.contains(", String>") || words.contains(", &'static str>"))
    });
    assert!(found.is_empty(), "name what can go wrong:\n{}", found.join("\n"));
}

#[test]
fn files_cite_what_a_reader_has() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let elsewhere = ["/work/", "../shared", "issue #"];
    let found = faults(|_, line| elsewhere.iter().any(|place| line.contains(place)));
    assert!(found.is_empty(), "{}", found.join("\n"));
    let dead = faults(|_, line| {
        let words = line.split(|c: char| c.is_whitespace() || matches!(c, '`' | '"' | '(' | ')' | ',' | ';'));
        let documents = words.filter(|word| word.starts_with("docs/")).filter_map(|word| word.split_once(".md"));
        documents.into_iter().any(|(name, _)| !root.join(format!("{name}.md")).exists())
    });
    assert!(dead.is_empty(), "there is no such document:\n{}", dead.join("\n"));
}

#[test]
fn documents_name_files_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let documents = folder.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let mut dead = Vec::new();
    for document in documents.chain(["README.md", "CONTRIBUTING.md"].map(|name| root.join(name))) {
        let text = fs::read_to_string(&document).unwrap();
        // What stands between backticks, and is no path of the system's.
        for named in text.split('`').skip(1).step_by(2) {
            let is_ours = named.ends_with(".rs") && named.contains('/') && !named.contains(char::is_whitespace);
            let roots = ["", "gateway/src", "tests"];
            if is_ours && !roots.iter().any(|base| root.join(base).join(named).exists()) {
                dead.push(format!("{}: {named}", document.display()));
            }
        }
    }
    assert!(dead.is_empty(), "there is no such file:\n{}", dead.join("\n"));
}
