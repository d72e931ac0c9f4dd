//! A backend that greets with 4xx is busy, not down: it limits how many connections one address may hold, and to it every
//! client has the gateway's. Clients are told 451 meanwhile and come again; what to raise depends on the server.

use std::fmt::Display;

/// Whether a greeting with this code says that the backend takes no connection now, but will.
pub(super) fn is_busy(code: u16) -> bool {
    (400..500).contains(&code)
}

/// Whether it says so of the connection that it was asked on, also where it was told of a client: Exim does before it reads a
/// PROXY header.
pub(super) fn is_of_the_connection(text: &str) -> bool {
    text.to_ascii_lowercase().contains(EXIM)
}

/// What Exim says for `smtp_accept_max_per_host` and `smtp_accept_max`.
const EXIM: &str = "too many concurrent smtp connections";

/// What it means and what to raise, from the words the server uses.
pub(super) fn sentence(address: &impl Display, code: u16, text: &str) -> String {
    let words = text.to_ascii_lowercase();
    let raise = if words.contains("too many connections from") {
        "Postfix: smtpd_client_connection_count_limit, or the gateway's address in smtpd_client_event_limit_exceptions"
    } else if words.contains("concurrent connections has exceeded") {
        "Exchange: Set-ReceiveConnector -MaxInboundConnectionPerSource, for the connector that the gateway uses"
    } else if words.contains(EXIM) {
        "Exim: smtp_accept_max_per_host, and smtp_accept_max if that is the limit"
    } else {
        "its limit of connections from one address, for the gateway's"
    };
    format!(
        "{address} is busy: it greets the gateway with {code} {text}. Clients are told 451 and come again; to it all of them have the \
         gateway's address, so raise what it allows one address ({raise})"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_is_told_its_own_limit() {
        for (text, words) in [
            ("4.7.0 mx.example.com Error: too many connections from 192.0.2.2", "smtpd_client_connection_count_limit"),
            (
                "4.3.2 The maximum number of concurrent connections has exceeded a limit, closing transmission channel",
                "MaxInboundConnectionPerSource",
            ),
            (
                "mx.example.com: Too many concurrent SMTP connections; please try again later.",
                "smtp_accept_max_per_host",
            ),
            ("4.3.2 try later", "its limit of connections from one address"),
        ] {
            let sentence = sentence(&"192.0.2.25:25", 421, text);
            assert!(sentence.contains(words) && sentence.contains(text), "{sentence}");
        }
        for (code, busy) in
            [(220, false), (399, false), (400, true), (421, true), (451, true), (500, false), (554, false)]
        {
            assert_eq!(is_busy(code), busy, "{code}");
        }
    }
}
