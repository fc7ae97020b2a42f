//! [`Host`]: a hub and a role make a machine.
//!
//! The host is the only implementation of [`Machine`]. It passes each input to the hub, passes the rest of it to the
//! role, and then lets the role *settle*: do everything that the new state allows.

use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use super::hub::{Awaited, Hub, Incoming, Jobs, Notice, Port};
use super::{Adoption, Advice, Failure, Input, Machine, Misuse, Output, Setup, Signal};
use crate::buffer::BufferId;
use crate::id::PeerId;
use crate::kernel::KernelResult;
use crate::rider::Rider;
use crate::rule::weigh::Weighing;
use crate::saved::SavedBuffer;
use crate::status::{Status, Waiting};
use crate::time::{Instant, StepTime};

/// The behaviour of a kind of node: worker, server, member of a collective, mesh peer.
///
/// A role reacts to messages, to ends of its operations, and to the application. It acts through the [`Port`].
pub(crate) trait Role: fmt::Debug + Send {
    /// Why an operation was started.
    type Job: Copy + fmt::Debug + Send;

    /// A peer takes part (again). `fresh`: it is a process that this node had not met.
    fn on_agreed(&mut self, hub: &mut Port<'_, Self::Job>, peer: PeerId, fresh: bool);

    /// A peer has been gone for too long or has failed, and is given up.
    fn on_lost(&mut self, hub: &mut Port<'_, Self::Job>, peer: PeerId);

    /// Can this node not go on without the peer? It then ends if the peer says that it has failed.
    fn needs(&self, hub: &Hub, peer: PeerId) -> bool;

    /// A message of an agreed peer. The role receives its body, discards it, holds the message, or closes the
    /// connection.
    fn on_message(&mut self, hub: &mut Port<'_, Self::Job>, incoming: Incoming);

    /// An operation has ended well.
    fn on_done(&mut self, hub: &mut Port<'_, Self::Job>, job: Self::Job, result: KernelResult);

    /// An operation was aborted.
    fn on_failed(&mut self, hub: &mut Port<'_, Self::Job>, job: Self::Job);

    /// The application contributes.
    fn on_step(&mut self, hub: &mut Port<'_, Self::Job>, weight: u64) -> Result<(), Misuse>;

    /// The application contributes, and goes on with parameters of its own.
    fn on_push(&mut self, _hub: &mut Port<'_, Self::Job>, _weight: u64) -> Result<(), Misuse> {
        Err(Misuse::NotReady)
    }

    /// The application contributes, range by range.
    fn on_begin(&mut self, _hub: &mut Port<'_, Self::Job>, _weight: u64) -> Result<(), Misuse> {
        Err(Misuse::NotReady)
    }

    /// The application has written a range of its contribution, in floats.
    fn on_given(&mut self, _hub: &mut Port<'_, Self::Job>, _range: &Range<usize>) -> Result<(), Misuse> {
        Err(Misuse::NotReady)
    }

    /// The application makes no more contributions; see [`Input::Leave`].
    fn on_leave(&mut self, hub: &mut Port<'_, Self::Job>, stay: bool, keep: bool) -> Result<(), Misuse>;

    /// The application's learning rate is `scale` times the one at the start.
    fn on_rate(&mut self, _scale: f32) {}

    /// The mean time of the application's local steps since its last contribution.
    fn on_step_time(&mut self, _mean: StepTime) {}

    /// The number that travels with the application's contributions from the next one on.
    fn on_rider(&mut self, _rider: Option<Rider>) {}

    /// The facts about the other workers that a period can depend on.
    fn advice(&self) -> Advice {
        Advice::default()
    }

    /// An earlier process of this rank has rejoined the run after the checkpoint that this one resumed from.
    fn on_outdated(&mut self, _hub: &mut Port<'_, Self::Job>) {}

    /// Does everything that the present state allows. Runs after every input.
    fn settle(&mut self, hub: &mut Port<'_, Self::Job>);

    /// The peer that this node waits for, if any.
    fn awaited(&self, hub: &Hub) -> Option<Awaited>;

    /// May this peer wait for this node? Then it hears of this node's own waits.
    fn is_awaited_by(&self, hub: &Hub, peer: PeerId) -> bool;

    /// The buffers that hold the vectors of the commit step at this moment. A checkpoint saves them besides the vectors
    /// that are declared to be kept.
    fn state(&self) -> Vec<BufferId> {
        Vec::new()
    }

    /// Where the next contribution goes.
    fn contribution(&self) -> BufferId;

    /// Where the parameters are.
    fn view(&self) -> BufferId;

    /// See [`Machine::is_contribution_free`].
    fn is_contribution_free(&self) -> bool {
        false
    }

    /// See [`Machine::carried`].
    fn carried(&self, _index: usize) -> Option<[BufferId; 2]> {
        None
    }

    /// See [`Machine::awaited_silence`].
    fn excused_until(&self, hub: &Hub) -> Option<Instant> {
        hub.awaited_silence()
    }

    /// See [`Machine::adoption`].
    fn adoption(&self) -> Adoption {
        Adoption::None
    }

    fn status(&self, hub: &Hub) -> Status;
}

/// A node with one role.
#[derive(Debug)]
pub(crate) struct Host<R: Role> {
    hub: Hub,
    jobs: Jobs<R::Job>,
    role: R,
    weighing: Weighing,
}

impl<R: Role> Host<R> {
    /// The node. `open` makes the role: it declares the role's vectors, and may start kernels.
    pub(crate) fn new(setup: Setup, open: impl FnOnce(&mut Port<'_, R::Job>) -> R) -> Self {
        let weighing = Weighing::new(setup.recipe.weigh);
        let (mut hub, mut jobs) = (Hub::new(setup), Jobs::new());
        let role = open(&mut Port::new(&mut hub, &mut jobs));
        Self { hub, jobs, role, weighing }
    }

    fn on_notice(&mut self, notice: Notice) -> Result<(), Misuse> {
        let (role, mut hub) = (&mut self.role, Port::new(&mut self.hub, &mut self.jobs));
        let hub = &mut hub;
        match notice {
            Notice::Agreed { peer, fresh } => role.on_agreed(hub, peer, fresh),
            Notice::Message(incoming) => role.on_message(hub, incoming),
            Notice::Done { op, result } => {
                let job = hub.end(op);
                role.on_done(hub, job, result);
            }
            Notice::Failed { op } => {
                let job = hub.end(op);
                role.on_failed(hub, job);
            }
            Notice::Step { weight } => role.on_step(hub, self.weighing.weight(weight))?,
            Notice::Push { weight } => role.on_push(hub, self.weighing.weight(weight))?,
            Notice::Begin { weight } => role.on_begin(hub, self.weighing.weight(weight))?,
            Notice::Given { range } => role.on_given(hub, &range)?,
            Notice::Leave { stay, keep } => role.on_leave(hub, stay, keep)?,
            Notice::Rate { scale } => role.on_rate(scale),
            Notice::StepTime { mean } => role.on_step_time(mean),
            Notice::Rider { rider } => role.on_rider(self.weighing.take(rider)),
            Notice::Outdated => role.on_outdated(hub),
            Notice::Tick => {}
        }
        Ok(())
    }

    /// Passes on a wait that has lasted for long, so that the node at the end of a chain of waits is known to all in
    /// it.
    fn note_waiting(&mut self) {
        let Some(waiting) = self.hub.note_waiting(self.role.awaited(&self.hub)) else { return };
        let on = waiting.on;
        for index in 0..self.hub.met() {
            let peer = self.hub.peer(index);
            let hears = peer != on && peer != self.hub.setup.me && self.role.is_awaited_by(&self.hub, peer);
            if hears && self.hub.is_agreed(peer) {
                self.hub.tell_waiting(peer, waiting);
            }
        }
    }
}

impl<R: Role> Machine for Host<R> {
    fn handle_input(&mut self, now: Instant, input: Input) -> Result<(), Misuse> {
        if let Some(notice) = self.hub.handle_input(now, input)? {
            self.on_notice(notice)?;
        }
        while let Some(op) = self.hub.take_withdrawn() {
            if let Some(notice) = self.hub.handle_input(now, Input::Aborted { op })? {
                self.on_notice(notice)?;
            }
        }
        let mut hub = Port::new(&mut self.hub, &mut self.jobs);
        while let Some(peer) = hub.take_lost() {
            self.role.on_lost(&mut hub, peer);
            // A node that was told to end may be started again elsewhere.
            let failure = hub.failure(peer).filter(|failure| *failure != Failure::Cancelled);
            if let Some(failure) = failure.filter(|_| self.role.needs(&hub, peer)) {
                hub.signal(Signal::PeerFailed { peer, failure });
            }
        }
        self.role.settle(&mut hub);
        self.note_waiting();
        Ok(())
    }

    fn poll_output(&mut self) -> Output {
        self.hub.poll_output()
    }

    fn buffers(&self) -> Vec<usize> {
        self.hub.vectors.lengths()
    }

    fn contribution(&self) -> BufferId {
        self.role.contribution()
    }

    fn is_contribution_free(&self) -> bool {
        self.role.is_contribution_free()
    }

    fn view(&self) -> BufferId {
        self.role.view()
    }

    fn carried(&self, index: usize) -> Option<[BufferId; 2]> {
        self.role.carried(index)
    }

    fn adoption(&self) -> Adoption {
        self.role.adoption()
    }

    fn saved(&self) -> Vec<SavedBuffer> {
        let mut saved = self.hub.vectors.saved();
        saved.extend(self.role.state().into_iter().map(SavedBuffer::Floats));
        saved
    }

    fn waiting(&self) -> Option<Waiting> {
        self.hub.waiting()
    }

    fn awaited_silence(&self) -> Option<Instant> {
        self.role.excused_until(&self.hub)
    }

    fn advice(&self) -> Advice {
        self.role.advice()
    }

    fn status(&self) -> Status {
        self.role.status(&self.hub)
    }

    fn wanted_changes(&self) -> u64 {
        self.hub.wanted_changes()
    }

    fn wanted(&self) -> Vec<PeerId> {
        self.hub.wanted().collect()
    }
}
