//! Policy routing by `ip` (iproute2): the rules that are there, and those that should be.
//!
//! One table and one priority are the gateway's: whatever looks up [`TABLE`] is its own, so what is wanted can be told from
//! what is not, and everything can be undone without a memory of what was done.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::process::{Command, Output, Stdio};

use serde::Deserialize;

/// The table, and the priority of the rules that look it up.
pub(super) const TABLE: u32 = 25_025;

/// What comes from this address and TCP port is for this host, whoever it is sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) source: IpAddr,
    pub(super) port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// Why the routing cannot be read or changed, in one sentence.
#[derive(Debug)]
pub(super) enum RulesError {
    /// `ip` cannot be run.
    NoProgram(io::Error),
    /// `ip` refuses.
    Failed(String, String),
    /// What it prints is not what it should be.
    Unreadable(String, String),
}

impl fmt::Display for RulesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProgram(error) => write!(f, "cannot run `ip`: {error}; install iproute2"),
            Self::Failed(command, why) if why.contains("not permitted") => {
                write!(f, "`{command}`: {why}; only root may change the routing")
            }
            Self::Failed(command, why) => write!(f, "`{command}`: {why}"),
            Self::Unreadable(command, why) => write!(f, "`{command}` prints what cannot be read: {why}"),
        }
    }
}

impl Family {
    pub(super) fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The setting that lets a host forward.
    pub(super) fn forwarding(self) -> &'static str {
        match self {
            Self::V4 => "net.ipv4.ip_forward=1",
            Self::V6 => "net.ipv6.conf.all.forwarding=1",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "-4",
            Self::V6 => "-6",
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pref {TABLE} from {} ipproto tcp sport {} lookup {TABLE}", self.source, self.port)
    }
}

pub(super) fn add_rule(rule: &Rule) -> String {
    format!("ip {} rule add {rule}", Family::of(rule.source))
}

/// Every address is this host's, for whoever is sent to the table.
pub(super) fn add_route(family: Family) -> String {
    format!("ip {family} route replace local default dev lo table {TABLE}")
}

/// The gateway's rules that are there now.
pub(super) fn present(family: Family) -> Result<Vec<Rule>, RulesError> {
    /// As `ip -json rule show` has it; a rule that is not of this shape is not one of ours.
    #[derive(Deserialize)]
    struct Shown {
        #[serde(default)]
        table: String,
        src: Option<IpAddr>,
        sport: Option<u16>,
    }
    let command = format!("ip -json {family} rule show");
    let printed = run(&command)?;
    let unreadable = |error: serde_json::Error| RulesError::Unreadable(command.clone(), error.to_string());
    let shown: Vec<serde_json::Value> = serde_json::from_slice(&printed).map_err(unreadable)?;
    let ours = shown.into_iter().filter_map(|rule| {
        let Shown { table, src, sport } = serde_json::from_value(rule).ok()?;
        (table == TABLE.to_string()).then_some(Rule { source: src?, port: sport? })
    });
    Ok(ours.collect())
}

/// Makes the rules that are there those that are wanted; the commands that took.
pub(super) fn reconcile(wanted: &[Rule]) -> Result<Vec<String>, RulesError> {
    let mut commands = Vec::new();
    for family in [Family::V4, Family::V6] {
        let present = match present(family) {
            Ok(present) => present,
            // A host without this family needs nothing for it.
            Err(RulesError::Failed(..)) if wanted.iter().all(|rule| Family::of(rule.source) != family) => continue,
            Err(error) => return Err(error),
        };
        let wanted: Vec<_> = wanted.iter().filter(|rule| Family::of(rule.source) == family).collect();
        let stale = present.iter().filter(|rule| !wanted.contains(rule));
        commands.extend(stale.map(|rule| format!("ip {family} rule del {rule}")));
        let is_routed = is_routed(family)?;
        if wanted.is_empty() && is_routed {
            commands.push(format!("ip {family} route del local default dev lo table {TABLE}"));
        }
        if !wanted.is_empty() && !is_routed {
            // Before the rules: a rule without a route lets answers go on to the next table, and away.
            commands.push(add_route(family));
        }
        commands.extend(wanted.into_iter().filter(|rule| !present.contains(rule)).map(add_rule));
    }
    for command in &commands {
        run(command)?;
    }
    Ok(commands)
}

/// Whether the table has its route. One that nobody has used is no table for IPv4.
fn is_routed(family: Family) -> Result<bool, RulesError> {
    match run(&format!("ip {family} route show table {TABLE}")) {
        Ok(printed) => {
            Ok(String::from_utf8_lossy(&printed).lines().any(|line| line.starts_with("local default dev lo")))
        }
        Err(RulesError::Failed(_, why)) if why.contains("does not exist") => Ok(false),
        Err(error) => Err(error),
    }
}

/// Runs a command of words without spaces.
fn run(command: &str) -> Result<Vec<u8>, RulesError> {
    let mut words = command.split_ascii_whitespace();
    let program = words.next().unwrap_or_default();
    let output = Command::new(program).args(words).stdin(Stdio::null()).output();
    let Output { status, stdout, stderr } = output.map_err(RulesError::NoProgram)?;
    if status.success() {
        return Ok(stdout);
    }
    let said = String::from_utf8_lossy(&stderr);
    Err(RulesError::Failed(command.to_owned(), said.lines().next().unwrap_or("it failed").to_owned()))
}
