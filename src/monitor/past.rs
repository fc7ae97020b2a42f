//! [`Past`]: former reports of a node, for monitors that connect late.

use std::collections::VecDeque;

use gradwire_core::status::LinkStatus;
use gradwire_core::telemetry::{NODES_MAX, Report};

/// Former reports of all nodes together: a few MiB.
const TOTAL_MAX: usize = 2048;
/// Nanoseconds between two former reports, until there are too many.
const INTERVAL: u64 = 500_000_000;

/// Former reports of a node. When there are too many, every other one is dropped and the interval doubles, so they
/// always reach back to the start.
#[derive(Default)]
pub(super) struct Past {
    reports: VecDeque<Report>,
    /// How often the interval has doubled.
    doublings: u32,
}

impl Past {
    /// Takes a report that another one of the same node replaces. `nodes`: of the run.
    pub(super) fn take(&mut self, report: Report, nodes: usize) {
        let limit = (TOTAL_MAX / nodes.clamp(1, NODES_MAX)).clamp(2, 128);
        let last = self.reports.back().map_or(0, |last| last.at.as_nanos());
        let interval = INTERVAL << self.doublings.min(30);
        if report.at.as_nanos().saturating_sub(last) < interval && !self.reports.is_empty() {
            return;
        }
        if self.reports.len() >= limit {
            let mut keep = false;
            self.reports.retain(|_| {
                keep = !keep;
                keep
            });
            self.doublings += 1;
        }
        self.reports.push_back(thin(report));
    }

    pub(super) fn reports(&self) -> impl Iterator<Item = &Report> {
        self.reports.iter()
    }
}

/// The report without its lists. The sums over all links are those of a link to the node itself.
fn thin(mut report: Report) -> Report {
    let status = &mut report.status;
    let sum = |of: fn(&LinkStatus) -> u64| status.links.iter().fold(0u64, |sum, link| sum.saturating_add(of(link)));
    let link = LinkStatus {
        peer: status.me,
        bytes_out: sum(|link| link.bytes_out),
        bytes_in: sum(|link| link.bytes_in),
        messages_out: sum(|link| link.messages_out),
        messages_in: sum(|link| link.messages_in),
        last_heard: None,
        response_ns: 0,
        arriving_ns: 0,
    };
    (status.links, status.workers) = (vec![link], Vec::new());
    report
}
