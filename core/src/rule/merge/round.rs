//! Rules that need all contributions of a round at once. The formulas are in [`round`](crate::kernel::round).
//!
//! Each contribution is held as a row of its own, so a server needs memory for a vector per worker and shard, and one for
//! the result. When the round ends, one kernel merges the rows by the rule's [`Formula`], or one for each tensor. The
//! parameters of a rule refer to the contributions that have come: a worker that is lost or has no examples is not one of
//! them.
//!
//! A worker counts once per round: two rows would be two votes. So a second contribution of a worker is averaged into its
//! row, weighted by examples, as a mean of the round would take both. It has two if it is started again in the middle of
//! a round, or with `pace=first late=next`, where its late contribution joins the round of its next one.
//!
//! With `pace=first`, the server has a contribution in an inbox until its round is closed, and a row of its own here. The
//! two are not one vector: a kernel names the rows as one range, and inboxes of one round lie among others that are being
//! received.
//!
//! Centred clipping goes on from the result of the last round, which is the merged vector. Checkpoints save it. A server that
//! is started again without one begins with zeros, and has caught up after a few rounds.

use alloc::vec::Vec;

use super::{Merged, Merging, Verdict};
use crate::buffer::Segment;
use crate::id::PeerId;
use crate::kernel::Kernel;
use crate::kernel::round::{Formula, Rows};
use crate::vectors::{Keep, Vectors};
use crate::wire::WEIGHT_MAX;

/// The contributions of a round, and the formula that merges them.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    formula: Formula,
    /// The rows with a count of the held ones.
    rows: Rows,
    /// The workers behind the rows, and the examples.
    held: Vec<(PeerId, u64)>,
    merged: Segment,
    /// The parts that are merged by themselves: first byte and bytes of each.
    parts: Vec<(u64, u32)>,
}

impl Round {
    /// A rule for `workers` workers and tensors of these lengths, with an empty round. Declares its vectors.
    pub(crate) fn new(formula: Formula, workers: u32, tensors: &[u32], vectors: &mut Vectors) -> Self {
        let (count, len) = (workers as usize, tensors.iter().map(|len| *len as usize).sum());
        let rows = vectors.floats("contributions of a round", count * len, Keep::No);
        let work = vectors.bytes("work of a merge", formula.work_bytes(count), Keep::No);
        let keep = if formula.has_state() { Keep::Floats } else { Keep::No };
        let merged = vectors.floats("merged contributions", len, keep);
        Self {
            formula,
            rows: Rows { first: Segment::floats(rows, 0, len), stride: len as u64 * 4, count: 0, work },
            held: Vec::with_capacity(count),
            merged: Segment::floats(merged, 0, len),
            parts: parts(if formula.is_per_tensor() { tensors } else { &[] }, len),
        }
    }
}

impl Merging for Round {
    fn admit(&mut self, worker: PeerId, update: Segment, weight: u64, _staleness: u64) -> Verdict {
        if weight == 0 {
            return Verdict::Skip;
        }
        let row = self.held.iter().position(|(other, _)| *other == worker).unwrap_or(self.held.len());
        if row == self.held.len() {
            self.held.push((worker, 0));
            self.rows.count += 1;
        }
        let (_, examples) = &mut self.held[row];
        let held = *examples;
        let weight = weight.min(WEIGHT_MAX - held);
        *examples += weight;
        if weight == 0 {
            return Verdict::Skip;
        }
        Verdict::Gather { kernel: Kernel::Hold { x: update, weight, held, rows: self.rows, row: row as u32 } }
    }

    fn merge(&self, part: usize) -> Option<Kernel> {
        let (start, len) = *self.parts.get(part).filter(|_| self.rows.count > 0)?;
        let into = Segment { start: self.merged.start + start, len, ..self.merged };
        Some(Kernel::Round { formula: self.formula, rows: self.rows.part(start, len), into })
    }

    fn take(&mut self) -> Option<Merged> {
        self.held.clear();
        let count = core::mem::take(&mut self.rows.count);
        (count > 0).then_some(Merged { vector: self.merged, scale: 1.0 })
    }
}

/// First byte and bytes of each tensor; of all `len` floats, if there are no tensors.
fn parts(tensors: &[u32], len: usize) -> Vec<(u64, u32)> {
    let whole = [len as u32];
    let lens = if tensors.is_empty() { &whole } else { tensors };
    let ends = lens.iter().scan(0, |end, len| {
        *end += u64::from(*len) * 4;
        Some((*end, len * 4))
    });
    ends.map(|(end, bytes)| (end - u64::from(bytes), bytes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::BufferId;

    /// A worker that has been started again, or whose late contribution joins the round, has one vote.
    #[test]
    fn each_worker_has_one_row_per_round() {
        let mut vectors = Vectors::default();
        let update = Segment::floats(vectors.floats("update", 4, Keep::No), 0, 4);
        let mut rule = Round::new(Formula::NormClip, 3, &[3, 1], &mut vectors);
        assert_eq!(vectors.lengths()[1..], [3 * 16, Formula::NormClip.work_bytes(3), 16]);
        let rows = |count| Rows { first: Segment::floats(BufferId(1), 0, 4), stride: 16, count, work: BufferId(2) };
        assert_eq!(rows(3).row(2), Segment::floats(BufferId(1), 8, 4));
        let hold = |weight, held, count, row| Verdict::Gather {
            kernel: Kernel::Hold { x: update, weight, held, rows: rows(count), row },
        };
        for _ in 0..2 {
            assert_eq!((rule.merge(0), rule.take()), (None, None));
            assert_eq!(rule.admit(PeerId(2), update, 5, 0), hold(5, 0, 1, 0));
            assert_eq!(rule.admit(PeerId(0), update, 0, 0), Verdict::Skip);
            assert_eq!(rule.admit(PeerId(1), update, 7, 0), hold(7, 0, 2, 1));
            assert_eq!(rule.admit(PeerId(2), update, 3, 1), hold(3, 5, 2, 0));
            let into = Segment::floats(BufferId(3), 0, 4);
            let kernel = Some(Kernel::Round { formula: Formula::NormClip, rows: rows(2), into });
            assert_eq!((rule.merge(0), rule.merge(1)), (kernel, None));
            assert_eq!(rule.take(), Some(Merged { vector: into, scale: 1.0 }));
        }
    }

    #[test]
    fn a_rule_with_factors_per_tensor_merges_tensor_by_tensor() {
        for formula in [Formula::Adasum, Formula::Radial] {
            let mut vectors = Vectors::default();
            let update = Segment::floats(vectors.floats("update", 4, Keep::No), 0, 4);
            let mut rule = Round::new(formula, 2, &[3, 1], &mut vectors);
            rule.admit(PeerId(1), update, 5, 0);
            let of = |part| match rule.merge(part) {
                Some(Kernel::Round { rows, into, .. }) => Some([rows.row(0), rows.row(1), into]),
                _ => None,
            };
            let at = |buffer, first, len| Segment::floats(BufferId(buffer), first, len);
            assert_eq!(of(0), Some([at(1, 0, 3), at(1, 4, 3), at(3, 0, 3)]));
            assert_eq!(of(1), Some([at(1, 3, 1), at(1, 7, 1), at(3, 3, 1)]));
            assert_eq!(of(2), None);
        }
    }
}
