//! TLS on loopback: a client that says exactly what it is told to, a mail server that tells what it heard under TLS, and a
//! gateway with a certificate between them.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use smtp_gateway::tls::{SelfSigned, self_signed};
use tempfile::TempDir;

use super::local::{LocalGateway, address, configuration, connect};
use super::log::PATIENCE;

/// Keys of a backend that is spoken to over TLS, whoever it is.
pub const UNCHECKED: &str = "tls = \"required\"\ntls_verify = \"none\"";

/// A certificate of two days, signed by itself.
pub fn made(name: &str) -> SelfSigned {
    self_signed(&[name.to_owned()], 2).expect("a certificate")
}

/// Text with whoever is at the other end.
#[derive(Debug)]
pub struct Speaker<S: Read + Write>(pub BufReader<S>);

impl<S: Read + Write> Speaker<S> {
    /// The next line; empty at the end, however it came.
    pub fn line(&mut self) -> String {
        self.next_line().unwrap_or_default()
    }

    /// The next line, if it comes whole.
    pub fn next_line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.0.read_line(&mut line);
        (read.is_ok() && line.ends_with('\n')).then(|| line.trim_end().to_owned())
    }

    /// Says it; a peer that is gone shows itself in what it answers.
    pub fn say(&mut self, text: &str) {
        let _ = self.0.get_mut().write_all(text.as_bytes());
    }

    /// The last line of the reply to a command.
    pub fn reply(&mut self, command: &str) -> String {
        self.say(command);
        loop {
            let line = self.line();
            if line.as_bytes().get(3) != Some(&b'-') {
                return line;
            }
        }
    }

    /// A whole session with one message.
    ///
    /// # Panics
    /// If any of it is refused.
    pub fn deliver(&mut self) {
        self.deliver_to("b@example.com");
    }

    /// The same, for this recipient.
    ///
    /// # Panics
    /// As [`Speaker::deliver`].
    pub fn deliver_to(&mut self, recipient: &str) {
        let rcpt = format!("RCPT TO:<{recipient}>\r\n");
        for (command, code) in [
            ("EHLO client.test\r\n", "250"),
            ("MAIL FROM:<a@client.test>\r\n", "250"),
            (&rcpt, "250"),
            ("DATA\r\n", "354"),
            ("Subject: secret\r\n\r\nText.\r\n.\r\n", "250"),
            ("QUIT\r\n", "221"),
        ] {
            let reply = self.reply(command);
            assert!(reply.starts_with(code), "{command}: {reply}");
        }
    }
}

/// A mail server that offers STARTTLS; each line it hears comes back marked by whether it was said under TLS.
#[derive(Debug)]
pub struct TlsBackend {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it has heard: whether that was under TLS, and the line.
    pub heard: Receiver<(bool, String)>,
}

/// Serves each connection so, in a thread of its own; where it listens.
pub fn listen(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind((address(), 0)).expect("a listener on loopback");
    let place = listener.local_addr().expect("a listener on loopback");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    });
    place
}

/// Reads to the end; what came.
pub fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    // A reset is an end as well; that it comes in time is looked at by the caller.
    let _ = stream.read_to_end(&mut rest);
    rest
}

/// What a mail server speaks with over TLS.
pub type TlsSpeaker = Speaker<StreamOwned<ServerConnection, TcpStream>>;

impl TlsBackend {
    /// One with a certificate for `backend.test`.
    pub fn start() -> Self {
        Self::offering("", take)
    }

    /// The same, which offers this extension over TLS, and does this at the end of a message that came over it.
    pub fn offering(extension: &'static str, verdict: fn(&mut TlsSpeaker)) -> Self {
        let SelfSigned { certificate, key } = made("backend.test");
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("TLS on loopback");
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("TLS on loopback");
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key);
        let config = Arc::new(config.expect("TLS on loopback"));
        let (sender, heard) = mpsc::channel();
        let address = listen(move |stream| {
            let mut clear = Speaker(BufReader::new(stream));
            clear.say("220 backend\r\n");
            if serve(&mut clear, false, &sender) {
                let tls = ServerConnection::new(config.clone()).expect("TLS on loopback");
                let stream = StreamOwned::new(tls, clear.0.into_inner());
                serve_until(&mut Speaker(BufReader::new(stream)), (true, extension), &sender, verdict);
            }
        });
        Self { address, heard }
    }

    /// What was heard until the message's end, of the session that brings one.
    pub fn until_message(&self) -> Vec<(bool, String)> {
        let mut all = Vec::new();
        loop {
            let heard = self.heard.recv_timeout(PATIENCE).expect("a message in time");
            let is_end = heard.1 == ".";
            all.push(heard);
            if is_end {
                return all;
            }
        }
    }
}

/// The usual verdict.
pub fn take<S: Read + Write>(speaker: &mut Speaker<S>) {
    speaker.say("250 2.0.0 taken\r\n");
}

/// Serves a session as far as it goes without TLS, or within; true if TLS is to begin.
pub fn serve<S: Read + Write>(speaker: &mut Speaker<S>, secured: bool, heard: &Sender<(bool, String)>) -> bool {
    serve_until(speaker, (secured, ""), heard, take)
}

fn serve_until<S: Read + Write>(
    speaker: &mut Speaker<S>,
    (secured, extension): (bool, &str),
    heard: &Sender<(bool, String)>,
    verdict: fn(&mut Speaker<S>),
) -> bool {
    let mut in_data = false;
    loop {
        let Some(line) = speaker.next_line() else { return false };
        let verb = line.get(..4).unwrap_or_default().to_owned();
        // The scenario may have seen enough.
        let _ = heard.send((secured, line.clone()));
        if in_data {
            in_data = line != ".";
            if !in_data {
                verdict(speaker);
            }
            continue;
        }
        match verb.as_str() {
            "EHLO" if secured && extension.is_empty() => speaker.say("250 backend\r\n"),
            "EHLO" if secured => speaker.say(&format!("250-backend\r\n250 {extension}\r\n")),
            "EHLO" => speaker.say("250-backend\r\n250 STARTTLS\r\n"),
            "STAR" => {
                speaker.say("220 go on\r\n");
                return true;
            }
            "DATA" => {
                in_data = true;
                speaker.say("354 go on\r\n");
            }
            "AUTH" => {
                let words = if line.starts_with("AUTH LOGIN") { 4 } else { 3 };
                for _ in line.split(' ').count()..words {
                    speaker.say("334 \r\n");
                    if speaker.next_line().is_none() {
                        return false;
                    }
                }
                speaker.say("235 2.7.0 Ok\r\n");
            }
            "BDAT" => {
                let count = line.split(' ').nth(1).and_then(|count| count.parse().ok()).unwrap_or_default();
                let mut octets = vec![0; count];
                if speaker.0.read_exact(&mut octets).is_err() {
                    return false;
                }
                if line.ends_with(" LAST") { verdict(speaker) } else { speaker.say("250 2.0.0 octets\r\n") }
            }
            "QUIT" => {
                speaker.say("221 bye\r\n");
                return false;
            }
            _ => speaker.say("250 Ok\r\n"),
        }
    }
}

/// A gateway with a certificate, before a backend.
#[derive(Debug)]
pub struct Scene {
    /// It.
    pub gateway: LocalGateway,
    /// Its certificate, PEM.
    pub certificate: String,
    _folder: TempDir,
}

impl Scene {
    /// `backend_tls` are keys of the backend, `listener` those of the listener.
    pub fn new(backend: SocketAddr, backend_tls: &str, listener: &str) -> Self {
        Self::with(backend, backend_tls, listener, "")
    }

    /// `more` are further keys of `[tls]`, and then whole sections.
    pub fn with(backend: SocketAddr, backend_tls: &str, listener: &str, more: &str) -> Self {
        let SelfSigned { certificate, key } = made("gateway.test");
        let folder = tempfile::tempdir().expect("TLS on loopback");
        let (pem, key_file) = (folder.path().join("mx.pem"), folder.path().join("mx.key"));
        std::fs::write(&pem, &certificate).expect("TLS on loopback");
        std::fs::write(&key_file, key).expect("TLS on loopback");
        std::fs::set_permissions(&key_file, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .expect("TLS on loopback");
        let front = (address(), 2525).into();
        let more = format!(
            "[tls]\ncertificates = [{{ certificate = \"{}\", key = \"{}\" }}]\n{more}",
            pem.display(),
            key_file.display()
        );
        let config = configuration(front, listener, backend, "none", &more);
        let config = config.replace("identity = \"none\"", &format!("identity = \"none\"\n{backend_tls}"));
        Self { gateway: LocalGateway::start(front, &config), certificate, _folder: folder }
    }

    /// A connection in clear, on which nothing was read yet.
    pub fn connect(&self) -> Speaker<TcpStream> {
        let stream = connect(Ipv4Addr::LOCALHOST, self.gateway.address).expect("TLS on loopback");
        stream.set_read_timeout(Some(PATIENCE)).expect("TLS on loopback");
        Speaker(BufReader::new(stream))
    }

    /// A client that insists on the gateway's certificate.
    pub fn secure(&self, clear: Speaker<TcpStream>) -> Speaker<StreamOwned<ClientConnection, TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("TLS on loopback"))
            .expect("TLS on loopback");
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let tls = ClientConnection::new(Arc::new(config), "gateway.test".try_into().expect("TLS on loopback"))
            .expect("TLS on loopback");
        Speaker(BufReader::new(StreamOwned::new(tls, clear.0.into_inner())))
    }

    /// The same, on a listener that begins in clear.
    pub fn starttls(&self) -> Speaker<StreamOwned<ClientConnection, TcpStream>> {
        let mut clear = self.connect();
        assert!(clear.line().starts_with("220 "));
        assert_eq!(clear.reply("EHLO client.test\r\n"), "250 STARTTLS");
        assert!(clear.reply("STARTTLS\r\n").starts_with("220 "));
        self.secure(clear)
    }
}
