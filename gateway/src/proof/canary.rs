//! Level 3: one message to a mailbox that the operator owns elsewhere. Only if it arrives there is a relay beyond doubt.

use std::hash::{BuildHasher as _, RandomState};

use super::door::Door;
use super::probe::Problem;
use super::report::Sent;

/// Sends it by the way of this door. Bounces go nowhere: the reverse-path is null.
pub(super) async fn send(door: &mut Door<'_>, canary: &str) -> Sent {
    let token = format!("relay-proof-{:016x}", RandomState::new().hash_one(canary));
    let answer = match submit(door, canary, &token).await {
        Ok(answer) => answer,
        Err(problem) => problem.to_string(),
    };
    Sent { probe: door.probe.kind, token, answer }
}

async fn submit(door: &mut Door<'_>, canary: &str, token: &str) -> Result<String, Problem> {
    let hostname = door.hostname;
    let mut conversation = door.open().await?.conversation;
    for command in ["MAIL FROM:<>".to_owned(), format!("RCPT TO:<{canary}>"), "DATA".to_owned()] {
        let answer = conversation.ask(&command).await?;
        if !matches!(answer.code, 200..=299 | 354) {
            return Err(Problem::Other(format!("not sent: {} {}", answer.code, answer.text)));
        }
    }
    let message = format!(
        "From: <relay-proof@{hostname}>\r\nTo: <{canary}>\r\nSubject: relay proof {token}\r\nMessage-ID: \
         <{token}@{hostname}>\r\nAuto-Submitted: auto-generated\r\n\r\nIf this has arrived, the mail server behind \
         {hostname} relays for strangers.\r\n.\r\n"
    );
    conversation.send(message.as_bytes()).await?;
    let answer = conversation.hear().await?;
    conversation.quit().await;
    Ok(format!("the mail server answered {} {}", answer.code, answer.text))
}
