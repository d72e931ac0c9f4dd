//! The copyright of everything that is linked into the program, in Debian's machine-readable form: one paragraph a crate, with
//! the licence files that it came with.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{output, repository};

/// Names of licence files begin so.
const LICENCE_FILES: [&str; 5] = ["license", "licence", "copying", "copyright", "notice"];

/// The whole file.
pub(super) fn text() -> Result<String, String> {
    let mut text = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\
         Upstream-Name: smtp-gateway\n\
         \n\
         Files: *\n\
         Copyright: the smtp-gateway developers\n\
         License: MIT or Apache-2.0\n"
        .to_owned();
    let mut shared: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for Linked { name, version, licence, folder } in linked()? {
        text.push_str(&format!(
            "\nFiles: vendor/{name}-{version}/*\nCopyright: the authors of {name}\nLicense: {licence}\n"
        ));
        for file in licence_files(&folder)? {
            let said = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
            shared.entry(said.replace("\r\n", "\n")).or_default().push(format!("{name}-{version}"));
        }
    }
    for (said, crates) in shared {
        text.push_str(&format!("\nComment: the licence that comes with {}:\n", crates.join(", ")));
        for line in said.trim().lines() {
            let line = line.trim_end();
            text.push_str(&if line.is_empty() { " .\n".to_owned() } else { format!(" {line}\n") });
        }
    }
    Ok(text)
}

/// A crate of somebody else's that the program is linked with.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Linked {
    name: String,
    version: String,
    licence: String,
    folder: PathBuf,
}

fn linked() -> Result<Vec<Linked>, String> {
    let mut command = Command::new("cargo");
    command.current_dir(repository()).args([
        "tree",
        "--package",
        "smtp-gateway",
        "--edges",
        "normal",
        "--prefix",
        "none",
        "--locked",
        "--format",
        "{p}\t{l}\t{r}",
    ]);
    let mut found = Vec::new();
    for line in output(&mut command)?.lines() {
        let line = line.trim_end_matches(" (*)");
        let mut cells = line.split('\t');
        let (Some(package), Some(licence)) = (cells.next(), cells.next()) else { continue };
        let mut words = package.split(' ');
        let (Some(name), Some(version)) = (words.next(), words.next()) else { continue };
        // The workspace's own have a path behind their version.
        if package.contains("(/") {
            continue;
        }
        let version = version.trim_start_matches('v').to_owned();
        let folder = source(name, &version)?;
        found.push(Linked {
            name: name.to_owned(),
            version,
            licence: licence.trim_end_matches(" (*)").to_owned(),
            folder,
        });
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// Where cargo keeps its sources.
fn source(name: &str, version: &str) -> Result<PathBuf, String> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))
        .ok_or("neither CARGO_HOME nor HOME is set")?;
    let registries = home.join("registry/src");
    let entries = fs::read_dir(&registries).map_err(|error| format!("{}: {error}", registries.display()))?;
    let folders = entries.filter_map(|entry| Some(entry.ok()?.path().join(format!("{name}-{version}"))));
    folders
        .into_iter()
        .find(|folder| folder.is_dir())
        .ok_or_else(|| format!("cargo has no sources of {name} {version}"))
}

fn licence_files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut files: Vec<_> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_file()).collect();
    files.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        LICENCE_FILES.iter().any(|start| name.starts_with(start))
    });
    files.sort();
    Ok(files)
}
