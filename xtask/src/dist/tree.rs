//! The tree that both archives hold, and the tarball of it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use super::copyright;
use crate::command::{output, repository};

/// From the repository to the host, with their modes.
const FILES: [(&str, &str, u32); 11] = [
    ("config/gateway.toml", "etc/smtp-gateway/gateway.toml", 0o644),
    ("config/smtp-gateway.service", "usr/lib/systemd/system/smtp-gateway.service", 0o644),
    ("config/package/sysusers.conf", "usr/lib/sysusers.d/smtp-gateway.conf", 0o644),
    ("config/package/activate", "usr/lib/smtp-gateway/activate", 0o755),
    ("config/package/kernel-side.conf", "usr/share/smtp-gateway/kernel-side.conf", 0o644),
    ("config/package/transparent.conf", "usr/share/smtp-gateway/transparent.conf", 0o644),
    ("config/demo.toml", "usr/share/doc/smtp-gateway/examples/demo.toml", 0o644),
    ("config/gateway.toml", "usr/share/doc/smtp-gateway/examples/gateway.toml", 0o644),
    ("CHANGELOG.md", "usr/share/doc/smtp-gateway/CHANGELOG.md", 0o644),
    ("README.md", "usr/share/doc/smtp-gateway/README.md", 0o644),
    ("docs/operations.md", "usr/share/doc/smtp-gateway/operations.md", 0o644),
];

/// Lays the tree anew.
pub(super) fn lay(tree: &Path, binary: &Path, pages: &Path) -> Result<(), String> {
    if tree.exists() {
        fs::remove_dir_all(tree).map_err(|error| format!("{}: {error}", tree.display()))?;
    }
    put(binary, &tree.join("usr/bin/smtp-gateway"), 0o755)?;
    for (from, to, mode) in FILES {
        put(&repository().join(from), &tree.join(to), mode)?;
    }
    copy_all(pages, &tree.join("usr/share"))?;
    let copyright = tree.join("usr/share/doc/smtp-gateway/copyright");
    fs::write(&copyright, copyright::text()?).map_err(|error| format!("{}: {error}", copyright.display()))?;
    set_mode(&copyright, 0o644)?;
    folders(tree)
}

fn put(from: &Path, to: &Path, mode: u32) -> Result<(), String> {
    let done = to.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::copy(from, to));
    done.map_err(|error| format!("{} to {}: {error}", from.display(), to.display()))?;
    set_mode(to, mode)
}

fn copy_all(from: &Path, to: &Path) -> Result<(), String> {
    for entry in fs::read_dir(from).map_err(|error| format!("{}: {error}", from.display()))? {
        let entry = entry.map_err(|error| error.to_string())?.path();
        let target = to.join(entry.file_name().unwrap_or_default());
        if entry.is_dir() { copy_all(&entry, &target)? } else { put(&entry, &target, 0o644)? }
    }
    Ok(())
}

/// Folders may be entered by all, whatever this user's umask is.
fn folders(folder: &Path) -> Result<(), String> {
    set_mode(folder, 0o755)?;
    for entry in fs::read_dir(folder).map_err(|error| error.to_string())? {
        let path = entry.map_err(|error| error.to_string())?.path();
        if path.is_dir() {
            folders(&path)?;
        }
    }
    Ok(())
}

pub(super) fn set_mode(path: &Path, mode: u32) -> Result<(), String> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|error| format!("{}: {error}", path.display()))
}

/// Packs it as it would be unpacked over `/`.
pub(super) fn tar(tree: &Path, to: &Path, epoch: &str) -> Result<(), String> {
    let mut command = Command::new("tar");
    command.args([
        "--sort=name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--format=gnu",
        &format!("--mtime=@{epoch}"),
    ]);
    // `gzip -n` writes no time.
    command.args(["--use-compress-program=gzip -9n", "--exclude=./DEBIAN", "-cf"]).arg(to).arg("-C").arg(tree).arg(".");
    output(&mut command).map(drop)
}
