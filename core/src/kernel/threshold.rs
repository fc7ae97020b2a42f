//! Threshold quantisation with residual (Strom 2015, section 2): what has reached the threshold leaves as quanta,
//! the rest stays.
//!
//! ```text
//! for each i:  acc = residual[i] + update[i]
//!              if acc is not finite:    residual[i] stays, the element is refused
//!              elif |acc| >= threshold: q = min(trunc(|acc| / tau), QUANTA_MAX), emitted with acc's sign
//!                                       residual[i] = acc - sign(acc) q tau
//!              else:                    residual[i] = acc
//! ```
//! tau is a power of two and at most the threshold, so that `acc - q tau` is exact wherever ulp(acc) <= tau: what
//! is sent plus what is left equals `fl(residual + update)`, bit for bit, and can be [put back](put_back). A
//! threshold above tau sends less often without making what is sent coarser.
//!
//! One pass reads the update and the residual, writes the residual, looks for what is not finite and adds up the
//! residual's squares. Sixteen lanes are added up apart and folded in order once per block, in every tier, so that
//! the sum does not depend on the tier.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use super::tier::Tier;

/// Most quanta that one element can emit at once; what is above stays in the residual.
pub const QUANTA_MAX: u32 = (1 << 15) - 1;

/// Longest vector: indices take 30 bits.
pub const LEN_MAX: usize = (1 << 30) - 1;

/// Set in an entry of negative quanta.
pub const NEGATIVE: u32 = 1 << 31;

/// Set in the word after an entry that stands for more than one quantum; the rest of the word is how many more.
pub const MORE: u32 = 1 << 30;

const LANES: usize = 16;

/// Elements after which the lanes are folded into the sum.
const BLOCK: usize = 4096;

/// What one pass did.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub struct PassResult {
    /// Words of `entries` written.
    pub words: usize,
    /// Elements that emitted something.
    pub entries: u32,
    /// Sum of squares of the residual.
    pub squares: f64,
    /// Elements left out because `residual + update` was not finite.
    pub non_finite: u32,
    /// The first of them.
    pub first_non_finite: Option<u32>,
}

/// What a pass compares with and takes away.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Quantum {
    /// From which magnitude on an element emits. At least tau.
    pub threshold: f32,
    /// The quantum, a power of two.
    pub tau: f32,
}

impl Quantum {
    /// Threshold and quantum the same.
    ///
    /// # Panics
    /// When tau is not a positive, normal power of two.
    pub const fn of(tau: f32) -> Self {
        Self::with_threshold(tau, tau)
    }

    /// # Panics
    /// When tau is not a positive, normal power of two, or the threshold is below it.
    pub const fn with_threshold(threshold: f32, tau: f32) -> Self {
        assert!(is_power_of_two(tau) && threshold >= tau);
        Self { threshold, tau }
    }
}

impl Quantum {
    /// The largest power of two up to the threshold as quantum.
    ///
    /// # Panics
    /// When there is none that is normal.
    pub const fn below(threshold: f32) -> Self {
        Self::with_threshold(threshold, f32::from_bits(threshold.to_bits() & 0x7f80_0000))
    }
}

/// Is this a positive, normal power of two?
pub const fn is_power_of_two(x: f32) -> bool {
    x.is_normal() && x.to_bits() & 0x807f_ffff == 0
}

/// The state of a pass, the same in every tier.
struct Pass<'a> {
    quantum: Quantum,
    per_tau: f32,
    entries: &'a mut [u32],
    /// Index of the block's first element.
    first: u32,
    taken: PassResult,
    lanes: [f32; LANES],
    /// Words that the last block took.
    block_words: usize,
}

/// Takes quanta out of `residual + update`, or out of the residual alone, and writes them to `entries`: a word with
/// the sign and the index, after it a word with [`MORE`] if there is more than one quantum.
///
/// One pass over memory: 12 bytes per element and what is emitted.
///
/// # Panics
/// When the lengths differ or exceed [`LEN_MAX`], or there are fewer than two words per element.
pub fn take(
    tier: Tier,
    update: Option<&[f32]>,
    residual: &mut [f32],
    quantum: Quantum,
    entries: &mut [u32],
) -> PassResult {
    static NOTHING: [f32; BLOCK] = [0.0; BLOCK];
    assert!(update.is_none_or(|update| update.len() == residual.len()));
    assert!(residual.len() <= LEN_MAX && entries.len() >= 2 * residual.len());
    let per_tau = 1.0 / quantum.tau;
    let (taken, lanes) = (PassResult::default(), [0.0; LANES]);
    let mut pass = Pass { quantum, per_tau, entries, first: 0, taken, lanes, block_words: 0 };
    for (block, residual) in residual.chunks_mut(BLOCK).enumerate() {
        let first = block * BLOCK;
        let update = update.map_or(&NOTHING[..residual.len()], |update| &update[first..first + residual.len()]);
        pass.first = first as u32;
        match tier {
            Tier::Portable => pass.portable(update, residual),
            #[cfg(target_arch = "x86_64")]
            Tier::Avx2(simd) => pass.avx2(simd, update, residual),
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512(simd) => pass.avx512(simd, update, residual),
        }
        pass.fold();
    }
    pass.taken
}

impl Pass<'_> {
    /// What becomes of an element whose sum has reached the threshold, or is not finite; `old` is its residual.
    #[inline]
    fn emit(&mut self, index: u32, acc: f32, old: f32) -> f32 {
        if !acc.is_finite() {
            self.taken.non_finite += 1;
            self.taken.first_non_finite.get_or_insert(index);
            return old;
        }
        let count = ((acc.abs() * self.per_tau) as u32).min(QUANTA_MAX);
        self.taken.words += write(&mut self.entries[self.taken.words..], acc.to_bits() & NEGATIVE | index, count);
        self.taken.entries += 1;
        acc - (count as f32 * self.quantum.tau).copysign(acc)
    }

    /// [`emit`](Self::emit) for those elements of a vector whose bits are set.
    #[inline(never)]
    fn emit_all(&mut self, at: usize, mut acc: [f32; LANES], old: &[f32; LANES], mut mask: u16) -> [f32; LANES] {
        while mask != 0 {
            let lane = mask.trailing_zeros() as usize;
            acc[lane] = self.emit(self.first + (at + lane) as u32, acc[lane], old[lane]);
            mask &= mask - 1;
        }
        acc
    }

    /// Up to [`LANES`] elements one by one. Apart from the loops over whole vectors, which it would spoil.
    #[inline(never)]
    fn one_by_one(&mut self, at: usize, update: &[f32], residual: &mut [f32]) {
        for (lane, (update, residual)) in update.iter().zip(residual).enumerate() {
            let acc = *residual + update;
            let reached = acc.abs() >= self.quantum.threshold || !acc.is_finite();
            *residual = if reached { self.emit(self.first + (at + lane) as u32, acc, *residual) } else { acc };
            self.lanes[lane] += *residual * *residual;
        }
    }

    fn fold(&mut self) {
        for lane in &mut self.lanes {
            self.taken.squares += f64::from(core::mem::take(lane));
        }
    }
}

/// Undoes what a pass emitted: `residual` is then what it was after the update had been added.
///
/// # Panics
/// When an entry lies outside `residual`.
pub fn put_back(residual: &mut [f32], tau: f32, entries: &[u32]) {
    for entry in read(entries) {
        residual[entry.index as usize] += entry.count as f32 * tau;
    }
}

/// Quanta of one element.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which element.
    pub index: u32,
    /// How many quanta, negative ones below 0. Never 0.
    pub count: i32,
}

/// Writes an entry: its sign and index, and how many quanta it stands for. Returns the words that it takes.
fn write(words: &mut [u32], word: u32, count: u32) -> usize {
    words[0] = word;
    if count > 1 {
        words[1] = MORE | (count - 1);
    }
    1 + usize::from(count > 1)
}

impl Entry {
    /// Writes it as [`take`] does. Returns the words that it takes.
    ///
    /// # Panics
    /// When `words` is too short for it.
    pub fn write(self, words: &mut [u32]) -> usize {
        write(words, self.count as u32 & NEGATIVE | self.index, self.count.unsigned_abs())
    }
}

/// The entries that a pass wrote.
pub fn read(words: &[u32]) -> impl Iterator<Item = Entry> {
    let mut words = words.iter().copied().peekable();
    core::iter::from_fn(move || {
        let word = words.next()?;
        let more = words.next_if(|word| word & MORE != 0).map_or(0, |word| word & QUANTA_MAX);
        let count = (more + 1) as i32;
        Some(Entry { index: word & !(NEGATIVE | MORE), count: if word & NEGATIVE == 0 { count } else { -count } })
    })
}

#[cfg(test)]
mod tests;
