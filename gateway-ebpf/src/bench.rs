//! What the bench drives the program with: the same packet again and again, each time from another source. The kernel's
//! test run repeats one packet only, so the source is changed here, and the program under test is called in place of the
//! return. What the change itself costs, the same call to `empty` shows.

#![no_std]
#![no_main]

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS};
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, ProgramArray};
use aya_ebpf::programs::XdpContext;

/// Where an IPv4 header's checksum begins in an untagged frame; the source follows it.
const CHECKSUM: usize = 14 + 10;

/// Which sources.
#[repr(C)]
#[derive(Clone, Copy)]
struct Sources {
    /// The state of the random numbers.
    random: u64,
    /// The bits of an address that vary.
    mask: u32,
    /// The other bits.
    base: u32,
}

#[map]
static SOURCES: Array<Sources> = Array::with_max_entries(1, 0);
#[map]
static NEXT: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Passes.
#[xdp]
fn empty(_: XdpContext) -> u32 {
    XDP_PASS
}

/// Drops.
#[xdp]
fn drop(_: XdpContext) -> u32 {
    XDP_DROP
}

/// Gives the packet another source, and calls the program in `NEXT`.
#[xdp]
fn vary(ctx: XdpContext) -> u32 {
    if another_source(&ctx).is_none() {
        return XDP_ABORTED;
    }
    // SAFETY: an XDP program under test, or none; then this returns.
    unsafe { NEXT.tail_call(&ctx, 0) };
    XDP_ABORTED
}

#[inline(always)]
fn another_source(ctx: &XdpContext) -> Option<()> {
    let checksum = ctx.data() + CHECKSUM;
    if checksum + 6 > ctx.data_end() {
        return None;
    }
    // SAFETY: one bench at a time.
    let sources = unsafe { &mut *SOURCES.get_ptr_mut(0)? };
    // xorshift64: a period beyond any bench.
    let mut random = sources.random;
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    sources.random = random;
    let address = sources.base | (random >> 32) as u32 & sources.mask;
    let (checksum, source) = (checksum as *mut u16, (checksum + 2) as *mut u32);
    // SAFETY: checked to lie within the frame.
    unsafe {
        let old = u32::from_be(source.read_unaligned());
        // RFC 1624: the sum of what is there now, less what was there before.
        let mut sum = u32::from(!u16::from_be(checksum.read_unaligned()));
        sum += (!old >> 16) + (!old & 0xffff) + (address >> 16) + (address & 0xffff);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        checksum.write_unaligned((!(sum as u16)).to_be());
        source.write_unaligned(address.to_be());
    }
    Some(())
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
