//! TLS with software that is not ours: servers that take nothing in clear, clients that send nothing in clear.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use smtp_gateway::tls::{SelfSigned, self_signed};
use tempfile::TempDir;
use tests::peers::gateway::Gateway;
use tests::peers::net::{BACK, CLIENT, FRONT, Family, Host, Trio};
use tests::peers::postfix::Postfix;
use tests::peers::stage::{Stage, said};
use tests::peers::{Backend, LOCAL_DOMAIN, available, folder};

/// A certificate and its key, for whoever may read them.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    _folder: TempDir,
}

impl Files {
    fn new(name: &str) -> Self {
        let SelfSigned { certificate, key } = self_signed(&[name.to_owned()], 30).unwrap();
        Self::of(certificate, key)
    }

    /// With an RSA key.
    fn rsa(name: &str) -> Self {
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        let made = CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap();
        Self::of(made.pem(), key.serialize_pem())
    }

    fn of(certificate: String, key: String) -> Self {
        let folder = tempfile::Builder::new().prefix("smtp-gateway-").tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let files = Self {
            certificate: folder.path().join("certificate.pem"),
            key: folder.path().join("key.pem"),
            _folder: folder,
        };
        fs::write(&files.certificate, certificate).unwrap();
        fs::write(&files.key, key).unwrap();
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).unwrap();
        files
    }
}

/// A gateway with a certificate, before a backend that it speaks to in this way.
fn gateway(trio: &Trio, own: &Files, backend: &impl Backend, how: &str) -> Gateway {
    let config = format!(
        "[server]\nhostname = \"gateway.test\"\nworkers = 1\n[[listener]]\naddress = \"{}\"\n\
         [[backend]]\nname = \"backend\"\naddress = \"{}\"\n{how}\n\
         [tls]\ncertificates = [{{ certificate = \"{}\", key = \"{}\" }}]\n\
         [relay]\nlocal_domains = [\"{LOCAL_DOMAIN}\"]\n[log]\nlevel = \"debug\"\n[proof]\nenabled = false\n",
        Family::V4.smtp(FRONT),
        backend.address(),
        own.certificate.display(),
        own.key.display(),
    );
    Gateway::by(trio, &config)
}

/// Who is verified by its certificate, which nobody has signed but itself.
fn verified(way: &str, identity: &str, files: &Files) -> String {
    format!(
        "identity = \"{identity}\"\ntls = \"{way}\"\ntls_verify = \"ca\"\ntls_ca = \"{}\"\ntls_name = \"backend.test\"",
        files.certificate.display()
    )
}

/// Lines for a Postfix that takes nothing in clear, and XCLIENT from the gateway.
fn encrypting(files: &Files) -> String {
    format!(
        "smtpd_tls_security_level = encrypt\nsmtpd_tls_loglevel = 1\nsmtpd_tls_cert_file = {}\nsmtpd_tls_key_file = {}\n\
         smtpd_authorized_xclient_hosts = {}\nvirtual_mailbox_maps = static:box/\n",
        files.certificate.display(),
        files.key.display(),
        BACK[0]
    )
}

fn encrypting_postfix(host: &Host, files: &Files) -> Postfix {
    Postfix::set_up(host, &encrypting(files), "tlsmgr unix - - n 1000? 1 tlsmgr\n", 25)
}

fn swaks(trio: &Trio, how: &[&str]) {
    let options = ["--server", FRONT[0], "--helo", "client.test", "--from", "a@client.test", "--to", "box@local.test"];
    let output = Stage::new("swaks").run(&trio.client, &[&["swaks"], &options[..], how].concat());
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn postfix_takes_nothing_in_clear_and_knows_the_client_inside_tls() {
    if !available("Postfix that demands TLS", &["postfix", "swaks"]) {
        return;
    }
    let trio = Trio::new();
    let (own, theirs) = (Files::new("gateway.test"), Files::new("backend.test"));
    let postfix = encrypting_postfix(&trio.backend, &theirs);
    let gateway = gateway(&trio, &own, &postfix, &verified("required", "xclient", &theirs));
    swaks(&trio, &["--tls"]);
    swaks(&trio, &[]);
    postfix.wait_for_deliveries(2);
    postfix.log().wait_for(&["Anonymous TLS connection established from", BACK[0]]);
    postfix.log().wait_for_address(&["postfix/smtpd", ": client=unknown["], Family::V4.ip(CLIENT));
    drop(gateway);
}

#[test]
fn postfix_sends_only_to_the_gateway_it_verified() {
    if !available("Postfix as a client that verifies", &["postfix"]) {
        return;
    }
    let trio = Trio::new();
    let (own, theirs) = (Files::new("gateway.test"), Files::new("backend.test"));
    let postfix = encrypting_postfix(&trio.backend, &theirs);
    let gateway = gateway(&trio, &own, &postfix, &verified("required", "none", &theirs));
    let main = format!(
        "relayhost = [{}]\nsmtp_tls_security_level = secure\nsmtp_tls_secure_cert_match = gateway.test\n\
         smtp_tls_CAfile = {}\nsmtp_tls_loglevel = 1\nvirtual_mailbox_domains =\n",
        FRONT[0],
        own.certificate.display()
    );
    let sender = Postfix::set_up(&trio.client, &main, "tlsmgr unix - - n 1000? 1 tlsmgr\n", 25);
    let options = ["-m", "5", "-f", "a@client.test", "-t", "box@local.test", "inet:127.0.0.1:25"];
    let output = Stage::new("postfix").run(&trio.client, &[&["smtp-source"], &options[..]].concat());
    assert!(output.status.success(), "{}", said(&output));
    postfix.wait_for_deliveries(5);
    sender.log().wait_for(&["Verified TLS connection established to", "TLSv1.3"]);
    drop(gateway);
}

/// Implicit TLS, and the client told by a PROXY header before it.
#[test]
fn postfix_is_spoken_to_over_implicit_tls() {
    if !available("Postfix with smtps", &["postfix", "swaks"]) {
        return;
    }
    let trio = Trio::new();
    let (own, theirs) = (Files::new("gateway.test"), Files::rsa("backend.test"));
    let master = "tlsmgr unix - - n 1000? 1 tlsmgr\n465 inet n - n - - smtpd -o smtpd_tls_wrappermode=yes \
                  -o smtpd_upstream_proxy_protocol=haproxy\n";
    let postfix = Postfix::set_up(&trio.backend, &encrypting(&theirs), master, 465);
    let gateway = gateway(&trio, &own, &postfix, &verified("implicit", "proxy-v2", &theirs));
    swaks(&trio, &["--tls"]);
    postfix.wait_for_deliveries(1);
    postfix.log().wait_for_address(&["postfix/smtpd", ": client=unknown["], Family::V4.ip(CLIENT));
    drop(gateway);
}

/// What a scanner of TLS faults says of the listener.
#[test]
fn sslyze_finds_no_weakness() {
    if !available("sslyze", &["postfix", "sslyze"]) {
        return;
    }
    let trio = Trio::new();
    let (own, theirs) = (Files::new("gateway.test"), Files::new("backend.test"));
    let postfix = encrypting_postfix(&trio.backend, &theirs);
    let gateway = gateway(&trio, &own, &postfix, &verified("required", "none", &theirs));
    let mut command: Command = trio.client.command("timeout");
    command.args(["100", "python3", "-m", "sslyze", "--starttls=smtp", "--json_out=-"]).arg(format!("{}:25", FRONT[0]));
    let output = command.env("PYTHONPATH", folder("sslyze")).output().unwrap();
    let json: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    let result = &json["server_scan_results"][0]["scan_result"];
    let accepted = |version: &str| {
        let suites = &result[format!("{version}_cipher_suites")]["result"]["accepted_cipher_suites"];
        suites.as_array().unwrap_or_else(|| panic!("{version}: {result}")).len()
    };
    for version in ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"] {
        assert_eq!(accepted(version), 0, "{version}");
    }
    assert!(accepted("tls_1_2") > 0 && accepted("tls_1_3") > 0);
    for (check, key) in [
        ("heartbleed", "is_vulnerable_to_heartbleed"),
        ("openssl_ccs_injection", "is_vulnerable_to_ccs_injection"),
        ("tls_compression", "supports_compression"),
        ("session_renegotiation", "is_vulnerable_to_client_renegotiation_dos"),
    ] {
        assert_eq!(result[check]["result"][key], false, "{check}: {}", result[check]);
    }
    assert_eq!(result["session_renegotiation"]["result"]["supports_secure_renegotiation"], true);
    let robot = result["robot"]["result"]["robot_result"].as_str().unwrap_or_default();
    assert!(robot.starts_with("NOT_VULNERABLE"), "{robot}");
    drop(gateway);
}
