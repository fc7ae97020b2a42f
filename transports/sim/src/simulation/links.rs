//! [`Links`]: the network of a simulation.

use std::fmt;

use gradwire_core::{Cluster, Duration, PeerId};

use super::error::{Error, check_node, check_range};
use crate::lines::{Line, Lines, Path};
use crate::network::Network;

/// 1,000,000 bits per second.
pub const MBIT: u64 = 1_000_000;
/// 1,000,000,000 bits per second.
pub const GBIT: u64 = 1_000_000_000;

/// The network between the nodes: the lines of the nodes, and the paths between them. Bandwidths are in bits per second.
///
/// A node's line has a bandwidth in each direction, which all connections of the node share. So a server is slow if many
/// workers send to it. Paths between pairs have latencies, and limits of their own if you set them.
///
/// ```
/// use std::time::Duration;
/// use gradwire_core::PeerId;
/// use gradwire_sim::simulation::{GBIT, Links, MBIT};
///
/// let links = Links::new(Duration::from_micros(200))
///     .bandwidth(GBIT)
///     .bandwidth_of(PeerId(3), 20 * MBIT, 100 * MBIT) // up and down
///     .between(PeerId(0), PeerId(1), Duration::from_millis(30), 50 * MBIT);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Links {
    network: Network,
    /// Up and down, of nodes without limits of their own.
    bandwidth: Option<u64>,
    nodes: Vec<(PeerId, u64, u64)>,
    paths: Vec<(PeerId, PeerId, Duration, Option<u64>)>,
}

impl Links {
    /// Links with this latency, without limits of bandwidth, jitter and loss. Senders do not wait until a message has
    /// arrived, only until their line has taken it.
    pub const fn new(latency: Duration) -> Self {
        Self::over(Network { latency, buffered: true, ..Network::calm() })
    }

    /// Links that behave as this network where nothing else is set.
    pub const fn over(network: Network) -> Self {
        Self { network, bandwidth: None, nodes: Vec::new(), paths: Vec::new() }
    }

    /// The bandwidth of each node's line, in each direction.
    #[must_use]
    pub fn bandwidth(self, bits_per_second: u64) -> Self {
        Self { bandwidth: Some(bits_per_second), ..self }
    }

    /// The bandwidth of one node's line, from it and to it.
    #[must_use]
    pub fn bandwidth_of(mut self, node: PeerId, up: u64, down: u64) -> Self {
        self.nodes.push((node, up, down));
        self
    }

    /// The latency and the bandwidth of the path between two nodes, in each direction. Their lines limit it as well.
    #[must_use]
    pub fn between(self, a: PeerId, b: PeerId, latency: Duration, bits_per_second: u64) -> Self {
        self.one_way(a, b, latency, bits_per_second).one_way(b, a, latency, bits_per_second)
    }

    /// The latency and the bandwidth of the path from a node to another.
    #[must_use]
    pub fn one_way(mut self, from: PeerId, to: PeerId, latency: Duration, bits_per_second: u64) -> Self {
        self.paths.push((from, to, latency, Some(bits_per_second)));
        self
    }

    /// The latency of the path between two nodes, in each direction.
    #[must_use]
    pub fn latency_between(mut self, a: PeerId, b: PeerId, latency: Duration) -> Self {
        self.paths.extend([(a, b, latency, None), (b, a, latency, None)]);
        self
    }

    /// A random delay of every transmission, with this mean, in addition to the latency.
    #[must_use]
    pub fn jitter(mut self, mean: Duration) -> Self {
        self.network.jitter = mean;
        self
    }

    /// The probability that a transmission is lost, from 0 to below 1. It is repeated after `retransmit`.
    #[must_use]
    pub fn loss(mut self, probability: f64, retransmit: Duration) -> Self {
        (self.network.loss, self.network.retransmit) = (probability, retransmit);
        self
    }

    pub(super) fn network(&self) -> Network {
        self.network
    }

    pub(super) fn check(&self, cluster: Cluster) -> Result<(), Error> {
        let Network { tail, loss, duplicate, reorder, .. } = self.network;
        check_range("loss", None, "from 0 to below 1", loss, (0.0..1.0).contains(&loss))?;
        for (field, p) in [("tail", tail), ("duplicate", duplicate), ("reorder", reorder)] {
            check_range(field, None, "from 0 to 1", p, (0.0..=1.0).contains(&p))?;
        }
        if self.bandwidth == Some(0) {
            return Err(Error::NoBandwidth { from: None, to: None });
        }
        for (node, up, down) in &self.nodes {
            check_node("a line", *node, cluster)?;
            match (up, down) {
                (0, _) => return Err(Error::NoBandwidth { from: Some(*node), to: None }),
                (_, 0) => return Err(Error::NoBandwidth { from: None, to: Some(*node) }),
                _ => {}
            }
        }
        for (from, to, _, bits) in &self.paths {
            check_node("a path", *from, cluster)?;
            check_node("a path", *to, cluster)?;
            if from == to {
                return Err(Error::SamePeer { of: "a path", node: *from });
            }
            if *bits == Some(0) {
                return Err(Error::NoBandwidth { from: Some(*from), to: Some(*to) });
            }
        }
        Ok(())
    }

    /// The links that differ from the network.
    pub(super) fn lines(&self, cluster: Cluster) -> Lines {
        let mut lines = Lines::default();
        if self.bandwidth.is_some() || !self.nodes.is_empty() {
            let bits = self.bandwidth.unwrap_or_default();
            lines.nodes = vec![Line { up: bits, down: bits }; cluster.nodes() as usize];
        }
        for (node, up, down) in &self.nodes {
            lines.nodes[node.index()] = Line { up: *up, down: *down };
        }
        for (from, to, latency, bits) in &self.paths {
            // A latency alone keeps the bandwidth of the same path.
            let before = lines.paths.get(&(*from, *to)).map_or(0, |path| path.bits);
            lines.paths.insert((*from, *to), Path { latency: *latency, bits: bits.unwrap_or(before) });
        }
        lines
    }
}

/// The links in words: what all nodes have, and how many nodes and paths are different.
impl fmt::Display for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Network { latency, jitter, loss, .. } = self.network;
        match self.bandwidth {
            Some(bits) if bits >= GBIT => write!(f, "{} Gbit/s", bits as f64 / GBIT as f64)?,
            Some(bits) => write!(f, "{} Mbit/s", bits as f64 / MBIT as f64)?,
            None => write!(f, "no limit of bandwidth")?,
        }
        write!(f, " and {latency:?}")?;
        if jitter > Duration::ZERO {
            write!(f, ", jitter {jitter:?}")?;
        }
        if loss > 0.0 {
            write!(f, ", {} % lost", 100.0 * loss)?;
        }
        for (count, what) in [(self.nodes.len(), "lines of nodes"), (self.paths.len(), "paths")] {
            if count > 0 {
                write!(f, ", other {what}: {count}")?;
            }
        }
        Ok(())
    }
}

impl Default for Links {
    /// 100 µs of latency.
    fn default() -> Self {
        Self::new(Duration::from_micros(100))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_have_words() {
        let links = Links::new(Duration::from_micros(200));
        assert_eq!(links.to_string(), "no limit of bandwidth and 200µs");
        let links = links.bandwidth(100 * MBIT).jitter(Duration::from_millis(1)).loss(0.01, Duration::from_millis(20));
        let links = links.bandwidth_of(PeerId(3), MBIT, MBIT);
        assert_eq!(links.to_string(), "100 Mbit/s and 200µs, jitter 1ms, 1 % lost, other lines of nodes: 1");
        assert!(links.bandwidth(5 * GBIT / 2).to_string().starts_with("2.5 Gbit/s"));
    }
}
