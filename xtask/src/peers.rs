//! The mail servers and clients the scenarios run against, unpacked into `target/peers/NAME` and never installed.
//!
//! Distribution packages are unpacked, not installed: an installed mail server would start, claim port 25 and mail root.
//! The scenarios lay the unpacked tree over `/usr` in a mount namespace of their own, so a server finds its compiled-in
//! paths and the machine keeps its own. A stamp file holds the recipe a folder was made by; a changed recipe makes it
//! anew, an unchanged one costs nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{bounded, exists, output, target};

mod apt;

/// Where a peer comes from.
#[derive(Debug)]
enum Source {
    /// Debian packages; the libraries they need and the machine lacks come along.
    Apt(&'static [&'static str]),
    /// A package of the npm registry.
    Npm(&'static str),
    /// A package of PyPI.
    Pip(&'static str),
    /// A whole root file system of the current Debian, with these packages, to be booted in a container.
    Debian(&'static [&'static str]),
}

/// The release that packages are made for.
const RELEASE: &str = "bookworm";

const PEERS: [(&str, Source); 17] = [
    // With Cyrus SASL: its mechanisms, on both sides, and its file of users.
    ("postfix", Source::Apt(&["postfix", "sasl2-bin", "libsasl2-modules", "libsasl2-modules-db"])),
    // The light daemon is built without the PROXY protocol.
    ("exim", Source::Apt(&["exim4-daemon-heavy", "exim4-base"])),
    ("opensmtpd", Source::Apt(&["opensmtpd"])),
    // With what makes its configuration.
    ("sendmail", Source::Apt(&["sendmail-bin", "sendmail-cf", "m4"])),
    // With IPv6, TLS and every mechanism of SASL.
    (
        "swaks",
        Source::Apt(&[
            "swaks",
            "libio-socket-inet6-perl",
            "libsocket6-perl",
            "libnet-ssleay-perl",
            "libauthen-sasl-perl",
            "libdigest-hmac-perl",
        ]),
    ),
    ("msmtp", Source::Apt(&["msmtp"])),
    ("curl", Source::Apt(&["curl"])),
    ("openssl", Source::Apt(&["openssl"])),
    // It knows who users are, for a Postfix, and takes mail from them.
    ("dovecot", Source::Apt(&["dovecot-core", "dovecot-submissiond"])),
    ("dnsmasq", Source::Apt(&["dnsmasq-base"])),
    // A second judge of open relays, with its scripts and a library that is not named like one.
    ("nmap", Source::Apt(&["nmap", "nmap-common", "lua-lpeg"])),
    // promtool, which judges what monitoring reads.
    ("prometheus", Source::Apt(&["prometheus"])),
    ("haraka", Source::Npm("Haraka@~3.3")),
    ("aiosmtpd", Source::Pip("aiosmtpd~=1.4")),
    // What looks for faults of TLS.
    ("sslyze", Source::Pip("sslyze~=6.1")),
    // With what it calls.
    ("testssl", Source::Apt(&["testssl.sh", "openssl", "bsdextrautils", "procps", "ldnsutils"])),
    ("injection", Source::Pip("command-injection-tester~=0.0.2")),
];

/// What the benches compare with, a compiler for the BPF target, and what tests need that are left out of the ordinary run.
const OTHER_PEERS: [(&str, Source); 8] = [
    ("haproxy", Source::Apt(&["haproxy"])),
    ("nginx", Source::Apt(&["nginx", "libnginx-mod-mail"])),
    ("xdp-tools", Source::Apt(&["xdp-tools"])),
    ("nftables", Source::Apt(&["nftables"])),
    ("rustc-web", Source::Apt(&["rustc-web", "rust-web-src", "libstd-rust-web-dev"])),
    // What drives the browser that looks at the page, and what judges it there.
    ("puppeteer", Source::Npm("puppeteer-core@~24")),
    ("axe", Source::Npm("axe-core@~4")),
    // What packages are installed into, and deployed to.
    ("debian", Source::Debian(&["systemd", "systemd-sysv", "dbus", "openssh-server", "openssh-client", "iproute2"])),
];

const STAMP: &str = ".provided";

/// `cargo xtask peers`: all that tests need, or those that are named.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    if !arguments.is_empty() {
        return arguments.iter().try_for_each(|name| provide_one(name));
    }
    let missing = provide_all();
    if missing.is_empty() { Ok(()) } else { Err(format!("missing: {}", missing.join(", "))) }
}

/// Provides every peer; says loudly which it could not, and returns their names.
pub(crate) fn provide_all() -> Vec<&'static str> {
    let mut missing = Vec::new();
    if let Err(error) = provide_ip() {
        eprintln!("MISSING: ip: {error}");
        missing.push("ip");
    }
    for (name, source) in &PEERS {
        if let Err(error) = provide(name, source) {
            eprintln!("MISSING: {name}: {error}");
            missing.push(name);
        }
    }
    missing
}

/// Provides one peer, a bench's among them.
pub(crate) fn provide_one(name: &str) -> Result<(), String> {
    let known = PEERS.iter().chain(&OTHER_PEERS).find(|(known, _)| *known == name);
    let (name, source) = known.ok_or_else(|| format!("there is no peer `{name}`"))?;
    provide(name, source)
}

/// Where a peer is unpacked.
pub(crate) fn folder(name: &str) -> PathBuf {
    target().join("peers").join(name)
}

/// A program of an unpacked peer, with the libraries that came along in view.
pub(crate) fn command(name: &str, program: &str) -> Command {
    let folder = folder(name);
    let mut command = Command::new(folder.join(program));
    command.env("LD_LIBRARY_PATH", folder.join("usr/lib/x86_64-linux-gnu"));
    command
}

/// The one thing that is installed: without `ip` there are no network namespaces.
fn provide_ip() -> Result<(), String> {
    if exists("ip") {
        return Ok(());
    }
    eprintln!("peers: installing iproute2");
    apt::install("iproute2")
}

fn provide(name: &str, source: &Source) -> Result<(), String> {
    let folder = folder(name);
    let recipe = format!("{source:?}");
    if fs::read_to_string(folder.join(STAMP)).is_ok_and(|stamp| stamp == recipe) {
        return Ok(());
    }
    eprintln!("peers: providing {name}");
    // Built beside its place and moved there whole, so an interrupted run leaves nothing that looks complete.
    let partial = target().join("peers").join(format!(".{name}.partial"));
    remove(&partial)?;
    fs::create_dir_all(&partial).map_err(|error| format!("{}: {error}", partial.display()))?;
    match source {
        Source::Apt(packages) => apt::unpack(packages, &partial)?,
        Source::Npm(package) => npm(package, &partial)?,
        Source::Pip(package) => pip(package, &partial)?,
        Source::Debian(packages) => debian(packages, &partial)?,
    }
    fs::write(partial.join(STAMP), recipe).map_err(|error| format!("{}: {error}", partial.display()))?;
    remove(&folder)?;
    fs::rename(&partial, &folder).map_err(|error| format!("{}: {error}", folder.display()))
}

fn remove(folder: &PathBuf) -> Result<(), String> {
    if !folder.exists() {
        return Ok(());
    }
    fs::remove_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))
}

/// With the programs that make it and boot it, which are installed.
fn debian(packages: &[&str], folder: &Path) -> Result<(), String> {
    for (program, package) in [("mmdebstrap", "mmdebstrap"), ("systemd-nspawn", "systemd-container")] {
        if !exists(program) {
            eprintln!("peers: installing {package}");
            apt::install(package)?;
        }
    }
    let include = format!("--include={}", packages.join(","));
    // What is mounted in there meanwhile goes with the program, however it ends.
    let mut command = bounded(600, "unshare");
    command.args(["--mount", "mmdebstrap", "--quiet", "--variant=minbase", &include, RELEASE]).arg(folder);
    output(&mut command).map(drop)
}

fn npm(package: &str, folder: &Path) -> Result<(), String> {
    if !exists("npm") {
        return Err("npm is not on the path; install Node.js with npm".to_owned());
    }
    // Its native add-on is for syslog only, and would want a compiler.
    let options = ["--no-audit", "--no-fund", "--ignore-scripts", "--omit=optional", "--loglevel=error"];
    output(bounded(300, "npm").arg("install").args(options).arg("--prefix").arg(folder).arg(package)).map(drop)
}

fn pip(package: &str, folder: &Path) -> Result<(), String> {
    let options = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"];
    let mut command = bounded(300, "python3");
    output(command.args(options).arg(folder).arg(package))
        .map(drop)
        .map_err(|error| format!("{error}\n  Python 3 with pip is needed"))
}
