//! `cargo xtask deploy` and `install`: a package onto hosts, without loss, and the old one back where the new one is not ready
//! or proves worse. Every step is printed before it runs, as the shell command that it is, so that whoever reads along could
//! do it by hand; a host needs ssh, systemd, and dpkg or tar.

mod host;
mod steps;

use std::path::PathBuf;

use self::host::Host;
use crate::dist;

const USAGE: &str = "\
usage: cargo xtask deploy HOST… [--dry-run] [--package FILE | --rollback] [--ssh COMMAND]
       cargo xtask install      [--dry-run] [--package FILE | --rollback]

  Builds a package (or takes FILE, a .deb or .tar.gz of `cargo xtask dist`), and for one HOST after the other: copies it, lets
  the new program check the host's own configuration, installs it without loss, waits until it is ready, and shows status and
  relay proof. If it does not get ready, or its proof is worse than before, the old package is put back. The first host
  that fails is the last. --rollback installs the package that was there before; --dry-run only prints the steps. HOST is
  what ssh takes, and root there, or may use sudo without a password. COMMAND stands in for `ssh`, as in
  \"ssh -p 2222 -i key\". `install` does the same on this machine.
";

/// What is to be installed.
enum What {
    /// Built now.
    New,
    File(PathBuf),
    /// The one before.
    Previous,
}

struct Order {
    hosts: Vec<Host>,
    what: What,
    dry_run: bool,
}

/// On hosts, by ssh.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let (names, what, dry_run, ssh) = read(arguments)?;
    if names.is_empty() {
        return Err(USAGE.to_owned());
    }
    let ssh: Vec<String> = ssh.unwrap_or_else(|| "ssh".to_owned()).split_whitespace().map(str::to_owned).collect();
    let hosts = names.into_iter().map(|name| Host::ssh(&ssh, name)).collect();
    carry_out(Order { hosts, what, dry_run })
}

/// On this machine.
pub(crate) fn install(arguments: &[String]) -> Result<(), String> {
    let (names, what, dry_run, ssh) = read(arguments)?;
    if !names.is_empty() || ssh.is_some() {
        return Err(USAGE.to_owned());
    }
    carry_out(Order { hosts: vec![Host::this()], what, dry_run })
}

type Read = (Vec<String>, What, bool, Option<String>);

fn read(arguments: &[String]) -> Result<Read, String> {
    let (mut names, mut what, mut dry_run, mut ssh) = (Vec::new(), What::New, false, None);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--dry-run" => dry_run = true,
            "--rollback" => what = What::Previous,
            "--package" => what = What::File(rest.next().ok_or(USAGE)?.into()),
            "--ssh" => ssh = Some(rest.next().ok_or(USAGE)?.clone()),
            name if name.starts_with('-') => return Err(format!("there is no option {name}\n\n{USAGE}")),
            name => names.push(name.to_owned()),
        }
    }
    Ok((names, what, dry_run, ssh))
}

fn carry_out(Order { hosts, what, dry_run }: Order) -> Result<(), String> {
    let file = match what {
        What::Previous => None,
        What::File(file) if file.is_file() => Some(file),
        What::File(file) => return Err(format!("{}: there is no such file", file.display())),
        What::New => {
            println!("build: cargo xtask dist");
            let packed = dist::pack_for_host()?;
            Some(packed.package.unwrap_or(packed.tarball))
        }
    };
    let count = hosts.len();
    for (done, host) in hosts.into_iter().enumerate() {
        println!("\n{}:", host.name());
        let outcome = match &file {
            Some(file) => steps::deploy(&host, file, dry_run),
            None => steps::roll_back(&host, dry_run),
        };
        outcome.map_err(|error| match count - done - 1 {
            0 => format!("{}: {error}", host.name()),
            left => format!("{}: {error}\n{left} further host(s) were left as they are", host.name()),
        })?;
    }
    Ok(())
}
