//! A run, drawn from a seed.

use gradwire_core::recipe::{Codec, Control, Correction, Pace, Staleness, Threshold, TopK, Topology};
use gradwire_core::{Cluster, Duration, Instant, Layout, Patience, PeerId, Recipe};
use gradwire_sim::{Fault, Network, Plan, Random};

/// Which rule a scenario is about.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Tree,
    Averaging,
    ServerSync,
    Async,
    Softsync,
    Ssp,
    SspZero,
    Mesh,
    Relay,
    /// Servers without rounds, and codecs both ways.
    Coded,
    /// Rounds at servers, and codecs both ways.
    CodedSync,
}

impl Kind {
    pub const ALL: [Self; 11] = [
        Self::Tree,
        Self::Averaging,
        Self::ServerSync,
        Self::Async,
        Self::Softsync,
        Self::Ssp,
        Self::SspZero,
        Self::Mesh,
        Self::Relay,
        Self::Coded,
        Self::CodedSync,
    ];
}

#[derive(Clone, Debug)]
pub struct Scenario {
    pub seed: u64,
    /// Which of the seed's faults happen, a bit each: what shrinking takes away.
    pub mask: u64,
    pub kind: Kind,
    pub plan: Plan,
    pub spread: f64,
}

/// The quantum in mesh scenarios: two units of a worker's own element. The smallest is 2^-14, of which all
/// contributions are multiples: a leaver's last message leaves nothing.
const TAU: f32 = 16.0 / 1024.0;

/// A tree, or a ring, with chunks of any size.
fn collective(seed: u64, recipe: Recipe) -> Recipe {
    let mut random = Random::new(seed, 6);
    let recipe = recipe.with_chunk(1 + random.below(20) as u32);
    if random.chance(0.5) { recipe.with_topology(Topology::Ring) } else { recipe }
}

/// A mesh with any controller and any start. From a stream of its own: what else a seed stands for stays.
fn mesh(seed: u64, workers: u32) -> Recipe {
    let mut random = Random::new(seed, 5);
    let control = match random.below(6) {
        0 => Control::Band,
        1 => Control::Density { density: random.unit() as f32 + 0.01 },
        2 => Control::Budget { bytes: 128 },
        _ => Control::Fixed,
    };
    let density = |control| match control {
        Control::Density { density } => Control::Density { density: density.min(1.0) },
        other => other,
    };
    let threshold = Threshold { control: density(control), per_tensor: random.chance(0.3), ..Threshold::fixed(TAU) };
    let (warmup, ramp) = if random.chance(0.3) { (random.below(3) as u32, random.below(6) as u32) } else { (0, 0) };
    let (starters, head_start) =
        if random.chance(0.2) { (1 + random.below(u64::from(workers)) as u32, random.below(6) as u32) } else { (0, 0) };
    let correction = Correction { warmup, ramp, starters, head_start, ..Correction::none() };
    Recipe::mesh(TAU).with_codec(Codec::Threshold(threshold)).with_correction(correction)
}

/// Codecs both ways that lose nothing in the end: all contributions are small multiples of 2^-10, and a leaver's
/// last message and the last parameters are written as well as the codec can.
fn coded(seed: u64, recipe: Recipe, overlap: bool) -> Recipe {
    let mut random = Random::new(seed, 6);
    let threshold = |random: &mut Random| {
        let control = if random.chance(0.5) { Control::Fixed } else { Control::Density { density: 0.3 } };
        Codec::Threshold(Threshold { control, per_tensor: random.chance(0.5), ..Threshold::fixed(TAU) })
    };
    let topk = |random: &mut Random| Codec::TopK(TopK { density: (random.unit() as f32).max(0.05) });
    let codec = match random.below(6) {
        0 => Codec::Bf16,
        1 => Codec::F16,
        2 => Codec::Int8,
        3 => topk(&mut random),
        _ => threshold(&mut random),
    };
    let recipe = match recipe.pace() {
        Pace::Asynchronous { .. } if overlap => recipe.with_pace(Pace::Asynchronous { overlap }).with_codec(codec),
        Pace::Asynchronous { .. } if random.chance(0.3) => recipe.with_pace(Pace::Stale { bound: 2 }).with_codec(codec),
        _ => recipe.with_codec(codec),
    };
    let plain = matches!(recipe.pace(), Pace::Asynchronous { overlap: true } | Pace::Stale { .. });
    match random.below(4) {
        _ if plain => recipe,
        0 => recipe,
        1 => recipe.with_pull(Codec::F16),
        2 => recipe.with_pull(topk(&mut random)),
        _ => recipe.with_pull(threshold(&mut random)),
    }
}

impl Scenario {
    pub fn new(seed: u64, mask: u64) -> Self {
        let mut random = Random::new(seed, 3);
        // The first nine are drawn; some of them become one of the last two, so that a seed stands for what it did
        // before there were these.
        let kind = match Kind::ALL[random.below(9) as usize] {
            Kind::Async if matches!(seed % 7, 1 | 4 | 6) => Kind::Coded,
            Kind::ServerSync if matches!(seed % 7, 1 | 4 | 6) => Kind::CodedSync,
            kind => kind,
        };
        let workers = 1 + random.below(6) as u32;
        let len = workers as usize + random.below(12) as usize;
        let shards = 1 + random.below(3.min(len as u64)) as u32;
        let servers = Topology::Servers { shards };
        let recipe = match kind {
            Kind::Tree => {
                collective(seed, Recipe::sync().with_topology(Topology::Tree { fan_in: 1 + random.below(3) as u32 }))
            }
            Kind::Averaging => collective(seed, Recipe::averaging(1 + random.below(3) as u32)),
            Kind::ServerSync => Recipe::sync().with_topology(servers),
            Kind::Async => Recipe::asynchronous()
                .with_topology(servers)
                .with_pace(Pace::Asynchronous { overlap: random.chance(0.5) }),
            Kind::Softsync => {
                let updates = 1 + random.below(u64::from(workers)) as u32;
                let staleness = if random.chance(0.5) { Staleness::inverse_plus_one() } else { Staleness::constant() };
                Recipe::softsync(updates).with_topology(servers).with_staleness(staleness)
            }
            Kind::Ssp => Recipe::ssp(1 + random.below(3)).with_topology(servers),
            Kind::SspZero => Recipe::ssp(0).with_topology(servers),
            Kind::Coded => {
                let overlap = random.chance(0.5);
                coded(seed, Recipe::asynchronous().with_topology(servers), overlap)
            }
            Kind::CodedSync => coded(seed, Recipe::sync().with_topology(servers), false),
            Kind::Mesh => mesh(seed, workers),
            Kind::Relay => mesh(seed, workers).with_topology(Topology::Mesh { relay: 1 + random.below(3) as u32 }),
        };
        let servers = match recipe.needs_servers() {
            true => 1 + random.below(u64::from(shards)) as u32,
            // A coordinator of its own, now and then.
            false => u32::from(recipe.is_collective() && Random::new(seed, 7).chance(0.3)),
        };
        let cluster = Cluster { workers, servers };
        let network = if random.chance(0.2) { Network::calm() } else { Network::stormy(&mut random) };
        let layout = Layout::new().tensor("own", &[workers as usize]).tensor("shared", &[len - workers as usize]);
        let plan = Plan {
            network,
            patience: Patience::new(Duration::from_millis(900)),
            steps: 1 + random.below(8),
            ..Plan::new(seed, layout, recipe, cluster)
        };
        let mut scenario = Self { seed, mask, kind, plan, spread: random.unit() };
        let faults = scenario.faults(&mut random);
        let kept = faults.into_iter().enumerate().filter(|(i, _)| mask & (1 << i) != 0).map(|(_, fault)| fault);
        scenario.plan.faults = kept.collect();
        scenario
    }

    /// Up to eight faults, at times within the run.
    fn faults(&self, random: &mut Random) -> Vec<(Instant, Fault)> {
        let nodes = u64::from(self.plan.cluster.nodes());
        let count = if nodes < 2 || random.chance(0.2) { 0 } else { random.below(9) };
        let mut faults = Vec::new();
        let mut longer = 0;
        for _ in 0..count {
            let at = Instant::from_nanos((random.unit() * 30e6) as u64);
            let a = PeerId(random.below(nodes) as u32);
            let b = PeerId(((u64::from(a.0) + 1 + random.below(nodes - 1)) % nodes) as u32);
            let lasts = Duration::from_millis(1 + random.below(120));
            let fault = match random.below(10) {
                0..4 => Fault::Cut { a, b },
                4..6 if longer < 2 => Fault::Partition { a, b, lasts },
                6..8 if longer < 2 => Fault::Pause { node: a, lasts },
                8 | 9 => Fault::Crash { node: a, restart: self.restarts(random).then_some(lasts * 15) },
                _ => Fault::Cut { a, b },
            };
            longer += u32::from(matches!(fault, Fault::Partition { .. } | Fault::Pause { .. }));
            faults.push((at, fault));
        }
        faults.sort_by_key(|(at, _)| *at);
        faults
    }

    /// All but the nodes of a relayed mesh can start anew.
    fn restarts(&self, random: &mut Random) -> bool {
        let may = match self.plan.recipe.topology() {
            Topology::Servers { .. } | Topology::Tree { .. } | Topology::Ring => true,
            Topology::Mesh { relay } => relay == 0,
        };
        may && random.chance(0.6)
    }

    /// Nodes that crash at some time.
    pub fn crashing(&self) -> Vec<PeerId> {
        let crash = |(_, fault): &(Instant, Fault)| match fault {
            Fault::Crash { node, .. } => Some(*node),
            _ => None,
        };
        self.plan.faults.iter().filter_map(crash).collect()
    }
}
