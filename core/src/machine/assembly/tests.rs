//! Whole clusters that resume, with messages in any order: all nodes must go on from the same moment.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use std::vec;

use crate::buffer::{Pool, Segment};
use crate::id::{Clock, Cluster, Incarnation, OpId, PeerId};
use crate::kernel::{self, KernelResult};
use crate::layout::Layout;
use crate::machine::{Input, Machine, Node, OURS, Output, Resumed, Setup, Signal};
use crate::recipe::Recipe;
use crate::time::{Duration, Instant, Patience};
use crate::wire::Header;

const LEN: usize = 4;

/// A node with its buffers, and the messages on their way to it.
struct Member {
    machine: Node,
    pool: Pool,
    /// By sender: messages with their bodies, which come in order.
    inbox: Vec<VecDeque<(Header, Vec<f32>)>>,
    /// By sender: the body of the header that the machine has seen last, until it is received.
    body: Vec<Option<Vec<f32>>>,
    /// The moment that the nodes have agreed on, as this node has been told.
    agreed: Option<(Clock, bool)>,
    joined: bool,
}

struct Network {
    recipe: Recipe,
    cluster: Cluster,
    nodes: Vec<Option<Member>>,
    random: u64,
}

impl Network {
    fn new(text: &str, seed: u64) -> Self {
        let recipe: Recipe = text.parse().unwrap();
        let cluster = Cluster { workers: 3, servers: u32::from(recipe.needs_servers()) };
        let nodes = (0..cluster.nodes()).map(|_| None).collect();
        Self { recipe, cluster, nodes, random: seed.wrapping_mul(2).wrapping_add(1) }
    }

    fn random(&mut self, below: usize) -> usize {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) as usize % below
    }

    fn is_worker(&self, rank: usize) -> bool {
        rank < self.cluster.workers as usize
    }

    /// Starts a node that has checkpoints of these moments, and connects it with all nodes that run.
    fn start(&mut self, rank: usize, moments: &[u64], change: impl Fn(Setup) -> Setup) {
        let resumed = |at: &u64| Resumed { at: Clock(*at), made: *at };
        let setup = change(Setup {
            incarnation: Incarnation(100 + self.random(1 << 20) as u64),
            patience: Patience::new(Duration::from_secs(1)),
            resume: Some(moments.iter().map(resumed).collect()),
            ..Setup::new(PeerId(rank as u32), self.cluster, self.recipe, &Layout::flat(LEN), 0)
        });
        let machine = Node::new(setup.clone()).unwrap();
        let mut pool = Pool::new(machine.buffers());
        let text = Segment { buffer: OURS, start: 0, len: setup.contract.len() };
        pool.bytes_mut(text).copy_from_slice(setup.contract.text().as_bytes());
        // Initial parameters differ, so that it shows which node's are taken.
        pool.floats_mut(Segment::floats(machine.view(), 0, LEN)).fill(1000.0 + rank as f32);
        let (inbox, body) = (vec![VecDeque::new(); self.nodes.len()], vec![None; self.nodes.len()]);
        self.nodes[rank] = Some(Member { machine, pool, inbox, body, agreed: None, joined: false });
        self.feed(rank, Input::Timeout);
        for other in 0..self.nodes.len() {
            if other != rank && self.nodes[other].is_some() {
                self.feed(rank, Input::Connected { peer: PeerId(other as u32) });
                self.feed(other, Input::Connected { peer: PeerId(rank as u32) });
            }
        }
    }

    /// A node dies: its peers see the connection end.
    fn stop(&mut self, rank: usize) {
        self.nodes[rank] = None;
        for other in 0..self.nodes.len() {
            if let Some(node) = &mut self.nodes[other] {
                node.inbox[rank].clear();
                node.body[rank] = None;
                self.feed(other, Input::Disconnected { peer: PeerId(rank as u32) });
            }
        }
    }

    fn feed(&mut self, rank: usize, input: Input) {
        let Some(node) = &mut self.nodes[rank] else { return };
        node.machine.handle_input(Instant::ORIGIN, input).unwrap();
        loop {
            let Some(node) = &mut self.nodes[rank] else { return };
            let done = |op: OpId, result| Some(Input::Completed { op, result });
            let answer = match node.machine.poll_output() {
                Output::Wait { .. } => return,
                Output::Compute { op, kernel } => done(op, kernel::run(&kernel, &mut node.pool)),
                Output::Transmit { op, peer, header, body } => {
                    let body = body.map_or(Vec::new(), |body| match body.buffer {
                        OURS => Vec::new(),
                        _ => node.pool.floats(body).to_vec(),
                    });
                    if let Some(to) = &mut self.nodes[peer.index()] {
                        to.inbox[rank].push_back((header, body));
                    }
                    done(op, KernelResult::Nothing)
                }
                Output::Receive { op, peer, into } => {
                    let body = node.body[peer.index()].take().expect("a header with a body came before");
                    if let Some(into) = into {
                        node.pool.make_room_for(into);
                        node.pool.floats_mut(into).copy_from_slice(&body);
                    }
                    done(op, KernelResult::Nothing)
                }
                Output::Signal(Signal::Resume { at, own }) => {
                    assert_eq!(node.agreed.replace((at, own)), None);
                    let view = Segment::floats(node.machine.view(), 0, LEN);
                    if own {
                        node.pool.floats_mut(view).fill(at.0 as f32);
                    }
                    own.then_some(Input::Resumed)
                }
                Output::Signal(Signal::Restore) => Some(Input::Resumed),
                Output::Signal(Signal::Joined { .. }) => {
                    node.joined = true;
                    None
                }
                Output::Signal(signal) => panic!("{rank}: {signal:?}"),
                Output::Close { peer, reason } => panic!("{rank} closes {peer}: {reason}"),
                Output::Event(_) | Output::Order(_) => None,
            };
            if let (Some(input), Some(node)) = (answer, &mut self.nodes[rank]) {
                node.machine.handle_input(Instant::ORIGIN, input).unwrap();
            }
        }
    }

    /// Delivers a random message that can come. Returns false if no message can come.
    fn step(&mut self) -> bool {
        let mut ready = Vec::new();
        for (to, node) in self.nodes.iter().enumerate() {
            let Some(node) = node else { continue };
            let from = (0..self.nodes.len()).filter(|from| node.body[*from].is_none() && !node.inbox[*from].is_empty());
            ready.extend(from.map(|from| (from, to)));
        }
        if ready.is_empty() {
            return false;
        }
        let (from, to) = ready[self.random(ready.len())];
        let Some(node) = &mut self.nodes[to] else { return true };
        let Some((header, body)) = node.inbox[from].pop_front() else { return true };
        node.body[from] = (header.length() > 0).then_some(body);
        self.feed(to, Input::Header { peer: PeerId(from as u32), header });
        true
    }

    fn settle(&mut self) {
        for _ in 0..10_000 {
            if !self.step() {
                return;
            }
        }
        panic!("messages without end");
    }

    /// The first worker that is here and has not joined with parameters of this moment.
    fn wrong(&self, expected: f32) -> Option<usize> {
        self.nodes.iter().enumerate().position(|(rank, node)| {
            let Some(node) = node else { return false };
            let view = Segment::floats(node.machine.view(), 0, LEN);
            self.is_worker(rank) && (!node.joined || node.pool.floats(view) != [expected; LEN])
        })
    }
}

const RECIPES: [&str; 5] = ["sync", "sync topology=ring", "sparse", "async lambda=1", "strom tau=0.03125 lambda=1"];

/// The moments of a rank in a subset of the files of moments 1 and 2.
fn moments(subset: usize, rank: usize) -> Vec<u64> {
    [2, 1].into_iter().filter(|at| subset >> (2 * rank + *at as usize - 1) & 1 == 1).collect()
}

/// Among the moments that a worker has: the one that most nodes have; of several, the newest.
fn best(lists: &[Vec<u64>]) -> Option<u64> {
    let holders = |at: &u64| lists.iter().filter(|list| list.contains(at)).count();
    lists[..3].iter().flatten().copied().max_by_key(|at| (holders(at), *at))
}

/// A cluster with all its files, in an order of messages that follows from `seed`. Returns the rank that is wrong.
fn resume(text: &str, subset: usize, seed: u64, change: impl Fn(Setup) -> Setup + Copy) -> Option<usize> {
    let mut network = Network::new(text, seed);
    let lists: Vec<_> = (0..network.nodes.len()).map(|rank| moments(subset, rank)).collect();
    let mut left: Vec<usize> = (0..network.nodes.len()).collect();
    while !left.is_empty() {
        let next = network.random(left.len());
        let rank = left.swap_remove(next);
        network.start(rank, &lists[rank], change);
        // Some nodes have said a lot before the rest comes.
        for _ in 0..network.random(8) {
            network.step();
        }
    }
    network.settle();
    let own = 1000.0 + if network.recipe.needs_servers() { 3.0 } else { 0.0 };
    network.wrong(best(&lists).map_or(own, |at| at as f32))
}

/// All subsets of two moments of all nodes, each in some orders of messages.
#[test]
fn every_subset_of_moments_leads_to_one() {
    for text in RECIPES {
        let nodes = Network::new(text, 0).nodes.len();
        for subset in 0..1 << (2 * nodes) {
            for seed in 0..6 {
                assert_eq!(resume(text, subset, seed, |setup| setup), None, "{text}: {subset:b}, seed {seed}");
            }
        }
    }
}

/// A node that is started again joins the run that is under way, with any moments of its own, newer ones as well.
#[test]
fn a_node_that_comes_later_joins_whatever_its_moments() {
    for text in RECIPES {
        for (seed, late) in (0..40).flat_map(|seed| [(seed, vec![]), (seed, vec![1]), (seed, vec![9, 8])]) {
            let mut network = Network::new(text, seed);
            (0..network.nodes.len()).for_each(|rank| network.start(rank, &[2, 1], |setup| setup));
            network.settle();
            assert_eq!(network.wrong(2.0), None, "{text}");
            let rank = 1 + network.random(2);
            network.stop(rank);
            network.settle();
            network.start(rank, &late, |setup| setup);
            network.settle();
            let node = network.nodes[rank].as_ref().unwrap();
            let view = Segment::floats(node.machine.view(), 0, LEN);
            assert!(
                node.joined && node.pool.floats(view) == [2.0; LEN],
                "{text}: rank {rank} of {late:?}, seed {seed}"
            );
            assert_eq!(node.agreed, None);
        }
    }
}

/// A node that dies while the other nodes gather is waited for: they have not begun without it.
#[test]
fn all_nodes_are_waited_for() {
    for text in RECIPES {
        for seed in 0..40 {
            let mut network = Network::new(text, seed);
            network.start(0, &[2, 1], |setup| setup);
            network.start(1, &[1], |setup| setup);
            (3..network.nodes.len()).for_each(|rank| network.start(rank, &[2, 1], |setup| setup));
            network.settle();
            assert!(network.nodes.iter().flatten().all(|node| node.agreed.is_none() && !node.joined), "{text}");
            let waiting = network.nodes[0].as_ref().unwrap().machine.waiting().unwrap();
            assert_eq!(waiting.on, PeerId(2));
            network.start(2, &[1], |setup| setup);
            network.settle();
            assert_eq!(network.wrong(1.0), None, "{text}, seed {seed}");
        }
    }
}

/// A node without steps that has missed the decision learns it from the hellos of the other nodes.
#[test]
fn a_node_that_missed_the_decision_takes_part_in_it() {
    for seed in 0..40 {
        let mut network = Network::new("sync", seed);
        (0..3).for_each(|rank| network.start(rank, &[2, 1], |setup| setup));
        // Rank 2 has told its peers its moments, and dies before it has decided, or after.
        for _ in 0..network.random(8) {
            network.step();
        }
        network.stop(2);
        network.settle();
        network.start(2, &[2, 1], |setup| setup);
        network.settle();
        assert_eq!(network.wrong(2.0), None, "seed {seed}");
    }
}

#[cfg(planted)]
#[test]
fn a_planted_choice_of_the_own_newest_moment_is_found() {
    use crate::planted::Bug;
    let plant = |setup| Setup { bug: Some(Bug::UncommittedMoment), ..setup };
    for text in RECIPES {
        let nodes = Network::new(text, 0).nodes.len();
        let found = (0..1 << (2 * nodes)).any(|subset| {
            std::panic::catch_unwind(|| resume(text, subset, 0, plant)).map_or(true, |wrong| wrong.is_some())
        });
        assert!(found, "{text}");
    }
}
