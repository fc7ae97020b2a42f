//! [`Lines`]: the nodes and pairs of nodes whose links differ from the [`Network`]. [`Traffic`]: which lines are busy.

use std::collections::BTreeMap;

use gradwire_core::{Duration, Instant, PeerId};

use crate::network::{Message, Network};

/// The line of a node, which all of its connections share. Bits per second; 0: no limit.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// From the node.
    pub up: u64,
    /// To the node.
    pub down: u64,
}

/// One direction of the path between two nodes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Delay of every transmission.
    pub latency: Duration,
    /// Bits per second; 0: no limit.
    pub bits: u64,
}

/// The links that differ from the [`Network`] of a run. By default, no link differs.
///
/// A message occupies the sender's line, then travels for the latency, then occupies the receiver's line. It can be on
/// both lines at once, and takes the time of the slower one if both are free. Messages take turns on a line, in the order
/// in which they reach it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    /// By rank. Empty: no limits.
    pub nodes: Vec<Line>,
    /// From a node to another.
    pub paths: BTreeMap<(PeerId, PeerId), Path>,
}

impl Lines {
    /// The latency from a node to another.
    pub(crate) fn latency(&self, network: &Network, from: PeerId, to: PeerId) -> Duration {
        self.paths.get(&(from, to)).map_or(network.latency, |path| path.latency)
    }

    fn of(&self, node: PeerId) -> Line {
        self.nodes.get(node.index()).copied().unwrap_or_default()
    }
}

/// The state of all lines.
#[derive(Debug)]
pub(crate) struct Traffic {
    lines: Lines,
    /// By rank: until when the line from the node is busy, and the line to the node.
    up_until: Vec<Instant>,
    down_until: Vec<Instant>,
    /// Bytes of all messages sent, headers and bodies.
    bytes: u64,
}

/// The time of so many bytes on a line.
fn time_on(bits: u64, bytes: u64) -> Duration {
    let nanos = u128::from(bytes) * 8_000_000_000 / u128::from(bits);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

impl Traffic {
    pub(crate) fn new(lines: Lines, nodes: usize) -> Self {
        let idle = || vec![Instant::ORIGIN; nodes];
        Self { lines, up_until: idle(), down_until: idle(), bytes: 0 }
    }

    /// Bytes of all messages sent so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A message is sent at `now`. Returns the link that it takes, and when it is its turn on the line of its sender.
    pub(crate) fn send(
        &mut self,
        mut network: Network,
        from: PeerId,
        to: PeerId,
        now: Instant,
        bytes: u64,
    ) -> (Network, Instant) {
        self.bytes += bytes;
        let (path, up) = (self.lines.paths.get(&(from, to)), self.lines.of(from).up);
        network.latency = self.lines.latency(&network, from, to);
        for bits in [path.map_or(0, |path| path.bits), up] {
            let bandwidth = bits.div_ceil(8);
            if bandwidth > 0 && (network.bandwidth == 0 || bandwidth < network.bandwidth) {
                network.bandwidth = bandwidth;
            }
        }
        if up == 0 {
            return (network, now);
        }
        let start = self.up_until[from.index()].max(now);
        self.up_until[from.index()] = start.after(time_on(up, bytes));
        (network, start)
    }

    /// The last byte of a message has come to the line of its receiver. Returns when it has passed the line; `None`: it
    /// has passed.
    pub(crate) fn receive(&mut self, to: PeerId, message: &mut Message, now: Instant, bytes: u64) -> Option<Instant> {
        let down = self.lines.of(to).down;
        let took = message.line.take().filter(|_| down > 0)?;
        let begun = Instant::ORIGIN.after(now.since(Instant::ORIGIN.after(took)));
        let passed = self.down_until[to.index()].max(begun).after(time_on(down, bytes)).max(now);
        self.down_until[to.index()] = passed;
        (passed > now).then_some(passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gradwire_core::OpId;

    const A: PeerId = PeerId(0);
    const B: PeerId = PeerId(1);
    const C: PeerId = PeerId(2);

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn message(ms: u64) -> Message {
        Message { op: OpId(0), header: [0; 64], body: None, line: Some(Duration::from_millis(ms)) }
    }

    fn traffic(lines: [Line; 3]) -> Traffic {
        Traffic::new(Lines { nodes: lines.to_vec(), paths: BTreeMap::new() }, 3)
    }

    /// 1,000 bytes take 8 ms at a Mbit/s. Messages of a node to several peers take turns.
    #[test]
    fn messages_take_turns_on_the_line_of_their_sender() {
        let mut traffic = traffic([Line { up: 1_000_000, down: 0 }, Line::default(), Line::default()]);
        let network = Network::calm();
        let (taken, start) = traffic.send(network, A, B, at(5), 1000);
        assert_eq!((taken.bandwidth, taken.latency, start), (125_000, network.latency, at(5)));
        assert_eq!(traffic.send(network, A, C, at(6), 1000).1, at(13));
        // The line of another node is free, and has no limit.
        assert_eq!(traffic.send(network, B, C, at(6), 1000), (network, at(6)));
        assert_eq!(traffic.bytes(), 3000);
    }

    #[test]
    fn messages_take_turns_on_the_line_of_their_receiver() {
        let mut traffic = traffic([Line::default(), Line::default(), Line { up: 0, down: 1_000_000 }]);
        // From a fast sender: the whole time is still ahead. From a slow sender: the receiver's line kept up with it.
        let mut first = message(0);
        assert_eq!(traffic.receive(C, &mut first, at(10), 1000), Some(at(18)));
        assert_eq!(traffic.receive(C, &mut first, at(18), 1000), None);
        assert_eq!(traffic.receive(C, &mut message(0), at(11), 1000), Some(at(26)));
        assert_eq!(traffic.receive(C, &mut message(20), at(100), 1000), None);
        assert_eq!(traffic.receive(C, &mut message(4), at(200), 1000), Some(at(204)));
        assert_eq!(traffic.receive(B, &mut message(0), at(11), 1000), None);
    }

    #[test]
    fn the_narrowest_part_of_a_path_decides() {
        let mut lines = Lines { nodes: vec![Line { up: 8000, down: 0 }; 3], paths: BTreeMap::new() };
        let far = Duration::from_secs(1);
        lines.paths.insert((A, B), Path { latency: far, bits: 4000 });
        lines.paths.insert((A, C), Path { latency: far, bits: 0 });
        let mut traffic = Traffic::new(lines, 3);
        let mut bandwidth = |network, to| {
            let (link, _) = traffic.send(network, A, to, at(0), 0);
            (link.bandwidth, link.latency)
        };
        assert_eq!(bandwidth(Network::calm(), B), (500, far));
        assert_eq!(bandwidth(Network::calm(), C), (1000, far));
        assert_eq!(bandwidth(Network { bandwidth: 10, ..Network::calm() }, B), (10, far));
    }
}
