//! `reload`: the running gateway reads its configuration again.

use std::io::{self, Write as _};

use clap::Args;

use crate::control::{ProgramId, ReloadAnswer, ask_reload};

use super::failure::{BAD_CONFIG, Failure};
use super::socket::SocketArguments;
use super::upgrade::succeed;

#[derive(Debug, Args)]
pub(super) struct ReloadArguments {
    #[command(flatten)]
    socket: SocketArguments,
    /// Upgrade instead, where another program is installed than runs, or `upgrade` was asked for; for the unit's ExecReload=
    #[arg(long)]
    or_upgrade: bool,
}

pub(super) fn reload(arguments: &ReloadArguments) -> Result<(), Failure> {
    let socket = arguments.socket.path()?;
    let program = arguments.or_upgrade.then(ProgramId::own).transpose().map_err(Failure::new)?;
    match ask_reload(&socket, program)? {
        ReloadAnswer::Upgrade(how) => succeed(&how, &socket, arguments.socket.config()),
        ReloadAnswer::Reloaded { digest, kept } => {
            let mut stdout = io::stdout().lock();
            writeln!(stdout, "reloaded; the configuration's digest is {digest}").map_err(Failure::new)?;
            kept.iter().try_for_each(|sentence| writeln!(stdout, "! {sentence}")).map_err(Failure::new)
        }
        ReloadAnswer::Faulty { why } => {
            let message = format!("{}\n\nnothing was changed: the old configuration is in force", why.trim_end());
            Err(Failure { code: BAD_CONFIG, message })
        }
        ReloadAnswer::Failed { why } => {
            Err(Failure::new(format_args!("{why}\nnothing was changed: the old configuration is in force")))
        }
    }
}
