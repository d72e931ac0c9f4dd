//! Which mail server it is, from its greeting.
//!
//! A guess for advice only; nothing is decided by it. What an administrator hides from the banner shows in the EHLO reply
//! more often than not. Health checks, the relay proof and `status` all ask here.

use crate::config::ServerKind;

/// What of a server's words says what it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Greeting {
    /// The first line of the banner, without the code.
    pub banner: String,
    /// The EHLO reply, its first line first.
    pub hello: Vec<String>,
}

/// The kind of server, and what told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recognised {
    /// `None`: not recognised.
    pub kind: Option<ServerKind>,
    /// For people: `Postfix, by its banner`.
    pub how: String,
}

const BANNERS: [(&str, ServerKind); 8] = [
    ("postfix", ServerKind::Postfix),
    ("exim", ServerKind::Exim),
    ("microsoft esmtp", ServerKind::Exchange),
    ("opensmtpd", ServerKind::OpenSmtpd),
    ("sendmail", ServerKind::Sendmail),
    ("haraka", ServerKind::Haraka),
    ("dovecot", ServerKind::Dovecot),
    ("esmtp sink", ServerKind::Sink),
];

/// What the configuration says, or the greeting.
pub fn recognise(configured: Option<ServerKind>, greeting: &Greeting) -> Recognised {
    if let Some(kind) = configured {
        return Recognised { kind: Some(kind), how: format!("{}, by `backend.kind`", name(kind)) };
    }
    let banner = greeting.banner.to_ascii_lowercase();
    if let Some((_, kind)) = BANNERS.iter().find(|(words, _)| banner.contains(words)) {
        return Recognised { kind: Some(*kind), how: format!("{}, by its banner", name(*kind)) };
    }
    match by_hello(&greeting.hello) {
        Some(kind) => Recognised { kind: Some(kind), how: format!("{}, by its EHLO reply", name(kind)) },
        None => Recognised { kind: None, how: "not recognised; `backend.kind` can say".to_owned() },
    }
}

fn by_hello(hello: &[String]) -> Option<ServerKind> {
    let offers = |keyword: &str| {
        let first =
            |line: &String| line.split_whitespace().next().is_some_and(|word| word.eq_ignore_ascii_case(keyword));
        hello.iter().skip(1).any(first)
    };
    let first = hello.first().map(|line| line.to_ascii_lowercase()).unwrap_or_default();
    if offers("X-EXPS") || offers("X-ANONYMOUSTLS") || offers("XEXCH50") {
        return Some(ServerKind::Exchange);
    }
    if first.contains(" hello ") && first.contains("pleased to meet you") {
        return Some(if offers("ETRN") || offers("EXPN") { ServerKind::Sendmail } else { ServerKind::OpenSmtpd });
    }
    if first.contains(" hello ") && first.contains('[') && offers("PIPELINING") {
        return Some(ServerKind::Exim);
    }
    (offers("ETRN") && offers("ENHANCEDSTATUSCODES")).then_some(ServerKind::Postfix)
}

/// The server's own name.
pub fn name(kind: ServerKind) -> &'static str {
    match kind {
        ServerKind::Postfix => "Postfix",
        ServerKind::Exim => "Exim",
        ServerKind::Exchange => "Exchange",
        ServerKind::OpenSmtpd => "OpenSMTPD",
        ServerKind::Sendmail => "Sendmail",
        ServerKind::Haraka => "Haraka",
        ServerKind::Dovecot => "Dovecot",
        ServerKind::Sink => "smtp-gateway sink",
    }
}

/// What of a greeting stays the same from one connection to the next: two that differ in it are of two servers, or of one
/// whose configuration changed. Banners carry times and queue numbers, so of those only the words count.
pub fn fingerprint(banner: &str, keywords: &[String]) -> String {
    let is_word = |word: &&str| !word.contains([':', ',', '<', '+']) && !word.bytes().all(|byte| byte.is_ascii_digit());
    let calendar = "mon tue wed thu fri sat sun jan feb mar apr may jun jul aug sep oct nov dec gmt utc";
    let is_date = |word: &str| calendar.split(' ').any(|name| name.eq_ignore_ascii_case(word));
    let words: Vec<_> = banner.split_whitespace().filter(is_word).filter(|word| !is_date(word)).collect();
    let mut lines: Vec<_> = keywords.iter().map(|line| line.to_ascii_uppercase()).collect();
    lines.sort_unstable();
    format!("{}\n{}", words.join(" "), lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greetings_of_real_servers() {
        for (banner, hello, expected) in [
            ("mail.example.com ESMTP Postfix (Debian/GNU)", "mail.example.com", Some(ServerKind::Postfix)),
            ("mail.example.com ESMTP Exim 4.96 Tue, 24 Nov 2026 03:45:27 +0000", "", Some(ServerKind::Exim)),
            ("EX01.corp.example.com Microsoft ESMTP MAIL Service ready at Tue, 24 Nov", "", Some(ServerKind::Exchange)),
            ("mail.example.com ESMTP OpenSMTPD", "", Some(ServerKind::OpenSmtpd)),
            ("mail.example.com ESMTP Sendmail 8.17.1/8.17.1; Tue, 24 Nov 2026", "", Some(ServerKind::Sendmail)),
            ("mail.example.com ESMTP Haraka/3.0.3 ready", "", Some(ServerKind::Haraka)),
            ("sink.localhost ESMTP sink", "", Some(ServerKind::Sink)),
            (
                "mail ready",
                "mail Hello [192.0.2.1]|SIZE 37748736|PIPELINING|X-ANONYMOUSTLS|XRDST",
                Some(ServerKind::Exchange),
            ),
            ("mail ready", "mail Hello gw [192.0.2.1]|SIZE 52428800|8BITMIME|PIPELINING|HELP", Some(ServerKind::Exim)),
            ("mail ready", "mail Hello gw [192.0.2.1], pleased to meet you|8BITMIME|DSN", Some(ServerKind::OpenSmtpd)),
            ("mail ready", "mail Hello gw [192.0.2.1], pleased to meet you|ETRN|EXPN", Some(ServerKind::Sendmail)),
            ("mail ready", "mail|PIPELINING|SIZE|VRFY|ETRN|ENHANCEDSTATUSCODES|DSN", Some(ServerKind::Postfix)),
            ("mail ready", "mail|SIZE 1000", None),
        ] {
            let greeting = Greeting { banner: banner.into(), hello: hello.split('|').map(str::to_owned).collect() };
            assert_eq!(recognise(None, &greeting).kind, expected, "{banner} {hello}");
        }
        let greeting = Greeting { banner: "x ESMTP Postfix".into(), hello: Vec::new() };
        assert_eq!(recognise(Some(ServerKind::Exchange), &greeting).kind, Some(ServerKind::Exchange));
    }

    #[test]
    fn a_greeting_is_itself_again_an_hour_later() {
        let print = |banner: &str, keywords: &[&str]| {
            fingerprint(banner, &keywords.iter().map(|keyword| (*keyword).to_owned()).collect::<Vec<_>>())
        };
        let exim = |time: &str| print(&format!("mail ESMTP Exim 4.96 {time}"), &["PIPELINING", "SIZE 10"]);
        assert_eq!(exim("Tue, 24 Nov 2026 03:45:27 +0000"), exim("Wed, 25 Nov 2026 13:05:07 +0100"));
        assert_ne!(exim("Tue, 24 Nov 2026 03:45:27 +0000"), print("mail ESMTP Exim 4.97", &["PIPELINING", "SIZE 10"]));
        assert_eq!(print("mail ESMTP", &["A", "b"]), print("mail ESMTP", &["B", "a"]));
        assert_ne!(print("mail ESMTP", &["A"]), print("mail ESMTP", &["A", "XCLIENT ADDR"]));
    }
}
