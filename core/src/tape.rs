//! The event tape: the decisions of a node that depend on when messages arrive. A run without rounds can be run again
//! from the tapes of its nodes, bit for bit.
//!
//! In a round, the order of arrival has no effect. Without rounds, the parameters depend on the order in which a server
//! admits contributions, on the contributions that are in the parameters with which it answers a worker, and in a mesh on
//! the messages that a peer has when it goes on. Nothing else depends on the time. So each node names these decisions, as
//! [`Order`]s, and a node that follows a tape keeps everything back until its turn has come.
//!
//! The decisions of all nodes happened in some order. A run that follows the tapes can make them in the same order, so it
//! does not get stuck, however fast its nodes and its network are.

use alloc::sync::Arc;
use core::fmt;
use core::str::FromStr;

use crate::id::{PeerId, ShardId};

/// One decision of a node that depends on when messages arrive.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// A server takes the next contribution of this worker to a shard from the connection. Text form: `take SHARD RANK`.
    Take {
        /// The shard of the contribution.
        shard: ShardId,
        /// The worker that sent the contribution.
        worker: PeerId,
    },
    /// A server merges the contribution of this worker to a shard. Text form: `admit SHARD RANK`.
    Admit {
        /// The shard of the contribution.
        shard: ShardId,
        /// The worker that sent the contribution.
        worker: PeerId,
    },
    /// A server answers this worker with the parameters of a shard as they are now. Text form: `answer SHARD RANK`.
    Answer {
        /// The shard of the parameters.
        shard: ShardId,
        /// The worker that gets the parameters.
        worker: PeerId,
    },
    /// A worker takes the next parameters of a shard, while it has contributions under way. Text form: `row SHARD`.
    Row {
        /// The shard of the parameters.
        shard: ShardId,
    },
    /// A peer of a mesh applies the next message of this origin. Text form: `apply RANK`.
    Apply {
        /// The rank of the peer that has made the message.
        origin: PeerId,
    },
    /// A peer of a mesh has made a message of its own, and sends it. Text form: `make`.
    Make,
    /// A peer of a mesh gives this newcomer its ledger as it is now. Text form: `give RANK`.
    Give {
        /// The newcomer that gets the ledger.
        to: PeerId,
    },
    /// The application goes on, with the messages that the node has taken until now. Text form: `go`.
    Go,
    /// A worker has ended a period after so many local steps, where that depends on the time. The host of a machine records
    /// and follows it; see [`Local::follow_lengths`](crate::Local::follow_lengths). Text form: `steps COUNT`.
    Steps {
        /// Local steps of the period.
        count: u32,
    },
    /// A worker was lost or came again, or a connection broke during an answer. The further course depends on more than
    /// the order of messages, so a tape with this entry cannot be followed. Text form: `break`.
    Break,
}

/// Whether a node records its decisions, or follows the decisions of an earlier run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Tape {
    /// The node neither records nor follows decisions.
    #[default]
    Off,
    /// The node gives an [`Output::Order`](crate::Output::Order) for each decision. A peer of a mesh that cannot keep up
    /// then holds up the other peers: own messages are not merged.
    Record,
    /// The node makes these decisions, in this order. After the last one, it goes on as without a tape. The list must have no
    /// [`Order::Steps`], which is for the host of the machine: [`split`](Self::split) takes them out. It must have no
    /// [`Order::Break`] either, since no machine can follow it. A machine would wait for ever at both.
    Follow(Arc<[Order]>),
}

impl Tape {
    /// The tape of the machine, and the lengths of periods for its host.
    pub fn split(self) -> (Self, Arc<[u32]>) {
        let Self::Follow(orders) = self else { return (self, Arc::default()) };
        let lengths = orders.iter().filter_map(|order| match order {
            Order::Steps { count } => Some(*count),
            _ => None,
        });
        let lengths = lengths.collect();
        (Self::Follow(orders.iter().copied().filter(|order| !matches!(order, Order::Steps { .. })).collect()), lengths)
    }
}

/// A node's place on its tape.
#[derive(Clone, Debug)]
pub(crate) struct Position {
    tape: Tape,
    /// Decisions of the tape that have been made.
    made: usize,
}

impl Position {
    pub(crate) fn new(tape: Tape) -> Self {
        Self { tape, made: 0 }
    }

    /// The decision that must come next. `None`: any.
    pub(crate) fn next(&self) -> Option<Order> {
        match &self.tape {
            Tape::Follow(orders) => orders.get(self.made).copied(),
            Tape::Off | Tape::Record => None,
        }
    }

    /// Whether the next decision is given.
    pub(crate) fn is_given(&self) -> bool {
        self.next().is_some()
    }

    /// Decisions of the tape that have been made.
    pub(crate) fn made(&self) -> usize {
        self.made
    }

    /// Whether the node records or follows a tape.
    pub(crate) fn is_on(&self) -> bool {
        self.tape != Tape::Off
    }

    /// Whether this decision may be made now.
    pub(crate) fn allows(&self, order: Order) -> bool {
        self.next().is_none_or(|next| next == order)
    }

    /// The decision is made. Returns whether it has to be told.
    pub(crate) fn advance(&mut self) -> bool {
        self.made += usize::from(self.is_given());
        self.tape == Tape::Record
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Take { shard, worker } => write!(f, "take {} {}", shard.0, worker.0),
            Self::Admit { shard, worker } => write!(f, "admit {} {}", shard.0, worker.0),
            Self::Answer { shard, worker } => write!(f, "answer {} {}", shard.0, worker.0),
            Self::Row { shard } => write!(f, "row {}", shard.0),
            Self::Apply { origin } => write!(f, "apply {}", origin.0),
            Self::Make => f.write_str("make"),
            Self::Give { to } => write!(f, "give {}", to.0),
            Self::Go => f.write_str("go"),
            Self::Steps { count } => write!(f, "steps {count}"),
            Self::Break => f.write_str("break"),
        }
    }
}

/// A text that is no [`Order`].
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct OrderParseError;

impl fmt::Display for OrderParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "expected take, admit or answer with SHARD RANK, row SHARD, apply or give with RANK, steps COUNT, make, go or \
             break",
        )
    }
}

impl core::error::Error for OrderParseError {}

impl FromStr for Order {
    type Err = OrderParseError;

    fn from_str(text: &str) -> Result<Self, OrderParseError> {
        let mut words = text.split(' ');
        let name = words.next().unwrap_or_default();
        let mut number = || {
            let word = words.next().filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
            word.and_then(|word| word.parse::<u32>().ok()).ok_or(OrderParseError)
        };
        let order = match name {
            "take" => Self::Take { shard: ShardId(number()?), worker: PeerId(number()?) },
            "admit" => Self::Admit { shard: ShardId(number()?), worker: PeerId(number()?) },
            "answer" => Self::Answer { shard: ShardId(number()?), worker: PeerId(number()?) },
            "row" => Self::Row { shard: ShardId(number()?) },
            "apply" => Self::Apply { origin: PeerId(number()?) },
            "make" => Self::Make,
            "give" => Self::Give { to: PeerId(number()?) },
            "go" => Self::Go,
            "steps" => Self::Steps { count: number()? },
            "break" => Self::Break,
            _ => return Err(OrderParseError),
        };
        if words.next().is_some() { Err(OrderParseError) } else { Ok(order) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    const ALL: [Order; 10] = [
        Order::Admit { shard: ShardId(0), worker: PeerId(u32::MAX) },
        Order::Answer { shard: ShardId(7), worker: PeerId(3) },
        Order::Row { shard: ShardId(2) },
        Order::Apply { origin: PeerId(5) },
        Order::Take { shard: ShardId(1), worker: PeerId(0) },
        Order::Make,
        Order::Give { to: PeerId(1) },
        Order::Go,
        Order::Steps { count: 3 },
        Order::Break,
    ];

    #[test]
    fn text_forms_survive_and_malformed_ones_are_refused() {
        for order in ALL {
            assert_eq!(order.to_string().parse(), Ok(order));
        }
        for text in ["", "go ", " go", "go 1", "admit", "admit 1", "admit 1 2 3", "row -1", "row +1", "row 4294967296"]
        {
            assert_eq!(text.parse::<Order>(), Err(OrderParseError), "{text:?}");
        }
    }

    #[test]
    fn a_tape_allows_its_next_decision_alone_and_after_the_last_one_all() {
        let mut position = Position::new(Tape::Follow(ALL[..2].into()));
        for next in 0..2 {
            assert!(position.is_given());
            assert!(ALL.iter().enumerate().all(|(index, order)| position.allows(*order) == (index == next)));
            assert!(!position.advance());
        }
        assert!(!position.is_given() && position.is_on());
        assert!(ALL.iter().all(|order| position.allows(*order)));
        assert!(!position.advance());
    }

    #[test]
    fn recording_and_no_tape_allow_everything() {
        for tape in [Tape::Record, Tape::Off] {
            let mut position = Position::new(tape.clone());
            assert!(!position.is_given());
            assert!(ALL.iter().all(|order| position.allows(*order)));
            assert_eq!((position.is_on(), position.advance()), (tape == Tape::Record, tape == Tape::Record));
        }
    }
}
