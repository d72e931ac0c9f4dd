//! Dovecot: as what tells a Postfix on the same host who users are, and as the submission service before that Postfix.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;

use super::log::{Log, Process};
use super::net::{BACK, Host};
use super::stage::Stage;
use super::tls::Files;

/// Where the Postfix beside it asks: a line of its main.cf.
pub const SASL: &str =
    "smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\nsmtpd_sasl_path = inet:127.0.0.1:12345\n";
const INET: &str = " inet_listener {\n address = 127.0.0.1\n port = 12345\n }\n";
/// Every user's password.
pub const PASSWORD: &str = "secret";
/// A user's token.
pub const TOKEN: &str = "good-token";

/// A running Dovecot.
#[derive(Debug)]
pub struct Dovecot {
    process: Process,
    _stage: Stage,
}

impl Dovecot {
    /// One that offers these mechanisms, once it answers.
    pub fn start(host: &Host, mechanisms: &str) -> Self {
        Self::asked_at(stage(), host, mechanisms, INET, &format!(" driver = static\n args = password={PASSWORD}\n"))
    }

    /// The same, asked at a socket of this path.
    pub fn at(host: &Host, mechanisms: &str, socket: &Path) -> Self {
        let listener = format!(" unix_listener {} {{\n mode = 0666\n }}\n", socket.display());
        Self::asked_at(
            stage(),
            host,
            mechanisms,
            &listener,
            &format!(" driver = static\n args = password={PASSWORD}\n"),
        )
    }

    /// One that lets in everybody who says who he is.
    pub fn trusting(host: &Host) -> Self {
        Self::asked_at(stage(), host, "plain login", INET, " driver = static\n args = nopassword=y\n")
    }

    /// One that knows users by tokens, about which it asks an issuer on the same host: [`TOKEN`] is this user's.
    pub fn with_tokens(host: &Host, user: &str) -> Self {
        let issuer = issuer(host, user);
        let stage = stage();
        stage.etc(
            "dovecot/oauth2.conf",
            &format!(
                "introspection_mode = post\nintrospection_url = http://{issuer}/introspect\nforce_introspection = yes\n\
                 username_attribute = username\nactive_attribute = active\nactive_value = true\n"
            ),
        );
        Self::asked_at(stage, host, "oauthbearer xoauth2", INET, " driver = oauth2\n args = /etc/dovecot/oauth2.conf\n")
    }

    /// Nobody is made to wait for having failed.
    fn asked_at(stage: Stage, host: &Host, mechanisms: &str, listener: &str, users: &str) -> Self {
        stage.etc(
            "dovecot/dovecot.conf",
            &format!(
                "protocols =\nlog_path = /dev/stdout\nssl = no\ndisable_plaintext_auth = no\nauth_mechanisms = {mechanisms}\n\
                 auth_verbose = yes\nauth_failure_delay = 0\nauth_username_format = %Lu\n\
                 passdb {{\n{users}}}\n\
                 userdb {{\n driver = static\n args = uid=65534 gid=65534 home=/var/empty\n}}\n\
                 service auth {{\n{listener}}}\n\
                 service anvil {{\n unix_listener anvil-auth-penalty {{\n mode = 0\n }}\n}}\n"
            ),
        );
        Self::launch(stage, host)
    }

    /// Its submission service, which hands on to a Postfix on port 25 of its host: STARTTLS and XCLIENT on port 587, a PROXY
    /// header and implicit TLS on 465. It takes nothing in clear.
    pub fn submission(host: &Host, files: &Files) -> Self {
        let mut stage = stage();
        stage.etc(
            "dovecot/dovecot.conf",
            &format!(
                "protocols = submission\nlog_path = /dev/stdout\nhostname = backend.test\nlisten = *\n\
                 ssl = required\nssl_cert = <{}\nssl_key = <{}\nlogin_trusted_networks = {gateway}\n\
                 haproxy_trusted_networks = {gateway}\nauth_mechanisms = plain login\nmail_location = maildir:/var/mail/users/%u\n\
                 passdb {{\n driver = static\n args = password={PASSWORD}\n}}\n\
                 userdb {{\n driver = static\n args = uid=65534 gid=65534 home=/var/mail/users/%u\n}}\n\
                 submission_relay_host = 127.0.0.1\nsubmission_relay_port = 25\nsubmission_relay_trusted = yes\n\
                 service submission-login {{\n inet_listener submission {{\n port = 587\n }}\n\
                 inet_listener submissions {{\n port = 465\n ssl = yes\n haproxy = yes\n }}\n}}\n",
                files.certificate.display(),
                files.key.display(),
                gateway = BACK[0],
            ),
        );
        stage.prepare("mkdir -p -m 777 /var/mail/users");
        Self::launch(stage, host)
    }

    fn launch(stage: Stage, host: &Host) -> Self {
        let process = stage.start(host, &["/usr/sbin/dovecot", "-F", "-c", "/etc/dovecot/dovecot.conf"]);
        process.log().wait_for(&["starting up"]);
        Self { process, _stage: stage }
    }

    /// What it says.
    pub fn log(&self) -> &Log {
        self.process.log()
    }
}

fn stage() -> Stage {
    let mut stage = Stage::new("dovecot");
    stage.user("dovecot");
    stage.user("dovenull");
    stage
}

/// Who issues tokens and is asked about them (RFC 7662), on this host. Its thread lives as long as the tests do.
fn issuer(host: &Host, user: &str) -> SocketAddr {
    let listener = host.within(|| TcpListener::bind("127.0.0.1:0")).expect("a listener");
    let address = listener.local_addr().expect("its address");
    let user = user.to_owned();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // Whoever asked may have gone.
            let _ = introspect(stream, &user);
        }
    });
    address
}

/// One question: a form with the token.
fn introspect(stream: TcpStream, user: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    while reader.read_line(&mut line)? > 2 {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
        line.clear();
    }
    let mut form = vec![0; length];
    reader.read_exact(&mut form)?;
    let is_good = form.windows(TOKEN.len()).any(|part| part == TOKEN.as_bytes());
    let answer =
        if is_good { format!("{{\"active\":true,\"username\":\"{user}\"}}") } else { "{\"active\":false}".to_owned() };
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        answer.len()
    );
    reader.into_inner().write_all(format!("{head}{answer}").as_bytes())
}
