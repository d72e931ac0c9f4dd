//! Child processes for every verb: bounded in time, and with errors that say what was run and what it said.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// The repository's top folder.
pub(crate) fn repository() -> PathBuf {
    let mut path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    path.pop();
    path
}

/// Where cargo builds to.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from)
}

/// Whether a program of this name is on the path.
pub(crate) fn exists(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// A command that coreutils' `timeout` ends after so many seconds: a package mirror that stalls must not stall the tests.
pub(crate) fn bounded(seconds: u32, program: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", &seconds.to_string(), program]);
    command
}

/// Runs it silently; its standard output, or what went wrong.
pub(crate) fn output(command: &mut Command) -> Result<String, String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{}: cannot be started: {error}", shown(command)))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: Vec<&str> = said.lines().rev().take(12).collect();
    let said = said.into_iter().rev().collect::<Vec<_>>().join("\n  ");
    let cause = match output.status.code() {
        Some(124) => "took too long".to_owned(),
        Some(code) => format!("exit code {code}"),
        None => "killed".to_owned(),
    };
    Err(format!("{}: {cause}\n  {said}", shown(command)))
}

/// Runs it with this process's own terminal.
pub(crate) fn visible(command: &mut Command) -> Result<(), String> {
    let status = command.status().map_err(|error| format!("{}: cannot be started: {error}", shown(command)))?;
    if status.success() { Ok(()) } else { Err(format!("{}: {status}", shown(command))) }
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Asks a child to end (SIGTERM), and waits until it has.
pub(crate) fn end(child: &mut Child) {
    // One that has ended already needs no asking.
    let _ = output(Command::new("kill").args(["-TERM", &child.id().to_string()]));
    let _ = child.wait();
}
