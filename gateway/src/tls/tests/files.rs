//! Files that are no good, and the sentence each gets.

use std::time::{Duration, SystemTime};

use super::*;

/// A directory with a good pair and what can be made of it.
struct Files {
    directory: tempfile::TempDir,
    authority: Authority,
    good: PairFiles,
}

impl Files {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let good = authority.issue(directory.path(), "good", &PKCS_ECDSA_P256_SHA256, &["mx.example.com"]);
        Self { directory, authority, good }
    }

    fn text(&self) -> (String, String) {
        (fs::read_to_string(&self.good.certificate).unwrap(), fs::read_to_string(&self.good.key).unwrap())
    }

    /// What is said of this pair, without the directory's name.
    fn judge(&self, files: &PairFiles) -> String {
        let judged = Pair::read(files).and_then(|pair| pair.check_dates(SystemTime::now()));
        let said = judged.map_or_else(|fault| format!("{fault}; {}", fault.problem.help()), |()| "good".to_owned());
        said.replace(&format!("{}/", self.directory.path().display()), "")
    }

    fn check(&self, certificate: &str, key: &str, expected: &str) {
        let files = write_pair(self.directory.path(), "bad", certificate, key);
        let said = self.judge(&files);
        assert!(said.starts_with(expected), "{said}\nexpected: {expected}");
        assert!(!said.contains('\n'), "one sentence: {said}");
    }
}

#[test]
fn each_fault_is_one_sentence() {
    let files = Files::new();
    let (certificate, key) = files.text();
    let (_, other_key) = {
        let other =
            files.authority.issue(files.directory.path(), "other", &PKCS_ECDSA_P256_SHA256, &["other.example.com"]);
        (other.certificate.clone(), fs::read_to_string(other.key).unwrap())
    };
    let (leaf, authority) = certificate.split_at(certificate.rfind("-----BEGIN").unwrap());
    files.check(&certificate, &key, "good");
    files.check(leaf, &key, "good");
    files.check(&certificate, &other_key, "bad.key does not belong to the certificate bad.pem; name the key");
    files.check(&format!("{authority}{leaf}"), &key, "bad.pem holds its certificates in the wrong order; put");
    files.check(&format!("{leaf}{leaf}"), &key, "bad.pem holds its certificates in the wrong order");
    files.check(&key, &key, "bad.pem holds no certificate; name a PEM file");
    files.check("", &key, "bad.pem holds no certificate");
    files.check(&certificate, &certificate, "bad.key holds no private key");
    files.check(&certificate, "", "bad.key holds no private key");
    let encrypted = key.replace("PRIVATE", "ENCRYPTED PRIVATE");
    files.check(&certificate, &encrypted, "bad.key holds an encrypted private key; take the password off");
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END";
    files.check(&certificate, old, "bad.key holds an encrypted private key");
    let cut = &certificate[..certificate.len() / 4];
    files.check(cut, &key, "bad.pem holds");
    let bent = certificate.replacen("MII", "MIJ", 1);
    files.check(&bent, &key, "bad.pem holds a certificate that cannot be read");
    files.check(&certificate.repeat(12), &key, "bad.pem holds more than 16 certificates");
}

#[test]
fn binary_files_are_recognised() {
    let files = Files::new();
    let (certificate, key) = files.text();
    let mut pair = write_pair(files.directory.path(), "binary", &certificate, &key);
    fs::write(&pair.certificate, [0x30, 0x82, 1, 0, 2, 1, 3, 0x30]).unwrap();
    assert!(files.judge(&pair).starts_with("binary.pem is PKCS#12, not PEM; convert it: `openssl pkcs12"));
    fs::write(&pair.certificate, [0x30, 0x82, 1, 0, 0x30, 0x82]).unwrap();
    assert!(files.judge(&pair).starts_with("binary.pem is DER, not PEM; convert it"));
    pair.certificate = files.directory.path().to_owned();
    assert!(files.judge(&pair).contains("is no regular file"));
    pair.certificate = files.directory.path().join("nothing");
    assert!(files.judge(&pair).starts_with("nothing does not exist"));
    pair.certificate.clone_from(&files.good.certificate);
    fs::write(&pair.certificate, vec![b' '; (1 << 20) + 1]).unwrap();
    assert!(files.judge(&pair).contains("is larger than 1 MiB"));
}

#[test]
fn a_key_is_a_secret() {
    let files = Files::new();
    for (mode, good) in [(0o600, true), (0o400, true), (0o640, true), (0o440, true), (0o644, false), (0o660, false)] {
        fs::set_permissions(&files.good.key, fs::Permissions::from_mode(mode)).unwrap();
        let said = files.judge(&files.good);
        if good {
            assert_eq!(said, "good", "{mode:o}");
        } else {
            let expected = format!("good.key is a private key with mode {mode:04o}: others may read or change it; run");
            assert!(said.starts_with(&expected), "{said}");
        }
    }
}

#[test]
fn dates_are_looked_at_last() {
    let files = Files::new();
    let day = Duration::from_secs(24 * 3600);
    let now = SystemTime::now();
    let issue = |name: &str, from: SystemTime, until: SystemTime| {
        files.authority.issue_for(
            files.directory.path(),
            name,
            &PKCS_ECDSA_P256_SHA256,
            &["mx.example.com"],
            |params| {
                (params.not_before, params.not_after) = (from.into(), until.into());
            },
        )
    };
    let expired = issue("expired", now - 30 * day, now - 3 * day);
    assert!(Pair::read(&expired).is_ok(), "an expired certificate can still be used");
    assert!(
        files.judge(&expired).starts_with("expired.pem holds a certificate that expired 3 days ago; renew it")
            || files.judge(&expired).starts_with("expired.pem holds a certificate that expired 4 days ago; renew it")
    );
    let early = issue("early", now + 3 * day, now + 30 * day);
    assert!(files.judge(&early).starts_with("early.pem holds a certificate that is not valid yet"));
    let soon = issue("soon", now - 30 * day, now + 20 * day + day / 2);
    assert_eq!(Pair::read(&soon).unwrap().leaf.days_left(now), 20);
}

#[test]
fn what_a_leaf_says_of_itself() {
    let files = Files::new();
    let leaf = Pair::read(&files.good).unwrap().leaf;
    assert_eq!(leaf.names, ["mx.example.com"]);
    assert_eq!(leaf.issuer, "Test Authority");
    assert!(!leaf.self_signed);
    assert_eq!(leaf.key.to_string(), "ECDSA P-256");
    assert_eq!(leaf.key_digest_hex().len(), 64);
    let SelfSigned { certificate, key } = self_signed(&["mx.example.org".to_owned()], 30).unwrap();
    let own = Pair::read(&write_pair(files.directory.path(), "own", &certificate, &key)).unwrap().leaf;
    assert!(own.self_signed);
    assert_eq!(own.issuer, "mx.example.org");
    assert!((29..=30).contains(&own.days_left(SystemTime::now())));
}

#[test]
fn pins() {
    let digits = "0123456789abcdef".repeat(4);
    let colons =
        digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap()).collect::<Vec<_>>().join(":");
    let pin = Pin::parse(&digits).unwrap();
    assert_eq!(pin.0[..3], [0x01, 0x23, 0x45]);
    assert_eq!(Pin::parse(&colons), Some(pin));
    assert_eq!(Pin::parse(&digits.to_uppercase()), Some(pin));
    for bad in ["", &digits[1..], &format!("{digits}00"), &digits.replace('0', "g")] {
        assert_eq!(Pin::parse(bad), None, "{bad}");
    }
}
