//! The standing proof of a running gateway: found at start, told in status and log, acted on, and taken back once mended.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::peers::client::Client;
use tests::peers::gateway::Gateway;
use tests::peers::net::{Family, Trio};
use tests::peers::postfix::{Postfix, Temper};
use tests::peers::{Backend as _, available};

const PROOF: &str = "[timeouts]\nhealth_interval = \"500ms\"\n[proof]\npause = \"0s\"\nforeign_domain = \
                     \"elsewhere.test\"\nlocal_user = \"box\"\n";

fn proof(gateway: &Gateway) -> Value {
    gateway.json(&["status"])["backends"][0]["proof"].clone()
}

/// The replies to MAIL, and to RCPT of each recipient, of a stranger.
fn stranger(trio: &Trio, recipients: &[&str]) -> Vec<u16> {
    let mut client = Client::to_gateway(&trio.client, Family::V4);
    client.must("EHLO client.test");
    let mut codes = vec![client.command("MAIL FROM:<a@client.test>").code];
    codes.extend(recipients.iter().map(|recipient| client.command(&format!("RCPT TO:<{recipient}>")).code));
    client.quit();
    codes
}

#[test]
fn an_open_relay_is_held_until_it_is_mended() {
    if !available("the standing proof and relay.on_open = defer", &["postfix"]) {
        return;
    }
    let trio = Trio::new();
    let postfix = Postfix::start(&trio.backend, Temper::Confused);
    let gateway = Gateway::start_relaying(&trio, postfix.address(), "none", "on_open = \"defer\"", PROOF);
    // A session from before the verdict is held too.
    let mut early = Client::to_gateway(&trio.client, Family::V4);
    early.must("EHLO client.test");
    gateway.log().wait_for(&["ERROR", "OPEN RELAY", "backend=", "451 until it is mended"]);
    let found = proof(&gateway);
    assert_eq!(found["state"], "open");
    assert!(found["checked_at"].as_u64().unwrap() > 1_700_000_000, "{found}");
    assert!(found["findings"][0].as_str().unwrap().contains("every stranger has the gateway's rights"), "{found}");
    assert_eq!(early.command("MAIL FROM:<a@client.test>").code, 451);
    assert_eq!(stranger(&trio, &["box@local.test"]), [451, 503]);
    let totals = gateway.json(&["status"])["proofs"].clone();
    assert_eq!((&totals["run_total"], &totals["found_total"]), (&Value::from(1), &Value::from(1)));

    // A backend that is gone is not forgiven; one that comes back mended is.
    let address = postfix.address();
    drop(postfix);
    let mended = Postfix::start(&trio.backend, Temper::Believing);
    assert_eq!(mended.address(), address);
    gateway.log().wait_for(&["INFO", "relay proof: strangers cannot relay", "safe-unproven"]);
    assert_eq!(proof(&gateway)["state"], "safe-unproven");
    assert_eq!(stranger(&trio, &["box@local.test", "b@elsewhere.test"]), [250, 250, 550]);
    let dialect = gateway.json(&["status"])["backends"][0]["dialect"].clone();
    assert_eq!(dialect["server"], "Postfix, by its banner");
    assert!(dialect["xclient"].as_array().unwrap().contains(&Value::from("ADDR")), "{dialect}");
}

#[test]
fn under_guard_strangers_send_to_plain_recipients_only() {
    if !available("the standing proof and relay.on_open = guard", &["postfix"]) {
        return;
    }
    let trio = Trio::new();
    let postfix = Postfix::start(&trio.backend, Temper::Confused);
    for (on_open, quoted) in [("warn", 250), ("guard", 550)] {
        let gateway =
            Gateway::start_relaying(&trio, postfix.address(), "none", &format!("on_open = \"{on_open}\""), PROOF);
        gateway.log().wait_for(&["ERROR", "OPEN RELAY"]);
        let codes = stranger(&trio, &["box@local.test", "\"a box\"@local.test", "b@elsewhere.test"]);
        assert_eq!(codes, [250, 250, quoted, 550], "{on_open}");
    }
}

/// Mail does not wait for a proof, and a proof of a backend that says nothing ends within its deadline, inconclusive.
#[test]
fn a_proof_holds_nobody_up() {
    if !available("the standing proof before a slow backend", &[]) {
        return;
    }
    let trio = Trio::new();
    // It accepts connections and says nothing.
    let address = "198.51.100.25:25".parse().unwrap();
    let _mute = trio.backend.within(|| std::net::TcpListener::bind::<std::net::SocketAddr>(address)).unwrap();
    let begun = Instant::now();
    let more = PROOF.replace("[proof]", "[proof]\ndeadline = \"3s\"");
    let gateway = Gateway::start_with(&trio, address, "xclient", &more);
    assert_eq!(Client::to_gateway(&trio.client, Family::V4).command("EHLO client.test").code, 250);
    while proof(&gateway)["state"] == "never-run" {
        assert!(begun.elapsed() < Duration::from_secs(20), "the deadline does not hold");
        thread::sleep(Duration::from_millis(100));
    }
    let found = proof(&gateway);
    assert_eq!(found["state"], "inconclusive", "{found}");
    assert!(found["findings"].to_string().contains("deadline"), "{found}");
}
