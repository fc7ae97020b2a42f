//! Rates of single links, between two reports of a node.

use std::collections::BTreeMap;

use gradwire_core::telemetry::Report;

use crate::model::sane;

/// Bytes per second that a node sends to each peer, between two reports that are `span` seconds apart.
pub(crate) fn of_links(from: &Report, to: &Report, span: f64) -> BTreeMap<u32, f64> {
    let before: BTreeMap<u32, u64> = from.status.links.iter().map(|link| (link.peer.0, link.bytes_out)).collect();
    let links = to.status.links.iter();
    links
        .map(|link| {
            let sent = link.bytes_out.saturating_sub(before.get(&link.peer.0).copied().unwrap_or(0));
            (link.peer.0, sane(sent as f64 / span))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::report;

    #[test]
    fn the_rate_of_a_link_is_a_difference() {
        // A step sends 1,000 bytes to the next rank.
        let rates = of_links(&report(0, 1.0, 100), &report(0, 3.0, 300), 2.0);
        assert_eq!(rates.into_iter().collect::<Vec<_>>(), [(1, 100_000.0)]);
    }
}
