//! The trust-leak audit: what else a backend grants to the gateway's address and not to a stranger. Each test is put twice,
//! naked and as an outsider, and only the difference is trust.
//!
//! From level 2 on, because it needs DATA. Nothing is left behind: the test of bare newlines sends a message that is going in
//! circles by its own header, which the servers it is put to refuse once they believe it to be whole. Others are not asked.

use std::time::Duration;

use crate::config::ServerKind;

use super::door::Door;
use super::judge::Finding;
use super::probe::Problem;

/// What may look like the end of a message, and is none: sent where CRLF.CRLF belongs.
const LOOK_ALIKES: [&[u8]; 3] = [b"\n.\n", b"\n.\r\n", b"\r\n.\n"];
/// How long a server may need to refuse a message that it takes to be whole.
const VERDICT_WAIT: Duration = Duration::from_secs(2);
/// More than any server takes for a straight way.
const HOPS: usize = 150;
/// Commands that are refused, of which a stranger gets about twenty.
const ERRORS_MAX: usize = 30;

/// What one of the two can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Rights {
    /// A bare newline ended a message; `None` if that was not to be asked.
    bare_newline: Option<bool>,
    /// It was let go on after [`ERRORS_MAX`] errors; `None` if that could not be asked.
    errs_for_ever: Option<bool>,
}

/// Asks what is possible by the way of this door. `recipient` exists.
pub(super) async fn rights(door: &mut Door<'_>, kind: Option<ServerKind>, recipient: &str) -> Rights {
    // These refuse a message that loops before they take it.
    let refuses_loops = matches!(kind, Some(ServerKind::Postfix | ServerKind::Exim | ServerKind::OpenSmtpd));
    let mut rights = Rights::default();
    if refuses_loops {
        for end in LOOK_ALIKES {
            let Ok(ended) = ends_by(door, recipient, end).await else { break };
            let before = rights.bare_newline.unwrap_or(false);
            rights.bare_newline = Some(before || ended);
        }
    }
    rights.errs_for_ever = errs_for_ever(door).await.ok();
    rights
}

/// What the gateway's address is granted beyond a stranger's rights.
pub(super) fn compare(naked: Rights, outsider: Rights) -> Vec<Finding> {
    let mut findings = Vec::new();
    match (naked.bare_newline, outsider.bare_newline) {
        (_, Some(true)) => findings.push(Finding::BareNewline { outsider: true }),
        (Some(true), Some(false)) => findings.push(Finding::BareNewline { outsider: false }),
        _ => {}
    }
    if naked.errs_for_ever == Some(true) && outsider.errs_for_ever == Some(false) {
        findings.push(Finding::NoErrorLimit);
    }
    findings
}

/// Whether the server takes `end` for the end of a message.
async fn ends_by(door: &mut Door<'_>, recipient: &str, end: &[u8]) -> Result<bool, Problem> {
    let mut conversation = door.open().await?.conversation;
    for command in ["MAIL FROM:<>".to_owned(), format!("RCPT TO:<{recipient}>"), "DATA".to_owned()] {
        let answer = conversation.ask(&command).await?;
        if !matches!(answer.code, 200..=299 | 354) {
            return Err(Problem::Other(format!("{} {}", answer.code, answer.text)));
        }
    }
    let hop = "Received: from relay-proof by relay-proof; Thu, 1 Jan 1970 00:00:00 +0000\r\n";
    let mut message = hop.repeat(HOPS).into_bytes();
    message.extend_from_slice(b"Subject: relay proof, not to be delivered\r\n\r\nA test of how messages end.");
    message.extend_from_slice(end);
    conversation.send(&message).await?;
    // The connection is dropped in the message: whoever still waits for its end forgets it.
    Ok(conversation.goes_on(VERDICT_WAIT).await)
}

/// Whether it is let go on, whatever it says.
async fn errs_for_ever(door: &mut Door<'_>) -> Result<bool, Problem> {
    let mut conversation = door.open().await?.conversation;
    for _ in 0..ERRORS_MAX {
        match conversation.ask("RELAYPROOF").await {
            Ok(heard) if heard.code != 421 => {}
            _ => return Ok(false),
        }
    }
    conversation.quit().await;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_difference_is_trust() {
        let rights = |bare_newline, errs_for_ever| Rights { bare_newline, errs_for_ever };
        let (yes, no) = (Some(true), Some(false));
        for (naked, outsider, expected) in [
            (rights(no, no), rights(no, no), vec![]),
            (rights(yes, no), rights(no, no), vec![Finding::BareNewline { outsider: false }]),
            (rights(yes, no), rights(yes, no), vec![Finding::BareNewline { outsider: true }]),
            (rights(yes, no), rights(None, no), vec![]),
            (rights(no, yes), rights(no, no), vec![Finding::NoErrorLimit]),
            (rights(no, yes), rights(no, yes), vec![]),
            (rights(None, yes), rights(None, None), vec![]),
        ] {
            assert_eq!(compare(naked, outsider), expected, "{naked:?}, {outsider:?}");
        }
    }
}
