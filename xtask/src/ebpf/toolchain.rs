//! A compiler that can build for the BPF target: one with the sources of `core`, and the BPF linker.
//!
//! Looked for in this order, the one that built the committed objects before all others: rustup's nightly with `rust-src`;
//! Debian's `rustc-web` with `rust-web-src`, installed; the same, unpacked into `target/peers` and never installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{bounded, exists, output, target};
use crate::peers;

/// From 0.11 on it wants an LLVM of its own; this one opens the compiler's.
const LINKER: &str = "~0.10.4";
const SYSROOT_SOURCES: &str = "lib/rustlib/src/rust/library/core/src/lib.rs";
const DEBIAN: &str = "rustc-web";

/// A compiler, with what belongs to it.
pub(super) struct Toolchain {
    rustc: PathBuf,
    /// Where its libraries are, if the dynamic linker would not find them.
    libraries: Option<PathBuf>,
    linker: PathBuf,
}

impl Toolchain {
    /// The compiler that is wanted, or else the first there is.
    pub(super) fn find(wanted: Option<&str>) -> Result<Self, String> {
        let linker = linker()?;
        let mut found = Vec::new();
        for candidate in [nightly, debian_installed, debian_unpacked] {
            let Some((rustc, libraries)) = candidate() else { continue };
            let toolchain = Self { rustc, libraries, linker: linker.clone() };
            if wanted.is_none() || wanted == toolchain.version().ok().as_deref() {
                return Ok(toolchain);
            }
            found.push(toolchain);
        }
        found.into_iter().next().ok_or_else(|| {
            "no compiler here can build for the BPF target: it needs the sources of `core`. Either `rustup toolchain \
             install nightly --component rust-src`, or on Debian `apt-get install rustc-web rust-web-src`. Nobody needs \
             either to build the gateway: the object is committed"
                .to_owned()
        })
    }

    /// What decides about the bytes: compiler and linker.
    pub(super) fn version(&self) -> Result<String, String> {
        let rustc = output(self.with_libraries(&mut Command::new(&self.rustc)).arg("--version"))?;
        let linker = output(Command::new(&self.linker).arg("--version"))?;
        Ok(format!("{rustc}{linker}"))
    }

    /// Has cargo use it.
    pub(super) fn apply(&self, cargo: &mut Command) -> Result<(), String> {
        self.with_libraries(cargo);
        // The linker opens the libLLVM it finds beside a folder of the path.
        let folders = [self.linker.parent(), self.rustc.parent()].into_iter().flatten().map(Path::to_path_buf);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(folders.chain(std::env::split_paths(&path))).map_err(|e| e.to_string())?;
        // Nightly's features of a released compiler.
        cargo.env("PATH", path).env("RUSTC", &self.rustc).env("RUSTC_BOOTSTRAP", "1");
        cargo.env_remove("RUSTUP_TOOLCHAIN").env_remove("RUSTFLAGS");
        Ok(())
    }

    fn with_libraries<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command
    }
}

type Candidate = (PathBuf, Option<PathBuf>);

fn nightly() -> Option<Candidate> {
    let sysroot = output(Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"])).ok()?;
    let sysroot = PathBuf::from(sysroot.trim());
    sysroot.join(SYSROOT_SOURCES).is_file().then(|| (sysroot.join("bin/rustc"), None))
}

fn debian_installed() -> Option<Candidate> {
    let sources = Path::new("/usr").join(SYSROOT_SOURCES);
    let rustc = PathBuf::from("/usr/bin/rustc");
    (sources.is_file() && rustc.is_file()).then_some((rustc, None))
}

fn debian_unpacked() -> Option<Candidate> {
    if !exists("dpkg-deb") {
        return None;
    }
    if let Err(error) = peers::provide_one(DEBIAN) {
        eprintln!("ebpf: {DEBIAN}: {error}");
        return None;
    }
    let folder = peers::folder(DEBIAN).join("usr");
    let libraries = folder.join("lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
    folder.join(SYSROOT_SOURCES).is_file().then(|| (folder.join("bin/rustc"), Some(libraries)))
}

/// `bpf-linker`, from the path or from crates.io into `target`.
fn linker() -> Result<PathBuf, String> {
    let root = target().join("ebpf/tools");
    let own = root.join("bin/bpf-linker");
    if own.is_file() {
        return Ok(own);
    }
    if exists("bpf-linker") {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path).map(|folder| folder.join("bpf-linker")).find(|file| file.is_file());
        return found.ok_or_else(|| "bpf-linker: not on the path any more".to_owned());
    }
    eprintln!("ebpf: building bpf-linker");
    let mut install = bounded(900, "cargo");
    install.args(["install", "--quiet", "--locked", "--version", LINKER, "bpf-linker", "--root"]).arg(&root);
    output(&mut install)?;
    Ok(own)
}
