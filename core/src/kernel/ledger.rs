//! Ledgers of a mesh: a count of quanta per parameter, and the replica that the counts describe.
//!
//! A count has 64 bits. A message adds fewer than 2^31 units to an element, so no run reaches the end of a count. Most
//! runs do not even leave 32 bits, where one unit is 2^-8 of the threshold. So a ledger keeps the low words apart:
//!
//! | words | content |
//! |---|---|
//! | `len` | the counts modulo 2^32, as signed integers |
//! | 1 | the number of counts that exceed 32 bits |
//! | `len` | the part above 32 bits, in units of 2^32 |
//!
//! While the second part is 0, the third one is 0 everywhere, and is not read: it costs address space only.

use super::tier::Tier;

/// Limit of the counts of a ledger whose words are sent as one body.
pub const LEN_MAX: usize = (1 << 29) - 1;

/// Words of a ledger with `len` counts.
pub const fn words(len: usize) -> usize {
    2 * len + 1
}

/// Counts of a ledger of so many words.
pub const fn len(words: usize) -> usize {
    words / 2
}

/// A ledger, for adding quanta.
#[derive(Debug)]
pub struct Ledger<'a> {
    low: &'a mut [i32],
    /// Counts that exceed 32 bits.
    carried: &'a mut i32,
    high: &'a mut [i32],
}

impl<'a> Ledger<'a> {
    /// The ledger in these words.
    ///
    /// # Panics
    /// If the number of words is even.
    pub fn of(words: &'a mut [i32]) -> Self {
        let len = len(words.len());
        let (low, rest) = words.split_at_mut(len);
        let [carried, high @ ..] = rest else { unreachable!("a ledger has an odd number of words") };
        assert_eq!(high.len(), len);
        Self { low, carried, high }
    }

    /// The low words.
    pub fn low(&self) -> &[i32] {
        self.low
    }

    /// Adds units to a count. Returns false, and changes nothing, if the count would exceed 64 bits.
    ///
    /// # Panics
    /// If there is no such count.
    #[inline(always)]
    pub fn add(&mut self, index: usize, units: i32) -> bool {
        let (sum, carries) = self.low[index].overflowing_add(units);
        if carries && !self.carry(index, units) {
            return false;
        }
        self.low[index] = sum;
        true
    }

    /// The low word has wrapped. Not inlined: this is rare, and [`add`](Self::add) is in the decoder's loop.
    #[cold]
    #[inline(never)]
    fn carry(&mut self, index: usize, units: i32) -> bool {
        let high = self.high[index];
        let Some(next) = high.checked_add(units.signum()) else { return false };
        self.high[index] = next;
        *self.carried += i32::from(next != 0) - i32::from(high != 0);
        true
    }
}

/// The largest magnitude of a count.
pub fn largest(words: &[i32]) -> u64 {
    let len = len(words.len());
    let of = |(low, high): (&i32, &i32)| count(*low, *high).unsigned_abs();
    if words[len] == 0 {
        return words[..len].iter().map(|low| u64::from(low.unsigned_abs())).max().unwrap_or(0);
    }
    words[..len].iter().zip(&words[len + 1..]).map(of).max().unwrap_or(0)
}

fn count(low: i32, high: i32) -> i64 {
    // Cannot overflow: the shifted word ends in 32 zeros, and `low` is above -2^32.
    (i64::from(high) << 32).wrapping_add(i64::from(low))
}

/// `into[i] = base[i] - unit * count[i]`
///
/// A function of the counts alone: replicas with equal ledgers are equal bit for bit, for any order of the messages. A
/// count is rounded to a float, which is exact up to a magnitude of 2^24. The product with the unit, a power of two, is
/// exact.
///
/// # Panics
/// If the lengths do not fit together.
pub fn materialise(into: &mut [f32], base: &[f32], ledger: &[i32], unit: f32) {
    let len = into.len();
    assert!(len == base.len() && words(len) == ledger.len());
    let (low, high) = (&ledger[..len], &ledger[len + 1..]);
    if ledger[len] != 0 {
        for (i, into) in into.iter_mut().enumerate() {
            *into = base[i] - unit * count(low[i], high[i]) as f32;
        }
        return;
    }
    Tier::best().run(|| {
        for ((into, base), count) in into.iter_mut().zip(base).zip(low) {
            *into = base - unit * *count as f32;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn counts(words: &[i32]) -> Vec<i64> {
        let len = len(words.len());
        (0..len).map(|i| count(words[i], words[len + 1 + i])).collect()
    }

    proptest! {
        /// Compared with integers of 64 bits, in any order, with sums that cross 32 bits in both directions.
        #[test]
        fn counts_are_sums_of_64_bits_in_any_order(
            added in prop::collection::vec((0usize..5, prop_oneof![-9i32..9, -i32::MAX..i32::MAX]), 0..60))
        {
            let (mut oracle, mut forwards, mut backwards) = ([0i64; 5], [0; words(5)], [0; words(5)]);
            for (index, units) in &added {
                oracle[*index] += i64::from(*units);
                prop_assert!(Ledger::of(&mut forwards).add(*index, *units));
            }
            for (index, units) in added.iter().rev() {
                prop_assert!(Ledger::of(&mut backwards).add(*index, *units));
            }
            prop_assert_eq!(counts(&forwards), oracle.to_vec());
            prop_assert_eq!(forwards, backwards);
            prop_assert_eq!(largest(&forwards), oracle.iter().map(|count| count.unsigned_abs()).max().unwrap());
            let carried = oracle.iter().filter(|count| i32::try_from(**count).is_err()).count();
            prop_assert_eq!(forwards[5] as usize, carried);
            let mut into = [f32::NAN; 5];
            materialise(&mut into, &[1.0; 5], &forwards, 0.25);
            prop_assert_eq!(into.to_vec(), oracle.map(|count| 1.0 - 0.25 * count as f32).to_vec());
        }
    }

    #[test]
    fn a_count_beyond_64_bits_is_refused_and_left_alone() {
        let mut words = vec![i32::MAX, 1, i32::MAX];
        assert!(!Ledger::of(&mut words).add(0, 1));
        assert_eq!(words, [i32::MAX, 1, i32::MAX]);
        assert!(Ledger::of(&mut words).add(0, -1));
        let mut words = vec![i32::MIN, 1, i32::MIN];
        assert!(!Ledger::of(&mut words).add(0, -1));
        assert_eq!(words, [i32::MIN, 1, i32::MIN]);
    }
}
