//! What looks for faults of TLS finds none at the gateway's listener.

use std::process::Command;

use tests::peers::net::{FRONT, Trio};
use tests::peers::stage::said;
use tests::peers::tls::{Files, encrypting_postfix, gateway, verified};
use tests::peers::{available, folder};

/// What a scanner of TLS faults says of the listener.
#[test]
fn sslyze_finds_no_weakness() {
    if !available("sslyze", &["postfix", "sslyze"]) {
        return;
    }
    let trio = Trio::new();
    let (own, theirs) = (Files::new("gateway.test"), Files::new("backend.test"));
    let postfix = encrypting_postfix(&trio.backend, &theirs);
    let gateway = gateway(&trio, &[&own], &postfix, &verified("required", "none", &theirs));
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
