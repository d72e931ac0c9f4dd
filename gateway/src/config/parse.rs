//! From a text to a [`Config`] or all of its faults.
//!
//! The text is read into TOML's own tree, which knows where each value stands, and the tree is walked once by hand: a
//! deserializer stops at the first fault and knows no places once it is done.

use std::fmt;
use std::path::Path;
use std::string::FromUtf8Error;

use toml::de::DeTable;

use super::diagnostics::{Fault, Report, Source};
use super::read::{Keys, Located, Section};
use super::{Config, abuse, endpoints, files, proof, relay, sections, syntax};

/// Bytes of a configuration.
const CONFIG_MAX: u64 = 1 << 20;

/// Why a configuration was not loaded. Its display is what a mail administrator should read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadError {
    /// The file cannot be read: which, why, and what to do.
    Unreadable(String),
    /// The file was read, and these are its faults, sorted by place; never empty.
    Faulty(Vec<Fault>),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) => f.write_str(why),
            Self::Faulty(faults) => {
                for (index, fault) in faults.iter().enumerate() {
                    let gap = if index == 0 { "" } else { "\n\n" };
                    write!(f, "{gap}{fault}")?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for LoadError {}

/// Reads and checks a file.
pub fn load(path: &Path) -> Result<Config, LoadError> {
    let name = path.to_string_lossy();
    let bytes = files::read(path, CONFIG_MAX).map_err(|error| {
        let help = "give the path of a readable configuration file with `-c`";
        LoadError::Unreadable(format!("the configuration {name} {error}; {help}"))
    })?;
    let text = String::from_utf8(bytes).map_err(|error| LoadError::Faulty(vec![not_utf8(&name, &error)]))?;
    parse(&text, &name).map_err(LoadError::Faulty)
}

fn not_utf8(name: &str, error: &FromUtf8Error) -> Fault {
    let at = error.utf8_error().valid_up_to();
    let text = String::from_utf8_lossy(error.as_bytes());
    let message = "this is no UTF-8".to_owned();
    Source::new(name, &text).fault(&(at..at), message, "save the file as UTF-8, or write ASCII only".to_owned())
}

/// Checks a text. `file_name` is what faults name, and relative paths in the text start in its directory.
pub fn parse(text: &str, file_name: &str) -> Result<Config, Vec<Fault>> {
    walk(text, file_name).0
}

/// The same, and which keys were asked for.
pub(super) fn walk(text: &str, file_name: &str) -> (Result<Config, Vec<Fault>>, Keys) {
    let (tree, errors) = DeTable::parse_recoverable(text);
    let syntax = syntax::explain(text, &errors);
    let mut report = Report::new(Source::new(file_name, text), syntax.faults);
    let mut keys = Keys::default();
    if !syntax.tree_is_sound {
        return (Err(report.finish()), keys);
    }
    let directory = Path::new(file_name).parent().unwrap_or(Path::new(""));
    let config = config(tree.get_ref(), directory, &mut keys, &mut report);
    keys.judge(&mut report);
    let faults = report.finish();
    (if faults.is_empty() { Ok(config) } else { Err(faults) }, keys)
}

/// The top of the file: its tables.
struct Tables<'a> {
    server: Option<Located<&'a DeTable<'a>>>,
    listeners: Vec<Located<&'a DeTable<'a>>>,
    backends: Vec<Located<&'a DeTable<'a>>>,
    relay: Option<Located<&'a DeTable<'a>>>,
    proof: Option<Located<&'a DeTable<'a>>>,
    limits: Option<Located<&'a DeTable<'a>>>,
    timeouts: Option<Located<&'a DeTable<'a>>>,
    bans: Option<Located<&'a DeTable<'a>>>,
    dns: Option<Located<&'a DeTable<'a>>>,
    control: Option<Located<&'a DeTable<'a>>>,
    log: Option<Located<&'a DeTable<'a>>>,
    xdp: Option<Located<&'a DeTable<'a>>>,
}

fn tables<'a>(mut top: Section<'a, '_, '_>) -> Tables<'a> {
    let tables = Tables {
        server: top.table("server"),
        listeners: top.tables("listener"),
        backends: top.tables("backend"),
        relay: top.table("relay"),
        proof: top.table("proof"),
        limits: top.table("limits"),
        timeouts: top.table("timeouts"),
        bans: top.table("bans"),
        dns: top.table("dns"),
        control: top.table("control"),
        log: top.table("log"),
        xdp: top.table("xdp"),
    };
    top.refuse("tls", "this version has no TLS yet", "delete `[tls]`");
    top.refuse(
        "metrics",
        "this version serves no metrics yet",
        "delete `[metrics]`; `smtp-gateway status` shows the counters",
    );
    top.finish();
    tables
}

fn config<'a>(tree: &'a DeTable<'a>, directory: &Path, keys: &mut Keys, report: &mut Report<'_>) -> Config {
    let top = Located { value: tree, span: 0..0 };
    let tables = tables(Section::new("", Some(top), keys, report));
    let server = sections::server(Section::new("[server]", tables.server, keys, report));
    let listeners = tables.listeners.into_iter();
    let listeners = listeners.map(|table| endpoints::listener(Section::new("[[listener]]", Some(table), keys, report)));
    let listeners = listeners.collect();
    let backends = tables.backends.into_iter().enumerate();
    let backends = backends
        .map(|(index, table)| endpoints::backend(Section::new("[[backend]]", Some(table), keys, report), index))
        .collect();
    let relay = relay::relay(Section::new("[relay]", tables.relay, keys, report), directory);
    let proof = proof::proof(Section::new("[proof]", tables.proof, keys, report), &relay.guard);
    let limits = sections::limits(Section::new("[limits]", tables.limits, keys, report));
    let timeouts = sections::timeouts(Section::new("[timeouts]", tables.timeouts, keys, report));
    let bans = abuse::bans(Section::new("[bans]", tables.bans, keys, report));
    let dns = sections::dns(Section::new("[dns]", tables.dns, keys, report));
    let control = sections::control(Section::new("[control]", tables.control, keys, report));
    let log = sections::log(Section::new("[log]", tables.log, keys, report));
    let xdp = abuse::xdp(Section::new("[xdp]", tables.xdp, keys, report));
    let (listeners, backends) = endpoints::join(listeners, backends, relay.names_domains, report);
    Config {
        server,
        listeners,
        backends,
        relay: relay.guard,
        on_open: relay.on_open,
        proof,
        limits,
        timeouts,
        bans,
        dns,
        xdp,
        control,
        log,
    }
}
