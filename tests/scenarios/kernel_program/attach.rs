//! The program onto a card, from one run to the next, and beside somebody else's.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use aya::programs::{Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use smtp_gateway::kernel::{Attached, KernelError, Mode, Pins, Program, Wanted};
use tests::kernel::{available, pins};
use tests::peers::net::Trio;

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
    fn attach(&self, wanted: Wanted, force: bool) -> Result<(Program, Attached), KernelError> {
        self.trio.gateway.within(|| {
            let mut program = Program::load(Some(&self.pins()))?;
            let attached = program.attach(CARD, wanted, force)?;
            Ok((program, attached))
        })
    }

    fn attached(&self, wanted: Wanted) -> (Mode, bool) {
        let (_, attached) = self.attach(wanted, false).unwrap();
        (attached.mode, attached.taken_over)
    }

    /// The kernel lets go of a card a while after the last pin is gone.
    fn wait_until_off(&self) {
        let end = Instant::now() + Duration::from_secs(10);
        while self.shown().contains("prog/xdp") {
            assert!(Instant::now() < end, "{}", self.shown());
        }
    }

    /// What `ip` says of the card.
    fn shown(&self) -> String {
        let output = self.trio.gateway.command("ip").args(["-d", "link", "show", "dev", CARD]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
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
    assert_eq!(setting.attached(Wanted::Auto), (Mode::Native, false));
    // The run is over, and the program is still there.
    assert!(setting.shown().contains("prog/xdp"), "{}", setting.shown());
    assert_eq!(setting.attached(Wanted::Auto), (Mode::Native, true));
    assert_eq!(setting.attached(Wanted::Native), (Mode::Native, true));
    assert_eq!(setting.attached(Wanted::Generic), (Mode::Generic, false));
    assert!(setting.shown().contains("xdpgeneric"), "{}", setting.shown());
    assert_eq!(setting.attached(Wanted::Auto), (Mode::Generic, true));
    assert_eq!(setting.attached(Wanted::Native), (Mode::Native, false));
    let (program, _) = setting.attach(Wanted::Auto, false).unwrap();
    program.detach().unwrap();
    setting.wait_until_off();
    assert!(!setting.mounted.folder().exists());
}

#[test]
fn a_card_that_was_replaced_is_attached_to_anew() {
    let Some(setting) = Setting::new("a_card_that_was_replaced_is_attached_to_anew") else { return };
    assert_eq!(setting.attached(Wanted::Auto), (Mode::Native, false));
    let ip = |arguments: &[&str]| {
        assert!(setting.trio.gateway.command("ip").args(arguments).status().unwrap().success(), "{arguments:?}");
    };
    ip(&["link", "delete", CARD]);
    let gone = setting.attach(Wanted::Auto, false).unwrap_err();
    assert_eq!(gone, KernelError::UnknownInterface(CARD.to_owned()));
    ip(&["link", "add", CARD, "type", "veth", "peer", "name", "other"]);
    assert_eq!(setting.attached(Wanted::Auto), (Mode::Native, false));
    assert_eq!(setting.attached(Wanted::Auto), (Mode::Native, true));
}

#[test]
fn without_pins_the_program_leaves_with_the_run() {
    let Some(setting) = Setting::new("without_pins_the_program_leaves_with_the_run") else { return };
    setting.trio.gateway.within(|| {
        let mut program = Program::load(None).unwrap();
        assert_eq!(program.attach(CARD, Wanted::Auto, false).unwrap().mode, Mode::Native);
        assert!(setting.shown().contains("prog/xdp"));
        program.detach().unwrap();
    });
    setting.wait_until_off();
}

#[test]
fn a_card_without_native_mode_is_attached_to_in_generic_mode_with_a_reason() {
    let Some(setting) = Setting::new("a_card_without_native_mode") else { return };
    setting.trio.gateway.within(|| {
        let mut program = Program::load(Some(&setting.pins())).unwrap();
        let attached = program.attach("lo", Wanted::Auto, false).unwrap();
        assert_eq!(attached.mode, Mode::Generic);
        let why = attached.why_not_native.unwrap();
        assert!(why.starts_with("native: "), "{why}");
    });
}

#[test]
fn somebody_elses_program_stays() {
    let Some(setting) = Setting::new("somebody_elses_program_stays") else { return };
    for mode in [XdpMode::Driver, XdpMode::Skb] {
        let mut stranger = stranger();
        setting.trio.gateway.within(|| {
            // The kernel lets go of a card a while after the last pin is gone.
            let end = Instant::now() + Duration::from_secs(10);
            while let Err(error) = empty(&mut stranger).attach(CARD, mode) {
                assert!(Instant::now() < end, "{error}");
            }
        });
        for wanted in [Wanted::Auto, Wanted::Native, Wanted::Generic] {
            let busy = setting.attach(wanted, false).unwrap_err();
            assert_eq!(busy, KernelError::Busy(CARD.to_owned()), "{mode:?} {wanted:?}");
        }
        // Whoever holds a link is asked, and not overruled.
        let held = setting.attach(Wanted::Auto, true).unwrap_err();
        assert_eq!(held, KernelError::Held(CARD.to_owned()));
        drop(stranger);
        let (program, attached) = setting.attach(Wanted::Auto, false).unwrap();
        assert_eq!(attached.mode, Mode::Native);
        program.detach().unwrap();
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
        assert_eq!(setting.attach(Wanted::Auto, false).unwrap_err(), KernelError::Busy(CARD.to_owned()), "{mode}");
        let (program, attached) = setting.attach(Wanted::Auto, true).unwrap();
        assert_eq!((attached.mode, attached.taken_over), (Mode::Native, false), "{mode}");
        program.detach().unwrap();
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
