//! Events of the kernel side, for the log. It sends few: at the first drop of a source, then at every doubling.

use std::net::{IpAddr, Ipv6Addr};

use aya::maps::{MapData, RingBuf};
use gateway_common::{Event, outcome, reason};
use tracing::info;

/// Events logged at one go; the rest waits for the next, so that a flood of them keeps nobody from work.
const EVENTS_MAX: usize = 256;

/// Logs what has come.
pub(super) fn log_events(events: &mut RingBuf<MapData>) {
    for _ in 0..EVENTS_MAX {
        let Some(item) = events.next() else { return };
        if let Some(Event { source, dropped, outcome, reason, port, .. }) = parse(&item) {
            let source = IpAddr::from(Ipv6Addr::from_octets(source)).to_canonical();
            let (outcome, reason) = (outcome::name(outcome), reason::name(reason));
            info!(%source, port = u16::from_be_bytes(port), outcome, reason, dropped, "the kernel side drops");
        }
    }
}

/// An event as the kernel side wrote it; `None` if this is none.
fn parse(mut bytes: &[u8]) -> Option<Event> {
    fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
        let (head, rest) = bytes.split_first_chunk()?;
        *bytes = rest;
        Some(*head)
    }
    let bytes = &mut bytes;
    let event = Event {
        time_ns: u64::from_ne_bytes(take(bytes)?),
        source: take(bytes)?,
        dropped: u64::from_ne_bytes(take(bytes)?),
        outcome: u32::from_ne_bytes(take(bytes)?),
        reason: u32::from_ne_bytes(take(bytes)?),
        interface: u32::from_ne_bytes(take(bytes)?),
        port: take(bytes)?,
        reserved: take(bytes)?,
    };
    bytes.is_empty().then_some(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_field_by_field() {
        let mut bytes = Vec::new();
        bytes.extend(7_u64.to_ne_bytes());
        bytes.extend("::ffff:192.0.2.1".parse::<Ipv6Addr>().unwrap().octets());
        bytes.extend(8_u64.to_ne_bytes());
        bytes.extend([16_u32, 2, 3].map(u32::to_ne_bytes).concat());
        bytes.extend([0, 25, 0, 0]);
        assert_eq!(bytes.len(), size_of::<Event>());
        let event = parse(&bytes).unwrap();
        assert_eq!((event.time_ns, event.dropped, event.outcome, event.reason, event.interface), (7, 8, 16, 2, 3));
        assert_eq!(event.port, [0, 25]);
        for length in 0..bytes.len() {
            assert_eq!(parse(&bytes[..length]), None);
        }
        bytes.push(0);
        assert_eq!(parse(&bytes), None);
    }
}
