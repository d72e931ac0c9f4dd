//! Writes what a package has of the command line: manual pages and completions, made from the arguments' own definition.
//! `cargo run --example pages -- FOLDER`; `cargo xtask dist` does it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

fn main() -> io::Result<()> {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        return Err(io::Error::other("name the folder that the pages go to"));
    };
    let mut command = smtp_gateway::cli::command();
    for (shell, path) in [
        (Shell::Bash, "bash-completion/completions/smtp-gateway"),
        (Shell::Zsh, "zsh/vendor-completions/_smtp-gateway"),
        (Shell::Fish, "fish/vendor_completions.d/smtp-gateway.fish"),
    ] {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap_or(&folder))?;
        clap_complete::generate(shell, &mut command, "smtp-gateway", &mut fs::File::create(path)?);
    }
    let manual = folder.join("man/man8");
    fs::create_dir_all(&manual)?;
    let mut command = command.disable_help_subcommand(true);
    // Gives each verb its whole name.
    command.build();
    page(command, &manual)
}

/// One page a verb: `smtp-gateway-ban.8`.
fn page(command: Command, folder: &Path) -> io::Result<()> {
    for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
        page(verb.clone(), folder)?;
    }
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let title = Man::new(command).section("8").manual("smtp-gateway");
    title.render(&mut fs::File::create(folder.join(format!("{name}.8")))?)
}
