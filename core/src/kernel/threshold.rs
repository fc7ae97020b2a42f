//! Threshold quantisation with a residual (Strom 2015, section 2): elements that have reached the threshold are emitted
//! as quanta of ±tau, the rest stays in the residual. For the gpu crate, benches and fuzzing; no stable API.
//!
//! ```text
//! for each i:  acc = residual[i] + update[i]
//!              if acc is not finite:    residual[i] stays, the element is left out and counted
//!              elif |acc| >= threshold: q = min(trunc(|acc| / tau), QUANTA_MAX), emitted with acc's sign
//!                                       residual[i] = acc - sign(acc) q tau
//!              else:                    residual[i] = acc
//! ```
//! tau is a power of two and at most the threshold, so `acc - q tau` is exact wherever ulp(acc) <= tau. Then emitted
//! quanta plus residual equal `fl(residual + update)`, bit for bit, and the quanta can be [put back](put_back). With a
//! threshold above tau, an element is sent less often and with the same resolution.
//!
//! One pass over memory reads update and residual, writes the residual, finds elements that are not finite, and sums
//! the squares of the residual. Every tier sums in sixteen lanes and folds these in order once per block, so that the
//! sum does not depend on the tier.
//!
//! Entries are a list of words: a word with the sign in its top bit and the index below, and after it, if the element
//! has more than one quantum, a word with [`MORE`] and the number of further quanta.

#[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
mod avx2;
#[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
mod avx512;
mod portable;

use super::tier::Tier;

/// Limit of the quanta that an element emits in one pass. The excess stays in the residual.
pub const QUANTA_MAX: u32 = (1 << 15) - 1;

/// Limit of the length of a vector: indices have 30 bits.
pub const LEN_MAX: usize = (1 << 30) - 1;

/// Bit of an entry's first word: its quanta are negative.
pub const NEGATIVE: u32 = 1 << 31;

/// Bit of an entry's second word, which only entries of more than one quantum have. The low bits are the number of
/// further quanta.
pub const MORE: u32 = 1 << 30;

/// Elements that a vector loop handles at once, and partial sums of squares.
const LANES: usize = 16;

/// Elements after which the lanes are folded into the sum.
const BLOCK: usize = 4096;

/// The result of one pass.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub struct PassResult {
    /// Words of `entries` written.
    pub words: usize,
    /// Elements that emitted quanta.
    pub entries: u32,
    /// Sum of squares of the residual after the pass.
    pub squares: f64,
    /// Elements left out because `residual + update` was not finite.
    pub non_finite: u32,
    /// Index of the first element that was left out.
    pub first_non_finite: Option<u32>,
}

/// Threshold and quantum of a pass.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Quantum {
    /// Smallest magnitude at which an element emits quanta. At least tau.
    pub threshold: f32,
    /// The quantum: a power of two.
    pub tau: f32,
}

impl Quantum {
    /// A threshold equal to the quantum.
    ///
    /// # Panics
    /// If tau is not a positive, normal power of two.
    pub const fn of(tau: f32) -> Self {
        Self::with_threshold(tau, tau)
    }

    /// A threshold and a quantum.
    ///
    /// # Panics
    /// If tau is not a positive, normal power of two, or the threshold is below it.
    pub const fn with_threshold(threshold: f32, tau: f32) -> Self {
        assert!(is_power_of_two(tau) && threshold >= tau);
        Self { threshold, tau }
    }
}

impl Quantum {
    /// A threshold, with the largest power of two that is not above it as quantum.
    ///
    /// # Panics
    /// If the threshold is not a positive, normal float.
    pub const fn below(threshold: f32) -> Self {
        Self::with_threshold(threshold, f32::from_bits(threshold.to_bits() & 0x7f80_0000))
    }
}

/// True for a positive, normal power of two.
pub const fn is_power_of_two(x: f32) -> bool {
    x.is_normal() && x.to_bits() & 0x807f_ffff == 0
}

/// The state of a pass, common to all tiers.
struct Pass<'a> {
    quantum: Quantum,
    /// 1 / tau, which is exact.
    per_tau: f32,
    entries: &'a mut [u32],
    /// Index of the block's first element in the vector.
    first: u32,
    taken: PassResult,
    /// Sums of squares of the block so far.
    lanes: [f32; LANES],
    /// Words that the previous block has written to `entries`.
    #[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
    block_words: usize,
}

/// Takes quanta out of `residual + update`, or out of the residual alone, and writes them to `entries`.
///
/// One pass over memory: 12 bytes per element, and the entries.
///
/// # Panics
/// If the lengths differ or exceed [`LEN_MAX`], or `entries` has fewer than two words per element.
pub fn take(
    tier: Tier,
    update: Option<&[f32]>,
    residual: &mut [f32],
    quantum: Quantum,
    entries: &mut [u32],
) -> PassResult {
    // A pass without an update adds zeros, so that each tier has one loop and not two. The zeros stay in the cache.
    static NOTHING: [f32; BLOCK] = [0.0; BLOCK];
    assert!(update.is_none_or(|update| update.len() == residual.len()));
    // Two words per element is the worst case, so the loops need no bounds check per entry.
    assert!(residual.len() <= LEN_MAX && entries.len() >= 2 * residual.len());
    let per_tau = 1.0 / quantum.tau;
    let (taken, lanes) = (PassResult::default(), [0.0; LANES]);
    let mut pass = Pass {
        quantum,
        per_tau,
        entries,
        first: 0,
        taken,
        lanes,
        #[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
        block_words: 0,
    };
    for (block, residual) in residual.chunks_mut(BLOCK).enumerate() {
        let first = block * BLOCK;
        let update = update.map_or(&NOTHING[..residual.len()], |update| &update[first..first + residual.len()]);
        pass.first = first as u32;
        match tier {
            Tier::Portable => pass.portable(update, residual),
            #[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
            Tier::Avx2(simd) => pass.avx2(simd, update, residual),
            #[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
            Tier::Avx512(simd) => pass.avx512(simd, update, residual),
        }
        pass.fold();
    }
    pass.taken
}

impl Pass<'_> {
    /// Handles an element whose sum `acc` has reached the threshold or is not finite. `old` is its residual before the
    /// pass. Returns its new residual.
    #[inline]
    fn emit(&mut self, index: u32, acc: f32, old: f32) -> f32 {
        if !acc.is_finite() {
            self.taken.non_finite += 1;
            self.taken.first_non_finite.get_or_insert(index);
            return old;
        }
        // Multiplying by a power of two is exact, and the cast truncates and saturates.
        let count = ((acc.abs() * self.per_tau) as u32).min(QUANTA_MAX);
        self.taken.words += write(&mut self.entries[self.taken.words..], acc.to_bits() & NEGATIVE | index, count);
        self.taken.entries += 1;
        acc - (count as f32 * self.quantum.tau).copysign(acc)
    }

    /// Handles the up to [`LANES`] elements after the last whole vector. Not inlined: it would take registers from the
    /// vector loop.
    #[inline(never)]
    fn one_by_one(&mut self, at: usize, update: &[f32], residual: &mut [f32]) {
        for (lane, (update, residual)) in update.iter().zip(residual).enumerate() {
            let acc = *residual + update;
            // NaN compares as false, so it needs a test of its own.
            let reached = acc.abs() >= self.quantum.threshold || !acc.is_finite();
            *residual = if reached { self.emit(self.first + (at + lane) as u32, acc, *residual) } else { acc };
            self.lanes[lane] += *residual * *residual;
        }
    }

    /// Adds the lanes to the sum of squares, in order, and clears them.
    fn fold(&mut self) {
        for lane in &mut self.lanes {
            self.taken.squares += f64::from(core::mem::take(lane));
        }
    }
}

/// Puts emitted quanta back, so that `residual` becomes the sum of the old residual and the update.
///
/// # Panics
/// If the index of an entry is outside of `residual`.
pub fn put_back(residual: &mut [f32], tau: f32, entries: &[u32]) {
    for entry in read(entries) {
        // Exact, because taking the quanta was exact: see the module documentation.
        residual[entry.index as usize] += entry.count as f32 * tau;
    }
}

/// The quanta of one element.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Index of the element.
    pub index: u32,
    /// Number of quanta with their sign: -[`QUANTA_MAX`] to [`QUANTA_MAX`], never 0.
    pub count: i32,
}

/// Writes an entry from its first word and its number of quanta. Returns the number of words written.
fn write(words: &mut [u32], word: u32, count: u32) -> usize {
    // Most entries are a single quantum and take one word.
    words[0] = word;
    if count > 1 {
        words[1] = MORE | (count - 1);
    }
    1 + usize::from(count > 1)
}

impl Entry {
    /// Writes the entry in the format of [`take`]. Returns the number of words written.
    ///
    /// # Panics
    /// If `words` is too short.
    pub fn write(self, words: &mut [u32]) -> usize {
        write(words, self.count as u32 & NEGATIVE | self.index, self.count.unsigned_abs())
    }
}

/// Iterates over entries in the format of [`take`].
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
