//! `cargo xtask ebpf`: the kernel side's objects, from their sources, into `gateway-ebpf/prebuilt`, where the gateway's
//! build finds them. So nobody else needs a compiler for the BPF target.
//!
//! What is committed beside the objects: `SHA256SUMS` of the sources and objects (`sha256sum -c` reads it), and
//! `COMPILER`, because another compiler makes other bytes of the same sources. `--check` builds with the same one and
//! compares bytes.

mod toolchain;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{bounded, output, repository, target};

use toolchain::Toolchain;

const USAGE: &str = "\
usage: cargo xtask ebpf [--check]

  builds the kernel side's objects into gateway-ebpf/prebuilt; with --check builds them elsewhere, and fails unless the
  committed ones are the same
";

/// What cargo calls a binary, and what the object is called.
const OBJECTS: [(&str, &str); 2] = [("gateway-ebpf", "smtp-gateway.bpf.o"), ("bench", "bench.bpf.o")];
/// Everything an object depends on, from the repository's top.
const SOURCES: [&str; 5] = [
    "gateway-common/Cargo.toml",
    "gateway-common/src",
    "gateway-ebpf/Cargo.lock",
    "gateway-ebpf/Cargo.toml",
    "gateway-ebpf/src",
];
/// Where the sources are copied to be built.
const STAGE: &str = "/var/tmp/smtp-gateway-ebpf";
const PREBUILT: &str = "gateway-ebpf/prebuilt";
const SUMS: &str = "SHA256SUMS";
const COMPILER: &str = "COMPILER";

/// Atomic operations that return what was there came with `v3` (Linux 5.12). The machines this runs on read words at any
/// address; told so, the compiler does not take headers apart byte by byte.
const FLAGS: &str = "-C target-cpu=v3 -C target-feature=+allows-misaligned-mem-access";

/// `cargo xtask ebpf`.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    match arguments {
        [] => build(),
        [flag] if flag == "--check" => check(),
        _ => Err(USAGE.to_owned()),
    }
}

fn build() -> Result<(), String> {
    let toolchain = Toolchain::find(recorded().as_deref().ok())?;
    let built = compile(&toolchain)?;
    let prebuilt = repository().join(PREBUILT);
    fs::create_dir_all(&prebuilt).map_err(|error| said(&prebuilt, &error))?;
    for (binary, object) in OBJECTS {
        let to = prebuilt.join(object);
        fs::copy(built.join(binary), &to).map_err(|error| said(&to, &error))?;
    }
    write(&prebuilt.join(COMPILER), &toolchain.version()?)?;
    write(&prebuilt.join(SUMS), &sums()?)?;
    println!("{PREBUILT}: built by\n{}", toolchain.version()?);
    Ok(())
}

fn check() -> Result<(), String> {
    check_sums()?;
    let recorded = recorded()?;
    let toolchain = Toolchain::find(Some(&recorded))?;
    let version = toolchain.version()?;
    if version != recorded {
        return Err(format!(
            "the committed objects were built by\n{recorded}and what is here is\n{version}Other compilers make other \
             bytes, so this proves nothing. `cargo xtask ebpf` builds them anew; commit {PREBUILT}"
        ));
    }
    let built = compile(&toolchain)?;
    for (binary, object) in OBJECTS {
        let committed = read(&repository().join(PREBUILT).join(object))?;
        if read(&built.join(binary))? != committed {
            return Err(format!(
                "{PREBUILT}/{object} is not what the sources build; run `cargo xtask ebpf`, and commit {PREBUILT}"
            ));
        }
    }
    println!("{PREBUILT}: byte for byte what the sources build, with\n{version}");
    Ok(())
}

/// Whether the committed sums are those of the sources and objects as they are.
fn check_sums() -> Result<(), String> {
    let path = repository().join(PREBUILT).join(SUMS);
    let recorded = fs::read_to_string(&path).map_err(|error| said(&path, &error))?;
    let now = sums()?;
    let stale: Vec<&str> = now.lines().filter(|line| !recorded.lines().any(|known| known == *line)).collect();
    if recorded == now {
        return Ok(());
    }
    Err(format!(
        "{PREBUILT} was not built of these sources; run `cargo xtask ebpf`, and commit it. What differs:\n  {}",
        stale.join("\n  ")
    ))
}

/// The compiler of the committed objects.
fn recorded() -> Result<String, String> {
    let path = repository().join(PREBUILT).join(COMPILER);
    fs::read_to_string(&path).map_err(|error| said(&path, &error))
}

/// A copy of the sources at a path that is the same everywhere: cargo makes the path of `gateway-common`, which lies outside
/// the program's own workspace, a part of symbols' names, and so of the object.
fn stage() -> Result<PathBuf, String> {
    let top = repository();
    let stage = PathBuf::from(STAGE);
    if stage.exists() {
        fs::remove_dir_all(&stage).map_err(|error| said(&stage, &error))?;
    }
    let mut files = Vec::new();
    for source in SOURCES {
        collect(&top.join(source), &mut files)?;
    }
    for file in files {
        let to = stage.join(file.strip_prefix(&top).unwrap_or(&file));
        let folder = to.parent().unwrap_or(&stage);
        fs::create_dir_all(folder).map_err(|error| said(folder, &error))?;
        fs::copy(&file, &to).map_err(|error| said(&to, &error))?;
    }
    // Of the workspace, what `gateway-common` inherits.
    let manifest = fs::read_to_string(top.join("Cargo.toml")).map_err(|error| said(&top.join("Cargo.toml"), &error))?;
    let of_members = |line: &str| match line.split_once('=').map(|(key, _)| key.trim()) {
        Some("members") => "members = [\"gateway-common\"]\n".to_owned(),
        Some("default-members") => String::new(),
        _ => format!("{line}\n"),
    };
    write(&stage.join("Cargo.toml"), &manifest.lines().map(of_members).collect::<String>())?;
    Ok(stage)
}

/// Builds, and says where the binaries are.
fn compile(toolchain: &Toolchain) -> Result<PathBuf, String> {
    let folder = target().join("ebpf/build");
    let mut cargo = bounded(900, "cargo");
    cargo.args(["build", "--release", "--locked", "-Z", "build-std=core", "--target", "bpfel-unknown-none"]);
    cargo.current_dir(stage()?.join("gateway-ebpf")).env("CARGO_TARGET_DIR", &folder);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.replace(" -C ", "\u{1f}-C\u{1f}").replacen("-C ", "-C\u{1f}", 1));
    toolchain.apply(&mut cargo)?;
    output(&mut cargo)?;
    Ok(folder.join("bpfel-unknown-none/release"))
}

/// The sums of every source and object, in the order of their paths.
fn sums() -> Result<String, String> {
    let top = repository();
    let mut files = Vec::new();
    for source in SOURCES {
        collect(&top.join(source), &mut files)?;
    }
    files.extend(OBJECTS.map(|(_, object)| top.join(PREBUILT).join(object)));
    let mut names = files.iter().map(|path| path.strip_prefix(&top).unwrap_or(path)).collect::<Vec<_>>();
    names.sort_unstable();
    output(Command::new("sha256sum").args(names).current_dir(&top))
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    if !path.is_dir() {
        files.push(path.to_path_buf());
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(|error| said(path, &error))? {
        collect(&entry.map_err(|error| said(path, &error))?.path(), files)?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| said(path, &error))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| said(path, &error))
}

fn said(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Needs no compiler: whoever changes the kernel side's sources hears of it at once.
    #[test]
    fn the_committed_objects_are_of_these_sources() {
        check_sums().unwrap();
    }
}
