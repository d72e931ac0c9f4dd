//! `[relay]`: who may send where. Domains may stand in a file of their own, whose faults are reported in its own lines.

use std::path::Path;

use ipnet::IpNet;

use super::addresses::network;
use super::declare::{Each, table, words};
use super::diagnostics::{NamedText, Report, Span, quoted};
use super::files;
use super::read::{Located, Section, kind_of};
use super::values::word;
use crate::smtp::domains::DomainSet;

/// Bytes of a file of domains: half a million of them.
const DOMAIN_FILE_MAX: u64 = 16 << 20;

table! {
    /// `[relay]`: who may send where.
    pub struct Relay {
        /// Networks whose clients may send anywhere.
        allowed_networks: Vec<IpNet> = Vec::new(), Each(network);
        /// What follows when the proof finds that a backend relays for strangers.
        on_open: OnOpen = OnOpen::Guard, word;
    } and {
        /// Domains everybody may send to; a list, or the path of a file.
        local_domains: DomainSet = DomainSet::new();
    }
}

words! {
    /// `relay.on_open`: what follows when the proof finds that a backend relays for strangers.
    pub enum OnOpen {
        /// It is said.
        Warn = "warn",
        /// It is said, and strangers' recipients must be plain addresses of local domains, in no form that a backend could
        /// read as a route.
        Guard = "guard",
        /// All mail is answered 451 until it is mended.
        Defer = "defer",
    }
}

/// `directory` is where the configuration lies. Also: whether domains are named, rightly or wrongly; here, or by routes.
pub(super) fn relay(mut section: Section<'_, '_, '_>, directory: &Path, routes_name_domains: bool) -> (Relay, bool) {
    let (local_domains, names_domains) = local_domains(&mut section, directory);
    let names_domains = names_domains || routes_name_domains;
    let relay = Relay { local_domains, ..Relay::read(&mut section) };
    let networks = section.value("allowed_networks");
    let names_networks =
        networks.is_some_and(|value| value.get_ref().as_array().is_none_or(|networks| !networks.is_empty()));
    if !names_domains && !names_networks {
        let header = section.header();
        let key = if header.is_some() { ("[relay]", "local_domains") } else { ("", "relay") };
        let place = section.value("local_domains").map(toml::Spanned::span).or(header);
        let message = "neither `relay.local_domains` nor `relay.allowed_networks` names anything: the gateway would \
                       refuse every recipient";
        let help = "write under `[relay]` the domains that the mail server receives mail for: \
                    `local_domains = [\"example.com\"]`";
        section.report().missing(key, place, message, help);
    }
    if let Some(Located { span, .. }) = section.locate("allowed_networks", ()) {
        let networks = section.elements("allowed_networks", network);
        refuse_everybody(&networks, &span, section.report());
    }
    section.finish();
    (relay, names_domains)
}

/// Networks that leave nobody out, one by one or together.
fn refuse_everybody(networks: &[Located<IpNet>], list: &Span, report: &mut Report<'_>) {
    let help = "name only networks whose mail you answer for, such as `\"192.168.1.0/24\"`";
    let mut found = false;
    for Located { value, span } in networks {
        if value.prefix_len() == 0 {
            found = true;
            let message = format!("`relay.allowed_networks` names `{value}`: this makes the gateway an open relay");
            report.fault(span, message, help);
        }
    }
    let all: Vec<_> = networks.iter().map(|network| network.value).collect();
    if !found && IpNet::aggregate(&all).iter().any(|network| network.prefix_len() == 0) {
        let message = "`relay.allowed_networks` names networks that together are every address: this makes the gateway \
                       an open relay";
        report.fault(list, message, help);
    }
}

/// The domains, and whether any are named.
fn local_domains(section: &mut Section<'_, '_, '_>, directory: &Path) -> (DomainSet, bool) {
    let mut domains = DomainSet::new();
    let Some(value) = section.value("local_domains") else { return (domains, false) };
    let Some(elements) = value.get_ref().as_array() else {
        let Some(name) = value.get_ref().as_str() else {
            let message = format!("`relay.local_domains` must be a list of domains, not {}", kind_of(value.get_ref()));
            let help = "write `local_domains = [\"example.com\"]`, or the path of a file with one domain a line";
            section.report().fault(&value.span(), message, help);
            return (domains, true);
        };
        let any = domain_file(name, &value.span(), directory, &mut domains, section.report());
        return (domains, any);
    };
    for element in elements {
        let Some(entry) = element.get_ref().as_str() else {
            let message = format!(
                "an element of `relay.local_domains` must be a domain in quotes, not {}",
                kind_of(element.get_ref())
            );
            section.report().fault(&element.span(), message, "write it in quotes, such as `\"example.com\"`");
            continue;
        };
        if domains.insert(entry).is_err() {
            section.report().fault(&element.span(), no_domain(entry), domain_help(entry));
        }
    }
    (domains, !elements.is_empty())
}

/// Reads a file of domains, one a line; whether it names any, or might if it could be read.
fn domain_file(name: &str, place: &Span, directory: &Path, domains: &mut DomainSet, report: &mut Report<'_>) -> bool {
    let path = directory.join(name);
    let bytes = match files::read_regular(&path, DOMAIN_FILE_MAX) {
        Ok(bytes) => bytes,
        Err(error) => {
            let shown = quoted(&path.to_string_lossy());
            let help = "name a readable file with one domain a line, or write the domains as a list: \
                        `local_domains = [\"example.com\"]`";
            report.fault(place, format!("`relay.local_domains` names the file {shown}, which {error}"), help);
            return true;
        }
    };
    let shown = path.to_string_lossy();
    let text = String::from_utf8_lossy(&bytes);
    let source = NamedText::new(&shown, &text);
    let mut any = false;
    let mut line_start = 0;
    for line in text.split_inclusive('\n') {
        let content = line.split('#').next().unwrap_or_default();
        let entry = content.trim_matches(is_blank);
        let skipped = content.len() - content.trim_start_matches(is_blank).len();
        let start = line_start + skipped;
        line_start += line.len();
        if entry.is_empty() {
            continue;
        }
        any = true;
        if domains.insert(entry).is_err() {
            let message = format!("{} is no domain", quoted(entry));
            report.elsewhere(&source, &(start..start + entry.len()), message, domain_help(entry));
        }
    }
    any
}

/// White space, and the mark that some editors put before the first line.
pub(super) fn is_blank(c: char) -> bool {
    c.is_whitespace() || c == '\u{feff}'
}

fn no_domain(entry: &str) -> String {
    format!("an element of `relay.local_domains` is {}, which is no domain", quoted(entry))
}

/// What was probably meant, or what a domain looks like.
fn domain_help(entry: &str) -> String {
    let bare = entry.rsplit('@').next().unwrap_or(entry);
    let suffix = bare.strip_prefix('*').unwrap_or(bare);
    let meant = suffix.trim_end_matches('.');
    if meant != entry && DomainSet::new().insert(meant).is_ok() {
        return format!("write `{meant}`");
    }
    "write `example.com`, `.example.com` for all its subdomains, or `[192.0.2.1]`".to_owned()
}
