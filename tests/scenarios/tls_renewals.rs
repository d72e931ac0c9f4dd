//! Certificates are renewed again and again while mail comes in: no session notices.

use std::fs;
use std::io::BufReader;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use smtp_gateway::sink::{Options, SinkIdentity};
use tests::peers::local::{LocalGateway, LocalSink, address, configuration, connect, run};
use tests::peers::local_tls::Speaker;
use tests::peers::log::PATIENCE;

const RENEWALS: u32 = 100;
/// Whom the gateway becomes if root starts it.
const NOBODY: u32 = 65_534;

/// An authority that puts what it issues where certbot does: `live/` has links to `archive/`.
struct Certbot<'a> {
    folder: &'a Path,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl<'a> Certbot<'a> {
    fn new(folder: &'a Path) -> Self {
        for name in ["live", "archive"] {
            fs::create_dir(folder.join(name)).unwrap();
        }
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "renewals");
        Self { folder, authority: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    /// Each link is exchanged in one step; the pair is not.
    fn renew(&self, number: u32) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["gateway.test".to_owned()]).unwrap();
        let certificate = certificate.signed_by(&key, &self.authority).unwrap();
        for (name, text) in [("fullchain", certificate.pem()), ("privkey", key.serialize_pem())] {
            let file = format!("archive/{name}{number}.pem");
            let path = self.folder.join(&file);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            if rustix::process::geteuid().is_root() {
                chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
            }
            let link = self.folder.join(format!("live/{name}.pem"));
            let new = link.with_extension("new");
            symlink(format!("../{file}"), &new).unwrap();
            fs::rename(new, link).unwrap();
        }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        roots
    }
}

#[test]
fn a_hundred_renewals_under_load_fail_no_session() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let certbot = Certbot::new(folder.path());
    certbot.renew(0);
    let sink = LocalSink::start(Options { identity: SinkIdentity::Xclient, ..Options::default() });
    let front = (address(), 2525).into();
    let [certificate, key] = ["fullchain", "privkey"].map(|name| folder.path().join(format!("live/{name}.pem")));
    let tls = format!(
        "[tls]\ncertificates = [{{ certificate = \"{}\", key = \"{}\" }}]\n[limits]\nhandshakes_per_client = 1000000\n",
        certificate.display(),
        key.display()
    );
    let gateway = LocalGateway::start(front, &configuration(front, "", sink.address, "xclient", &tls));
    let client = Arc::new(ClientConfig::builder().with_root_certificates(certbot.roots()).with_no_client_auth());
    let delivered = AtomicU32::new(0);
    // Each is a whole session with one message, and whatever goes wrong in it ends the test.
    let deliver = &|| {
        let stream = connect(Ipv4Addr::LOCALHOST, front).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut clear = Speaker(BufReader::new(stream));
        assert!(clear.line().starts_with("220 "));
        assert!(clear.reply("STARTTLS\r\n").starts_with("220 "));
        let tls = ClientConnection::new(client.clone(), "gateway.test".try_into().unwrap()).unwrap();
        Speaker(BufReader::new(StreamOwned::new(tls, clear.0.into_inner()))).deliver();
        delivered.fetch_add(1, Ordering::Relaxed);
    };
    let renew = |number: u32| {
        certbot.renew(number);
        let output = run(gateway.folder(), &["certificates", "renew", "-c", "gateway.toml"]);
        assert!(output.status.success(), "{output:?}");
        gateway.log().wait_for_count(&["a certificate is in use"], number as usize + 1);
    };
    thread::scope(|scope| {
        // Gone when the renewals are done, whatever came of them.
        let renewing = Arc::new(());
        for _ in 0..2 {
            let renewing = Arc::downgrade(&renewing);
            scope.spawn(move || {
                while renewing.strong_count() > 0 {
                    deliver();
                }
            });
        }
        (1..=RENEWALS).for_each(renew);
    });
    // The links alone are enough as well.
    certbot.renew(RENEWALS + 1);
    gateway.log().wait_for_count(&["a certificate is in use"], RENEWALS as usize + 2);
    deliver();
    let status = gateway.status();
    assert_eq!(status["messages"]["accepted_total"], delivered.load(Ordering::Relaxed));
    let faults = status["tls"]["faults_total"].as_object().unwrap();
    assert!(faults.values().all(|count| count == 0), "{faults:?}");
    assert!(status["tls"]["resumed_total"].as_u64() > Some(0), "{}", status["tls"]);
}
