//! Writes what a package has of the command line: manual pages and completions, made from the arguments' own definition.
//! `cargo run --example pages -- FOLDER`; `cargo xtask dist` does it.

use std::fs;
use std::io;
use std::path::PathBuf;

use clap_complete::Shell;

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
    clap_mangen::generate_to(command.disable_help_subcommand(true), manual)
}
