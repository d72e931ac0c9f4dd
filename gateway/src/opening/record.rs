//! What a server said while its session opened, for those who want to know whom they speak with.

use crate::smtp::ehlo::{Keywords, Offer};
use crate::smtp::reply::{ReplyParse, parse_reply};

use super::{Awaited, Opening};

/// Banner and hello, as they came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// The lines of the banner.
    pub banner: Vec<String>,
    /// The lines of the last reply to EHLO or HELO, the server's name first.
    pub hello: Vec<String>,
    /// What that offers.
    pub offer: Offer,
    /// The same, word for word.
    pub keywords: Keywords,
    /// The last reply of all, and what it answered.
    pub last: Option<(u16, String)>,
    awaited: Option<Awaited>,
}

impl Record {
    /// Notes the reply at the head of `input`, which `opening` is about to take.
    pub fn note(&mut self, opening: &Opening, input: &[u8]) {
        let ReplyParse::Complete { reply, .. } = parse_reply(input) else { return };
        let lines = || reply.lines().map(|line| String::from_utf8_lossy(line).into_owned()).collect();
        let awaited = opening.awaits();
        self.awaited = Some(awaited);
        match awaited {
            Awaited::Banner => self.banner = lines(),
            Awaited::Hello if reply.code == 250 => {
                self.hello = lines();
                self.offer = Offer::from_reply(&reply);
                self.keywords = Keywords::from_reply(&reply);
            }
            Awaited::Hello | Awaited::Other => {}
        }
        self.last = Some((reply.code, reply.lines().map(String::from_utf8_lossy).collect::<Vec<_>>().join(" ")));
    }

    /// Whether no reply came behind the banner.
    pub fn banner_is_last(&self) -> bool {
        self.awaited == Some(Awaited::Banner)
    }

    /// The first line of the banner.
    pub fn greeting(&self) -> &str {
        self.banner.first().map_or("", String::as_str)
    }
}
