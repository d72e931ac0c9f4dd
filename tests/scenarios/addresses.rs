//! How addresses may be written: what the gateway accepts, what it writes to the backend, and what Postfix and Exim do with
//! the same.
//!
//! One table, held against all three. Where the gateway is stricter than a real server the row says why; it is never
//! more lenient than both without writing a form that both take.

use smtp_gateway::smtp::command::{Command, encode_mail, encode_rcpt, parse_command};
use tests::peers::Backend as _;
use tests::peers::available;
use tests::peers::client::Client;
use tests::peers::exim::{Exim, Trust};
use tests::peers::net::Trio;
use tests::peers::postfix::{Postfix, Temper};

/// A command; what the gateway writes to the backend, or nothing where it refuses; whether Postfix takes it, whether Exim does.
type Row = (&'static str, &'static str, bool, bool);

const LONG_64: &str = "RCPT TO:<aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@b.test>";
const LONG_73: &str = "MAIL FROM:<SRS0=HHHH=TT=sender.example=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@b.test>";

const TABLE: &[Row] = &[
    // As the RFC has it.
    ("RCPT TO:<a@b.test>", "RCPT TO:<a@b.test>", true, true),
    ("RCPT TO:<a.b+c=d@B.Test>", "RCPT TO:<a.b+c=d@B.Test>", true, true),
    ("RCPT TO:<\"a b\"@c.test>", "RCPT TO:<\"a b\"@c.test>", true, true),
    ("RCPT TO:<Postmaster>", "RCPT TO:<postmaster>", true, true),
    ("MAIL FROM:<>", "MAIL FROM:<>", true, true),
    ("RCPT TO:<a@[192.0.2.1]>", "RCPT TO:<a@[192.0.2.1]>", true, false),
    ("RCPT TO:<a@[IPv6:2001:db8::1]>", "RCPT TO:<a@[IPv6:2001:db8::1]>", true, false),
    // Source routes are dropped.
    ("RCPT TO:<@one.test,@two.test:a@b.test>", "RCPT TO:<a@b.test>", true, true),
    // Unusual, and clear.
    (LONG_64, LONG_64, true, true),
    (LONG_73, LONG_73, true, true),
    ("MAIL FROM:a@b.test", "MAIL FROM:<a@b.test>", true, true),
    ("MAIL FROM: a@b.test", "MAIL FROM:<a@b.test>", true, true),
    ("MAIL FROM: <a@b.test>", "MAIL FROM:<a@b.test>", true, true),
    ("MAIL FROM:a@b.test SIZE=100", "MAIL FROM:<a@b.test> SIZE=100", true, true),
    ("RCPT TO:a@b.test", "RCPT TO:<a@b.test>", true, true),
    ("RCPT TO:postmaster", "RCPT TO:<postmaster>", true, true),
    ("RCPT TO:< a@b.test >", "RCPT TO:<a@b.test>", true, false),
    ("RCPT TO:<a..b@c.test>", "RCPT TO:<\"a..b\"@c.test>", true, true),
    ("RCPT TO:<a.@c.test>", "RCPT TO:<\"a.\"@c.test>", true, true),
    ("RCPT TO:<.a@c.test>", "RCPT TO:<\".a\"@c.test>", true, true),
    ("RCPT TO:<a@under_score.test>", "RCPT TO:<a@under_score.test>", true, false),
    ("RCPT TO:<a@b.test.>", "RCPT TO:<a@b.test>", true, false),
    ("MAIL FROM:<a@b.test.>", "MAIL FROM:<a@b.test>", true, false),
    ("RCPT TO:\t<a@b.test>", "RCPT TO:<a@b.test>", true, true),
    // A route, a comment, a name, or two addresses, for one server or another.
    ("MAIL FROM : <a@b.test>", "", false, false),
    ("MAIL FROM:<<a@b.test>>", "", true, false),
    ("MAIL FROM:<a@b.test", "", false, false),
    ("MAIL FROM:a@b.test>", "", true, false),
    ("MAIL FROM:Name <a@b.test>", "", false, true),
    ("MAIL FROM:\"Name\" <a@b.test>", "", false, true),
    ("MAIL FROM:<a@b.test> (x)", "", false, true),
    ("MAIL FROM:<a(x)@b.test>", "", true, true),
    ("MAIL FROM:<a@b.test>,<c@d.test>", "", false, false),
    ("MAIL FROM:<a@b.test>SIZE=100", "", false, false),
    ("RCPT TO:<a@b.test,c@d.test>", "", false, false),
    ("RCPT TO:a@b.test,c@d.test", "", false, false),
    ("RCPT TO:<a@b.test> <c@d.test>", "", false, false),
    ("RCPT TO:<a@b@c.test>", "", true, false),
    ("RCPT TO:<\"a@b.test\">", "", true, false),
    ("RCPT TO:<a\\@b@c.test>", "", true, true),
    ("RCPT TO:<a b@c.test>", "", false, true),
    ("RCPT TO:<a@b..test>", "", false, false),
    ("RCPT TO:<a@b.test..>", "", false, false),
    // qmail's double bounce, which none but qmail itself has a use for.
    ("MAIL FROM:<#@[]>", "", false, false),
    ("RCPT TO:<a@-b.test>", "", false, false),
    ("RCPT TO:<a@[192.0.2.256]>", "", false, false),
    ("RCPT TO:<@b.test>", "", true, false),
    ("RCPT TO:<a@>", "", false, false),
    ("RCPT TO:<>", "", false, false),
    // No domain: one server completes it, another refuses, and who receives it nobody can say.
    ("RCPT TO:<a>", "", true, false),
    ("MAIL FROM:<a>", "", true, false),
];

/// What the gateway writes; empty where it refuses.
fn written(line: &str) -> String {
    let mut out = Vec::new();
    match parse_command(line.as_bytes()) {
        Ok(Command::Mail { path, params }) => encode_mail(&path, params.iter(), &mut out),
        Ok(Command::Rcpt { path, params }) => encode_rcpt(&path, params.iter(), &mut out),
        _ => {}
    }
    String::from_utf8(out).unwrap().trim_end().to_owned()
}

#[test]
fn every_form_is_judged_and_written_anew() {
    for (line, expected, ..) in TABLE {
        assert_eq!(written(line), *expected, "{line}");
        // What is written is understood as it was meant, by ourselves too.
        assert_eq!(written(expected), *expected, "{line}");
    }
}

/// Each line in a session of its own, for servers slow down for whoever errs; what does not agree with the table.
fn disagreements(connect: impl Fn() -> Client, takes: impl Fn(&Row) -> bool) -> Vec<String> {
    let try_line = |line: &str| {
        let mut client = connect();
        client.must("EHLO client.test");
        if line.starts_with("RCPT") {
            client.must("MAIL FROM:<sender@client.test>");
        }
        let reply = client.command(line);
        client.quit();
        reply
    };
    let mut disagreements = Vec::new();
    for row in TABLE {
        let (line, written, ..) = row;
        let reply = try_line(line);
        if (reply.code / 100 == 2) != takes(row) {
            disagreements.push(format!("{line}: {:?}", reply.lines));
        }
        // What the gateway makes of it, the server takes.
        if !written.is_empty() && written != line {
            let reply = try_line(written);
            if reply.code / 100 != 2 {
                disagreements.push(format!("{written} for {line}: {:?}", reply.lines));
            }
        }
    }
    disagreements
}

#[test]
fn postfix_does_as_the_table_says() {
    if !available("addresses before Postfix", &["postfix"]) {
        return;
    }
    let trio = Trio::new();
    let postfix = Postfix::start(&trio.backend, Temper::Confused);
    let disagreements = disagreements(|| Client::connect(&trio.gateway, postfix.address()), |row| row.2);
    assert!(disagreements.is_empty(), "{disagreements:#?}");
}

#[test]
fn exim_does_as_the_table_says() {
    if !available("addresses before Exim", &["exim"]) {
        return;
    }
    let trio = Trio::new();
    let exim = Exim::trusting(&trio.backend, Trust::GatewayBlindly);
    let disagreements = disagreements(|| Client::connect(&trio.gateway, exim.address()), |row| row.3);
    assert!(disagreements.is_empty(), "{disagreements:#?}");
}
