//! Whether a mail server where users log in lets in whom it does not know: a login under a name that nobody has must be 535
//! (RFC 4954 section 6). Asked as a stranger, and only where the configuration names such an account.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::smtp::auth::Mechanisms;

use super::answer::Answer;
use super::door::{Door, Opened};
use super::judge::Finding;
use super::probe::Problem;

/// Nobody's.
const PASSWORD: &str = "not-the-password";

/// Tries to log in by the way of this door.
pub(super) async fn unknown_login(door: &mut Door<'_>, account: &str) -> Option<Finding> {
    match log_in(door, account).await {
        Ok(answer) => judge(&answer),
        Err(problem) => Some(Finding::LoginUndecided(problem.to_string())),
    }
}

fn judge(answer: &Answer) -> Option<Finding> {
    match answer.code {
        235 => Some(Finding::AnyPassword),
        535 => None,
        code => Some(Finding::LoginUndecided(format!("it answers {code} {}", answer.text))),
    }
}

async fn log_in(door: &mut Door<'_>, account: &str) -> Result<Answer, Problem> {
    let Opened { mut conversation, offer, .. } = door.open().await?;
    let answer = if offer.mechanisms.contains(Mechanisms::PLAIN) {
        let response = STANDARD.encode(format!("\0{account}\0{PASSWORD}"));
        conversation.ask(&format!("AUTH PLAIN {response}")).await?
    } else if offer.mechanisms.contains(Mechanisms::LOGIN) {
        let mut answer = conversation.ask("AUTH LOGIN").await?;
        for response in [account, PASSWORD] {
            if answer.code == 334 {
                answer = conversation.ask(&STANDARD.encode(response)).await?;
            }
        }
        answer
    } else {
        return Err(Problem::Other("it offers neither AUTH PLAIN nor AUTH LOGIN".to_owned()));
    };
    conversation.quit().await;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_535_is_a_refused_password() {
        let finding = |code| judge(&Answer { code, text: "text".into() });
        assert_eq!(finding(535), None);
        assert_eq!(finding(235), Some(Finding::AnyPassword));
        for code in [334, 454, 421, 500, 504, 534, 538] {
            assert_eq!(finding(code), Some(Finding::LoginUndecided(format!("it answers {code} text"))));
        }
    }
}
