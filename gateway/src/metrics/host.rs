//! Which host names a request may come by. A page elsewhere that had a browser look its own name up as this host's address (DNS
//! rebinding) would otherwise read what is shown here.

use std::net::IpAddr;

/// Whether a request's `Host` is an address, or one of these names; a port may stand behind it.
pub(super) fn is_known_host(host: &str, names: &[String]) -> bool {
    let name = match host.rsplit_once(':') {
        // The colons of an IPv6 address stand in brackets.
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.parse::<IpAddr>().is_ok() || names.iter().any(|known| known.eq_ignore_ascii_case(name.trim_end_matches('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let names = ["localhost".to_owned(), "mx.example.com".to_owned()];
        for (host, known) in [
            ("127.0.0.1", true),
            ("127.0.0.1:9525", true),
            ("[::1]:9525", true),
            ("[::1]", true),
            ("localhost:9525", true),
            ("MX.example.com.", true),
            ("mx.example.com:80", true),
            ("rebind.example.net", false),
            ("rebind.example.net:9525", false),
            ("127.0.0.1.example.net", false),
            ("localhost.example.net", false),
            ("", false),
            (":9525", false),
        ] {
            assert_eq!(is_known_host(host, &names), known, "{host}");
        }
    }
}
