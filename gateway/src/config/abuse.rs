//! The tables against abuse: what sources are banned for, and what the kernel side does.

use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use super::addresses::network;
use super::diagnostics::quoted;
use super::read::{Complaint, Read, Section};
use super::values::{boolean, duration, integer, text, word};
use super::{Bans, Xdp, XdpMode};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// `IFNAMSIZ` of linux/if.h, its final NUL taken off.
const INTERFACE_NAME_MAX: usize = 15;
/// Cards that the program is attached to at once.
const INTERFACES_MAX: usize = 64;

pub(super) fn bans(mut section: Section<'_, '_, '_>) -> Bans {
    let default = Bans::default();
    let first = section.optional("first", duration(SECOND..=24 * 30 * HOUR));
    let maximum = section.or("maximum", default.maximum, duration(SECOND..=24 * 365 * HOUR));
    if let Some(first) = &first
        && first.value > maximum
    {
        let help = "write a `first` that is not longer than `maximum`";
        section.report().fault(&first.span, "`bans.first` is longer than `bans.maximum`", help);
    }
    let bans = Bans {
        enabled: section.or("enabled", default.enabled, boolean),
        threshold: section.or("threshold", default.threshold, integer(10..=10_000)),
        memory: section.or("memory", default.memory, duration(MINUTE..=24 * 30 * HOUR)),
        first: first.map_or(default.first.min(maximum), |first| first.value),
        maximum,
        sources: section.or("sources", default.sources, integer(100..=10_000_000)),
        allow: networks(&mut section, "allow"),
    };
    section.finish();
    bans
}

pub(super) fn xdp(mut section: Section<'_, '_, '_>) -> Xdp {
    let default = Xdp::default();
    let interfaces = interfaces(&mut section);
    let outside = interfaces_among(&mut section, &interfaces);
    let modes =
        [("auto", XdpMode::Auto), ("native", XdpMode::Native), ("generic", XdpMode::Generic), ("off", XdpMode::Off)];
    let mode = section.optional("mode", word(&modes));
    let names_none =
        section.value("interfaces").is_none_or(|value| value.get_ref().as_array().is_some_and(|a| a.is_empty()));
    if let Some(mode) = &mode
        && names_none
        && matches!(mode.value, XdpMode::Native | XdpMode::Generic)
    {
        let message = "`xdp.mode` asks for the kernel side, but `xdp.interfaces` names no network card";
        let help = "write `interfaces = [\"eth0\"]` with the card that mail comes in by; `ip link` lists them";
        section.report().fault(&mode.span, message, help);
    }
    let xdp = Xdp {
        interfaces,
        mode: mode.map_or(default.mode, |mode| mode.value),
        monitor_only: section.or("monitor_only", default.monitor_only, boolean),
        force: section.or("force", default.force, boolean),
        syn_rate: section.or("syn_rate", default.syn_rate, integer(1..=1_000_000)),
        syn_burst: section.or("syn_burst", default.syn_burst, integer(1..=1_000_000)),
        allow: networks(&mut section, "allow"),
        outside,
        pins: section.or("pins", default.pins, pins),
    };
    section.finish();
    xdp
}

fn networks(section: &mut Section<'_, '_, '_>, key: &'static str) -> Vec<ipnet::IpNet> {
    let networks = section.list(key, network).map(|networks| networks.value);
    networks.unwrap_or_default().into_iter().map(|network| network.value).collect()
}

/// `outside`, which names some of the interfaces.
fn interfaces_among(section: &mut Section<'_, '_, '_>, known: &[String]) -> Vec<String> {
    let names = section.list("outside", interface).map(|names| names.value).unwrap_or_default();
    for name in names.iter().filter(|name| !known.contains(&name.value)) {
        let message = format!("`xdp.outside` names {}, and `xdp.interfaces` does not", quoted(&name.value));
        section.report().fault(&name.span, message, "write it under `interfaces` too");
    }
    names.into_iter().map(|name| name.value).collect()
}

fn pins(value: &DeValue<'_>) -> Read<PathBuf> {
    let path = text(value, "/sys/fs/bpf/smtp-gateway")?;
    if path.starts_with('/') && !path.contains('\0') {
        return Ok(path.into());
    }
    let message = format!("is {}, which is no absolute path", quoted(path));
    Err(Complaint::new(message, "write a folder on a BPF file system, such as `\"/sys/fs/bpf/smtp-gateway\"`"))
}

fn interfaces(section: &mut Section<'_, '_, '_>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let Some(list) = section.list("interfaces", interface) else { return names };
    if list.value.len() > INTERFACES_MAX {
        let message = format!("`xdp.interfaces` names more than {INTERFACES_MAX} network cards");
        section.report().fault(&list.span, message, "name the cards that mail comes in by, and no others");
    }
    for name in list.value {
        if names.contains(&name.value) {
            let message = format!("`xdp.interfaces` names {} twice", quoted(&name.value));
            section.report().fault(&name.span, message, "delete one of them");
        } else {
            names.push(name.value);
        }
    }
    names
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
