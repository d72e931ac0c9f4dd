//! Mechanisms that exchange more than a password, between real clients and Postfix with Dovecot behind the gateway.

use std::process::Output;

use tests::peers::dovecot::{Dovecot, PASSWORD, TOKEN};
use tests::peers::net::{CLIENT, FRONT};
use tests::peers::stage::{Stage, said};
use tests::peers::submission::{Submission, USER};

/// By msmtp, which knows SCRAM and tokens. A token is given as the password.
fn msmtp(setting: &Submission, mechanism: &str, password: &str) -> Output {
    let stage = Stage::new("msmtp");
    stage.etc(
        "msmtprc",
        &format!(
            "account default\nhost {}\nport 587\ntls on\ntls_starttls on\ntls_certcheck off\ndomain client.test\n\
             auth {mechanism}\nuser {USER}\npassword {password}\nfrom {USER}\n",
            FRONT[0]
        ),
    );
    let command = "printf 'Subject: msmtp\\n\\nText.\\n' | HOME=/etc msmtp box@local.test";
    stage.run(&setting.trio.client, &["sh", "-c", command])
}

#[test]
fn msmtp_logs_in_by_scram() {
    let mechanisms = "plain scram-sha-1 scram-sha-256 cram-md5";
    let Some(setting) = Submission::new("submission by msmtp", mechanisms, &["msmtp"]) else { return };
    for (number, mechanism) in ["SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5", "PLAIN"].into_iter().enumerate() {
        let output = msmtp(&setting, &mechanism.to_ascii_lowercase(), PASSWORD);
        assert!(output.status.success(), "{mechanism}: {}", said(&output));
        setting.sent(mechanism, number + 1);
    }
    let output = msmtp(&setting, "scram-sha-256", "wrong");
    assert!(said(&output).contains("535"), "{}", said(&output));
    setting.gateway.log().wait_for(&["outcome=\"wrong-password\"", "name=\"@local.test\"", CLIENT[0]]);
}

fn curl(setting: &Submission, mechanism: &str, token: &str) -> Output {
    let stage = Stage::new("curl");
    stage.etc("message", "Subject: curl\r\n\r\nText.\r\n");
    let (server, login) = (format!("smtp://{}:587/client.test", FRONT[0]), format!("AUTH={mechanism}"));
    let program = ["curl", "--silent", "--show-error", "--insecure", "--ssl-reqd", "--url", &server, "--user", USER];
    let token = ["--oauth2-bearer", token, "--login-options", &login, "--mail-from", USER];
    let mail = ["--mail-rcpt", "box@local.test", "--upload-file", "/etc/message"];
    stage.run(&setting.trio.client, &[&program[..], &token[..], &mail[..]].concat())
}

#[test]
fn tokens_log_in_and_wrong_ones_are_told_why() {
    let users = |host: &_| Dovecot::with_tokens(host, USER);
    let Some(setting) = Submission::with("submission by tokens", &["msmtp", "curl"], "", users) else { return };
    let mut sent = 0;
    for mechanism in ["OAUTHBEARER", "XOAUTH2"] {
        for run in [curl(&setting, mechanism, TOKEN), msmtp(&setting, &mechanism.to_ascii_lowercase(), TOKEN)] {
            assert!(run.status.success(), "{mechanism}: {}", said(&run));
            sent += 1;
            setting.sent(mechanism, sent);
        }
        for run in [curl(&setting, mechanism, "stale"), msmtp(&setting, &mechanism.to_ascii_lowercase(), "stale")] {
            assert!(!run.status.success(), "{mechanism}: {}", said(&run));
        }
    }
    setting.gateway.log().wait_for_count(&["outcome=\"wrong-password\"", "name=\"@local.test\""], 4);
}
