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
            Self::Unreadable(command, why) => {
                write!(f, "`{command}` prints what cannot be read ({why}); it must be iproute2 5.0 or newer")
            }
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

/// A rule that looks the table up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Present {
    /// If it is just as the gateway sets it.
    pub(super) rule: Option<Rule>,
    /// What takes it away.
    delete: String,
}

/// What of this family looks up the table now.
pub(super) fn present(family: Family) -> Result<Vec<Present>, RulesError> {
    let command = format!("ip -N -json {family} rule show");
    let printed = run(&command)?;
    parse(&printed, family).map_err(|error| RulesError::Unreadable(command, error.to_string()))
}

fn parse(printed: &[u8], family: Family) -> Result<Vec<Present>, serde_json::Error> {
    /// As `ip -N -json rule show` has it.
    #[derive(Deserialize)]
    struct Printed {
        priority: u32,
        #[serde(default)]
        table: String,
        src: Option<String>,
        srclen: Option<u8>,
        ipproto: Option<String>,
        sport: Option<u16>,
    }
    let shown: Vec<Printed> = serde_json::from_slice(printed)?;
    let ours = shown.into_iter().filter(|shown| shown.table == TABLE.to_string()).map(|shown| {
        let is_tcp = matches!(shown.ipproto.as_deref(), Some("tcp" | "ipproto-6" | "6"));
        let is_plain = is_tcp && shown.priority == TABLE && shown.srclen.is_none();
        let source = shown.src.as_deref().and_then(|source| source.parse().ok());
        match (source, shown.sport) {
            (Some(source), Some(port)) if is_plain => {
                let rule = Rule { source, port };
                Present { delete: format!("ip {family} rule del {rule}"), rule: Some(rule) }
            }
            // The kernel compares what is named, and takes the first that fits.
            _ => Present { rule: None, delete: format!("ip {family} rule del pref {} lookup {TABLE}", shown.priority) },
        }
    });
    Ok(ours.collect())
}

/// Makes the rules that are there those that are wanted; the commands that took. Each is told before the next is run.
pub(super) fn reconcile(wanted: &[Rule], tell: &mut dyn FnMut(&str)) -> Result<(), RulesError> {
    let mut commands = Vec::new();
    for family in [Family::V4, Family::V6] {
        let present = match present(family) {
            Ok(present) => present,
            // A host without this family needs nothing for it.
            Err(RulesError::Failed(..)) if wanted.iter().all(|rule| Family::of(rule.source) != family) => continue,
            Err(error) => return Err(error),
        };
        let wanted: Vec<_> = wanted.iter().filter(|rule| Family::of(rule.source) == family).collect();
        let is_wanted = |present: &&Present| present.rule.as_ref().is_some_and(|rule| wanted.contains(&rule));
        // Those that are named whole go first: the others take the first that fits.
        let stale = |whole: bool| present.iter().filter(move |present| present.rule.is_some() == whole);
        let stale = stale(true).chain(stale(false)).filter(|present| !is_wanted(present));
        commands.extend(stale.map(|present| present.delete.clone()));
        let is_routed = is_routed(family)?;
        if wanted.is_empty() && is_routed {
            commands.push(format!("ip {family} route del local default dev lo table {TABLE}"));
        }
        if !wanted.is_empty() && !is_routed {
            // Before the rules: a rule without a route lets answers go on to the next table, and away.
            commands.push(add_route(family));
        }
        let is_present = |rule: &&Rule| present.iter().any(|present| present.rule.as_ref() == Some(rule));
        commands.extend(wanted.into_iter().filter(|rule| !is_present(rule)).map(add_rule));
    }
    for command in &commands {
        run(command)?;
        tell(command);
    }
    Ok(())
}

/// Whether the table has its route. One that nobody has used is no table for IPv4.
pub(super) fn is_routed(family: Family) -> Result<bool, RulesError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_told_apart() {
        let line = |more: &str| format!(r#"{{"priority":25025,"table":"25025","src":"10.0.0.25"{more}}}"#);
        let ours = r#","ipproto":"ipproto-6","sport":25"#;
        for (shown, rule, delete) in [
            (line(ours), true, "ip -4 rule del pref 25025 from 10.0.0.25 ipproto tcp sport 25 lookup 25025"),
            (
                line(r#","ipproto":"tcp","sport":25"#),
                true,
                "ip -4 rule del pref 25025 from 10.0.0.25 ipproto tcp sport 25 lookup 25025",
            ),
            (line(r#","ipproto":"ipproto-17","sport":25"#), false, "ip -4 rule del pref 25025 lookup 25025"),
            (line(r#","srclen":24,"ipproto":"tcp","sport":25"#), false, "ip -4 rule del pref 25025 lookup 25025"),
            (line(""), false, "ip -4 rule del pref 25025 lookup 25025"),
            (line(ours).replace(":25025,", ":100,"), false, "ip -4 rule del pref 100 lookup 25025"),
        ] {
            let others = r#"{"priority":0,"src":"all","table":"255"},{"priority":5,"src":"all","goto":9}"#;
            let present = parse(format!("[{others},{shown}]").as_bytes(), Family::V4).unwrap();
            assert_eq!(present.len(), 1, "{shown}");
            assert_eq!((present[0].rule.is_some(), &*present[0].delete), (rule, delete), "{shown}");
        }
    }
}
