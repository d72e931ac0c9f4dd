//! `[submission]`: what holds where users send.

use ipnet::IpNet;
use toml::de::DeValue;

use super::addresses::network;
use super::declare::{Each, Maybe, table};
use super::diagnostics::quoted;
use super::read::{Complaint, Located, Read, Section};
use super::values::{MIB, integer, size, text};
use crate::smtp::domains::DomainSet;

table! {
    /// `[submission]`
    pub struct Submission: Default {
        /// Largest message in bytes; if not given, `limits.message_size`.
        message_size: Option<u64> = None, Maybe(size(1024..=10 * 1024 * MIB));
        /// Recipients a transaction; if not given, `limits.recipients`.
        recipients: Option<u32> = None, Maybe(integer(1..=100_000));
        /// Domains that may stand in MAIL FROM; none: all.
        senders: Vec<String> = Vec::new(), Each(domain);
        /// Networks whose clients may log in without TLS.
        clear_text_networks: Vec<IpNet> = Vec::new(), Each(network);
    }
}

pub(super) fn submission(mut section: Section<'_, '_, '_>) -> Submission {
    let submission = Submission::read(&mut section);
    for Located { value, span } in section.elements("clear_text_networks", network) {
        if value.prefix_len() == 0 {
            let message = format!(
                "`submission.clear_text_networks` names `{value}`: everybody's password could be read on its way"
            );
            let help = "name only networks that you trust with passwords, such as `\"192.168.1.31/32\"`";
            section.report().fault(&span, message, help);
        }
    }
    section.finish();
    submission
}

fn domain(value: &DeValue<'_>) -> Read<String> {
    let domain = text(value, "example.com")?;
    match DomainSet::new().insert(domain) {
        Ok(_) => Ok(domain.to_owned()),
        Err(_) => Err(Complaint::new(
            format!("is {}, which is no domain", quoted(domain)),
            "write `\"example.com\"`, or `\".example.com\"` for all its subdomains",
        )),
    }
}
