//! The kernel side, seen from userspace: the embedded program, how it gets onto a network card and stays there, and the
//! one place that writes its configuration.
//!
//! Must not know: SMTP, sessions, who deserves a ban; a ban's cause is a number here, which `translate` makes. A gateway
//! without any of this works: whatever fails here is a [`KernelError`] with a sentence for the log, and mode [`Mode::Off`].
//! Where there is no BPF at all, `stub` stands in for `loader`, so callers need no conditions.
//!
//! What survives the process lies in a folder of a BPF file system; `pins` says what, and why it lies there as it does.

#[cfg(target_os = "linux")]
mod accounts;
#[cfg(target_os = "linux")]
mod attach;
#[cfg(target_os = "linux")]
mod attachment;
#[cfg(target_os = "linux")]
mod cards;
#[cfg(target_os = "linux")]
mod errors;
#[cfg(target_os = "linux")]
mod events;
#[cfg(target_os = "linux")]
mod impossible;
#[cfg(target_os = "linux")]
mod loader;
#[cfg(target_os = "linux")]
mod netlink;
#[cfg(target_os = "linux")]
mod object;
#[cfg(target_os = "linux")]
mod pen;
#[cfg(target_os = "linux")]
mod pins;
#[cfg(target_os = "linux")]
mod reader;
mod settings;
#[cfg(target_os = "linux")]
mod sources;
#[cfg(target_os = "linux")]
mod steer;
#[cfg(not(target_os = "linux"))]
mod stub;
#[cfg(target_os = "linux")]
mod tables;
#[cfg(target_os = "linux")]
mod time;
mod totals;
#[cfg(target_os = "linux")]
mod translate;
#[cfg(target_os = "linux")]
mod writer;

use std::error::Error;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

#[cfg(target_os = "linux")]
pub use self::attachment::Attachment;
#[cfg(target_os = "linux")]
pub use self::loader::Program;
#[cfg(target_os = "linux")]
pub use self::object::OBJECT;
#[cfg(target_os = "linux")]
pub use self::pins::Pins;
#[cfg(target_os = "linux")]
pub use self::reader::MapReader;
pub use self::settings::{Rate, Settings};
#[cfg(target_os = "linux")]
pub use self::steer::{Steering, Truth};
#[cfg(not(target_os = "linux"))]
pub use self::stub::{Attachment, MapReader, Pins, Program, Steering, Truth};
pub use self::totals::{SourceAccount, Totals};

/// How the program is attached, really: what is shown, while `config::XdpMode` is what is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// In the driver, before the kernel has made anything of the packet.
    Native,
    /// In the network stack: works with every driver, and costs what a packet filter costs.
    Generic,
    /// Not at all.
    Off,
}

impl Mode {
    /// As the log, `status` and the names of pins have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Off => "off",
        }
    }
}

/// A card that is wanted, or that the program is on all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// As `ip link` shows it.
    pub name: String,
    /// How the program is on it now.
    pub mode: Mode,
    /// What is not as it was asked for, and what to do.
    pub problem: Option<String>,
}

/// Why the kernel side is not there: what failed, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// This system has no BPF, or one that is too old.
    #[error("the kernel side needs Linux 5.12 or newer with BPF: {0}")]
    Unsupported(String),
    /// The process may not do this.
    #[error(
        "no permission to {0}: the kernel side needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON; start as root, or add them to \
         AmbientCapabilities in the unit file"
    )]
    NoPrivilege(&'static str),
    /// There is no such card.
    #[error("there is no network interface `{0}`; `ip link` lists those there are")]
    UnknownInterface(String),
    /// Its packets begin with something that the program does not read.
    #[error(
        "packets on `{interface}` begin neither with an Ethernet nor with an IP header (the kernel calls it a link of type \
         {kind}), so the kernel side cannot read them; name the card below it in xdp.interfaces"
    )]
    UnknownFraming {
        /// The card.
        interface: String,
        /// `ARPHRD_…`
        kind: u16,
    },
    /// Another card that is wanted has its packets as well.
    #[error(
        "packets of `{interface}` come by `{by}` as well, which is in xdp.interfaces, too, and would be counted and limited \
         twice: the kernel side is on `{by}` alone; take `{interface}` out"
    )]
    Covered {
        /// The card.
        interface: String,
        /// The other one.
        by: String,
    },
    /// The kernel allows no program below another.
    #[error(
        "`{interface}` takes no program, because `{upper}`, which is on top of it, has one; name `{upper}` in xdp.interfaces \
         instead, or detach what is on it (`ip link set dev {upper} xdp off`, or `xdpgeneric off`)"
    )]
    Below {
        /// The card.
        interface: String,
        /// The one that has a program.
        upper: String,
    },
    /// Somebody else's program is on the card.
    #[error(
        "`{0}` already has an XDP program that is not this gateway's; it stays. Detach it (`ip link set dev {0} xdp off`, or \
         `xdpgeneric off`), or set `xdp.force = true` to have it replaced"
    )]
    Busy(String),
    /// Somebody else's program has come in place of this one.
    #[error("another XDP program has taken the place of this gateway's on `{0}`; it stays. `bpftool net` shows it")]
    TakenAway(String),
    /// Somebody else's program cannot be taken off.
    #[error(
        "`{0}` already has an XDP program that somebody else's BPF link holds, which not even `xdp.force` can take off; stop \
         the program that made the link (`bpftool link` shows it), or remove the link's pin"
    )]
    Held(String),
    /// The card's driver, or the kernel, refused in every mode that was wanted.
    #[error("`{interface}` does not take the program: {why}")]
    Refused {
        /// The card.
        interface: String,
        /// What each mode's attempt gave.
        why: String,
    },
    /// The pin folder cannot be used.
    #[error("the pin folder {} cannot be used: {why}", folder.display())]
    Pins {
        /// The folder.
        folder: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The embedded program is not what it should be.
    #[error("the embedded program has no {what}; this build is broken")]
    Broken {
        /// What is missing.
        what: String,
    },
    /// Anything else that the kernel said.
    #[error("{what}: {why}")]
    Other {
        /// What was attempted.
        what: String,
        /// The kernel's answer.
        why: String,
    },
}

impl KernelError {
    /// What was attempted, and what came of it.
    fn other(what: &str, error: &dyn Error) -> Self {
        Self::Other { what: what.to_owned(), why: chain(error) }
    }
}

/// An error with its causes, as one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        // Many errors repeat their cause in their own words.
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}
