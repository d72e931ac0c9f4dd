//! What a route goes by: recipients and users, written in the one form in which a look-up finds them.

use toml::de::DeValue;

use super::diagnostics::quoted;
use super::read::{Complaint, Read};
use super::values::text;
use crate::smtp::address::{Domain, ForwardPath, Mailbox, parse_literal};
use crate::smtp::domains::DomainSet;
use crate::smtp::labels::a_labels;

/// In which forms routes name whom they are for, besides whole domains. What none of them uses need not be looked up.
#[derive(Debug, Clone, Copy)]
pub struct KeyForms {
    /// A single mailbox or user.
    pub mailboxes: bool,
    /// `.suffix`
    pub suffixes: bool,
}

impl KeyForms {
    /// Each of them.
    pub const ALL: Self = Self { mailboxes: true, suffixes: true };
}

/// Calls `each` with every one of these forms in which a route may name this recipient: the mailbox, its domain, each `.suffix`
/// of that.
/// Letters are compared without case.
pub fn recipient_keys(mailbox: &Mailbox<'_>, forms: KeyForms, mut each: impl FnMut(&str)) {
    match mailbox.domain {
        Domain::Name(name) => {
            let Some(name) = a_labels(name) else { return };
            if forms.mailboxes {
                each(&mailbox_key(mailbox.local_part, &name));
            }
            each_domain(&name, forms, each);
        }
        Domain::Literal(address) => each(&format!("[{}]", address.to_canonical())),
        Domain::GeneralLiteral(_) => {}
    }
}

/// Calls `each` with every one of these forms in which a route may name this user: the name that he logs in by, its domain, each
/// `.suffix` of that. Letters are compared without case.
pub fn user_keys(name: &str, forms: KeyForms, mut each: impl FnMut(&str)) {
    let name = name.to_lowercase();
    match name.rsplit_once('@').and_then(|(local, domain)| Some((local, a_labels(domain)?))) {
        Some((local, domain)) => {
            if forms.mailboxes {
                each(&format!("{local}@{domain}"));
            }
            each_domain(&domain, forms, each);
        }
        None => each(&name),
    }
}

fn each_domain(name: &str, forms: KeyForms, mut each: impl FnMut(&str)) {
    each(name);
    if forms.suffixes {
        for at in memchr::memchr_iter(b'.', name.as_bytes()) {
            each(&name[at..]);
        }
    }
}

/// `local` in lower case, at `domain`; in one piece of memory where its letters are ASCII's.
fn mailbox_key(local: &str, domain: &str) -> String {
    if !local.is_ascii() {
        return format!("{}@{domain}", local.to_lowercase());
    }
    let mut key = String::with_capacity(local.len() + 1 + domain.len());
    key.push_str(local);
    key.make_ascii_lowercase();
    key.push('@');
    key.push_str(domain);
    key
}

/// Every key that takes all that this one does.
pub(super) fn covering(key: &str) -> Vec<String> {
    let mut keys = vec![key.to_owned()];
    let domain = key.rsplit_once('@').map_or(key, |(_, domain)| domain);
    if domain != key {
        keys.push(domain.to_owned());
    }
    let name = domain.strip_prefix('.').unwrap_or(domain);
    keys.extend(name.match_indices('.').map(|(at, _)| name[at..].to_owned()));
    keys
}

/// A domain, `.suffix` or mailbox, as [`recipient_keys`] writes it.
pub(super) fn recipient(value: &DeValue<'_>) -> Read<String> {
    let entry = text(value, "example.com")?;
    recipient_key(entry).ok_or_else(|| Complaint::new(format!("is {}", no_recipient(entry)), RECIPIENT_HELP))
}

pub(super) fn no_recipient(entry: &str) -> String {
    format!("{}, which is no recipient", quoted(entry))
}

pub(super) const RECIPIENT_HELP: &str =
    "write `example.com`, `.example.com` for all its subdomains, `[192.0.2.1]`, or a mailbox `user@example.com`";

pub(super) fn recipient_key(entry: &str) -> Option<String> {
    if !entry.contains('@') {
        return domain_key(entry);
    }
    let path = format!("<{entry}>");
    let Some((ForwardPath::Mailbox(mailbox), "")) = ForwardPath::parse(&path) else { return None };
    let mut key = None;
    recipient_keys(&mailbox, KeyForms::ALL, |form| {
        key.get_or_insert_with(|| form.to_owned());
    });
    key.filter(|key| key.contains('@'))
}

/// A name that somebody logs in by, a domain or a `.suffix`, as [`user_keys`] writes it.
pub(super) fn user(value: &DeValue<'_>) -> Read<String> {
    let entry = text(value, "user@example.com")?;
    let mut key = None;
    if entry.starts_with('.') || entry.is_ascii() && !entry.contains('@') {
        key = domain_key(entry);
    }
    let is_name = !entry.starts_with('.') && !entry.starts_with('@') && !entry.chars().any(char::is_control);
    if key.is_none() && is_name && !entry.trim().is_empty() {
        user_keys(entry, KeyForms::ALL, |form| {
            key.get_or_insert_with(|| form.to_owned());
        });
    }
    key.ok_or_else(|| {
        Complaint::new(
            format!("is {}, which is no user", quoted(entry)),
            "write the name that he logs in by, such as `user@example.com` or `user`, or a domain, `example.com` or \
             `.example.com`, for all whose names end so",
        )
    })
}

pub(super) fn domain(value: &DeValue<'_>) -> Read<String> {
    let entry = text(value, "example.com")?;
    domain_key(entry).ok_or_else(|| {
        Complaint::new(
            format!("is {}, which is no domain", quoted(entry)),
            "write `example.com`, or `.example.com` for all its subdomains",
        )
    })
}

fn domain_key(entry: &str) -> Option<String> {
    DomainSet::new().insert(entry).ok()?;
    if let Some(content) = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let Some(Domain::Literal(address)) = parse_literal(content) else { return None };
        return Some(format!("[{}]", address.to_canonical()));
    }
    match entry.strip_prefix('.') {
        Some(suffix) => a_labels(suffix).map(|name| format!(".{name}")),
        None => a_labels(entry).map(|name| name.into_owned()),
    }
}
