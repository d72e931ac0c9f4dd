//! Live frames: the kernel gives real buffers to the program and then to the network stack, so a packet filter that is no
//! XDP program is measured too. What a frame costs is wall time; the frames' own making is in it, and `drop` shows it.
//!
//! Everything happens in a network namespace of its own: the packet filter's rules touch nobody.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use aya::programs::{ProgramFd, TestRun as _, TestRunAttrs, TestRunOptions};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::command::{output, target};
use crate::peers;

use super::filter::Filter;
use super::median;
use super::objects::{Driver, Gateway, SYN, Spread, frame, nanoseconds, said};
use super::runs::{HOT, MANY};

/// Frames a round.
const FRAMES: u32 = 1_000_000;
/// The kernel's own batches are of 64 as well.
const BATCH: u32 = 64;

/// One column: who drops.
struct Way {
    name: &'static str,
    program: ProgramFd,
    /// The namespace the frames arrive in.
    host: Host,
}

pub(super) fn measure(rounds: usize, has_filter: bool) -> Result<(), String> {
    let mut driver = Driver::load()?;
    let mut gateway = Gateway::load()?;
    gateway.ban(MANY.all())?;
    gateway.ban([HOT].into_iter())?;
    let mut filter = if has_filter { Some(Filter::load()?) } else { None };
    let mut ways = vec![
        Way { name: "a program that only drops", program: driver.fd("drop")?, host: Host::new("drop")? },
        Way { name: "gateway", program: gateway.fd()?, host: Host::new("gateway")? },
    ];
    if let Some(filter) = &mut filter {
        filter.ban(MANY.all().chain([HOT]))?;
        ways.push(Way { name: "xdp-filter", program: filter.fd()?, host: Host::new("filter")? });
    }
    for (name, hook) in [("nftables, set, ingress", "ingress device lo"), ("nftables, set, prerouting", "prerouting")] {
        let host = Host::new(if hook.contains("device") { "ingress" } else { "prerouting" })?;
        host.drop_banned(hook)?;
        ways.push(Way { name, program: driver.fd("empty")?, host });
    }
    let spreads = [Spread::one(HOT), MANY];
    let mut figures: Vec<[Vec<f64>; 2]> = ways.iter().map(|_| Default::default()).collect();
    for round in 0..=rounds {
        for (way, figures) in ways.iter().zip(&mut figures) {
            for (spread, figures) in spreads.into_iter().zip(figures) {
                let took = way.run(&mut driver, spread)?;
                if round > 0 {
                    figures.push(took);
                }
            }
        }
    }
    for way in ways.iter().filter(|way| way.name.starts_with("nftables")) {
        let (dropped, sent) = (way.host.dropped()?, u64::from(FRAMES) * 2 * (rounds as u64 + 1));
        if dropped != sent {
            return Err(format!("{}: {dropped} of {sent} frames were dropped by the rule", way.name));
        }
    }
    println!("\nlive frames of banned sources, nanoseconds a frame, median of {rounds} rounds of {FRAMES}\n");
    println!("| dropped by | one source | 64k sources |\n| --- | ---: | ---: |");
    for (way, [one, many]) in ways.iter().zip(figures) {
        println!("| {} | {:.0} | {:.0} |", way.name, median(one), median(many));
    }
    Ok(())
}

impl Way {
    /// Nanoseconds a frame.
    fn run(&self, driver: &mut Driver, spread: Spread) -> Result<f64, String> {
        driver.aim(&self.program, spread)?;
        let packet = frame(SYN);
        let program = driver.program("vary")?;
        self.host.within(|| {
            let attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
            let options = TestRunOptions { data_in: Some(&packet), repeat: FRAMES, attrs, ..TestRunOptions::new() };
            let start = Instant::now();
            program.test_run(options).map_err(|error| said("live frames")(&error))?;
            Ok(nanoseconds(start.elapsed()) / f64::from(FRAMES))
        })
    }
}

/// A network namespace with nothing but a loopback, until dropped.
struct Host {
    name: String,
}

impl Host {
    fn new(role: &str) -> Result<Self, String> {
        let name = format!("sgb-{}-{role}", std::process::id());
        output(Command::new("ip").args(["netns", "add", &name]))?;
        let host = Self { name };
        output(Command::new("ip").args(["-n", &host.name, "link", "set", "lo", "up"]))?;
        Ok(host)
    }

    /// Has nftables drop the same sources.
    fn drop_banned(&self, hook: &str) -> Result<(), String> {
        let family = if hook.contains("device") { "netdev" } else { "ip" };
        let mut rules = format!("table {family} bench {{\n set banned {{ type ipv4_addr; elements = {{ {HOT}");
        for address in MANY.all() {
            let _ = write!(rules, ", {address}");
        }
        let _ = write!(
            rules,
            " }} }}\n chain first {{ type filter hook {hook} priority -300; tcp dport 25 ip saddr @banned counter drop; }}\n}}\n"
        );
        let file: PathBuf = target().join("bench").join(format!("{}.nft", self.name));
        fs::create_dir_all(target().join("bench")).map_err(|error| said("bench")(&error))?;
        fs::write(&file, rules).map_err(|error| said("rules")(&error))?;
        let loaded = output(self.nft().arg("-f").arg(&file)).map(drop);
        let _ = fs::remove_file(&file);
        loaded
    }

    /// How many packets the rule dropped.
    fn dropped(&self) -> Result<u64, String> {
        let said = output(self.nft().args(["-t", "list", "ruleset"]))?;
        let counted = said.split("counter packets ").nth(1).and_then(|rest| rest.split_whitespace().next());
        counted.and_then(|count| count.parse().ok()).ok_or_else(|| format!("no counter in {said}"))
    }

    fn nft(&self) -> Command {
        let folder = peers::folder("nftables");
        let mut nft = Command::new("ip");
        nft.args(["netns", "exec", &self.name]).arg(folder.join("usr/sbin/nft"));
        nft.env("LD_LIBRARY_PATH", folder.join("usr/lib/x86_64-linux-gnu"));
        nft
    }

    /// Runs something in this namespace, on a thread of its own, since the namespace is the thread's.
    fn within<T: Send>(&self, work: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
        let path = PathBuf::from("/run/netns").join(&self.name);
        let namespace = File::open(&path).map_err(|error| said(&self.name)(&error))?;
        let moved = move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|error| said("setns")(&error))?;
            work()
        };
        std::thread::scope(|scope| scope.spawn(moved).join())
            .unwrap_or_else(|_| Err("the measuring panicked".to_owned()))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // One that cannot be removed is in nobody's way.
        let _ = output(Command::new("ip").args(["netns", "delete", &self.name]));
    }
}
