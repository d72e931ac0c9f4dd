//! The Debian package: the tree, and what dpkg is told of it. dpkg-deb alone is enough for that, and is on every host that
//! takes the package.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::program::Program;
use super::tree::set_mode;
use crate::command::{output, repository};

const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

pub(super) fn package(tree: &Path, to: &Path, version: &str, program: &Program, epoch: &str) -> Result<(), String> {
    let folder = tree.join("DEBIAN");
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    set_mode(&folder, 0o755)?;
    let write = |name: &str, text: &str, mode: u32| {
        let path = folder.join(name);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        set_mode(&path, mode)
    };
    write("control", &control(tree, version, program)?, 0o644)?;
    write("conffiles", "/etc/smtp-gateway/gateway.toml\n", 0o644)?;
    for script in SCRIPTS {
        let path = repository().join("config/package").join(script);
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        write(script, &text, 0o755)?;
    }
    let mut command = Command::new("dpkg-deb");
    command.env("SOURCE_DATE_EPOCH", epoch).args(["--root-owner-group", "-Zxz", "--threads-max=1", "--build"]);
    let built = output(command.arg(tree).arg(to)).map(drop);
    fs::remove_dir_all(&folder).map_err(|error| error.to_string())?;
    built
}

fn control(tree: &Path, version: &str, program: &Program) -> Result<String, String> {
    let size = output(Command::new("du").args(["-sk", "--apparent-size", "--exclude=DEBIAN"]).arg(tree))?;
    let size = size.split_whitespace().next().unwrap_or_default().to_owned();
    let Program { architecture, libc } = program;
    let libc = libc.as_ref().map_or_else(|| "libc6".to_owned(), |version| format!("libc6 (>= {version})"));
    Ok(format!(
        "Package: smtp-gateway\n\
         Version: {version}\n\
         Architecture: {architecture}\n\
         Maintainer: smtp-gateway developers <smtp-gateway@localhost>\n\
         Installed-Size: {size}\n\
         Depends: {libc}, systemd (>= 247)\n\
         Section: mail\n\
         Priority: optional\n\
         Homepage: https://github.com/smtp-gateway/smtp-gateway\n\
         Description: SMTP gateway that tells the mail server who the client is\n \
         Stands before a mail server, hands it the true client by XCLIENT, PROXY protocol or the client's own\n \
         address, proves that it relays for nobody, and keeps abuse away at the network card.\n"
    ))
}
