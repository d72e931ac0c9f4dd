//! What speaks against a client, and how much of it one session can say.
//!
//! Points are the scale that `bans.threshold` is measured on. What an honest but clumsy client may do now and then costs a
//! twentieth of the usual threshold; what no mail server does costs a quarter or more.

use std::fmt;

/// Something a session saw a client do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Offence {
    /// A transaction with a recipient that the relay guard refused.
    RelayAttempt,
    /// Recipients that the mail server does not have, in a session that has brought no mail: the first, and each fifth.
    UnknownRecipients,
    /// What looks like the end of a message and is none, with a command behind it.
    SmugglingAttempt,
    /// Mail before the greeting, or a body before 354.
    EarlyTalk,
    /// XCLIENT, XFORWARD or PROXY.
    IdentityClaim,
    /// A session that ended because too many of its commands were refused.
    TooManyErrors,
    /// A session that ended because its commands brought no mail.
    TooManyCommands,
    /// A line or a message that went on far past its limit.
    Flood,
    /// Credentials that were refused.
    AuthFailure,
}

impl Offence {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::RelayAttempt,
        Self::UnknownRecipients,
        Self::SmugglingAttempt,
        Self::EarlyTalk,
        Self::IdentityClaim,
        Self::TooManyErrors,
        Self::TooManyCommands,
        Self::Flood,
        Self::AuthFailure,
    ];

    /// What it costs a source that is not trusted, in points; `bans.threshold` of them are a ban.
    pub fn points(self) -> u32 {
        match self {
            Self::RelayAttempt | Self::UnknownRecipients => 5,
            Self::TooManyCommands => 10,
            Self::AuthFailure => 15,
            Self::TooManyErrors => 20,
            Self::SmugglingAttempt | Self::EarlyTalk | Self::IdentityClaim => 25,
            Self::Flood => 50,
        }
    }

    /// Whether a correct mail server can be made to do it by what its users send: a stranger may write any recipient and any
    /// body through a large provider, and the provider is not to blame.
    pub fn can_be_content(self) -> bool {
        matches!(self, Self::RelayAttempt | Self::UnknownRecipients | Self::SmugglingAttempt)
    }

    /// For logs and for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RelayAttempt => "relay attempt",
            Self::UnknownRecipients => "try of unknown recipients",
            Self::SmugglingAttempt => "attempt to smuggle a message",
            Self::EarlyTalk => "mail before its turn",
            Self::IdentityClaim => "claim to be somebody else",
            Self::TooManyErrors => "session of errors",
            Self::TooManyCommands => "session without mail",
            Self::Flood => "flood",
            Self::AuthFailure => "refused password",
        }
    }

    pub(super) fn index(self) -> usize {
        usize::from(self as u8)
    }
}

impl fmt::Display for Offence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How often one session counts for what takes several tries.
const COUNTED_MAX: u8 = 4;

/// What one session has said against its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SessionOffences([u8; Offence::ALL.len()]);

impl SessionOffences {
    /// Whether this one is to be charged. Who scans tries much in one session, so attempts to relay and unknown recipients
    /// count up to four times, refused passwords each, and anything else once.
    pub fn counts(&mut self, offence: Offence) -> bool {
        let most = match offence {
            Offence::RelayAttempt | Offence::UnknownRecipients => COUNTED_MAX,
            Offence::AuthFailure => u8::MAX,
            _ => 1,
        };
        let count = &mut self.0[offence.index()];
        let counts = *count < most;
        *count = count.saturating_add(1);
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_counted_and_not_what_it_repeats() {
        for (offence, expected) in [
            (Offence::RelayAttempt, 4),
            (Offence::UnknownRecipients, 4),
            (Offence::IdentityClaim, 1),
            (Offence::Flood, 1),
            (Offence::AuthFailure, 100),
        ] {
            let mut session = SessionOffences::default();
            assert_eq!((0..100).filter(|_| session.counts(offence)).count(), expected, "{offence}");
        }
    }

    /// The dearest session there can be, of somebody who may be charged for everything, is short of the usual threshold when
    /// no two of its offences can be had without intent.
    #[test]
    fn one_session_of_clumsiness_bans_nobody() {
        let mut session = SessionOffences::default();
        let clumsy = Offence::ALL.into_iter().filter(|offence| offence.can_be_content());
        let points: u32 = clumsy
            .flat_map(|offence| std::iter::repeat_n(offence, 1000))
            .filter(|offence| session.counts(*offence))
            .map(Offence::points)
            .sum();
        assert!(points < 100, "{points}");
    }
}
