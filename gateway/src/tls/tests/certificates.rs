//! Which certificate a client gets, and how they are exchanged.

use std::time::Duration;

use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
use rustls::{ClientConfig, RootCertStore, SupportedCipherSuite, client::UnbufferedClientConnection, version};

use super::*;
use crate::tls::channel::Judge;

/// A client of the test's own making: which suites and versions it knows, and which protocols it asks for.
struct Client {
    suites: Vec<SupportedCipherSuite>,
    tls12_only: bool,
    protocols: Vec<&'static str>,
}

impl Default for Client {
    fn default() -> Self {
        Self { suites: default_provider().cipher_suites, tls12_only: false, protocols: Vec::new() }
    }
}

impl Client {
    /// Shakes hands; the digest of the key that the server has shown.
    fn meet(&self, acceptor: &Acceptor, name: &str) -> Result<[u8; 32], TlsFault> {
        let provider = rustls::crypto::CryptoProvider { cipher_suites: self.suites.clone(), ..default_provider() };
        let versions: &[_] = if self.tls12_only { &[&version::TLS12] } else { &[&version::TLS13, &version::TLS12] };
        let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(versions).unwrap();
        let mut config = builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        config.dangerous().set_certificate_verifier(crate::tls::verify::ByKey::any());
        config.alpn_protocols = self.protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = name.to_owned().try_into().unwrap();
        let connection = UnbufferedClientConnection::new(Arc::new(config), name).unwrap();
        let mut client = Channel::client(connection, Judge::Handshake { demands: false });
        let mut server = acceptor.accept()?;
        let (mut to_server, mut to_client) = (Wire::default(), Wire::default());
        client.begin(&mut to_server)?;
        while !to_server.is_empty() || !to_client.is_empty() {
            let mut input = to_server.as_slice().to_vec();
            to_server.clear();
            server.receive(&mut input, &mut [0; 1024], &mut to_client)?;
            let mut input = to_client.as_slice().to_vec();
            to_client.clear();
            client.receive(&mut input, &mut [0; 1024], &mut to_server)?;
        }
        Ok(client.peer_key_digest().unwrap())
    }
}

fn digest(files: &PairFiles) -> [u8; 32] {
    Pair::read(files).unwrap().leaf.key_digest
}

#[test]
fn the_name_and_then_what_the_client_can_verify_decide() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let issue = |name, algorithm, names: &[&str]| authority.issue(directory.path(), name, algorithm, names);
    let first = issue("first", &PKCS_ECDSA_P256_SHA256, &["mx.example.com", "mx2.example.com"]);
    let rsa = issue("rsa", &PKCS_RSA_SHA256, &["mx.example.com"]);
    let wild = issue("wild", &PKCS_ECDSA_P256_SHA256, &["*.example.org"]);
    let acceptor = acceptor(&[first.clone(), rsa.clone(), wild.clone()], TlsVersion::Tls12);
    let any = Client::default();
    let only = |suite| Client { suites: vec![suite], tls12_only: true, ..Client::default() };
    let old_rsa = only(cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256);
    let old_ecdsa = only(cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256);
    for (client, name, expected) in [
        (&any, "mx.example.com", &first),
        (&any, "MX.Example.COM", &first),
        (&any, "mx2.example.com", &first),
        (&old_rsa, "mx.example.com", &rsa),
        (&old_ecdsa, "mx.example.com", &first),
        (&any, "a.example.org", &wild),
        (&any, "a.b.example.org", &first),
        (&any, "example.org", &first),
        (&any, "unknown.example.net", &first),
        (&old_rsa, "unknown.example.net", &rsa),
        // Nothing but what is beside the default could serve this one.
        (&old_rsa, "a.example.org", &rsa),
        (&any, "192.0.2.1", &first),
    ] {
        assert!(client.meet(&acceptor, name).unwrap() == digest(expected), "{name}");
    }
}

#[test]
fn whoever_has_nothing_in_common_is_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let files = Authority::new().issue(directory.path(), "mx", &PKCS_ECDSA_P256_SHA256, &["mx.example.com"]);
    let old = Client { tls12_only: true, ..Client::default() };
    let rsa = Client {
        suites: vec![cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256],
        tls12_only: true,
        ..Client::default()
    };
    let with = |protocols: &[&'static str]| Client { protocols: protocols.to_vec(), ..Client::default() };
    for (client, minimum, expected) in [
        (old, TlsVersion::Tls13, Some(FaultCause::NoCommonVersion)),
        (rsa, TlsVersion::Tls12, Some(FaultCause::NoCommonCipher)),
        (with(&["http/1.1", "h2"]), TlsVersion::Tls12, Some(FaultCause::OtherProtocol)),
        (with(&["smtp"]), TlsVersion::Tls12, None),
        (with(&["http/1.1", "smtp"]), TlsVersion::Tls12, None),
        (with(&[]), TlsVersion::Tls13, None),
    ] {
        let met = client.meet(&acceptor(std::slice::from_ref(&files), minimum), "mx.example.com");
        assert_eq!(met.err().map(|fault| fault.cause()), expected);
    }
}

#[test]
fn a_broken_pair_leaves_the_old_one_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let issue = || authority.issue(directory.path(), "mx", &PKCS_ECDSA_P256_SHA256, &["mx.example.com"]);
    let files = issue();
    let acceptor = acceptor(std::slice::from_ref(&files), TlsVersion::Tls12);
    let certificates = acceptor.certificates();
    let shown = || Client::default().meet(&acceptor, "mx.example.com").unwrap();
    let old = digest(&files);
    let old_key = fs::read(&files.key).unwrap();
    issue();
    let (new_certificate, new_key) = (fs::read(&files.certificate).unwrap(), fs::read(&files.key).unwrap());
    fs::write(&files.key, &old_key).unwrap();
    certificates.reread();
    assert_eq!(shown(), old, "half of a renewal is none");
    let problem = certificates.states()[0].problem.clone().unwrap();
    assert!(problem.contains("mx.key does not belong to the certificate"), "{problem}");
    fs::write(&files.key, &new_key).unwrap();
    certificates.reread();
    assert_eq!(shown(), digest(&files));
    assert_ne!(shown(), old);
    assert!(certificates.states()[0].problem.is_none());
    fs::remove_file(&files.certificate).unwrap();
    certificates.reread();
    assert!(certificates.states()[0].problem.as_ref().unwrap().contains("does not exist"));
    fs::write(&files.certificate, &new_certificate).unwrap();
    certificates.reread();
    assert!(certificates.states()[0].problem.is_none());
}

#[test]
fn a_renewal_as_certbot_does_it_is_seen() {
    let directory = tempfile::tempdir().unwrap();
    let (live, archive) = (directory.path().join("live/mx"), directory.path().join("archive/mx"));
    fs::create_dir_all(&live).unwrap();
    fs::create_dir_all(&archive).unwrap();
    let authority = Authority::new();
    let issue = |number: u32| {
        let issued = authority.issue(&archive, &format!("{number}"), &PKCS_ECDSA_P256_SHA256, &["mx.example.com"]);
        for (name, target) in [("fullchain.pem", format!("{number}.pem")), ("privkey.pem", format!("{number}.key"))] {
            let next = live.join("next");
            std::os::unix::fs::symlink(Path::new("../../archive/mx").join(target), &next).unwrap();
            fs::rename(&next, live.join(name)).unwrap();
        }
        digest(&issued)
    };
    let first = issue(1);
    let files = PairFiles { certificate: live.join("fullchain.pem"), key: live.join("privkey.pem") };
    let certificates = certificates(std::slice::from_ref(&files));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut watch = Watch::new(&certificates.files()).unwrap();
        let mut known = first;
        for number in 2..4 {
            let issued = issue(number);
            tokio::time::timeout(Duration::from_secs(20), watch.changed()).await.unwrap().unwrap();
            certificates.reread();
            let shown = certificates.states()[0].leaf.as_ref().unwrap().key_digest;
            assert!(shown == issued && shown != known);
            known = shown;
        }
    });
}

#[test]
fn what_is_handed_over_is_judged_as_what_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let issue = || {
        let files = authority.issue(directory.path(), "mx", &PKCS_ECDSA_P256_SHA256, &["mx.example.com"]);
        let PairText { certificate, key } = PairText::read(&files).unwrap();
        (files, certificate, key)
    };
    let (files, certificate, key) = issue();
    let certificates = Certificates::new(vec![files.clone()]);
    assert!(certificates.is_empty());
    let forbidden = || {
        let problem = Problem::Forbidden;
        certificates.take(vec![Err(PairFault { path: files.key.clone(), problem })]);
        certificates.states()[0].problem.clone()
    };
    assert!(forbidden().unwrap().contains("certificates renew"));
    assert_eq!(certificates.hand_over(&files, &certificate, &key), HandOver::Exchanged);
    assert!(!certificates.is_empty() && certificates.states()[0].problem.is_none());
    assert_eq!(certificates.hand_over(&files, &certificate, &key), HandOver::Unchanged);
    assert_eq!(forbidden(), None, "whoever is handed a key need not read it");
    let (_, new_certificate, new_key) = issue();
    let in_use = || certificates.in_use(&files).unwrap().leaf;
    let old = in_use();
    for (certificate, key, why) in [
        (&new_certificate, &key, "does not belong to the certificate"),
        (&new_certificate, &certificate, "holds no private key"),
        (&key, &new_key, "holds no certificate"),
    ] {
        let refused = certificates.hand_over(&files, certificate, key);
        assert!(matches!(&refused, HandOver::Refused(sentence) if sentence.contains(why)), "{refused:?}");
        assert_eq!(in_use(), old);
        assert!(certificates.states()[0].problem.is_some());
    }
    assert_eq!(certificates.hand_over(&files, &new_certificate, &new_key), HandOver::Exchanged);
    assert!(in_use() != old && certificates.states()[0].problem.is_none());
    let other = PairFiles { certificate: "other.pem".into(), ..files };
    assert_eq!(certificates.hand_over(&other, &new_certificate, &new_key), HandOver::Unlisted);
}
