//! The messages: a variant for each, with a name and a type for each of its fields. `fields.rs` puts them into headers.

use alloc::vec;
use alloc::vec::Vec;

use super::Kind;
use crate::id::{Clock, Incarnation, PeerId, Sequence, ShardId};
use crate::machine::Failure;
use crate::rider::Rider;
use crate::time::StepTime;

/// Ranks that one [`Message::Members`] covers.
pub(super) const RANKS: u32 = u64::BITS;

/// Limit of a weight, so that the weights of a node and its eight children add up without overflow. A weight of a whole
/// round reaches it after 2^28 local steps with the largest number of examples each, which is not possible in practice.
pub const WEIGHT_MAX: u64 = u64::MAX / 16;

/// A message from one node to another. The body, if any, follows the header; its length is in the header.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The first message on every connection. Body: the contract's text.
    Hello(Hello),
    /// The receiver cannot take part any more: its peers have given it up, or the run is over.
    Refuse,
    /// Worker to server: one shard of a contribution. Body: the shard, encoded by the recipe's codec; none without examples,
    /// and if the contribution repeats the last one.
    Push(Push),
    /// Server to worker: one shard of the parameters. Body: its floats.
    Params(Reply),
    /// Server to worker: a contribution that asks for no parameters has been taken.
    Receipt {
        /// The shard's number.
        shard: ShardId,
        /// The worker's last contribution that has been taken.
        sequence: Sequence,
        /// As [`Reply::magnitude`].
        magnitude: Option<Rider>,
    },
    /// Server to worker: the difference between the shard that the worker holds and the server's. Body: the difference,
    /// encoded by the recipe's pull codec.
    Delta(Reply),
    /// Collective, child to parent: the weighted mean of a subtree for one chunk of a round. Body: its floats.
    Up(Part),
    /// Collective, parent to child: the result of one chunk of a round. Body: its floats.
    Down(Part),
    /// Mesh: quanta of one origin. Body: the quanta, encoded by the threshold codec.
    Quanta(Quanta),
    /// Mesh: the receiver of quanta needs them no more.
    QuantaAck(Ack),
    /// Mesh: an origin makes no more messages.
    StreamEnd {
        /// The node that makes the messages.
        origin: PeerId,
        /// The origin's process.
        incarnation: Incarnation,
        /// Number of its last message.
        last: Sequence,
    },
    /// Mesh: the sender has all that the view begins with. On each connection, all messages after this one are of the
    /// view.
    Have {
        /// The view, at least 1.
        view: Sequence,
        /// Number of the receiver's last message that the sender has.
        last: Sequence,
    },
    /// Mesh, part of a snapshot: how much of one origin's stream is in it.
    SnapshotMark(SnapshotMark),
    /// Mesh, part of a snapshot: the initial parameters. Body: their floats.
    Seed {
        /// The view, at least 1.
        view: Sequence,
    },
    /// Mesh, part of a snapshot: the ledger. Body: its integers.
    Ledger {
        /// The view, at least 1.
        view: Sequence,
        /// Messages that are in the ledger.
        applied: Clock,
    },
    /// Mesh: a member that enters a view asks its donor for a snapshot.
    FetchSnapshot {
        /// The view, at least 1.
        view: Sequence,
        /// The parts of the snapshot.
        wanted: Wanted,
    },
    /// Collective: a member without the current parameters asks the view's donor for them.
    FetchParameters {
        /// The view, at least 1.
        view: Sequence,
    },
    /// A worker has made its last contribution.
    Leave(Leave),
    /// The sender waits for another node. Sent to the nodes that wait for the sender.
    Awaits {
        /// The node at the end of the chain of waits.
        on: PeerId,
        /// The clock that this node is at.
        at: Clock,
        /// For how many more milliseconds this node is silent, as it has announced; 0: it has not.
        silent_ms: u32,
    },
    /// The sender has failed, and ends. Its last message.
    Failed {
        /// The reason, for the applications of the peers.
        failure: Failure,
    },
    /// A peer of the sender is lost. Nodes that are not connected with that peer hear of it by this message.
    PeerLost {
        /// The peer that is lost. Its rank is below 4294967295.
        peer: PeerId,
        /// The reason, if the peer has said that it has failed. `None`: it was unreachable for too long.
        failure: Option<Failure>,
    },
    /// The sender's application makes no steps for so long. Nodes that wait for the sender wait longer.
    Silence {
        /// How long, in milliseconds, from now on; 0: an announced silence is over.
        span_ms: u32,
    },
    /// Collective, member to coordinator: the state of the member.
    Report(Report),
    /// Collective, coordinator to member: some of the members of a view that is about to be committed.
    Members {
        /// Number of the view.
        view: Sequence,
        /// The rank of bit 0 of `mask`, a multiple of 64.
        first: PeerId,
        /// Bit i is set if rank `first + i` is a member.
        mask: u64,
    },
    /// As [`Message::Members`], for ranks in a row: a view of all workers of a large cluster is one message.
    MemberRange {
        /// Number of the view.
        view: Sequence,
        /// The first of the ranks.
        first: PeerId,
        /// How many ranks are members, from `first` on.
        count: u32,
    },
    /// Member to coordinator: workers that the sender has lost and has not met again.
    Lost {
        /// The rank of bit 0 of `mask`, a multiple of 64.
        first: PeerId,
        /// Bit i is set if rank `first + i` is lost.
        mask: u64,
    },
    /// Collective, coordinator to member: stop, and report. View `view` is about to be formed.
    Prepare {
        /// Number of the view.
        view: Sequence,
    },
    /// Collective, coordinator to member: the view begins. The [`Message::Members`] before this one list its members.
    Commit(Commit),
    /// Collective, donor to member: the parameters. Body: one of the vectors of a donor's state.
    Parameters {
        /// The view, at least 1.
        view: Sequence,
        /// Rounds that are in the parameters.
        round: Clock,
        /// Which vector of the state: 0 is the parameters.
        vector: u32,
        /// The riders of the first round with one, and of the last.
        riders: Option<[Rider; 2]>,
    },
    /// Worker to server that has restarted: the shard as the worker has it. Body: its floats.
    Offer(Offer),
    /// Before the hello of a node that resumes: the moments from which it can go on.
    Moments(Moments),
    /// The run is over for the receiver.
    Release,
    /// The receiver resumed from a checkpoint, but an earlier process of its rank has rejoined the run after that
    /// checkpoint.
    Again,
}

/// Facts about the sender of a [`Message::Hello`].
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The sender's rank.
    pub rank: PeerId,
    /// The sender's process.
    pub incarnation: Incarnation,
    /// Digest of the sender's contract.
    pub digest: u64,
    /// The sender has parameters of a run that has begun.
    pub has_parameters: bool,
    /// The suspension that the sender resumed from; 0 for a new run.
    pub resumed_at: Clock,
    /// Digest of the name of the sender's run ([`RunId::tag`](crate::RunId::tag)); 0 if the sender does not know it.
    pub run: u64,
}

/// The newest moments of which a node has checkpoints: rounds done, or suspensions.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Moments {
    /// Newest first, without repetition. 0: no moment.
    at: [Clock; Self::COUNT_MAX],
}

impl Moments {
    /// The most moments that a node offers.
    pub const COUNT_MAX: usize = 3;

    /// The newest of these moments. Moment 0, the beginning of a run, needs no checkpoint and is left out.
    pub fn new(moments: impl IntoIterator<Item = Clock>) -> Self {
        let mut all: Vec<Clock> = moments.into_iter().filter(|at| *at > Clock(0)).collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        all.dedup();
        let mut at = [Clock(0); Self::COUNT_MAX];
        at.iter_mut().zip(all).for_each(|(to, from)| *to = from);
        Self { at }
    }

    /// The moments, newest first.
    pub fn iter(&self) -> impl Iterator<Item = Clock> + '_ {
        self.at.iter().copied().filter(|at| *at > Clock(0))
    }

    /// Whether the node has a checkpoint of this moment.
    pub fn has(&self, at: Clock) -> bool {
        self.iter().any(|has| has == at)
    }
}

/// One shard of a contribution.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// The shard's number.
    pub shard: ShardId,
    /// The worker that made the contribution.
    pub worker: PeerId,
    /// The worker's process.
    pub incarnation: Incarnation,
    /// The number of the contribution in the worker's stream, from 1.
    pub sequence: Sequence,
    /// The version of the shard that the contribution was computed from.
    pub base: Clock,
    /// Examples behind the contribution, at most [`WEIGHT_MAX`]. 0: there are no examples.
    pub weight: u64,
    /// In place of this contribution, the server applies the last one with a body again, of which `base` and `rider` are.
    pub repeats: bool,
    /// The worker asks for parameters. If not, the answer is a [`Message::Receipt`].
    pub fetches: bool,
    /// The mean time of the worker's local steps, in recipes with periods that follow speeds.
    pub step_time: Option<StepTime>,
    /// The number that travels with the contribution. With one, examples above [`u32::MAX`] count as that.
    pub rider: Option<Rider>,
}

/// One shard of the parameters.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The shard's number.
    pub shard: ShardId,
    /// The worker's last contribution that is in the parameters.
    pub sequence: Sequence,
    /// The row clock: every contribution of earlier clocks is in the parameters.
    pub row: Clock,
    /// The version of the shard: the number of applications.
    pub version: Clock,
    /// Why the server sends the shard.
    pub occasion: Occasion,
    /// With B-FASGD: the mean magnitude of the shard's updates. The server has what a contribution that repeats the last one
    /// needs. Left out if `sequence` is above [`u32::MAX`].
    pub magnitude: Option<Rider>,
}

/// Why a server sends parameters.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// They answer a contribution.
    Answer {
        /// The time of a local step of the reference, in recipes with periods that follow speeds.
        reference: Option<StepTime>,
    },
    /// They are the final ones.
    Final,
    /// The worker enters, or enters again.
    Welcome {
        /// By how many clocks the worker is ahead of the row clock.
        lead: u32,
    },
}

/// One chunk of a round of a collective.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Number of the view.
    pub view: Sequence,
    /// Number of the round.
    pub round: Clock,
    /// The chunk's number.
    pub chunk: u32,
    /// Examples behind the body, at most [`WEIGHT_MAX`]. 0: there is no body.
    pub weight: u64,
    /// All workers with a contribution in it make no further ones. In a result: the round is the last.
    pub finishing: bool,
    /// The mean of the numbers that travel with the contributions in it.
    pub rider: Option<Rider>,
}

/// The sum of the messages `first` to `last` of one origin (mostly a single message).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Quanta {
    /// The node that computed the quanta.
    pub origin: PeerId,
    /// The origin's process.
    pub incarnation: Incarnation,
    /// Number of the first message.
    pub first: Sequence,
    /// Number of the last message, at least `first`.
    pub last: Sequence,
    /// Messages that were in the origin's replica when the first was computed.
    pub base: Clock,
}

/// Quanta that have been taken.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The node that computed the quanta.
    pub origin: PeerId,
    /// The origin's process.
    pub incarnation: Incarnation,
    /// Number of the last message in them.
    pub last: Sequence,
}

/// How much of one origin's stream is in a snapshot.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMark {
    /// The view, at least 1.
    pub view: Sequence,
    /// The node that made the messages.
    pub origin: PeerId,
    /// The origin's process.
    pub incarnation: Incarnation,
    /// Number of its last message that is in the snapshot.
    pub sequence: Sequence,
    /// Number of the last message that it makes, if it has said so.
    pub last: Option<Sequence>,
}

/// The parts of a snapshot that a member needs.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The marks, without base and ledger.
    Marks,
    /// Marks and ledger.
    Ledger,
    /// Marks, base and ledger.
    All,
}

/// The end of a worker's contributions.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Leave {
    /// The worker that leaves: the sender, or in a relay tree a node behind it.
    pub origin: PeerId,
    /// The origin's process.
    pub incarnation: Incarnation,
    /// Number of its last contribution.
    pub last: Sequence,
    /// It stays for the final parameters.
    pub stays: bool,
}

/// The state of a member of a collective.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The last view that the member has heard of.
    pub view: Sequence,
    /// The last view that it has entered; 0 before the first.
    pub entered: Sequence,
    /// Members of that view.
    pub members: u32,
    /// Rounds that it has done.
    pub round: Clock,
    /// It has the parameters of that round.
    pub has: bool,
    /// It makes no more contributions, and does not wait for the end.
    pub leaves: bool,
    /// The last round is done.
    pub last: bool,
    /// A connection between members broke within this view.
    pub broken: bool,
    /// Without the coordinator, it has told the other members that it has the last round. Some may have ended on that.
    pub told: bool,
}

/// The beginning of a view.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Number of the view.
    pub view: Sequence,
    /// Rounds that are done.
    pub round: Clock,
    /// The member that has the parameters of this round.
    pub donor: PeerId,
    /// The round was the last.
    pub last: bool,
    /// The run has gone on without the receiver, and its state counts for nothing.
    pub returns: bool,
}

/// A shard that a worker offers to a server that has restarted.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The shard's number.
    pub shard: ShardId,
    /// The worker's contributions up to this one are in the parameters, or lost.
    pub sequence: Sequence,
    /// Row clock of the shard.
    pub row: Clock,
    /// Version of the shard.
    pub version: Clock,
    /// The worker has the whole shard, as the body. If not, there is no body.
    pub whole: bool,
}

impl Message {
    /// The kind that is sent in the header.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Hello(_) => Kind::Hello,
            Self::Refuse => Kind::Refuse,
            Self::Push(_) => Kind::Push,
            Self::Params(_) => Kind::Params,
            Self::Delta(_) => Kind::Delta,
            Self::Up(_) => Kind::Up,
            Self::Down(_) => Kind::Down,
            Self::Quanta(_) => Kind::Quanta,
            Self::QuantaAck(_) | Self::StreamEnd { .. } | Self::Receipt { .. } => Kind::Ack,
            Self::Have { .. } | Self::SnapshotMark(_) => Kind::Mark,
            Self::Seed { .. } => Kind::Seed,
            Self::Ledger { .. } => Kind::Ledger,
            Self::FetchSnapshot { .. } | Self::FetchParameters { .. } => Kind::Fetch,
            Self::Leave(_) => Kind::Leave,
            Self::Awaits { .. } => Kind::Awaits,
            Self::Failed { .. } | Self::PeerLost { .. } => Kind::Failed,
            Self::Silence { .. } => Kind::Silence,
            Self::Report(_) => Kind::Report,
            Self::Members { .. } | Self::MemberRange { .. } | Self::Lost { .. } => Kind::Member,
            Self::Prepare { .. } | Self::Commit(_) => Kind::View,
            Self::Parameters { .. } | Self::Offer(_) => Kind::State,
            Self::Moments(_) => Kind::Moments,
            Self::Release => Kind::Release,
            Self::Again => Kind::Again,
        }
    }

    /// The ranks that a [`Message::Members`] lists, below `workers`.
    pub(crate) fn ranks(first: PeerId, mask: u64, workers: u32) -> impl Iterator<Item = PeerId> {
        let ranks = (0..RANKS).filter(move |bit| mask & 1 << bit != 0).map(move |bit| first.0.saturating_add(bit));
        ranks.filter(move |rank| *rank < workers).map(PeerId)
    }

    /// The messages that list `members` of `workers` ranks, in order.
    pub(crate) fn members(view: Sequence, members: &[PeerId], workers: u32) -> impl Iterator<Item = Self> {
        let mut masks = vec![0u64; workers.div_ceil(RANKS) as usize];
        for member in members {
            masks[(member.0 / RANKS) as usize] |= 1 << (member.0 % RANKS);
        }
        let mut next = 0;
        core::iter::from_fn(move || {
            let piece = next;
            let mask = *masks.get(piece as usize)?;
            let first = PeerId(piece * RANKS);
            let all_of = |piece: u32| u64::MAX >> (RANKS - (workers - piece * RANKS).min(RANKS));
            let full = (piece..).zip(&masks[piece as usize..]).take_while(|(piece, mask)| **mask == all_of(*piece));
            let full = full.count() as u32;
            next += full.max(1);
            Some(match full {
                0 | 1 => Self::Members { view, first, mask },
                _ => Self::MemberRange { view, first, count: (full * RANKS).min(workers - first.0) },
            })
        })
    }
}
