//! `certificates`: those in use; `certificates renew` hands the gateway what only root may read.
//!
//! Which files are read is the configuration's word, and never the gateway's: root must not be led to read others.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::control::{CertificateList, RenewAnswer, Renewal, Secret, ask_renew, ask_status, render_certificates};
use crate::observe::show::printable;
use crate::tls::{PairFiles, PairText};

use super::failure::{DEFAULT_CONFIG, Failure, load};
use super::socket::{SocketArguments, shown};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct CertificatesArguments {
    #[command(subcommand)]
    verb: Option<CertificatesVerb>,
    #[command(flatten)]
    list: ListArguments,
}

#[derive(Debug, Args)]
struct ListArguments {
    #[command(flatten)]
    socket: SocketArguments,
    /// One JSON object instead of a page
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum CertificatesVerb {
    /// Read the configured files and hand them to the running gateway, which may not; for root, and for certbot's deploy hooks
    ///
    /// Exit codes: 0 all are in use, 1 one is not, and the old one stays in use, 3 not running.
    Renew(RenewArguments),
}

#[derive(Debug, Args)]
struct RenewArguments {
    /// The configuration that names the files
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// The control socket, if not the configuration's
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

pub(super) fn certificates(CertificatesArguments { verb, list }: &CertificatesArguments) -> Result<(), Failure> {
    match verb {
        None => show(list),
        Some(CertificatesVerb::Renew(arguments)) => renew(arguments),
    }
}

fn show(ListArguments { socket, json }: &ListArguments) -> Result<(), Failure> {
    let list = CertificateList { certificates: ask_status(&socket.path()?)?.certificates };
    let page =
        if *json { serde_json::to_string(&list).map_err(Failure::new)? + "\n" } else { render_certificates(&list) };
    shown(io::stdout().lock().write_all(page.as_bytes())).map(drop)
}

fn renew(RenewArguments { config, socket }: &RenewArguments) -> Result<(), Failure> {
    let config = load(config)?;
    let socket = socket.as_ref().unwrap_or(&config.control.socket);
    if config.tls.certificates.is_empty() {
        return Err(Failure::new("there is no certificate in `tls.certificates`"));
    }
    let mut faults = Vec::new();
    for listed in config.tls.certificates {
        let files = PairFiles { certificate: listed.certificate, key: listed.key };
        let text = match PairText::read(&files) {
            Ok(text) => text,
            Err(fault) => {
                faults.push(format!("{fault}; {}", fault.problem.help()));
                continue;
            }
        };
        // The gateway runs in another directory.
        let absolute = |path: &Path| std::path::absolute(path).map_err(Failure::new);
        let renewal = Renewal {
            certificate: absolute(&files.certificate)?,
            key: absolute(&files.key)?,
            certificate_text: Secret(text.certificate),
            key_text: Secret(text.key),
        };
        let file = files.certificate.display().to_string();
        let word = match ask_renew(socket, renewal)? {
            RenewAnswer::Exchanged => "is in use now",
            RenewAnswer::Unchanged => "was in use already",
            RenewAnswer::Kept { why } => {
                faults.push(format!("{why}\nthe old certificate stays in use"));
                continue;
            }
        };
        shown(writeln!(io::stdout().lock(), "{} {word}", printable(&file)))?;
    }
    if faults.is_empty() { Ok(()) } else { Err(Failure::new(faults.join("\n"))) }
}
