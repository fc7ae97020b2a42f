//! Machines, input by input. A test reads like a trace: the inputs that arrive, and the outputs that must follow.
//!
//! [`Trace`] is the vocabulary. It runs kernels at once and leaves transfers to the test, so that a test decides when a
//! body has arrived or has been sent. Every output must be expected: [`Trace::expect_idle`] fails if any is left.

mod collective;
mod first;
mod hub;
mod mesh;
mod ranges;
mod resume;
mod rounds;
mod server;
mod thin;
mod wanted;
mod worker;

use alloc::collections::VecDeque;

use super::*;
use crate::buffer::{Pool, Segment};
use crate::id::{OpId, Sequence, ShardId};
use crate::kernel::{self, KernelResult};
use crate::time::Duration;
use crate::wire::{Header, Hello, Kind, Message, Occasion, Push, Reply};

/// A machine under test, with its buffers.
struct Trace {
    machine: Node,
    pool: Pool,
    setup: Setup,
    now: Instant,
    /// Outputs that the test has not looked at.
    wants: VecDeque<Output>,
}

/// Floats of the vector.
const LEN: usize = 4;
/// The process of the machine under test. Peers are process 1 unless a test says otherwise.
const OWN: Incarnation = Incarnation(900);

/// Node `me` in a new run, with parameters of zero.
fn trace(recipe: Recipe, me: u32, workers: u32) -> Trace {
    trace_of(recipe, me, workers, |setup| setup)
}

/// The same, with another setup.
fn trace_of(recipe: Recipe, me: u32, workers: u32, change: impl FnOnce(Setup) -> Setup) -> Trace {
    let cluster = Cluster { workers, servers: u32::from(recipe.needs_servers()) };
    let setup = change(Setup {
        incarnation: OWN,
        patience: Patience::new(Duration::from_secs(1)),
        ..Setup::new(PeerId(me), cluster, recipe, &Layout::flat(LEN), 0)
    });
    let machine = Node::new(setup.clone()).unwrap();
    trace_machine(machine, setup)
}

/// A machine that has been made otherwise.
fn trace_machine(machine: Node, setup: Setup) -> Trace {
    let mut pool = Pool::new(machine.buffers());
    let text = Segment { buffer: OURS, start: 0, len: setup.contract.len() };
    pool.bytes_mut(text).copy_from_slice(setup.contract.text().as_bytes());
    let mut trace = Trace { machine, pool, setup, now: Instant::ORIGIN, wants: VecDeque::new() };
    trace.feed(Input::Timeout);
    trace
}

fn joined(peer: u32, incarnation: u64) -> Event {
    Event::PeerJoined { peer: PeerId(peer), incarnation: Incarnation(incarnation) }
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

    /// Runs kernels, and keeps the other outputs for the test.
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

    /// When the machine wants to be woken.
    fn until(&mut self) -> Option<Instant> {
        match self.machine.poll_output() {
            Output::Wait { until } => until,
            output => panic!("{output:?}"),
        }
    }

    // Inputs that arrive

    /// The header of a message of process `incarnation` of `from`, with a body of `length` bytes.
    fn header(&self, from: u32, incarnation: u64, length: usize, message: Message) -> Input {
        let digest = self.setup.contract.digest() as u32;
        let header = Header::new(digest, PeerId(from), Incarnation(incarnation), length as u32, message);
        Input::Header { peer: PeerId(from), header }
    }

    /// A message without a body.
    fn tell(&mut self, from: u32, message: Message) -> &mut Self {
        let input = self.header(from, 1, 0, message);
        self.feed(input)
    }

    /// A message with a body of `LEN` floats of `value`. If the machine takes the body now, it gets it.
    fn send(&mut self, from: u32, message: Message, value: f32) -> &mut Self {
        let floats = if message.kind() == Kind::Ledger { kernel::ledger::words(LEN) } else { LEN };
        self.announce(from, message, floats).receive(from, value)
    }

    /// The header of a message with a body of `floats` floats, which stays with the sender.
    fn announce(&mut self, from: u32, message: Message, floats: usize) -> &mut Self {
        let input = self.header(from, 1, floats * 4, message);
        self.feed(input)
    }

    /// If the machine takes the body now, it holds `value` in every element.
    fn receive(&mut self, from: u32, value: f32) -> &mut Self {
        if let Some((op, into)) = self.take_receive(from) {
            if let Some(into) = into {
                self.pool.floats_mut(into).fill(value);
            }
            self.feed(Input::Completed { op, result: KernelResult::Nothing });
        }
        self
    }

    /// The body that the machine wants to read from this peer, if any.
    fn take_receive(&mut self, from: u32) -> Option<(OpId, Option<Segment>)> {
        let taken = self.wants.iter().position(|want| matches!(want, Output::Receive { peer, .. } if peer.0 == from));
        match taken.and_then(|index| self.wants.remove(index)) {
            Some(Output::Receive { op, into, .. }) => {
                into.into_iter().for_each(|into| self.pool.make_room_for(into));
                Some((op, into))
            }
            _ => None,
        }
    }

    /// A peer connects and says hello; this node's hello goes out.
    #[track_caller]
    fn hello(&mut self, peer: u32, incarnation: u64) -> &mut Self {
        self.hello_of(peer, incarnation, false)
    }

    #[track_caller]
    fn hello_of(&mut self, peer: u32, incarnation: u64, has_parameters: bool) -> &mut Self {
        self.feed(Input::Connected { peer: PeerId(peer) });
        self.expect_transmit(peer, Kind::Hello);
        let (rank, digest) = (PeerId(peer), self.setup.contract.digest());
        let hello =
            Hello { rank, incarnation: Incarnation(incarnation), digest, has_parameters, resumed_at: Clock(0), run: 0 };
        let input = self.header(peer, incarnation, 0, Message::Hello(hello));
        self.feed(input)
    }

    fn disconnect(&mut self, peer: u32) -> &mut Self {
        self.feed(Input::Disconnected { peer: PeerId(peer) })
    }

    /// The application contributes `value` in every element.
    fn step(&mut self, value: f32) -> &mut Self {
        let contribution = Segment::floats(self.machine.contribution(), 0, LEN);
        self.pool.floats_mut(contribution).fill(value);
        self.feed(Input::Step { weight: 1 })
    }

    /// A worker pushes `value` in every element, as its `sequence`-th update, made from version `base`.
    fn push(&mut self, worker: u32, sequence: u64, base: u64, value: f32) -> &mut Self {
        self.push_of(worker, 1, sequence, base, value)
    }

    fn push_of(&mut self, worker: u32, incarnation: u64, sequence: u64, base: u64, value: f32) -> &mut Self {
        let push = push_message(worker, incarnation, sequence, base);
        let input = self.header(worker, incarnation, LEN * 4, Message::Push(push));
        self.feed(input).receive(worker, value)
    }

    // Outputs that must follow

    /// The next output is a message of this kind; its transmission completes.
    #[track_caller]
    fn expect_transmit(&mut self, to: u32, kind: Kind) -> Message {
        let (op, message, _) = self.expect_sending(to, kind);
        self.feed(Input::Completed { op, result: KernelResult::Nothing });
        message
    }

    /// The next output is a message of this kind; its transmission is under way, and reads this segment.
    #[track_caller]
    fn expect_sending(&mut self, to: u32, kind: Kind) -> (OpId, Message, Option<Segment>) {
        let want = self.wants.pop_front();
        let Some(Output::Transmit { op, peer, header, body }) = want else {
            panic!("{kind:?} to {to} expected, got {want:?}")
        };
        assert_eq!((peer, header.kind()), (PeerId(to), kind), "{header:?}");
        (op, *header.message(), body)
    }

    /// Parameters to a worker: its last update that is in, version and row clock.
    #[track_caller]
    fn expect_params(&mut self, to: u32, sequence: u64, version: u64, row: u64) -> &mut Self {
        let message = self.expect_transmit(to, Kind::Params);
        let Message::Params(reply) = message else { panic!("{message:?}") };
        assert_eq!((reply.sequence.0, reply.version.0, reply.row.0), (sequence, version, row), "{message:?}");
        self
    }

    #[track_caller]
    fn expect_signal(&mut self, signal: Signal) -> &mut Self {
        assert_eq!(self.wants.pop_front(), Some(Output::Signal(signal)));
        self
    }

    #[track_caller]
    fn expect_ready(&mut self, clock: u64) -> &mut Self {
        self.expect_signal(Signal::Ready { clock: Clock(clock), changed: true })
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

    /// Every element of the parameters has this value.
    #[track_caller]
    fn expect_view(&mut self, value: f32) -> &mut Self {
        let view = Segment::floats(self.machine.view(), 0, LEN);
        assert_eq!(self.pool.floats(view), [value; LEN]);
        self
    }

    /// The node waits for this peer.
    #[track_caller]
    fn expect_waiting(&mut self, on: Option<u32>) -> &mut Self {
        assert_eq!(self.machine.waiting().map(|waiting| waiting.on), on.map(PeerId));
        self
    }

    fn counters(&self) -> crate::status::Counters {
        self.machine.status().counters
    }
}

/// The `sequence`-th update of a worker, made from version `base` of shard 0, of one example.
fn push_message(worker: u32, incarnation: u64, sequence: u64, base: u64) -> Push {
    Push {
        shard: ShardId(0),
        worker: PeerId(worker),
        incarnation: Incarnation(incarnation),
        sequence: Sequence(sequence),
        base: Clock(base),
        weight: 1,
        repeats: false,
        fetches: true,
        step_time: None,
        rider: None,
    }
}

/// Parameters of shard 0: the worker's last update that is in, version and row clock.
fn reply(occasion: Occasion, sequence: u64, version: u64, row: u64) -> Reply {
    let (sequence, row, version) = (Sequence(sequence), Clock(row), Clock(version));
    Reply { shard: ShardId(0), sequence, row, version, occasion, magnitude: None }
}
