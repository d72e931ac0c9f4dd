//! The tables against abuse: what sources are banned for, and what the kernel side does.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use toml::de::DeValue;

use super::addresses::network;
use super::declare::{Each, table, words};
use super::diagnostics::quoted;
use super::read::{Complaint, Located, Read, Section};
use super::values::{DAY, MINUTE, SECOND, boolean, duration, integer, text, word};

/// `IFNAMSIZ` of linux/if.h, its final NUL taken off.
const INTERFACE_NAME_MAX: usize = 15;
/// Cards that the program is attached to at once.
const INTERFACES_MAX: usize = 64;

table! {
    /// `[bans]`: what sources are banned for, and for how long.
    pub struct Bans: Default {
        /// Whether what sessions find leads to bans; bans by hand work without.
        enabled: bool = true, boolean;
        /// Points at which a source is banned.
        threshold: u32 = 100, integer(10..=10_000);
        /// In which `threshold` points are forgotten, steadily.
        memory: Duration = 30 * MINUTE, duration(MINUTE..=30 * DAY);
        /// A source's first ban; each further one lasts four times as long as the last. If it is not given, no longer than
        /// `maximum`.
        first: Duration = 10 * MINUTE, duration(SECOND..=30 * DAY);
        /// The longest ban, and how long a source must behave behind one to begin anew.
        maximum: Duration = DAY, duration(SECOND..=365 * DAY);
        /// Sources whose behaviour is remembered.
        sources: usize = 65_536, integer(100..=10_000_000);
        /// Never banned by anybody.
        allow: Vec<IpNet> = Vec::new(), Each(network);
    }
}

pub(super) fn bans(mut section: Section<'_, '_, '_>) -> Bans {
    let mut bans = Bans::read(&mut section);
    match section.locate("first", bans.first) {
        Some(first) if first.value > bans.maximum => {
            let help = "write a `first` that is not longer than `maximum`";
            section.report().fault(&first.span, "`bans.first` is longer than `bans.maximum`", help);
        }
        Some(_) => {}
        None => bans.first = bans.first.min(bans.maximum),
    }
    section.finish();
    bans
}

table! {
    /// `[xdp]`: the kernel side.
    pub struct Xdp: Default {
        /// Network cards to attach to; none: the kernel side is off.
        interfaces: Vec<String> = Vec::new(), Each(interface);
        /// How it is attached.
        mode: XdpMode = XdpMode::Auto, word;
        /// Whether packets are only counted that would have been dropped.
        monitor_only: bool = false, boolean;
        /// Whether a program of somebody else's is taken off a card.
        force: bool = false, boolean;
        /// New connections a second that one source may try, over time.
        syn_rate: u32 = 50, integer(1..=1_000_000);
        /// How many it may try at once.
        syn_burst: u32 = 200, integer(1..=1_000_000);
        /// Never limited nor dropped by the kernel side.
        allow: Vec<IpNet> = Vec::new(), Each(network);
        /// Those of `interfaces` behind which there is only the Internet.
        outside: Vec<String> = Vec::new(), Each(interface);
        /// Where program, bans and counters outlive the gateway.
        pins: PathBuf = "/sys/fs/bpf/smtp-gateway".into(), pins;
    }
}

words! {
    /// `xdp.mode`
    pub enum XdpMode {
        /// Native, or else generic, or else off.
        Auto = "auto",
        /// Native or off.
        Native = "native",
        /// Generic or off.
        Generic = "generic",
        /// No program on any card.
        Off = "off",
    }
}

pub(super) fn xdp(mut section: Section<'_, '_, '_>) -> Xdp {
    let xdp = Xdp::read(&mut section);
    check_interfaces(&mut section);
    for Located { value: name, span } in section.elements("outside", interface) {
        if !xdp.interfaces.contains(&name) {
            let message = format!("`xdp.outside` names {}, and `xdp.interfaces` does not", quoted(&name));
            section.report().fault(&span, message, "write it under `interfaces` too");
        }
    }
    let names_none =
        section.value("interfaces").is_none_or(|value| value.get_ref().as_array().is_some_and(|a| a.is_empty()));
    if let Some(mode) = section.locate("mode", xdp.mode)
        && names_none
        && matches!(mode.value, XdpMode::Native | XdpMode::Generic)
    {
        let message = "`xdp.mode` asks for the kernel side, but `xdp.interfaces` names no network card";
        let help = "write `interfaces = [\"eth0\"]` with the card that mail comes in by; `ip link` lists them";
        section.report().fault(&mode.span, message, help);
    }
    section.finish();
    xdp
}

/// Not too many, and none twice.
fn check_interfaces(section: &mut Section<'_, '_, '_>) {
    let names = section.elements("interfaces", interface);
    if names.len() > INTERFACES_MAX
        && let Some(list) = section.locate("interfaces", ())
    {
        let message = format!("`xdp.interfaces` names more than {INTERFACES_MAX} network cards");
        section.report().fault(&list.span, message, "name the cards that mail comes in by, and no others");
    }
    for (index, Located { value: name, span }) in names.iter().enumerate() {
        if names[..index].iter().any(|earlier| earlier.value == *name) {
            let message = format!("`xdp.interfaces` names {} twice", quoted(name));
            section.report().fault(span, message, "delete one of them");
        }
    }
}

fn pins(value: &DeValue<'_>) -> Read<PathBuf> {
    let path = text(value, "/sys/fs/bpf/smtp-gateway")?;
    if path.starts_with('/') && !path.contains('\0') {
        return Ok(path.into());
    }
    let message = format!("is {}, which is no absolute path", quoted(path));
    Err(Complaint::new(message, "write a folder on a BPF file system, such as `\"/sys/fs/bpf/smtp-gateway\"`"))
}

fn interface(value: &DeValue<'_>) -> Read<String> {
    let name = text(value, "eth0")?;
    let is_part = |c: char| !c.is_whitespace() && !c.is_control() && c != '/';
    if matches!(name, "" | "." | "..") || name.len() > INTERFACE_NAME_MAX || !name.chars().all(is_part) {
        let message = format!("is {}, which no network card can be called", quoted(name));
        return Err(Complaint::new(message, "write a name such as `\"eth0\"`; `ip link` lists them"));
    }
    Ok(name.to_owned())
}
