//! Which bit or cell belongs to an address. Both sides must agree, so both take it from here.

use crate::SourceKey;
use crate::maps::{BANS4_ROWS, BITS_WORDS, GATE_ROWS, NET_BITS_WORDS, SOURCES4_ROWS};
use crate::value::GATE_COUNT;

/// Fibonacci hashing: one multiplication, of which the high bits are good.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// `NET_BITS` keeps two bits, allow and deny, for each of 2¹⁶ groups of a family.
const GROUPS_PER_WORD: u32 = 32;

const _: () = assert!(NET_BITS_WORDS * GROUPS_PER_WORD == 2 * 65_536);
const _: () = assert!(BITS_WORDS == 1 << 15 && GATE_ROWS == 1 << 15);
const _: () = assert!(BANS4_ROWS == 1 << 17 && SOURCES4_ROWS == BANS4_ROWS);

/// Word of `BITS` that says whether the source may be banned, an even one, and the bit in it as a mask.
#[inline(always)]
pub const fn ban_bit(key: SourceKey) -> (u32, u64) {
    let hash = key.word().wrapping_mul(GOLDEN);
    ((hash >> 50) as u32 * 2, 1 << ((hash >> 44) & 63))
}

/// Row of `BANS4`. Rows and bits go together: the eight bits of row `n` begin at bit `8 n` of the even words of `BITS`.
#[inline(always)]
pub const fn ban_row(key: SourceKey) -> u32 {
    (key.word().wrapping_mul(GOLDEN) >> 47) as u32
}

/// Row of `SOURCES4`, which has as many.
#[inline(always)]
pub const fn source_row(key: SourceKey) -> u32 {
    ban_row(key)
}

/// Word of `BITS` that says whether the source may be known, the odd one behind its [`ban_bit`]'s, and the bit in it as a
/// mask: both questions cost one line of memory.
#[inline(always)]
pub const fn source_bit(key: SourceKey) -> (u32, u64) {
    let (word, mask) = ban_bit(key);
    (word + 1, mask)
}

/// Row of `GATE`, cell in the row, and the 14 bits by which the cell remembers a source, clear of those that count. The seed
/// keeps a stranger from choosing whom to displace.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the low bits are the ones wanted")]
pub const fn gate_cell(key: SourceKey, seed: u64) -> (u32, usize, u16) {
    let hash = (key.word() ^ seed).wrapping_mul(GOLDEN);
    let hash = (hash ^ (hash >> 32)).wrapping_mul(GOLDEN);
    ((hash >> 49) as u32, (hash >> 44) as usize & 31, (hash >> 28) as u16 & !GATE_COUNT)
}

/// Word of `NET_BITS` for an IPv4 address, and how far to shift it right: bit 0 is then "allow", bit 1 "deny". A network of
/// /16 or longer has one group, a shorter one `2^(16 - length)` groups in a row.
#[inline(always)]
pub const fn net_bits_v4([a, b, ..]: [u8; 4]) -> (u32, u32) {
    let group = u16::from_be_bytes([a, b]) as u32;
    (group / GROUPS_PER_WORD, group % GROUPS_PER_WORD * 2)
}

/// The same for IPv6, where most addresses share their first 16 bits: the group is a hash of the first 32. A network
/// shorter than /32 has the groups of all the /32s in it.
#[inline(always)]
pub const fn net_bits_v6([a, b, c, d, ..]: [u8; 16]) -> (u32, u32) {
    let group = ((u32::from_be_bytes([a, b, c, d]) as u64).wrapping_mul(GOLDEN) >> 48) as u32;
    (NET_BITS_WORDS / 2 + group / GROUPS_PER_WORD, group % GROUPS_PER_WORD * 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_stay_within_their_maps() {
        for number in (0..u64::MAX).step_by(0x0003_1415_9265_3589) {
            let key = SourceKey(number.to_be_bytes());
            let (word, mask) = ban_bit(key);
            assert!(word < BITS_WORDS && word % 2 == 0 && mask.is_power_of_two());
            assert_eq!(source_bit(key), (word + 1, mask));
            assert_eq!(ban_row(key), word / 2 * 8 + mask.trailing_zeros() / 8);
            let (row, cell, mark) = gate_cell(key, 7);
            assert!(row < GATE_ROWS && cell < 32 && mark & GATE_COUNT == 0);
            let mut address = [0; 16];
            address[..8].copy_from_slice(&number.to_be_bytes());
            let (word, shift) = net_bits_v6(address);
            assert!((NET_BITS_WORDS / 2..NET_BITS_WORDS).contains(&word) && shift < 64);
        }
        assert_eq!(net_bits_v4([255; 4]), (NET_BITS_WORDS / 2 - 1, 62));
        assert_eq!(net_bits_v4([0, 1, 2, 3]), (0, 2));
    }
}
