//! What a server's answers to one case mean.
//!
//! The distinction that matters: a refusal counts as a denial of relaying only if nothing else explains it. A domain that
//! does not exist, a name server that is down or a client that is on a blocklist are refused too, and prove nothing.

use std::time::Duration;

use serde::Serialize;

/// What greylisting waits for where it does not say (postgrey, milter-greylist).
const GREYLIST_USUAL: Duration = Duration::from_secs(300);
/// What postscreen needs to know a client again.
const TESTED_PAUSE: Duration = Duration::from_secs(1);
/// Clocks differ.
const GREYLIST_GRACE: Duration = Duration::from_secs(2);

/// Where in a session an answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// To MAIL.
    Mail,
    /// To RCPT.
    Rcpt,
    /// To DATA.
    Data,
    /// To the end of data.
    EndOfData,
}

/// A reply of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its code.
    pub code: u16,
    /// Its lines behind the code, joined by blanks.
    pub text: String,
}

/// How one case ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// 2xx at RCPT; at higher levels, 354 to DATA or 250 to the end of data.
    Accepted,
    /// 5xx, or 454 4.7.1.
    Refused,
    /// 5xx for a reason that hides whether it would have relayed: it does not believe that the domain exists.
    Hidden,
    /// Another 4xx: greylisting, DNS, limits.
    Deferred,
    /// No answer; why.
    Lost(String),
}

/// One case as it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseResult {
    /// `A01`.
    pub id: Box<str>,
    /// How it ended.
    pub outcome: Outcome,
    /// Where.
    pub stage: Stage,
    /// The deciding answer, if there was one.
    pub answer: Option<Answer>,
    /// What was said, `C: ` and `S: ` lines.
    pub transcript: Vec<String>,
}

impl Answer {
    /// What it means at this stage for a foreign recipient.
    pub fn outcome(&self, stage: Stage) -> Outcome {
        match self.code {
            354 if stage == Stage::Data => Outcome::Accepted,
            200..=299 => Outcome::Accepted,
            454 if self.enhanced().is_some_and(|code| code.ends_with(".7.1")) => Outcome::Refused,
            500..=599 if self.hides() => Outcome::Hidden,
            500..=599 => Outcome::Refused,
            _ => Outcome::Deferred,
        }
    }

    /// The enhanced status code, as written.
    pub fn enhanced(&self) -> Option<&str> {
        let word = self.text.split_whitespace().next()?;
        let mut parts = word.split('.');
        let digits = |part: Option<&str>| part.is_some_and(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
        (digits(parts.next()) && digits(parts.next()) && digits(parts.next()) && parts.next().is_none()).then_some(word)
    }

    /// Whether the words are about relaying, as those of every common server are.
    pub fn speaks_of_relaying(&self) -> bool {
        let text = self.text.to_ascii_lowercase();
        text.contains("relay")
            || text.contains("not permitted to send to")
            || text.contains("we do not accept mail for")
    }

    /// How long greylisting asks to be left alone: as it says, or as is usual.
    pub fn put_off(&self) -> Option<Duration> {
        if self.code == 450 && self.enhanced() == Some("4.3.2") {
            // postscreen, which has tested the client with this very session.
            return Some(TESTED_PAUSE);
        }
        let text = self.text.to_ascii_lowercase();
        let words = ["greylist", "graylist", "grey list", "try again", "try later", "come back", "retry"];
        let is_greylisting = words.iter().any(|words| text.contains(words)) || self.enhanced() == Some("4.2.0");
        if self.outcome(Stage::Rcpt) != Outcome::Deferred || self.code == 421 || !is_greylisting || self.wants_a_name()
        {
            return None;
        }
        let mut words = text.split([' ', '(', ')', ',', ';']).map(|word| word.trim_end_matches('.')).peekable();
        while let Some(word) = words.next() {
            let unit = match words.peek().copied() {
                Some("s" | "sec" | "secs" | "second" | "seconds") => 1,
                Some("m" | "min" | "mins" | "minute" | "minutes") => 60,
                _ => continue,
            };
            if let Ok(number) = word.parse::<u16>() {
                return Some(Duration::from_secs(u64::from(number) * unit) + GREYLIST_GRACE);
            }
        }
        Some(GREYLIST_USUAL + GREYLIST_GRACE)
    }

    /// Whether whoever has not logged in may send nothing (RFC 4954 section 6).
    pub fn demands_login(&self) -> bool {
        // Not by its words alone: who finds a message's SPF or DMARC lacking speaks of authentication too.
        self.code == 530 && !self.demands_tls()
    }

    /// Whether it is what Postfix says for restrictions that end in `reject`, as those for users do: of whom it does not know
    /// it takes nothing, be it to whom it may. Its words for a listed client or recipient are the same.
    pub fn denies_access(&self) -> bool {
        self.code == 554 && self.text.to_ascii_lowercase().contains("rejected: access denied")
    }

    /// Whether nothing is answered before TLS (RFC 3207 section 4).
    pub fn demands_tls(&self) -> bool {
        let text = self.text.to_ascii_lowercase();
        self.code == 530 && (text.contains("starttls") || text.contains("tls"))
    }

    /// Whether a client is turned away for want of a name in DNS (RFC 7372 X.7.25).
    pub fn wants_a_name(&self) -> bool {
        let text = self.text.to_ascii_lowercase();
        let words = [
            "cannot find your",
            "reverse dns",
            "reverse hostname",
            "rdns",
            "ptr record",
            "no reverse",
            "unknown client",
        ];
        self.enhanced().is_some_and(|code| code.ends_with(".7.25")) || words.iter().any(|words| text.contains(words))
    }

    /// Whether the recipient's domain is refused for what DNS says of it (RFC 3463 X.1.2, RFC 7505 X.1.10).
    fn hides(&self) -> bool {
        if self.speaks_of_relaying() {
            return false;
        }
        let subject = self.enhanced().and_then(|code| code.split_once('.')).map(|(_, rest)| rest);
        let text = self.text.to_ascii_lowercase();
        let words =
            ["domain not found", "host not found", "does not accept mail", "null mx", "unrouteable", "no such domain"];
        matches!(subject, Some("1.2" | "1.10" | "4.4" | "4.3")) || words.iter().any(|words| text.contains(words))
    }

    /// The answer without what differs from recipient to recipient, to tell whether two refusals are the same.
    fn shape(&self) -> String {
        let mut shape = format!("{} ", self.code);
        for word in self.text.split_whitespace() {
            if !word.contains('@') {
                shape.push_str(&word.to_ascii_lowercase());
                shape.push(' ');
            }
        }
        shape
    }

    /// Whether both are one refusal, so that neither says anything of its recipient.
    pub fn is_same_refusal(&self, other: &Self) -> bool {
        self.shape() == other.shape()
    }
}

impl CaseResult {
    /// Whether it is a denial of relaying and nothing else. `control`: how the local user who exists fared in the same
    /// probe, if that was asked.
    pub fn is_clean_denial(&self, control: Option<&CaseResult>) -> bool {
        let (Outcome::Refused, Some(answer)) = (&self.outcome, &self.answer) else { return false };
        if answer.demands_login() {
            // Nobody sends without, be it to whom it may.
            return true;
        }
        if answer.demands_tls() {
            return false;
        }
        if self.stage == Stage::Mail && !answer.speaks_of_relaying() {
            // The sender was not to its liking.
            return false;
        }
        match control {
            None => answer.speaks_of_relaying(),
            Some(control) => match (&control.outcome, &control.answer) {
                // Others get through, or are asked to come again: this one was refused for what it is.
                (Outcome::Accepted | Outcome::Deferred, _) => true,
                (_, Some(refusal)) => control.stage != self.stage || !refusal.is_same_refusal(answer),
                (_, None) => answer.speaks_of_relaying(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Answer {
        let (code, text) = text.split_once(' ').unwrap();
        Answer { code: code.parse().unwrap(), text: text.into() }
    }

    #[test]
    fn replies_of_real_servers() {
        for (reply, expected) in [
            ("250 2.1.5 Ok", Outcome::Accepted),
            ("250 Accepted", Outcome::Accepted),
            ("554 5.7.1 <victim@foreign.example>: Relay access denied", Outcome::Refused),
            ("550 relay not permitted", Outcome::Refused),
            ("550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain", Outcome::Refused),
            ("550 Invalid recipient: <victim@foreign.example>", Outcome::Refused),
            ("454 4.7.1 <victim@foreign.example>: Relay access denied", Outcome::Refused),
            ("454 Try again", Outcome::Deferred),
            ("450 4.2.0 <user@local.test>: Recipient address rejected: Greylisted", Outcome::Deferred),
            ("451 4.7.1 Please try again later", Outcome::Deferred),
            ("421 4.7.0 Too many errors", Outcome::Deferred),
            ("501 5.1.3 Bad recipient address syntax", Outcome::Refused),
            ("550 5.1.2 <a@b.invalid>: Recipient address rejected: Domain not found", Outcome::Hidden),
            (
                "556 5.1.10 <a@example.com>: Recipient address rejected: Domain example.com does not accept mail",
                Outcome::Hidden,
            ),
            ("550 Unrouteable address", Outcome::Hidden),
            ("550 5.1.2 relaying denied", Outcome::Refused),
        ] {
            assert_eq!(answer(reply).outcome(Stage::Rcpt), expected, "{reply}");
        }
        assert_eq!(answer("354 go on").outcome(Stage::Data), Outcome::Accepted);
        assert_eq!(answer("354 go on").outcome(Stage::Rcpt), Outcome::Deferred);
    }

    #[test]
    fn greylisting_says_when_to_come_again() {
        for (reply, expected) in [
            ("450 4.2.0 <a@b>: Recipient address rejected: Greylisted, see http://postgrey.example", Some(302)),
            ("451 4.7.1 Greylisting in action, please come back in 60 seconds", Some(62)),
            ("450 4.7.1 Greylisted for 5 minutes (see the manual)", Some(302)),
            ("451 Please try again later", Some(302)),
            ("450 4.7.25 Client host rejected: cannot find your hostname, try again", None),
            ("450 4.3.2 Service currently unavailable", Some(1)),
            ("452 4.3.1 Insufficient system storage", None),
            ("421 4.7.0 Too many connections, try again later", None),
            ("550 5.7.1 Relay access denied, try again", None),
        ] {
            assert_eq!(answer(reply).put_off().map(|wait| wait.as_secs()), expected, "{reply}");
        }
    }

    #[test]
    fn who_wants_a_name_of_its_client() {
        for (reply, expected) in [
            ("450 4.7.25 Client host rejected: cannot find your hostname, [192.0.2.1]", true),
            ("450 4.7.25 Client host rejected: cannot find your reverse hostname, [192.0.2.1]", true),
            ("550 Reverse DNS lookup failed for host 192.0.2.1", true),
            ("554 5.7.1 Relay access denied", false),
            ("550 5.1.1 User unknown", false),
        ] {
            assert_eq!(answer(reply).wants_a_name(), expected, "{reply}");
        }
    }

    fn result(stage: Stage, reply: &str) -> CaseResult {
        let answer = answer(reply);
        let outcome = answer.outcome(stage);
        CaseResult { id: "X".into(), outcome, stage, answer: Some(answer), transcript: Vec::new() }
    }

    #[test]
    fn what_also_befalls_local_users_is_no_denial() {
        let denial = result(Stage::Rcpt, "554 5.7.1 <a@b.example>: Relay access denied");
        let blocked = result(Stage::Rcpt, "554 5.7.1 Service unavailable; Client host [203.0.113.9] blocked");
        let unknown = result(Stage::Rcpt, "550 5.1.1 <user@local.test>: User unknown");
        let accepted = result(Stage::Rcpt, "250 2.1.5 Ok");
        let greylisted = result(Stage::Rcpt, "450 4.2.0 Greylisted");
        let at_mail = result(Stage::Mail, "554 5.7.1 Service unavailable; Client host [203.0.113.9] blocked");
        let sender = result(Stage::Mail, "501 5.1.7 Bad sender address syntax");
        let login = result(Stage::Mail, "530 5.7.57 Client not authenticated to send mail");
        let tls = result(Stage::Mail, "530 5.7.0 Must issue a STARTTLS command first");
        for (found, control, expected) in [
            (&denial, Some(&accepted), true),
            (&denial, Some(&greylisted), true),
            (&denial, Some(&unknown), true),
            (&denial, Some(&blocked), true),
            (&blocked, Some(&blocked), false),
            (&at_mail, Some(&at_mail), false),
            (&sender, Some(&accepted), false),
            (&sender, Some(&greylisted), false),
            (&denial, None, true),
            (&blocked, None, false),
            (&greylisted, Some(&accepted), false),
            (&accepted, Some(&accepted), false),
            (&login, Some(&login), true),
            (&login, None, true),
            (&tls, Some(&tls), false),
            (&tls, None, false),
        ] {
            assert_eq!(found.is_clean_denial(control), expected, "{found:?} beside {control:?}");
        }
    }
}
