//! Which cards the program belongs on, thought through before anything is attached.
//!
//! Pure: from the cards that the kernel says there are and those that are wanted to what is to be done with each. What a name
//! in the configuration means can change at any time (a card is renamed, made again, put below a bridge), so this is asked
//! anew whenever the kernel has news.

use super::netlink::Link;

/// `ARPHRD_ETHER`.
const ETHERNET: u16 = 1;
/// `ARPHRD_LOOPBACK`: has an Ethernet header of zeros.
const LOOPBACK: u16 = 772;
/// `ARPHRD_PPP`, `ARPHRD_RAWIP` and `ARPHRD_NONE` (tun, WireGuard): packets begin with the IP header.
const IP_ONLY: [u16; 3] = [512, 519, 0xfffe];
/// A pair of cards names each other as its lower one, and a chain of bonds, bridges and VLANs is short.
const DEPTH_MAX: usize = 8;

/// What packets on a card begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// An Ethernet header.
    Ethernet,
    /// The IP header.
    Ip,
}

/// What is to become of a wanted card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Placement {
    /// It gets the program for this framing.
    On(Framing),
    /// Its packets begin with something that the program does not read; the kernel's number for it.
    UnknownFraming(u16),
    /// Another wanted card sees its packets too.
    Covered(String),
}

impl Framing {
    /// By the kernel's number for a kind of card.
    fn of(hardware: u16) -> Option<Self> {
        match hardware {
            ETHERNET | LOOPBACK => Some(Self::Ethernet),
            kind if IP_ONLY.contains(&kind) => Some(Self::Ip),
            _ => None,
        }
    }
}

/// What is to become of a card among those that are `wanted`.
///
/// A packet that comes in by the port of a bridge or bond comes by the bridge too, and by the card below a VLAN before it: the
/// program on both would count and limit it twice. The bridge has the packets of all its ports, and the card below has those of
/// all its VLANs, so they are the ones that keep it.
pub(super) fn placement(link: &Link, links: &[Link], wanted: &[String]) -> Placement {
    if let Some(other) = wider(link, links).into_iter().find(|other| wanted.contains(&other.name)) {
        return Placement::Covered(other.name.clone());
    }
    match Framing::of(link.hardware) {
        Some(framing) => Placement::On(framing),
        None => Placement::UnknownFraming(link.hardware),
    }
}

/// The cards that see all of this card's packets.
fn wider<'a>(link: &'a Link, links: &'a [Link]) -> Vec<&'a Link> {
    let find = |index: Option<u32>| links.iter().find(|other| Some(other.index) == index);
    let mut wider: Vec<&Link> = Vec::new();
    let mut next = vec![link];
    for _ in 0..DEPTH_MAX {
        let found = next.iter().flat_map(|link| [find(link.master), vlan_of(link, links)]).flatten();
        next =
            found.filter(|other| other.index != link.index && !wider.iter().any(|w| w.index == other.index)).collect();
        wider.extend(&next);
    }
    wider
}

/// The cards right on top of this one: its bridge or bond, and its VLANs.
pub(super) fn uppers<'a>(link: &Link, links: &'a [Link]) -> Vec<&'a Link> {
    let is_upper = |other: &&Link| {
        link.master == Some(other.index) || vlan_of(other, links).is_some_and(|lower| lower.index == link.index)
    };
    links.iter().filter(is_upper).collect()
}

/// The card that this one is a VLAN (or the like) of: not the other end of a pair.
fn vlan_of<'a>(link: &Link, links: &'a [Link]) -> Option<&'a Link> {
    let lower = links.iter().find(|other| Some(other.index) == link.lower)?;
    (lower.lower != Some(link.index)).then_some(lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str) -> Link {
        Link { name: name.to_owned(), index, hardware: ETHERNET, mtu: 1500, ..Link::default() }
    }

    fn below(link: Link, master: u32) -> Link {
        Link { master: Some(master), ..link }
    }

    fn on(link: Link, lower: u32) -> Link {
        Link { lower: Some(lower), ..link }
    }

    #[test]
    fn each_packet_is_counted_once() {
        let links = [
            link(1, "lo"),
            below(link(2, "eth0"), 4),
            below(link(3, "eth1"), 4),
            below(link(4, "bond0"), 6),
            on(link(5, "bond0.7"), 4),
            link(6, "br0"),
            // A pair, each the other's lower one.
            on(link(7, "veth0"), 8),
            on(link(8, "veth1"), 7),
        ];
        for (wanted, name, expect) in [
            ("eth0", "eth0", None),
            ("eth0 bond0", "eth0", Some("bond0")),
            ("bond0 eth0", "eth0", Some("bond0")),
            ("bond0 eth0", "bond0", None),
            ("eth0 br0", "eth0", Some("br0")),
            ("eth1 eth0", "eth0", None),
            ("bond0.7 bond0", "bond0.7", Some("bond0")),
            ("bond0.7 bond0", "bond0", None),
            ("bond0.7 br0", "bond0.7", Some("br0")),
            ("veth0 veth1", "veth0", None),
            ("veth0 veth1", "veth1", None),
        ] {
            let wanted: Vec<_> = wanted.split(' ').map(str::to_owned).collect();
            let this = links.iter().find(|link| link.name == name).unwrap();
            let expect = match expect {
                Some(other) => Placement::Covered(other.to_owned()),
                None => Placement::On(Framing::Ethernet),
            };
            assert_eq!(placement(this, &links, &wanted), expect, "{name} of {wanted:?}");
        }
    }

    #[test]
    fn the_kind_of_a_card_says_what_its_packets_begin_with() {
        for (hardware, expect) in [
            (ETHERNET, Placement::On(Framing::Ethernet)),
            (LOOPBACK, Placement::On(Framing::Ethernet)),
            (0xfffe, Placement::On(Framing::Ip)),
            (512, Placement::On(Framing::Ip)),
            (519, Placement::On(Framing::Ip)),
            (32, Placement::UnknownFraming(32)),
            (768, Placement::UnknownFraming(768)),
        ] {
            let link = Link { hardware, ..link(1, "x") };
            assert_eq!(placement(&link, std::slice::from_ref(&link), &["x".to_owned()]), expect);
        }
    }
}
