//! Machines, input by input. A test reads like a trace: what comes in, what must go out.

use alloc::collections::VecDeque;
use alloc::string::ToString;

use super::*;
use crate::buffer::Pool;
use crate::buffer::Segment;
use crate::id::Sequence;
use crate::id::{OpId, ShardId};
use crate::kernel;
use crate::kernel::KernelResult;
use crate::layout::Layout;
use crate::recipe::Staleness;
use crate::recipe::Topology;
use crate::status::Presence;
use crate::time::Duration;
use crate::time::Instant;
use crate::wire::{Header, Kind};

/// A machine under test, with its buffers; kernels run, transfers wait for the test.
struct Trace {
    machine: Node,
    pool: Pool,
    setup: Setup,
    now: Instant,
    /// What it wants and the test has not looked at.
    wants: VecDeque<Output>,
}

const LEN: usize = 4;

fn trace(recipe: Recipe, me: u32, workers: u32) -> Trace {
    let cluster = Cluster { workers, servers: u32::from(recipe.needs_servers()) };
    let setup = Setup {
        incarnation: Incarnation(900),
        patience: Patience::new(Duration::from_secs(1)),
        ..Setup::new(PeerId(me), cluster, recipe, &Layout::flat(LEN), 0)
    };
    let (machine, pool) = Node::open(setup.clone(), &[]).unwrap();
    let mut trace = Trace { machine, pool, setup, now: Instant::ORIGIN, wants: VecDeque::new() };
    trace.feed(Input::Timeout);
    trace
}

/// A server (rank `workers`) whose workers have all joined and been welcomed.
fn server(recipe: Recipe, workers: u32) -> Trace {
    let mut server = trace(recipe, workers, workers);
    for worker in 0..workers {
        server.hello(worker, 1);
        server.expect_event(Event::PeerJoined { peer: PeerId(worker), incarnation: Incarnation(1) });
    }
    for worker in 0..workers {
        server.expect_params(worker, 0, 0, 0);
    }
    server.expect_idle();
    server
}

impl Trace {
    fn at(&mut self, millis: u64) -> &mut Self {
        self.now = Instant::from_nanos(millis * 1_000_000);
        self
    }

    fn feed(&mut self, input: Input) -> &mut Self {
        self.machine.handle_input(self.now, input).unwrap();
        self.drain();
        self
    }

    fn drain(&mut self) {
        loop {
            match self.machine.poll_output() {
                Output::Wait { .. } => return,
                Output::Compute { op, kernel } => {
                    let result = kernel::run(&kernel, &mut self.pool);
                    self.machine.handle_input(self.now, Input::Completed { op, result }).unwrap();
                }
                output => self.wants.push_back(output),
            }
        }
    }

    fn header(&self, from: u32, kind: Kind, incarnation: u64) -> Header {
        Header {
            kind,
            digest: self.setup.contract.digest() as u32,
            origin: PeerId(from),
            shard: ShardId(0),
            weight: 0,
            incarnation: Incarnation(incarnation),
            sequence: Sequence(0),
            clock: Clock(0),
            base: Clock(0),
            length: 0,
        }
    }

    /// A peer connects and says hello; our own hello goes out.
    #[track_caller]
    fn hello(&mut self, peer: u32, incarnation: u64) -> &mut Self {
        self.feed(Input::Connected { peer: PeerId(peer) });
        self.expect_transmit(peer, Kind::Hello);
        let base = Clock(self.setup.contract.digest());
        let header = Header { base, ..self.header(peer, Kind::Hello, incarnation) };
        self.feed(Input::Header { peer: PeerId(peer), header })
    }

    /// A worker pushes `value` in every element, as its `sequence`-th update, made from version `base`.
    fn push(&mut self, worker: u32, sequence: u64, base: u64, value: f32) -> &mut Self {
        self.push_of(worker, 1, sequence, base, value)
    }

    fn push_of(&mut self, worker: u32, incarnation: u64, sequence: u64, base: u64, value: f32) -> &mut Self {
        let header = Header {
            weight: 1,
            sequence: Sequence(sequence),
            base: Clock(base),
            length: LEN as u32 * 4,
            ..self.header(worker, Kind::Push, incarnation)
        };
        self.feed(Input::Header { peer: PeerId(worker), header });
        self.receive(worker, value)
    }

    /// If the machine takes the body now, it holds `value` in every element.
    fn receive(&mut self, from: u32, value: f32) -> &mut Self {
        let taken = self.wants.iter().position(|want| matches!(want, Output::Receive { peer, .. } if peer.0 == from));
        if let Some(Output::Receive { op, into, .. }) = taken.and_then(|index| self.wants.remove(index)) {
            if let Some(into) = into {
                self.pool.floats_mut(into).fill(value);
            }
            self.feed(Input::Completed { op, result: KernelResult::Nothing });
        }
        self
    }

    fn disconnect(&mut self, peer: u32) -> &mut Self {
        self.feed(Input::Disconnected { peer: PeerId(peer) })
    }

    #[track_caller]
    fn expect_transmit(&mut self, to: u32, kind: Kind) -> Header {
        let want = self.wants.pop_front();
        let Some(Output::Transmit { op, peer, header, .. }) = want else {
            panic!("{kind:?} to {to} expected, got {want:?}")
        };
        assert_eq!((peer, header.kind), (PeerId(to), kind), "{header:?}");
        self.feed(Input::Completed { op, result: KernelResult::Nothing });
        header
    }

    /// Parameters to a worker: its last update that is in, version and row clock.
    #[track_caller]
    fn expect_params(&mut self, to: u32, sequence: u64, version: u64, row: u64) -> &mut Self {
        let header = self.expect_transmit(to, Kind::Params);
        assert_eq!((header.sequence.0, header.base.0, header.clock.0), (sequence, version, row), "{header:?}");
        self
    }

    #[track_caller]
    fn expect_signal(&mut self, signal: Signal) -> &mut Self {
        assert_eq!(self.wants.pop_front(), Some(Output::Signal(signal)));
        self
    }

    #[track_caller]
    fn expect_event(&mut self, event: Event) -> &mut Self {
        assert_eq!(self.wants.pop_front(), Some(Output::Event(event)));
        self
    }

    #[track_caller]
    fn expect_close(&mut self, peer: u32, reason: ProtocolError) -> &mut Self {
        assert_eq!(self.wants.pop_front(), Some(Output::Close { peer: PeerId(peer), reason }));
        self
    }

    #[track_caller]
    fn expect_idle(&mut self) -> &mut Self {
        assert_eq!(self.wants, []);
        self
    }

    fn counters(&self) -> crate::status::Counters {
        self.machine.status().counters
    }
}

#[test]
fn a_server_starts_when_all_workers_are_there() {
    let mut s = trace(Recipe::asynchronous(), 2, 2);
    s.at(1).hello(0, 1).expect_event(Event::PeerJoined { peer: PeerId(0), incarnation: Incarnation(1) });
    s.expect_idle();
    assert_eq!(s.machine.waiting().map(|waiting| waiting.on), Some(PeerId(1)));
    // A wait that lasts is reported, and those who wait for this node are told whom it waits for.
    s.at(2000).feed(Input::Timeout).expect_event(Event::Stalled {
        on: PeerId(1),
        at: Clock(0),
        since: Instant::ORIGIN,
    });
    assert_eq!(s.expect_transmit(0, Kind::Awaits).origin, PeerId(1));
    s.at(2100).hello(1, 1).expect_event(Event::PeerJoined { peer: PeerId(1), incarnation: Incarnation(1) });
    s.expect_params(0, 0, 0, 0).expect_params(1, 0, 0, 0).expect_idle();
}

#[test]
fn asynchronous_pushes_are_answered_at_once() {
    let mut s = server(Recipe::asynchronous(), 2);
    s.at(5).push(1, 1, 0, 0.5).expect_params(1, 1, 1, 0).expect_idle();
    s.at(6).push(0, 1, 0, 0.25).expect_params(0, 1, 2, 1).expect_idle();
    let staleness = s.machine.status().staleness;
    assert_eq!((staleness.sum(), staleness.count()), (1, 2));
}

/// Zhang et al. 2016, section 3: two updates make one application.
#[test]
fn softsync_applies_every_second_push() {
    let mut s = server(Recipe::softsync(2).with_staleness(Staleness::constant()), 3);
    s.push(2, 1, 0, 1.0).expect_params(2, 1, 0, 0);
    s.push(0, 1, 0, 1.0).expect_params(0, 1, 1, 0);
    s.push(1, 1, 0, 1.0).expect_params(1, 1, 1, 1).expect_idle();
    assert_eq!((s.counters().applications, s.counters().applied), (1, 3));
}

/// Ho et al. 2013, section 3: a worker one beyond the bound waits for the slowest, and for nobody else.
#[test]
fn a_worker_beyond_the_bound_waits_for_the_slowest() {
    let mut s = server(Recipe::ssp(1), 2);
    s.push(0, 1, 0, 0.0).expect_params(0, 1, 1, 0);
    s.push(0, 2, 1, 0.0).expect_idle();
    assert_eq!(s.machine.waiting().map(|waiting| (waiting.on, waiting.at)), Some((PeerId(1), Clock(0))));
    s.push(1, 1, 0, 0.0).expect_params(0, 2, 3, 1).expect_params(1, 1, 3, 1).expect_idle();
}

#[test]
fn a_lost_worker_holds_nobody_back() {
    let mut s = server(Recipe::ssp(0), 2);
    s.at(10).push(0, 1, 0, 0.0).expect_idle();
    s.at(20).disconnect(1).expect_idle();
    s.at(1019).feed(Input::Timeout).expect_idle();
    s.at(1020).feed(Input::Timeout).expect_event(Event::PeerLost { peer: PeerId(1) });
    s.expect_params(0, 1, 1, 1).expect_idle();
    assert_eq!(s.machine.status().workers[1].state, Presence::Lost);
    // It comes back, anew, at the clock of the others.
    s.at(2000).hello(1, 2).expect_event(Event::PeerJoined { peer: PeerId(1), incarnation: Incarnation(2) });
    s.expect_params(1, 0, 1, 1);
    s.push_of(1, 2, 1, 1, 0.0).expect_idle();
    s.push(0, 2, 1, 0.0).receive(1, 0.0).expect_params(0, 2, 2, 2).expect_params(1, 1, 2, 2).expect_idle();
}

#[test]
fn a_short_break_is_forgiven() {
    let mut s = server(Recipe::ssp(0), 2);
    // Its welcome may have got lost with the connection: it is said again.
    s.at(10).disconnect(1).at(900).hello(1, 1).expect_params(1, 0, 0, 0).expect_idle();
    s.at(901).push(0, 1, 0, 0.0).expect_idle();
    s.push(1, 1, 0, 0.0).expect_params(0, 1, 1, 1).expect_params(1, 1, 1, 1).expect_idle();
    assert_eq!(s.counters().reconnects, 1);
}

/// I-02: contributions of a round are taken in rank order, whoever comes first.
#[test]
fn a_round_is_taken_in_rank_order() {
    let recipe = Recipe::sync().with_topology(Topology::Servers { shards: 1 });
    let mut s = server(recipe, 3);
    s.push(2, 1, 0, 3.0).expect_idle();
    s.push(1, 1, 0, 2.0).expect_idle();
    s.push(0, 1, 0, 1.0);
    s.receive(1, 2.0).receive(2, 3.0);
    s.expect_params(0, 1, 1, 1).expect_params(1, 1, 1, 1).expect_params(2, 1, 1, 1).expect_idle();
}

/// R1: what comes twice is applied once, and answered again.
#[test]
fn a_push_that_comes_again_is_answered_and_not_applied() {
    let mut s = server(Recipe::asynchronous(), 2);
    s.push(0, 1, 0, 1.0).expect_params(0, 1, 1, 0);
    s.at(10).disconnect(0).at(20).hello(0, 1).expect_idle();
    s.push(0, 1, 0, 1.0).expect_params(0, 1, 1, 0).expect_idle();
    assert_eq!((s.counters().applied, s.counters().duplicates), (1, 1));
}

/// A zombie's contribution to a round that is over is dropped and counted, and it is told where the others are.
#[test]
fn a_contribution_to_a_round_that_is_over_is_late() {
    let mut s = server(Recipe::sync().with_topology(Topology::Servers { shards: 1 }), 2);
    s.at(10).disconnect(1).push(0, 1, 0, 1.0).expect_idle();
    s.at(1010).feed(Input::Timeout).expect_event(Event::PeerLost { peer: PeerId(1) }).expect_params(0, 1, 1, 1);
    s.at(1500).hello(1, 1).expect_event(Event::PeerJoined { peer: PeerId(1), incarnation: Incarnation(1) });
    s.expect_params(1, 0, 1, 1);
    s.push(1, 1, 0, 9.0).expect_params(1, 1, 1, 1).expect_idle();
    assert_eq!(s.counters().late, 1);
    s.push(0, 2, 1, 1.0).push(1, 2, 1, 1.0).expect_params(0, 2, 2, 2).expect_params(1, 2, 2, 2).expect_idle();
}

#[test]
fn peers_that_break_the_protocol_are_named_and_cut_off() {
    let push = |s: &Trace, change: fn(&mut Header)| {
        let mut header =
            Header { weight: 1, sequence: Sequence(1), length: LEN as u32 * 4, ..s.header(0, Kind::Push, 1) };
        change(&mut header);
        Input::Header { peer: PeerId(0), header }
    };
    type Change = fn(&mut Header);
    let broken: [(Change, &str); 7] = [
        (|h| h.digest ^= 1, "expected contract "),
        (|h| h.length = 12, "expected 16 bytes after Push, got 12"),
        (|h| h.shard = ShardId(7), "expected a shard that this node holds, got shard 7"),
        (|h| h.incarnation = Incarnation(5), "expected incarnation 1, got incarnation 5"),
        (|h| h.sequence = Sequence(3), "expected sequence 1, got 3"),
        (|h| h.base = Clock(9), "expected a base of at most clock 0, got clock 9"),
        (|h| h.kind = Kind::Quanta, "expected no Quanta at this role"),
    ];
    for (change, expected) in broken {
        let mut s = server(Recipe::asynchronous(), 2);
        let input = push(&s, change);
        s.feed(input);
        let Some(Output::Close { peer: PeerId(0), reason }) = s.wants.pop_front() else { panic!("{expected}") };
        assert!(reason.to_string().starts_with(expected), "{reason}, not {expected}");
        // The other worker is served as before.
        s.push(1, 1, 0, 1.0).expect_params(1, 1, 1, 0).expect_idle();
    }
}

#[test]
fn hellos_are_checked() {
    let mut s = trace(Recipe::asynchronous(), 2, 2);
    s.feed(Input::Connected { peer: PeerId(0) });
    s.expect_transmit(0, Kind::Hello);
    let early = s.header(0, Kind::Push, 1);
    s.feed(Input::Header { peer: PeerId(0), header: early });
    s.expect_close(0, ProtocolError::NoHello { kind: Kind::Push });
    s.feed(Input::Connected { peer: PeerId(0) });
    s.expect_transmit(0, Kind::Hello);
    let stranger = s.header(1, Kind::Hello, 1);
    s.feed(Input::Header { peer: PeerId(0), header: stranger });
    s.expect_close(0, ProtocolError::WrongRank { expected: PeerId(0), got: PeerId(1) }).expect_idle();
}

#[test]
fn another_contract_is_refused_by_its_first_differing_line() {
    let mut s = trace(Recipe::ssp(2), 2, 2);
    let contract = Contract::new(&Layout::flat(LEN), &Recipe::ssp(5), s.setup.cluster, 0);
    let text = contract.text();
    s.feed(Input::Connected { peer: PeerId(0) });
    s.expect_transmit(0, Kind::Hello);
    let base = Clock(contract.digest());
    let header = Header { base, length: text.len() as u32, ..s.header(0, Kind::Hello, 1) };
    s.feed(Input::Header { peer: PeerId(0), header });
    let Some(Output::Receive { op, into: Some(into), .. }) = s.wants.pop_front() else { panic!("the text is read") };
    s.pool.bytes_mut(into).copy_from_slice(text.as_bytes());
    s.feed(Input::Completed { op, result: KernelResult::Nothing });
    let line = text.lines().position(|line| line == "bound = 5").unwrap() as u32;
    s.expect_signal(Signal::ContractDiffers { peer: PeerId(0), line, length: text.len() as u32 });
    assert!(matches!(s.wants.pop_front(), Some(Output::Close { reason: ProtocolError::Contract { .. }, .. })));
}

#[test]
fn misuse_changes_nothing() {
    let mut s = server(Recipe::asynchronous(), 2);
    let before = s.machine.status();
    for (input, misuse) in [
        (Input::Step { weight: 1 }, Misuse::NotReady),
        (Input::Completed { op: OpId(99), result: KernelResult::Nothing }, Misuse::UnknownOp { op: OpId(99) }),
        (Input::Connected { peer: PeerId(2) }, Misuse::UnknownPeer { peer: PeerId(2) }),
        (Input::Disconnected { peer: PeerId(7) }, Misuse::UnknownPeer { peer: PeerId(7) }),
    ] {
        assert_eq!(s.machine.handle_input(s.now, input), Err(misuse));
    }
    assert_eq!(s.machine.status(), before);
    let mut worker = trace(Recipe::asynchronous(), 0, 2);
    assert_eq!(worker.machine.handle_input(worker.now, Input::Step { weight: 1 }), Err(Misuse::NotReady));
}

/// Time enters through inputs and never runs backwards; a deadline that has fired is not given again.
#[test]
fn deadlines_fire_once() {
    let mut s = server(Recipe::ssp(0), 2);
    s.at(100).push(0, 1, 0, 0.0);
    let until = |s: &mut Trace| match s.machine.poll_output() {
        Output::Wait { until } => until,
        other => panic!("{other:?}"),
    };
    let due = Instant::from_nanos(2_100_000_000);
    assert_eq!(until(&mut s), Some(due));
    s.at(50).feed(Input::Timeout).expect_idle();
    s.at(2100).feed(Input::Timeout);
    s.expect_event(Event::Stalled { on: PeerId(1), at: Clock(0), since: Instant::from_nanos(100_000_000) });
    s.expect_transmit(0, Kind::Awaits);
    assert_eq!(until(&mut s), None);
}

/// A relay that hears its own message again knows it.
#[test]
fn an_own_message_that_is_echoed_is_a_duplicate() {
    let mut m = trace(Recipe::mesh(0.5).with_topology(Topology::Mesh { relay: 1 }), 0, 2);
    m.hello(1, 1).expect_event(Event::PeerJoined { peer: PeerId(1), incarnation: Incarnation(1) });
    m.expect_transmit(1, Kind::Mark);
    let start = Header { base: Clock(1), ..m.header(1, Kind::Mark, 1) };
    m.feed(Input::Header { peer: PeerId(1), header: start }).expect_signal(Signal::Joined { clock: Clock(0) });
    m.expect_transmit(1, Kind::Mark);
    let update = Segment::floats(m.machine.contribution(), 0, LEN);
    m.pool.floats_mut(update).fill(1.0);
    m.feed(Input::Step { weight: 1 }).expect_signal(Signal::Ready { clock: Clock(1), changed: true });
    let echo = Header { sequence: Sequence(1), length: 4, ..m.header(0, Kind::Quanta, 900) };
    m.feed(Input::Header { peer: PeerId(1), header: echo });
    assert!(matches!(m.wants.pop_front(), Some(Output::Receive { into: None, .. })), "{:?}", m.wants);
    assert_eq!((m.counters().duplicates, m.counters().applied), (1, 0));
}
