//! `cert`: a self-signed certificate for a first start.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::tls::{SelfSigned, self_signed};

use super::failure::Failure;

#[derive(Debug, Args)]
pub(super) struct CertArguments {
    /// The host names that clients connect to
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// Where to write the certificate; its key goes beside it, with the extension .key
    #[arg(short, long, value_name = "FILE", default_value = "mx.pem")]
    out: PathBuf,
    /// How long it is good
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
}

pub(super) fn cert(arguments: &CertArguments) -> Result<(), Failure> {
    let CertArguments { names, out, days } = arguments;
    let key_file = out.with_extension("key");
    if key_file == *out {
        return Err(Failure::new("the certificate's name must not end in .key, which is the key's; write mx.pem"));
    }
    let SelfSigned { certificate, key } = self_signed(names, *days).map_err(Failure::new)?;
    // The key first: a certificate without one is of no use.
    create(&key_file, &key, 0o600)?;
    // A certificate is no secret, and whoever checks it by this file may be another user.
    create(out, &certificate, 0o644)?;
    println!("{} and {}, good for {days} days; under [tls] write:", out.display(), key_file.display());
    println!("certificates = [{{ certificate = \"{}\", key = \"{}\" }}]", out.display(), key_file.display());
    Ok(())
}

/// Never over what is there: it may be the only copy of a key.
fn create(path: &Path, content: &str, mode: u32) -> Result<(), Failure> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(|error| {
        Failure::new(match error.kind() {
            io::ErrorKind::AlreadyExists => format!("{} exists; move it away, or name another file", path.display()),
            _ => format!("cannot write {}: {error}", path.display()),
        })
    })?;
    file.write_all(content.as_bytes()).map_err(Failure::new)
}
