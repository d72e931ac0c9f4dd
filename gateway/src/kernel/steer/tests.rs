//! Against maps of the kernel's own, without a program.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Instant;

use gateway_common::{MAPS, Map, MapKind, SourceKey, SourceRow, ban_bit, outcome, reason, source_bit, source_row};

use super::*;
use crate::identity::host::HostNetworks;
use crate::time::Millis;

const CONFIG: &str = r#"
[server]
hostname = "mx.example.com"
[[listener]]
address = "0.0.0.0:25"
[[backend]]
address = "198.51.100.25"
[relay]
local_domains = ["example.com"]
[bans]
allow = ["192.0.2.128/25"]
"#;

/// `BPF_F_NO_PREALLOC`, which tries insist on.
const NO_PREALLOC: u32 = 1;

/// Every map of the layout; `None`, said aloud, where the kernel does not let us have them.
struct Maps(HashMap<&'static str, OwnedFd>);

impl Maps {
    fn new() -> Option<Self> {
        let maps = MAPS.iter().map(|map| Ok((map.name, create(map)?)));
        match maps.collect::<Result<_, MapError>>() {
            Ok(maps) => Some(Self(maps)),
            Err(error) => {
                let all = std::env::var_os("SMTP_GATEWAY_TESTS").is_some_and(|value| value == "all");
                assert!(!all, "no BPF maps, and SMTP_GATEWAY_TESTS=all: {error}");
                // Nothing to be done if standard error is closed.
                let _ = writeln!(std::io::stderr(), "SKIPPED: a test with BPF maps: {error}");
                None
            }
        }
    }

    fn open(&self, name: &str) -> Result<MapData, MapError> {
        let handle = self.0[name]
            .try_clone()
            .map_err(|io_error| MapError::SyscallError(aya::sys::SyscallError { call: "dup", io_error }))?;
        MapData::from_fd(handle)
    }

    fn tables(&self) -> KernelTables {
        KernelTables::open(&|name: &str| self.open(name)).unwrap()
    }
}

fn create(map: &Map) -> Result<OwnedFd, MapError> {
    let (kind, prefix, flags) = match map.kind {
        MapKind::Hash => (1, 0, 0),
        MapKind::Array => (2, 0, 0),
        MapKind::PerCpuArray => (6, 0, 0),
        MapKind::LpmTrie => (11, 4, NO_PREALLOC),
        MapKind::RingBuffer => (27, 0, 0),
    };
    let size = |size: usize| u32::try_from(size).unwrap();
    let key_size = size(map.key_size) + prefix;
    let object = aya_obj::Map::new_from_params(kind, key_size, size(map.value_size), map.capacity, flags);
    Ok(MapData::create(object, map.name, None)?.fd().as_fd().try_clone_to_owned().unwrap())
}

fn verdicts() -> Arc<Verdicts> {
    Arc::new(Verdicts::new(&crate::config::parse(CONFIG, "gateway.toml").unwrap(), &HostNetworks::default()))
}

fn steer(maps: &Maps, verdicts: &Arc<Verdicts>) -> Steering {
    steer_by(Truth::Maps, maps, verdicts)
}

fn steer_by(truth: Truth, maps: &Maps, verdicts: &Arc<Verdicts>) -> Steering {
    let allow = ["203.0.113.0/24".parse().unwrap()];
    Steering::over(|name| maps.open(name), verdicts, (&allow, &[]), truth).unwrap()
}

fn network(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// Waits for the map to say so. How long it takes is the scenarios' matter: a busy machine is no fault of the writer's.
fn soon(mut done: impl FnMut() -> bool) {
    let since = Instant::now();
    while !done() {
        assert!(since.elapsed() < Duration::from_secs(10), "not in the map in time");
        sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_verdict_is_in_the_kernel_at_once() {
    let Some(maps) = Maps::new() else { return };
    let verdicts = verdicts();
    let steering = steer(&maps, &verdicts);
    let tables = maps.tables();
    let source = SourceKey::v4([192, 0, 2, 9]);
    verdicts.ban(network("192.0.2.9/32"), Duration::from_secs(60), "by hand", now()).unwrap();
    soon(|| tables.ban(source).unwrap().is_some());
    let deny = tables.ban(source).unwrap().unwrap();
    let (word, mask) = ban_bit(source);
    assert_eq!(tables.bits(super::super::tables::BitField::Bans, word).unwrap(), mask);
    assert_eq!((deny.cause, deny.reason, deny.flags), (outcome::DROP_BAN, reason::MANUAL, 0));
    let left = deny.until_ns.saturating_sub(now_ns());
    assert!((58_000_000_000..=60_001_000_000).contains(&left), "{left}");

    for text in ["192.0.2.0/24", "2001:db8::/32"] {
        verdicts.ban(network(text), Duration::from_secs(60), "by hand", now()).unwrap();
        soon(|| tables.denied().unwrap().iter().any(|(denied, _)| *denied == network(text)));
        verdicts.unban(network(text), now()).unwrap();
        soon(|| tables.denied().unwrap().is_empty());
    }
    verdicts.unban(network("192.0.2.9/32"), now()).unwrap();
    soon(|| tables.bans().unwrap().is_empty());
    verdicts.protect_backends(["198.51.100.77".parse::<IpAddr>().unwrap()]);
    soon(|| tables.allowed().unwrap().iter().any(|(allowed, _)| *allowed == network("198.51.100.77/32")));
    let mut allowed: Vec<_> = tables.allowed().unwrap().iter().map(|(network, _)| network.to_string()).collect();
    allowed.sort();
    let expected =
        ["127.0.0.0/8", "192.0.2.128/25", "198.51.100.25/32", "198.51.100.77/32", "203.0.113.0/24", "::1/128"];
    assert_eq!(allowed, expected);
    assert_eq!(steering.failures(), 0);
}

/// A ban, its end and what was dropped for it live in the maps: the next gateway has them all.
#[test]
fn a_restart_loses_no_ban() {
    let Some(maps) = Maps::new() else { return };
    let first = verdicts();
    let steering = steer(&maps, &first);
    for text in ["192.0.2.9/32", "2001:db8:1:2::/64", "198.18.0.0/15"] {
        first.ban(network(text), Duration::from_secs(60), "by hand", now()).unwrap();
    }
    first.ban(network("192.0.2.10/32"), Duration::from_millis(1), "by hand", now()).unwrap();
    let mut tables = maps.tables();
    soon(|| tables.bans().unwrap().len() == 3 && tables.denied().unwrap().len() == 1);
    let before = first.bans(now());
    drop((first, steering));

    let source = SourceKey::v4([192, 0, 2, 9]);
    let deny = tables.ban(source).unwrap().unwrap();
    tables.put_ban(source, Deny { dropped: 41, ..deny }).unwrap();
    let second = verdicts();
    let steering = steer(&maps, &second);
    let after = second.bans(now());
    let shown = |bans: &[BanView]| {
        let mut shown: Vec<_> = bans.iter().map(|ban| (ban.network, ban.since, ban.until)).collect();
        shown.retain(|(_, _, until)| *until > now());
        shown.sort();
        shown
    };
    assert_eq!(shown(&after), shown(&before));
    assert_eq!(after.len(), 3);
    assert!(after.iter().all(|ban| ban.reason == "manual (before a restart)"));
    assert!(second.refuses("2001:db8:1:2::9".parse().unwrap(), now()));
    assert_eq!(steering.reader.dropped(network("192.0.2.9/32")).unwrap(), 41);
    assert_eq!(tables.ban(SourceKey::v4([192, 0, 2, 10])).unwrap(), None, "over, and taken out");
    // What is said anew keeps what was counted.
    second.ban(network("192.0.2.9/32"), Duration::from_secs(90), "again", now()).unwrap();
    soon(|| tables.ban(source).unwrap().is_some_and(|again| again.until_ns > deny.until_ns));
    assert_eq!(steering.reader.dropped(network("192.0.2.9/32")).unwrap(), 41);
}

#[test]
fn more_bans_than_the_queue_holds() {
    let Some(maps) = Maps::new() else { return };
    let verdicts = verdicts();
    let steering = steer(&maps, &verdicts);
    let count = 20_000_u32;
    for number in 0..count {
        let address = IpAddr::from((0x0A00_0000 | number).to_be_bytes());
        verdicts.ban(address.into(), Duration::from_secs(60), "by hand", now()).unwrap();
    }
    let tables = maps.tables();
    let since = Instant::now();
    while tables.bans().unwrap().len() != usize::try_from(count).unwrap() {
        assert!(since.elapsed() < Duration::from_secs(10));
        sleep(Duration::from_millis(10));
    }
    verdicts.sweep(Millis(u64::MAX));
    while !tables.bans().unwrap().is_empty() {
        assert!(since.elapsed() < Duration::from_secs(20));
        sleep(Duration::from_millis(10));
    }
    assert_eq!(steering.failures(), 0);
}

/// Who is gone leaves the table, and its bit goes with the last that needs it.
#[test]
fn idle_sources_are_forgotten() {
    let Some(maps) = Maps::new() else { return };
    let open = |name: &str| maps.open(name);
    let mut table: aya::maps::HashMap<MapData, SourceKey, gateway_common::Source> =
        typed(&open, maps::SOURCES).unwrap();
    let mut bits: aya::maps::Array<MapData, u64> = typed(&open, maps::BITS).unwrap();
    let mut rows: aya::maps::Array<MapData, SourceRow> = typed(&open, maps::SOURCES4).unwrap();
    let hour = 3600 * 1_000_000_000;
    let (gone, here, busy) = ([192, 0, 2, 1], [192, 0, 2, 2], [192, 0, 2, 3]);
    // Of who sends mail, the row alone knows when it was seen last. It shares the row with who is gone.
    let busy_row =
        SourceRow { address: [busy, [0; 4]], packets: [5, 0], last_seen_ns: [hour, 0], ..Default::default() };
    rows.set(source_row(SourceKey::v4(busy)), busy_row, 0).unwrap();
    let gone_row = SourceRow { address: [gone, [198, 51, 100, 1]], packets: [2, 7], ..Default::default() };
    rows.set(source_row(SourceKey::v4(gone)), gone_row, 0).unwrap();
    let (gone, here, busy) = (SourceKey::v4(gone), SourceKey::v4(here), SourceKey::v4(busy));
    for (source, last_seen_ns) in [(gone, 1), (here, hour), (busy, 1)] {
        table.insert(source, gateway_common::Source { packets: 9, last_seen_ns, ..Default::default() }, 0).unwrap();
        let (word, bit) = source_bit(source);
        bits.set(word, bits.get(&word, 0).unwrap() | bit, 0).unwrap();
    }
    let mut sources = Sources::open(&open).unwrap();
    sources.forget_idle(hour).unwrap();
    assert_eq!(table.keys().count(), 3, "an hour is not over");
    let mut known = MapReader::open(&open).unwrap().sources().unwrap();
    known.sort_by_key(|source| source.source.to_string());
    assert_eq!(known.iter().map(|source| source.account.packets).collect::<Vec<_>>(), [11, 9, 14]);
    sources.forget_idle(hour + 2).unwrap();
    let mut left = table.keys().collect::<Result<Vec<_>, _>>().unwrap();
    left.sort_unstable();
    assert_eq!(left, [here, busy]);
    let left = SourceRow { address: [[0; 4], [198, 51, 100, 1]], packets: [0, 7], ..Default::default() };
    assert_eq!(rows.get(&source_row(gone), 0).unwrap(), left, "its place is free, the other one as it was");
    assert_eq!(rows.get(&source_row(busy), 0).unwrap(), busy_row);
    let is_set = |source| {
        let (word, bit) = source_bit(source);
        bits.get(&word, 0).unwrap() & bit != 0
    };
    assert!(!is_set(gone) && is_set(here) && is_set(busy));
}

/// The threads end with the gateway, or nobody could take the maps over.
#[test]
fn the_writer_ends_with_the_verdicts() {
    let Some(maps) = Maps::new() else { return };
    let verdicts = verdicts();
    let weak = Arc::downgrade(&verdicts);
    let steering = steer(&maps, &verdicts);
    drop((verdicts, steering));
    assert!(weak.upgrade().is_none());
}

/// One process hands over to another, which dies, and takes the maps up again.
#[test]
fn one_process_writes_and_the_other_takes_up_what_it_left() {
    let Some(maps) = Maps::new() else { return };
    let minute = Duration::from_secs(60);
    let (old, new) = (verdicts(), verdicts());
    let (before, handed, meanwhile) = (network("192.0.2.1/32"), network("192.0.2.2/32"), network("192.0.2.3/32"));
    let tables = maps.tables();
    let banned = |network: IpNet| tables.ban(SourceKey::of(network.addr()).unwrap()).unwrap().is_some();
    let steering = steer(&maps, &old);
    old.ban(before, minute, "x", now()).unwrap();
    old.ban(handed, minute, "x", now()).unwrap();
    soon(|| banned(before) && banned(handed));

    steering.lay_down();
    old.ban(meanwhile, minute, "x", now()).unwrap();
    // The book that is handed over is the truth: one ban is not in it.
    new.ban(handed, minute, "x", now()).unwrap();
    let successor = steer_by(Truth::Book, &maps, &new);
    soon(|| !banned(before) && banned(handed));
    assert_eq!(new.count(now()), 1, "nothing comes from the maps");
    assert!(!banned(meanwhile), "who has laid the pen down writes nothing");
    successor.lay_down();

    steering.take_up();
    soon(|| banned(before) && banned(handed) && banned(meanwhile));
    old.unban(handed, now()).unwrap();
    soon(|| !banned(handed));
    // A bit goes behind its entry.
    let bit = |network: IpNet| {
        let (word, mask) = ban_bit(SourceKey::of(network.addr()).unwrap());
        tables.bits(super::super::tables::BitField::Bans, word).unwrap() & mask != 0
    };
    soon(|| bit(before) && !bit(handed) && bit(meanwhile));
}
