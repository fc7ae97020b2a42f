//! [`Table`]: a value for each of the other nodes that this one deals with.

use alloc::vec::Vec;
use core::ops::Range;

use crate::id::PeerId;

/// Values by rank. A *dense* table has one for each rank of a range. A *sparse* one has values of the ranks that have
/// come up, so that a node of a large tree needs no memory for nodes that it never meets.
#[derive(Debug)]
pub(super) struct Table<T> {
    /// The ranks that can come up.
    range: Range<u32>,
    /// Of a sparse table: the ranks that have come up, in order.
    known: Option<Vec<u32>>,
    /// By rank.
    values: Vec<T>,
}

impl<T> Table<T> {
    pub(super) fn dense(range: Range<u32>, make: impl FnMut(u32) -> T) -> Self {
        Self { known: None, values: range.clone().map(make).collect(), range }
    }

    pub(super) const fn sparse(range: Range<u32>) -> Self {
        Self { range, known: Some(Vec::new()), values: Vec::new() }
    }

    pub(super) const fn is_sparse(&self) -> bool {
        self.known.is_some()
    }

    /// The ranks that can come up.
    pub(super) fn range(&self) -> Range<u32> {
        self.range.clone()
    }

    /// Ranks with a value.
    pub(super) fn count(&self) -> usize {
        self.values.len()
    }

    /// The `index`-th rank with a value.
    pub(super) fn rank(&self, index: usize) -> PeerId {
        PeerId(self.known.as_ref().map_or(self.range.start + index as u32, |known| known[index]))
    }

    pub(super) fn get(&self, peer: PeerId) -> Option<&T> {
        self.values.get(self.place(peer).ok()?)
    }

    /// The value of a rank of the range. Makes it, if the rank has not come up before.
    pub(super) fn entry(&mut self, peer: PeerId, make: impl FnOnce() -> T) -> &mut T {
        let place = match self.place(peer) {
            Ok(place) => place,
            Err(place) => {
                // Only a sparse table lacks a rank of the range.
                self.known.get_or_insert_default().insert(place, peer.0);
                self.values.insert(place, make());
                place
            }
        };
        &mut self.values[place]
    }

    /// The place of a rank's value, or where it would go.
    fn place(&self, peer: PeerId) -> Result<usize, usize> {
        match &self.known {
            Some(known) => known.binary_search(&peer.0),
            None => Ok(peer.0.wrapping_sub(self.range.start) as usize),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparse_table_has_the_ranks_that_have_come_up_in_order() {
        let (mut sparse, dense) = (Table::sparse(2..9), Table::dense(2..9, |rank| rank));
        for rank in [7, 2, 5, 7] {
            *sparse.entry(PeerId(rank), || 0) += rank;
        }
        let ranks: Vec<u32> = (0..sparse.count()).map(|index| sparse.rank(index).0).collect();
        assert_eq!(ranks, [2, 5, 7]);
        assert_eq!(
            [1, 2, 3, 7, 9].map(|rank| sparse.get(PeerId(rank)).copied()),
            [None, Some(2), None, Some(14), None]
        );
        assert_eq!([1, 2, 8, 9].map(|rank| dense.get(PeerId(rank)).copied()), [None, Some(2), Some(8), None]);
        assert_eq!((dense.count(), dense.rank(1)), (7, PeerId(3)));
    }
}
