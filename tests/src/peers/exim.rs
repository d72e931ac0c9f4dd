//! Exim: as a backend told of clients by a PROXY header, and as a client.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use super::log::{Log, Process};
use super::net::{BACK, BACKEND, Family, Host};
use super::stage::Stage;
use super::tls::Files;
use super::{Backend, LOCAL_DOMAIN};

/// Whom an Exim lets relay, and whom it believes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Nobody; it requires a PROXY header from the gateway.
    Nobody,
    /// Its `relay_from_hosts` are the gateway, and it knows of no PROXY header.
    GatewayBlindly,
    /// Its `relay_from_hosts` are the gateway, from which it requires a PROXY header.
    Gateway,
    /// Its `relay_from_hosts` are 10.9.9.9, and it requires a PROXY header from the gateway.
    Insider,
}

/// A running Exim.
#[derive(Debug)]
pub struct Exim {
    process: Process,
    _stage: Stage,
    address: SocketAddr,
}

impl Exim {
    /// An Exim on a host, once it listens. It requires a PROXY header from the gateway.
    pub fn start(host: &Host) -> Self {
        Self::trusting(host, Trust::Nobody)
    }

    /// An Exim that trusts somebody, once it listens. Its users are `box` and `postmaster`.
    pub fn trusting(host: &Host, trust: Trust) -> Self {
        Self::launch(host, &configuration(trust, &believes(trust)))
    }

    /// As somebody set it up: with these lines in its main section. It trusts nobody.
    pub fn set_up(host: &Host, main: &str) -> Self {
        Self::launch(host, &configuration(Trust::Nobody, main))
    }

    /// One that knows this user by itself, and other users by a Dovecot behind this socket.
    pub fn with_users(host: &Host, user: &str, password: &str, dovecot: &Path) -> Self {
        let authenticators = format!(
            "begin authenticators\n\
             plain:\n  driver = plaintext\n  public_name = PLAIN\n  server_prompts = :\n\
             \x20 server_condition = ${{if and{{{{eq{{$auth2}}{{{user}}}}}{{eq{{$auth3}}{{{password}}}}}}}}}\n\
             \x20 server_set_id = $auth2\n\
             login:\n  driver = plaintext\n  public_name = LOGIN\n  server_prompts = Username:: : Password::\n\
             \x20 server_condition = ${{if and{{{{eq{{$auth1}}{{{user}}}}}{{eq{{$auth2}}{{{password}}}}}}}}}\n\
             \x20 server_set_id = $auth1\n\
             cram_md5:\n  driver = cram_md5\n  public_name = CRAM-MD5\n\
             \x20 server_secret = ${{if eq{{$auth1}}{{{user}}}{{{password}}}fail}}\n  server_set_id = $auth1\n\
             digest_md5:\n  driver = dovecot\n  public_name = DIGEST-MD5\n  server_socket = {}\n\
             \x20 server_set_id = $auth1\n",
            dovecot.display()
        );
        let configuration = configuration(Trust::Nobody, &believes(Trust::Nobody));
        Self::launch(host, &format!("{configuration}{authenticators}"))
    }

    /// One that offers STARTTLS with this certificate, takes mail over TLS only, and requires a PROXY header from the gateway.
    pub fn encrypting(host: &Host, files: &Files) -> Self {
        let stage = Stage::new("exim");
        // Its own user reads them, in the process of each session.
        let read = |file| fs::read_to_string(file).expect("a file");
        stage.etc("exim4/tls.pem", &format!("{}{}", read(&files.certificate), read(&files.key)));
        let tls = "tls_advertise_hosts = *\ntls_certificate = /etc/exim4/tls.pem\nacl_smtp_mail = ${if def:tls_in_cipher \
                   {accept}{deny}}\n";
        Self::launch_on(stage, host, &configuration(Trust::Nobody, &format!("{}{tls}", believes(Trust::Nobody))))
    }

    fn launch(host: &Host, configuration: &str) -> Self {
        Self::launch_on(Stage::new("exim"), host, configuration)
    }

    fn launch_on(mut stage: Stage, host: &Host, configuration: &str) -> Self {
        furnish(&mut stage, configuration);
        // Exim writes its log as a user of its own, so the log cannot be this program's output: `tail` carries it there.
        stage.prepare("tail --quiet --follow --lines=+1 /var/log/exim/mainlog /var/log/exim/paniclog &");
        let process = stage.start(host, &["/usr/sbin/exim4", "-bdf", "-oX", "25"]);
        process.log().wait_for(&["daemon started", "port 25"]);
        Self { process, _stage: stage, address: Family::V4.smtp(BACKEND) }
    }
}

/// What Exim finds on a stage.
fn furnish(stage: &mut Stage, configuration: &str) {
    stage.user("Debian-exim");
    stage.etc("exim4/exim4.conf", configuration);
    stage.prepare(
        "mkdir -p /var/log/exim /var/spool/exim /run/exim4\n\
         touch /var/log/exim/mainlog /var/log/exim/paniclog /var/log/exim/rejectlog\n\
         chown -R Debian-exim:Debian-exim /var/log/exim /var/spool/exim /run/exim4 /var/mail",
    );
}

/// Makes an Exim stage's one of a client that sends all mail to this host, by a transport with these keys.
pub fn prepare_client(stage: &mut Stage, to: &str, transport: &str) {
    let configuration = format!(
        "primary_hostname = client.test\nlog_file_path = /var/log/exim/%slog\nspool_directory = /var/spool/exim\n\
         log_selector = +tls_certificate_verified +tls_sni\n\
         begin routers\ngateway:\n  driver = manualroute\n  route_list = * {to} byname\n  transport = gateway\n\
         begin transports\ngateway:\n  driver = smtp\n  {transport}\n"
    );
    furnish(stage, &configuration);
}

/// Sends a message on such a stage, and shows what was logged of it.
pub const SEND: [&str; 3] = [
    "sh",
    "-ec",
    "printf 'Subject: Exim\\n\\n.line\\n' | exim4 -odf -oi -f a@client.test box@local.test; cat /var/log/exim/mainlog",
];

impl Backend for Exim {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn log(&self) -> &Log {
        self.process.log()
    }
}

/// From whom it requires a PROXY header.
fn believes(trust: Trust) -> String {
    let [v4, v6] = BACK;
    match trust {
        Trust::GatewayBlindly => String::new(),
        Trust::Nobody | Trust::Gateway | Trust::Insider => format!("hosts_proxy = <; {v4} ; {v6}\n"),
    }
}

fn configuration(trust: Trust, proxy: &str) -> String {
    let [v4, v6] = BACK;
    let relay = match trust {
        Trust::Nobody => String::new(),
        Trust::GatewayBlindly | Trust::Gateway => format!("<; {v4} ; {v6}"),
        Trust::Insider => "10.9.9.9".to_owned(),
    };
    let tls = if proxy.contains("tls_advertise_hosts") { "" } else { "tls_advertise_hosts =\n" };
    let users = match trust {
        Trust::Nobody => "*",
        _ => "box : postmaster",
    };
    format!(
        "primary_hostname = backend.test\n\
         domainlist local_domains = {LOCAL_DOMAIN}\n\
         hostlist relay_from_hosts = {relay}\n{proxy}\
         log_file_path = /var/log/exim/%slog\nspool_directory = /var/spool/exim\nlog_selector = +proxy\n\
         host_lookup =\nrfc1413_query_timeout = 0s\n{tls}acl_smtp_rcpt = recipient\n\
         acl_smtp_data = accept\n\
         begin acl\nrecipient:\n  accept hosts = +relay_from_hosts\n\
         \x20 deny domains = !+local_domains\n    message = relay not permitted\n\
         \x20 accept local_parts = {users}\n  deny message = unknown user\n\
         begin routers\nbox:\n  driver = accept\n  domains = +local_domains\n  transport = box\n\
         begin transports\nbox:\n  driver = appendfile\n  file = /var/mail/box\n  user = Debian-exim\n"
    )
}
