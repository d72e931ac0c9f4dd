//! What workers count, one set each, so that no two cores write one cache line; readers add them up.

use std::collections::BTreeMap;
use std::sync::Arc;

use memchr::memchr;

use super::counts::Counts;
use super::declare::{Declaration, Kind, Label, label};
use super::handshakes::{AgreedCipher, AgreedGroup, AgreedVersion, HandshakeFault};
use super::numbers::{Counter, Durations, Family, FamilyTotals, Histogram, HistogramTotals, Sizes};
use super::refusals::RefusalCause;
use super::routes::RouteBook;

pub use super::outcome::MessageOutcome;

label! {
    /// How an exchange of AUTH ended.
    LoginOutcome {
        /// The backend knows the client.
        LoggedIn = "ok",
        /// 535.
        WrongPassword = "wrong-password",
        /// Another 5xx.
        Refused = "refused",
        /// 4xx, or no answer that can be used.
        Unavailable = "unavailable",
        /// The client broke it off, or could not be understood.
        Cancelled = "cancelled",
    }
}

label! {
    /// What somebody logged in by.
    LoginMechanism {
        /// RFC 7677, SHA-512.
        ScramSha512 = "SCRAM-SHA-512",
        /// RFC 7677.
        ScramSha256 = "SCRAM-SHA-256",
        /// RFC 5802.
        ScramSha1 = "SCRAM-SHA-1",
        /// RFC 2831.
        DigestMd5 = "DIGEST-MD5",
        /// RFC 2195.
        CramMd5 = "CRAM-MD5",
        /// RFC 4616.
        Plain = "PLAIN",
        /// draft-murchison-sasl-login.
        Login = "LOGIN",
        /// RFC 7628.
        OauthBearer = "OAUTHBEARER",
        /// Google's and Microsoft's.
        Xoauth2 = "XOAUTH2",
    }
}

label! {
    /// The class of a reply to a client, by its first digit.
    ReplyClass {
        /// 2yz.
        Positive = "2xx",
        /// 3yz.
        Intermediate = "3xx",
        /// 4yz.
        Transient = "4xx",
        /// 5yz.
        Permanent = "5xx",
    }
}

/// One number of [`Totals`], whatever its kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Without labels.
    Counter(u64),
    /// By the values of its one label.
    Family(Vec<(&'static str, u64)>),
    /// Upper bounds and counts, the sum of all, and how many.
    Histogram(Vec<(f64, u64)>, f64, u64),
}

macro_rules! counters {
    (
        counters { $($(#[doc = $help:literal])+ $name:ident,)+ }
        families { $($(#[doc = $family_help:literal])+ $family:ident: $label:ty = $label_name:literal,)+ }
        histograms { $($(#[doc = $histogram_help:literal])+ $histogram:ident: $scale:ty,)+ }
    ) => {
        /// One worker's counters. Only that worker writes them.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct Counters {
            $($(#[doc = $help])+ pub $name: Counter,)+
            $($(#[doc = $family_help])+ pub $family: Family<$label>,)+
            $($(#[doc = $histogram_help])+ pub $histogram: Histogram<$scale>,)+
        }

        impl Counters {
            /// Adds what another process counted; names that are not known are left out.
            pub fn absorb(&self, counts: &Counts) {
                $(self.$name.add(counts.of(stringify!($name)));)+
                $(if let Some(counts) = counts.0.get(stringify!($family)) { self.$family.absorb(counts) })+
                $(if let Some(counts) = counts.0.get(stringify!($histogram)) { self.$histogram.absorb(counts) })+
            }
        }

        /// The sum over all workers at one moment.
        #[derive(Debug, Default, Clone, Copy)]
        pub struct Totals {
            $($(#[doc = $help])+ pub $name: u64,)+
            $($(#[doc = $family_help])+ pub $family: FamilyTotals<$label>,)+
            $($(#[doc = $histogram_help])+ pub $histogram: HistogramTotals<$scale>,)+
        }

        /// Everything that workers count, in the order of [`Totals::values`].
        pub const DECLARATIONS: &[Declaration] = &[
            $(Declaration {
                name: stringify!($name), kind: Kind::Counter, labels: &[], help: concat!($($help),+).trim_ascii(),
            },)+
            $(Declaration {
                name: stringify!($family), kind: Kind::Counter, labels: &[$label_name],
                help: concat!($($family_help),+).trim_ascii(),
            },)+
            $(Declaration {
                name: stringify!($histogram), kind: Kind::Histogram, labels: &[],
                help: concat!($($histogram_help),+).trim_ascii(),
            },)+
        ];

        impl Totals {
            fn add(&mut self, counters: &Counters) {
                $(self.$name += counters.$name.value();)+
                $(self.$family.add(&counters.$family);)+
                $(self.$histogram.add(&counters.$histogram);)+
            }

            /// All of them, for another process.
            pub fn counts(&self) -> Counts {
                Counts(BTreeMap::from([
                    $((stringify!($name).to_owned(), BTreeMap::from([(String::new(), self.$name)])),)+
                    $((stringify!($family).to_owned(), labelled(&self.$family)),)+
                    $((stringify!($histogram).to_owned(), self.$histogram.counts()),)+
                ]))
            }

            /// Every number, in the order of [`DECLARATIONS`].
            pub fn values(&self) -> Vec<Value> {
                vec![
                    $(Value::Counter(self.$name),)+
                    $(Value::Family(by_label(&self.$family)),)+
                    $(Value::Histogram(
                        self.$histogram.buckets().collect(), self.$histogram.sum(), self.$histogram.count(),
                    ),)+
                ]
            }
        }
    };
}

counters! {
    counters {
        /// Connections that the system handed over.
        connections_total,
        /// Connections that became sessions.
        sessions_accepted_total,
        /// Connections turned away before a session began.
        sessions_refused_total,
        /// Sessions that are over.
        sessions_closed_total,
        /// Sessions that are over and brought nothing: no mail, no refusal, such as health checks and scanners.
        sessions_empty_total,
        /// Bytes read from clients, in sessions that are over.
        client_bytes_total,
        /// Recipients refused by the relay guard.
        relay_denied_total,
        /// Sessions in which the backend could not be told who the client is.
        identity_failures_total,
        /// Clients that talked before they were asked.
        early_talkers_total,
        /// Connections to backends that could not be made.
        dials_failed_total,
        /// Transactions that went on with another server of their backend, for theirs was lost.
        failovers_total,
        /// Sessions that are over and were in clear text to their end. Those whose TLS handshake failed are not among them.
        clear_sessions_total,
        /// Clients' TLS handshakes that took an earlier session up.
        tls_resumed_total,
        /// Messages accepted from clients over TLS; the others came in clear text.
        tls_messages_total,
        /// Sessions with backends that went on in clear text because a TLS handshake had failed.
        backend_clear_text_total,
        /// Relay proofs that have run.
        proofs_run_total,
        /// Relay proofs that found a relay, or trust in the gateway's address.
        proofs_found_total,
        /// Relay proofs that showed nothing.
        proofs_inconclusive_total,
    }
    families {
        /// Messages by how they ended.
        messages_total: MessageOutcome = "outcome",
        /// Logins by how they ended.
        logins_total: LoginOutcome = "outcome",
        /// Logins that the backend accepted, by mechanism.
        login_mechanisms_total: LoginMechanism = "mechanism",
        /// Replies to clients by class.
        replies_total: ReplyClass = "class",
        /// What the gateway itself refused, by cause.
        refusals_total: RefusalCause = "cause",
        /// Clients' TLS handshakes that came about, by version.
        tls_handshakes_total: AgreedVersion = "version",
        /// The same by cipher suite.
        tls_ciphers_total: AgreedCipher = "cipher",
        /// The same by key exchange.
        tls_groups_total: AgreedGroup = "group",
        /// Clients' TLS handshakes that did not come about, by cause.
        tls_faults_total: HandshakeFault = "cause",
    }
    histograms {
        /// How long a connection to a backend took.
        connect_seconds: Durations,
        /// How long a backend took to say its first word, from the connection on, or from the end of a TLS handshake that comes first.
        banner_seconds: Durations,
        /// How long a backend took from its first word to its open session, the client's identity accepted.
        identity_seconds: Durations,
        /// How long a backend took from the end of a message to its verdict.
        verdict_seconds: Durations,
        /// How long sessions lasted.
        session_seconds: Durations,
        /// Sizes of messages.
        message_bytes: Sizes,
    }
}

fn by_label<L: Label>(totals: &FamilyTotals<L>) -> Vec<(&'static str, u64)> {
    L::ALL.iter().map(|label| (label.as_str(), totals.of(*label))).collect()
}

fn labelled<L: Label>(totals: &FamilyTotals<L>) -> BTreeMap<String, u64> {
    L::ALL.iter().map(|label| (label.as_str().to_owned(), totals.of(*label))).collect()
}

impl Counters {
    /// Counts the replies in these bytes, which hold whole lines: the last line of each reply has a blank, or nothing,
    /// behind its code. Returns the code of the last one; 0 if there is none.
    pub fn count_replies(&self, replies: &[u8]) -> u16 {
        let (mut last, mut rest) = (0, replies);
        while !rest.is_empty() {
            let (line, behind) = rest.split_at(memchr(b'\n', rest).map_or(rest.len(), |end| end + 1));
            rest = behind;
            if let [class, second, third, b' ' | b'\r', ..] = line {
                let digit = |byte: &u8| u16::from(byte.saturating_sub(b'0'));
                last = digit(class) * 100 + digit(second) * 10 + digit(third);
                let class = match class {
                    b'2' => ReplyClass::Positive,
                    b'3' => ReplyClass::Intermediate,
                    b'4' => ReplyClass::Transient,
                    _ => ReplyClass::Permanent,
                };
                self.replies_total.increment(class);
            }
        }
        last
    }
}

impl Totals {
    /// Sessions that go on.
    pub fn sessions_active(&self) -> u64 {
        self.sessions_accepted_total.saturating_sub(self.sessions_closed_total)
    }
}

/// The counters of all workers, and of all routes.
#[derive(Debug, Clone)]
pub struct CounterSet {
    workers: Arc<[Arc<Counters>]>,
    routes: RouteBook,
}

impl CounterSet {
    /// For this many workers.
    pub fn new(workers: usize) -> Self {
        Self { workers: (0..workers).map(|_| Arc::default()).collect(), routes: RouteBook::default() }
    }

    /// One worker's own.
    pub fn of(&self, worker: usize) -> Arc<Counters> {
        self.workers[worker].clone()
    }

    /// What came by each route.
    pub fn routes(&self) -> &RouteBook {
        &self.routes
    }

    /// All that was counted, for another process.
    pub fn counts(&self) -> Counts {
        let mut counts = self.totals().counts();
        self.routes.add_to(&mut counts);
        counts
    }

    /// Adds what another process counted, to the last worker's own.
    pub fn absorb(&self, counts: &Counts) {
        if let Some(last) = self.workers.last() {
            last.absorb(counts);
        }
        self.routes.absorb(counts);
    }

    /// All of them added up.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for counters in self.workers.iter() {
            totals.add(counters);
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_sums_over_workers() {
        let set = CounterSet::new(2);
        set.of(0).relay_denied_total.increment();
        set.of(1).relay_denied_total.increment();
        set.of(1).sessions_accepted_total.increment();
        set.of(0).messages_total.increment(MessageOutcome::Rejected);
        set.of(1).messages_total.increment(MessageOutcome::Rejected);
        set.of(1).message_bytes.observe(7);
        let totals = set.totals();
        assert_eq!((totals.relay_denied_total, totals.sessions_accepted_total), (2, 1));
        assert_eq!((totals.messages_total.of(MessageOutcome::Rejected), totals.messages_total.sum()), (2, 2));
        assert_eq!(totals.message_bytes.count(), 1);
    }

    #[test]
    fn another_process_goes_on_counting() {
        let (old, new) = (CounterSet::new(1), CounterSet::new(1));
        let count = |set: &CounterSet| {
            let counters = set.of(0);
            counters.connections_total.increment();
            counters.messages_total.increment(MessageOutcome::Deferred);
            [0, 7, 70_000, u64::MAX >> 8].into_iter().for_each(|size| counters.message_bytes.observe(size));
        };
        count(&old);
        let handed_over = old.totals().counts();
        new.of(0).absorb(&handed_over);
        assert_eq!(new.totals().values(), old.totals().values());
        count(&old);
        count(&new);
        let more = old.totals().counts().since(&handed_over);
        assert_eq!(more.of("connections_total"), 1);
        new.of(0).absorb(&more);
        let expected = CounterSet::new(1);
        (0..3).for_each(|_| count(&expected));
        assert_eq!(new.totals().values(), expected.totals().values());
        assert!(old.totals().counts().since(&old.totals().counts()).is_empty());
        // What another version counts is no trouble.
        let unknown = r#"{"never_heard_of":{"":7},"messages_total":{"odd":7},"message_bytes":{"5":1,"x":9},"dials_failed_total":{}}"#;
        new.of(0).absorb(&serde_json::from_str(unknown).unwrap());
        assert_eq!(new.totals().message_bytes.count(), expected.totals().message_bytes.count() + 1);
    }

    #[test]
    fn every_declaration_has_its_value() {
        let values = Totals::default().values();
        assert_eq!(values.len(), DECLARATIONS.len());
        for (declaration, value) in DECLARATIONS.iter().zip(values) {
            let fits = match declaration.kind {
                Kind::Counter => matches!(value, Value::Counter(_) | Value::Family(_)),
                Kind::Histogram => matches!(value, Value::Histogram(..)),
                Kind::Gauge => false,
            };
            assert!(fits, "{declaration:?}");
        }
    }

    #[test]
    fn replies_are_counted_by_their_last_lines() {
        let set = CounterSet::new(1);
        let last = set
            .of(0)
            .count_replies(b"250-mx.example.com\r\n250-SIZE\r\n250 DSN\r\n354 go\r\n451 4.3.0 a 250 b\r\n550\r\n");
        assert_eq!((last, set.of(0).count_replies(b"250-")), (550, 0));
        let totals = set.totals().replies_total;
        let counts = [ReplyClass::Positive, ReplyClass::Intermediate, ReplyClass::Transient, ReplyClass::Permanent];
        assert_eq!(counts.map(|class| totals.of(class)), [1, 1, 1, 1]);
    }
}
