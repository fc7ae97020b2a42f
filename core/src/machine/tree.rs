//! A member of a reduction tree, for synchronous recipes: every round, weighted means go up and the result comes
//! down (Iandola et al. 2015, FireCaffe, section 3; the article's tree-reduce).
//!
//! ```text
//!   round r:   own contribution + children's means, in rank order -> mean -> parent      (Up)
//!              root: the mean is the result -> children -> their children               (Down)
//! ```
//! Rank 0 is the root; the children of rank i are `fan_in * i + 1 ..= fan_in * i + fan_in`. The shape and the order
//! of summation follow from the ranks alone, so the result does not depend on who comes first. A child that is lost
//! is left out, with all below it; the mean is over those who came. A parent that is lost cuts off its children.
//!
//! Round 0 brings the root's initial parameters down.

use alloc::vec;
use alloc::vec::Vec;

use super::{Event, Hub, Input, Machine, Misuse, Notice, Output, ProtocolError, Rejection, Setup};
use crate::buffer::{BufferId, Segment};
use crate::id::{Clock, PeerId, ShardId};
use crate::kernel::{Found, Kernel, MEAN_MAX};
use crate::recipe::Topology;
use crate::status::{Role, Status, Waiting};
use crate::time::Instant;
use crate::wire::{Header, Kind};

const VIEW: BufferId = BufferId(2);
const OWN: BufferId = BufferId(3);
const PARTIAL: BufferId = BufferId(4);
const FIRST_INBOX: u32 = 5;

/// A node of the tree. [`Machine::view`] holds the last result: at first the initial parameters, then means.
#[derive(Debug)]
pub(crate) struct Tree {
    hub: Hub<Job>,
    parent: Option<PeerId>,
    children: Vec<Child>,
    /// Rounds done.
    round: Clock,
    /// Weight of the last round's result.
    result: u32,
    /// Everyone was finishing in the last round: there are no more.
    last: bool,
    own: Own,
    /// The application makes no more contributions and stays for the end.
    finishing: bool,
    phase: Phase,
    /// Transmissions to the parent that still read the contribution or the partial mean.
    sending_up: u32,
    /// Transmissions to children that still read the view.
    sending_down: u32,
}

/// What the application has done for the current round.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Own {
    /// It waits for the initial parameters.
    Joining,
    /// It computes.
    Computing,
    /// It has contributed.
    Given {
        weight: u32,
    },
    /// It makes no more contributions; this node stays while it has children.
    Leaving,
    Left,
}

/// Where the current round is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// Contributions are still missing.
    Gathering,
    /// The mean is being computed.
    Reducing { weight: u32 },
    /// The mean has gone up: `from` there, with this weight.
    Sent { weight: u32, from: BufferId },
    /// The result is being received.
    Receiving,
    /// The result is here, and waits for the buffers of the round to be free.
    Done,
}

#[derive(Copy, Clone, Debug)]
enum Job {
    Receive { child: usize, weight: u32, finishing: bool },
    Scan { child: usize, weight: u32, finishing: bool },
    Reduce,
    Up,
    Result { weight: u32, last: bool },
    Down,
    Leave,
}

#[derive(Copy, Clone, Debug)]
struct Child {
    peer: PeerId,
    state: ChildState,
    /// Its contribution to the current round.
    given: Option<Given>,
    /// Its contribution is being received or scanned.
    busy: bool,
}

#[derive(Copy, Clone, Debug)]
struct Given {
    weight: u32,
    /// All of its subtree is finishing.
    finishing: bool,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum ChildState {
    Awaited,
    Present,
    /// Given up: no longer part of any round, and refused if it comes back.
    Lost,
    /// It has left: no longer part of any round.
    Left,
}

impl Child {
    /// Is it no longer part of any round?
    fn is_gone(&self) -> bool {
        matches!(self.state, ChildState::Lost | ChildState::Left)
    }
}

impl Tree {
    pub(crate) fn new(setup: Setup) -> Self {
        let Topology::Tree { fan_in } = setup.recipe.topology else { unreachable!("a tree's recipe says tree") };
        let (me, workers) = (setup.me.0, setup.cluster.workers);
        let first = me.saturating_mul(fan_in).saturating_add(1);
        let children = (first..first.saturating_add(fan_in)).filter(|rank| *rank < workers);
        let child = |rank| Child { peer: PeerId(rank), state: ChildState::Awaited, given: None, busy: false };
        let mut tree = Self {
            parent: (me > 0).then(|| PeerId((me - 1) / fan_in)),
            children: children.map(child).collect(),
            round: Clock(0),
            result: 1,
            last: false,
            own: Own::Joining,
            finishing: false,
            phase: Phase::Gathering,
            sending_up: 0,
            sending_down: 0,
            hub: Hub::new(setup),
        };
        if tree.parent.is_none() {
            tree.own = Own::Computing;
            tree.hub.event(Event::Joined);
        }
        tree
    }

    fn on_notice(&mut self, notice: Notice<Job>) -> Result<(), Misuse> {
        match notice {
            Notice::Agreed { peer, fresh } => self.on_agreed(peer, fresh),
            Notice::Message { peer, header } => self.on_message(peer, header),
            Notice::Done { purpose, found } => self.on_done(purpose, found),
            Notice::Failed { purpose } => self.on_failed(purpose),
            Notice::Step { weight } => self.on_step(weight)?,
            Notice::Leave { stay } => self.on_leave(stay)?,
            Notice::Rate { .. } | Notice::Tick => {}
        }
        Ok(())
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
                Ok(())
            }
        }
    }

    /// A node without children tells its parent and is gone; another goes on relaying until they have left.
    fn maybe_leave(&mut self) {
        if self.own != Own::Leaving || !self.children.iter().all(Child::is_gone) {
            return;
        }
        match self.parent {
            Some(parent) if self.hub.is_agreed(parent) => {
                self.own = Own::Left;
                let header = Header { sequence: crate::id::Sequence(self.round.0), ..self.hub.header(Kind::Leave) };
                self.hub.transmit(parent, header, None, Job::Leave);
            }
            Some(_) => {}
            None => self.become_left(),
        }
    }

    fn become_left(&mut self) {
        self.own = Own::Left;
        self.hub.event(Event::Left);
    }

    // Neighbours

    fn on_agreed(&mut self, peer: PeerId, fresh: bool) {
        if self.parent == Some(peer) {
            if fresh && self.own != Own::Joining {
                // A parent that restarted has forgotten the round.
                self.hub.event(Event::Cut { peer });
            } else if let Phase::Sent { weight, from } = self.phase {
                self.hub.counters.resent += 1;
                self.send_up(weight, from);
            }
        } else if let Some(child) = self.children.iter().position(|child| child.peer == peer) {
            match self.children[child].state {
                // Only its farewell got lost: it says so again.
                ChildState::Left if !fresh => return,
                ChildState::Awaited => {}
                ChildState::Present if !fresh => {}
                _ => {
                    self.hub.refuse(peer);
                    self.give_up(child);
                    return;
                }
            }
            if self.children[child].state == ChildState::Awaited {
                let incarnation = self.hub.incarnation(peer);
                self.hub.event(Event::PeerJoined { peer, incarnation });
                self.children[child].state = ChildState::Present;
            }
            if self.own != Own::Joining {
                self.send_down(child);
            }
        }
    }

    fn give_up(&mut self, child: usize) {
        if !self.children[child].is_gone() {
            self.children[child].state = ChildState::Lost;
            self.hub.event(Event::PeerLost { peer: self.children[child].peer });
        }
    }

    fn on_lost(&mut self, peer: PeerId) {
        if self.parent == Some(peer) {
            let alone = self.children.iter().all(Child::is_gone);
            match self.own {
                Own::Left => {}
                // It need not be told any more.
                Own::Leaving if alone => self.become_left(),
                _ => self.hub.event(Event::Cut { peer }),
            }
        } else if let Some(child) = self.children.iter().position(|child| child.peer == peer) {
            self.give_up(child);
        }
    }

    fn on_message(&mut self, peer: PeerId, header: Header) {
        let child = self.children.iter().position(|child| child.peer == peer && child.state == ChildState::Present);
        match (header.kind, child) {
            (Kind::Up, Some(child)) => self.on_up(child, header),
            (Kind::Leave, Some(child)) => {
                self.hub.mark_left(peer);
                self.children[child].state = ChildState::Left;
            }
            (Kind::Leave, None) if self.children.iter().any(|c| c.peer == peer && c.state == ChildState::Left) => {}
            (Kind::Down, None) if self.parent == Some(peer) => self.on_down(peer, header),
            (kind, _) => self.hub.close(peer, ProtocolError::Unexpected { kind }),
        }
    }

    fn check_length(&self, header: &Header) -> Result<(), ProtocolError> {
        let expected = if header.weight > 0 { self.whole(VIEW).len } else { 0 };
        if header.length == expected {
            return Ok(());
        }
        Err(ProtocolError::Length { kind: header.kind, expected, got: header.length })
    }

    // Up

    fn on_up(&mut self, child: usize, header: Header) {
        let peer = self.children[child].peer;
        if let Err(reason) = self.check_length(&header) {
            return self.hub.close(peer, reason);
        }
        let (current, finishing) = (self.round.next(), header.base == Clock(1));
        if header.clock > current {
            self.hub.close(peer, ProtocolError::Gap { expected: current.0, got: header.clock.0 });
        } else if header.clock < current {
            // It has not seen the result: its connection broke in between.
            self.hub.counters.duplicates += 1;
            self.hub.discard(peer, header);
            self.send_down(child);
        } else if self.children[child].given.is_some() || self.children[child].busy {
            self.hub.counters.duplicates += 1;
            self.hub.discard(peer, header);
        } else if header.weight == 0 {
            self.hub.counters.empty += 1;
            self.children[child].given = Some(Given { weight: 0, finishing });
        } else {
            self.children[child].busy = true;
            let job = Job::Receive { child, weight: header.weight, finishing };
            self.hub.receive(peer, self.inbox(child), job);
        }
    }

    fn on_scanned(&mut self, child: usize, mut weight: u32, finishing: bool, found: Found) {
        let entry = &mut self.children[child];
        entry.busy = false;
        if let Found::NonFinite { index } = found {
            let reason = Rejection::NonFinite { shard: ShardId(0), index };
            self.hub.event(Event::Rejected { peer: entry.peer, reason });
            self.hub.counters.rejected += 1;
            weight = 0;
        } else {
            self.hub.counters.applied += 1;
            self.hub.staleness.record(0);
        }
        entry.given = Some(Given { weight, finishing });
    }

    /// Reduces when everyone below has contributed.
    fn maybe_reduce(&mut self) {
        let own = match self.own {
            Own::Given { weight } => weight,
            Own::Leaving => 0,
            Own::Joining | Own::Computing | Own::Left => return,
        };
        let complete = |child: &Child| match child.state {
            ChildState::Awaited => false,
            ChildState::Present => child.given.is_some(),
            ChildState::Lost | ChildState::Left => !child.busy,
        };
        let view_is_free = self.parent.is_some() || self.sending_down == 0;
        if self.phase != Phase::Gathering || !view_is_free || !self.children.iter().all(complete) {
            return;
        }
        if self.own == Own::Leaving && self.children.iter().all(Child::is_gone) {
            return;
        }
        let mut inputs = [None; MEAN_MAX];
        inputs[0] = (own > 0).then_some((self.whole(OWN), own));
        for (index, child) in self.children.iter().enumerate() {
            let weight = child.given.map_or(0, |given| given.weight);
            inputs[index + 1] = (weight > 0).then_some((self.inbox(index), weight));
        }
        let weight = inputs.iter().flatten().fold(0u32, |sum, (_, weight)| sum.saturating_add(*weight));
        self.hub.counters.applications += 1;
        if planted!(self.hub, DenominatorByCount) {
            inputs.iter_mut().flatten().for_each(|(_, weight)| *weight = 1);
        }
        self.phase = Phase::Reducing { weight };
        let only_own = inputs[1..].iter().all(Option::is_none);
        if weight == 0 || (only_own && self.parent.is_some()) {
            self.on_reduced(OWN);
        } else {
            let into = self.whole(if self.parent.is_some() { PARTIAL } else { VIEW });
            self.hub.compute(Kernel::Mean { inputs, into }, Job::Reduce);
        }
    }

    fn on_reduced(&mut self, from: BufferId) {
        let Phase::Reducing { weight } = self.phase else { return };
        if self.parent.is_some() {
            self.phase = Phase::Sent { weight, from };
            self.send_up(weight, from);
        } else {
            let last = self.subtree_finishes();
            self.on_result(weight, last);
        }
    }

    fn subtree_finishes(&self) -> bool {
        let below = |child: &Child| child.given.is_none_or(|given| given.finishing);
        (self.finishing || self.own == Own::Leaving) && self.children.iter().all(below)
    }

    fn send_up(&mut self, weight: u32, from: BufferId) {
        let Some(parent) = self.parent.filter(|parent| self.hub.is_agreed(*parent)) else { return };
        let body = (weight > 0).then(|| self.whole(from));
        let header = Header {
            clock: self.round.next(),
            weight,
            base: Clock(u64::from(self.subtree_finishes())),
            length: body.map_or(0, |body| body.len),
            ..self.hub.header(Kind::Up)
        };
        self.sending_up += 1;
        self.hub.transmit(parent, header, body, Job::Up);
    }

    // Down

    fn on_down(&mut self, peer: PeerId, header: Header) {
        if let Err(reason) = self.check_length(&header) {
            return self.hub.close(peer, reason);
        }
        let expected = if self.own == Own::Joining { header.clock } else { self.round.next() };
        if header.clock > expected {
            self.hub.close(peer, ProtocolError::Gap { expected: expected.0, got: header.clock.0 });
        } else if header.clock < expected || self.phase == Phase::Receiving {
            self.hub.discard(peer, header);
        } else if self.own != Own::Joining && !matches!(self.phase, Phase::Sent { .. }) {
            self.hub.close(peer, ProtocolError::Unexpected { kind: Kind::Down });
        } else {
            self.hub.hold(peer, header);
        }
    }

    /// Takes the result when nobody reads the last one any more.
    fn maybe_receive(&mut self) {
        if self.sending_down > 0 {
            return;
        }
        let Some((peer, header)) = self.hub.take_held() else { return };
        self.phase = Phase::Receiving;
        if self.own == Own::Joining {
            self.round = header.clock;
        }
        let (weight, last) = (header.weight, header.base == Clock(1));
        if weight == 0 {
            self.on_result(weight, last);
        } else {
            self.hub.receive(peer, self.whole(VIEW), Job::Result { weight, last });
        }
    }

    fn on_result(&mut self, weight: u32, last: bool) {
        self.phase = Phase::Done;
        (self.result, self.last) = (weight, last);
        if self.own == Own::Joining {
            self.phase = Phase::Gathering;
            self.own = Own::Computing;
            self.hub.event(Event::Joined);
        } else {
            self.round = self.round.next();
        }
        for child in 0..self.children.len() {
            self.children[child].given = None;
            self.send_down(child);
        }
        // After the last round, leaving goes up from the leaves, so that nobody is gone before its children know.
        if last {
            self.own = Own::Leaving;
        }
    }

    /// Sends the last result to a child.
    fn send_down(&mut self, child: usize) {
        let Child { peer, state, .. } = self.children[child];
        // While the view is being written, there is nothing to send; what is written is sent after.
        let writing = match self.phase {
            Phase::Receiving => true,
            Phase::Reducing { .. } => self.parent.is_none(),
            _ => false,
        };
        if state != ChildState::Present || !self.hub.is_agreed(peer) || writing {
            return;
        }
        let body = (self.result > 0).then(|| self.whole(VIEW));
        let header = Header {
            clock: self.round,
            weight: self.result,
            base: Clock(u64::from(self.last)),
            length: body.map_or(0, |body| body.len),
            ..self.hub.header(Kind::Down)
        };
        self.sending_down += 1;
        self.hub.transmit(peer, header, body, Job::Down);
    }

    /// Lets the application go on, when its contribution is no longer read.
    fn maybe_ready(&mut self) {
        if self.phase != Phase::Done || self.sending_up > 0 {
            return;
        }
        self.phase = Phase::Gathering;
        if matches!(self.own, Own::Given { .. }) {
            self.own = Own::Computing;
            self.hub.event(Event::Ready { clock: self.round, changed: self.result > 0 });
        }
    }

    fn on_done(&mut self, job: Job, found: Found) {
        match job {
            Job::Receive { child, weight, finishing } => {
                self.hub.compute(Kernel::Scan { x: self.inbox(child) }, Job::Scan { child, weight, finishing });
            }
            Job::Scan { child, weight, finishing } => self.on_scanned(child, weight, finishing, found),
            Job::Reduce => self.on_reduced(PARTIAL),
            Job::Up => self.sending_up -= 1,
            Job::Result { weight, last } => self.on_result(weight, last),
            Job::Down => self.sending_down -= 1,
            Job::Leave => self.hub.event(Event::Left),
        }
    }

    fn on_failed(&mut self, job: Job) {
        match job {
            Job::Receive { child, .. } => self.children[child].busy = false,
            Job::Up => self.sending_up -= 1,
            Job::Down => self.sending_down -= 1,
            // The view is torn until the result comes again; what was sent up is still there.
            Job::Result { .. } if self.own == Own::Joining => self.phase = Phase::Gathering,
            Job::Result { .. } => self.phase = self.sent(),
            Job::Leave => self.own = Own::Leaving,
            Job::Scan { .. } | Job::Reduce => {}
        }
    }

    /// The phase before the result came: what went up can be told from what was given.
    fn sent(&self) -> Phase {
        let children = self.children.iter().filter_map(|child| child.given);
        let below = children.fold(0u32, |sum, given| sum.saturating_add(given.weight));
        let own = if let Own::Given { weight } = self.own { weight } else { 0 };
        Phase::Sent { weight: below.saturating_add(own), from: if below > 0 { PARTIAL } else { OWN } }
    }

    fn note_waiting(&mut self) {
        let current = self.round.next();
        let missing = self.children.iter().find(|child| !child.is_gone() && child.given.is_none());
        let awaited = match (self.own, self.phase) {
            (Own::Computing | Own::Left, _) => None,
            (Own::Joining, _) => self.parent,
            (_, Phase::Gathering) => missing.map(|child| child.peer),
            _ => self.parent,
        };
        match awaited {
            Some(peer) => self.hub.wait_for(peer, self.round, current),
            None => self.hub.stop_waiting(),
        }
        let Some(notice) = self.hub.take_stall() else { return };
        let joining = self.own == Own::Joining;
        let waiting = self.children.iter().filter(|child| joining || child.given.is_some()).map(|child| child.peer);
        let parent = self.parent.filter(|_| self.phase == Phase::Gathering);
        for peer in waiting.chain(parent).collect::<Vec<_>>() {
            if peer != notice.origin && self.hub.is_agreed(peer) {
                self.hub.notify(peer, notice);
            }
        }
    }

    fn inbox(&self, child: usize) -> Segment {
        self.whole(BufferId(FIRST_INBOX + child as u32))
    }

    fn whole(&self, buffer: BufferId) -> Segment {
        Segment::floats(buffer, 0, self.hub.setup.len)
    }
}

impl Machine for Tree {
    fn handle_input(&mut self, now: Instant, input: Input) -> Result<(), Misuse> {
        if let Some(notice) = self.hub.handle_input(now, input)? {
            self.on_notice(notice)?;
        }
        while let Some(peer) = self.hub.take_lost() {
            self.on_lost(peer);
        }
        self.maybe_receive();
        self.maybe_ready();
        self.maybe_reduce();
        self.maybe_ready();
        self.maybe_leave();
        self.note_waiting();
        Ok(())
    }

    fn poll_output(&mut self) -> Output {
        self.hub.poll_output()
    }

    fn buffers(&self) -> Vec<usize> {
        let [ours, theirs] = self.hub.buffers();
        let len = self.hub.setup.len * 4;
        let partial = if self.children.is_empty() { 0 } else { len };
        let mut buffers = vec![ours, theirs, len, len, partial];
        buffers.extend(self.children.iter().map(|_| len));
        buffers
    }

    fn contribution(&self) -> BufferId {
        OWN
    }

    fn view(&self) -> BufferId {
        VIEW
    }

    fn waiting(&self) -> Option<Waiting> {
        self.hub.waiting()
    }

    fn status(&self) -> Status {
        let round = self.round;
        self.hub.status(Role::Tree, round, |peer| {
            let given = self.children.iter().any(|child| child.peer == peer && child.given.is_some());
            if given { round.next() } else { round }
        })
    }
}
