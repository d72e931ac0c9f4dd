//! Mail servers with queues send messages whose recipients go three ways: each recipient gets each message once, whatever is told
//! to come in a message of its own.

use std::collections::HashMap;
use std::time::Duration;

use tests::peers::client::Client;
use tests::peers::gateway::Gateway;
use tests::peers::net::{FRONT, Family, Trio};
use tests::peers::postfix::{Postfix, ROUTED, Temper};
use tests::peers::stage::{Stage, said};
use tests::peers::{Backend as _, available, exim, sendmail};

const MESSAGES: usize = 10;
/// Of each message, two a route.
const PLACES: [usize; 6] = [0, 1, 2, 2, 0, 1];
/// How long a queue may take.
const LONGEST: Duration = Duration::from_secs(120);

/// Who gets the message with this number.
fn recipients(message: usize) -> Vec<String> {
    // No two messages begin the same way.
    let turned = PLACES.iter().cycle().skip(message).take(PLACES.len()).enumerate();
    turned.map(|(number, place)| format!("m{message}-{number}@{}", ROUTED[*place])).collect()
}

/// Shell commands that put all messages into a queue by this program, and have it delivered by rounds until it is empty.
fn script(queue: &str, round: &str, left: &str) -> String {
    let each = (0..MESSAGES).map(|message| {
        format!("printf 'Subject: m{message}\\n\\nline\\n' | {queue} {}\n", recipients(message).join(" "))
    });
    let each: String = each.collect();
    format!(
        "{each}round=0\nwhile [ \"$({left})\" != 0 ]; do\nround=$((round + 1))\n[ $round -le 20 ] || {{ echo 'not empty'; exit 1; }}\n\
         {round}\ndone\necho \"rounds: $round\"\n"
    )
}

struct Setting {
    trio: Trio,
    servers: [Postfix; 3],
    gateway: Gateway,
}

impl Setting {
    fn new(what: &str, peer: &str) -> Option<Self> {
        if !available(what, &["postfix", peer]) {
            return None;
        }
        let trio = Trio::new();
        let servers = [2501, 2502, 2503].map(|port| Postfix::start_on(&trio.backend, Temper::CatchAll, port));
        let backend = |place: usize| {
            let address = servers[place].address();
            format!("[[backend]]\nname = \"{place}\"\naddress = \"{address}\"\nidentity = \"xclient\"\n")
        };
        let route = |place: usize| {
            format!("[[route]]\nrecipients = [\"{}\"]\nlocal = true\nbackend = \"{place}\"\n", ROUTED[place])
        };
        let gateway = Gateway::by(
            &trio,
            &format!(
                "[server]\nhostname = \"gateway.test\"\nworkers = 2\n[[listener]]\naddress = \"{}\"\n{}{}{}{}{}\
                 [relay]\nlocal_domains = [\"{}\"]\n[proof]\nenabled = false\n",
                Family::V4.smtp(FRONT),
                backend(0),
                backend(1),
                backend(2),
                route(1),
                route(2),
                ROUTED[0],
            ),
        );
        Some(Self { trio, servers, gateway })
    }

    /// Every recipient has every message that is for it, once, and only by its own server.
    fn check(&self, how: &str) {
        for (place, server) in self.servers.iter().enumerate() {
            server.wait_for_deliveries(2 * MESSAGES);
            let log = server.log().text();
            let mut times: HashMap<&str, usize> = HashMap::new();
            for line in log.lines().filter(|line| line.contains("status=sent (delivered to maildir)")) {
                let to = line.split_once(" to=<").and_then(|(_, rest)| rest.split_once('>')).map(|(to, _)| to);
                *times.entry(to.expect("a recipient")).or_default() += 1;
            }
            let own = (0..MESSAGES).flat_map(recipients).filter(|recipient| recipient.ends_with(ROUTED[place]));
            let mut expected = 0;
            for recipient in own {
                assert_eq!(times.get(&*recipient), Some(&1), "{recipient}");
                expected += 1;
            }
            assert_eq!((times.len(), expected), (2 * MESSAGES, 2 * MESSAGES), "{times:?}");
        }
        let routes = self.gateway.json(&["status"])["routes"].clone();
        let routes = routes.as_array().expect("routes");
        let accepted = |route: &serde_json::Value| route["messages"]["accepted_total"].as_u64().expect("a number");
        let messages: u64 = routes.iter().map(accepted).sum();
        println!(
            "{how}: {messages} messages of {MESSAGES}, by route {:?}",
            routes.iter().map(accepted).collect::<Vec<_>>()
        );
        let least = u64::try_from(MESSAGES).expect("a few");
        assert!(routes.iter().all(|route| accepted(route) >= least), "{routes:?}");
    }
}

fn run(setting: &Setting, stage: &Stage, program: &[&str]) -> String {
    let output = stage.run_within(LONGEST, &setting.trio.client, program);
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    said.lines().last().unwrap_or_default().to_owned()
}

#[test]
fn exim_delivers_its_queue_three_ways() {
    let Some(setting) = Setting::new("Exim's queue over three routes", "exim") else { return };
    let mut stage = Stage::new("exim");
    exim::prepare_client(&mut stage, FRONT[0], "hosts_try_dane =\n\nbegin retry\n* * F,1h,1m");
    let script = script("exim4 -odq -oi -f a@client.test", "exim4 -qff", "exim4 -bpc");
    let rounds = run(&setting, &stage, &["sh", "-ec", &script]);
    setting.check(&format!("Exim, {rounds}"));
}

#[test]
fn sendmail_delivers_its_queue_three_ways() {
    let Some(setting) = Setting::new("Sendmail's queue over three routes", "sendmail") else { return };
    let stage = sendmail::client(FRONT[0]);
    let script = script(
        &format!("{} -odq -oi -f a@client.test", sendmail::PROGRAM),
        // Verbose, it goes through the queue before it ends.
        &format!("{} -q -v > /dev/null", sendmail::PROGRAM),
        "ls /var/spool/mqueue | wc -l",
    );
    let program = sendmail::named(&script);
    let rounds = run(&setting, &stage, &program.each_ref().map(String::as_str));
    setting.check(&format!("Sendmail, {rounds}"));
}

#[test]
fn postfix_delivers_its_queue_three_ways() {
    let Some(setting) = Setting::new("Postfix's queue over three routes", "postfix") else { return };
    let main = format!(
        "myhostname = client.test\nrelayhost = [{}]\nvirtual_mailbox_domains =\nqueue_run_delay = 1s\nminimal_backoff_time = 1s\n\
         maximal_backoff_time = 2s\n",
        FRONT[0]
    );
    let sender = Postfix::set_up(&setting.trio.client, &main, "", 25);
    let mut submission = Client::connect(&setting.trio.client, ([127, 0, 0, 1], 25).into());
    submission.must("EHLO localhost");
    for message in 0..MESSAGES {
        submission.must("MAIL FROM:<a@client.test>");
        for recipient in recipients(message) {
            submission.must(&format!("RCPT TO:<{recipient}>"));
        }
        submission.must("DATA");
        submission.send(format!("Subject: m{message}\r\n\r\nline\r\n.\r\n").as_bytes());
        submission.expect(2);
    }
    submission.quit();
    sender.log().wait_for_count(&["postfix/smtp[", "status=sent (250"], PLACES.len() * MESSAGES);
    setting.check("Postfix");
}
