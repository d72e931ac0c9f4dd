//! The kernel side, seen from userspace: the embedded program, how it gets onto a network card and stays there, and the
//! one place that writes its configuration.
//!
//! Must not know: SMTP, sessions, why somebody is banned. A gateway without any of this works: whatever fails here is a
//! [`KernelError`] with a sentence for the log, and mode [`Mode::Off`]. Where there is no BPF at all, `stub` stands in for
//! `loader`, so callers need no conditions.
//!
//! What survives the process, and why it lies where it lies:
//! - `PINS/vVERSION/NAME`: the maps, by [`layout_version`](gateway_common::layout_version). A program of another layout
//!   cannot use them, so another version makes its own and never misreads these.
//! - `PINS/link-INTERFACE-MODE`: what holds the program on the card, outside the version, because the next version must
//!   find it: the program behind a link is replaced in one step, so not one packet passes unfiltered. The kernel does not
//!   say in which mode a link was made, hence the name.

#[cfg(target_os = "linux")]
mod errors;
#[cfg(target_os = "linux")]
mod events;
#[cfg(target_os = "linux")]
mod foreign;
#[cfg(target_os = "linux")]
mod impossible;
#[cfg(target_os = "linux")]
mod loader;
#[cfg(target_os = "linux")]
mod object;
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

use std::fmt;
use std::path::{Path, PathBuf};

#[cfg(target_os = "linux")]
pub use self::loader::Program;
#[cfg(target_os = "linux")]
pub use self::object::OBJECT;
#[cfg(target_os = "linux")]
pub use self::reader::Reader;
pub use self::settings::{Rate, Settings};
#[cfg(target_os = "linux")]
pub use self::steer::Steering;
#[cfg(not(target_os = "linux"))]
pub use self::stub::{Program, Reader, Steering};
pub use self::totals::{SourceAccount, Totals};

/// How the program is attached, really.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// In the driver, before the kernel has made anything of the packet.
    Native,
    /// In the network stack: works with every driver, and costs what a packet filter costs.
    Generic,
    /// Not at all.
    Off,
}

impl Mode {
    /// As `status` and metrics call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Off => "off",
        }
    }
}

/// Which modes are tried, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Native, or else generic.
    Auto,
    /// Only native.
    Native,
    /// Only generic.
    Generic,
}

impl Wanted {
    const fn modes(self) -> &'static [Mode] {
        match self {
            Self::Auto => &[Mode::Native, Mode::Generic],
            Self::Native => &[Mode::Native],
            Self::Generic => &[Mode::Generic],
        }
    }
}

/// The program on one card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// The card.
    pub interface: String,
    /// The kernel's number for it, as in events and in the map `INTERFACES`.
    pub index: u32,
    /// How; never [`Mode::Off`].
    pub mode: Mode,
    /// Whether the program of an earlier run was on the card until now, and no packet passed between.
    pub taken_over: bool,
    /// Whether somebody else's program had to go for it.
    pub replaced: bool,
    /// Why it is generic where native would have been better.
    pub why_not_native: Option<String>,
}

/// Where maps and links outlive the process: a folder on a BPF file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pins {
    folder: PathBuf,
}

impl Pins {
    /// `folder` is made when it is not there; what it is made in must be a BPF file system.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The folder that was named.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the maps of this version are.
    pub fn maps(&self) -> PathBuf {
        self.folder.join(format!("v{:016x}", gateway_common::layout_version()))
    }

    fn link(&self, interface: &str, mode: Mode) -> PathBuf {
        // No interface name has a slash; a full stop could not be in a pin's name.
        self.folder.join(format!("link-{}-{}", interface.replace('.', "@"), mode.name()))
    }
}

impl Default for Pins {
    fn default() -> Self {
        Self::new("/sys/fs/bpf/smtp-gateway")
    }
}

/// Why the kernel side is not there: what failed, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelError {
    /// This system has no BPF, or one that is too old.
    Unsupported(String),
    /// The process may not do this.
    NoPrivilege(&'static str),
    /// There is no such card.
    UnknownInterface(String),
    /// Somebody else's program is on the card.
    Busy(String),
    /// The same, and it cannot be taken off.
    Held(String),
    /// The card's driver, or the kernel, refused in every mode that was wanted.
    Refused {
        /// The card.
        interface: String,
        /// What each mode's attempt gave.
        why: String,
    },
    /// The pin folder cannot be used.
    Pins {
        /// The folder.
        folder: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// Anything else that the kernel said.
    Other {
        /// What was attempted.
        what: String,
        /// The kernel's answer.
        why: String,
    },
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported(why) => write!(f, "the kernel side needs Linux 5.12 or newer with BPF: {why}"),
            Self::NoPrivilege(what) => write!(
                f,
                "no permission to {what}: the kernel side needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON; start as root, or \
                 add them to AmbientCapabilities in the unit file"
            ),
            Self::UnknownInterface(name) => {
                write!(f, "there is no network interface `{name}`; `ip link` lists those there are")
            }
            Self::Busy(name) => write!(
                f,
                "`{name}` already has an XDP program that is not this gateway's; it stays. Detach it (`ip link set dev \
                 {name} xdp off`, or `xdpgeneric off`), or set `xdp.force = true` to have it replaced"
            ),
            Self::Held(name) => write!(
                f,
                "`{name}` already has an XDP program that somebody else's BPF link holds, which not even `xdp.force` can \
                 take off; stop the program that made the link (`bpftool link` shows it), or remove the link's pin"
            ),
            Self::Refused { interface, why } => write!(f, "`{interface}` does not take the program: {why}"),
            Self::Pins { folder, why } => write!(f, "the pin folder {} cannot be used: {why}", folder.display()),
            Self::Other { what, why } => write!(f, "{what}: {why}"),
        }
    }
}

impl std::error::Error for KernelError {}
