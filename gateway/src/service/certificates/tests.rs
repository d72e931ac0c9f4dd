//! Each file that is no good gets one sentence, with its place in the configuration and what to do.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rcgen::{CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use tempfile::TempDir;

use super::*;

/// Good files, and a configuration that names `mx.pem` and `mx.key`.
struct Files(TempDir);

const CONFIG: &str = r#"[server]
hostname = "mx.example.com"
[[listener]]
address = "127.0.0.1:2525"
[[backend]]
address = "192.0.2.25"
TLS_KEYS
[relay]
local_domains = ["example.com"]
[tls]
certificates = [{ certificate = "mx.pem", key = "mx.key" }MORE]
"#;

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.issue("mx", |_| ());
        files
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.path().join(name)).unwrap()
    }

    /// `name.pem`, with the authority's certificate behind it, and `name.key`.
    fn issue(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) {
        let (key, authority_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        authority.distinguished_name.push(rcgen::DnType::CommonName, "Test Authority");
        let above = authority.self_signed(&authority_key).unwrap().pem();
        let mut params = CertificateParams::new(vec![format!("{name}.example.com")]).unwrap();
        change(&mut params);
        let leaf = params.signed_by(&key, &Issuer::new(authority, authority_key)).unwrap().pem();
        self.write(&format!("{name}.pem"), leaf + &above);
        self.write(&format!("{name}.key"), key.serialize_pem());
    }

    /// What `check` says of them; `more` is behind the first pair, `backend` are keys of the backend.
    fn check(&self, more: &str, backend: &str) -> Result<(), String> {
        self.write("gateway.toml", CONFIG.replace("MORE", more).replace("TLS_KEYS", backend));
        let config = config::load(&self.0.path().join("gateway.toml")).unwrap();
        check(&config).map_err(|faults| faults.to_string().replace(&format!("{}/", self.0.path().display()), ""))
    }
}

type Spoil = fn(&Files);

#[test]
fn each_bad_pair_is_one_sentence_with_its_place() {
    assert_eq!(Files::new().check("", ""), Ok(()));
    let cases: [(&str, Spoil, &str, &str); 13] = [
        (
            "another's key",
            |f| f.issue("other", |_| ()),
            "mx.key does not belong to the certificate mx.pem",
            "name the key",
        ),
        (
            "expired",
            |f| f.issue("mx", |params| params.not_after = date_time_ymd(2020, 1, 1)),
            "mx.pem holds a certificate that expired",
            "renew it",
        ),
        (
            "early",
            |f| f.issue("mx", |params| params.not_before = date_time_ymd(4000, 1, 1)),
            "mx.pem holds a certificate that is not valid yet",
            "set this machine's clock",
        ),
        (
            "missing",
            |f| fs::remove_file(f.0.path().join("mx.key")).unwrap(),
            "mx.key does not exist",
            "name an existing",
        ),
        (
            "a directory",
            |f| {
                fs::remove_file(f.0.path().join("mx.pem")).unwrap();
                fs::create_dir(f.0.path().join("mx.pem")).unwrap();
            },
            "mx.pem is no regular file",
            "name an existing PEM file",
        ),
        (
            "everybody's key",
            |f| fs::set_permissions(f.0.path().join("mx.key"), fs::Permissions::from_mode(0o644)).unwrap(),
            "mx.key is a private key with mode 0644",
            "chmod 0600",
        ),
        (
            "the wrong order",
            |f| {
                let text = f.read("mx.pem");
                let (leaf, above) = text.split_at(text.rfind("-----BEGIN").unwrap());
                f.write("mx.pem", format!("{above}{leaf}"));
            },
            "mx.pem holds its certificates in the wrong order",
            "put the server's own certificate first",
        ),
        ("PKCS#12", |f| f.write("mx.pem", [0x30, 0x82, 1, 0, 2, 1, 3, 0x30]), "mx.pem is PKCS#12", "openssl pkcs12"),
        ("DER", |f| f.write("mx.key", [0x30, 0x82, 1, 0, 0x30, 0x82]), "mx.key is DER, not PEM", "openssl pkey"),
        (
            "encrypted",
            |f| f.write("mx.key", f.read("mx.key").replace("PRIVATE", "ENCRYPTED PRIVATE")),
            "mx.key holds an encrypted private key",
            "take the password off",
        ),
        ("no key", |f| f.write("mx.key", f.read("mx.pem")), "mx.key holds no private key", "name a PEM file"),
        ("no certificate", |f| f.write("mx.pem", f.read("mx.key")), "mx.pem holds no certificate", "name a PEM file"),
        ("empty", |f| f.write("mx.pem", ""), "mx.pem holds no certificate", "name a PEM file"),
    ];
    for (name, spoil, message, help) in cases {
        let files = Files::new();
        spoil(&files);
        if name == "another's key" {
            files.write("mx.key", files.read("other.key"));
        }
        let said = files.check("", "").unwrap_err();
        let (first, rest) = said.split_once('\n').unwrap();
        assert!(first.starts_with(&format!("gateway.toml:11:17: error: {message}")), "{name}: {said}");
        assert!(rest.contains("help: ") && rest.contains(help), "{name}: {said}");
        assert_eq!(said.matches("error:").count(), 1, "{name}: {said}");
    }
}

#[test]
fn two_for_one_name_are_one_too_many() {
    let files = Files::new();
    for name in ["mx.pem", "mx.key"] {
        files.write(&name.replace("mx", "again"), files.read(name));
    }
    let said = files.check(", { certificate = \"again.pem\", key = \"again.key\" }", "").unwrap_err();
    let expected =
        "gateway.toml:11:61: error: there are two certificates for `mx.example.com` with the same kind of key";
    assert!(said.starts_with(expected) && said.contains("help: delete one of the two"), "{said}");
}

#[test]
fn what_a_backend_s_tls_needs_is_read_too() {
    let files = Files::new();
    files.issue("gateway", |_| ());
    let good = "tls = \"required\"\ntls_name = \"mail.example.com\"\ntls_verify = \"ca\"\ntls_ca = \"mx.pem\"\n\
                tls_certificate = { certificate = \"gateway.pem\", key = \"gateway.key\" }";
    assert_eq!(files.check("", good), Ok(()));
    files.write("empty.pem", "");
    for (from, to, place, message) in [
        ("\"mx.pem\"", "\"absent.pem\"", "10:10", "absent.pem does not exist"),
        ("\"mx.pem\"", "\"empty.pem\"", "10:10", "empty.pem holds no certificate"),
        ("gateway.key", "mx.key", "11:19", "mx.key does not belong to the certificate gateway.pem"),
    ] {
        let said = files.check("", &good.replace(from, to)).unwrap_err();
        let expected = format!("gateway.toml:{place}: error: {message}");
        assert!(said.starts_with(&expected) && said.contains("help: "), "{said}\nexpected: {expected}");
    }
}
