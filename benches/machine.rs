//! The cost of the state machines alone: inputs and outputs of a cluster of four workers, without kernels and without a
//! transport.
//!
//! `cargo bench --bench machine` prints nanoseconds per output (goal: under 200), `-- --json` a JSON object per recipe.
//! `cargo test` runs a few steps, so that the bench keeps working.

use std::time::Instant as WallInstant;

use gradwire_core::codec::Encoded;
use gradwire_core::kernel::KernelResult;
use gradwire_core::wire::Header;
use gradwire_core::{
    Cluster, Incarnation, Input, Instant, Layout, Machine, Node, Output, Patience, PeerId, Recipe, Setup, Signal,
};

/// A cluster that delivers messages at once, with kernels that do nothing.
struct Handover {
    nodes: Vec<Node>,
    /// Headers that are not delivered yet, by receiver and sender: a header waits until the body before it is read.
    held: Vec<Vec<Vec<Header>>>,
    /// Outputs of all nodes so far.
    outputs: u64,
    /// Steps of each worker so far.
    steps: Vec<u64>,
    /// Steps that each worker takes.
    target: u64,
    /// Printed with the result, so that the compiler cannot remove any work.
    checksum: u64,
}

impl Handover {
    fn new(recipe: Recipe, workers: u32, target: u64) -> Self {
        let cluster = Cluster { workers, servers: u32::from(recipe.needs_servers()) };
        let layout = Layout::flat(1024);
        let count = cluster.nodes() as usize;
        let node = |me| {
            let setup = Setup {
                incarnation: Incarnation(u64::from(me) + 1),
                patience: Patience::default(),
                ..Setup::new(PeerId(me), cluster, recipe, &layout, 0)
            };
            Node::new(setup).expect("the recipe and the cluster fit together")
        };
        Self {
            nodes: (0..cluster.nodes()).map(node).collect(),
            held: vec![vec![Vec::new(); count]; count],
            outputs: 0,
            steps: vec![0; count],
            target,
            checksum: 0,
        }
    }

    fn feed(&mut self, node: usize, input: Input) {
        self.nodes[node].handle_input(Instant::ORIGIN, input).expect("inputs in an order that a driver may use");
    }

    /// Carries out all outputs of one node. Returns true if there were any.
    fn drive(&mut self, node: usize) -> bool {
        let mut any = false;
        loop {
            let output = self.nodes[node].poll_output();
            if matches!(output, Output::Wait { .. }) {
                return any;
            }
            any = true;
            self.outputs += 1;
            match output {
                Output::Compute { op, kernel } => {
                    let result = match kernel {
                        gradwire_core::kernel::Kernel::Encode { .. } => {
                            KernelResult::Encoded(Encoded { bytes: 64, entries: 16, ..Encoded::default() })
                        }
                        gradwire_core::kernel::Kernel::CopyLedger { into, .. } => {
                            KernelResult::Copied { bytes: into.len }
                        }
                        _ => KernelResult::Nothing,
                    };
                    self.feed(node, Input::Completed { op, result });
                }
                Output::Transmit { op, peer, header, .. } => {
                    self.checksum = self.checksum.rotate_left(5) ^ header.kind() as u64 ^ u64::from(header.length());
                    let queue = &mut self.held[peer.index()][node];
                    queue.push(header);
                    if queue.len() == 1 {
                        self.deliver(peer.index(), node);
                    }
                    self.feed(node, Input::Completed { op, result: KernelResult::Nothing });
                }
                Output::Receive { op, peer, .. } => {
                    self.feed(node, Input::Completed { op, result: KernelResult::Nothing });
                    self.held[node][peer.index()].remove(0);
                    self.deliver(node, peer.index());
                }
                Output::Signal(Signal::Joined { .. } | Signal::Ready { .. }) if self.steps[node] < self.target => {
                    self.steps[node] += 1;
                    self.feed(node, Input::Step { weight: 32 });
                }
                Output::Signal(_) | Output::Event(_) | Output::Order(_) => {}
                Output::Close { reason, .. } => panic!("{reason}"),
                Output::Wait { .. } => unreachable!(),
            }
        }
    }

    /// Delivers headers up to the first one with a body. That one stays in front of the queue until its body is read.
    fn deliver(&mut self, node: usize, peer: usize) {
        while let Some(header) = self.held[node][peer].first().copied() {
            if header.length() == 0 {
                self.held[node][peer].remove(0);
            }
            self.feed(node, Input::Header { peer: PeerId(peer as u32), header });
            if header.length() > 0 {
                return;
            }
        }
    }

    /// Connects all nodes, and runs until no node has an output.
    fn run(&mut self) {
        let count = self.nodes.len();
        for a in 0..count {
            for b in (0..count).filter(|b| *b != a) {
                self.feed(a, Input::Connected { peer: PeerId(b as u32) });
            }
        }
        let mut any = true;
        while std::mem::take(&mut any) {
            for node in 0..count {
                any |= self.drive(node);
            }
        }
    }
}

fn main() {
    let test = std::env::args().any(|arg| arg == "--test");
    let json = std::env::args().any(|arg| arg == "--json");
    let steps = if test || !std::env::args().any(|arg| arg == "--bench") { 20 } else { 200_000 };
    if !json {
        println!("{:<28} {:>12} {:>14} {:>10}", "recipe", "outputs", "ns per output", "limit 200");
    }
    let recipes = [
        ("averaging", Recipe::averaging(1)),
        ("sync", Recipe::sync()),
        ("async", Recipe::asynchronous()),
        ("softsync", Recipe::softsync(2)),
        ("ssp", Recipe::ssp(3)),
        ("mesh", Recipe::mesh(1.0 / 512.0)),
        ("ring-int8", Recipe::preset("ring-int8").unwrap_or_else(Recipe::sync)),
        ("sparse", Recipe::sparse(0.01)),
    ];
    for (name, recipe) in recipes {
        let mut cluster = Handover::new(recipe, 4, steps);
        let begun = WallInstant::now();
        cluster.run();
        let nanos = begun.elapsed().as_nanos() as f64 / cluster.outputs as f64;
        assert!(cluster.steps.iter().take(4).all(|taken| *taken == steps), "{name}: {:?}", cluster.steps);
        if json {
            println!(
                "{{\"name\":\"machine/{name}\",\"value\":{nanos:.1},\"unit\":\"ns/output\",\"limit\":200,\
                 \"ratio\":{:.3}}}",
                nanos / 200.0
            );
        } else {
            let sum = cluster.checksum;
            println!("{name:<28} {:>12} {nanos:>14.1} {:>9.0}%   {sum:016x}", cluster.outputs, nanos / 2.0);
        }
    }
}
