//! A machine that shell commands run on: this one, or one that ssh reaches.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Output, Stdio};

pub(super) struct Host {
    name: String,
    /// What a shell command is given to, as its last argument.
    shell: Vec<String>,
}

impl Host {
    pub(super) fn this() -> Self {
        Self { name: "this machine".to_owned(), shell: vec!["sh".to_owned(), "-c".to_owned()] }
    }

    pub(super) fn ssh(ssh: &[String], name: String) -> Self {
        let mut shell = ssh.to_vec();
        // A question that nobody answers would hold everything up; a host that is gone is found out.
        let options = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=15"];
        shell.extend(options.map(str::to_owned));
        shell.extend([name.clone(), "--".to_owned()]);
        Self { name, shell }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Runs a script as root; its standard output, or what it said went wrong.
    pub(super) fn run(&self, script: &str) -> Result<String, String> {
        let output = self.start(script, Stdio::null())?;
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        if output.status.success() {
            return Ok(said(&output.stdout));
        }
        Err(format!("{}\n{}", said(&output.stdout), said(&output.stderr)).trim().to_owned())
    }

    /// The same, and what it says in either case; whether it went well.
    pub(super) fn try_run(&self, script: &str) -> Result<(bool, String), String> {
        let output = self.start(script, Stdio::null())?;
        // 255 is ssh's own.
        if output.status.code() == Some(255) {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&text).trim_end().to_owned()))
    }

    /// Copies a file there.
    pub(super) fn copy(&self, from: &Path, to: &str) -> Result<(), String> {
        let file = File::open(from).map_err(|error| format!("{}: {error}", from.display()))?;
        let output = self.start(&format!("cat > {to}"), file.into())?;
        if output.status.success() {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }

    fn start(&self, script: &str, input: Stdio) -> Result<Output, String> {
        let mut command = Command::new(&self.shell[0]);
        command.args(&self.shell[1..]).arg(as_root(script)).stdin(input);
        command.output().map_err(|error| format!("{} cannot be started: {error}", self.shell[0]))
    }
}

/// One argument for a shell, whatever is in it.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn as_root(script: &str) -> String {
    let script = quoted(script);
    format!(
        "if [ \"$(id -u)\" = 0 ]; then exec sh -euc {script}; elif command -v sudo >/dev/null; then exec sudo -n sh -euc {script}; \
         else echo 'root is needed here: log in as root, or install sudo' >&2; exit 1; fi"
    )
}
