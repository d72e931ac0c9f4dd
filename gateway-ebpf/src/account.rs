//! Counts a segment for its source, and limits connection attempts.
//!
//! A source that is known costs one look-up: an IPv4 source's mail is counted in a row, and what begins or ends a connection
//! in the table. One that is not is taken into the table at once while few strangers come; when many do, they must pass the
//! gate: a fixed table of cells in which only a source that comes again, before another one falls into its cell, is
//! recognised. Forged sources come once, so no flood of them fills the table, however big, and no true source is displaced,
//! because nothing here ever evicts. What a flood may cost the listener is bounded by a bucket for all strangers' SYNs; a
//! client that was refused by it tries again, and is then no stranger.

use aya_ebpf::programs::XdpContext;
use gateway_common::maps::{BUCKET_NEW_SOURCE, BUCKET_RETURNING, BUCKET_UNKNOWN_SYN};
use gateway_common::{Config, GATE_COUNT, Source, SourceKey, SourceRow, gate_cell, outcome, reason};

use crate::announce::announce;
use crate::maps;
use crate::packet::{Octets, Segment};
use crate::stop::{Stop, refuse};
use crate::verdict::Standing;

#[inline(always)]
pub(crate) fn account(
    ctx: &XdpContext,
    config: &Config,
    segment: &Segment,
    standing: Standing,
    bytes: u64,
) -> Result<u32, Stop> {
    if let Some(why) = segment.why_unreadable() {
        return unreadable(config, why, standing);
    }
    let Some(key) = segment.key() else {
        return nameless(config, segment, standing);
    };
    let now = maps::now();
    if maps::may_be_known(key) {
        if is_counted_in_row(segment, key, bytes, now) {
            return Ok(standing.outcome_or(outcome::PASS_TRACKED));
        }
        if let Some(source) = maps::source(key) {
            return known(ctx, config, segment, standing, key, source, bytes, now);
        }
    }
    let (is_returning, is_admitted) = admission(config, key, now);
    if is_admitted {
        return Ok(standing.outcome_or(take_in(config, segment, key, bytes, now)));
    }
    let must_wait = standing == Standing::STRANGER && segment.is_attempt() && !is_returning;
    if must_wait && !strangers_have_room(config, now) {
        return refuse(config, outcome::DROP_UNKNOWN_RATE);
    }
    Ok(standing.outcome_or(outcome::PASS_UNTRACKED))
}

/// What cannot be read counts for nobody, but it may be an attempt, so all of it together is limited as strangers' are.
/// What was made not to be read is refused.
#[inline(always)]
fn unreadable(config: &Config, why: u32, standing: Standing) -> Result<u32, Stop> {
    if standing == Standing::ALLOWED {
        return Ok(why);
    }
    if standing != Standing::STRANGER {
        return Ok(standing.outcome_or(why));
    }
    if why == outcome::PASS_FRAGMENT {
        return refuse(config, outcome::DROP_TINY_FRAGMENT);
    }
    if !strangers_have_room(config, maps::now()) {
        return refuse(config, outcome::DROP_UNKNOWN_RATE);
    }
    Ok(why)
}

/// An address without a key has no account, and so no limit of its own.
#[inline(always)]
fn nameless(config: &Config, segment: &Segment, standing: Standing) -> Result<u32, Stop> {
    if standing == Standing::STRANGER && segment.is_attempt() && !strangers_have_room(config, maps::now()) {
        return refuse(config, outcome::DROP_UNKNOWN_RATE);
    }
    Ok(standing.outcome_or(outcome::PASS_IMPOSSIBLE_SOURCE))
}

/// Whether one more attempt of somebody unknown may pass.
#[inline(always)]
fn strangers_have_room(config: &Config, now: u64) -> bool {
    maps::take(BUCKET_UNKNOWN_SYN, config.unknown_syn_interval_ns, config.unknown_syn_burst_ns, now)
}

/// Counts what is neither an attempt nor an end in its source's row, if the source has a place there.
#[inline(always)]
fn is_counted_in_row(segment: &Segment, key: SourceKey, bytes: u64, now: u64) -> bool {
    let Some((row, address)) = row_of(segment, key) else { return false };
    // SAFETY: a map value. Userspace takes places back: then a count goes astray.
    let [first, second] = unsafe { (*row).address };
    let place = match address {
        address if address == first => 0,
        address if address == second => 1,
        _ => return false,
    };
    // SAFETY: as above, `place` being 0 or 1.
    unsafe {
        maps::add(&raw mut (*row).packets[place], 1);
        maps::add(&raw mut (*row).bytes[place], bytes);
        let last_seen = &raw mut (*row).last_seen_ns[place];
        if last_seen.read() != now {
            last_seen.write(now);
        }
    }
    true
}

/// Gives a known source a place in its row, if there is one, and counts nothing there yet: of two CPUs that give one place to
/// two sources, one does so for nothing.
#[inline(always)]
fn give_place(segment: &Segment, key: SourceKey) {
    let Some((row, address)) = row_of(segment, key) else { return };
    // SAFETY: as above.
    unsafe {
        match (*row).address {
            [first, second] if first == address || second == address => (),
            [[0, 0, 0, 0], _] => (&raw mut (*row).address[0]).write(address),
            [_, [0, 0, 0, 0]] => (&raw mut (*row).address[1]).write(address),
            _ => (),
        }
    }
}

/// The row in which a packet may be counted. Attempts and ends are not, for what they are counted in, and limited by, stands in
/// the table.
#[inline(always)]
fn row_of(segment: &Segment, key: SourceKey) -> Option<(*mut SourceRow, [u8; 4])> {
    match segment.address.octets() {
        Octets::V4(address) if !segment.is_attempt() && !segment.is_end() => Some((maps::source_row(key)?, address)),
        _ => None,
    }
}

#[inline(always)]
fn known(
    ctx: &XdpContext,
    config: &Config,
    segment: &Segment,
    standing: Standing,
    key: SourceKey,
    source: *mut Source,
    bytes: u64,
    now: u64,
) -> Result<u32, Stop> {
    // SAFETY: fields of a map value that the verifier knows to be one. Userspace removes idle sources, and a value that is
    // removed under our hands may by then be another source's: a count goes astray, memory does not.
    unsafe {
        maps::add(&raw mut (*source).packets, 1);
        maps::add(&raw mut (*source).bytes, bytes);
        (&raw mut (*source).last_seen_ns).write(now);
        give_place(segment, key);
        if segment.is_end() {
            maps::add(&raw mut (*source).fin_rst, 1);
        }
        if !segment.is_attempt() {
            return Ok(standing.outcome_or(outcome::PASS_TRACKED));
        }
        maps::add(&raw mut (*source).syn, 1);
        if standing != Standing::STRANGER || config.syn_interval_ns == 0 {
            return Ok(standing.outcome_or(outcome::PASS_TRACKED));
        }
        // Two CPUs may both find room for one SYN: the limit is then off by one, which is cheaper than a lock.
        let bucket = &raw mut (*source).syn_bucket_ns;
        let filled_until = bucket.read();
        if filled_until <= now + config.syn_burst_ns {
            bucket.write(now.max(filled_until) + config.syn_interval_ns);
            return Ok(outcome::PASS_TRACKED);
        }
        let dropped = maps::add_one(&raw mut (*source).dropped);
        let refusal = refuse(config, outcome::DROP_SYN_RATE);
        announce(ctx, config, segment, &refusal, reason::NONE, dropped, now);
        refusal
    }
}

/// Whether an unknown source came before, and whether it is now taken into the table.
#[inline(always)]
fn admission(config: &Config, key: SourceKey, now: u64) -> (bool, bool) {
    if maps::take(BUCKET_NEW_SOURCE, config.new_source_interval_ns, config.new_source_burst_ns, now) {
        return (false, true);
    }
    let (row, cell, mark) = gate_cell(key, config.seed);
    let Some(row) = maps::gate_row(row) else {
        return (false, false);
    };
    // SAFETY, here and below: cell & 31 lies in the row. Two CPUs may write it at once; one then counts for nothing.
    let cell = unsafe { (&raw mut (*row).cells).cast::<u16>().add(cell & 31) };
    let seen = unsafe { cell.read() };
    let count = if seen & !GATE_COUNT == mark { (seen & GATE_COUNT) + 1 } else { 1 };
    if count <= GATE_COUNT {
        unsafe { cell.write(mark | count) };
    }
    let is_returning = count > 1;
    let is_admitted = is_returning
        && u32::from(count) >= config.returning_packets
        && maps::take(BUCKET_RETURNING, config.returning_interval_ns, config.returning_burst_ns, now);
    (is_returning, is_admitted)
}

#[inline(always)]
fn take_in(config: &Config, segment: &Segment, key: SourceKey, bytes: u64, now: u64) -> u32 {
    let is_attempt = u64::from(segment.is_attempt());
    let source = Source {
        packets: 1,
        bytes,
        syn: is_attempt,
        fin_rst: u64::from(segment.is_end()),
        dropped: 0,
        first_seen_ns: now,
        last_seen_ns: now,
        syn_bucket_ns: now + is_attempt * config.syn_interval_ns,
    };
    if maps::add_source(key, &source) {
        maps::count(outcome::SOURCES_ADDED);
        return outcome::PASS_TRACKED;
    }
    // Another CPU may have been faster.
    let Some(source) = maps::source(key) else {
        maps::count(outcome::SOURCES_FULL);
        return outcome::PASS_TABLE_FULL;
    };
    // SAFETY: as in `known`.
    unsafe {
        maps::add(&raw mut (*source).packets, 1);
        maps::add(&raw mut (*source).bytes, bytes);
        maps::add(&raw mut (*source).syn, is_attempt);
        maps::add(&raw mut (*source).fin_rst, u64::from(segment.is_end()));
    }
    outcome::PASS_TRACKED
}
