//! TLS on loopback: what a client says over it reaches a backend over it, and where it cannot be had nothing is said.

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
use tests::peers::local::{LocalGateway, address, configuration, connect};
use tests::peers::log::PATIENCE;

fn made(name: &str) -> SelfSigned {
    self_signed(&[name.to_owned()], 2).unwrap()
}

/// Text with whoever is at the other end.
struct Speaker<S: Read + Write>(BufReader<S>);

impl<S: Read + Write> Speaker<S> {
    /// The next line; empty at the end, however it came.
    fn line(&mut self) -> String {
        let mut line = String::new();
        let _ = self.0.read_line(&mut line);
        line.trim_end().to_owned()
    }

    /// Says it; a peer that is gone shows itself in what it answers.
    fn say(&mut self, text: &str) {
        let _ = self.0.get_mut().write_all(text.as_bytes());
    }

    /// The last line of the reply to a command.
    fn reply(&mut self, command: &str) -> String {
        self.say(command);
        loop {
            let line = self.line();
            if line.as_bytes().get(3) != Some(&b'-') {
                return line;
            }
        }
    }

    fn deliver(&mut self) {
        for (command, code) in [
            ("EHLO client.test\r\n", "250"),
            ("MAIL FROM:<a@client.test>\r\n", "250"),
            ("RCPT TO:<b@example.com>\r\n", "250"),
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
struct TlsBackend {
    address: SocketAddr,
    heard: Receiver<(bool, String)>,
}

impl TlsBackend {
    fn start() -> Self {
        let SelfSigned { certificate, key } = made("backend.test");
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key);
        let config = Arc::new(config.unwrap());
        let listener = TcpListener::bind((address(), 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, heard) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (config, sender) = (config.clone(), sender.clone());
                thread::spawn(move || {
                    let mut clear = Speaker(BufReader::new(stream));
                    clear.say("220 backend\r\n");
                    if serve(&mut clear, false, &sender) {
                        let tls = ServerConnection::new(config).unwrap();
                        let stream = StreamOwned::new(tls, clear.0.into_inner());
                        serve(&mut Speaker(BufReader::new(stream)), true, &sender);
                    }
                });
            }
        });
        Self { address, heard }
    }

    /// What was heard until the message's end, of the session that brings one.
    fn until_message(&self) -> Vec<(bool, String)> {
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

/// True if TLS is to begin.
fn serve<S: Read + Write>(speaker: &mut Speaker<S>, secured: bool, heard: &Sender<(bool, String)>) -> bool {
    let mut in_data = false;
    loop {
        let line = speaker.line();
        if line.is_empty() && !in_data {
            return false;
        }
        let verb = line.get(..4).unwrap_or_default().to_owned();
        // The scenario may have seen enough.
        let _ = heard.send((secured, line.clone()));
        if in_data {
            in_data = line != ".";
            if !in_data {
                speaker.say("250 2.0.0 taken\r\n");
            }
            continue;
        }
        match verb.as_str() {
            "EHLO" if secured => speaker.say("250 backend\r\n"),
            "EHLO" => speaker.say("250-backend\r\n250 STARTTLS\r\n"),
            "STAR" => {
                speaker.say("220 go on\r\n");
                return true;
            }
            "DATA" => {
                in_data = true;
                speaker.say("354 go on\r\n");
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
struct Scene {
    gateway: LocalGateway,
    certificate: String,
    _folder: TempDir,
}

impl Scene {
    fn new(backend: SocketAddr, backend_tls: &str, listener: &str) -> Self {
        Self::with(backend, backend_tls, listener, "")
    }

    /// `more` are whole sections.
    fn with(backend: SocketAddr, backend_tls: &str, listener: &str, more: &str) -> Self {
        let SelfSigned { certificate, key } = made("gateway.test");
        let folder = tempfile::tempdir().unwrap();
        let (pem, key_file) = (folder.path().join("mx.pem"), folder.path().join("mx.key"));
        std::fs::write(&pem, &certificate).unwrap();
        std::fs::write(&key_file, key).unwrap();
        std::fs::set_permissions(&key_file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let front = (address(), 2525).into();
        let more = format!(
            "{more}[tls]\ncertificates = [{{ certificate = \"{}\", key = \"{}\" }}]\n",
            pem.display(),
            key_file.display()
        );
        let config = configuration(front, listener, backend, "none", &more);
        let config = config.replace("identity = \"none\"", &format!("identity = \"none\"\n{backend_tls}"));
        Self { gateway: LocalGateway::start(front, &config), certificate, _folder: folder }
    }

    fn connect(&self) -> Speaker<TcpStream> {
        let stream = connect(Ipv4Addr::LOCALHOST, self.gateway.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Speaker(BufReader::new(stream))
    }

    /// A client that insists on the gateway's certificate.
    fn secure(&self, clear: Speaker<TcpStream>) -> Speaker<StreamOwned<ClientConnection, TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let tls = ClientConnection::new(Arc::new(config), "gateway.test".try_into().unwrap()).unwrap();
        Speaker(BufReader::new(StreamOwned::new(tls, clear.0.into_inner())))
    }

    fn starttls(&self) -> Speaker<StreamOwned<ClientConnection, TcpStream>> {
        let mut clear = self.connect();
        assert!(clear.line().starts_with("220 "));
        assert_eq!(clear.reply("EHLO client.test\r\n"), "250 STARTTLS");
        assert!(clear.reply("STARTTLS\r\n").starts_with("220 "));
        self.secure(clear)
    }
}

const UNCHECKED: &str = "tls = \"required\"\ntls_verify = \"none\"";

fn all_of_the_mail_was_secured(heard: &[(bool, String)]) {
    assert!(heard.iter().any(|(secured, line)| *secured && line == "Subject: secret"), "{heard:?}");
    let in_clear = heard.iter().filter(|(secured, _)| !secured).map(|(_, line)| line.as_str());
    let told = in_clear.clone().find(|line| !["EHLO gateway.test", "STARTTLS", "QUIT"].contains(line));
    assert_eq!(told, None, "said in clear");
}

#[test]
fn starttls_through_to_a_backend_over_tls() {
    let backend = TlsBackend::start();
    let scene = Scene::new(backend.address, UNCHECKED, "");
    scene.starttls().deliver();
    all_of_the_mail_was_secured(&backend.until_message());
}

#[test]
fn implicit_from_the_first_byte() {
    let backend = TlsBackend::start();
    let scene = Scene::new(backend.address, UNCHECKED, "tls = \"implicit\"");
    let mut client = scene.secure(scene.connect());
    assert!(client.line().starts_with("220 "));
    client.deliver();
    all_of_the_mail_was_secured(&backend.until_message());
}

#[test]
fn nothing_crosses_starttls() {
    let backend = TlsBackend::start();
    let scene = Scene::new(backend.address, UNCHECKED, "");
    let mut client = scene.connect();
    assert!(client.line().starts_with("220 "));
    let reply = client.reply("STARTTLS\r\nMAIL FROM:<injected@client.test>\r\n");
    assert!(reply.starts_with("554 5.5.0 "), "{reply}");
    assert_eq!(client.line(), "", "the session has ended");
    // What comes behind it tells that nothing of it came before.
    scene.starttls().deliver();
    let heard = backend.until_message();
    assert!(heard.iter().all(|(_, line)| !line.contains("injected")), "{heard:?}");
}

#[test]
fn a_wrong_certificate_gets_nothing_of_a_client() {
    let backend = TlsBackend::start();
    let pin = "0f".repeat(32);
    let keys = format!("tls = \"required\"\ntls_verify = \"pin\"\ntls_pins = [\"{pin}\"]");
    let scene = Scene::new(backend.address, &keys, "");
    let mut client = scene.starttls();
    assert!(client.reply("EHLO client.test\r\n").starts_with("250 "));
    let reply = client.reply("MAIL FROM:<a@client.test>\r\n");
    assert!(reply.starts_with("451 4.7.5 "), "{reply}");
    assert!(client.reply("QUIT\r\n").starts_with("221 "));
    let heard: Vec<_> = backend.heard.try_iter().collect();
    assert!(heard.iter().any(|(_, line)| line == "STARTTLS"), "TLS was tried: {heard:?}");
    let of_client = heard.iter().find(|(secured, line)| *secured || line.contains("client.test"));
    assert_eq!(of_client, None);
}

#[test]
fn where_tls_is_not_demanded_mail_goes_on_without() {
    // It says yes to STARTTLS, and what comes then is no TLS.
    let listener = TcpListener::bind((address(), 0)).unwrap();
    let backend = listener.local_addr().unwrap();
    let (sender, heard) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let sender = sender.clone();
            thread::spawn(move || {
                let mut clear = Speaker(BufReader::new(stream));
                clear.say("220 backend\r\n");
                if serve(&mut clear, false, &sender) {
                    // Behind the first octet of the handshake, or it would be told before TLS begins.
                    let _ = clear.0.read(&mut [0]);
                    clear.say("no TLS here\r\n");
                }
            });
        }
    });
    let backend = TlsBackend { address: backend, heard };
    let scene = Scene::new(backend.address, "tls = \"opportunistic\"", "");
    scene.starttls().deliver();
    let heard = backend.until_message();
    assert!(heard.iter().any(|(secured, line)| !secured && line == "Subject: secret"), "{heard:?}");
    assert!(heard.iter().any(|(_, line)| line == "STARTTLS"), "TLS was tried: {heard:?}");
    let status = scene.gateway.status();
    let problems = status["problems"].to_string();
    assert!(problems.contains("in clear text, for TLS with it fails"), "{problems}");
    assert_eq!(status["backends"][0]["healthy"], true);
}

#[test]
fn status_and_log_say_what_was_agreed_upon() {
    let backend = TlsBackend::start();
    let scene = Scene::new(backend.address, UNCHECKED, "");
    let mut client = scene.starttls();
    assert!(client.reply("EHLO client.test\r\n").starts_with("250 "));
    assert!(client.reply("MAIL FROM:<a@client.test>\r\n").starts_with("250 "));
    let output = tests::peers::local::run(scene.gateway.folder(), &["sessions", "--socket", "control.sock", "--json"]);
    let sessions: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let session = &sessions["sessions"][0];
    assert_eq!(session["tls"]["version"], "TLS 1.3", "{session}");
    assert_eq!(session["tls"]["group"], "X25519MLKEM768", "{session}");
    assert_eq!(session["backend_tls"]["verified"], false, "{session}");
    assert!(client.reply("RSET\r\n").starts_with("250 "));
    client.deliver();
    scene.gateway.log().wait_for(&[" tls=\"TLS 1.3", "backend_tls=\"TLS 1.3", "not verified"]);
    // One that gives up, one that speaks in clear, and one that begins with a handshake.
    let mut clear = scene.connect();
    assert!(clear.line().starts_with("220 ") && clear.reply("STARTTLS\r\n").starts_with("220 "));
    drop(clear);
    let mut clear = scene.connect();
    assert!(clear.line().starts_with("220 ") && clear.reply("STARTTLS\r\n").starts_with("220 "));
    clear.reply("EHLO client.test\r\n");
    let mut clear = scene.connect();
    assert!(clear.line().starts_with("220 "));
    let reply = clear.reply("\u{16}\u{3}\u{1}\u{0}\u{c8}");
    assert!(reply.starts_with("554 5.5.0 "), "{reply}");
    // And one that never asks for it.
    let mut clear = scene.connect();
    assert!(clear.line().starts_with("220 ") && clear.reply("QUIT\r\n").starts_with("221 "));
    let status = scene.gateway.status();
    let tls = &status["tls"];
    assert_eq!((&tls["messages_total"], &tls["sessions_total"]["TLS 1.3"]), (&1.into(), &1.into()), "{tls}");
    assert_eq!((&tls["clear_messages_total"], &tls["clear_sessions_total"]), (&0.into(), &1.into()), "{tls}");
    for cause in ["given-up", "clear-text", "hello-in-clear"] {
        assert_eq!(tls["faults_total"][cause], 1, "{cause}: {tls}");
    }
    assert_eq!(status["backends"][0]["tls"]["agreed"]["version"], "TLS 1.3");
    assert!(status["problems"].to_string().contains("is not verified"), "{status}");
}

/// Connections that were told to begin TLS, and do not.
fn half_open(scene: &Scene, sources: u8, each: usize) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for source in 1..=sources {
        for _ in 0..each {
            let stream = connect(Ipv4Addr::new(127, 9, 9, source), scene.gateway.address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut clear = Speaker(BufReader::new(stream));
            assert!(clear.line().starts_with("220 "));
            assert!(clear.reply("STARTTLS\r\n").starts_with("220 "));
            open.push(clear.0.into_inner());
        }
    }
    open
}

#[test]
fn half_open_handshakes_hold_up_nobody() {
    let backend = TlsBackend::start();
    let scene = Scene::new(backend.address, UNCHECKED, "");
    let open = half_open(&scene, 40, 10);
    let begun = std::time::Instant::now();
    scene.starttls().deliver();
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
    all_of_the_mail_was_secured(&backend.until_message());
    assert_eq!(scene.gateway.status()["sessions"]["active"], open.len());
    assert_eq!(scene.gateway.status()["xdp"]["bans"], 0, "silence speaks against nobody");
}

#[test]
fn who_begins_too_many_handshakes_is_told_to_come_again() {
    let backend = TlsBackend::start();
    let scene = Scene::with(backend.address, UNCHECKED, "", "[limits]\nhandshakes_per_client = 5\n");
    drop(half_open(&scene, 1, 5));
    let mut clear = Speaker(BufReader::new(connect(Ipv4Addr::new(127, 9, 9, 1), scene.gateway.address).unwrap()));
    assert!(clear.line().starts_with("220 "));
    let reply = clear.reply("STARTTLS\r\n");
    assert!(reply.starts_with("421 4.7.0 "), "{reply}");
    assert_eq!(clear.line(), "", "the session has ended");
    scene.starttls().deliver();
    assert_eq!(scene.gateway.status()["tls"]["faults_total"]["too-many"], 1);
}
