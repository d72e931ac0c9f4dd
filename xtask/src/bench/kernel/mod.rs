//! `cargo xtask bench --kernel`: what the kernel side costs a packet, in nanoseconds, with the empty program beside it, and
//! what Debian's xdp-filter and an nftables set cost for the same.
//!
//! Two ways to measure. The kernel's test run repeats a program on a packet: it is exact to a nanosecond, and the driver
//! (`gateway-ebpf/src/bench.rs`) gives each packet another source. Live frames go over a cable between two namespaces, and
//! a packet filter that is no XDP program can be measured too. Figures are medians of interleaved rounds.

mod filter;
mod live;
mod objects;
mod runs;

pub(super) use objects::Driver;

use crate::peers;

const USAGE: &str = "\
usage: cargo xtask bench --kernel [--rounds N] [--skip-live]
";

/// `cargo xtask bench --kernel`.
pub(super) fn run(arguments: &[String]) -> Result<(), String> {
    // Figures of a program that was compiled without optimisation would be of the bench, not of the kernel side: setting
    // up 100,000 bans takes it seconds, but the packets are the kernel's.
    let (mut rounds, mut is_live) = (9, true);
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--rounds" => {
                let value = arguments.next().and_then(|value| value.parse().ok());
                rounds = value.filter(|rounds| *rounds > 0).ok_or(USAGE)?;
            }
            "--skip-live" => is_live = false,
            _ => return Err(USAGE.to_owned()),
        }
    }
    let has_filter =
        peers::provide_one("xdp-tools").inspect_err(|error| eprintln!("MISSING: xdp-tools: {error}")).is_ok();
    runs::measure(rounds, has_filter)?;
    if is_live {
        peers::provide_one("nftables")?;
        live::measure(rounds, has_filter)?;
    }
    Ok(())
}

/// The middle one.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
