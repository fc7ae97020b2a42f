//! Links: what happens to a message between two nodes.

use std::collections::BTreeMap;

use gradwire_core::{Duration, Instant, Lent, OpId, wire::HEADER_LEN};

use crate::random::Random;

/// How links behave. The numbers are per message; a message travels whole.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Network {
    /// Smallest delay.
    pub latency: Duration,
    /// Mean of an exponential delay on top.
    pub jitter: Duration,
    /// Chance of [`tail_delay`](Self::tail_delay) on top of that.
    pub tail: f64,
    /// A delay out of the ordinary.
    pub tail_delay: Duration,
    /// Bytes per second of each direction of each link; 0: no limit.
    pub bandwidth: u64,
    /// Chance that a transmission is lost, and repeated after [`retransmit`](Self::retransmit).
    pub loss: f64,
    /// How long the stream waits for a lost transmission.
    pub retransmit: Duration,
    /// Chance that a transmission arrives twice.
    pub duplicate: f64,
    /// Chance that a transmission takes a detour, and those behind it overtake it.
    pub reorder: f64,
    /// A sender's operation ends when its bytes are on their way, as with a socket's buffer; else when the receiver
    /// has them.
    pub buffered: bool,
    /// How long a broken connection takes to come back.
    pub reconnect: Duration,
    /// How long it takes to notice that a peer has crashed.
    pub notice: Duration,
}

impl Network {
    /// 100 µs and nothing goes wrong.
    pub const fn calm() -> Self {
        Self {
            latency: Duration::from_micros(100),
            jitter: Duration::ZERO,
            tail: 0.0,
            tail_delay: Duration::ZERO,
            bandwidth: 0,
            loss: 0.0,
            retransmit: Duration::from_millis(20),
            duplicate: 0.0,
            reorder: 0.0,
            buffered: false,
            reconnect: Duration::from_millis(5),
            notice: Duration::from_millis(1),
        }
    }

    /// Random strengths of a random subset of what can go wrong below the stream.
    pub fn stormy(random: &mut Random) -> Self {
        let mut often = |p: f64, strength: f64| if random.chance(p) { random.unit() * strength } else { 0.0 };
        let (loss, duplicate, reorder, tail) = (often(0.4, 0.3), often(0.4, 0.5), often(0.4, 0.3), often(0.3, 0.05));
        let jitter = Duration::from_nanos((often(0.7, 1.0) * 3e6) as u64);
        let slow = often(0.3, 1.0);
        Self {
            jitter,
            tail,
            tail_delay: Duration::from_millis(300),
            bandwidth: if slow > 0.0 { 100_000 + (slow * 1e7) as u64 } else { 0 },
            loss,
            duplicate,
            reorder,
            buffered: random.chance(0.5),
            ..Self::calm()
        }
    }
}

/// A message on its way, or arrived.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) op: OpId,
    pub(crate) header: [u8; HEADER_LEN],
    pub(crate) body: Option<Lent>,
}

/// One direction of a connection: a reliable stream over an unreliable link.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    /// Number of the next message sent.
    next_out: u64,
    /// Number of the next message to deliver.
    next_in: u64,
    /// Arrived out of order.
    early: BTreeMap<u64, Message>,
    /// When the link has sent what it was given.
    busy_until: Instant,
    /// Operations whose end the sender still waits for.
    pub(crate) open: Vec<OpId>,
}

/// When the transmissions of a message arrive, and when the link is done with it.
pub(crate) struct Flight {
    pub(crate) number: u64,
    pub(crate) sent: Instant,
    pub(crate) arrivals: [Option<Instant>; 2],
}

impl Stream {
    pub(crate) fn send(&mut self, network: &Network, random: &mut Random, now: Instant, bytes: u64) -> Flight {
        let number = self.next_out;
        self.next_out += 1;
        let line = match network.bandwidth {
            0 => Duration::ZERO,
            bandwidth => Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / bandwidth),
        };
        let sent = self.busy_until.max(now).after(line);
        self.busy_until = sent;
        let mut arrive = |mut at: Instant| {
            at = at
                .after(network.latency)
                .after(Duration::from_nanos(random.exponential(network.jitter.as_nanos() as f64) as u64));
            if random.chance(network.tail) {
                at = at.after(network.tail_delay);
            }
            if random.chance(network.reorder) {
                at = at.after(network.latency * 3);
            }
            while random.chance(network.loss) {
                at = at.after(network.retransmit);
            }
            at
        };
        let first = arrive(sent);
        let second = arrive(sent);
        let twice = random.chance(network.duplicate);
        Flight { number, sent, arrivals: [Some(first), twice.then_some(second)] }
    }

    /// A transmission has arrived: what can be delivered now, in order. A second copy is nothing.
    pub(crate) fn arrive(&mut self, number: u64, message: Message) -> Vec<Message> {
        if number < self.next_in {
            return Vec::new();
        }
        self.early.insert(number, message);
        let mut ready = Vec::new();
        while let Some(message) = self.early.remove(&self.next_in) {
            self.next_in += 1;
            ready.push(message);
        }
        ready
    }
}
