//! A member of a collective, for synchronous recipes: every round, weighted means of all contributions reach everyone
//! (Iandola et al. 2015, FireCaffe, section 3; the article's tree-reduce; Patarasuk and Yuan 2009 for rings).
//!
//! ```text
//! round r, for each chunk:  own contribution + children's means, in order -> mean -> parent      (Up)
//!                           root: the mean is the result -> children -> their children          (Down)
//! all chunks here -> parameters -> Ready
//! ```
//! Who is a child of whom follows from the view alone ([`shape`]), and so does the order of summation: the result does
//! not depend on who comes first. Members and rounds are agreed on with the [`coordinator`]: when a member is lost,
//! joins, leaves, or a connection between members breaks, everyone stops, and the round begins anew among those who are
//! there. Contributions are kept until their round is done; parameters change only when all of a round is here. So a
//! round counts for all or for none, and whoever lacks its result, or is new, gets the parameters of one who has them.

mod coordinator;
mod exchange;
mod membership;
mod shape;

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use coordinator::{Coordinator, Report};
use exchange::Exchange;
use shape::Shape;

use super::{Event, Hub, Input, Machine, Misuse, Notice, Output, ProtocolError, Rejection, Setup, Signal};
use crate::buffer::{BufferId, Segment};
use crate::id::{Clock, PeerId, Sequence, ShardId};
use crate::kernel::{Kernel, KernelResult, MEAN_MAX};
use crate::recipe::Payload;
use crate::status::{Role, Status, Waiting};
use crate::time::Instant;
use crate::wire::{Header, Kind};

/// The parameters, and those after the current round as far as it has come: they change places at its end.
const PLACES: [BufferId; 2] = [BufferId(2), BufferId(3)];
const OWN: BufferId = BufferId(4);
const FIRST_CHUNK: u32 = 5;
/// Messages that may come before their view.
const EARLY_MAX: usize = 256 * 1024;

/// A node of a collective. [`Machine::view`] holds the parameters after the last round.
#[derive(Debug)]
pub(crate) struct Collective {
    hub: Hub<Job>,
    /// The node that hosts the coordinator.
    host: PeerId,
    /// This node does nothing else.
    alone: bool,
    coordinator: Option<Coordinator>,
    /// Which of the places has the parameters.
    params: usize,
    /// They are there.
    has: bool,
    /// Rounds done.
    round: Clock,
    /// Everyone was finishing in the last round: there are no more.
    last: bool,
    own: Own,
    /// The application makes no more contributions and stays for the end.
    finishing: bool,
    /// Number of the view that this node is in.
    view: Sequence,
    /// The last number that it has heard of: above `view` while everyone stops.
    prepared: Sequence,
    members: Vec<PeerId>,
    /// Members of the view that is about to be committed, as they are told.
    coming: Vec<PeerId>,
    donor: PeerId,
    /// It has not got the parameters of the view yet: those after this round.
    fetching: Option<Clock>,
    exchange: Exchange,
    /// The round is done, and has changed something: the application is to be told.
    ready: Option<bool>,
    /// The coordinator has released this node: the run is over for it.
    released: bool,
    /// This coordinator came back when the run was over: it sees the others off, and has no part in it.
    late: bool,
    /// Transmissions of the parameters to those who lack them.
    giving: u32,
    /// A member that this node has lost and the coordinator has been told of.
    suspect: Option<PeerId>,
    /// A connection broke in this view.
    broken: bool,
    /// Messages without a body, of a view that this node has not heard of.
    early: VecDeque<(PeerId, Header)>,
    /// The view that these have last been looked at for.
    early_for: Sequence,
}

/// What the application has done for the current round.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Own {
    /// It waits for the parameters that everyone starts from.
    Joining,
    /// It computes.
    Computing,
    /// It has contributed.
    Given {
        weight: u32,
    },
    /// It makes no more contributions and does not wait for the end.
    Leaving,
    Left,
}

#[derive(Copy, Clone, Debug)]
enum Job {
    /// A child's chunk: received, then looked at. `early`: of the round after the current one.
    Receive(Arrival),
    Scan(Arrival),
    Mean {
        epoch: u64,
        chunk: usize,
    },
    Up {
        epoch: u64,
        chunk: usize,
    },
    Down {
        epoch: u64,
    },
    /// A chunk of the result.
    Result {
        epoch: u64,
        chunk: usize,
        weight: u32,
        last: bool,
    },
    /// Parameters that this node lacks.
    State {
        epoch: u64,
        round: Clock,
    },
    /// Parameters that another lacks.
    Give,
    Aside,
    Goodbye,
}

#[derive(Copy, Clone, Debug)]
struct Arrival {
    epoch: u64,
    from: PeerId,
    chunk: usize,
    child: usize,
    weight: u32,
    finishing: bool,
    early: bool,
}

impl Collective {
    pub(crate) fn new(setup: Setup) -> Self {
        let shape = Shape::of(setup.recipe.topology);
        let (workers, patience) = (setup.cluster.workers, setup.patience);
        // Rank 0 hosts the coordinator, unless there is a node for that.
        let cluster = setup.cluster;
        let host = if cluster.servers > 0 { PeerId(cluster.workers) } else { PeerId(0) };
        let alone = setup.me == host && cluster.servers > 0;
        let coordinator =
            (setup.me == host).then(|| Coordinator::new(setup.me, workers, setup.quorum, patience.dead_after()));
        let mut collective = Self {
            coordinator,
            params: 0,
            // At the start of a run, the coordinator's are everyone's.
            has: setup.resumed.is_some(),
            round: setup.resumed.map_or(Clock(0), |resumed| resumed.at),
            last: false,
            own: if alone { Own::Left } else { Own::Joining },
            finishing: false,
            view: Sequence(0),
            prepared: Sequence(0),
            members: Vec::with_capacity(workers as usize),
            coming: Vec::with_capacity(workers as usize),
            donor: host,
            host,
            alone,
            fetching: None,
            exchange: Exchange::new(shape, setup.len, workers as usize, setup.recipe.chunk as usize),
            ready: None,
            released: false,
            late: false,
            giving: 0,
            suspect: None,
            broken: false,
            early: VecDeque::new(),
            early_for: Sequence(0),
            hub: Hub::new(setup),
        };
        collective.report();
        if cluster.nodes() == 1 {
            // Nobody will come: there is nothing to wait for.
            collective.advance();
        }
        collective
    }

    fn on_notice(&mut self, notice: Notice<Job>) -> Result<(), Misuse> {
        match notice {
            Notice::Agreed { peer, fresh } => self.on_agreed(peer, fresh),
            Notice::Message { peer, header } => self.on_message(peer, header),
            Notice::Done { purpose, result } => self.on_done(purpose, result),
            Notice::Failed { purpose } => self.on_failed(purpose),
            Notice::Step { weight } => self.on_step(weight)?,
            Notice::Leave { stay, .. } => self.on_leave(stay)?,
            Notice::Again => {}
            Notice::Rate { .. } | Notice::Tick => {}
        }
        Ok(())
    }

    /// What can be done now.
    fn advance(&mut self) {
        loop {
            self.coordinate();
            self.take_held();
            self.maybe_fetch();
            self.maybe_ready();
            self.maybe_begin();
            // A round that ends at once can be news for the coordinator.
            if !self.coordinator.as_ref().is_some_and(Coordinator::has_commands) {
                break;
            }
        }
        self.maybe_leave();
        self.note_waiting();
    }

    // The application

    fn on_step(&mut self, weight: u32) -> Result<(), Misuse> {
        if self.own != Own::Computing {
            return Err(Misuse::NotReady);
        }
        self.own = Own::Given { weight };
        Ok(())
    }

    fn on_leave(&mut self, stay: bool) -> Result<(), Misuse> {
        match self.own {
            Own::Leaving | Own::Left => Err(Misuse::NotReady),
            Own::Computing if stay => {
                self.finishing = true;
                self.own = Own::Given { weight: 0 };
                Ok(())
            }
            _ if stay => Err(Misuse::NotReady),
            _ => {
                self.own = Own::Leaving;
                self.report();
                Ok(())
            }
        }
    }

    /// With the last round done, or the application gone, this node goes when the coordinator lets it; that one itself
    /// when nobody needs it any more.
    fn maybe_leave(&mut self) {
        if self.alone {
            if !self.released && self.coordinator.as_ref().is_some_and(Coordinator::is_over) {
                self.released = true;
                self.hub.signal(Signal::Finished);
            }
            return;
        }
        if self.own == Own::Left || self.giving > 0 || self.fetching.is_some() {
            return;
        }
        if let Some(coordinator) = self.coordinator.as_ref().filter(|coordinator| self.late && coordinator.is_alone()) {
            let peer = coordinator.view().donor;
            self.own = Own::Left;
            self.hub.signal(Signal::Cut { peer });
        }
        if !self.released {
            return;
        }
        match &self.coordinator {
            Some(coordinator) if coordinator.is_alone() => self.become_left(),
            Some(_) => {}
            None if self.hub.is_agreed(self.host) => {
                self.own = Own::Left;
                self.hub.transmit(self.host, self.hub.header(Kind::Leave), None, Job::Goodbye);
            }
            None => {}
        }
    }

    fn on_release(&mut self) {
        self.released = true;
        if self.own == Own::Left {
            // Its goodbye got lost.
            self.hub.notify(self.host, self.hub.header(Kind::Leave));
        }
    }

    fn become_left(&mut self) {
        self.own = Own::Left;
        self.hub.signal(Signal::Left);
    }

    // Neighbours

    fn on_agreed(&mut self, peer: PeerId, fresh: bool) {
        if fresh {
            let incarnation = self.hub.incarnation(peer);
            self.hub.event(Event::PeerJoined { peer, incarnation });
        }
        // Messages of this view may have got lost with the connection: the round begins anew.
        let broken =
            !fresh && self.members.contains(&peer) && self.is_in_view() && (!self.last || self.fetching.is_some());
        if broken {
            self.broken = true;
            self.report();
        }
        if peer == self.host {
            self.report();
        }
        if let Some(coordinator) = self.coordinator.as_mut().filter(|_| !fresh) {
            coordinator.on_reconnected(peer);
        }
        // The coordinator says nothing of a view to one who has not been told of it on this connection: what cannot be
        // understood yet would stand in front of what explains it.
        if !broken && self.coordinator.is_none() {
            self.send_due(peer);
        }
    }

    fn on_lost(&mut self, peer: PeerId) {
        if self.own == Own::Left && !self.alone {
            return;
        }
        self.hub.event(Event::PeerLost { peer });
        if let Some(coordinator) = &mut self.coordinator {
            coordinator.on_lost(peer);
        } else if peer == self.host {
            // With nothing left to agree on, it is not missed.
            if self.released || self.last || self.own == Own::Leaving {
                self.become_left();
            }
        } else if self.members.contains(&peer) && self.is_in_view() {
            self.suspect = Some(peer);
            self.report();
        }
    }

    fn on_message(&mut self, peer: PeerId, header: Header) {
        match header.kind {
            // The coordinator knows of every view first: for it, one above its own is of a run before it.
            Kind::Up | Kind::Down | Kind::Fetch | Kind::State
                if header.sequence > self.view && self.coordinator.is_none() =>
            {
                self.hold(peer, header);
            }
            Kind::Up | Kind::Down if header.sequence != self.view || !self.is_in_view() => {
                self.hub.discard(peer, header);
            }
            Kind::Up => self.on_up(peer, header),
            Kind::Down => self.on_down(peer, header),
            Kind::State => self.on_state(peer, header),
            Kind::Fetch => self.on_fetch(peer, header),
            Kind::Report if self.coordinator.is_some() => self.on_report(peer, &header),
            Kind::Leave if self.coordinator.is_some() => {
                self.hub.mark_left(peer);
                if let Some(coordinator) = &mut self.coordinator {
                    coordinator.on_goodbye(peer);
                }
            }
            Kind::Member | Kind::View if peer == self.host => self.on_view(&header),
            Kind::Release if peer == self.host => self.on_release(),
            kind => self.hub.close(peer, ProtocolError::Unexpected { kind }),
        }
    }

    /// Keeps a message of a view that has not been heard of: its body, if it has one, stays with the sender.
    fn hold(&mut self, peer: PeerId, header: Header) {
        if header.length > 0 {
            self.hub.hold(peer, header);
        } else if self.early.len() < EARLY_MAX {
            self.early.push_back((peer, header));
        } else {
            self.hub.close(peer, ProtocolError::Unexpected { kind: header.kind });
        }
    }

    /// Messages of a view that had not been heard of when they came.
    fn take_held(&mut self) {
        let due = self.early_for != self.view;
        self.early_for = self.view;
        for _ in 0..if due { self.early.len() } else { 0 } {
            let Some((peer, header)) = self.early.pop_front() else { return };
            match header.sequence > self.view {
                true => self.early.push_back((peer, header)),
                false if self.hub.is_agreed(peer) => self.on_message(peer, header),
                false => {}
            }
        }
        loop {
            let view = self.view;
            let (stopped, clear) = (!self.is_in_view(), self.exchange.is_clear());
            // Once everyone stops, nothing is worth waiting for.
            let may = |header: &Header| stopped || ((clear || header.kind != Kind::Up) && !self.must_wait(header));
            let due = |header: &Header| header.sequence < view || (header.sequence == view && may(header));
            let Some((peer, header)) = self.hub.held().find(|(_, header)| due(header)) else { return };
            self.hub.release(peer, &header);
            self.on_message(peer, header);
        }
    }

    fn on_done(&mut self, job: Job, result: KernelResult) {
        match job {
            Job::Receive(arrival) => self.on_arrived(arrival),
            Job::Scan(arrival) => self.on_scanned(arrival, result),
            Job::Mean { epoch, chunk } => self.on_mean(epoch, chunk),
            Job::Up { epoch, chunk } => self.on_up_sent(epoch, chunk),
            Job::Down { epoch } => {
                self.exchange.sent(epoch);
            }
            Job::Result { epoch, chunk, weight, last } => self.on_result(epoch, chunk, weight, last),
            Job::State { epoch, round } => self.on_fetched(epoch, round),
            Job::Give => self.giving -= 1,
            Job::Aside => {}
            Job::Goodbye => self.hub.signal(Signal::Left),
        }
    }

    fn on_failed(&mut self, job: Job) {
        match job {
            // What was not received comes again when the connection is back, in the next view.
            Job::Receive(Arrival { epoch, .. }) | Job::Result { epoch, .. } | Job::State { epoch, .. } => {
                self.exchange.ended(epoch);
            }
            Job::Up { epoch, .. } | Job::Down { epoch } => {
                self.exchange.sent(epoch);
            }
            Job::Give => self.giving -= 1,
            Job::Goodbye => self.own = Own::Leaving,
            Job::Scan(_) | Job::Mean { .. } | Job::Aside => {}
        }
    }

    fn note_waiting(&mut self) {
        let current = self.round.next();
        let hosts = self.coordinator.as_ref().and_then(Coordinator::awaited).filter(|peer| *peer != self.hub.setup.me);
        let coordinator = || if self.coordinator.is_some() { hosts } else { Some(self.host) };
        let awaited = match self.own {
            Own::Left if self.alone => hosts,
            Own::Left => None,
            Own::Computing if self.is_in_view() => None,
            // It has to say who goes on.
            _ if !self.is_in_view() || self.broken || self.suspect.is_some() => coordinator(),
            _ if self.ready.is_some() => None,
            _ if self.fetching.is_some() => Some(self.donor),
            _ if self.last || self.own == Own::Leaving => coordinator(),
            _ => self.exchange.awaited(self.position(), &self.members),
        };
        match awaited {
            Some(peer) => self.hub.wait_for(peer, self.round, current),
            None => self.hub.stop_waiting(),
        }
        let Some(notice) = self.hub.take_stall() else { return };
        for peer in (0..self.hub.setup.cluster.workers).map(PeerId) {
            if peer != notice.origin && peer != self.hub.setup.me && self.hub.is_agreed(peer) {
                self.hub.notify(peer, notice);
            }
        }
    }

    /// The round that the view is in.
    fn current(&self) -> Clock {
        self.fetching.unwrap_or(self.round).next()
    }

    fn whole(&self, buffer: BufferId) -> Segment {
        Segment::floats(buffer, 0, self.hub.setup.len)
    }

    fn params(&self) -> BufferId {
        PLACES[self.params]
    }

    fn after(&self) -> BufferId {
        PLACES[1 - self.params]
    }
}

impl Machine for Collective {
    fn handle_input(&mut self, now: Instant, input: Input) -> Result<(), Misuse> {
        if let Some(notice) = self.hub.handle_input(now, input)? {
            self.on_notice(notice)?;
        }
        while let Some(peer) = self.hub.take_lost() {
            self.on_lost(peer);
        }
        self.advance();
        Ok(())
    }

    fn poll_output(&mut self) -> Output {
        self.hub.poll_output()
    }

    fn buffers(&self) -> Vec<usize> {
        let [ours, theirs] = self.hub.buffers();
        let len = self.hub.setup.len * 4;
        if self.alone {
            return vec![ours, theirs, len, 0, 0];
        }
        let mut buffers = vec![ours, theirs, len, len, len];
        buffers.extend(self.exchange.buffers());
        buffers
    }

    fn contribution(&self) -> BufferId {
        OWN
    }

    fn view(&self) -> BufferId {
        self.params()
    }

    fn waiting(&self) -> Option<Waiting> {
        self.hub.waiting()
    }

    fn status(&self) -> Status {
        let (round, current) = (self.round, self.exchange.given(self.position(), &self.members));
        let status =
            self.hub.status(Role::Collective, round, |peer| if current.contains(&peer) { round.next() } else { round });
        Status { view: self.view.0, members: self.members.len() as u32, ..status }
    }
}
