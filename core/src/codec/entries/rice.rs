//! The Golomb-Rice form: the gap between an entry and the previous one is split into a quotient by `2^k`, written in
//! unary, and the `k` low bits.
//!
//! A block has up to 128 entries:
//! ```text
//! k: 5 bits   several: 1 bit
//! for each entry: low k bits of its gap, sign             (fixed width, so that reads do not depend on each other)
//! for each entry: gap >> k zeros, then a one
//! if several, for each entry: its count as an Elias gamma number
//! ```
//! k follows from the block's mean gap m by integer arithmetic: `floor(log2(0.9624 (m + 1/2)))`. That is Kiely's
//! optimum `1 + floor(log2(ln(phi - 1) / ln(1 - p)))` for p = 1 / (m + 1), where phi is the golden ratio (Kiely 2004,
//! "Selecting the Golomb parameter in Rice coding"). So k adapts to the local density, and the reader can check it.
//! Bits fill words from the lowest up.

use super::{BLOCK, Block, COUNT_MAX, Reader};
use crate::codec::BodyError;
use crate::kernel::threshold;

/// Bits of a block's header: k and `several`.
const HEADER_BITS: u32 = 6;

/// The Rice parameter k for a block with this sum of gaps and number of entries. 493 / 1024 is 0.9624 / 2.
fn parameter(gaps: u64, entries: usize) -> u32 {
    let entries = entries as u64;
    (((2 * gaps + entries) * 493) / (1024 * entries)).checked_ilog2().unwrap_or(0)
}

/// Length of an Elias gamma number in bits.
const fn gamma_bits(count: u32) -> u32 {
    2 * count.ilog2() + 1
}

/// The entries of a block before coding.
struct Gaps {
    /// Elements without an entry before each entry.
    gap: [u32; BLOCK],
    /// 1 for negative counts.
    sign: [u32; BLOCK],
    /// Magnitudes of the counts. Read only if an entry of the list has more than one quantum.
    count: [u32; BLOCK],
    len: usize,
}

/// The parameters of a block, and its size.
struct Cost {
    k: u32,
    /// The block has counts above 1, so it writes all counts.
    several: bool,
    bits: u64,
}

impl Gaps {
    #[inline(always)]
    fn cost(&self, several: bool) -> Cost {
        let gap = &self.gap[..self.len];
        let k = parameter(gap.iter().map(|gap| u64::from(*gap)).sum(), self.len);
        let unary: u64 = gap.iter().map(|gap| u64::from(gap >> k)).sum();
        let several = several && self.count[..self.len].iter().any(|count| *count > 1);
        let counts = if several { self.count[..self.len].iter().map(|count| gamma_bits(*count)).sum() } else { 0 };
        let bits = u64::from(HEADER_BITS + counts) + self.len as u64 * u64::from(k + 2) + unary;
        Cost { k, several, bits }
    }
}

/// The size in this form of a block that was read in another form, and whether it has counts above 1. `floor`: the
/// lowest index that the first entry can have.
pub(super) fn cost(floor: u32, block: &Block) -> (u64, bool) {
    let mut gaps = Gaps { gap: [0; BLOCK], sign: [0; BLOCK], count: [1; BLOCK], len: block.len };
    let mut next = floor;
    for (i, entry) in block.entries().enumerate() {
        (gaps.gap[i], gaps.count[i]) = (entry.index - next, entry.count.unsigned_abs());
        next = entry.index + 1;
    }
    let cost = gaps.cost(true);
    (cost.bits, cost.several)
}

/// Writes all entries and returns their size in bits, or `None` if `body` is too short.
#[inline(always)]
pub(super) fn write(entries: &[u32], several: bool, body: &mut [u32]) -> Option<u64> {
    let mut writer = Writer { words: body, at: 0, held: 0, bits: 0 };
    let mut gaps = Gaps { gap: [0; BLOCK], sign: [0; BLOCK], count: [1; BLOCK], len: 0 };
    let mut next = 0;
    if several {
        let mut entries = threshold::read(entries);
        loop {
            gaps.len = 0;
            for entry in entries.by_ref().take(BLOCK) {
                let at = gaps.len;
                (gaps.gap[at], gaps.count[at]) = (entry.index - next, entry.count.unsigned_abs());
                gaps.sign[at] = u32::from(entry.count < 0);
                next = entry.index + 1;
                gaps.len += 1;
            }
            if gaps.len == 0 {
                break;
            }
            writer.block(&gaps, true)?;
        }
    } else {
        for block in entries.chunks(BLOCK) {
            gaps.len = block.len();
            for ((gap, sign), word) in gaps.gap.iter_mut().zip(&mut gaps.sign).zip(block) {
                let index = word & !threshold::NEGATIVE;
                (*gap, *sign) = (index - next, word >> 31);
                next = index + 1;
            }
            writer.block(&gaps, false)?;
        }
    }
    let bits = writer.total();
    writer.flush();
    Some(bits)
}

/// Writes bits into words, from the lowest up.
struct Writer<'a> {
    words: &'a mut [u32],
    /// Number of full words.
    at: usize,
    /// Bits that do not fill a word yet.
    held: u64,
    /// Number of bits in `held`, below 32 between calls of [`put`](Self::put).
    bits: u32,
}

impl Writer<'_> {
    /// Number of bits written.
    fn total(&self) -> u64 {
        self.at as u64 * 32 + u64::from(self.bits)
    }

    /// Appends the low `bits` bits of `value`, at most 32. The other bits of `value` must be 0.
    #[inline(always)]
    fn put(&mut self, value: u64, bits: u32) {
        self.held |= value << self.bits;
        self.bits += bits;
        // Store the word even if it is not full, because a branch here would be unpredictable.
        self.words[self.at] = self.held as u32;
        let full = self.bits >> 5;
        self.at += full as usize;
        self.held >>= full << 5;
        self.bits &= 31;
    }

    fn flush(&mut self) {
        if self.bits > 0 {
            self.words[self.at] = self.held as u32;
        }
    }

    /// Appends `zeros` zeros and a one.
    #[inline(always)]
    fn unary(&mut self, zeros: u32) {
        let mut zeros = zeros;
        while zeros > 31 {
            self.put(0, 31);
            zeros -= 31;
        }
        self.put(1 << zeros, zeros + 1);
    }

    /// Appends a block. `None`: `words` is too short, and nothing is written.
    #[inline(always)]
    fn block(&mut self, gaps: &Gaps, several: bool) -> Option<()> {
        let Cost { k, several, bits } = gaps.cost(several);
        // `put` also stores the word after the last full one, so that must exist.
        if (self.total() + bits) / 32 >= self.words.len() as u64 {
            return None;
        }
        self.put(u64::from(k) | u64::from(several) << 5, HEADER_BITS);
        let low = (1 << k) - 1;
        let (gap, sign) = (&gaps.gap[..gaps.len], &gaps.sign[..gaps.len]);
        let field = |i: usize| u64::from(gap[i] & low | sign[i] << k);
        let width = k + 1;
        // Put several fields at once while they fit 32 bits: `put` is a chain of dependent operations.
        let mut i = 0;
        if width <= 8 {
            while i + 4 <= gap.len() {
                let four = field(i) | field(i + 1) << width | field(i + 2) << (2 * width) | field(i + 3) << (3 * width);
                self.put(four, 4 * width);
                i += 4;
            }
        } else if width <= 16 {
            while i + 2 <= gap.len() {
                self.put(field(i) | field(i + 1) << width, 2 * width);
                i += 2;
            }
        }
        while i < gap.len() {
            self.put(field(i), width);
            i += 1;
        }
        // Unary numbers in pairs, for the same reason.
        let (pairs, last) = gap.as_chunks::<2>();
        for [one, other] in pairs {
            let (one, other) = (one >> k, other >> k);
            if one + other <= 30 {
                self.put(1 << one | 1 << (one + other + 1), one + other + 2);
            } else {
                self.unary(one);
                self.unary(other);
            }
        }
        for gap in last {
            self.unary(gap >> k);
        }
        if several {
            for count in &gaps.count[..gaps.len] {
                let bits = count.ilog2();
                self.unary(bits);
                self.put(u64::from(count - (1 << bits)), bits);
            }
        }
        Some(())
    }
}

impl Reader<'_> {
    /// At least 32 bits from bit `at` on, with zeros after the end of the list.
    #[inline]
    fn peek(&self, at: usize) -> u64 {
        let word = |i: usize| self.words.get(i).copied().unwrap_or(0);
        (u64::from(word(at / 32)) | u64::from(word(at / 32 + 1)) << 32) >> (at % 32)
    }

    /// Reads a unary number at bit `at`: the number of zeros, and the position after the one that ends it.
    fn unary(&self, at: usize) -> Result<(u32, usize), BodyError> {
        let mut word = at / 32;
        let mut bits = self.words.get(word).copied().unwrap_or(0) & (u32::MAX << (at % 32));
        while bits == 0 {
            word += 1;
            bits = *self.words.get(word).ok_or_else(|| self.truncated())?;
        }
        let one = word * 32 + bits.trailing_zeros() as usize;
        Ok(((one - at) as u32, one + 1))
    }

    const fn truncated(&self) -> BodyError {
        BodyError::Truncated { bits: (self.words.len() * 32) as u64 }
    }

    /// Reads a block of `count` entries. `at` counts bits.
    #[inline(always)]
    pub(super) fn read_rice(&mut self, count: usize) -> Result<(), BodyError> {
        let words = self.words;
        let end = words.len() * 32;
        let header = self.peek(self.at) as u32;
        let (k, several, width) = (header & 31, header & 32 != 0, (header & 31) as usize + 1);
        let fields = self.at + HEADER_BITS as usize;
        let mut at = fields + count * width;
        if at + count > end {
            return Err(self.truncated());
        }
        let (index, counts) = (&mut self.block.index[..count], &mut self.block.count[..count]);
        // Low bits and signs: the fields have a fixed width, so the iterations are independent.
        let low = (1u32 << k) - 1;
        let mut bit = fields;
        for (index, count) in index.iter_mut().zip(counts) {
            let second = words.get(bit / 32 + 1).copied().unwrap_or(0);
            let field = ((u64::from(words[bit / 32]) | u64::from(second) << 32) >> (bit % 32)) as u32;
            *index = field & low;
            *count = 1 - 2 * (field >> k & 1) as i32;
            bit += width;
        }
        // Unary quotients: find the ones in 64 bits at a time, instead of reading bit by bit.
        let pair = |word: usize| {
            let second = words.get(word + 1).copied().unwrap_or(0);
            words.get(word).map(|first| u64::from(*first) | u64::from(second) << 32)
        };
        let mut word = at / 32;
        let mut ones = pair(word).unwrap_or(0) & (u64::MAX << (at % 32));
        let cap = (self.len as u32) >> k;
        let mut next = u64::from(self.next);
        for index in index {
            while ones == 0 {
                word += 2;
                ones = pair(word).ok_or(BodyError::Truncated { bits: end as u64 })?;
            }
            let one = word * 32 + ones.trailing_zeros() as usize;
            ones &= ones - 1;
            let quotient = (one - at) as u32;
            at = one + 1;
            // Before the shift, which could overflow.
            if quotient > cap {
                return Err(BodyError::Run { limit: cap, got: quotient });
            }
            next += u64::from(quotient << k | *index);
            if next >= self.len as u64 {
                let got = u32::try_from(next).unwrap_or(u32::MAX);
                return Err(BodyError::Index { limit: self.len as u32, got });
            }
            // The low bits become the index in place.
            *index = next as u32;
            next += 1;
        }
        let gaps = next - u64::from(self.next) - count as u64;
        self.block.len = count;
        // Another k would be a second encoding of the same block.
        let expected = parameter(gaps, count);
        if k != expected {
            return Err(BodyError::Parameter { expected, got: k });
        }
        if several {
            at = self.read_counts(at, count)?;
        }
        self.sizes.several |= several;
        self.sizes.rice_bits += (at - self.at) as u64;
        self.at = at;
        Ok(())
    }

    /// Reads the Elias gamma counts of a block from bit `at` on. Returns the position after them.
    fn read_counts(&mut self, mut at: usize, entries: usize) -> Result<usize, BodyError> {
        let mut any = false;
        for i in 0..entries {
            let (bits, after) = self.unary(at)?;
            let limit = COUNT_MAX.ilog2();
            let index = self.block.index[i];
            if bits > limit || after + bits as usize > self.words.len() * 32 {
                return Err(BodyError::Count { limit: COUNT_MAX as u32, index });
            }
            let count = 1 << bits | (self.peek(after) as u32 & ((1 << bits) - 1)) as i32;
            any |= count > 1;
            self.block.count[i] *= count;
            at = after + bits as usize;
        }
        if any { Ok(at) } else { Err(BodyError::Single { first: self.block.index[0] }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kiely's closed form, for p from 0.5 to 5e-6. Integer arithmetic may differ where the logarithm is near an
    /// integer.
    #[test]
    fn the_parameter_is_kielys_optimum_for_random_positions() {
        let golden = (1.0 + 5f64.sqrt()) / 2.0;
        let mut off = 0;
        for i in 1..2000 {
            let p = 0.5 * 10f64.powf(-f64::from(i) / 400.0);
            let exact = (1.0 + ((golden - 1.0).ln() / (1.0 - p).ln()).log2().floor()).max(0.0) as u32;
            let gaps = ((1.0 - p) / p * 1e6) as u64;
            off += u32::from(parameter(gaps, 1_000_000) != exact);
        }
        assert!(off <= 10, "{off}");
    }
}
