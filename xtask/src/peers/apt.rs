//! Debian packages without installing them: `apt-get download`, `dpkg-deb -x`, and again for libraries that are missing.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{bounded, exists, output};

/// Libraries of libraries: deeper than this no package of ours goes.
const ROUNDS_MAX: usize = 6;

/// Unpacks the packages into `folder`, and the library packages their programs need and this machine lacks.
pub(super) fn unpack(packages: &[&str], folder: &Path) -> Result<(), String> {
    for program in ["apt-get", "dpkg-deb", "dpkg-query", "ldd"] {
        if !exists(program) {
            return Err(format!("{program} is not on the path: these peers are unpacked from Debian packages"));
        }
    }
    let debs = folder.join(".debs");
    let mut wanted: BTreeSet<String> = packages.iter().map(|&name| name.to_owned()).collect();
    let mut fetched = BTreeSet::new();
    for _ in 0..ROUNDS_MAX {
        let round = debs.join(fetched.len().to_string());
        fs::create_dir_all(&round).map_err(|error| format!("{}: {error}", round.display()))?;
        download(&wanted, &round)?;
        let mut libraries = BTreeSet::new();
        for deb in files(&round)? {
            output(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(folder))?;
            libraries.extend(library_dependencies(&deb)?);
        }
        merge_usr(folder)?;
        fetched.append(&mut wanted);
        let missing = missing_libraries(folder)?;
        if missing.is_empty() {
            return fs::remove_dir_all(&debs).map_err(|error| format!("{}: {error}", debs.display()));
        }
        wanted = libraries.into_iter().filter(|name| !fetched.contains(name) && !is_installed(name)).collect();
        if wanted.is_empty() {
            return Err(format!("no package brings {}", missing.into_iter().collect::<Vec<_>>().join(", ")));
        }
    }
    Err(format!("its libraries are still incomplete after {ROUNDS_MAX} rounds of packages"))
}

/// Installs one package into the system.
pub(super) fn install(package: &str) -> Result<(), String> {
    let install = || output(bounded(300, "apt-get").args(["install", "--yes", "--no-install-recommends", package]));
    install().or_else(|_| update().and_then(|()| install())).map(drop)
}

fn update() -> Result<(), String> {
    eprintln!("peers: apt-get update");
    output(bounded(300, "apt-get").arg("update")).map(drop)
}

/// Lists that are empty or out of date fail the first attempt.
fn download(packages: &BTreeSet<String>, folder: &Path) -> Result<(), String> {
    let attempt = || {
        let mut command = bounded(300, "apt-get");
        command.args(["download", "-o", "APT::Sandbox::User=root"]).args(packages).current_dir(folder);
        output(&mut command)
    };
    attempt().or_else(|_| update().and_then(|()| attempt())).map(drop)
}

/// Packages that still unpack to `/lib` or `/sbin` do so into links on the machine; the overlay is for `/usr` only.
fn merge_usr(folder: &Path) -> Result<(), String> {
    for name in ["bin", "lib", "sbin"] {
        let from = folder.join(name);
        if from.is_dir() {
            let to = folder.join("usr").join(name);
            fs::create_dir_all(&to).map_err(|error| format!("{}: {error}", to.display()))?;
            output(Command::new("cp").arg("-a").arg(from.join(".")).arg(&to))?;
            fs::remove_dir_all(&from).map_err(|error| format!("{}: {error}", from.display()))?;
        }
    }
    Ok(())
}

/// The first choice of each dependency that is a library by its name; what programs need at run time is in no `-dev`.
fn library_dependencies(deb: &Path) -> Result<Vec<String>, String> {
    let depends = output(Command::new("dpkg-deb").arg("-f").arg(deb).arg("Depends"))?;
    let names = depends.split(',').filter_map(|dependency| dependency.split_whitespace().next());
    Ok(names.filter(|name| name.starts_with("lib") && !name.ends_with("-dev")).map(str::to_owned).collect())
}

fn is_installed(package: &str) -> bool {
    output(Command::new("dpkg-query").args(["-W", "-f=${db:Status-Status}", package]))
        .is_ok_and(|status| status == "installed")
}

/// What the dynamic linker would not find, with the folder's own libraries in view.
fn missing_libraries(folder: &Path) -> Result<BTreeSet<String>, String> {
    let programs: Vec<PathBuf> = walk(folder)?.into_iter().filter(|path| is_elf(path)).collect();
    let folders: BTreeSet<&Path> = programs.iter().filter(|path| is_library(path)).filter_map(|p| p.parent()).collect();
    let search = std::env::join_paths(folders).map_err(|error| error.to_string())?;
    let mut missing = BTreeSet::new();
    for program in &programs {
        // Not an error: `ldd` fails on programs that are linked statically.
        let Ok(list) = output(Command::new("ldd").arg(program).env("LD_LIBRARY_PATH", &search)) else { continue };
        let absent = list.lines().filter_map(|line| line.trim().strip_suffix("=> not found"));
        missing.extend(absent.map(|name| name.trim().to_owned()));
    }
    Ok(missing)
}

fn is_library(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().contains(".so"))
}

fn is_elf(path: &Path) -> bool {
    let mut magic = [0; 4];
    fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"\x7fELF"
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(|error| error.to_string())).collect()
}

/// Regular files below, links not followed.
fn walk(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for path in files(&folder)? {
            let kind = path.symlink_metadata().map_err(|error| format!("{}: {error}", path.display()))?;
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                found.push(path);
            }
        }
    }
    Ok(found)
}
