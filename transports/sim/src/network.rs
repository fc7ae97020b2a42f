//! [`Network`], the parameters of all simulated links, and [`Stream`], one direction of a connection: it decides when a
//! message arrives, and delivers messages in order.

use std::collections::BTreeMap;

use gradwire_core::{Duration, Instant, Lent, OpId, wire::HEADER_LEN};

use crate::random::Random;

/// How links behave. Probabilities and delays apply to each message, which travels as a whole.
///
/// A *transmission* is one attempt to carry a message below the stream. The delays of a transmission add up.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Network {
    /// Delay of every transmission.
    pub latency: Duration,
    /// Mean of a random delay from an exponential distribution.
    pub jitter: Duration,
    /// Probability of a further delay of [`tail_delay`](Self::tail_delay), from 0 to 1.
    pub tail: f64,
    /// Delay of the few transmissions that are much slower than the rest.
    pub tail_delay: Duration,
    /// Bytes per second of each direction of each link. 0: no limit.
    pub bandwidth: u64,
    /// Probability that a transmission is lost, from 0 to below 1. It is repeated after
    /// [`retransmit`](Self::retransmit).
    pub loss: f64,
    /// Delay of each repetition of a lost transmission.
    pub retransmit: Duration,
    /// Probability that a transmission arrives twice, from 0 to 1.
    pub duplicate: f64,
    /// Probability of a further delay of three latencies, from 0 to 1, so that later transmissions arrive first.
    pub reorder: f64,
    /// When the operation of a sender completes. True: when the link has taken its bytes, as with a socket that
    /// buffers. False: when the receiver has received the message.
    pub buffered: bool,
    /// Time from the break of a connection until it is open again.
    pub reconnect: Duration,
    /// Time from the crash of a node until its peers learn of it.
    pub notice: Duration,
}

impl Network {
    /// 100 µs of latency, and no randomness, limits or faults.
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

    /// How long a link takes for so many bytes.
    fn line(&self, bytes: u64) -> Duration {
        match self.bandwidth {
            0 => Duration::ZERO,
            bandwidth => Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / bandwidth),
        }
    }

    /// A random subset of the faults below the stream, each with a random strength; the rest as in
    /// [`calm`](Self::calm).
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

/// A message on a link, or in the inbox of its receiver.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// The sender's operation.
    pub(crate) op: OpId,
    /// The encoded header: the receiver parses it, as it would bytes from a socket.
    pub(crate) header: [u8; HEADER_LEN],
    pub(crate) body: Option<Lent>,
    /// How long it was on its sender's line, until it has passed its receiver's line.
    pub(crate) line: Option<Duration>,
}

impl Message {
    /// Bytes of header and body.
    pub(crate) fn bytes(&self) -> u64 {
        (HEADER_LEN + self.body.as_ref().map_or(0, |body| body.bytes().len())) as u64
    }
}

/// One direction of a connection: a reliable, ordered stream over an unreliable link.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    /// Number of the next message sent.
    next_out: u64,
    /// Number of the next message to deliver.
    next_in: u64,
    /// Messages that arrived before an earlier one, by number.
    early: BTreeMap<u64, Message>,
    /// When the link has taken all bytes sent so far.
    busy_until: Instant,
    /// The sender's operations that have not ended.
    pub(crate) open: Vec<OpId>,
}

/// The times of one message.
pub(crate) struct Flight {
    /// Number of the message in its stream.
    pub(crate) number: u64,
    /// When the link has taken its bytes.
    pub(crate) sent: Instant,
    /// How long the link took for them.
    pub(crate) line: Duration,
    /// When it arrives: once, or twice if it was duplicated.
    pub(crate) arrivals: [Option<Instant>; 2],
}

impl Stream {
    /// Sends a message of `bytes` bytes: decides at random when it arrives.
    pub(crate) fn send(&mut self, network: &Network, random: &mut Random, now: Instant, bytes: u64) -> Flight {
        let number = self.next_out;
        self.next_out += 1;
        let line = network.line(bytes);
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
        // The second arrival is drawn even if it is not used, so that the random numbers of later messages do not
        // depend on it.
        let first = arrive(sent);
        let second = arrive(sent);
        let twice = random.chance(network.duplicate);
        Flight { number, sent, line, arrivals: [Some(first), twice.then_some(second)] }
    }

    /// A transmission arrives. Returns its message if it is the next one; [`Self::take_early`] has the ones that follow.
    /// Duplicates are dropped, and a message waits for all earlier ones.
    pub(crate) fn arrive(&mut self, number: u64, message: Message) -> Option<Message> {
        if number == self.next_in {
            self.next_in += 1;
            return Some(message);
        }
        if number > self.next_in {
            self.early.insert(number, message);
        }
        None
    }

    /// The next message, if it has arrived before an earlier one.
    pub(crate) fn take_early(&mut self) -> Option<Message> {
        let message = self.early.remove(&self.next_in)?;
        self.next_in += 1;
        Some(message)
    }
}
