use proptest::prelude::*;

use super::*;

fn shown(line: &str) -> String {
    match parse_command(line.as_bytes()) {
        Ok(Command::Mail { path, params }) => {
            let mut out = Vec::new();
            encode_mail(&path, params.iter(), &mut out);
            String::from_utf8(out).unwrap().trim_end().to_owned()
        }
        Ok(Command::Rcpt { path, params }) => {
            let mut out = Vec::new();
            encode_rcpt(&path, params.iter(), &mut out);
            String::from_utf8(out).unwrap().trim_end().to_owned()
        }
        Ok(Command::Ehlo(name)) => format!("Ehlo {}", name),
        Ok(Command::Helo(name)) => format!("Helo {}", name),
        Ok(command) => format!("{command:?}"),
        Err(error) => format!("{} {}", error.code, error.enhanced),
    }
}

#[test]
fn commands() {
    let table = [
        ("ehlo client.example", "Ehlo client.example"),
        ("EHLO [IPv6:2001:db8::1]", "Ehlo [IPv6:2001:db8::1]"),
        ("HELO under_score", "Helo under_score"),
        ("EHLO MÜLLER-PC", "Ehlo MÜLLER-PC"),
        ("HELO  HP LaserJet 400 ", "Helo HP LaserJet 400"),
        ("EHLO (none)", "Ehlo (none)"),
        ("EHLO %hostname%", "Ehlo %hostname%"),
        ("EHLO host/1", "Ehlo host/1"),
        ("EHLO 'host'", "Ehlo 'host'"),
        ("EHLO [fe80::1%eth0]", "Ehlo [fe80::1%eth0]"),
        ("EHLO a,b", "Ehlo a,b"),
        // What would claim something is a name like any other, and never written as it stands.
        ("EHLO a ADDR=127.0.0.1", "Ehlo a ADDR=127.0.0.1"),
        ("EHLO", "501 5.5.4"),
        ("HELO ", "501 5.5.4"),
        ("EHLO a\u{1b}b", "500 5.5.2"),
        ("EHLO a\u{85}b", "500 5.5.2"),
        ("EHLO a\u{2028}b", "500 5.5.2"),
        ("EHLO\u{a0}host", "Unknown"),
        ("EHLOhost", "Unknown"),
        ("mail from:<a@b.example>", "MAIL FROM:<a@b.example>"),
        ("MAIL FROM: <>  size=10\tBODY=8bitmime ", "MAIL FROM:<> SIZE=10 BODY=8bitmime"),
        ("MAIL FROM:\t<a@b.example>", "MAIL FROM:<a@b.example>"),
        ("MAIL FROM:<@r.example:a@b.example>", "MAIL FROM:<a@b.example>"),
        ("MAIL FROM:<a@b.example.> SIZE=1", "MAIL FROM:<a@b.example> SIZE=1"),
        ("MAIL FROM:a@b.example. SIZE=1", "MAIL FROM:<a@b.example> SIZE=1"),
        ("MAIL FROM:<a@b.example..>", "501 5.1.7"),
        ("MAIL FROM:<a@.>", "501 5.1.7"),
        ("MAIL FROM:<a@[192.0.2.1].>", "501 5.1.7"),
        ("MAIL FROM:<@r.example.:a@b.example>", "501 5.1.7"),
        ("MAIL FROM:<a@b.example>SIZE=1", "501 5.5.4"),
        ("MAIL FROM:<a@b.example> =1", "501 5.5.4"),
        ("MAIL FROM:<a@b.example> SIZE=", "501 5.5.4"),
        ("MAIL FROM:<a@b.example> A=b=c", "501 5.5.4"),
        ("MAIL FROM:<spamtest>", "501 5.1.7"),
        ("MAIL <a@b.example>", "501 5.5.4"),
        ("MAIL", "501 5.5.4"),
        ("RCPT TO:<a@b.example> NOTIFY=NEVER", "RCPT TO:<a@b.example> NOTIFY=NEVER"),
        ("rcpt to:<POSTMASTER>", "RCPT TO:<postmaster>"),
        ("RCPT TO:<a@b.example> <c@d.example>", "501 5.5.4"),
        ("RCPT TO:<a@b.example>,<c@d.example>", "501 5.5.4"),
        ("RCPT TO:<a@b.example,c@d.example>", "501 5.1.3"),
        ("RCPT TO:<>", "501 5.1.3"),
        ("RCPT TO:<a\u{b}@b.example>", "500 5.5.2"),
        ("DATA", "Data"),
        ("DATA now", "501 5.5.4"),
        ("BDAT 86 last", "Bdat { length: 86, last: true }"),
        ("BDAT 0", "Bdat { length: 0, last: false }"),
        ("BDAT 18446744073709551615", "Bdat { length: 18446744073709551615, last: false }"),
        ("BDAT 18446744073709551616", "501 5.5.4"),
        ("BDAT -1", "501 5.5.4"),
        ("BDAT +1", "501 5.5.4"),
        ("BDAT 1 LAST x", "501 5.5.4"),
        ("BDAT x", "501 5.5.4"),
        ("BDAT", "501 5.5.4"),
        ("RSET", "Rset"),
        ("NOOP anything at all", "Noop"),
        ("QUIT ", "Quit"),
        ("VRFY user", "Vrfy"),
        ("VRFY", "501 5.5.4"),
        ("VRFY üser", "553 5.6.7"),
        ("HELP", "Help"),
        ("STARTTLS", "StartTls"),
        ("AUTH PLAIN AGEAYg==", "Auth(…)"),
        ("xclient ADDR=127.0.0.1", "IdentityClaim"),
        ("XFORWARD NAME=x", "IdentityClaim"),
        ("PROXY TCP4 127.0.0.1 127.0.0.1 1 25", "IdentityClaim"),
        ("GET / HTTP/1.1", "Http"),
        ("POST / HTTP/1.0", "Http"),
        ("CONNECT mail.example:25 HTTP/1.1", "Http"),
        ("get /", "Unknown"),
        ("Host: x", "Unknown"),
        ("", "Unknown"),
        ("MAILFROM:<a@b.example>", "Unknown"),
    ];
    for (line, expected) in table {
        assert_eq!(shown(line), expected, "{line:?}");
    }
    assert_eq!(parse_command(b"NOOP \xff").unwrap_err().code, 500);
}

#[test]
fn a_hello_in_another_encoding() {
    let hello = |line: &[u8]| match parse_command(line) {
        Ok(Command::Ehlo(name) | Command::Helo(name)) => name.into_owned(),
        other => panic!("{other:?}"),
    };
    assert_eq!(hello(b"EHLO M\xdcLLER-PC"), "M\u{fffd}LLER-PC");
    assert_eq!(hello(b"HELO PC\x96\xe9"), "PC\u{fffd}\u{fffd}");
    for octets in [1, 254, 255] {
        assert_eq!(hello(format!("EHLO {}", "x".repeat(octets)).as_bytes()).len(), octets);
    }
    assert_eq!(parse_command(format!("EHLO {}", "x".repeat(256)).as_bytes()).unwrap_err().code, 501);
}

#[test]
fn a_failed_bdat_says_that_it_was_one() {
    assert!(parse_command(b"BDAT x").unwrap_err().is_bdat);
}

#[test]
fn wide_characters_are_never_narrowed() {
    // The low bytes of U+760D and U+760A are CR and LF.
    let line = "MAIL FROM:<a@b.example> X=\u{760d}\u{760a}RCPT";
    let Ok(Command::Mail { params, .. }) = parse_command(line.as_bytes()) else { panic!("refused") };
    let mut out = Vec::new();
    encode_mail(&ReversePath::Null, params.iter(), &mut out);
    assert_eq!(out.iter().filter(|&&byte| byte == b'\r' || byte == b'\n').count(), 2);
}

proptest! {
    #[test]
    fn parse_undoes_encode(
        local in "[a-z0-9!#$%]{1,20}",
        domain in "[a-z0-9]{1,10}(\\.[a-z0-9]{1,10}){0,3}",
        params in proptest::collection::vec(("[A-Z][A-Z0-9-]{0,8}", proptest::option::of("[!-<>-~]{1,10}")), 0..4),
        length: u64,
        last: bool,
    ) {
        let text = format!("<{local}@{domain}>");
        let (path, _) = ForwardPath::parse(&text).unwrap();
        let params: Vec<Param<'_>> = params.iter().map(|(keyword, value)| Param { keyword, value: value.as_deref() }).collect();
        let mut out = Vec::new();
        encode_rcpt(&path, params.iter().copied(), &mut out);
        let Ok(Command::Rcpt { path: parsed, params: parsed_params }) = parse_command(&out[..out.len() - 2]) else {
            return Err(TestCaseError::fail("not RCPT"));
        };
        prop_assert_eq!(parsed, path);
        prop_assert_eq!(parsed_params.iter().collect::<Vec<_>>(), params);

        out.clear();
        encode_bdat(length, last, &mut out);
        prop_assert_eq!(parse_command(&out[..out.len() - 2]), Ok(Command::Bdat { length, last }));
    }

    #[test]
    fn never_panics(line: Vec<u8>) {
        let _ = parse_command(&line);
    }
}
