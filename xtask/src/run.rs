//! `cargo xtask run`: the gateway with `config/demo.toml`, and a sink behind it, until interrupted.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use tokio::signal::unix::{SignalKind, signal};

use crate::command::{end, repository, target, visible};

const WHAT_TO_TRY: &str = "
The gateway listens on 127.0.0.1:2525. Behind it, on 127.0.0.1:2526, a small mail server says whose it believes each message to be.
Try, in another terminal:

  swaks --server 127.0.0.1:2525 --to user@example.com             accepted; the server below names the client
  swaks --server 127.0.0.1:2525 --to user@elsewhere.example       refused: 550 5.7.1, no relaying for strangers
  curl --crlf smtp://127.0.0.1:2525/client.example --mail-from a@client.example --mail-rcpt user@example.com -T README.md
  target/debug/smtp-gateway status -c config/demo.toml            what the gateway is doing
  target/debug/smtp-gateway selftest -c config/demo.toml          the relay proof, explained
  target/debug/smtp-gateway check -c config/gateway.toml          every key, with its default, is in that file

Ctrl-C ends both.
";

pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    if !arguments.is_empty() {
        return Err("`cargo xtask run` takes no arguments".to_owned());
    }
    visible(Command::new("cargo").args(["build", "-p", "smtp-gateway"]).current_dir(repository()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(both())
}

async fn both() -> Result<(), String> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    // Its sessions are those of the relay proof and of health checks, too: what is looked for are messages.
    let mut sink = start(&["sink", "--messages-only", "--listen", "127.0.0.1:2526", "--local-domain", "example.com"])?;
    let mut gateway = match start(&["run", "-c", "config/demo.toml"]) {
        Ok(gateway) => gateway,
        Err(error) => {
            end(&mut sink);
            return Err(error);
        }
    };
    println!("{WHAT_TO_TRY}");
    let died = async {
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            if matches!(gateway.try_wait(), Ok(Some(_))) || matches!(sink.try_wait(), Ok(Some(_))) {
                return;
            }
        }
    };
    let ended = tokio::select! {
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        () = died => Err("one of the two ended by itself; its last words stand above".to_owned()),
    };
    end(&mut gateway);
    end(&mut sink);
    ended
}

/// Starts the built program and waits for the line that says it is ready; what it prints later goes to the terminal.
fn start(arguments: &[&str]) -> Result<Child, String> {
    let program = target().join("debug/smtp-gateway");
    let mut command = Command::new(&program);
    command.args(arguments).current_dir(repository()).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{}: {error}", program.display()))?;
    let mut stdout = BufReader::new(child.stdout.take().ok_or("no standard output")?);
    let mut line = String::new();
    if stdout.read_line(&mut line).map_err(|error| error.to_string())? == 0 {
        end(&mut child);
        return Err(format!("`smtp-gateway {}` did not start; it says why above", arguments.join(" ")));
    }
    std::thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            println!("{line}");
        }
    });
    Ok(child)
}
