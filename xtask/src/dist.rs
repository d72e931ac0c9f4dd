//! `cargo xtask dist`: what goes onto hosts, a tarball and a Debian package of the same tree. Built twice from the same
//! sources they are the same, byte by byte: no time, no path and no order of a folder gets in.

mod copyright;
mod debian;
mod program;
mod tree;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{exists, output, repository, target};

const USAGE: &str = "\
usage: cargo xtask dist [--target TRIPLE] [--binary FILE] [--version VERSION]

  Builds the program for release, and packs it into target/dist: smtp-gateway_VERSION_ARCH.tar.gz, and where there is
  dpkg-deb, smtp-gateway_VERSION_ARCH.deb. TRIPLE is x86_64-unknown-linux-gnu or aarch64-unknown-linux-gnu; the other
  machine's needs its toolchain: `rustup target add TRIPLE`, and a C compiler for it, which also links: Debian's
  gcc-aarch64-linux-gnu or gcc-x86-64-linux-gnu. FILE is packed instead of what would be built, for the machine that it
  was built for, and VERSION stands in for the workspace's and its commit.
";

/// What was packed.
pub(crate) struct Packed {
    pub(crate) tarball: PathBuf,
    /// Where there is dpkg-deb.
    pub(crate) package: Option<PathBuf>,
}

/// What to pack.
#[derive(Default)]
struct Order {
    triple: Option<String>,
    binary: Option<PathBuf>,
    version: Option<String>,
}

pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let mut order = Order::default();
    for pair in arguments.chunks(2) {
        match pair {
            [flag, value] if flag == "--target" => order.triple = Some(value.clone()),
            [flag, value] if flag == "--binary" => order.binary = Some(value.into()),
            [flag, value] if flag == "--version" => order.version = Some(value.clone()),
            _ => return Err(USAGE.to_owned()),
        }
    }
    let Packed { tarball, package } = pack(order)?;
    println!("{}", tarball.display());
    match package {
        Some(package) => println!("{}", package.display()),
        None => println!("no Debian package: this machine has no dpkg-deb"),
    }
    Ok(())
}

/// Builds and packs for this machine.
pub(crate) fn pack_for_host() -> Result<Packed, String> {
    pack(Order::default())
}

fn pack(Order { triple, binary, version }: Order) -> Result<Packed, String> {
    let wanted = triple.as_deref().map(architecture).transpose()?;
    let version = version.map_or_else(workspace_version, Ok)?;
    let epoch = epoch()?;
    let binary = match binary {
        Some(file) => file,
        None => build(&triple.map_or_else(host, Ok)?, &epoch)?,
    };
    let program = program::read(&binary)?;
    let architecture = program.architecture;
    if let Some(wanted) = wanted.filter(|&wanted| wanted != architecture) {
        return Err(format!("{}: this program is for {architecture}, and not for {wanted}", binary.display()));
    }
    let name = format!("smtp-gateway_{version}_{architecture}");
    let tree = target().join("dist").join(&name);
    tree::lay(&tree, &binary, &pages(&epoch)?)?;
    let tarball = tree.with_file_name(format!("{name}.tar.gz"));
    tree::tar(&tree, &tarball, &epoch)?;
    let package = tree.with_file_name(format!("{name}.deb"));
    let package = if exists("dpkg-deb") {
        debian::package(&tree, &package, &version, &program, &epoch)?;
        Some(package)
    } else {
        None
    };
    Ok(Packed { tarball, package })
}

/// As dpkg calls it.
fn architecture(triple: &str) -> Result<&'static str, String> {
    match triple {
        "x86_64-unknown-linux-gnu" => Ok("amd64"),
        "aarch64-unknown-linux-gnu" => Ok("arm64"),
        other => Err(format!("there is no package for {other}\n\n{USAGE}")),
    }
}

fn host() -> Result<String, String> {
    let said = output(Command::new("rustc").arg("-vV"))?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "rustc -vV does not say what machine this is".to_owned())
}

/// The workspace's version; beyond the tag or without one, with the commit behind it, so that each build has its own.
fn workspace_version() -> Result<String, String> {
    let said = output(Command::new("cargo").args(["pkgid", "--package", "smtp-gateway"]).current_dir(repository()))?;
    let version = said.trim().rsplit(['#', '@']).next().unwrap_or_default().to_owned();
    let git = |arguments: &[&str]| output(Command::new("git").args(arguments).current_dir(repository()));
    if git(&["describe", "--exact-match", "--tags"]).is_ok_and(|tag| tag.trim().trim_start_matches('v') == version) {
        return Ok(version);
    }
    match (git(&["rev-list", "--count", "HEAD"]), git(&["rev-parse", "--short=8", "HEAD"])) {
        (Ok(count), Ok(commit)) => Ok(format!("{version}+{}.g{}", count.trim(), commit.trim())),
        _ => Ok(version),
    }
}

/// The commit's time, which stands for the build's; what `SOURCE_DATE_EPOCH` says goes before.
fn epoch() -> Result<String, String> {
    if let Ok(epoch) = std::env::var("SOURCE_DATE_EPOCH") {
        return Ok(epoch);
    }
    let said = output(Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(repository()));
    said.map(|epoch| epoch.trim().to_owned()).map_err(|error| format!("set SOURCE_DATE_EPOCH: {error}"))
}

/// A cargo that writes no path of this machine into what it builds.
fn cargo(epoch: &str) -> Command {
    let home =
        std::env::var("CARGO_HOME").unwrap_or_else(|_| format!("{}/.cargo", std::env::var("HOME").unwrap_or_default()));
    let (root, home) = (repository().display().to_string(), home);
    let mut command = Command::new("cargo");
    command
        .current_dir(repository())
        .env("SOURCE_DATE_EPOCH", epoch)
        .env("RUSTFLAGS", format!("--remap-path-prefix={root}=/source --remap-path-prefix={home}=/cargo"))
        .env("CFLAGS", format!("-ffile-prefix-map={root}=/source -ffile-prefix-map={home}=/cargo"));
    command
}

fn build(triple: &str, epoch: &str) -> Result<PathBuf, String> {
    let mut command = cargo(epoch);
    command.args([
        "build",
        "--quiet",
        "--locked",
        "--profile",
        "dist",
        "--package",
        "smtp-gateway",
        "--target",
        triple,
    ]);
    if let Some((variable, linker)) = linker(triple)? {
        command.env(variable, linker);
    }
    crate::command::visible(&mut command)?;
    Ok(target().join(triple).join("dist/smtp-gateway"))
}

/// What links for another machine than this, and the variable that tells cargo; none where cargo knows already.
///
/// # Errors
/// What is missing, as the commands that bring it.
fn linker(triple: &str) -> Result<Option<(String, String)>, String> {
    architecture(triple)?;
    let variable = format!("CARGO_TARGET_{}_LINKER", triple.replace('-', "_").to_uppercase());
    if triple == host()? {
        return Ok(None);
    }
    let compiler = triple.replace("-unknown", "") + "-gcc";
    let libraries = output(Command::new("rustc").args(["--print", "target-libdir", "--target", triple]))?;
    let mut missing = Vec::new();
    if !Path::new(libraries.trim()).is_dir() {
        missing.push(format!("rustup target add {triple}"));
    }
    let chosen = std::env::var_os(&variable).is_some();
    if !chosen && !exists(&compiler) {
        let package = triple.replace("-unknown", "").replace('_', "-");
        missing.push(format!("apt install gcc-{package}"));
    }
    match missing.is_empty() {
        true => Ok((!chosen).then_some((variable, compiler))),
        false => Err(format!("to build for {triple}, this machine lacks what these bring: {}", missing.join("; "))),
    }
}

/// Manual pages and completions, in a folder laid out as /usr/share.
fn pages(epoch: &str) -> Result<PathBuf, String> {
    let folder = target().join("dist/pages");
    let _ = std::fs::remove_dir_all(&folder);
    let mut command = Command::new("cargo");
    command.current_dir(repository()).env("SOURCE_DATE_EPOCH", epoch);
    command.args(["run", "--quiet", "--locked", "--package", "smtp-gateway", "--example", "pages", "--"]).arg(&folder);
    crate::command::visible(&mut command)?;
    Ok(folder)
}
