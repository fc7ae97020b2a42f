//! Networks that split, for any time and in any direction: random runs in the simulator, in which no process dies.
//!
//! `GRADWIRE_SPLITS` sets their number (default 5,000), and `GRADWIRE_SEED` the first seed (default 0). A failure names
//! its seed; `GRADWIRE_SEED=SEED GRADWIRE_SPLITS=1` runs it alone.
//!
//! Invariants:
//!
//! 1. A worker ends in good order, unless the other workers went on without it and have ended before it came back.
//! 2. All workers that have ended have equal parameters.
//! 3. A worker takes no step once it has been without most other workers for longer than it takes to notice.
//! 4. In a mesh, the parameters hold every contribution of every worker that has ended.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::fmt;
use std::sync::{Arc, Mutex};

use gradwire_core::recipe::{Codec, Control, End, Pace, Payload, Threshold, Topology};
use gradwire_core::{Cluster, Duration, Event, Instant, Layout, Patience, PeerId, Recipe, Signal};
use gradwire_sim::{App, Entry, Fault, Halt, Life, Network, Plan, Random, World};
use harness::{Trainer, Truth};

const DEAD_AFTER: Duration = Duration::from_millis(900);
/// The most events of a run.
const BUDGET: u64 = 400_000;

/// A split of the network, from `at` on for `lasts`.
#[derive(Clone, Debug)]
struct Split {
    at: Instant,
    lasts: Duration,
    /// The ranks of one side.
    side: Vec<u32>,
    /// No packets from this side to the other, and back.
    silent: [bool; 2],
}

struct Case {
    plan: Plan,
    pace: Duration,
    splits: Vec<Split>,
}

#[derive(Debug)]
enum Failure {
    Halt(Halt),
    Violation(String),
}

impl From<Halt> for Failure {
    fn from(halt: Halt) -> Self {
        Self::Halt(halt)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Halt(halt @ (Halt::Stuck(nodes) | Halt::Budget(nodes))) => {
                writeln!(f, "{}", if matches!(halt, Halt::Stuck(_)) { "deadlock" } else { "no end" })?;
                nodes.iter().try_for_each(|node| {
                    let states: Vec<_> = node.workers.iter().map(|worker| worker.state).collect();
                    writeln!(
                        f,
                        "  {} at {} in view {}, {} operations: {:?}, {states:?}",
                        node.me, node.clock, node.view, node.operations, node.waiting
                    )
                })
            }
            Self::Violation(text) => f.write_str(text),
        }
    }
}

fn recipe(random: &mut Random) -> Recipe {
    let tree = Topology::Tree { fan_in: 1 + random.below(3) as u32 };
    let threshold = Threshold { control: Control::Fixed, ..Threshold::fixed(16.0 / 1024.0) };
    let mesh = || Recipe::mesh(16.0 / 1024.0).with_lambda(1.0).with_codec(Codec::Threshold(threshold));
    let collective = |recipe: Recipe, random: &mut Random| {
        let recipe = recipe.with_chunk(1 + random.below(20) as u32);
        if random.chance(0.5) { recipe.with_topology(Topology::Ring) } else { recipe.with_topology(tree) }
    };
    match random.below(8) {
        0 => collective(Recipe::sync(), random),
        1 => collective(Recipe::averaging(1 + random.below(3) as u32), random),
        2 => collective(Recipe::sync(), random).with_codec(Codec::Int8),
        3 => Recipe::sparse(0.3),
        4 | 5 => mesh().with_end(if random.chance(0.5) { End::Send } else { End::Keep }),
        6 => mesh().with_topology(Topology::Mesh { relay: 1 + random.below(3) as u32 }),
        _ => {
            let servers = Topology::Servers { shards: 1 };
            let pace = [Pace::Asynchronous { overlap: false }, Pace::Stale { bound: 2 }][random.below(2) as usize];
            Recipe::asynchronous().with_lambda(1.0).with_topology(servers).with_pace(pace)
        }
    }
}

impl Case {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed, 20);
        let recipe = recipe(&mut random);
        // From a generator of their own, so that old seeds keep their cases.
        let carries =
            recipe.is_collective() && recipe.payload() == Payload::Updates && Random::new(seed, 21).chance(0.5);
        let recipe = if carries { recipe.with_payload(Payload::Gradients) } else { recipe };
        let workers = 2 + random.below(5) as u32;
        let servers = match recipe.needs_servers() {
            true => 1,
            false => u32::from(recipe.is_collective() && random.chance(0.2)),
        };
        let cluster = Cluster { workers, servers };
        let len = workers as usize + random.below(8) as usize;
        let layout = Layout::new().tensor("own", &[workers as usize]).tensor("shared", &[len - workers as usize]);
        let network = if random.chance(0.4) { Network::calm() } else { Network::stormy(&mut random) };
        let pace = Duration::from_millis(20 + random.below(200));
        let steps = 5 + random.below(25);
        let nodes = u64::from(cluster.nodes());
        let mut splits = Vec::new();
        for _ in 0..1 + random.below(3) {
            let mut side: Vec<u32> = (0..cluster.nodes()).filter(|_| random.chance(0.5)).collect();
            if side.is_empty() || side.len() == nodes as usize || random.chance(0.3) {
                side = vec![random.below(nodes) as u32];
            }
            let at = Instant::from_nanos((random.unit() * 3e9) as u64);
            let longest = if random.chance(0.5) { 1500 } else { 6000 };
            let lasts = Duration::from_millis(100 + random.below(longest));
            let silent = [[true, true], [true, false], [false, true]][random.below(3) as usize];
            splits.push(Split { at, lasts, side, silent });
        }
        let faults = splits.iter().flat_map(|split| split.faults(cluster.nodes())).collect();
        // A quorum that both sides of a split can reach would not keep them apart.
        let more = workers / 2 + 1;
        let quorum = if random.chance(0.2) { more + random.below(u64::from(workers - more + 1)) as u32 } else { 0 };
        let patience = Patience::new(DEAD_AFTER);
        let on_demand = Random::new(seed, 22).chance(0.5);
        let under_way = Random::new(seed, 23).below(2) as u32 * 64;
        let plan = Plan::new(seed, layout, recipe, cluster);
        let keep_below = Random::new(seed, 24).below(2) as u32 * 64;
        let plan = Plan { network, patience, quorum, steps, faults, on_demand, under_way, keep_below, ..plan };
        Self { plan, pace, splits }
    }

    /// The node that decides on views; for recipes with servers, the server.
    fn host(&self) -> PeerId {
        PeerId(if self.plan.cluster.servers > 0 { self.plan.cluster.workers } else { 0 })
    }

    fn run(&self) -> Result<Outcome, Failure> {
        let plan = &self.plan;
        let truth = Truth::new(plan.cluster.workers, plan.layout.len());
        let mut world = World::new(plan.clone(), |me| {
            let trainer = Trainer::new(plan.seed, me, plan.cluster.workers, 0.5, &truth);
            let random = Random::new(plan.seed, 100 + u64::from(me.0));
            Box::new(Trainer { me, random, pace: self.pace, ..trainer }) as Box<dyn App>
        })
        .map_err(|error| Failure::Violation(error.to_string()))?;
        // Steps of each worker at the moment from which it must not step.
        let mut stopped = vec![None; plan.cluster.workers as usize];
        let result = world.run(BUDGET, |world, _| self.during(world, &mut stopped));
        if std::env::var_os("GRADWIRE_LOG").is_some() {
            world
                .log()
                .iter()
                .for_each(|log| println!("{:?} {} {:?}", log.at.as_nanos() / 1_000_000, log.node, log.entry));
        }
        match result {
            // A worker that comes back after the end waits for ever here. In a process, its deadline ends the wait.
            Err(Failure::Halt(Halt::Stuck(nodes))) if self.is_late(&world) => drop(nodes),
            other => {
                other?;
                world.settle(BUDGET)?;
            }
        }
        self.after(&world, &truth)
    }

    /// Has any worker ended in good order, or a node that is no worker?
    fn is_late(&self, world: &World) -> bool {
        (0..self.plan.cluster.nodes()).any(|node| world.life(PeerId(node)) == Life::Done)
    }

    /// 3. Checks that workers without a quorum do not step.
    fn during(&self, world: &World, stopped: &mut [Option<u64>]) -> Result<(), Failure> {
        // A server decides for itself which workers take part.
        if self.plan.recipe.needs_servers() || self.plan.quorum > 0 || self.splits.len() > 1 {
            return Ok(());
        }
        let split = &self.splits[0];
        let from = split.at.after(DEAD_AFTER * 2);
        let until = split.at.after(split.lasts);
        let (workers, host) = (self.plan.cluster.workers, self.host());
        for (worker, stopped) in (0..workers).zip(stopped) {
            let inside = split.side.contains(&worker);
            let company = (0..workers).filter(|other| split.side.contains(other) == inside).count() as u32;
            // The half with the coordinator goes on. A mesh goes on without its coordinator.
            let with_host = split.side.contains(&host.0) == inside;
            let may = 2 * company > workers || (2 * company == workers && with_host);
            // Rounds need no coordinator as long as all members are there.
            let goes_on = may && (with_host || company == workers || !self.plan.recipe.is_collective());
            // The other workers may have left before.
            let whole = (0..workers).all(|other| world.life(PeerId(other)) == Life::Up);
            if goes_on || !whole || world.now() < from || world.now() >= until {
                *stopped = None;
                continue;
            }
            let steps = world.steps(PeerId(worker));
            // Local steps between two synchronisations need no other worker.
            let local = u64::from(self.plan.recipe.period().at(0));
            let first = *stopped.get_or_insert(steps);
            if steps > first + local {
                return Err(Failure::Violation(format!(
                    "worker {worker} steps from {first} to {steps} without most others"
                )));
            }
        }
        Ok(())
    }

    fn after(&self, world: &World, truth: &Arc<Mutex<Truth>>) -> Result<Outcome, Failure> {
        let plan = &self.plan;
        let workers = || (0..plan.cluster.workers).map(PeerId);
        let mut outcome = Outcome::default();
        for entry in world.log() {
            match entry.entry {
                Entry::Event(Event::PeerLost { .. }) => outcome.lost += 1,
                Entry::Event(Event::View { number, .. }) if number > 1 => outcome.views += 1,
                _ => {}
            }
        }
        // 1.
        let ended = |worker: PeerId| {
            let left = |entry: Entry| matches!(entry, Entry::Signal(Signal::Left | Signal::Cut { .. }));
            world.log().iter().find(|log| log.node == worker && left(log.entry)).map(|log| log.at)
        };
        let done: Vec<PeerId> = workers().filter(|worker| world.life(*worker) == Life::Done).collect();
        for worker in workers().filter(|worker| !done.contains(worker)) {
            let end = ended(worker);
            // The other workers are about to leave, or have left.
            let soon = end.map(|end| end.after(Duration::from_secs(1)));
            let late = done.iter().any(|other| soon.is_none_or(|soon| ended(*other).is_some_and(|other| other < soon)));
            // Cut off from the other workers, or at the very end from the node that says so.
            let apart = |split: &Split| {
                let other_side = |node: PeerId| split.side.contains(&node.0) != split.side.contains(&worker.0);
                other_side(self.host()) || done.iter().all(|other| other_side(*other))
            };
            // A node that is cut off while it sends the final parameters, or says that the run is over, cannot know
            // whether that has arrived.
            let said = self.host().0 >= self.plan.cluster.workers && world.life(self.host()) == Life::Done;
            // After several splits, it is not that simple which nodes were together.
            let several = self.splits.len() > 1 && (!done.is_empty() || said);
            let excused = several || ((said || late) && apart(&self.splits[0]));
            if !excused {
                return Err(Failure::Violation(format!(
                    "worker {worker} is {:?}; {done:?} have ended in good order",
                    world.life(worker)
                )));
            }
            outcome.late += 1;
        }
        // 2.
        let bits = |worker: PeerId| world.params(worker).iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        for worker in &done {
            if bits(*worker) != bits(done[0]) {
                return Err(Failure::Violation(format!(
                    "workers {} and {worker} end with different parameters",
                    done[0]
                )));
            }
        }
        // 4.
        let is_mesh = matches!(plan.recipe.topology(), Topology::Mesh { .. }) && !plan.recipe.is_collective();
        if is_mesh && plan.recipe.end() == End::Send {
            let truth = truth.lock().unwrap();
            for (worker, params) in done.iter().map(|worker| (worker, world.params(*worker))) {
                for other in &done {
                    let (i, got) = (other.index(), params[other.index()]);
                    let total = truth.contributed.iter().map(|sums| sums[i]).sum::<i64>() as f32 / 1024.0;
                    if got != -total {
                        let text =
                            format!("worker {worker} has {got} of worker {other}, which has contributed {total}");
                        return Err(Failure::Violation(text));
                    }
                }
            }
        }
        Ok(outcome)
    }
}

impl Split {
    fn faults(&self, nodes: u32) -> Vec<(Instant, Fault)> {
        let other = (0..nodes).filter(|rank| !self.side.contains(rank)).collect::<Vec<_>>();
        let pairs = self.side.iter().flat_map(|one| other.iter().map(move |other| (PeerId(*one), PeerId(*other))));
        let of = |(one, other): (PeerId, PeerId)| [(one, other), (other, one)].into_iter().zip(self.silent);
        let silent = pairs.flat_map(of).filter(|(_, silent)| *silent);
        silent.map(|((from, to), _)| (self.at, Fault::Silence { from, to, lasts: self.lasts })).collect()
    }
}

/// Counts of the events of a run.
#[derive(Clone, Debug, Default)]
struct Outcome {
    lost: u64,
    views: u64,
    /// Workers that came back after the end.
    late: u64,
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Runs that failed once. They fail again without the change that mended them.
#[rustfmt::skip]
const FAILED: &[u64] = &[
    // A newcomer that was cut off before it entered its view kept its own state in the next one.
    1_018_881, 1_080_470,
    // Contributions that waited for their turn stood in front of the news that two members had met again.
    1_042_417,
    // Of two that had lost each other at the end, the one that lacked the last round was left out, and refused.
    2_108_431, 5_697_304,
    // The same, and no message could reach the one that had the last round.
    5_062_184, 5_207_452,
    // The only worker with the parameters had lost other workers, was left out, and the run ended without parameters.
    5_145_424,
    // A worker held a message of a view that it never entered. Its sender waited, and could not enter the next view.
    5_138_170,
    // A worker came back when other workers had ended without its contributions, and the last one went on with it.
    5_081_279,
    // Another that had the last round of an earlier view, to which other workers had contributed since.
    5_574_307,
    // Of two that had lost each other, the one that the coordinator had heard all the time was left out.
    5_420_934, 5_678_345,
    // A worker that stopped while it fetched the last round said that it had it, and the donor left.
    5_167_547, 5_223_234,
    // Two members ended without the coordinator, which then let another go on with it.
    5_993_966,
    // A server that had lost all workers again woke up without end.
    5_058_307, 5_101_233,
    // A worker never got the welcome with its clock, and waited for a row that the server did not owe it.
    127_552,
];

fn half(odd: u64) -> Vec<Outcome> {
    let (first, count) = (number("GRADWIRE_SEED", 0), number("GRADWIRE_SPLITS", 5_000));
    // A single run is asked for by its seed.
    let failed = FAILED.iter().copied().filter(|_| count > 1);
    let seeds = (first..first + count).chain(failed).filter(|seed| seed % 2 == odd);
    let run = |seed| {
        let case = Case::new(seed);
        case.run().unwrap_or_else(|failure| {
            panic!(
                "seed {seed}: {failure}\n{:?}, on demand {}, {} steps of {:?}, quorum {}, recipe {}\n{:?}\n{:#?}",
                case.plan.cluster,
                case.plan.on_demand,
                case.plan.steps,
                case.pace,
                case.plan.quorum,
                case.plan.recipe,
                case.plan.network,
                case.splits
            )
        })
    };
    seeds.map(run).collect()
}

#[test]
fn networks_that_split_end_no_worker_that_could_go_on() {
    let other = std::thread::spawn(|| half(1));
    let mut all = half(0);
    all.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
    let sum = |of: fn(&Outcome) -> u64| all.iter().map(of).sum::<u64>();
    let (lost, views, late) = (sum(|it| it.lost), sum(|it| it.views), sum(|it| it.late));
    println!("{} runs: {lost} times a peer was lost, {views} views entered, {late} workers too late", all.len());
    assert!(all.len() < 1000 || (lost > 1000 && views > 1000 && late > 0));
}
