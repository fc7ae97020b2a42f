//! [`Exchange`]: the exchange of a round, of any shape; and the state that all shapes share.
//!
//! [`Reduce`](super::reduce::Reduce) is the exchange of trees and rings, [`Gather`](super::gather::Gather) that of
//! meshes.

use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use super::Job;
use super::chunks::Mean;
use super::given::Given;
use super::operations::{Epochs, Task};
use super::replica::Replica;
use crate::buffer::BufferId;
use crate::id::{Clock, PeerId, Sequence};
use crate::kernel::KernelResult;
use crate::machine::hub::{Hub, Incoming, Port};
use crate::machine::views::View;
use crate::rider::Rider;
use crate::status::{Rest, Status};
use crate::wire::Part;

/// The exchange among the members of a view, round by round.
pub(super) trait Exchange: fmt::Debug + Send {
    fn round(&self) -> &Round;

    fn round_mut(&mut self) -> &mut Round;

    /// Begins anew in a view that this node has entered. `round`: the first round of the view.
    fn enter(&mut self, me: PeerId, view: &View, round: Clock);

    /// The members that this node exchanges messages with; empty if it does so with all.
    fn partners(&self) -> Vec<PeerId> {
        Vec::new()
    }

    /// Can the round begin before all of the contribution is there?
    fn takes_ranges(&self) -> bool;

    /// Begins the round with the application's contribution, as far as it is there.
    fn begin(&mut self, hub: &mut Port<'_, Job>, replica: &Replica, own: Mean);

    /// Another range of the contribution is there, in floats. The round may be under way.
    fn on_given(&mut self, _hub: &mut Port<'_, Job>, _replica: &Replica, _range: &Range<usize>) {}

    /// Ends the round when all results are here. The next parameters are then the node's.
    fn take_outcome(&mut self) -> Option<Outcome>;

    /// This node has taken the state after the round from another member. Its contribution is in it.
    fn on_advanced(&mut self);

    /// The member that the round waits for. Once the round is done: a member that has not taken this node's message yet.
    fn awaited(&self) -> Option<PeerId>;

    /// The members whose messages of this round are here.
    fn contributors(&self) -> Vec<PeerId>;

    /// The contribution of a member, or of a subtree.
    fn on_up(&mut self, hub: &mut Port<'_, Job>, replica: &Replica, incoming: Incoming, part: Part);

    /// The result of a chunk.
    fn on_down(&mut self, hub: &mut Port<'_, Job>, replica: &Replica, incoming: Incoming, part: Part);

    /// Must this message of the present view be held, because its buffer is in use or its turn has not come?
    fn must_wait(&self, incoming: &Incoming) -> bool;

    /// A member that was not connected is connected now: sends the messages that are due to it.
    fn send_due(&mut self, hub: &mut Port<'_, Job>, peer: PeerId);

    fn on_done(&mut self, hub: &mut Port<'_, Job>, replica: &Replica, task: Task, result: KernelResult);

    fn on_failed(&mut self, task: Task);

    /// The application's learning rate is `scale` times the one at the start.
    fn on_rate(&mut self, scale: f32);

    /// The buffers of this node's residual at this moment, which a checkpoint saves besides the buffers that are
    /// declared to be kept.
    fn residuals(&self) -> Vec<BufferId>;

    /// Adds the codec's figures to a status.
    fn report(&self, status: Status) -> Status;

    /// The node ends: its residual, if a codec has left one.
    fn take_rest(&mut self, hub: &mut Hub) -> Option<Rest>;

    /// The planted bug: a round that is not complete changes the parameters.
    #[cfg_attr(not(planted), allow(dead_code, reason = "called when it is planted"))]
    fn apply_half(&self, hub: &mut Port<'_, Job>, replica: &Replica);
}

/// The view, the round that is under way in it, and the open operations.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) view: Sequence,
    pub(super) number: Clock,
    pub(super) phase: Phase,
    /// The part of the application's contribution that is there.
    pub(super) given: Given,
    /// The open operations of the exchange, and the operations that fetch the state.
    pub(super) epochs: Epochs,
    /// Members with a new process, which has not heard of the view.
    strangers: Vec<PeerId>,
}

/// The node's progress in the exchange. Messages of other members are taken in every phase.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The node's contribution is missing.
    Idle,
    /// The round is under way. `own` is this node's contribution, and `None` if the application has left since.
    Running { own: Option<Mean> },
    /// The round is done. The application is told when everything is sent that other members need of the round: a
    /// driver on the application's thread may not come back to this machine for long.
    Done { changed: bool },
}

/// How a round has ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Some worker has contributed to it.
    pub(super) changed: bool,
    /// No worker contributes any more: it was the last.
    pub(super) last: bool,
    /// The mean of the riders of the contributions. The same at all members.
    pub(super) rider: Option<Rider>,
}

impl Round {
    /// No round, in no view. `len`: floats of a contribution.
    pub(super) fn new(len: usize) -> Self {
        let (given, epochs) = (Given::new(len), Epochs::new());
        Self { view: Sequence(0), number: Clock(0), phase: Phase::Idle, given, epochs, strangers: Vec::new() }
    }

    /// A new process of a member must hear of the next view first. It would hold a message of this view in front of the
    /// message that explains the next one.
    pub(super) fn add_stranger(&mut self, peer: PeerId) {
        self.strangers.push(peer);
    }

    /// Can this member take messages of the view now?
    pub(super) fn can_reach(&self, hub: &Hub, peer: PeerId) -> bool {
        hub.is_agreed(peer) && (!self.strangers.contains(&peer) || planted!(hub, StrangersTold))
    }

    /// The round ends here, undone.
    pub(super) fn stop(&mut self) {
        self.epochs.advance();
        if let Phase::Running { .. } = self.phase {
            self.phase = Phase::Idle;
        }
    }

    /// A view begins with this round.
    pub(super) fn enter(&mut self, view: &View, number: Clock) {
        self.stop();
        self.strangers.clear();
        (self.view, self.number) = (view.number, number);
    }

    /// Can the next round begin?
    pub(super) fn can_begin(&self) -> bool {
        self.phase == Phase::Idle && self.epochs.is_clear() && !self.epochs.is_sending()
    }

    /// The application has left: its contribution goes into no further message.
    pub(super) fn withdraw(&mut self) {
        if let Phase::Running { own } = &mut self.phase {
            *own = None;
        }
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running { .. })
    }

    /// The round is complete: the next one is the current.
    pub(super) fn complete(&mut self, outcome: Outcome) {
        let Outcome { changed, last, .. } = outcome;
        self.number = self.number.next();
        self.phase = if last { Phase::Idle } else { Phase::Done { changed } };
    }

    /// Returns once that a round is done, and whether it has changed something, when the application can be told.
    pub(super) fn take_done(&mut self) -> Option<bool> {
        let Phase::Done { changed } = self.phase else { return None };
        if self.epochs.is_sending() {
            return None;
        }
        self.phase = Phase::Idle;
        Some(changed)
    }

    /// Is a round done that the application has not been told of?
    pub(super) fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done { .. })
    }

    /// A message of this round about chunk `chunk`.
    pub(super) fn part(&self, chunk: u32, mean: Mean) -> Part {
        let Mean { weight, finishing, rider } = mean;
        Part { view: self.view, round: self.number, chunk, weight, finishing, rider }
    }
}

/// Refuses a contribution with an unusable body.
pub(super) fn reject(hub: &mut Hub, peer: PeerId, reason: crate::machine::Rejection) {
    hub.event(crate::machine::Event::Rejected { peer, reason });
    hub.counters.rejected += 1;
}
