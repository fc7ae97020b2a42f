//! [`Timeline`]: where the time of each node goes during a page of a recording. A monitor of a live run has no such page:
//! [`Recent`](crate::recent::Recent) keeps its last seconds.

use std::collections::BTreeMap;

use gradwire_core::telemetry::{Frame, NODES_MAX, Stage, Times};

use crate::recent::Parts;

/// Seconds of a page. A shorter recording has one page, of its own length.
const PAGE: f64 = 120.0;
/// Most spans of a node on a page.
const SPANS_MAX: f64 = 240.0;

/// A page of a recording.
#[derive(Clone, Debug)]
pub(crate) struct Timeline {
    /// The times of the recording at which the page begins and ends, in seconds.
    pub(crate) from: f64,
    pub(crate) to: f64,
    /// By rank: from, to, and the shares between them.
    spans: BTreeMap<u32, Vec<(f64, f64, Parts)>>,
}

impl Timeline {
    /// The page that contains a position. `times` has the time of each frame, in rising order.
    pub(crate) fn at(position: f64, frames: &[Frame], times: &[f64]) -> Self {
        let (start, end) = (times.first().copied().unwrap_or(0.0), times.last().copied().unwrap_or(0.0));
        let length = (end - start).clamp(0.1, PAGE);
        // The end of the recording belongs to its last page.
        let pages = ((end - start) / length).ceil().max(1.0);
        let from = start + length * ((position - start) / length).floor().clamp(0.0, pages - 1.0);
        let to = from + length;
        let mut page = Self { from, to, spans: BTreeMap::new() };
        let first = times.partition_point(|at| *at < from);
        let mut last: BTreeMap<u32, (f64, Times)> = BTreeMap::new();
        for (frame, at) in frames.iter().zip(times).skip(first).take_while(|(_, at)| **at <= to) {
            if let Frame::Report(report) = frame
                // The last messages of a node say nothing about the run.
                && matches!(report.stage, Stage::Joining | Stage::Active)
            {
                page.push(&mut last, report.status.me.0, *at, report.times);
            }
        }
        page
    }

    /// Adds the times of a report. `last`: the end of the last span of each rank.
    fn push(&mut self, last: &mut BTreeMap<u32, (f64, Times)>, rank: u32, at: f64, times: Times) {
        match last.get(&rank) {
            // A new process of the node counts from 0.
            Some((_, before)) if times.elapsed < before.elapsed || times.steps < before.steps => {}
            Some((from, _)) if at - from < (self.to - self.from) / SPANS_MAX => return,
            Some((from, before)) => {
                self.spans.entry(rank).or_default().push((*from, at, Parts::between(before, &times)));
            }
            // Ranks in reports are not trusted.
            None if last.len() >= NODES_MAX => return,
            None => {}
        }
        last.insert(rank, (at, times));
    }

    /// Whether a position lies on the page.
    pub(crate) fn contains(&self, position: f64) -> bool {
        (self.from..=self.to).contains(&position)
    }

    /// The spans of a node: from and to in seconds, with their shares.
    pub(crate) fn spans(&self, rank: u32) -> impl Iterator<Item = (f64, f64, Parts)> {
        self.spans.get(&rank).into_iter().flatten().copied()
    }

    /// The cell of a time in a line of `width` cells. A time beyond the page has the first or the last one.
    pub(crate) fn cell(&self, at: f64, width: usize) -> usize {
        let share = (at - self.from) / (self.to - self.from);
        ((share * width as f64) as usize).min(width.saturating_sub(1))
    }

    /// The time of a cell in a line of `width` cells: of its middle, and for the first and the last cell the end of the
    /// page.
    pub(crate) fn time(&self, cell: u16, width: u16) -> f64 {
        let share = match cell {
            0 => 0.0,
            cell if cell + 1 >= width => 1.0,
            cell => (f64::from(cell) + 0.5) / f64::from(width.max(1)),
        };
        self.from + share * (self.to - self.from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two nodes over 300 s. Rank 1 restarts at 200 s.
    fn recording() -> (Vec<Frame>, Vec<f64>) {
        let (mut frames, mut times) = (Vec::new(), Vec::new());
        for second in 0..=300u32 {
            for rank in 0..2 {
                let mut report = crate::model::tests::report(rank, f64::from(second), u64::from(second) * 10);
                if rank == 1 && second >= 200 {
                    report.times = crate::model::tests::report(rank, f64::from(second - 200), 0).times;
                }
                frames.push(Frame::Report(report));
                times.push(f64::from(second));
            }
        }
        (frames, times)
    }

    #[test]
    fn a_page_contains_its_position() {
        let (frames, times) = recording();
        for (position, from, to) in
            [(0.0, 0.0, 120.0), (119.0, 0.0, 120.0), (121.0, 120.0, 240.0), (300.0, 240.0, 360.0)]
        {
            let page = Timeline::at(position, &frames, &times);
            assert_eq!((page.from, page.to), (from, to), "{position}");
            assert!(page.contains(position));
            assert!(page.spans(0).all(|(a, b, _)| from <= a && a < b && b <= to));
        }
        let page = Timeline::at(150.0, &frames, &times);
        assert_eq!((page.spans(0).count(), page.spans(1).count(), page.spans(7).count()), (120, 119, 0));
        // A recording without frames, and one of a single moment.
        assert!(Timeline::at(0.0, &[], &[]).contains(0.0));
        assert!(Timeline::at(5.0, &frames[..1], &[5.0]).contains(5.0));
    }

    #[test]
    fn cells_and_times_belong_together() {
        let (frames, times) = recording();
        let page = Timeline::at(130.0, &frames, &times);
        for cell in 0..60 {
            assert_eq!(page.cell(page.time(cell, 60), 60), usize::from(cell));
        }
        assert_eq!((page.time(0, 60), page.time(59, 60)), (120.0, 240.0));
        assert_eq!((page.cell(0.0, 60), page.cell(999.0, 60)), (0, 59));
    }
}
