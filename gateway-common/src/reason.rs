//! Why somebody is banned: what SMTP, and a completed handshake, showed. The kernel side only keeps the number.

/// Nobody said.
pub const NONE: u32 = 0;
/// An administrator banned it.
pub const MANUAL: u32 = 1;
/// Tried to relay.
pub const RELAY_ATTEMPTS: u32 = 2;
/// Guessed passwords.
pub const AUTH_FAILURES: u32 = 3;
/// Too many refused commands.
pub const TOO_MANY_ERRORS: u32 = 4;
/// Talked before the greeting.
pub const EARLY_TALK: u32 = 5;
/// Broke the protocol in a way no mail server does: smuggling, another protocol, commands nobody may send.
pub const PROTOCOL_ABUSE: u32 = 6;
/// More than one of these.
pub const MIXED: u32 = 7;
/// Not a ban: the address is nobody's on the Internet.
pub const BOGON: u32 = 8;
/// Not a ban: the backend trusts the address, and it must not come from outside.
pub const TRUSTED_ADDRESS: u32 = 9;

const NAMES: [&str; 10] = [
    "none",
    "manual",
    "relay_attempts",
    "auth_failures",
    "too_many_errors",
    "early_talk",
    "protocol_abuse",
    "mixed",
    "bogon",
    "trusted_address",
];

/// The name of a reason; a number from elsewhere has none.
pub fn name(number: u32) -> &'static str {
    usize::try_from(number).ok().and_then(|index| NAMES.get(index)).copied().unwrap_or("unknown")
}
