//! From a text to a [`Config`] or all of its faults.
//!
//! The text is read into TOML's own tree, which knows where each value stands, and the tree is walked once by hand: a
//! deserializer stops at the first fault and knows no places once it is done.

use std::path::Path;
use std::string::FromUtf8Error;

use toml::de::DeTable;

use super::diagnostics::{Fault, NamedText, Report};
use super::read::{Keys, Located, Section};
use super::read_route::ReadRoute;
use super::{
    Config, Control, Dns, Limits, Log, Metrics, Timeouts, abuse, endpoints, files, join, pool, proof, read_route,
    relay, sections, submission, syntax, tls,
};

/// Bytes of a configuration.
const CONFIG_MAX: u64 = 1 << 20;

/// Why a configuration was not loaded. Its display is what a mail administrator should read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read: which, why, and what to do.
    #[error("{0}")]
    Unreadable(String),
    /// The file was read, and these are its faults, sorted by place; never empty.
    #[error("{}", listed(.0))]
    Faulty(Vec<Fault>),
}

fn listed(faults: &[Fault]) -> String {
    let faults: Vec<_> = faults.iter().map(Fault::to_string).collect();
    faults.join("\n\n")
}

/// Reads and checks a file.
///
/// # Errors
/// The file cannot be read, or is no configuration: then every fault of it, each with its place and its mend.
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
    NamedText::new(name, &text).fault(&(at..at), message, "save the file as UTF-8, or write ASCII only".to_owned())
}

/// Checks a text. `file_name` is what faults name, and relative paths in the text start in its directory.
///
/// # Errors
/// Every fault of the text, sorted by place.
pub fn parse(text: &str, file_name: &str) -> Result<Config, Vec<Fault>> {
    walk(text, file_name).0
}

/// The same, and which keys were asked for.
pub(super) fn walk(text: &str, file_name: &str) -> (Result<Config, Vec<Fault>>, Keys) {
    let (tree, errors) = DeTable::parse_recoverable(text);
    let syntax = syntax::explain(text, &errors);
    let mut report = Report::new(NamedText::new(file_name, text), syntax.faults);
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

fn config<'a>(tree: &'a DeTable<'a>, directory: &Path, keys: &mut Keys, report: &mut Report<'_>) -> Config {
    let mut top = Section::new("", Some(Located { value: tree, span: 0..0 }), keys, report);
    let server = sections::server(top.table("[server]"));
    let listeners = top.tables("[[listener]]", |section, _| endpoints::listener(section));
    let backends = top.tables("[[backend]]", |section, index| pool::backend(section, index, directory));
    let routes = top.tables("[[route]]", |section, index| read_route::route(section, index, directory));
    let is_any_local = routes.iter().any(ReadRoute::is_local);
    let (mut relay, names_domains) = relay::relay(top.table("[relay]"), directory, is_any_local);
    let submission = submission::submission(top.table("[submission]"));
    let tls = tls::tls(top.table("[tls]"), directory);
    let limits = alone(top.table("[limits]"), Limits::read);
    let timeouts = alone(top.table("[timeouts]"), Timeouts::read);
    let bans = abuse::bans(top.table("[bans]"));
    let dns = alone(top.table("[dns]"), Dns::read);
    let xdp = abuse::xdp(top.table("[xdp]"));
    let control = alone(top.table("[control]"), Control::read);
    let metrics = alone(top.table("[metrics]"), Metrics::read);
    let log = alone(top.table("[log]"), Log::read);
    let facts = join::Facts {
        names_domains,
        has_certificates: !tls.certificates.is_empty(),
        has_clear_text_networks: !submission.clear_text_networks.is_empty(),
    };
    let (listeners, pools, backends, routes) = join::join(listeners, backends, routes, facts, top.report());
    for key in routes.iter().filter(|route| route.local).flat_map(|route| &route.recipients) {
        // It is a domain, or was reported.
        let _ = relay.local_domains.insert(&key.text);
    }
    let proof = proof::proof(top.table("[proof]"), &relay);
    top.finish();
    Config {
        server,
        listeners,
        pools,
        backends,
        routes,
        relay,
        proof,
        submission,
        tls,
        limits,
        timeouts,
        bans,
        dns,
        xdp,
        control,
        metrics,
        log,
    }
}

/// A table whose keys have nothing to do with one another.
fn alone<T>(mut section: Section<'_, '_, '_>, read: impl FnOnce(&mut Section<'_, '_, '_>) -> T) -> T {
    let table = read(&mut section);
    section.finish();
    table
}
