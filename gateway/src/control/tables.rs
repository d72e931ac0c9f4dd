//! `bans`, `top` and `sessions` as tables.

use crate::kernel::Mode;
use crate::observe::show::span;
use crate::observe::table::Table;

use super::{BanList, BannedBy, SessionList, TlsStatus, TopList};

/// The table of bans, for a terminal (`colour`) or a file.
pub fn render_bans(list: &BanList, colour: bool) -> String {
    let BanList { now, bans } = list;
    if bans.is_empty() {
        return "nobody is banned\n".to_owned();
    }
    let rows = bans.iter().map(|ban| {
        let by = match ban.by {
            BannedBy::Offences => "offences",
            BannedBy::Administrator => "administrator",
        };
        [
            ban.address.clone(),
            by.to_owned(),
            format!("{} ago", span(now.saturating_sub(ban.since))),
            span(ban.until.saturating_sub(*now)),
            ban.connections_refused.to_string(),
            ban.packets_dropped.to_string(),
            ban.reason.clone(),
        ]
    });
    Table::new(["BANNED", "BY", "SINCE", "LEFT", "REFUSED", "DROPPED", "WHY"], rows).page(colour)
}

/// The table of sources, for a terminal (`colour`) or a file.
pub fn render_top(list: &TopList, colour: bool) -> String {
    let TopList { mode, sources } = list;
    if *mode == Mode::Off {
        let rows = sources.iter().map(|source| [source.address.clone(), source.active.to_string()]);
        let table = Table::new(["SOURCE", "SESSIONS"], rows).page(colour);
        return format!("the kernel side is off: packets are not counted\n\n{table}");
    }
    let rows = sources.iter().map(|source| {
        let numbers = [source.active, source.syn, source.packets, source.bytes, source.dropped];
        let [active, syn, packets, bytes, dropped] = numbers.map(|number| number.to_string());
        [source.address.clone(), active, syn, packets, bytes, dropped]
    });
    Table::new(["SOURCE", "SESSIONS", "SYNS", "PACKETS", "BYTES", "DROPPED"], rows).page(colour)
}

/// The table of sessions, for a terminal (`colour`) or a file.
pub fn render_sessions(list: &SessionList, colour: bool) -> String {
    let rows = list.sessions.iter().map(|session| {
        [
            session.id.to_string(),
            session.client.clone(),
            session.helo.clone().unwrap_or_else(|| "-".to_owned()),
            match &session.route {
                Some(route) => format!("{} by {route}", session.backend),
                None => session.backend.clone(),
            },
            session.state.clone(),
            span(session.age_seconds),
            session.bytes_in.to_string(),
            session.accepted.to_string(),
            if session.last_reply == 0 { "-".to_owned() } else { session.last_reply.to_string() },
            session.tls.as_ref().map_or_else(|| "-".to_owned(), |tls| tls.version.clone()),
            session.backend_tls.as_ref().map_or_else(|| "-".to_owned(), TlsStatus::short),
        ]
    });
    let head =
        ["ID", "CLIENT", "HELO", "BACKEND", "STATE", "AGE", "BYTES", "MESSAGES", "LAST REPLY", "TLS", "BACKEND TLS"];
    let mut page = Table::new(head, rows).page(colour);
    if list.more > 0 {
        page.push_str(&format!("and {} more\n", list.more));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::super::{BanStatus, TopSource};
    use super::*;

    fn bans() -> BanList {
        let by_offences = BanStatus {
            address: "192.0.2.1".into(),
            reason: "10 × relay attempt".into(),
            by: BannedBy::Offences,
            since: 1000,
            until: 1600,
            connections_refused: 7,
            packets_dropped: 0,
            note: None,
        };
        let by_hand = BanStatus {
            address: "2001:db8::/32".into(),
            reason: "ticket \x1b[2J4711".into(),
            by: BannedBy::Administrator,
            until: 90_000,
            packets_dropped: 12_345,
            ..by_offences.clone()
        };
        BanList { now: 1090, bans: vec![by_offences, by_hand] }
    }

    fn source(address: &str, syn: u64, active: u64) -> TopSource {
        TopSource { address: address.into(), syn, packets: syn * 10, bytes: syn * 1000, active, dropped: 0 }
    }

    #[test]
    fn the_table_of_bans() {
        let expected = "\
BANNED         BY             SINCE         LEFT       REFUSED  DROPPED  WHY
192.0.2.1      offences       1 min 30 s ago  8 min 30 s  7  0  10 × relay attempt
";
        let page = render_bans(&bans(), false);
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let lines: Vec<_> = page.lines().map(words).collect();
        assert_eq!(lines[..2], expected.lines().map(words).collect::<Vec<_>>());
        assert!(page.contains("1 d") && page.contains("ticket \\u{1b}[2J4711") && page.contains("12345"), "{page}");
        assert_eq!(render_bans(&BanList { now: 0, bans: Vec::new() }, false), "nobody is banned\n");
        assert!(render_bans(&bans(), true).starts_with("\x1b[1mBANNED"));
    }

    #[test]
    fn the_table_of_sources() {
        let sources = vec![source("192.0.2.1", 3, 2), source("2001:db8::/64", 1, 0)];
        let off = TopList { mode: Mode::Off, sources };
        let expected = "\
the kernel side is off: packets are not counted

SOURCE         SESSIONS
192.0.2.1      2
2001:db8::/64  0
";
        assert_eq!(render_top(&off, false), expected);
    }

    #[test]
    fn bans_come_back_from_json() {
        let json = serde_json::to_value(bans()).unwrap();
        assert_eq!(json["bans"][0]["by"], "offences");
        assert_eq!(serde_json::from_value::<BanList>(json).unwrap(), bans());
    }
}
