//! The relay tests: what a stranger tries, embedded from `tests/relay-tests.toml` as data.
//!
//! A case is a reverse-path and a forward-path with placeholders, and what must come of it. Beside what the file says, each
//! has a [`Form`]: whether an acceptance can only mean relaying, or may as well mean that the server takes odd local parts
//! for its own users and bounces them later.

use std::sync::LazyLock;

use toml::de::{DeTable, DeValue};

/// The cases that a verdict rests on: the controls, and the plainest of each kind that was ever relayed.
const TELLING: [&str; 10] = ["H04", "H05", "A01", "A02", "A04", "A09", "B01", "C01", "E01", "F01"];

/// The cases as they are written.
const TEXT: &str = include_str!("../../../tests/relay-tests.toml");

/// One case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// `A01`.
    pub id: Box<str>,
    /// Behind `MAIL FROM:`, placeholders unfilled.
    pub from: Box<str>,
    /// Behind `RCPT TO:`, placeholders unfilled.
    pub to: Box<str>,
    /// What must come of it.
    pub expect: Expect,
    /// Whose test it was first.
    pub source: Option<Box<str>>,
}

/// What must come of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// 5xx at MAIL or RCPT.
    Refuse,
    /// 2xx (RFC 5321).
    Accept,
    /// 2xx is fine, for the mail goes to a local user.
    Local,
    /// 2xx is fine where that local user exists.
    LocalIfExists,
    /// The control that shows that not everything is refused.
    ControlAccept,
    /// The control that shows that not everything is accepted.
    ControlRefuse,
}

/// What an acceptance of a case that should be refused can mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The recipient's own domain is foreign: who accepts, relays.
    Foreign,
    /// The recipient is local by the letter (`user%foreign@local`): who accepts may relay, or may bounce it later.
    Odd,
}

/// What the placeholders stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// `{fd}`: a domain that the backend is not to relay to, and that exists.
    pub foreign_domain: String,
    /// `{u}`: a user there.
    pub foreign_user: String,
    /// `{ld}`: a domain that the backend takes mail for; cases that need one are left out where none is known.
    pub local_domain: Option<String>,
    /// A user there who exists.
    pub local_user: String,
    /// `{host}`: the server's name.
    pub host: String,
    /// `{ip}`: the server's address, as it stands in a literal.
    pub ip: String,
    /// `{fip}`: an address that is nobody's.
    pub foreign_ip: String,
}

/// Every case, in the file's order.
pub fn cases() -> &'static [Case] {
    static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| read(TEXT));
    &CASES
}

/// Whether a verdict rests on it.
pub(super) fn is_telling(case: &Case) -> bool {
    TELLING.contains(&&*case.id)
}

/// Where it stands in the file.
pub(super) fn position(id: &str) -> Option<usize> {
    cases().iter().position(|case| &*case.id == id)
}

/// A case that cannot be read is left out, which a test notices.
fn read(text: &str) -> Vec<Case> {
    let Ok(tree) = DeTable::parse(text) else { return Vec::new() };
    let cases = tree.get_ref().get("case").and_then(|value| value.get_ref().as_array());
    cases.into_iter().flatten().filter_map(|case| case.get_ref().as_table().and_then(read_case)).collect()
}

fn read_case(table: &DeTable<'_>) -> Option<Case> {
    let text = |key: &str| table.get(key).and_then(|value| DeValue::as_str(value.get_ref())).map(Box::from);
    let expect = match &*text("expect")? {
        "refuse" => Expect::Refuse,
        "accept" => Expect::Accept,
        "local" => Expect::Local,
        "local-if-exists" => Expect::LocalIfExists,
        "control-accept" => Expect::ControlAccept,
        "control-refuse" => Expect::ControlRefuse,
        _ => return None,
    };
    Some(Case { id: text("id")?, from: text("from")?, to: text("to")?, expect, source: text("source") })
}

impl Case {
    /// What stands behind `MAIL FROM:` and `RCPT TO:`; `None` if the case needs a local domain and there is none.
    pub fn fill(&self, names: &Names) -> Option<(String, String)> {
        Some((names.fill(&self.from)?, names.fill(&self.to)?))
    }

    /// By the letter of the forward-path: what follows its last `@` is its domain.
    pub fn form(&self) -> Form {
        let path = self.to.trim_start().trim_start_matches('<');
        let path = path.split_once('>').map_or(path, |(path, _)| path);
        let domain = path.rsplit_once('@').map_or("", |(_, domain)| domain);
        // A quoted string that is never followed by a domain is a local part, whatever it holds.
        let quoted = domain.contains('"');
        let known = ["{fd}", "{fip}", "FOREIGN.", "foreign\u{3002}", "2001:db8:"];
        let foreign = !quoted && !domain.contains([')', ',']) && known.iter().any(|known| domain.contains(known));
        if foreign { Form::Foreign } else { Form::Odd }
    }

    /// Plain mail to a foreign user: the cases whose refusal is the proof.
    pub fn is_core(&self) -> bool {
        self.expect == Expect::Refuse && self.id.starts_with('A')
    }
}

impl Names {
    fn fill(&self, template: &str) -> Option<String> {
        let local_domain = match &self.local_domain {
            Some(domain) => domain,
            None if template.contains("{ld}") => return None,
            None => "",
        };
        let filled = template
            .replace("user@{ld}", &format!("{}@{{ld}}", self.local_user))
            // These stand in the file as variants of its own example domains.
            .replace("FOREIGN.eXample", &odd_case(&self.foreign_domain))
            .replace("foreign\u{3002}example", &self.foreign_domain.replacen('.', "\u{3002}", 1))
            .replace("\u{ff4c}\u{ff4f}cal.test", &fullwidth_head(local_domain))
            .replace("{ld}", local_domain)
            .replace("{fd}", &self.foreign_domain)
            .replace("{host}", &self.host)
            .replace("{ip}", &self.ip)
            .replace("{fip}", &self.foreign_ip)
            .replace("{u}", &self.foreign_user);
        Some(filled)
    }
}

/// `foreign.example` as `FOREIGN.eXample`.
fn odd_case(domain: &str) -> String {
    let (head, tail) = domain.split_once('.').unwrap_or((domain, ""));
    let second = |(index, letter): (usize, char)| if index == 1 { letter.to_ascii_uppercase() } else { letter };
    let tail: String = tail.chars().enumerate().map(second).collect();
    format!("{}.{tail}", head.to_ascii_uppercase()).trim_end_matches('.').to_owned()
}

/// The first two letters as their fullwidth forms, which Unicode folds back onto them.
fn fullwidth_head(domain: &str) -> String {
    let wide = |(index, letter): (usize, char)| match letter {
        '!'..='~' if index < 2 && letter != '.' => char::from_u32(u32::from(letter) - 0x21 + 0xff01).unwrap_or(letter),
        _ => letter,
    };
    domain.chars().enumerate().map(wide).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names {
            foreign_domain: "foreign.example".into(),
            foreign_user: "victim".into(),
            local_domain: Some("local.test".into()),
            local_user: "user".into(),
            host: "mx.local.test".into(),
            ip: "192.0.2.10".into(),
            foreign_ip: "203.0.113.5".into(),
        }
    }

    #[test]
    fn every_case_is_read_and_every_placeholder_filled() {
        assert_eq!(cases().len(), 79);
        assert_eq!(TEXT.matches("[[case]]").count(), 79);
        for case in cases() {
            let (from, to) = case.fill(&names()).unwrap();
            assert!(!from.contains(['{', '}']) && !to.contains(['{', '}']), "{}: {from} {to}", case.id);
        }
    }

    #[test]
    fn variants_of_the_examples_follow_the_names() {
        let of = |id: &str, names: &Names| cases().iter().find(|case| &*case.id == id).unwrap().fill(names).unwrap().1;
        assert_eq!(of("A13", &names()), "<victim@FOREIGN.eXample>");
        assert_eq!(of("G05", &names()), "<victim@foreign\u{3002}example>");
        assert_eq!(of("G06", &names()), "<user@\u{ff4c}\u{ff4f}cal.test>");
        assert_eq!(of("F09", &names()), "<victim@foreign.example\0@local.test>");
        let names = Names {
            foreign_domain: "a.b.example.org".into(),
            local_domain: Some("example.com".into()),
            local_user: "postmaster".into(),
            ..names()
        };
        assert_eq!(of("A13", &names), "<victim@A.b.example.org>");
        assert_eq!(of("G05", &names), "<victim@a\u{3002}b.example.org>");
        assert_eq!(of("G06", &names), "<user@\u{ff45}\u{ff58}ample.com>");
        assert_eq!(of("H04", &names), "<postmaster@example.com>");
    }

    #[test]
    fn without_a_local_domain_cases_that_need_one_are_left_out() {
        let names = Names { local_domain: None, ..names() };
        let left: Vec<_> = cases().iter().filter(|case| case.fill(&names).is_some()).collect();
        assert!(left.iter().any(|case| &*case.id == "A01"));
        assert!(left.iter().all(|case| !case.to.contains("{ld}") && !case.from.contains("{ld}")));
    }

    #[test]
    fn forms_are_by_the_letter() {
        let odd = cases().iter().filter(|case| case.expect == Expect::Refuse && case.form() == Form::Odd);
        let odd: Vec<_> = odd.map(|case| &*case.id).collect();
        let expected = "B01 B02 B03 B04 B05 B06 B07 B08 B09 B10 C01 C02 C03 C04 C05 C06 C07 C08 C10 C12 C13 C14 C15 E01 E02 \
                        E03 E04 E05 E06 F07 F09 F10 F11 F12 G03 G04 G06 H03";
        let expected: Vec<_> = expected.split_whitespace().collect();
        assert_eq!(odd, expected);
    }
}
