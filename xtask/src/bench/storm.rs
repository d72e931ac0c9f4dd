//! `cargo xtask bench --storm`: real mail while a third host floods the SMTP port with SYNs, from a banned prefix, from
//! forged sources that come once, from both, and from forged sources that come again and again; by the kernel side, by an
//! XDP program that passes everything, by an nftables set, and by plain userspace, interleaved.
//!
//! All three hosts share this machine's cores, so a flood costs twice: the gateway's host has to bear it, and somebody has
//! to make it. Column `elsewhere` has the second cost alone: the same packets sent where nobody gets them. On a machine with
//! cores to spare it is as good as no flood. The ratios are to no flood at all, and to that. Where the flooder is short of
//! CPU it falls behind its rate: the SYNs that went out stand beside the ratio, and rows are comparable where they agree.
//!
//! These cables are not network cards. A card hands XDP its own buffers; here every packet exists as the kernel's already, is
//! copied for XDP, and what a card or the kernel would send as one large packet goes in small ones. The row of the empty
//! program shows what that costs, with and without a flood; what the gateway's own program costs is the rest.

mod flood;
mod net;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aya::programs::xdp::XdpMode;

use crate::command::{output, target, visible};
use crate::peers;

use super::ROUND_TIMEOUT;
use super::kernel::Driver;
use super::load::{self, Work};
use super::proxies::{Running, running, wait_for};
use super::stream::Security;
use flood::{BANNED, Sources};
use net::{CARDS, FRONT, Hosts, NOWHERE};

const USAGE: &str = "\
usage: cargo xtask bench --storm [--rounds N] [--rate SYNS_PER_SECOND]
";

const WORK: Work =
    Work { name: "storm", at_once: 64, sessions: 600, messages: 20, size: 4 << 10, pipelined: false, login: false };
const SINK: &str = "127.0.0.1:2525";
/// How long a flood lasts before the mail begins.
const AHEAD: Duration = Duration::from_millis(200);
const RATE_MAX: u32 = 1_000_000;

/// What is sent beside the mail.
#[derive(Debug, Clone, Copy)]
enum Weather {
    Quiet,
    /// A flood that meets nobody.
    Elsewhere,
    Flood(Sources),
}

const WEATHERS: [Weather; 6] = [
    Weather::Quiet,
    Weather::Elsewhere,
    Weather::Flood(Sources::Banned),
    Weather::Flood(Sources::Forged),
    Weather::Flood(Sources::Both),
    Weather::Flood(Sources::Again),
];

/// One round: messages and SYNs a second.
type Cell = [f64; 2];

/// Who drops what is banned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Xdp,
    /// Userspace, behind an XDP program that does nothing.
    EmptyXdp,
    Nftables,
    Userspace,
}

/// One row: three hosts, and a gateway of its own. Programs end before their hosts.
struct Way {
    kind: Kind,
    _empty: Option<Driver>,
    _gateway: Running,
    _sink: Running,
    folder: PathBuf,
    hosts: Hosts,
}

/// `cargo xtask bench --storm`.
pub(super) fn run(arguments: &[String]) -> Result<(), String> {
    let (mut rounds, mut rate) = (5_usize, 100_000_u32);
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let value = arguments.next().and_then(|value| value.parse::<u32>().ok()).filter(|value| *value > 0);
        match argument.as_str() {
            "--rounds" => rounds = usize::try_from(value.ok_or(USAGE)?).map_err(|_| USAGE)?,
            "--rate" => rate = value.filter(|rate| *rate <= RATE_MAX).ok_or(USAGE)?,
            _ => return Err(USAGE.to_owned()),
        }
    }
    let mut kinds = vec![Kind::Xdp, Kind::EmptyXdp, Kind::Nftables, Kind::Userspace];
    if let Err(error) = peers::provide_one("nftables") {
        eprintln!("MISSING: nftables, so its row is left out: {error}");
        kinds.retain(|kind| *kind != Kind::Nftables);
    }
    visible(Command::new("cargo").args(["build", "--release", "-p", "smtp-gateway"]))?;
    let ways =
        kinds.into_iter().enumerate().map(|(number, kind)| Way::start(number, kind)).collect::<Result<Vec<_>, _>>()?;
    let mut rows: Vec<[Vec<Cell>; WEATHERS.len()]> = ways.iter().map(|_| Default::default()).collect();
    for round in 0..=rounds {
        // Another row first in every round, so that none is always measured in another's wake.
        for number in 0..ways.len() {
            let number = (number + round) % ways.len();
            let (way, row) = (&ways[number], &mut rows[number]);
            for (weather, cells) in WEATHERS.into_iter().zip(row) {
                let cell = way.round(weather, rate).map_err(|error| format!("{}, {weather:?}: {error}", way.name()))?;
                // The first warms caches and pools.
                if round > 0 {
                    cells.push(cell);
                }
            }
        }
    }
    print(&ways, &rows, rounds, rate);
    for way in &ways {
        way.say_what_was_dropped()?;
    }
    Ok(())
}

impl Way {
    fn start(number: usize, kind: Kind) -> Result<Self, String> {
        let folder = target().join("bench").join(format!("storm-{kind:?}").to_lowercase());
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let hosts = Hosts::new(number)?;
        let binary = binary();
        let domain = ["--local-domain", "example.com", "--identity", "xclient"];
        let mut sink = hosts.gateway.command();
        sink.arg(&binary).args(["sink", "--quiet", "--listen", SINK]).args(domain);
        let sink = running(&mut sink)?;
        let parsed = |text: &str| text.parse::<SocketAddr>().map_err(|error| format!("{text}: {error}"));
        let at = parsed(SINK)?;
        hosts.gateway.within(|| wait_for(at))?;
        let config = folder.join("gateway.toml");
        fs::write(&config, configuration(kind, &folder)).map_err(|error| format!("{}: {error}", config.display()))?;
        let gateway = running(hosts.gateway.command().arg(&binary).args(["run", "-c"]).arg(&config))?;
        hosts.client.within(|| wait_for(SocketAddr::V4(front()?)))?;
        let empty = if kind == Kind::EmptyXdp { Some(pass_all(&hosts)?) } else { None };
        let way = Self { kind, _empty: empty, _gateway: gateway, _sink: sink, folder, hosts };
        way.ban()?;
        Ok(way)
    }

    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Xdp => "XDP",
            Kind::EmptyXdp => "empty XDP program",
            Kind::Nftables => "nftables, ingress",
            Kind::Userspace => "userspace",
        }
    }

    fn gateway(&self, verb: &str) -> Command {
        let mut command = Command::new(binary());
        command.arg(verb).arg("--config").arg(self.folder.join("gateway.toml"));
        command
    }

    /// The prefix is banned by the gateway in every way, for that is what there is; and by nftables where that is meant to.
    fn ban(&self) -> Result<(), String> {
        output(self.gateway("ban").args([BANNED, "--for", "1h"]))?;
        match self.kind {
            Kind::Userspace | Kind::EmptyXdp => Ok(()),
            Kind::Xdp => {
                let status = output(&mut self.gateway("status"))?;
                let is_native = CARDS.iter().all(|card| status.contains(&format!("{card} native")));
                is_native.then_some(()).ok_or_else(|| format!("the kernel side is not native on both cards:\n{status}"))
            }
            Kind::Nftables => {
                let rules = format!(
                    "table netdev bench {{\n set banned {{ type ipv4_addr; flags interval; elements = {{ {BANNED} }} }}\n \
                     chain first {{ type filter hook ingress device {} priority -300; tcp dport 25 ip saddr @banned \
                     counter drop; }}\n}}\n",
                    CARDS[1]
                );
                let file = self.folder.join("rules.nft");
                fs::write(&file, rules).map_err(|error| format!("{}: {error}", file.display()))?;
                output(self.nft().arg("-f").arg(&file)).map(drop)
            }
        }
    }

    fn nft(&self) -> Command {
        let folder = peers::folder("nftables");
        let mut nft = self.hosts.gateway.command();
        nft.arg(folder.join("usr/sbin/nft")).env("LD_LIBRARY_PATH", folder.join("usr/lib/x86_64-linux-gnu"));
        nft
    }

    /// The mail, and beside it the weather.
    fn round(&self, weather: Weather, rate: u32) -> Result<Cell, String> {
        let stop = AtomicBool::new(false);
        let (to, sources) = match weather {
            Weather::Quiet => return Ok([self.mail()?, 0.0]),
            Weather::Elsewhere => (SocketAddrV4::new(address(NOWHERE)?, 25), Sources::Both),
            Weather::Flood(sources) => (front()?, sources),
        };
        std::thread::scope(|scope| {
            let flood = scope.spawn(|| self.hosts.flooder.within(|| flood::send(to, sources, rate, &stop)));
            std::thread::sleep(AHEAD);
            let mail = self.mail();
            stop.store(true, Ordering::Relaxed);
            let sent = flood.join().unwrap_or_else(|_| Err("the flood panicked".to_owned()))?;
            Ok([mail?, sent])
        })
    }

    /// Messages a second.
    fn mail(&self) -> Result<f64, String> {
        let server = SocketAddr::V4(front()?);
        self.hosts.client.within(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let measured = runtime.map_err(|error| error.to_string())?.block_on(async {
                tokio::time::timeout(ROUND_TIMEOUT, load::run(&WORK, server, &Security::None)).await
            });
            let measured = measured.map_err(|_| format!("not done after {} s", ROUND_TIMEOUT.as_secs()))?;
            Ok(WORK.units() as f64 / measured.map_err(|error| format!("mail: {error}"))?.seconds)
        })
    }

    /// So that nobody takes a rule that never matched for a fast one.
    fn say_what_was_dropped(&self) -> Result<(), String> {
        let (said, wanted) = match self.kind {
            Kind::Userspace | Kind::EmptyXdp => return Ok(()),
            Kind::Xdp => (output(&mut self.gateway("bans"))?, BANNED),
            Kind::Nftables => (output(self.nft().args(["-t", "list", "ruleset"]))?, "counter packets"),
        };
        let line = said.lines().find(|line| line.contains(wanted));
        println!("{}: {}", self.name(), line.ok_or_else(|| format!("nothing of {wanted} in {said}"))?.trim());
        Ok(())
    }
}

fn print(ways: &[Way], rows: &[[Vec<Cell>; WEATHERS.len()]], rounds: usize, rate: u32) {
    println!(
        "\nstorm: messages a second of {} bytes, {} a session, {} sessions at once, beside {rate} SYNs a second; medians \
         of {rounds} rounds of {}; a ratio is the median of its rounds' own ratios, (least–most)",
        WORK.size,
        WORK.messages,
        WORK.at_once,
        WORK.units()
    );
    println!(
        "  {:<18} {:<7} {:>8} {:>10} {:>7} {:>7}  {:<17}  {:<17}",
        "by", "flood", "no flood", "elsewhere", "flood", "SYNs/s", "÷ no flood", "÷ elsewhere"
    );
    for (way, [quiet, elsewhere, floods @ ..]) in ways.iter().zip(rows) {
        for (weather, flood) in WEATHERS[2..].iter().zip(floods) {
            let Weather::Flood(sources) = weather else { continue };
            println!(
                "  {:<18} {:<7} {:>8.0} {:>10.0} {:>7.0} {:>7.0}  {:<17}  {:<17}",
                way.name(),
                format!("{sources:?}").to_lowercase(),
                Spread::of(quiet.iter().map(|cell| cell[0])).median,
                Spread::of(elsewhere.iter().map(|cell| cell[0])).median,
                Spread::of(flood.iter().map(|cell| cell[0])).median,
                Spread::of(flood.iter().map(|cell| cell[1])).median,
                ratio(flood, quiet),
                ratio(flood, elsewhere)
            );
        }
    }
}

/// Within each round, for what else the machine does changes from one to the next.
fn ratio(of: &[Cell], to: &[Cell]) -> String {
    let Spread { least, median, most } = Spread::of(of.iter().zip(to).map(|(of, to)| of[0] / to[0]));
    format!("{median:.2} ({least:.2}–{most:.2})")
}

struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    fn of(figures: impl Iterator<Item = f64>) -> Self {
        let mut figures: Vec<f64> = figures.collect();
        figures.sort_by(f64::total_cmp);
        let at = |index: usize| figures.get(index).copied().unwrap_or(f64::NAN);
        Self { least: at(0), median: at(figures.len() / 2), most: at(figures.len().saturating_sub(1)) }
    }
}

/// The program that passes everything, on both cards, in the driver, until dropped.
fn pass_all(hosts: &Hosts) -> Result<Driver, String> {
    let mut driver = Driver::load()?;
    let program = driver.program("empty")?;
    hosts.gateway.within(|| {
        CARDS.into_iter().try_for_each(|card| {
            program.attach(card, XdpMode::Driver).map(drop).map_err(|error| format!("{card}: {error}"))
        })
    })?;
    Ok(driver)
}

fn binary() -> PathBuf {
    target().join("release/smtp-gateway")
}

fn address(text: &str) -> Result<Ipv4Addr, String> {
    text.parse().map_err(|error| format!("{text}: {error}"))
}

fn front() -> Result<SocketAddrV4, String> {
    Ok(SocketAddrV4::new(address(FRONT)?, 25))
}

/// The client is one address with more sessions than a client has: its limits are out of the way. Without a BPF file system
/// the kernel side does without pins, and leaves the cards with the gateway.
fn configuration(kind: Kind, folder: &std::path::Path) -> String {
    let mode = if kind == Kind::Xdp { "native" } else { "off" };
    format!(
        r#"[server]
hostname = "gateway.example"
workers = 2
[[listener]]
address = "{FRONT}:25"
[[backend]]
address = "{SINK}"
identity = "xclient"
[relay]
local_domains = ["example.com"]
[limits]
sessions_per_client = 20000
[proof]
enabled = false
[dns]
enabled = false
[control]
socket = "{folder}/control.sock"
[log]
level = "error"
[xdp]
interfaces = {CARDS:?}
mode = "{mode}"
syn_rate = 1000000
syn_burst = 1000000
pins = "{folder}/pins"
"#,
        folder = folder.display()
    )
}
