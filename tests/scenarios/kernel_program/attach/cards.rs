//! Cards that come, go, are renamed, or are more than one for the same packets.

use std::io::Write as _;

use aya::maps::{HashMap, Map};
use gateway_common::{Source, SourceKey, maps};
use smtp_gateway::kernel::Settings;
use tests::kernel::frame::Frame;
use tests::peers::tun;

use super::super::CLIENT;
use super::*;

/// That an attachment shows a card so, in the end: the kernel tells of changes, and somebody must listen.
#[track_caller]
fn becomes(setting: &Setting, run: &Attachment, name: &str, mode: Mode) {
    let is = || {
        let cards = setting.cards(run);
        cards.iter().any(|card| card.name == name && card.mode == mode)
    };
    eventually(is, || format!("{:?}", setting.cards(run)));
}

#[test]
fn what_is_taken_off_comes_back() {
    let Some(setting) = Setting::new("what_is_taken_off_comes_back") else { return };
    for mode in [XdpMode::Auto, XdpMode::Generic] {
        let run = setting.cover(&[CARD], mode, false);
        setting.trio.gateway.within(|| run.watch()).unwrap();
        let (is, _) = setting.shown_by(&run, CARD);
        // Whoever removes the pin detaches the link.
        let before = setting.links();
        for entry in fs::read_dir(setting.mounted.folder()).unwrap().flatten() {
            if entry.file_name().to_string_lossy().starts_with("card-") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        eventually(|| setting.links().len() == 1 && setting.links() != before, || format!("{:?}", setting.links()));
        assert_eq!(setting.shown_by(&run, CARD).0, is);
        // The card is deleted, and made again under its name.
        setting.ip("link delete client");
        becomes(&setting, &run, CARD, Mode::Off);
        setting.ip("link add client type veth peer name other");
        becomes(&setting, &run, CARD, is);
        assert_eq!(setting.links().len(), 1);
    }
}

#[test]
fn a_card_that_is_not_there_yet_is_waited_for() {
    let Some(setting) = Setting::new("a_card_that_is_not_there_yet_is_waited_for") else { return };
    let run = setting.cover(&["late"], XdpMode::Auto, false);
    setting.trio.gateway.within(|| run.watch()).unwrap();
    assert_eq!(setting.shown_by(&run, "late").0, Mode::Off);
    setting.ip("link add late type veth peer name other");
    becomes(&setting, &run, "late", Mode::Native);
}

/// The next gateway, or somebody else, is not fought for the card.
#[test]
fn who_took_the_card_over_keeps_it() {
    let Some(setting) = Setting::new("who_took_the_card_over_keeps_it") else { return };
    let old = setting.cover(&[CARD], XdpMode::Auto, false);
    setting.trio.gateway.within(|| old.watch()).unwrap();
    let new = setting.cover(&[CARD], XdpMode::Auto, false);
    setting.ip("link set dev client mtu 1400");
    assert_eq!(setting.shown_by(&new, CARD), (Mode::Native, None));
    eventually(
        || setting.shown_by(&old, CARD).1.is_some_and(|why| why.contains("another XDP program has taken the place")),
        || format!("{:?}", setting.cards(&old)),
    );
    assert_eq!(setting.shown_by(&new, CARD), (Mode::Native, None));
}

#[test]
fn a_card_that_is_not_wanted_any_more_is_left() {
    let Some(setting) = Setting::new("a_card_that_is_not_wanted_any_more_is_left") else { return };
    let both = setting.cover(&[CARD, "backend"], XdpMode::Auto, false);
    assert_eq!(setting.shown_by(&both, "backend"), (Mode::Native, None));
    drop(both);
    // At the start of another run, and in the same.
    let one = setting.cover(&["backend"], XdpMode::Auto, false);
    setting.wait_until_off();
    assert_eq!(setting.cards(&one).len(), 1, "{:?}", setting.cards(&one));
    setting.trio.gateway.within(|| one.set_cards(&wanted(&[CARD], XdpMode::Auto, false))).unwrap();
    assert_eq!(setting.shown_by(&one, CARD), (Mode::Native, None));
    eventually(|| !setting.shown("backend").contains("prog/xdp"), || setting.shown("backend"));
}

#[test]
fn a_renamed_card_is_known_again() {
    let Some(setting) = Setting::new("a_renamed_card_is_known_again") else { return };
    drop(setting.cover(&[CARD], XdpMode::Auto, false));
    let links = setting.links();
    setting.ip("link set dev client down");
    setting.ip("link set dev client name wan0");
    setting.ip("link set dev wan0 up");
    let run = setting.cover(&["wan0"], XdpMode::Auto, false);
    assert_eq!(setting.shown_by(&run, "wan0"), (Mode::Native, None));
    assert_eq!(setting.links(), links, "the link is the same");
    // Under a name that nobody wants, it is left.
    drop(run);
    let run = setting.cover(&[CARD], XdpMode::Auto, false);
    eventually(|| !setting.shown("wan0").contains("prog/xdp"), || setting.shown("wan0"));
    assert_eq!(setting.cards(&run).len(), 1);
}

/// Where the kernel lets the program be on both, a packet would be counted twice; where it does not, the truth is said.
#[test]
fn one_of_two_cards_with_the_same_packets_has_the_program() {
    let Some(setting) = Setting::new("one_of_two_cards_with_the_same_packets") else { return };
    setting.ip("link add br0 type bridge");
    setting.ip("link set client master br0");
    for cards in [["client", "br0"], ["br0", "client"]] {
        let run = setting.cover(&cards, XdpMode::Auto, false);
        let (mode, why) = setting.shown_by(&run, "client");
        assert_eq!(mode, Mode::Off);
        assert!(why.unwrap().contains("packets of `client` come by `br0` as well"), "{cards:?}");
        assert_eq!(setting.shown_by(&run, "br0").0, Mode::Generic);
    }
    // Somebody else's program on the bridge stands in the way of one on its port.
    setting.pins().remove().unwrap();
    eventually(|| !setting.shown("br0").contains("prog/xdp"), || setting.shown("br0"));
    let mut stranger = stranger();
    setting.trio.gateway.within(|| empty(&mut stranger).attach("br0", AttachMode::Skb)).unwrap();
    let run = setting.cover(&["client"], XdpMode::Auto, false);
    let (mode, why) = setting.shown_by(&run, "client");
    assert_eq!(mode, Mode::Off);
    assert!(why.unwrap().contains("`client` takes no program, because `br0`, which is on top of it, has one"));
}

/// A card without an Ethernet header has the program that reads from the IP header on.
#[test]
fn a_tunnel_is_read_from_the_ip_header_on() {
    let Some(setting) = Setting::new("a_tunnel_is_read_from_the_ip_header_on") else { return };
    setting.ip("tuntap add dev tun0 mode tun");
    setting.ip("link set tun0 up");
    let run = setting.cover(&["tun0"], XdpMode::Auto, false);
    assert_ne!(setting.shown_by(&run, "tun0").0, Mode::Off);
    run.with(|program| program.set_ports(&[25])).unwrap();
    run.with(|program| program.configure(&Settings::default())).unwrap();
    let packet = Frame::syn(CLIENT).bytes().split_off(14);
    let mut tun = setting.trio.gateway.within(|| tun::open("tun0"));
    let sources = || {
        let map = run.with(|program| program.map(maps::SOURCES)).unwrap();
        let map: HashMap<_, SourceKey, Source> = Map::from_map_data(map).unwrap().try_into().unwrap();
        map.keys().map(|key| key.unwrap().address().to_string()).collect::<Vec<_>>()
    };
    tun.write_all(&packet).unwrap();
    eventually(|| sources() == [CLIENT], || format!("{:?}", sources()));
}

/// What the driver says is said, and what to do about it.
#[test]
fn a_refusal_of_native_mode_says_what_to_do() {
    let Some(setting) = Setting::new("a_refusal_of_native_mode_says_what_to_do") else { return };
    for host in [&setting.trio.client, &setting.trio.gateway] {
        let card = if host.name() == setting.trio.client.name() { "eth0" } else { CARD };
        let status = host.command("ip").args(["link", "set", "dev", card, "mtu", "9000"]).status().unwrap();
        assert!(status.success());
    }
    let run = setting.cover(&[CARD], XdpMode::Auto, false);
    let (mode, why) = setting.shown_by(&run, CARD);
    assert_eq!(mode, Mode::Generic);
    let why = why.unwrap();
    assert!(why.contains("MTU is too large") && why.contains("lower the MTU, 9000 now"), "{why}");
}
