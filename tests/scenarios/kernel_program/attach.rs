//! The program onto cards, from one run to the next, and beside somebody else's.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use aya::programs::{Xdp, XdpMode as AttachMode};
use aya::{Ebpf, EbpfLoader};
use smtp_gateway::config::{Xdp as Wanted, XdpMode};
use smtp_gateway::kernel::{Attachment, Card, Mode, Pins, Program};
use tests::kernel::{available, pins};
use tests::peers::net::Trio;

mod cards;

/// The card of the middle host that the client is on.
const CARD: &str = "client";

struct Setting {
    trio: Trio,
    mounted: pins::Pins,
}

impl Setting {
    fn new(scenario: &str) -> Option<Self> {
        available(scenario)?;
        Some(Self { trio: Trio::new(), mounted: pins::Pins::new() })
    }

    fn pins(&self) -> Pins {
        Pins::new(self.mounted.folder())
    }

    /// A new run of a gateway attaches, and goes on to live.
    fn cover(&self, cards: &[&str], mode: XdpMode, force: bool) -> Attachment {
        let wanted = wanted(cards, mode, force);
        self.trio.gateway.within(|| Attachment::new(Program::load(Some(&self.pins())).unwrap(), &wanted)).unwrap()
    }

    /// The same with the one card, as it is afterwards.
    fn attached(&self, mode: XdpMode) -> (Mode, Option<String>) {
        self.shown_by(&self.cover(&[CARD], mode, false), CARD)
    }

    /// A card as an attachment shows it.
    fn shown_by(&self, attachment: &Attachment, name: &str) -> (Mode, Option<String>) {
        let cards = self.cards(attachment);
        let card = cards.iter().find(|card| card.name == name).unwrap_or_else(|| panic!("{name} in {cards:?}"));
        (card.mode, card.problem.clone())
    }

    fn cards(&self, attachment: &Attachment) -> Vec<Card> {
        self.trio.gateway.within(|| attachment.cards()).unwrap()
    }

    fn ip(&self, arguments: &str) {
        let mut ip = self.trio.gateway.command("ip");
        assert!(ip.args(arguments.split(' ')).status().unwrap().success(), "{arguments}");
    }

    /// What holds the program on cards: the inode is another when the link is.
    fn links(&self) -> Vec<u64> {
        let entries = fs::read_dir(self.mounted.folder()).into_iter().flatten().flatten();
        let cards = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("card-"));
        cards.map(|entry| entry.metadata().unwrap().ino()).collect()
    }

    /// The kernel lets go of a card a while after the last pin is gone.
    fn wait_until_off(&self) {
        eventually(|| !self.shown(CARD).contains("prog/xdp"), || self.shown(CARD));
    }

    /// What `ip` says of a card.
    fn shown(&self, card: &str) -> String {
        let output = self.trio.gateway.command("ip").args(["-d", "link", "show", "dev", card]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

fn wanted(cards: &[&str], mode: XdpMode, force: bool) -> Wanted {
    Wanted { interfaces: cards.iter().map(|&card| card.to_owned()).collect(), mode, force, ..Wanted::default() }
}

#[track_caller]
fn eventually(holds: impl Fn() -> bool, shown: impl Fn() -> String) {
    let end = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < end, "{}", shown());
        std::thread::yield_now();
    }
}

/// Somebody else's program.
fn stranger() -> Ebpf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway-ebpf/prebuilt/bench.bpf.o");
    let mut ebpf = EbpfLoader::new().load_file(path).unwrap();
    empty(&mut ebpf).load().unwrap();
    ebpf
}

fn empty(ebpf: &mut Ebpf) -> &mut Xdp {
    ebpf.program_mut("empty").unwrap().try_into().unwrap()
}

#[test]
fn the_next_run_takes_the_card_over() {
    let Some(setting) = Setting::new("the_next_run_takes_the_card_over") else { return };
    assert_eq!(setting.attached(XdpMode::Auto), (Mode::Native, None));
    // The run is over, and the program is still there.
    assert!(setting.shown(CARD).contains("prog/xdp"), "{}", setting.shown(CARD));
    let first = setting.links();
    assert_eq!(first.len(), 1);
    for mode in [XdpMode::Auto, XdpMode::Native] {
        assert_eq!(setting.attached(mode), (Mode::Native, None));
        assert_eq!(setting.links(), first, "the same link, another program: no packet passes between");
    }
    assert_eq!(setting.attached(XdpMode::Generic), (Mode::Generic, None));
    assert!(setting.shown(CARD).contains("xdpgeneric"), "{}", setting.shown(CARD));
    assert_eq!(setting.attached(XdpMode::Auto), (Mode::Generic, None));
    assert_eq!(setting.attached(XdpMode::Native), (Mode::Native, None));
    setting.pins().remove().unwrap();
    setting.wait_until_off();
    assert!(!setting.mounted.folder().exists());
}

#[test]
fn a_card_that_was_replaced_is_attached_to_anew() {
    let Some(setting) = Setting::new("a_card_that_was_replaced_is_attached_to_anew") else { return };
    assert_eq!(setting.attached(XdpMode::Auto), (Mode::Native, None));
    setting.ip("link delete client");
    let (mode, why) = setting.attached(XdpMode::Auto);
    assert_eq!(mode, Mode::Off);
    assert_eq!(why.unwrap(), "there is no network interface `client`; `ip link` lists those there are");
    setting.ip("link add client type veth peer name other");
    for _ in 0..2 {
        assert_eq!(setting.attached(XdpMode::Auto), (Mode::Native, None));
    }
}

#[test]
fn without_pins_the_program_leaves_with_the_run() {
    let Some(setting) = Setting::new("without_pins_the_program_leaves_with_the_run") else { return };
    let wanted = wanted(&[CARD], XdpMode::Auto, false);
    let run = setting.trio.gateway.within(|| Attachment::new(Program::load(None).unwrap(), &wanted)).unwrap();
    assert_eq!(setting.shown_by(&run, CARD), (Mode::Native, None));
    assert!(setting.shown(CARD).contains("prog/xdp"));
    drop(run);
    setting.wait_until_off();
}

#[test]
fn a_card_without_native_mode_is_attached_to_in_generic_mode_with_a_reason() {
    let Some(setting) = Setting::new("a_card_without_native_mode") else { return };
    let run = setting.cover(&["lo"], XdpMode::Auto, false);
    let (mode, why) = setting.shown_by(&run, "lo");
    let why = why.unwrap();
    assert_eq!(mode, Mode::Generic);
    assert!(why.starts_with("generic, which costs more than native: "), "{why}");
    assert!(why.ends_with("its driver has no native mode"), "{why}");
}

#[test]
fn somebody_elses_program_stays() {
    let Some(setting) = Setting::new("somebody_elses_program_stays") else { return };
    for mode in [AttachMode::Driver, AttachMode::Skb] {
        let mut stranger = stranger();
        setting.trio.gateway.within(|| {
            // The kernel lets go of a card a while after the last pin is gone.
            let end = Instant::now() + Duration::from_secs(10);
            while let Err(error) = empty(&mut stranger).attach(CARD, mode) {
                assert!(Instant::now() < end, "{error}");
            }
        });
        for wanted in [XdpMode::Auto, XdpMode::Native, XdpMode::Generic] {
            let (is, why) = setting.attached(wanted);
            assert_eq!(is, Mode::Off, "{mode:?} {wanted:?}");
            assert!(
                why.unwrap().contains("an XDP program that is not this gateway's; it stays"),
                "{mode:?} {wanted:?}"
            );
        }
        // Whoever holds a link is asked, and not overruled.
        let (is, why) = setting.shown_by(&setting.cover(&[CARD], XdpMode::Auto, true), CARD);
        assert_eq!(is, Mode::Off);
        assert!(why.unwrap().contains("that somebody else's BPF link holds"));
        drop(stranger);
        assert_eq!(setting.attached(XdpMode::Auto), (Mode::Native, None));
        setting.pins().remove().unwrap();
    }
}

#[test]
fn a_program_that_nobody_holds_is_replaced_when_forced() {
    let Some(setting) = Setting::new("a_program_that_nobody_holds_is_replaced_when_forced") else { return };
    let mut stranger = stranger();
    let pinned: PathBuf = setting.mounted.top().join("stranger");
    empty(&mut stranger).pin(&pinned).unwrap();
    for mode in ["xdpdrv", "xdpgeneric"] {
        let mut ip = setting.trio.gateway.command("ip");
        ip.args(["link", "set", "dev", CARD, mode, "pinned"]).arg(&pinned);
        let end = Instant::now() + Duration::from_secs(10);
        while !ip.stderr(Stdio::null()).status().unwrap().success() {
            assert!(Instant::now() < end, "{ip:?}");
        }
        assert_eq!(setting.attached(XdpMode::Auto).0, Mode::Off, "{mode}");
        let run = setting.cover(&[CARD], XdpMode::Auto, true);
        assert_eq!(setting.shown_by(&run, CARD), (Mode::Native, None), "{mode}");
        setting.pins().remove().unwrap();
    }
}

#[test]
fn pins_need_a_bpf_file_system() {
    let Some(_setting) = Setting::new("pins_need_a_bpf_file_system") else { return };
    let folder = tempfile::tempdir().unwrap();
    let error = Program::load(Some(&Pins::new(folder.path().join("pins")))).unwrap_err();
    assert!(error.to_string().contains("mount -t bpf bpf"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
}
