//! The maps, and the few ways this program touches them. Names and capacities are `gateway-common`'s.

use core::intrinsics::{AtomicOrdering, atomic_or, atomic_xadd};

use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::bpf_map_lookup_elem;
use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_coarse_ns};
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, RingBuf};
use gateway_common::maps as layout;
use gateway_common::{BanRow, Config, Counter, Deny, GateRow, Source, SourceKey, SourceRow, outcome};

/// `BPF_F_NO_PREALLOC`: entries come from the slab.
const ON_DEMAND: u32 = 1;
/// `BPF_F_MMAPABLE`: such an array begins on a page, so that rows of 64 bytes are cache lines. Nobody maps it.
const ON_A_PAGE: u32 = 1 << 10;

/// What the time was at the last tick.
#[repr(C)]
struct Clock {
    tick: u64,
    now_ns: u64,
}

#[map]
static CONFIG: Array<Config> = Array::with_max_entries(1, 0);
#[map]
static PORTS: Array<u64> = Array::with_max_entries(layout::PORTS_WORDS, 0);
#[map]
static INTERFACES: HashMap<u32, u32> = HashMap::with_max_entries(layout::INTERFACES_MAX, 0);
#[map]
static BANS: HashMap<SourceKey, Deny> = HashMap::with_max_entries(layout::BANS_MAX, ON_DEMAND);
#[map]
static BANS4: Array<BanRow> = Array::with_max_entries(layout::BANS4_ROWS, ON_A_PAGE);
#[map]
static BITS: Array<u64> = Array::with_max_entries(layout::BITS_WORDS, ON_A_PAGE);
#[map]
static ALLOW4: LpmTrie<[u8; 4], u32> = LpmTrie::with_max_entries(layout::NETS_MAX, 0);
#[map]
static ALLOW6: LpmTrie<[u8; 16], u32> = LpmTrie::with_max_entries(layout::NETS_MAX, 0);
#[map]
static DENY4: LpmTrie<[u8; 4], Deny> = LpmTrie::with_max_entries(layout::NETS_MAX, 0);
#[map]
static DENY6: LpmTrie<[u8; 16], Deny> = LpmTrie::with_max_entries(layout::NETS_MAX, 0);
#[map]
static NET_BITS: Array<u64> = Array::with_max_entries(layout::NET_BITS_WORDS, 0);
#[map]
static SOURCES: HashMap<SourceKey, Source> = HashMap::with_max_entries(layout::SOURCES_MAX, ON_DEMAND);
#[map]
static SOURCES4: Array<SourceRow> = Array::with_max_entries(layout::SOURCES4_ROWS, ON_A_PAGE);
#[map]
static GATE: Array<GateRow> = Array::with_max_entries(layout::GATE_ROWS, ON_A_PAGE);
#[map]
static BUCKETS: PerCpuArray<u64> = PerCpuArray::with_max_entries(layout::BUCKETS_MAX, 0);
#[map]
static STATS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(outcome::COUNTERS, 0);
/// Nobody else's, so it is in no layout.
#[map]
static CLOCK: PerCpuArray<Clock> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(layout::EVENTS_BYTES, 0);

/// `BPF_NOEXIST`: another CPU may have inserted the source meanwhile, and its counts must not be lost.
const ONLY_NEW: u64 = 1;

/// Nanoseconds of `CLOCK_MONOTONIC`, to the scheduler's tick. Within a tick that clock stands still, and the tick's number
/// costs next to nothing, so the clock is read once a tick: 20 ns less a packet.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: takes nothing, returns a number.
    let tick = unsafe { bpf_jiffies64() };
    let Some(clock) = CLOCK.get_ptr_mut(0) else { return 0 };
    // SAFETY: this CPU's own value; XDP programs do not interrupt one another.
    let clock = unsafe { &mut *clock };
    if clock.tick != tick {
        // SAFETY: takes nothing, returns a number.
        *clock = Clock { tick, now_ns: unsafe { bpf_ktime_get_coarse_ns() } };
    }
    clock.now_ns
}

#[inline(always)]
pub(crate) fn config() -> Option<&'static Config> {
    // SAFETY: array values live as long as the map, and the map as long as the program. Userspace writes while this reads;
    // every field stands for itself, so a half-new configuration is merely half new.
    CONFIG.get_ptr(0).map(|config| unsafe { &*config })
}

/// Whether a listener has this port.
#[inline(always)]
pub(crate) fn is_listener(port: u16) -> bool {
    PORTS.get(u32::from(port / 64)).is_some_and(|word| word >> (port % 64) & 1 == 1)
}

#[inline(always)]
pub(crate) fn interface_flags(index: u32) -> u32 {
    // SAFETY: four bytes, read at once.
    INTERFACES.get_ptr(index).map_or(0, |flags| unsafe { *flags })
}

/// Whether the bit is set that leads to `BANS4` and `BANS`.
#[inline(always)]
pub(crate) fn may_be_banned(key: SourceKey) -> bool {
    let (word, mask) = gateway_common::ban_bit(key);
    BITS.get(word).is_some_and(|bits| bits & mask != 0)
}

/// Bit 0: ask the allow list. Bit 1: ask the deny list.
#[inline(always)]
pub(crate) fn net_bits((word, shift): (u32, u32)) -> u64 {
    NET_BITS.get(word).map_or(0, |bits| bits >> shift & 3)
}

#[inline(always)]
pub(crate) fn ban_row(key: SourceKey) -> Option<*mut BanRow> {
    BANS4.get_ptr_mut(gateway_common::ban_row(key))
}

#[inline(always)]
pub(crate) fn ban(key: SourceKey) -> Option<*mut Deny> {
    BANS.get_ptr_mut(key)
}

#[inline(always)]
pub(crate) fn allowed_v4(address: [u8; 4]) -> bool {
    ALLOW4.get(Key::new(32, address)).is_some()
}

#[inline(always)]
pub(crate) fn allowed_v6(address: [u8; 16]) -> bool {
    ALLOW6.get(Key::new(128, address)).is_some()
}

#[inline(always)]
pub(crate) fn denied_v4(address: [u8; 4]) -> Option<*mut Deny> {
    lookup(&raw const DENY4, &Key::new(32, address))
}

#[inline(always)]
pub(crate) fn denied_v6(address: [u8; 16]) -> Option<*mut Deny> {
    lookup(&raw const DENY6, &Key::new(128, address))
}

/// aya gives a trie's values only to read; the drops are counted in them.
#[inline(always)]
fn lookup<K>(map: *const LpmTrie<K, Deny>, key: &Key<K>) -> Option<*mut Deny> {
    // SAFETY: a map of this key type, a whole key, and the kernel checks both at load.
    let value = unsafe { bpf_map_lookup_elem(map.cast_mut().cast(), (&raw const *key).cast::<c_void>()) };
    if value.is_null() { None } else { Some(value.cast()) }
}

/// Whether the bit is set that leads to `SOURCES` and `SOURCES4`.
#[inline(always)]
pub(crate) fn may_be_known(key: SourceKey) -> bool {
    let (word, mask) = gateway_common::source_bit(key);
    BITS.get(word).is_some_and(|bits| bits & mask != 0)
}

#[inline(always)]
pub(crate) fn source_row(key: SourceKey) -> Option<*mut SourceRow> {
    SOURCES4.get_ptr_mut(gateway_common::source_row(key))
}

#[inline(always)]
pub(crate) fn source(key: SourceKey) -> Option<*mut Source> {
    SOURCES.get_ptr_mut(key)
}

/// Whether it was added. If not, the table is full, or it was there, and can from now on be found.
#[inline(always)]
pub(crate) fn add_source(key: SourceKey, source: &Source) -> bool {
    let is_added = SOURCES.insert(key, source, ONLY_NEW).is_ok();
    let (word, mask) = gateway_common::source_bit(key);
    if let Some(bits) = BITS.get_ptr_mut(word) {
        // SAFETY: a map value, aligned to eight bytes.
        unsafe { atomic_or::<u64, u64, { AtomicOrdering::Relaxed }>(bits, mask) };
    }
    is_added
}

#[inline(always)]
pub(crate) fn gate_row(row: u32) -> Option<*mut GateRow> {
    GATE.get_ptr_mut(row)
}

/// Whether a token bucket of this CPU has room for one more (GCRA), which is then taken. An interval of 0 is no limit.
#[inline(always)]
pub(crate) fn take(bucket: u32, interval: u64, burst: u64, now: u64) -> bool {
    if interval == 0 {
        return true;
    }
    // SAFETY: this CPU's own value; XDP programs do not interrupt one another.
    let Some(filled_until) = BUCKETS.get_ptr_mut(bucket).map(|bucket| unsafe { &mut *bucket }) else {
        return true;
    };
    if *filled_until > now + burst {
        return false;
    }
    *filled_until = now.max(*filled_until) + interval;
    true
}

/// Counts a packet under its outcome.
#[inline(always)]
pub(crate) fn count_packet(outcome: u32, bytes: u64, syn: u64) {
    if let Some(counter) = STATS.get_ptr_mut(outcome) {
        // SAFETY: this CPU's own value, as above.
        let counter = unsafe { &mut *counter };
        counter.count += 1;
        counter.bytes += bytes;
        counter.syn += syn;
    }
}

/// Counts something that is no packet.
#[inline(always)]
pub(crate) fn count(what: u32) {
    count_packet(what, 0, 0);
}

/// Adds to a value that other CPUs add to as well.
#[inline(always)]
pub(crate) fn add(counter: *mut u64, amount: u64) {
    // SAFETY: the callers point into map values, which are aligned to eight bytes and outlive the program's run.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, amount) };
}

/// Adds one, and says how many there are now. The ordering is not about order: LLVM turns a relaxed add whose result is
/// used into one that returns what was added.
#[inline(always)]
pub(crate) fn add_one(counter: *mut u64) -> u64 {
    // SAFETY: as above.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(counter, 1) + 1 }
}
