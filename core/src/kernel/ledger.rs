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
//! While the second part is 0, the third one is 0 everywhere, and is not read: it costs address space only. It is also not
//! copied and not sent.
//!
//! Messages are sparse, so a replica follows its ledger by lines of [`LINE`] counts: a map has a bit for each line that
//! has been touched since the replica was last made, and only these lines are made again.

use super::tier::Tier;

/// Limit of the counts of a ledger whose words are sent as one body.
pub const LEN_MAX: usize = (1 << 29) - 1;

/// Counts of a line: its floats fill a cache line.
pub const LINE: usize = 16;
/// Counts of a word of a map.
const WORD: usize = 32 * LINE;

/// Words of a map of touched lines, for a ledger with `len` counts.
pub const fn map_words(len: usize) -> usize {
    len.div_ceil(WORD)
}

/// Words of a ledger with `len` counts.
pub const fn words(len: usize) -> usize {
    2 * len + 1
}

/// Words that hold all of a ledger with `len` counts, if none of them exceeds 32 bits.
pub const fn low_words(len: usize) -> usize {
    len + 1
}

/// Copies the words that hold all of a ledger, and returns their number.
///
/// # Panics
/// If `into` is shorter than `from`.
pub fn copy(from: &[i32], into: &mut [i32]) -> usize {
    let len = len(from.len());
    let words = if from[len] == 0 { low_words(len) } else { from.len() };
    into[..words].copy_from_slice(&from[..words]);
    words
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
    /// The map of touched lines.
    touched: &'a mut [u32],
}

impl<'a> Ledger<'a> {
    /// The ledger in these words, with the map of its touched lines.
    ///
    /// # Panics
    /// If the number of words is even, or the map is shorter than [`map_words`].
    pub fn of(words: &'a mut [i32], touched: &'a mut [u32]) -> Self {
        let len = len(words.len());
        let (low, rest) = words.split_at_mut(len);
        let [carried, high @ ..] = rest else { unreachable!("a ledger has an odd number of words") };
        assert!(high.len() == len && touched.len() >= map_words(len));
        Self { low, carried, high, touched }
    }

    /// The low words.
    pub fn low(&self) -> &[i32] {
        self.low
    }

    /// Adds units to a count, whose line is touched then. Returns false, and changes nothing, if the count would exceed 64 bits.
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
        self.touched[index / WORD] |= 1 << (index / LINE % 32);
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

/// Makes the touched lines of a replica again, and clears the map. The result is that of [`materialise`], if `into` was that
/// of the ledger when the map was clear.
///
/// # Panics
/// If the lengths do not fit together.
pub fn refresh(into: &mut [f32], base: &[f32], ledger: &[i32], unit: f32, touched: &mut [u32]) {
    let len = into.len();
    assert!(len == base.len() && words(len) == ledger.len() && touched.len() == map_words(len));
    let (low, high) = (&ledger[..len], &ledger[len + 1..]);
    let carried = ledger[len] != 0;
    Tier::best().run(|| {
        for (word, bits) in touched.iter_mut().enumerate() {
            let mut left = core::mem::take(bits);
            while left != 0 {
                let start = word * WORD + left.trailing_zeros() as usize * LINE;
                left &= left - 1;
                let line = start..len.min(start + LINE);
                let lines = into[line.clone()].iter_mut().zip(&base[line.clone()]).zip(&low[line.clone()]);
                if carried {
                    let lines = lines.zip(&high[line]);
                    lines.for_each(|(((into, base), low), high)| *into = base - unit * count(*low, *high) as f32);
                } else {
                    lines.for_each(|((into, base), count)| *into = base - unit * *count as f32);
                }
            }
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
            let map = &mut [0];
            for (index, units) in &added {
                oracle[*index] += i64::from(*units);
                prop_assert!(Ledger::of(&mut forwards, map).add(*index, *units));
            }
            for (index, units) in added.iter().rev() {
                prop_assert!(Ledger::of(&mut backwards, map).add(*index, *units));
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

    proptest! {
        /// A replica that follows its ledger by touched lines is the replica of the whole ledger, with counts that cross 32
        /// bits and come back.
        #[test]
        fn touched_lines_are_all_that_changes(
            rounds in prop::collection::vec(
                prop::collection::vec((0usize..1100, prop_oneof![-9i32..9, -i32::MAX..i32::MAX]), 0..9), 1..9))
        {
            const LEN: usize = 1100;
            let base: Vec<f32> = (0..LEN).map(|i| i as f32).collect();
            let (mut ledger, mut map) = (vec![0; words(LEN)], vec![0; map_words(LEN)]);
            let (mut followed, mut whole) = (base.clone(), vec![0.0; LEN]);
            for added in rounds {
                for (index, units) in added {
                    prop_assert!(Ledger::of(&mut ledger, &mut map).add(index, units));
                }
                refresh(&mut followed, &base, &ledger, 0.25, &mut map);
                materialise(&mut whole, &base, &ledger, 0.25);
                prop_assert_eq!(&followed, &whole);
                prop_assert!(map.iter().all(|bits| *bits == 0));
            }
        }
    }

    #[test]
    fn a_copy_has_the_words_above_32_bits_only_if_a_count_needs_them() {
        let (mut ledger, mut map, mut copy_of) = (vec![0; words(3)], [0], vec![7; words(3)]);
        assert!(Ledger::of(&mut ledger, &mut map).add(1, i32::MAX));
        assert_eq!((copy(&ledger, &mut copy_of), &copy_of[..]), (4, &[0, i32::MAX, 0, 0, 7, 7, 7][..]));
        assert!(Ledger::of(&mut ledger, &mut map).add(1, 1));
        assert_eq!((copy(&ledger, &mut copy_of), &copy_of[..]), (7, &[0, i32::MIN, 0, 1, 0, 1, 0][..]));
    }

    #[test]
    fn a_count_beyond_64_bits_is_refused_and_left_alone() {
        let mut words = vec![i32::MAX, 1, i32::MAX];
        let map = &mut [0];
        assert!(!Ledger::of(&mut words, map).add(0, 1));
        assert_eq!(words, [i32::MAX, 1, i32::MAX]);
        assert!(Ledger::of(&mut words, map).add(0, -1));
        let mut words = vec![i32::MIN, 1, i32::MIN];
        assert!(!Ledger::of(&mut words, map).add(0, -1));
        assert_eq!(words, [i32::MIN, 1, i32::MIN]);
    }
}
