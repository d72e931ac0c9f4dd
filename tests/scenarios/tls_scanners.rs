//! What looks for faults of TLS finds none at the gateway's listener, whatever keys its certificates have.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::peers::gateway::Gateway;
use tests::peers::net::{FRONT, Trio};
use tests::peers::postfix::Postfix;
use tests::peers::stage::{Stage, said};
use tests::peers::tls::{Files, encrypting_postfix, gateway, verified};
use tests::peers::{available, folder};

/// A gateway with these certificates, before a Postfix that demands TLS. In the order in which they may go.
struct Setting {
    gateway: Gateway,
    _backend: Postfix,
    _files: Vec<Files>,
    trio: Trio,
}

impl Setting {
    fn new(scenario: &str, scanner: &str, own: Vec<Files>) -> Option<Self> {
        if !available(scenario, &["postfix", scanner]) {
            return None;
        }
        let trio = Trio::new();
        let theirs = Files::new("backend.test");
        let backend = encrypting_postfix(&trio.backend, &theirs);
        let certificates: Vec<&Files> = own.iter().collect();
        let gateway = gateway(&trio, &certificates, &backend, &verified("required", "none", &theirs));
        let files = own.into_iter().chain([theirs]).collect();
        Some(Self { gateway, _backend: backend, _files: files, trio })
    }
}

fn ecdsa() -> Files {
    Files::new("gateway.test")
}

fn rsa() -> Files {
    Files::rsa("gateway.test")
}

/// Who signed it, and for whom, is the set-up's; the rest is the gateway's.
fn sslyze(scenario: &str, own: Vec<Files>) {
    let deployments = own.len();
    let Some(setting) = Setting::new(scenario, "sslyze", own) else { return };
    let mut command: Command = setting.trio.client.command("timeout");
    command.args(["100", "python3", "-m", "sslyze", "--starttls=smtp", "--json_out=-", "--mozilla_config=disable"]);
    command.args([
        "--certinfo",
        "--sslv2",
        "--sslv3",
        "--tlsv1",
        "--tlsv1_1",
        "--tlsv1_2",
        "--tlsv1_3",
        "--heartbleed",
    ]);
    command.args([
        "--openssl_ccs",
        "--compression",
        "--early_data",
        "--reneg",
        "--ems",
        "--robot",
        "--fallback",
        "--resum",
    ]);
    command.arg(format!("{}:25", FRONT[0]));
    let output = command.env("PYTHONPATH", folder("sslyze")).output().unwrap();
    // No number of ours is as large as the modulus of a key.
    let text = String::from_utf8_lossy(&output.stdout);
    let text: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("\"rsa_n\":")).collect();
    let json: Value = serde_json::from_str(&text.concat()).unwrap_or_else(|_| panic!("{}", said(&output)));
    let result = &json["server_scan_results"][0]["scan_result"];
    let accepted = |version: &str| {
        let suites = &result[format!("{version}_cipher_suites")]["result"]["accepted_cipher_suites"];
        suites.as_array().unwrap_or_else(|| panic!("{version}: {result}")).len()
    };
    for version in ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"] {
        assert_eq!(accepted(version), 0, "{version}");
    }
    // Three of each kind of key.
    assert_eq!((accepted("tls_1_2"), accepted("tls_1_3")), (3 * deployments, 3));
    let shown = &result["certificate_info"]["result"]["certificate_deployments"];
    assert_eq!(shown.as_array().map(Vec::len), Some(deployments), "{shown}");
    for (check, key, expected) in [
        ("heartbleed", "is_vulnerable_to_heartbleed", false),
        ("openssl_ccs_injection", "is_vulnerable_to_ccs_injection", false),
        ("tls_compression", "supports_compression", false),
        ("tls_1_3_early_data", "supports_early_data", false),
        ("session_renegotiation", "is_vulnerable_to_client_renegotiation_dos", false),
        ("session_renegotiation", "supports_secure_renegotiation", true),
        ("tls_extended_master_secret", "supports_ems_extension", true),
        ("tls_fallback_scsv", "supports_fallback_scsv", true),
    ] {
        assert_eq!(result[check]["result"][key], expected, "{check}: {}", result[check]);
    }
    let robot = result["robot"]["result"]["robot_result"].as_str().unwrap_or_default();
    assert!(robot.starts_with("NOT_VULNERABLE"), "{robot}");
}

#[test]
fn sslyze_of_an_ecdsa_key() {
    sslyze("sslyze of ECDSA", vec![ecdsa()]);
}

#[test]
fn sslyze_of_an_rsa_key() {
    sslyze("sslyze of RSA", vec![rsa()]);
}

#[test]
fn sslyze_of_both_side_by_side() {
    sslyze("sslyze of both", vec![ecdsa(), rsa()]);
}

/// What testssl.sh may complain about. Certificates here are signed by themselves, for a name that is in no DNS, and for odd
/// spans of time.
const COMPLAINTS: [&str; 6] = [
    "cert_trust",
    "cert_chain_of_trust",
    "cert_validityPeriod",
    "cert_expirationStatus",
    "cert_notAfter",
    "cert_revocation",
];

#[test]
#[ignore = "takes minutes: `cargo test -p tests -- --ignored testssl`"]
fn testssl_finds_no_weakness() {
    let Some(setting) = Setting::new("testssl.sh", "testssl", vec![ecdsa(), rsa()]) else { return };
    let stage = Stage::new("testssl");
    let target = format!("{}:25", FRONT[0]);
    let script = "testssl --jsonfile /var/tmp/findings.json \"$@\" >/var/tmp/said; cat /var/tmp/findings.json";
    let how = ["--quiet", "--color", "0", "--warnings", "batch", "--nodns", "none", "--starttls", "smtp"];
    let tests = ["--protocols", "--server-defaults", "--server-preference", "--vulnerable", "--fs", &target];
    let program = [&["sh", "-c", script, "sh"], &how[..], &tests].concat();
    let output = stage.run_within(Duration::from_secs(900), &setting.trio.client, &program);
    let findings: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    let findings = findings.as_array().unwrap();
    assert!(findings.len() > 40, "{findings:#?}");
    // What it could not try; its own `openssl` has no GOST.
    let untried = findings.iter().filter(|finding| finding["severity"] == "WARN").count();
    assert!(untried <= 2, "{findings:#?}");
    for finding in findings {
        let [severity, id] = ["severity", "id"].map(|key| finding[key].as_str().unwrap_or_default());
        // Certificates have their number behind.
        let id = id.split(' ').next().unwrap_or_default();
        assert!(["OK", "INFO", "WARN"].contains(&severity) || COMPLAINTS.contains(&id), "{finding:#}");
    }
}

/// Its commands behind STARTTLS are injected in clear; its findings are what it prints.
#[test]
fn nothing_can_be_injected_behind_starttls() {
    let Some(setting) = Setting::new("command-injection-tester", "injection", vec![ecdsa()]) else { return };
    let tester = folder("injection").join("bin/command-injection-tester");
    let options = ["--smtp", "--smtp-port", "25", "--timeout", "0.3", "--nocolor", "--logdir", "/var/tmp", FRONT[0]];
    let program = [&["python3", tester.to_str().unwrap()], &options[..]].concat();
    let output = Stage::plain().run(&setting.trio.client, &program);
    let said = said(&output);
    assert!(output.status.success() && said.contains("Sanity test done"), "{said}");
    assert!(said.contains("Server probably closed the connection!"), "{said}");
    assert!(!said.contains("ommand injection here"), "{said}");
    let refused = &setting.gateway.json(&["status"])["tls"];
    assert_eq!(refused["sessions_total"]["TLS 1.3"], 1, "one handshake, of the sane session: {refused}");
}
