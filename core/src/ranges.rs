//! [`Ranges`]: the elements of a vector that have been given, range by range.

use alloc::vec::Vec;
use core::ops::Range;

/// A set of elements of a vector: ranges in order, none of which touch each other.
///
/// It grows by one range at a time and keeps its memory when it is cleared, so that in the long run steps with equally
/// many ranges allocate nothing. It holds at most as many ranges as it has been given since it was cleared.
///
/// ```
/// use gradwire_core::Ranges;
///
/// let mut given = Ranges::new();
/// given.add(4..6).unwrap();
/// given.add(0..2).unwrap();
/// assert_eq!(given.add(1..3), Err(1)); // element 1 is there already
/// assert!(given.contains(&(4..6)) && !given.contains(&(1..5)));
/// assert_eq!(given.first_missing(6), Some(2));
/// given.add(2..4).unwrap();
/// assert_eq!(given.first_missing(6), None);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    ranges: Vec<Range<usize>>,
}

impl Ranges {
    /// The empty set.
    pub const fn new() -> Self {
        Self { ranges: Vec::new() }
    }

    /// Removes all elements.
    pub fn clear(&mut self) {
        self.ranges.clear();
    }

    /// Adds the elements of a range, none of which may be in the set yet. An empty range changes nothing.
    ///
    /// # Errors
    /// With the first element of the range that is in the set already. The set is then unchanged.
    pub fn add(&mut self, range: Range<usize>) -> Result<(), usize> {
        if range.is_empty() {
            return Ok(());
        }
        // The first range that does not end before the new one begins.
        let next = self.ranges.partition_point(|other| other.end <= range.start);
        if let Some(other) = self.ranges.get(next).filter(|other| other.start < range.end) {
            return Err(range.start.max(other.start));
        }
        let joins_next = self.ranges.get(next).is_some_and(|other| other.start == range.end);
        let joins_last = next > 0 && self.ranges[next - 1].end == range.start;
        match (joins_last, joins_next) {
            (true, true) => {
                self.ranges[next - 1].end = self.ranges[next].end;
                self.ranges.remove(next);
            }
            (true, false) => self.ranges[next - 1].end = range.end,
            (false, true) => self.ranges[next].start = range.start,
            (false, false) => self.ranges.insert(next, range),
        }
        Ok(())
    }

    /// True if all elements of a range are in the set. They are in one of its ranges then.
    pub fn contains(&self, range: &Range<usize>) -> bool {
        let at = self.ranges.partition_point(|other| other.end < range.end);
        range.is_empty() || self.ranges.get(at).is_some_and(|other| other.start <= range.start)
    }

    /// The first of the elements below `len` that is not in the set; `None`: all are.
    pub fn first_missing(&self, len: usize) -> Option<usize> {
        let first = self.ranges.first().filter(|range| range.start == 0).map_or(0, |range| range.end);
        (first < len).then_some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The set equals one with a flag per element.
        #[test]
        fn a_set_of_ranges_is_one_of_elements(given in proptest::collection::vec((0usize..40, 0usize..9), 0..30)) {
            const LEN: usize = 48;
            let (mut ranges, mut flags) = (Ranges::new(), [false; LEN]);
            for (start, len) in given {
                let range = start..start + len;
                let double = range.clone().find(|i| flags[*i]);
                prop_assert_eq!(ranges.add(range.clone()), double.map_or(Ok(()), Err));
                if double.is_none() {
                    flags[range].fill(true);
                }
                prop_assert_eq!(ranges.first_missing(LEN), flags.iter().position(|flag| !flag));
                for (start, len) in (0..LEN).flat_map(|start| (0..LEN - start).map(move |len| (start, len))) {
                    let all = flags[start..start + len].iter().all(|flag| *flag);
                    prop_assert_eq!(ranges.contains(&(start..start + len)), all);
                }
                for pair in ranges.ranges.windows(2) {
                    prop_assert!(pair[0].end < pair[1].start, "{ranges:?}");
                }
            }
        }
    }
}
