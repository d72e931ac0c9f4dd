//! The name under which a mail server took a message into its queue, as its reply to the end of data says it. RFC 5321 has no
//! field for it; each server has words of its own, and whoever traces a message needs what stands between them.

/// Words behind which it stands.
const BEHIND: [&str; 3] = ["queued as ", "id=", "InternalId="];
/// Words before which it stands, behind an enhanced status code.
const BEFORE: [&str; 2] = [" Message accepted for delivery", " message accepted for delivery"];

/// The queue ID in a reply's text; `None` where it says none that is known here.
pub fn queue_id(text: &str) -> Option<&str> {
    let behind = BEHIND.iter().find_map(|words| Some(text.split_once(words)?.1));
    let found = match behind {
        Some(rest) => rest.split([' ', ',', ';', ']', ')']).next()?,
        None => {
            let before = BEFORE.iter().find_map(|words| Some(text.split_once(words)?.0))?;
            before.rsplit(' ').next()?
        }
    };
    // Where there is none, the word there is the status code's.
    let is_status = found.split('.').count() == 3 && found.bytes().all(|byte| byte == b'.' || byte.is_ascii_digit());
    Some(found).filter(|found| !found.is_empty() && !is_status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_say_it_in_their_own_words() {
        for (text, expected) in [
            // Postfix.
            ("2.0.0 Ok: queued as 4XyZ1a2B3c", Some("4XyZ1a2B3c")),
            // Exim.
            ("OK id=1rABcd-000abc-1X", Some("1rABcd-000abc-1X")),
            // Exchange.
            ("2.6.0 <x@y.example> [InternalId=123456, Hostname=EX1] Queued mail for delivery", Some("123456")),
            // Sendmail and OpenSMTPD.
            ("2.0.0 u9BKr1A2 Message accepted for delivery", Some("u9BKr1A2")),
            ("2.0.0 12ab34cd Message accepted for delivery", Some("12ab34cd")),
            ("2.0.0 Message accepted for delivery", None),
            ("2.0.0 Ok", None),
            ("2.0.0 Ok: queued as ", None),
            ("", None),
        ] {
            assert_eq!(queue_id(text), expected, "{text}");
        }
    }
}
