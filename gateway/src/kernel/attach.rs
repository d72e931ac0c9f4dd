//! The program onto the cards that are wanted, off all others, and back where somebody took it off.
//!
//! What is on a card the kernel says, whenever it is asked; nothing here is remembered but why something could not be had.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpMode as AttachMode};
use gateway_common::INTERFACE_OUTSIDE;
use tracing::{info, warn};

use crate::config::{Xdp, XdpMode};

use super::cards::{Framing, Placement, placement, uppers};
use super::errors::{attach_error, detach_error, native_refusal};
use super::loader::Held;
use super::netlink::{self, Link};
use super::{Card, KernelError, Mode, Program, chain};

/// The kernel lets a link go a while after its pin is removed; until then the card is busy.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);
const RELEASE_INTERVAL: Duration = Duration::from_millis(5);

/// When cards are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occasion {
    /// At the start, or when other cards are wanted: what an earlier run left is taken over.
    Start,
    /// Because something changed: what another program has taken over, such as the next gateway, is its own.
    News,
}

/// Why a card is not as it was asked for, by its name.
pub(super) type Shortfalls = BTreeMap<String, String>;

/// Which modes are tried, in this order.
fn modes(wanted: XdpMode) -> &'static [Mode] {
    match wanted {
        XdpMode::Auto => &[Mode::Native, Mode::Generic],
        XdpMode::Native => &[Mode::Native],
        XdpMode::Generic => &[Mode::Generic],
        XdpMode::Off => &[],
    }
}

impl Program {
    /// Puts the program on every card of `xdp.interfaces` that does not have it, and takes it off all others. Says what could
    /// not be had.
    pub(super) fn cover(&mut self, xdp: &Xdp, occasion: Occasion) -> Result<Shortfalls, KernelError> {
        let links = links()?;
        let removed = self.leave_unwanted(xdp, &links)?;
        let mut shortfalls = Shortfalls::new();
        for name in &xdp.interfaces {
            match self.cover_card(name, xdp, &links, occasion, removed) {
                Ok(None) => {}
                Ok(Some(why)) => drop(shortfalls.insert(name.clone(), why)),
                Err(error) => drop(shortfalls.insert(name.clone(), error.to_string())),
            }
        }
        Ok(shortfalls)
    }

    /// What the kernel has now: each wanted card, and others that the program is on all the same.
    pub(super) fn cards(&mut self, xdp: &Xdp, shortfalls: &Shortfalls) -> Result<Vec<Card>, KernelError> {
        let links = links()?;
        let own = [self.number(Framing::Ethernet)?, self.number(Framing::Ip)?];
        let wanted = xdp.interfaces.iter().map(|name| {
            let mode = links.iter().find(|link| link.name == *name).map_or(Mode::Off, |link| mode_of(link, &own));
            let gone = (mode == Mode::Off).then(|| "the program is not on it".to_owned());
            Card { name: name.clone(), mode, problem: shortfalls.get(name).cloned().or(gone) }
        });
        let others = links.iter().filter(|link| !xdp.interfaces.contains(&link.name)).filter_map(|link| {
            let mode = mode_of(link, &own);
            let problem = Some("it is not in xdp.interfaces, and the program is on it all the same".to_owned());
            (mode != Mode::Off).then(|| Card { name: link.name.clone(), mode, problem })
        });
        Ok(wanted.chain(others).collect())
    }

    /// Takes the program off cards that are not wanted any more. Whether it was on any.
    fn leave_unwanted(&mut self, xdp: &Xdp, links: &[Link]) -> Result<bool, KernelError> {
        let name_of = |index: u32| links.iter().find(|link| link.index == index).map(|link| link.name.clone());
        let is_wanted = |index: u32, mode: Mode| {
            links.iter().find(|link| link.index == index).is_some_and(|link| {
                xdp.interfaces.contains(&link.name)
                    && modes(xdp.mode).contains(&mode)
                    && matches!(placement(link, links, &xdp.interfaces), Placement::On(_))
            })
        };
        let held = self.held.len();
        self.held.retain(|held| is_wanted(held.index, held.mode));
        let mut removed = self.held.len() < held;
        if let Some(pins) = &self.pins {
            for pinned in pins.cards()? {
                if pinned.card.is_some_and(|(index, mode)| is_wanted(index, mode)) {
                    continue;
                }
                pins.remove(&pinned.path)?;
                removed = true;
                if let Some(interface) = pinned.card.and_then(|(index, _)| name_of(index)) {
                    info!(interface, "the kernel side is taken off: it is not wanted there, or not in this mode");
                }
            }
        }
        Ok(removed)
    }

    /// One card. What it lacks though the program is on it, if anything.
    fn cover_card(
        &mut self,
        name: &str,
        xdp: &Xdp,
        links: &[Link],
        occasion: Occasion,
        removed: bool,
    ) -> Result<Option<String>, KernelError> {
        let link = links.iter().find(|link| link.name == name);
        let link = link.ok_or_else(|| KernelError::UnknownInterface(name.to_owned()))?;
        let framing = match placement(link, links, &xdp.interfaces) {
            Placement::On(framing) => framing,
            Placement::UnknownFraming(kind) => {
                return Err(KernelError::UnknownFraming { interface: name.to_owned(), kind });
            }
            Placement::Covered(by) => return Err(KernelError::Covered { interface: name.to_owned(), by }),
        };
        let outside = xdp.outside.iter().any(|outside| outside == name);
        self.set_interface(link.index, if outside { INTERFACE_OUTSIDE } else { 0 })?;
        let own = self.number(framing)?;
        if modes(xdp.mode).contains(&mode_of(link, &[own])) {
            return Ok(None);
        }
        if occasion == Occasion::News && mode_of(link, &[own]) == Mode::Off && link.native.or(link.generic).is_some() {
            return Err(KernelError::TakenAway(name.to_owned()));
        }
        if let Some(mode) = self.take_over(link, framing, xdp.mode)? {
            info!(interface = name, mode = mode.as_str(), taken_over = true, "the kernel side is attached");
            return Ok(None);
        }
        if occasion == Occasion::News {
            warn!(interface = name, "the kernel side was taken off by somebody else, or the card is a new one");
        }
        let patience = if removed { RELEASE_TIMEOUT } else { Duration::ZERO };
        let (mode, why_not_native) = match self.attach(link, framing, xdp.mode, patience) {
            Err(KernelError::Busy(_)) if xdp.force => {
                netlink::detach(link.index).map_err(|error| detach_error(name, &error))?;
                let attached = self.attach(link, framing, xdp.mode, Duration::ZERO)?;
                warn!(interface = name, "somebody else's XDP program was taken off, as `xdp.force` says");
                attached
            }
            Err(KernelError::Busy(_)) if link.native.or(link.generic).is_none() => return Err(below(link, links)),
            attached => attached?,
        };
        info!(interface = name, mode = mode.as_str(), taken_over = false, "the kernel side is attached");
        if let Some(why) = &why_not_native {
            warn!(interface = name, why, "the kernel side is attached in generic mode, which costs more");
        }
        Ok(why_not_native.map(|why| format!("generic, which costs more than native: {why}")))
    }

    /// Puts this program behind the link of an earlier run, if there is one that still holds the card; others are removed.
    fn take_over(&mut self, card: &Link, framing: Framing, wanted: XdpMode) -> Result<Option<Mode>, KernelError> {
        for &mode in modes(wanted) {
            let Some(pin) = self.pins.as_ref().map(|pins| pins.of_card(card.index, mode)) else { continue };
            if !pin.exists() {
                continue;
            }
            // A link that does not hold the card any more, because the card went away, or somebody detached it.
            if self.replace_behind(&pin, framing).is_ok() {
                return Ok(Some(mode));
            }
            if let Some(pins) = &self.pins {
                pins.remove(&pin)?;
            }
        }
        self.held.retain(|held| held.index != card.index);
        Ok(None)
    }

    fn replace_behind(&mut self, pin: &Path, framing: Framing) -> Result<(), KernelError> {
        let failed = |error: &dyn std::error::Error| KernelError::other(&format!("take over {}", pin.display()), error);
        let link = FdLink::from(PinnedLink::from_pin(pin).map_err(|error| failed(&error))?);
        let link = XdpLink::try_from(link).map_err(|error| failed(&error))?;
        let program = self.entry(framing)?;
        let link = program.attach_to_link(link).map_err(|error| failed(&error))?;
        // The pin alone is to hold it, so that removing the pin takes the program off.
        program.take_link(link).map(drop).map_err(|error| failed(&error))
    }

    /// The mode it is attached in, and why that is not native where it could have been.
    fn attach(
        &mut self,
        card: &Link,
        framing: Framing,
        wanted: XdpMode,
        patience: Duration,
    ) -> Result<(Mode, Option<String>), KernelError> {
        let mut refusals = Vec::new();
        for &mode in modes(wanted) {
            match self.attach_patiently(card, framing, mode, patience) {
                Ok(()) => return Ok((mode, refusals.pop())),
                Err(KernelError::Refused { why, .. }) => refusals.push(why),
                Err(error) => return Err(error),
            }
        }
        Err(KernelError::Refused { interface: card.name.clone(), why: refusals.join("; ") })
    }

    /// Waits for a card that is busy.
    fn attach_patiently(
        &mut self,
        card: &Link,
        framing: Framing,
        mode: Mode,
        patience: Duration,
    ) -> Result<(), KernelError> {
        let start = Instant::now();
        loop {
            match self.attach_in(card, framing, mode) {
                Err(KernelError::Busy(_)) if start.elapsed() < patience => sleep(RELEASE_INTERVAL),
                attached => return attached,
            }
        }
    }

    fn attach_in(&mut self, card: &Link, framing: Framing, mode: Mode) -> Result<(), KernelError> {
        let interface = &card.name;
        let flag = if mode == Mode::Native { AttachMode::Driver } else { AttachMode::Skb };
        let program = self.entry(framing)?;
        let link = program.attach_to_if_index(card.index, flag).map_err(|error| attach_error(interface, &error));
        let link = link.map_err(|error| match (error, mode, program.fd()) {
            (KernelError::Refused { interface, why }, Mode::Native, Ok(program)) => {
                let said = netlink::why_refused(card.index, program.as_fd().as_raw_fd()).err();
                let why = native_refusal(card, &said.map_or(why, |said| chain(&said)));
                KernelError::Refused { interface, why }
            }
            (error, ..) => error,
        })?;
        let link = program.take_link(link).map_err(|error| attach_error(interface, &error))?;
        // aya falls back to netlink on kernels without links, whose programs cannot be pinned.
        let link = FdLink::try_from(link).map_err(|_| KernelError::Unsupported("no BPF links".to_owned()))?;
        match &self.pins {
            None => self.held.push(Held { index: card.index, mode, _link: link }),
            Some(pins) => {
                let pin = pins.of_card(card.index, mode);
                pins.remove(&pin)?;
                let pinned = link.pin(pin);
                pinned.map_err(|error| KernelError::other("pin the program's place on the card", &error))?;
            }
        }
        Ok(())
    }
}

fn links() -> Result<Vec<Link>, KernelError> {
    netlink::links().map_err(|error| KernelError::other("list the network cards", &error))
}

/// How these programs are on a card.
fn mode_of(link: &Link, own: &[u32]) -> Mode {
    let is_own = |program: Option<u32>| program.is_some_and(|number| own.contains(&number));
    match (is_own(link.native), is_own(link.generic)) {
        (true, _) => Mode::Native,
        (false, true) => Mode::Generic,
        (false, false) => Mode::Off,
    }
}

/// A card without a program that is busy: one that is on top of it has one.
fn below(link: &Link, links: &[Link]) -> KernelError {
    let upper = uppers(link, links).into_iter().find(|upper| upper.native.or(upper.generic).is_some());
    match upper {
        Some(upper) => KernelError::Below { interface: link.name.clone(), upper: upper.name.clone() },
        None => KernelError::Busy(link.name.clone()),
    }
}
