//! Programs that people send mail with get their mail through, and the backend knows whose it is.

use std::process::Output;

use tests::peers::Backend as _;
use tests::peers::client::Client;
use tests::peers::net::{CLIENT, FRONT, Family};
use tests::peers::postfix::{Postfix, Temper};
use tests::peers::setting::Setting;
use tests::peers::stage::{Stage, said};

/// The backend has so many messages, all of this client.
fn arrived(setting: &Setting, count: usize, family: Family) {
    let line = format!(": client=unknown[{}]", family.of(CLIENT));
    setting.backend.log().wait_for_count(&[&line], count);
    setting.backend.wait_for_deliveries(count);
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}: {}", output.status, said(output));
}

#[test]
fn swaks() {
    let Some(setting) = Setting::new("swaks", &["swaks"]) else { return };
    let stage = Stage::new("swaks");
    for family in Family::BOTH {
        let server = family.of(FRONT);
        succeeded(&stage.run(
            &setting.trio.client,
            &[
                "swaks",
                "--server",
                server,
                "--helo",
                "client.test",
                "--from",
                "a@client.test",
                "--to",
                "box@local.test",
            ],
        ));
        arrived(&setting, 1, family);
    }
    setting.backend.wait_for_deliveries(2);
}

#[test]
fn smtp_source() {
    let Some(setting) = Setting::new("smtp-source", &[]) else { return };
    let server = format!("inet:{}:25", FRONT[0]);
    let options =
        ["-m", "40", "-s", "4", "-l", "20000", "-M", "client.test", "-f", "a@client.test", "-t", "box@local.test"];
    let program = [&["smtp-source"], &options[..], &[&server]].concat();
    succeeded(&Stage::new("postfix").run(&setting.trio.client, &program));
    arrived(&setting, 40, Family::V4);
}

#[test]
fn python_smtplib() {
    let Some(setting) = Setting::new("smtplib", &[]) else { return };
    let script = "import smtplib, sys\n\
                  with smtplib.SMTP(sys.argv[1], 25, 'client.test') as server:\n \
                  for number in range(3):\n  \
                  server.sendmail('a@client.test', ['box@local.test'], f'Subject: {number}\\r\\n\\r\\n.one\\r\\n..two\\r\\n')\n";
    succeeded(&Stage::plain().run(&setting.trio.client, &["python3", "-c", script, FRONT[1]]));
    arrived(&setting, 3, Family::V6);
}

#[test]
fn curl() {
    let Some(setting) = Setting::new("curl", &[]) else { return };
    let stage = Stage::plain();
    stage.etc("message", "Subject: curl\r\n\r\n.line\r\n");
    let server = format!("smtp://{}/client.test", FRONT[0]);
    let envelope = ["--mail-from", "a@client.test", "--mail-rcpt", "box@local.test", "--upload-file", "/etc/message"];
    let program = [&["curl", "--silent", "--show-error", "--url", &server], &envelope[..]].concat();
    succeeded(&stage.run(&setting.trio.client, &program));
    arrived(&setting, 1, Family::V4);
}

/// A whole mail server as the client: its queue goes through, to the last message.
#[test]
fn another_postfix_delivers_its_queue() {
    let Some(setting) = Setting::new("a Postfix as client", &[]) else { return };
    let sender = Postfix::start(&setting.trio.client, Temper::Client);
    let mut submission = Client::connect(&setting.trio.client, ([127, 0, 0, 1], 25).into());
    submission.must("EHLO localhost");
    for number in 0..25 {
        submission.must("MAIL FROM:<a@client.test>");
        submission.must("RCPT TO:<box@local.test>");
        submission.must("DATA");
        submission.send(format!("Subject: {number}\r\n\r\nLine.\r\n.\r\n").as_bytes());
        submission.expect(2);
    }
    submission.quit();
    sender.log().wait_for_count(&["postfix/smtp[", "status=sent (250"], 25);
    arrived(&setting, 25, Family::V4);
}
