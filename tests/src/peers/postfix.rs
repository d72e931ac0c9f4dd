//! Postfix: as a backend in several tempers, and as a client that delivers its own queue.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use super::log::{Log, Process};
use super::net::{BACK, BACKEND, Family, Host};
use super::stage::Stage;
use super::{Backend, LOCAL_DOMAIN};

/// What a Postfix makes of whoever connects to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Temper {
    /// XCLIENT from the gateway.
    Xclient,
    /// PROXY header in `smtpd`.
    Proxy,
    /// PROXY header in `postscreen`, which hands over to `smtpd`.
    Postscreen,
    /// PROXY header in `postscreen`, which holds its greeting back for six seconds, as it does unless it is told otherwise.
    PostscreenSlow,
    /// PROXY header in `postscreen`, which answers nobody before it has seen one whole session of his.
    PostscreenDeep,
    /// Trusts the gateway's address to relay, and knows neither XCLIENT nor PROXY.
    Confused,
    /// Trusts the gateway's address to relay, and takes XCLIENT from it. Strangers must end messages as RFC 5321 has it.
    TrustingXclient,
    /// Trusts the gateway's address to relay, and requires a PROXY header.
    TrustingProxy,
    /// Takes XCLIENT from the gateway, and lets relay the strangers that the relay proof plays.
    TrustingStrangers,
    /// Takes XCLIENT from the gateway, and lets everybody relay.
    TrustingEverybody,
    /// Takes XCLIENT from the gateway, lets 10.9.9.9 relay, and turns 10.9.9.66 away.
    Believing,
    /// Takes XCLIENT from the gateway, and mail for every user, of [`ROUTED`] too.
    CatchAll,
    /// Takes XCLIENT from the gateway, and asks everybody to come again, for local users.
    Greylisting,
    /// Takes XCLIENT from the gateway, and asks everybody to come again before it looks at the recipient.
    GreylistingFirst,
    /// Takes XCLIENT from the gateway, and blocks the strangers that the relay proof plays.
    Blocking,
    /// Takes XCLIENT from the gateway, takes users who are not there, and bounces their mail later.
    Bouncing,
    /// Takes XCLIENT from the gateway, refuses users who are not there, and takes local parts with `%` and `!`.
    Odd,
    /// Takes XCLIENT from the gateway, waits before it answers whoever has erred once, and ends sessions at the fifth error.
    Slow,
    /// Takes XCLIENT from the gateway, and no mail from clients without a name in DNS.
    Nameful,
    /// Requires a PROXY header, and takes no mail from clients without a name in DNS.
    NamefulProxy,
    /// Takes XCLIENT from the gateway, and wants senders' domains to exist, which it cannot find out.
    WithoutDns,
    /// Takes XCLIENT from the gateway, and one connection a minute from each address.
    Counting,
    /// Knows of no gateway, and lets one address hold two connections.
    PerSource,
    /// Takes XCLIENT from the gateway, and lets relay the network of the gateway's clients.
    TrustingFront,
    /// Knows of no gateway.
    Plain,
    /// Takes mail from its own host and sends it all to the gateway.
    Client,
}

/// Domains that scenarios send different ways.
pub const ROUTED: [&str; 3] = ["first.test", "second.test", "third.test"];

/// A running Postfix.
#[derive(Debug)]
pub struct Postfix {
    process: Process,
    stage: Stage,
    address: SocketAddr,
    taken: usize,
}

/// The users of tempers that know theirs.
const USERS: &str = "inline:{ {box@local.test = box/}, {postmaster@local.test = box/}}";

const SERVICES: &str = "\
smtpd     pass  -       -       n       -       -       smtpd
dnsblog   unix  -       -       n       -       0       dnsblog
pickup    unix  n       -       n       60      1       pickup
cleanup   unix  n       -       n       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
rewrite   unix  -       -       n       -       -       trivial-rewrite
bounce    unix  -       -       n       -       0       bounce
defer     unix  -       -       n       -       0       bounce
trace     unix  -       -       n       -       0       bounce
smtp      unix  -       -       n       -       -       smtp
error     unix  -       -       n       -       -       error
retry     unix  -       -       n       -       -       error
virtual   unix  -       n       n       -       -       virtual
anvil     unix  -       -       n       -       1       anvil
scache    unix  -       -       n       -       1       scache
postlog   unix-dgram n  -       n       -       1       postlogd
";

impl Postfix {
    /// A Postfix on a host, once it listens.
    pub fn start(host: &Host, temper: Temper) -> Self {
        Self::start_at(host, temper, Family::V4)
    }

    /// The same, with the address of this family as its [`Backend::address`].
    pub fn start_at(host: &Host, temper: Temper, family: Family) -> Self {
        let service = match temper {
            Temper::Postscreen | Temper::PostscreenSlow | Temper::PostscreenDeep => "smtp inet n - n - 1 postscreen\n",
            _ => "smtp inet n - n - - smtpd\n",
        };
        Self::launch(host, |mailbox| main_cf(temper, mailbox), service, family.smtp(BACKEND), |_| {})
    }

    /// On a port of its own, for several on one host.
    pub fn start_on(host: &Host, temper: Temper, port: u16) -> Self {
        let address = SocketAddr::new(Family::V4.ip(BACKEND), port);
        Self::launch(
            host,
            |mailbox| main_cf(temper, mailbox),
            &format!("{port} inet n - n - - smtpd\n"),
            address,
            |_| {},
        )
    }

    /// Kills all of it at once, as a power cut would.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Stops it as an administrator does, who waits for nobody.
    pub fn stop(&mut self) {
        let master = self.process.descendant("master").expect("its master");
        let status = Command::new("kill").args(["-TERM", &master.to_string()]).status().expect("kill");
        assert!(status.success());
        self.process.wait();
    }

    /// Starts it again, with what it had in its queue.
    pub fn revive(&mut self, host: &Host) {
        self.process = start(&self.stage, host);
    }

    /// Stops all of it where it is: connections stand, and nobody answers.
    pub fn freeze(&self) {
        self.process.signal_all("-STOP");
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.process.signal_all("-CONT");
    }

    /// From now on each session that begins is told 421 at its first recipient, or no longer.
    pub fn say_421(&self, does: bool) {
        let file = "postfix/main.cf";
        let busy = "smtpd_recipient_restrictions = check_client_access static:{421 4.3.2 Down for a moment}\n";
        let main = fs::read_to_string(self.stage.etc_path(file)).expect("its configuration");
        let main = main.replace(busy, "");
        self.stage.etc(file, &if does { main + busy } else { main });
        let master = self.process.descendant("master").expect("its master");
        let status = Command::new("kill").args(["-HUP", &master.to_string()]).status().expect("kill");
        assert!(status.success());
    }

    /// As somebody set it up: with these lines in main.cf and master.cf, beside an ordinary `smtpd` on port 25. It trusts
    /// nobody but itself, and is to be reached on this port.
    pub fn set_up(host: &Host, main: &str, master: &str, port: u16) -> Self {
        let address = SocketAddr::new(Family::V4.ip(BACKEND), port);
        let main = |mailbox| format!("{}{main}", main_cf(Temper::Plain, mailbox));
        Self::launch(host, main, &format!("smtp inet n - n - - smtpd\n{master}"), address, |_| {})
    }

    /// With one user, whom Cyrus SASL finds in a file of its own. These lines stand in main.cf too.
    pub fn with_cyrus(host: &Host, main: &str, user: &str, password: &str) -> Self {
        let (name, realm) = user.split_once('@').expect("a user of a domain");
        let sasl = format!(
            "smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = cyrus\nsmtpd_sasl_path = smtpd\n\
             cyrus_sasl_config_path = /etc/postfix/sasl\nsmtpd_sasl_local_domain = {realm}\n"
        );
        let main = |mailbox| format!("{}{main}{sasl}", main_cf(Temper::Plain, mailbox));
        let furnish = |stage: &mut Stage| {
            stage.etc(
                "postfix/sasl/smtpd.conf",
                "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: /var/lib/sasldb2\n\
                 mech_list: PLAIN LOGIN CRAM-MD5 DIGEST-MD5\n",
            );
            stage.prepare(&format!(
                "printf %s {password} | saslpasswd2 -c -p -f /var/lib/sasldb2 -u {realm} {name}\n\
                 chown postfix /var/lib/sasldb2"
            ));
        };
        Self::launch(host, main, "smtp inet n - n - - smtpd\n", Family::V4.smtp(BACKEND), furnish)
    }

    fn launch(
        host: &Host,
        main: impl FnOnce(u32) -> String,
        services: &str,
        address: SocketAddr,
        furnish: impl FnOnce(&mut Stage),
    ) -> Self {
        let mut stage = Stage::new("postfix");
        stage.user("postfix");
        stage.group("postdrop");
        let mailbox = stage.user("mailbox");
        stage.etc("postfix/main.cf", &main(mailbox));
        stage.etc("postfix/master.cf", &format!("{services}{SERVICES}"));
        stage.prepare(
            "cd /var/spool && mkdir -p postfix /var/lib/postfix && cd postfix\n\
             for d in active bounce corrupt defer deferred flush hold incoming private saved trace; do mkdir -pm 700 $d; done\n\
             mkdir -pm 710 public; mkdir -pm 730 maildrop; mkdir -pm 755 pid\n\
             chown postfix active bounce corrupt defer deferred flush hold incoming private saved trace /var/lib/postfix\n\
             chown postfix:postdrop public maildrop\n\
             chown mailbox:mailbox /var/mail",
        );
        furnish(&mut stage);
        let process = start(&stage, host);
        Self { process, stage, address, taken: 0 }
    }

    /// Waits for the next message, and takes it out of the mailbox. For one message at a time.
    pub fn next_message(&mut self) -> Vec<u8> {
        self.taken += 1;
        self.wait_for_deliveries(self.taken);
        let mut messages = self.mailbox();
        assert_eq!(messages.len(), 1, "messages in the mailbox");
        fs::remove_dir_all(self.stage.var("mail/box/new")).expect("the mailbox");
        messages.remove(0)
    }

    /// Waits until so many messages were delivered since it was started.
    pub fn wait_for_deliveries(&self, count: usize) {
        self.log().wait_for_count(&["status=sent (delivered to maildir)"], count);
    }

    /// Of each message in the mailbox its subject, and its name in the queue: who is stopped in the middle of a delivery makes
    /// it once more, under the same name.
    pub fn queued(&self) -> Vec<(String, String)> {
        let Ok(entries) = fs::read_dir(self.stage.var("mail/box/new")) else { return Vec::new() };
        let texts = entries.flatten().map(|entry| fs::read_to_string(entry.path()).expect("a delivered message"));
        let found = |text: String| {
            let behind = |mark: &str| text.split_once(mark).and_then(|(_, rest)| rest.split_whitespace().next());
            let (subject, id) = (behind("\nSubject: ")?, behind("SMTP id ")?);
            Some((subject.to_owned(), id.trim_end_matches(';').to_owned()))
        };
        texts.filter_map(found).collect()
    }

    /// What is in the mailbox now, with CRLF line ends, without the header fields this Postfix has put on top.
    pub fn mailbox(&self) -> Vec<Vec<u8>> {
        let Ok(entries) = fs::read_dir(self.stage.var("mail/box/new")) else { return Vec::new() };
        let read = |path| fs::read(path).expect("a delivered message");
        entries.flatten().map(|entry| as_sent(&read(entry.path()))).collect()
    }
}

impl Backend for Postfix {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn log(&self) -> &Log {
        self.process.log()
    }
}

fn start(stage: &Stage, host: &Host) -> Process {
    // Not `postfix start-fg`: its checks are for installations, and take longer than everything else.
    let process = stage.start(host, &["/usr/lib/postfix/sbin/master", "-s"]);
    process.log().wait_for(&["daemon started"]);
    process
}

fn main_cf(temper: Temper, mailbox: u32) -> String {
    let [back_v4, back_v6] = BACK;
    let name = if temper == Temper::Client { "relay.test" } else { "backend.test" };
    let xclient = format!("smtpd_authorized_xclient_hosts = {back_v4} [{back_v6}]");
    let own = match temper {
        Temper::Plain => "mynetworks = 127.0.0.0/8".to_owned(),
        Temper::Xclient => format!("mynetworks = 127.0.0.0/8\n{xclient}"),
        Temper::Proxy => "mynetworks = 127.0.0.0/8\nsmtpd_upstream_proxy_protocol = haproxy".to_owned(),
        // The shortest wait: these clients do not talk early, and the test waits as long.
        Temper::Postscreen => "mynetworks = 127.0.0.0/8\npostscreen_upstream_proxy_protocol = haproxy\n\
                               postscreen_greet_wait = 1s\npostscreen_cache_map ="
            .to_owned(),
        Temper::PostscreenSlow => "mynetworks = 127.0.0.0/8\npostscreen_upstream_proxy_protocol = haproxy\n\
                                     postscreen_greet_wait = 6s\npostscreen_cache_map ="
            .to_owned(),
        Temper::PostscreenDeep => "mynetworks = 127.0.0.0/8\npostscreen_upstream_proxy_protocol = haproxy\n\
                                   postscreen_greet_wait = 1s\npostscreen_bare_newline_enable = yes\n\
                                   postscreen_non_smtp_command_enable = yes\n\
                                   postscreen_cache_map = btree:/var/lib/postfix/postscreen"
            .to_owned(),
        Temper::Confused => format!("mynetworks = 127.0.0.0/8 {back_v4} [{back_v6}]"),
        Temper::TrustingXclient => {
            format!("mynetworks = 127.0.0.0/8 {back_v4} [{back_v6}]\n{xclient}\nsmtpd_forbid_bare_newline = normalize")
        }
        Temper::TrustingProxy => {
            format!("mynetworks = 127.0.0.0/8 {back_v4} [{back_v6}]\nsmtpd_upstream_proxy_protocol = haproxy")
        }
        Temper::TrustingStrangers => format!("mynetworks = 127.0.0.0/8 203.0.113.0/24 [2001:db8:ffff::]/48\n{xclient}"),
        Temper::TrustingEverybody => format!("mynetworks = 0.0.0.0/0 [::]/0\n{xclient}"),
        Temper::Believing => format!(
            "mynetworks = 127.0.0.0/8 10.9.9.9\n{xclient}\n\
             smtpd_client_restrictions = check_client_access inline:{{{{10.9.9.66 = REJECT}}}}"
        ),
        // What it had in its queue when it was killed comes soon.
        Temper::CatchAll => format!(
            "mynetworks = 127.0.0.0/8\n{xclient}\nqueue_run_delay = 1s\nminimal_backoff_time = 1s\n\
             maximal_backoff_time = 2s\ntransport_retry_time = 1s"
        ),
        Temper::Greylisting => format!(
            "mynetworks = 127.0.0.0/8\n{xclient}\n\
             smtpd_recipient_restrictions = check_recipient_access inline:{{{{{LOCAL_DOMAIN} = 450 4.2.0 Greylisted}}}}"
        ),
        Temper::GreylistingFirst => format!(
            "mynetworks = 127.0.0.0/8\n{xclient}\n\
             smtpd_client_restrictions = check_client_access static:{{450 4.2.0 Greylisted}}"
        ),
        Temper::Blocking => format!(
            "mynetworks = 127.0.0.0/8\n{xclient}\n\
             smtpd_client_restrictions = check_client_access cidr:{{{{203.0.113.0/24 REJECT blocked}}}}"
        ),
        Temper::Bouncing => format!("mynetworks = 127.0.0.0/8\n{xclient}\nsmtpd_reject_unlisted_recipient = no"),
        Temper::Odd => format!(
            "mynetworks = 127.0.0.0/8\n{xclient}\nallow_percent_hack = no\nswap_bangpath = no\n\
                                allow_untrusted_routing = yes"
        ),
        Temper::Slow => format!(
            "mynetworks = 127.0.0.0/8\n{xclient}\nsmtpd_error_sleep_time = 1s\nsmtpd_soft_error_limit = 1\n\
             smtpd_hard_error_limit = 5"
        ),
        Temper::Nameful => {
            format!("mynetworks = 127.0.0.0/8\n{xclient}\nsmtpd_client_restrictions = reject_unknown_client_hostname")
        }
        Temper::NamefulProxy => "mynetworks = 127.0.0.0/8\nsmtpd_upstream_proxy_protocol = haproxy\n\
                                 smtpd_client_restrictions = reject_unknown_client_hostname"
            .to_owned(),
        Temper::WithoutDns => {
            format!("mynetworks = 127.0.0.0/8\n{xclient}\nsmtpd_sender_restrictions = reject_unknown_sender_domain")
        }
        Temper::Counting => format!("mynetworks = 127.0.0.0/8\n{xclient}\nsmtpd_client_connection_rate_limit = 1"),
        Temper::PerSource => "mynetworks = 127.0.0.0/8\nsmtpd_client_connection_count_limit = 2".to_owned(),
        Temper::TrustingFront => format!("mynetworks = 127.0.0.0/8 192.0.2.0/24\n{xclient}"),
        Temper::Client => format!("mynetworks = 127.0.0.0/8\nrelayhost = [{}]", super::net::FRONT[0]),
    };
    let users = match temper {
        // Mailboxes for whoever is written to.
        Temper::Xclient | Temper::Proxy | Temper::Postscreen | Temper::Confused | Temper::Client | Temper::CatchAll => {
            "static:box/".to_owned()
        }
        Temper::Odd => format!("{USERS}, regexp:{{{{/[%!].*@/ box/}}}}"),
        _ => USERS.to_owned(),
    };
    let domains = match temper {
        Temper::Client => String::new(),
        Temper::CatchAll => format!("{LOCAL_DOMAIN} {}", ROUTED.join(" ")),
        _ => LOCAL_DOMAIN.to_owned(),
    };
    format!(
        "compatibility_level = 3.6\nmyhostname = {name}\nmaillog_file = /dev/stdout\n\
         inet_interfaces = all\ninet_protocols = all\nmydestination =\nalias_maps =\nlocal_recipient_maps =\n\
         virtual_mailbox_domains = {domains}\nvirtual_mailbox_base = /var/mail\nvirtual_mailbox_maps = {users}\n\
         virtual_uid_maps = static:{mailbox}\nvirtual_gid_maps = static:{mailbox}\nvirtual_mailbox_limit = 0\n\
         mailbox_size_limit = 0\nmessage_size_limit = 104857600\nsmtpd_relay_restrictions = permit_mynetworks, \
         reject_unauth_destination\nsmtpd_peername_lookup = no\nsmtp_dns_support_level = disabled\n\
         smtp_host_lookup = native\n{own}\n"
    )
}

/// Undoes a delivery: LF becomes CRLF, and the header up to and with Postfix's own first `Received:` goes.
fn as_sent(delivered: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(delivered.len() + delivered.len() / 32);
    let mut lines = delivered.split_inclusive(|&byte| byte == b'\n').peekable();
    while lines.next_if(|line| !line.starts_with(b"Received:")).is_some() {}
    lines.next();
    while lines.next_if(|line| line.starts_with(b" ") || line.starts_with(b"\t")).is_some() {}
    for line in lines {
        match line.strip_suffix(b"\n") {
            Some(text) => {
                message.extend_from_slice(text);
                message.extend_from_slice(b"\r\n");
            }
            None => message.extend_from_slice(line),
        }
    }
    message
}
