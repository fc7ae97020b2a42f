//! A hostile member: machines of all roles receive arbitrary messages from peers with an accepted hello.
//!
//! The machine must not panic, must end its outputs, and must keep the number of open operations bounded.

use gradwire_core::kernel::{self, KernelResult};
use gradwire_core::wire::{Header, Hello, Message};
use gradwire_core::{
    Clock, Cluster, Incarnation, Input, Instant, Layout, Machine, Node, Output, Patience, PeerId, Pool, Recipe, Setup,
};

use super::Target;
use super::raw::Raw;

pub(crate) const TARGETS: &[Target] = &[("peer", peer, peer_seeds)];

const RECIPES: [&str; 9] = [
    "sync chunk=3",
    "averaging topology=ring chunk=2",
    "ssp shards=2",
    "async codec=int8 pull=bf16",
    "mesh",
    "mesh relay=2",
    "sync codec=int8 chunk=3",
    "sync topology=mesh codec=bf16",
    "sparse density=0.3 momentum=0.5",
];
/// Floats of the vector.
const LEN: usize = 10;

/// Input: one byte for recipe and rank, then twelve bytes per message: kind, sender, shard, weight, sequence, clock,
/// base, length, flags, origin, incarnation, and the time since the message before. Some flags stand for a
/// reconnection, a timeout or a call of the application instead of a message.
fn peer(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let recipe: Recipe = RECIPES[usize::from(*first) % RECIPES.len()].parse().unwrap();
    let cluster = Cluster { workers: 3, servers: u32::from(recipe.needs_servers()) };
    let (layout, me) = (Layout::flat(LEN), PeerId(u32::from(*first / 16) % cluster.nodes()));
    let setup = Setup {
        incarnation: Incarnation(9),
        patience: Patience::new(std::time::Duration::from_secs(1)),
        ..Setup::new(me, cluster, recipe, &layout, 0)
    };
    let contract = setup.contract.clone();
    let text = contract.text();
    let (machine, pool) = Node::open(setup, &[]).unwrap();
    let mut host = Host { machine, pool, now: 0, awaited: None };
    let peers = || (0..cluster.nodes()).map(PeerId).filter(|peer| *peer != me);
    let greet = |host: &mut Host, peer: PeerId| {
        let (digest, rank, incarnation) = (contract.digest(), peer, incarnation_of(peer));
        let hello = Hello { rank, incarnation, digest, has_parameters: false, resumed_at: Clock(0), run: 0 };
        let header = Header::new(digest as u32, peer, incarnation, text.len() as u32, Message::Hello(hello));
        host.feed(Input::Connected { peer });
        host.feed(Input::Header { peer, header });
        host.receive_all();
    };
    for peer in peers() {
        greet(&mut host, peer);
    }
    for message in rest.as_chunks::<12>().0.iter().take(64) {
        let [kind, sender, shard, weight, sequence, clock, base, length, flags, a, b, c] = *message;
        let peer = peers().nth(usize::from(sender) % 8 % (cluster.nodes() as usize - 1)).unwrap();
        host.now += u64::from(c) << 22;
        match flags % 8 {
            0 => {
                host.feed(Input::Disconnected { peer });
                greet(&mut host, peer);
            }
            1 => host.feed(Input::Timeout),
            // A step or an end at the wrong time is the caller's mistake, and returns an error.
            2 => {
                let (first, len, weight) = (shard.into(), length.into(), weight.into());
                let input = match flags >> 3 & 3 {
                    0 => Input::Step { weight },
                    1 => Input::Push { weight },
                    2 => Input::Begin { weight },
                    _ => Input::Given { first, len },
                };
                let _ = host.machine.handle_input(Instant::from_nanos(host.now), input);
            }
            3 => drop(host.machine.handle_input(
                Instant::from_nanos(host.now),
                Input::Leave { stay: weight & 1 == 1, keep: weight & 2 == 2 },
            )),
            _ => {
                let wide = |byte: u8| if byte > 250 { u64::MAX - u64::from(255 - byte) } else { u64::from(byte % 16) };
                let raw = Raw {
                    kind: 1 + kind % 21,
                    digest: contract.digest() as u32,
                    // Mostly the sender itself: other origins are refused early in most roles.
                    origin: if a > 64 { peer.0 } else { u32::from(a % 6) },
                    shard: u32::from(shard % 8),
                    weight: u32::from(weight % 4),
                    incarnation: if b > 240 { 77 } else { incarnation_of(peer).0 },
                    sequence: wide(sequence),
                    clock: wide(clock),
                    base: wide(base),
                    length: if length > 250 { 1 << 20 } else { u32::from(length % 24) * 2 },
                };
                // `parse` refuses contradictory fields. With some fields set to 0, more messages reach the machine.
                let header = Header::parse(&raw.emit()).or_else(|_| Header::parse(&raw.trimmed(flags).emit()));
                if let Ok(header) = header {
                    host.feed(Input::Header { peer, header });
                    host.receive_all();
                }
            }
        }
        host.drain();
        let status = host.machine.status();
        assert!(status.operations < 4096, "{} operations", status.operations);
    }
}

fn incarnation_of(peer: PeerId) -> Incarnation {
    Incarnation(1 + u64::from(peer.0))
}

/// A driver that carries out every output at once.
struct Host {
    machine: Node,
    pool: Pool,
    /// The time in nanoseconds.
    now: u64,
    /// The body that the machine wants to receive.
    awaited: Option<(gradwire_core::OpId, PeerId)>,
}

impl Host {
    fn feed(&mut self, input: Input) {
        self.machine
            .handle_input(Instant::from_nanos(self.now), input)
            .expect("inputs in an order that a driver may use");
        self.drain();
    }

    /// Carries out all outputs. Bodies that are received leave the buffer as it is.
    fn drain(&mut self) {
        for _ in 0..10_000 {
            match self.machine.poll_output() {
                Output::Compute { op, kernel } => {
                    let result = kernel::run(&kernel, &mut self.pool);
                    self.end(Input::Completed { op, result });
                }
                Output::Transmit { op, .. } => self.end(Input::Completed { op, result: KernelResult::Nothing }),
                Output::Receive { op, peer, into } => {
                    into.into_iter().for_each(|into| self.pool.make_room_for(into));
                    self.awaited = Some((op, peer));
                }
                Output::Close { .. } | Output::Signal(_) | Output::Event(_) | Output::Order(_) => {}
                Output::Wait { .. } => return,
            }
        }
        panic!("the outputs do not end");
    }

    fn end(&mut self, input: Input) {
        self.machine.handle_input(Instant::from_nanos(self.now), input).expect("an open operation");
    }

    /// Completes the reception of bodies until the machine wants no more.
    fn receive_all(&mut self) {
        while let Some((op, _)) = self.awaited.take() {
            self.feed(Input::Completed { op, result: KernelResult::Nothing });
        }
    }
}

fn peer_seeds() -> Vec<Vec<u8>> {
    // The first byte selects the recipe and the rank; the messages are typical for that role.
    let message = |kind: u8, rest: [u8; 11]| [&[kind][..], &rest].concat();
    vec![
        [vec![0], message(15, [0, 0, 1, 0, 0, 0, 0, 9, 1, 0, 0]), message(15, [1, 0, 1, 1, 0, 0, 0, 9, 2, 0, 0])]
            .concat(),
        [vec![1 + 48], message(2, [0, 0, 2, 1, 1, 0, 20, 9, 0, 0, 0])].concat(),
        [vec![2 + 16], message(3, [2, 1, 2, 0, 0, 0, 10, 9, 3, 0, 0])].concat(),
        [vec![4], message(6, [0, 0, 0, 1, 1, 0, 8, 9, 1, 0, 0]), message(8, [0, 0, 1, 0, 0, 1, 0, 9, 1, 0, 0])]
            .concat(),
    ]
}
