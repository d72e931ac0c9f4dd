//! What all sessions of a sink share: its options, the replies that are always the same, and whom to tell.

use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use super::event::Event;
use super::maildir::Maildir;
use super::message::SIZE_MAX;
use super::options::Options;
use super::{SinkIdentity, xclient};

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) maildir: Option<Maildir>,
    pub(super) banner: Box<[u8]>,
    pub(super) helo: Box<[u8]>,
    /// The EHLO reply without and with XCLIENT.
    ehlo: [Box<[u8]>; 2],
    pub(super) counts: Counts,
}

/// Counters of the whole sink.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) sessions: AtomicU64,
    pub(super) messages: AtomicU64,
    pub(super) octets: AtomicU64,
}

impl Shared {
    pub(super) fn new(options: Options) -> io::Result<Self> {
        let hostname = &options.hostname;
        if hostname.is_empty() || hostname.contains(|c: char| !c.is_ascii_graphic()) {
            let text = format!("\"{hostname}\" is no host name: write one such as sink.example.com");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let ehlo = |last: &str| {
            format!(
                "250-{hostname}\r\n250-PIPELINING\r\n250-SIZE {SIZE_MAX}\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n\
                 250-ENHANCEDSTATUSCODES\r\n{last}"
            )
        };
        let boxed = |text: String| text.into_bytes().into_boxed_slice();
        let ehlo_xclient = format!("250-CHUNKING\r\n250 {}\r\n", xclient::OFFER);
        Ok(Self {
            banner: boxed(format!("220 {hostname} ESMTP sink\r\n")),
            helo: boxed(format!("250 {hostname}\r\n")),
            ehlo: [boxed(ehlo("250 CHUNKING\r\n")), boxed(ehlo(&ehlo_xclient))],
            maildir: options.maildir.as_deref().map(Maildir::open).transpose()?,
            counts: Counts::default(),
            options,
        })
    }

    /// The reply to EHLO of a client that may or may not use XCLIENT.
    pub(super) fn ehlo(&self, xclient: bool) -> &[u8] {
        &self.ehlo[usize::from(xclient)]
    }

    /// Whether `client` may use XCLIENT. As with Postfix this is asked of whom it claims to be, so a claim ends it.
    pub(super) fn may_xclient(&self, client: Option<IpAddr>) -> bool {
        let listed = |ip| self.options.xclient_from.iter().any(|network| network.contains(&ip));
        self.options.identity == SinkIdentity::Xclient && client.is_some_and(listed)
    }

    /// Whether `client` may send to any domain.
    pub(super) fn may_relay(&self, client: Option<IpAddr>) -> bool {
        client.is_some_and(|ip| self.options.trust.iter().any(|network| network.contains(&ip)))
    }

    /// Whether mail for `domain` is for us.
    pub(super) fn is_local(&self, domain: &str) -> bool {
        self.options.local_domains.iter().any(|local| local.eq_ignore_ascii_case(domain))
    }

    /// Whether anybody wants events.
    pub(super) fn is_watched(&self) -> bool {
        !self.options.quiet || self.options.observer.is_some()
    }

    pub(super) fn tell(&self, event: &Event) {
        if let Some(observer) = &self.options.observer {
            observer.tell(event);
        }
        let is_shown = !self.options.messages_only || matches!(event, Event::Message(_));
        if !self.options.quiet && is_shown {
            let line = format!("{event}\n");
            // Nobody reads any more: the mail still flows.
            let _ = io::stdout().write_all(line.as_bytes());
        }
    }

    pub(super) fn count_message(&self, octets: u64) {
        self.counts.messages.fetch_add(1, Ordering::Relaxed);
        self.counts.octets.fetch_add(octets, Ordering::Relaxed);
    }
}
