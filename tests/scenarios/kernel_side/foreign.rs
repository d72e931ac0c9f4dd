//! Somebody else's program on the card: it stays unless the configuration says that it may go, and if nothing can take it.

use aya::Ebpf;
use aya::programs::Xdp;
use smtp_gateway::config::{Xdp as Wanted, XdpMode};
use smtp_gateway::kernel::{Attachment, Mode, OBJECT, Program};
use tests::peers::net::Family;

use super::Setting;

const FORCE: &str = "force = true\n";

impl Setting {
    /// A gateway with a card that has been free until now, then somebody else's program on it, and no gateway.
    fn with_free_card(scenario: &str) -> Option<Self> {
        let mut setting = Self::new(scenario, "off")?;
        setting.kill();
        Some(setting)
    }

    fn ip(&self, arguments: &[&str]) -> String {
        let output = self.trio.gateway.command("ip").args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Attaches a program as `ip` does: by netlink, with nobody to hold it.
    fn attach_by_netlink(&self, how: &str) {
        let pin = self.pins.top().join(format!("foreign-{how}"));
        let mut ebpf = Ebpf::load(OBJECT).unwrap();
        let program: &mut Xdp = ebpf.program_mut("smtp_gateway").unwrap().try_into().unwrap();
        program.load().unwrap();
        program.pin(&pin).unwrap();
        self.ip(&["link", "set", "dev", "client", how, "pinned", pin.to_str().unwrap()]);
    }

    /// What `ip` says of the program on the card.
    fn on_card(&self) -> String {
        let card = self.ip(&["link", "show", "dev", "client"]);
        card.lines().find(|line| line.contains("prog/xdp")).unwrap_or_default().trim().to_owned()
    }

    /// Starts the gateway, which gives mail its way in any case; the mode and the problem it shows.
    fn shown(&mut self, xdp: &str) -> (String, String) {
        self.start(xdp, &[]);
        self.client(Family::V4).quit();
        let xdp = &self.status()["xdp"];
        (xdp["mode"].as_str().unwrap().to_owned(), xdp["problem"].as_str().unwrap_or_default().to_owned())
    }
}

#[test]
fn a_foreign_program_goes_only_by_force() {
    for how in ["xdpdrv", "xdpgeneric"] {
        let Some(mut setting) = Setting::with_free_card("a foreign program and force") else { return };
        setting.attach_by_netlink(how);
        let foreign = setting.on_card();
        assert!(!foreign.is_empty(), "{how}");
        let (mode, problem) = setting.shown("");
        assert_eq!(mode, "off", "{how}");
        assert!(
            problem.contains("`client` already has an XDP program that is not this gateway's; it stays"),
            "{problem}"
        );
        assert_eq!(setting.on_card(), foreign, "{how}");
        setting.kill();
        assert_eq!(setting.shown(FORCE), ("native".to_owned(), String::new()), "{how}");
        assert_ne!(setting.on_card(), foreign, "{how}");
        setting.gateway().log().wait_for(&["WARN", "somebody else's XDP program was taken off"]);
        // The next run finds its own, and takes nothing from anybody.
        setting.kill();
        assert_eq!(setting.shown(""), ("native".to_owned(), String::new()), "{how}");
        setting.gateway().log().wait_for(&["the kernel side is attached", "taken_over=true"]);
    }
}

#[test]
fn a_foreign_link_cannot_be_forced() {
    let Some(mut setting) = Setting::with_free_card("a foreign link and force") else { return };
    let wanted = Wanted { interfaces: vec!["client".to_owned()], mode: XdpMode::Native, ..Wanted::default() };
    let program = Program::load(None).unwrap();
    let holder = setting.trio.gateway.within(|| Attachment::new(program, &wanted)).unwrap();
    assert_eq!(setting.trio.gateway.within(|| holder.cards()).unwrap()[0].mode, Mode::Native);
    let foreign = setting.on_card();
    for (xdp, why) in [("", "it stays"), (FORCE, "that somebody else's BPF link holds")] {
        let (mode, problem) = setting.shown(xdp);
        assert_eq!(mode, "off", "{xdp}");
        assert!(problem.contains("`client` already has an XDP program") && problem.contains(why), "{problem}");
        assert_eq!(setting.on_card(), foreign, "{xdp}");
        setting.kill();
    }
    drop(holder);
    assert_eq!(setting.shown(""), ("native".to_owned(), String::new()));
}
