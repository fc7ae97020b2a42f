//! [`Scenario`]: a random run, determined by a seed.
//!
//! A failure is reported by its seed, and fixed bugs are kept as seeds in `tests/schedules.rs`. So new choices must not
//! change the scenarios of old seeds: each group of choices draws from a generator (`Random::new(seed, stream)`) of its
//! own.

use gradwire_core::codec::topk::CHUNK;
use gradwire_core::recipe::{
    Adapt, Codec, Compensate, Control, Correction, Count, End, Grace, Lambda, Late, Merge, Mu, Normalize, Outer, Pace,
    Payload, Period, Pushes, Span, Staleness, Threshold, TopK, Topology, Values, VelocityScale, Weigh,
};
use gradwire_core::{Cluster, Duration, Instant, Layout, Patience, PeerId, Recipe, Tape};
use gradwire_sim::{Effort, Fault, Network, Plan, Random};

use super::check::repeats;

/// The group of recipes that a scenario belongs to. It determines the checks at the end.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Means of updates in a tree or ring.
    Tree,
    /// Means of parameters in a tree or ring.
    Averaging,
    /// Rounds at servers.
    ServerSync,
    /// Asynchronous updates at servers.
    Async,
    Softsync,
    /// SSP with a bound from 1 to 3.
    Ssp,
    /// SSP with bound 0, which is bulk-synchronous.
    SspZero,
    /// A mesh in which every worker sends to every other one.
    Mesh,
    /// A mesh with relays.
    Relay,
    /// Servers without rounds, with codecs in both directions.
    Coded,
    /// Rounds at servers, with codecs in both directions.
    CodedSync,
    /// Means of updates in a tree or ring, with a codec at every hop.
    CodedTree,
    /// Rounds of a mesh.
    Gather,
    /// Elastic averaging, with rounds and without.
    Elastic,
    /// Rounds with periods in time or in examples, of workers with unequal speeds; or with periods that follow the
    /// loss.
    Timed,
    /// Rounds at servers that wait for the first contributions only, with and without codecs.
    First,
}

impl Kind {
    pub const ALL: [Self; 16] = [
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
        Self::CodedTree,
        Self::Gather,
        Self::Timed,
        Self::Elastic,
        Self::First,
    ];
}

/// A run that [`run`](super::run) executes and checks.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub seed: u64,
    /// Bit i is set if fault i of the seed takes place, bit [`Scenario::EFFORT`] if operations take the time that the
    /// seed says, bit [`Scenario::RANGES`] if contributions are given in the ranges that it says. Shrinking clears bits.
    pub mask: u64,
    pub kind: Kind,
    /// Recipe, cluster, network, faults and number of steps.
    pub plan: Plan,
    /// The random share of a step's duration, from 0 to 1.
    pub spread: f64,
}

/// The first threshold of mesh scenarios: twice the update of a worker's own element. Thresholds can shrink to 2^-14.
/// All contributions are multiples of that, so the last message of a leaving worker can empty the residual.
const TAU: f32 = 16.0 / 1024.0;

/// A recipe of a tree or a ring, with random chunks.
fn collective(seed: u64, recipe: Recipe) -> Recipe {
    let mut random = Random::new(seed, 6);
    let recipe = recipe.with_chunk(1 + random.below(20) as u32);
    if random.chance(0.5) { recipe.with_topology(Topology::Ring) } else { recipe }
}

/// Adasum on the way up, for a part of the trees.
fn pairs(seed: u64, recipe: Recipe) -> Recipe {
    let pairs =
        matches!(recipe.topology(), Topology::Auto | Topology::Tree { .. }) && Random::new(seed, 43).chance(0.4);
    if pairs { recipe.with_topology(Topology::Tree { fan_in: 2 }).with_merge(Merge::Adasum) } else { recipe }
}

/// A dense lossy codec.
fn dense(random: &mut Random) -> Codec {
    [Codec::Bf16, Codec::F16, Codec::Int8, Codec::Sign][random.below(4) as usize]
}

/// Signs per column for a half of the recipes that have signs with a scale per block.
fn columns(seed: u64, recipe: Recipe) -> Recipe {
    let columns = recipe.codec() == Codec::Sign && Random::new(seed, 25).chance(0.5);
    if columns { recipe.with_codec(Codec::SignColumns) } else { recipe }
}

/// The clip of the residual, in thresholds: 0 (no clip), or so low that something is lost.
fn clip(seed: u64) -> f32 {
    Random::new(seed, 13).below(2) as f32 / 4.0
}

/// A top-k codec with values that lose nothing, or that lose only amounts that a residual keeps exactly; with `any`,
/// also two means.
fn topk(seed: u64, density: f32, any: bool) -> Codec {
    let mut random = Random::new(seed, 22);
    let values = match random.below(4) {
        0 => Values::Int8,
        1 | 2 if any => Values::TwoMeans,
        _ if Random::new(seed, 61).chance(0.3) => Values::F16,
        _ => Values::F32,
    };
    Codec::TopK(TopK { density, per_chunk: random.chance(0.5), values })
}

/// A recipe of a mesh with rounds, with a random codec and random corrections before a sparse one.
fn gather(seed: u64) -> Recipe {
    let mut random = Random::new(seed, 9);
    let density = (random.unit() as f32).max(0.05);
    let codec = match random.below(3) {
        0 => dense(&mut random),
        1 => topk(seed, density, true),
        _ => {
            let control = if random.chance(0.5) { Control::Fixed } else { Control::Density { density } };
            let per_tensor = random.chance(0.5);
            Codec::Threshold(Threshold { control, clip: clip(seed), per_tensor, ..Threshold::fixed(TAU) })
        }
    };
    let (momentum, clip_norm) = (random.below(2) as f32 / 2.0, random.below(2) as f32 / 64.0);
    let (warmup, ramp) = (random.below(3) as u32, random.below(6) as u32);
    let correction = Correction { momentum, clip_norm, warmup, ramp, ..Correction::none() };
    let correction = if codec.is_sparse() { correction } else { Correction::none() };
    Recipe::sparse(density).with_codec(codec).with_correction(correction)
}

/// An outer optimizer, for half of the recipes for which no check adds up the merged updates.
fn outer(seed: u64, recipe: Recipe) -> Recipe {
    let mut random = Random::new(seed, 14);
    let (mu, look) = ([Mu::Fixed(0.0), Mu::Fixed(0.75), Mu::PerWorker][random.below(3) as usize], random.chance(0.5));
    // A velocity over the learning rate, for half of the momenta.
    let scale = if Random::new(seed, 45).chance(0.5) { VelocityScale::Rate } else { VelocityScale::Update };
    recipe.with_outer(match random.below(8) {
        0..4 => Outer::None,
        4 | 5 => Outer::Momentum { mu, rate: 0.5 + random.below(2) as f32 / 2.0, look, scale },
        6 => Outer::Adagrad { rate: 1.0 / 64.0, floor: 1e-6 },
        _ => Outer::Adam { mu: 0.75, beta: 0.875, rate: 1.0 / 64.0, floor: 1e-3 },
    })
}

/// A merge rule that needs all contributions of a round, for half of the recipes with rounds at servers.
fn whole(seed: u64, recipe: Recipe, taken: u32) -> Recipe {
    let mut random = Random::new(seed, 20);
    let one_shard = Topology::Servers { shards: 1 };
    match random.below(8) {
        0..3 if recipe.codec().is_sparse() => recipe,
        0 | 1 => recipe.with_merge(Merge::TrimmedMean { trim: random.below(u64::from(taken.div_ceil(2))) as u32 }),
        2 => recipe.with_merge(Merge::Median),
        3 => {
            let (radius, iterations) = (1.0 / 64.0, 1 + random.below(2) as u32);
            let mut merges =
                vec![Merge::NormClip, Merge::CentredClip { radius, iterations }, Merge::Adasum, Merge::Rda];
            if taken >= 3 {
                let faulty = random.below(u64::from(taken - 1) / 2) as u32;
                let best = 1 + random.below(u64::from(taken - faulty)) as u32;
                merges.extend([Merge::Krum { faulty, best }; 2]);
            }
            recipe.with_merge(merges[random.below(merges.len() as u64) as usize]).with_topology(one_shard)
        }
        _ => recipe,
    }
}

/// Delayed Nesterov, for some of the recipes without an outer optimizer.
fn delayed(seed: u64, recipe: Recipe) -> Recipe {
    let mut random = Random::new(seed, 23);
    if recipe.outer() != Outer::None || !random.chance(0.4) {
        return recipe;
    }
    let pushes = if random.chance(0.4) { Pushes::PerWorker } else { Pushes::Fixed(1 + random.below(4) as u32) };
    let (mu, rate) = (Mu::Fixed(0.25 * random.below(4) as f32), 0.5 + random.below(2) as f32 / 2.0);
    recipe.with_outer(Outer::DelayedNesterov { mu, rate, pushes })
}

/// A recipe with a period in seconds or in examples: in a tree, in a ring, or at servers.
fn timed(seed: u64, servers: Topology) -> Recipe {
    let mut random = Random::new(seed, 15);
    let span = match random.chance(0.3) {
        true => Span::Examples(1 + random.below(12)),
        false => Span::Time(Duration::from_micros(1 + random.below(20_000))),
    };
    match random.below(3) {
        0 => collective(seed, Recipe::averaging(1)),
        1 => collective(seed, Recipe::sync()),
        _ if matches!(span, Span::Examples(2..)) && random.chance(0.7) => {
            Recipe::sync().with_topology(servers).with_adapt(Adapt::Speed)
        }
        _ => Recipe::sync().with_topology(servers),
    }
    .with_period(span)
}

/// Numbers of steps between contributions and between fetches, for a part of the recipes that allow them.
fn fetching(seed: u64, recipe: Recipe) -> Recipe {
    let mut random = Random::new(seed, 21);
    let [period, fetch] = [3, 6].map(|most| 1 + random.below(most) as u32);
    match recipe.pace() {
        Pace::Asynchronous { overlap: false } if random.chance(0.5) => recipe.with_period(period).with_fetch(fetch),
        _ => recipe,
    }
}

/// A head start of some workers, for a part of the recipes of asynchronous servers.
fn starting(seed: u64, recipe: Recipe, workers: u32) -> Recipe {
    let mut random = Random::new(seed, 44);
    let (starters, head_start) = (1 + random.below(u64::from(workers)) as u32, random.below(12) as u32);
    let correction = Correction { starters, head_start, ..recipe.correction() };
    if random.chance(0.25) { recipe.with_correction(correction) } else { recipe }
}

/// A decay of residuals, for a third of the recipes that have a codec and for which no check adds up the contributions.
fn decay(seed: u64, recipe: Recipe) -> Recipe {
    let mut random = Random::new(seed, 24);
    let decay = if random.chance(0.35) { [0.0, 0.5, 0.95][random.below(3) as usize] } else { 1.0 };
    if recipe.codec() == Codec::F32 { recipe } else { recipe.with_decay(decay) }
}

/// Elastic averaging at servers.
fn elastic(seed: u64, servers: Topology) -> Recipe {
    let mut random = Random::new(seed, 23);
    let recipe = if random.chance(0.5) { Recipe::sync() } else { Recipe::asynchronous() };
    let alpha = Lambda::per_worker([0.5, 0.9, 1.0][random.below(3) as usize]);
    recipe.with_topology(servers).with_merge(Merge::Elastic { alpha }).with_period(1 + random.below(3) as u32)
}

/// A correction of late updates, for a part of the recipes for which no check adds up the merged updates.
fn compensating(seed: u64, recipe: Recipe) -> Recipe {
    let mut random = Random::new(seed, 22);
    let (worker_rate, bounded) = (1.0 / 64.0, random.chance(0.5));
    recipe.with_compensate(match random.below(6) {
        0 => Compensate::Magnitude { keep: 0.75, length: 1.0 / 64.0, least: 1e-3, push_cost: 0.0, fetch_cost: 0.0 },
        1 => Compensate::Delay { strength: 0.5, worker_rate, bounded },
        2 => Compensate::DelayAdaptive { strength: 0.5, worker_rate, keep: 0.75, bounded },
        _ => Compensate::None,
    })
}

/// B-FASGD, for a part of the recipes that allow it.
fn thinning(seed: u64, recipe: Recipe) -> Recipe {
    let mut random = Random::new(seed, 45);
    let [push_cost, fetch_cost] = [0, 1].map(|_| [0.0, 1.0 / 256.0, 1.0 / 32.0][random.below(3) as usize]);
    let allowed = recipe.pace() == Pace::Asynchronous { overlap: false } && recipe.fetch().is_none();
    if !allowed || random.chance(0.6) {
        return recipe;
    }
    recipe.with_compensate(Compensate::Magnitude { keep: 0.75, length: 1.0 / 64.0, least: 1e-3, push_cost, fetch_cost })
}

/// For some recipes of updates: a mean by steps.
fn normalized(seed: u64, recipe: Recipe) -> Recipe {
    let is_update = recipe.payload() == Payload::Updates && !matches!(recipe.adapt(), Adapt::Loss { .. });
    if is_update && Random::new(seed, 42).chance(0.4) { recipe.with_normalize(Normalize::Steps) } else { recipe }
}

/// For some recipes of rounds whose merge rule weighs contributions: weights by batch.
fn weighing(seed: u64, recipe: Recipe) -> Recipe {
    let merges = !matches!(
        recipe.merge(),
        Merge::Sum { .. }
            | Merge::TrimmedMean { trim: 1.. }
            | Merge::Median
            | Merge::Adasum
            | Merge::Elastic { .. }
            | Merge::Vote { .. }
    );
    let is_by_rate = matches!(recipe.outer(), Outer::Momentum { scale: VelocityScale::Rate, .. });
    let is_other = is_by_rate
        || recipe.payload() == Payload::Gradients
        || recipe.normalize() != Normalize::None
        || matches!(recipe.adapt(), Adapt::Loss { .. });
    let is_by_batch = merges && !is_other && Random::new(seed, 43).chance(0.2);
    if is_by_batch { recipe.with_weigh(Weigh::Batch) } else { recipe }
}

/// A recipe of rounds without servers, with a period that follows the loss; `None` for most seeds.
fn by_loss(seed: u64) -> Option<Recipe> {
    let mut random = Random::new(seed, 41);
    if !random.chance(0.3) {
        return None;
    }
    let period = 2 + random.below(7) as u32;
    let adapt = Adapt::Loss { most: period + random.below(7) as u32 };
    let base = if random.chance(0.5) { Recipe::averaging(period) } else { Recipe::sync().with_period(period) };
    Some(collective(seed, base).with_adapt(adapt))
}

/// A recipe of servers with rounds that wait for the first contributions only.
fn first(seed: u64, workers: u32, servers: Topology) -> Recipe {
    let mut random = Random::new(seed, 16);
    let count = match random.chance(0.5) {
        true => Count::Fixed(1 + random.below(u64::from(workers)) as u32),
        false => Count::AllBut(random.below(u64::from(workers)) as u32),
    };
    let grace = Duration::from_micros(if random.chance(0.5) { 0 } else { random.below(4_000) });
    let grace = if Random::new(seed, 44).chance(0.3) { Grace::Adaptive { cap: grace * 4 } } else { grace.into() };
    let late = if random.chance(0.5) { Late::Drop } else { Late::Next };
    let recipe = Recipe::sync().with_topology(servers).with_pace(Pace::First { count, grace, late });
    let taken = count.of(workers);
    match random.below(6) {
        0 => recipe.with_lambda(0.5),
        1 if late == Late::Drop => recipe.with_payload(Payload::Parameters),
        2 | 3 => whole(seed, coded(seed, recipe, false), taken),
        _ => outer(seed, whole(seed, recipe, taken)),
    }
}

/// The ranges of each contribution of a round. 1 for most seeds.
fn ranges(seed: u64) -> u32 {
    let mut random = Random::new(seed, 18);
    if random.chance(0.4) { 2 + random.below(4) as u32 } else { 1 }
}

/// How the recipe treats residuals at the end.
fn end(seed: u64) -> End {
    match Random::new(seed, 8).below(4) {
        0 => End::Keep,
        1 => End::Spread { messages: 3 },
        _ => End::Send,
    }
}

/// The factor lambda of a sum. Powers of two, so that products with contributions are exact.
fn lambda(seed: u64, workers: u32) -> Lambda {
    match Random::new(seed, 10).below(4) {
        0 => Lambda::fixed(0.5),
        1 if workers.is_power_of_two() => Lambda::per_worker(1.0),
        _ => Lambda::fixed(1.0),
    }
}

/// A recipe of a mesh, with a random controller of the threshold and a random warm-up.
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
    Recipe::mesh(TAU)
        .with_lambda(lambda(seed, workers))
        .with_codec(Codec::Threshold(threshold))
        .with_correction(correction)
        .with_end(end(seed))
}

/// A recipe of servers with random codecs for contributions and parameters. No update is lost at the end: contributions
/// are small multiples of 2^-10, which the most precise form of each codec represents exactly. A leaving worker's last
/// message and the final parameters use that form.
fn coded(seed: u64, recipe: Recipe, overlap: bool) -> Recipe {
    let mut random = Random::new(seed, 6);
    let threshold = |random: &mut Random| {
        let control = if random.chance(0.5) { Control::Fixed } else { Control::Density { density: 0.3 } };
        Codec::Threshold(Threshold { control, per_tensor: random.chance(0.5), ..Threshold::fixed(TAU) })
    };
    let topk = |random: &mut Random| topk(seed, (random.unit() as f32).max(0.05), recipe.is_synchronous());
    let codec = match random.below(6) {
        0 => Codec::Bf16,
        1 => Codec::F16,
        2 => Codec::Int8,
        3 => topk(&mut random),
        _ => match threshold(&mut random) {
            // Elsewhere, the sum of all contributions is checked.
            Codec::Threshold(threshold) if recipe.is_synchronous() => {
                Codec::Threshold(Threshold { clip: clip(seed), ..threshold })
            }
            codec => codec,
        },
    };
    let recipe = match recipe.pace() {
        Pace::Asynchronous { .. } if overlap => recipe.with_pace(Pace::Asynchronous { overlap }).with_codec(codec),
        Pace::Asynchronous { .. } if random.chance(0.3) => recipe.with_pace(Pace::Stale { bound: 2 }).with_codec(codec),
        _ => recipe.with_codec(codec),
    };
    let recipe = recipe.with_end(end(seed));
    let plain = matches!(recipe.pace(), Pace::Asynchronous { overlap: true } | Pace::Stale { .. });
    match random.below(4) {
        _ if plain => recipe,
        0 => recipe,
        1 => recipe.with_pull(Codec::F16),
        2 => recipe.with_pull(topk(&mut random)),
        _ => recipe.with_pull(threshold(&mut random)),
    }
}

/// Means over the senders of an element, for a part of the recipes with rounds and means. In half of them, all elements that
/// are not 0 are sent, so that the result is that of a model.
fn senders(seed: u64, kind: Kind, recipe: Recipe) -> Recipe {
    let mut random = Random::new(seed, 62);
    let sparse = recipe.codec().is_sparse();
    let takes = recipe.merge() == Merge::Mean && (sparse || kind == Kind::ServerSync) && random.chance(0.3);
    if !takes {
        return recipe;
    }
    let recipe = recipe.with_merge(Merge::MeanOfSenders);
    match kind == Kind::ServerSync || random.chance(0.5) {
        true => {
            let all = TopK { per_chunk: random.chance(0.5), ..TopK::all(1.0) };
            recipe.with_codec(Codec::TopK(all)).with_correction(Correction::none())
        }
        false => recipe,
    }
}

/// Majority votes, for a part of the recipes with rounds at servers and the plain mean, of floats or of signs.
fn vote(seed: u64, kind: Kind, recipe: Recipe) -> Recipe {
    let mut random = Random::new(seed, 63);
    let keeps = matches!(recipe.outer(), Outer::None | Outer::Momentum { .. });
    let plain = kind != Kind::First || (recipe.payload() == Payload::Updates && recipe.codec() == Codec::F32);
    if recipe.merge() != Merge::Mean || !keeps || !plain || recipe.weigh() != Weigh::Examples || !random.chance(0.2) {
        return recipe;
    }
    let recipe = recipe.with_merge(Merge::Vote { length: 1.0 / 64.0 }).with_end(End::Keep);
    match kind {
        // Servers answer with floats, so that the result is that of a model.
        Kind::First => recipe,
        Kind::ServerSync if random.chance(0.5) => recipe,
        Kind::ServerSync => recipe.with_codec(Codec::Sign).with_decay(0.0),
        _ => recipe.with_codec(Codec::Sign).with_decay(0.0).with_correction(Correction::none()).with_pull(Codec::Sign),
    }
}

/// Elements by which the vector is longer, so that each shard has several chunks of top-k: 0, except for a few of the recipes
/// that have chunks.
fn longer(seed: u64, recipe: &Recipe, shards: u32) -> usize {
    let mut random = Random::new(seed, 64);
    let has_chunks = [recipe.codec(), recipe.pull()].iter().any(in_chunks);
    if has_chunks && random.chance(0.2) {
        shards as usize * (CHUNK + random.below(2 * CHUNK as u64) as usize)
    } else {
        0
    }
}

/// Top-k of each chunk.
pub fn in_chunks(codec: &Codec) -> bool {
    matches!(codec, Codec::TopK(TopK { per_chunk: true, .. }))
}

/// The time that operations take: 0 for a quarter of the seeds. Another quarter has slow kernels, and a part of it also
/// slow bodies.
fn effort(seed: u64) -> Effort {
    let mut random = Random::new(seed, 12);
    let mut mean = |slow: bool| {
        let most = if slow { 8_000_000.0 } else { 200_000.0 };
        Duration::from_nanos((random.unit() * most) as u64)
    };
    let [kernel, slow_kernel, body, slow_body, abort] = [false, true, false, true, true].map(&mut mean);
    match random.below(8) {
        0 | 1 => Effort::none(),
        2 => Effort { kernel, ..Effort::none() },
        3 => Effort { kernel, body, abort },
        4 | 5 => Effort { kernel, body, ..Effort::none() },
        6 => Effort { kernel: slow_kernel, body, abort },
        _ => Effort { kernel: slow_kernel, body: slow_body, abort },
    }
}

impl Scenario {
    /// The bit of the mask for the time that operations take.
    pub const EFFORT: u32 = 63;
    /// The bit of the mask for contributions that are given range by range.
    pub const RANGES: u32 = 62;

    /// The scenario of a seed, with the faults that have their bits set in `mask`; `u64::MAX` selects all.
    pub fn new(seed: u64, mask: u64) -> Self {
        let mut random = Random::new(seed, 3);
        // Kinds that were added later replace some scenarios of older kinds, so that the other seeds keep their
        // scenarios.
        let kind = match Kind::ALL[random.below(9) as usize] {
            Kind::Async if matches!(seed % 7, 1 | 4 | 6) => Kind::Coded,
            Kind::ServerSync if matches!(seed % 7, 1 | 4 | 6) => Kind::CodedSync,
            Kind::Tree if matches!(seed % 7, 1 | 2 | 5) => Kind::CodedTree,
            Kind::SspZero if matches!(seed % 7, 1 | 2 | 5) => Kind::Gather,
            Kind::Softsync if matches!(seed % 7, 2 | 5) => Kind::Elastic,
            Kind::Averaging if matches!(seed % 7, 0 | 3 | 5) => Kind::Timed,
            Kind::ServerSync if seed % 7 == 2 => Kind::First,
            Kind::Softsync if matches!(seed % 7, 0 | 3) => Kind::First,
            kind => kind,
        };
        let workers = 1 + random.below(6) as u32;
        let len = workers as usize + random.below(12) as usize;
        let shards = 1 + random.below(3.min(len as u64)) as u32;
        let servers = Topology::Servers { shards };
        let recipe = match kind {
            Kind::Tree => {
                let tree = Topology::Tree { fan_in: 1 + random.below(3) as u32 };
                pairs(seed, collective(seed, Recipe::sync().with_topology(tree)))
            }
            Kind::CodedTree => {
                let tree = Topology::Tree { fan_in: 1 + random.below(3) as u32 };
                collective(seed, Recipe::sync().with_topology(tree)).with_codec(dense(&mut Random::new(seed, 9)))
            }
            Kind::Gather => columns(seed, gather(seed)),
            Kind::Averaging => collective(seed, Recipe::averaging(1 + random.below(3) as u32)),
            Kind::Timed => normalized(seed, by_loss(seed).unwrap_or_else(|| timed(seed, servers))),
            Kind::Elastic => elastic(seed, servers),
            Kind::First => first(seed, workers, servers),
            Kind::ServerSync => Recipe::sync().with_topology(servers),
            Kind::Async => Recipe::asynchronous()
                .with_lambda(1.0)
                .with_topology(servers)
                .with_pace(Pace::Asynchronous { overlap: random.chance(0.5) }),
            Kind::Softsync => {
                let updates = 1 + random.below(u64::from(workers)) as u32;
                let staleness = if random.chance(0.5) { Staleness::inverse_plus_one() } else { Staleness::constant() };
                Recipe::softsync(updates).with_topology(servers).with_staleness(staleness)
            }
            Kind::Ssp => Recipe::ssp(1 + random.below(3)).with_lambda(1.0).with_topology(servers),
            Kind::SspZero => Recipe::ssp(0).with_lambda(1.0).with_topology(servers),
            Kind::Coded => {
                let overlap = random.chance(0.5);
                let lambda = lambda(seed, workers);
                coded(seed, Recipe::asynchronous().with_lambda(lambda).with_topology(servers), overlap)
            }
            Kind::CodedSync => coded(seed, Recipe::sync().with_topology(servers), false),
            Kind::Mesh => mesh(seed, workers),
            Kind::Relay => mesh(seed, workers).with_topology(Topology::Mesh { relay: 1 + random.below(3) as u32 }),
        };
        let recipe = match kind {
            Kind::ServerSync | Kind::CodedSync => whole(seed, recipe, workers),
            _ => recipe,
        };
        let recipe = match kind {
            Kind::ServerSync | Kind::CodedSync | Kind::Gather | Kind::First => senders(seed, kind, recipe),
            _ => recipe,
        };
        let recipe = match kind {
            Kind::Tree | Kind::CodedTree | Kind::Gather | Kind::ServerSync | Kind::CodedSync | Kind::SspZero => {
                outer(seed, recipe)
            }
            Kind::Softsync => delayed(seed, outer(seed, recipe)),
            _ => recipe,
        };
        let recipe = match kind {
            Kind::Softsync => thinning(seed, compensating(seed, fetching(seed, recipe))),
            Kind::Async | Kind::Coded => fetching(seed, recipe),
            Kind::CodedTree | Kind::Gather | Kind::CodedSync => decay(seed, recipe),
            _ => recipe,
        };
        let recipe = match kind {
            Kind::ServerSync | Kind::CodedSync | Kind::First => vote(seed, kind, recipe),
            Kind::Async | Kind::Softsync => starting(seed, recipe, workers),
            Kind::Coded if !matches!(recipe.pace(), Pace::Stale { .. }) => starting(seed, recipe, workers),
            _ => recipe,
        };
        // With gradients, the programs subtract the means themselves: the same models hold.
        let carries = matches!(kind, Kind::Tree | Kind::CodedTree | Kind::Gather)
            && recipe.merge() == Merge::Mean
            && recipe.correction().momentum == 0.0
            && recipe.outer() == Outer::None
            && recipe.period() == Period::every(1)
            && Random::new(seed, 15).chance(0.4);
        let recipe = if carries { recipe.with_payload(Payload::Gradients) } else { recipe };
        let recipe = match kind {
            Kind::Tree | Kind::CodedTree | Kind::Gather | Kind::Averaging | Kind::Timed => weighing(seed, recipe),
            Kind::ServerSync | Kind::CodedSync | Kind::First => weighing(seed, recipe),
            _ => recipe,
        };
        let servers = match recipe.needs_servers() {
            // A merge rule may have asked for one shard. The number is drawn all the same, as for old seeds.
            true => (1 + random.below(u64::from(shards)) as u32).min(match recipe.topology() {
                Topology::Servers { shards } => shards,
                _ => 1,
            }),
            // Sometimes the coordinator is a node of its own, instead of a part of rank 0.
            false => u32::from(recipe.is_collective() && Random::new(seed, 7).chance(0.3)),
        };
        let cluster = Cluster { workers, servers };
        let len = len + longer(seed, &recipe, shards);
        let network = if random.chance(0.2) { Network::calm() } else { Network::stormy(&mut random) };
        // The models of rules that work tensor by tensor know this cut.
        let layout = Layout::new().tensor("own", &[workers as usize]).tensor("shared", &[len - workers as usize]);
        let ranges = recipe.is_collective() && mask & (1 << Self::RANGES) != 0;
        // The model needs to know in which order servers merge contributions without a body.
        let tapes = if repeats(&recipe) { vec![Tape::Record; cluster.nodes() as usize] } else { Vec::new() };
        let plan = Plan {
            network,
            tapes,
            ranges: if ranges { self::ranges(seed) } else { 1 },
            // Drivers may connect all nodes, as today's transports do.
            on_demand: Random::new(seed, 70).chance(0.6),
            // Vectors are short here: with the default, nothing would ever wait.
            under_way: Random::new(seed, 71).below(2) as u32 * 64,
            // Buffers that come and go, also those of short vectors.
            keep_below: Random::new(seed, 72).below(2) as u32 * 64,
            effort: if mask & (1 << Self::EFFORT) == 0 { Effort::none() } else { effort(seed) },
            patience: Patience::new(Duration::from_millis(900)),
            steps: match (1 + random.below(8), recipe.adapt()) {
                // The loss has to fall by enough for other lengths.
                (steps, Adapt::Loss { .. }) => 16 + 2 * steps,
                (steps, _) => steps,
            },
            ..Plan::new(seed, layout, recipe, cluster)
        };
        let mut scenario = Self { seed, mask, kind, plan, spread: random.unit() };
        let faults = scenario.faults(&mut random);
        let kept = faults.into_iter().enumerate().filter(|(i, _)| mask & (1 << i) != 0).map(|(_, fault)| fault);
        scenario.plan.faults = kept.collect();
        scenario
    }

    /// Up to eight faults in the first 30 ms, at most two of them partitions or pauses.
    fn faults(&self, random: &mut Random) -> Vec<(Instant, Fault)> {
        let nodes = u64::from(self.plan.cluster.nodes());
        let count = if nodes < 2 || random.chance(0.2) { 0 } else { random.below(9) };
        let mut faults = Vec::new();
        // Long faults in a row would keep a connection broken for longer than `dead_after`, without a crash.
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
                8 | 9 => Fault::Crash { node: a, restart: random.chance(0.6).then_some(lasts * 15) },
                _ => Fault::Cut { a, b },
            };
            longer += u32::from(matches!(fault, Fault::Partition { .. } | Fault::Pause { .. }));
            faults.push((at, fault));
        }
        faults.sort_by_key(|(at, _)| *at);
        faults
    }

    /// The nodes that crash during the run, in order of time.
    pub fn crashing(&self) -> Vec<PeerId> {
        let crash = |(_, fault): &(Instant, Fault)| match fault {
            Fault::Crash { node, .. } => Some(*node),
            _ => None,
        };
        self.plan.faults.iter().filter_map(crash).collect()
    }
}
