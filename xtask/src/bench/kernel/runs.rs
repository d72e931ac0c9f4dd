//! Test runs: every work's packets through the gateway's program, xdp-filter's where it does the like, and the empty one.

use std::net::Ipv4Addr;

use aya::programs::ProgramFd;

use super::filter::Filter;
use super::median;
use super::objects::{ACK, Driver, Gateway, SYN, Spread, XDP_DROP, XDP_PASS, frame, repeat};

/// Packets a round.
const PACKETS: u32 = 1_000_000;

pub(super) const HOT: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 9);
/// 64k sources, scattered over a /12 as strangers are.
pub(super) const MANY: Spread = Spread { base: Ipv4Addr::new(10, 16, 0, 0), mask: 0x000f_0fff };
/// Every address there is.
const FORGED: Spread = Spread { base: Ipv4Addr::UNSPECIFIED, mask: u32::MAX };
const BACKGROUND_BANS: u32 = 100_000;
const BACKGROUND_NETWORKS: u32 = 10_000;

/// One row of the table.
struct Work {
    name: &'static str,
    flags: u8,
    /// What must become of the last packet; of forged ones either may.
    action: Option<u32>,
    spread: Spread,
    gateway: ProgramFd,
    filter: Option<ProgramFd>,
    /// What the issue of the kernel side wants, in nanoseconds.
    goal: Option<f64>,
}

pub(super) fn measure(rounds: usize, has_filter: bool) -> Result<(), String> {
    let mut driver = Driver::load()?;
    let mut stage = Stage::set(has_filter)?;
    let works = stage.works()?;
    let empty = driver.fd("empty")?;
    let mut figures: Vec<[Vec<f64>; 3]> = works.iter().map(|_| Default::default()).collect();
    let mut alone = Vec::new();
    for round in 0..=rounds {
        let (bare, _) = repeat(driver.program("empty")?, &frame(SYN), PACKETS)?;
        if round > 0 {
            alone.push(bare);
        }
        for (work, [gateway, filter, nothing]) in works.iter().zip(&mut figures) {
            let packet = frame(work.flags);
            let mut vary = |program, action| {
                let took = driver.vary(program, work.spread, &packet, PACKETS, action);
                took.map_err(|error| format!("{}: {error}", work.name))
            };
            let took = vary(&work.gateway, work.action)?;
            let other = work.filter.as_ref().map(|other| vary(other, work.action)).transpose()?;
            let base = vary(&empty, Some(XDP_PASS))?;
            // The first round warms caches and tables.
            if round > 0 {
                gateway.push(took);
                filter.extend(other);
                nothing.push(base);
            }
        }
    }
    let alone = median(alone);
    println!(
        "\nnanoseconds a packet, median of {rounds} rounds of {PACKETS} test runs; the empty program alone: {alone:.0}\n"
    );
    println!("| work | gateway | of it the program | xdp-filter | goal |\n| --- | ---: | ---: | ---: | ---: |");
    for (work, [gateway, filter, nothing]) in works.iter().zip(figures) {
        let nothing = median(nothing);
        let own = median(gateway) - nothing;
        let filter = if filter.is_empty() { "".to_owned() } else { format!("{:.0}", median(filter) - nothing + alone) };
        let goal = work.goal.map(|goal| format!("≤ {goal}")).unwrap_or_default();
        println!("| {} | {:.0} | {own:.0} | {filter} | {goal} |", work.name, own + alone);
    }
    stage.report()
}

/// The programs, each with other lists.
struct Stage {
    /// Nobody banned; 64k sources known.
    open: Gateway,
    /// 64k sources banned, and one more.
    banning: Gateway,
    /// 100k others banned, and 10k networks.
    crowded: Gateway,
    /// Nobody banned, 64k known; forged sources come.
    flooded: Gateway,
    /// xdp-filter with the same banned, and with nobody banned.
    filters: Option<[Filter; 2]>,
}

impl Stage {
    fn set(has_filter: bool) -> Result<Self, String> {
        let mut stage = Self {
            open: Gateway::load()?,
            banning: Gateway::load()?,
            crowded: Gateway::load()?,
            flooded: Gateway::load()?,
            filters: if has_filter { Some([Filter::load()?, Filter::load()?]) } else { None },
        };
        let known = || MANY.all().chain([HOT]);
        stage.open.track(known())?;
        stage.flooded.track(known())?;
        stage.crowded.track(known())?;
        stage.crowded.ban((0..BACKGROUND_BANS).map(scattered))?;
        stage.crowded.ban_networks((0..BACKGROUND_NETWORKS).map(|number| {
            let [a, b, c, _] = scattered(number).octets();
            (Ipv4Addr::new(a, b, c, 0), 24)
        }))?;
        stage.crowded.ban_networks([(Ipv4Addr::new(10, 99, 0, 0), 16)].into_iter())?;
        stage.banning.ban(known())?;
        if let Some([filter, _]) = &mut stage.filters {
            filter.ban(known())?;
        }
        Ok(stage)
    }

    fn works(&mut self) -> Result<Vec<Work>, String> {
        let [open, banning, crowded, flooded] =
            [self.open.fd()?, self.banning.fd()?, self.crowded.fd()?, self.flooded.fd()?];
        let mut filter = |index: usize| self.filters.as_mut().map(|filters| filters[index].fd()).transpose();
        let (hot_filter, many_filter, pass_filter) = (filter(0)?, filter(0)?, filter(1)?);
        let work = |name, flags, action, spread, gateway: &ProgramFd, filter, goal| {
            let gateway = gateway.try_clone().map_err(|error| error.to_string())?;
            Ok(Work { name, flags, action, spread, gateway, filter, goal })
        };
        let hot = Spread::one(HOT);
        let stranger = Spread::one(Ipv4Addr::new(203, 0, 113, 9));
        let network = Spread { base: Ipv4Addr::new(10, 99, 0, 0), mask: 0xffff };
        let (drop, pass) = (Some(XDP_DROP), Some(XDP_PASS));
        let (listed_one, listed_many) = ("with 100k bans and 10k networks: one source", "the same: 64k sources");
        [
            work("banned, one source", SYN, drop, hot, &banning, hot_filter, Some(60.0)),
            work("banned, 64k sources", SYN, drop, MANY, &banning, many_filter, Some(100.0)),
            work("banned network of 10k, 64k sources", SYN, drop, network, &crowded, None, None),
            work("accepted, one source", ACK, pass, hot, &open, pass_filter, Some(90.0)),
            work("accepted, one source, SYN", SYN, pass, hot, &open, None, None),
            work("accepted, 64k sources", ACK, pass, MANY, &open, None, Some(165.0)),
            work(listed_one, ACK, pass, hot, &crowded, None, Some(110.0)),
            work(listed_many, ACK, pass, MANY, &crowded, None, Some(220.0)),
            work("4 billion forged sources", SYN, None, FORGED, &flooded, None, Some(100.0)),
            work("one new source", SYN, pass, stranger, &flooded, None, None),
        ]
        .into_iter()
        .collect()
    }

    /// Whether the flood displaced anybody.
    fn report(&mut self) -> Result<(), String> {
        let known = self.flooded.tracked(MANY.all())?;
        println!("\nof {} true sources {known} are still known after the flood", MANY.all().count());
        Ok(())
    }
}

/// Addresses all over IPv4, none of them in 10/8.
fn scattered(number: u32) -> Ipv4Addr {
    let address = Ipv4Addr::from(number.wrapping_mul(2_654_435_761).rotate_left(7));
    let [a, b, c, d] = address.octets();
    if a == 10 { Ipv4Addr::new(11, b, c, d) } else { address }
}
