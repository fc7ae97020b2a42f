//! Checks of a recipe: ranges of numbers, and combinations of choices that cannot work, each with its reason.

use core::fmt;

use super::{
    Adapt, Codec, Compensate, Control, Correction, End, Late, Merge, Normalize, OptimizerState, Outer, Pace, Payload,
    Period, Recipe, Threshold, TopK, Topology,
};
use crate::id::Cluster;
use crate::kernel::ledger;

/// Why a recipe, or a recipe with this cluster and layout, cannot run.
#[derive(Copy, Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A number is out of its range.
    OutOfRange {
        /// Key of the text form.
        field: &'static str,
        /// The accepted range.
        expected: &'static str,
        /// The given number.
        got: f64,
    },
    /// The number must be a power of two.
    NotPowerOfTwo {
        /// Key of the text form.
        field: &'static str,
        /// The given number.
        got: f32,
        /// The nearest power of two below it.
        nearest: f32,
    },
    /// One choice requires another that the recipe does not make.
    Contradiction {
        /// The choice that the recipe makes, as in the text form.
        choice: &'static str,
        /// The choice that it requires, as in the text form.
        required: &'static str,
        /// Why it requires that.
        reason: &'static str,
    },
    /// Softsync needs more updates per application than there are workers.
    TooFewWorkers {
        /// Updates per application.
        updates: u32,
        /// Workers in the cluster.
        workers: u32,
    },
    /// A merge rule leaves contributions out, and the cluster has too few workers for that.
    NeedsWorkers {
        /// Key of the text form.
        field: &'static str,
        /// The given number.
        got: u32,
        /// Workers that it needs.
        least: u64,
        /// Workers in the cluster.
        workers: u32,
        /// Why it needs them.
        reason: &'static str,
    },
    /// Elastic averaging with rounds would overshoot: the center moves by `alpha` times the sum of all distances.
    Alpha {
        /// The factor for this number of workers.
        got: f32,
        /// Workers in the cluster.
        workers: u32,
    },
    /// A round waits for more contributions than there are workers.
    TooFewContributions {
        /// Contributions that a round waits for.
        count: u32,
        /// Workers in the cluster.
        workers: u32,
    },
    /// A round waits for all workers but more than there are.
    TooManySpares {
        /// Workers that a round does not wait for.
        spare: u32,
        /// Workers in the cluster.
        workers: u32,
    },
    /// The cluster has the wrong number of server nodes.
    Servers {
        /// What the topology needs.
        expected: &'static str,
        /// Server nodes in the cluster.
        got: u32,
    },
    /// There are more shards than parameters.
    TooManyShards {
        /// Shards of the recipe.
        shards: u32,
        /// Floats in the vector.
        len: usize,
    },
    /// The vector, or a shard of it, is longer than the machines can count.
    TooLong {
        /// What is too long: the vector (with its optimizer vectors), or a shard.
        what: &'static str,
        /// Its length in floats.
        len: usize,
        /// The largest length in floats.
        limit: usize,
    },
    /// The layout has no parameters.
    EmptyLayout,
}

/// Longest vector in floats: the length of a segment, or of a body, in bytes must fit 32 bits.
const LEN_MAX: usize = (1 << 30) - 1;
/// Longest shard in floats whose top-k messages fit 32 bits, whatever their density: a message has a word for each
/// value, and half a word per element for the list.
const TOP_K_LEN_MAX: usize = LEN_MAX / 3 * 2 - 2;

impl Recipe {
    /// Checks ranges, combinations of choices, and the number of workers.
    ///
    /// # Errors
    /// The first violation; see [`ConfigError`].
    pub fn check(&self, workers: u32) -> Result<(), ConfigError> {
        self.check_numbers()?;
        self.check_axes()?;
        if workers == 0 {
            return Err(out_of_range("workers", "at least 1", 0.0));
        }
        // A group larger than the cluster would wait for updates that no worker sends.
        if let Merge::Softsync { updates } = self.merge
            && updates > workers
        {
            return Err(ConfigError::TooFewWorkers { updates, workers });
        }
        self.merge.check_workers(workers)?;
        if let Some(alpha) = self.merge.elastic(workers) {
            check_range("alpha", "from 0 to 1", alpha, (0.0..=1.0).contains(&alpha))?;
            // 1/n rounds to a little more than 1 for some n.
            if self.is_synchronous() && alpha * workers as f32 > 1.000_001 {
                return Err(ConfigError::Alpha { got: alpha, workers });
            }
        }
        if let Pace::First { count, .. } = self.pace {
            count.check(workers)?;
        }
        let Correction { starters, .. } = self.correction;
        check_range("starters", "at most the number of workers", starters as f32, starters <= workers)
    }

    /// Checks the recipe as [`check`](Self::check) does, then the number of server nodes and `len`, the length in
    /// floats of the vector that is exchanged.
    ///
    /// # Errors
    /// The first violation; see [`ConfigError`].
    pub fn check_cluster(&self, cluster: Cluster, len: usize) -> Result<(), ConfigError> {
        self.check(cluster.workers)?;
        match (self.needs_servers(), cluster.servers) {
            (true, 0) => return Err(ConfigError::Servers { expected: "at least 1 server node", got: 0 }),
            (true, got) if got > self.shards() => {
                return Err(ConfigError::Servers { expected: "at most one server node per shard", got });
            }
            // A collective may have one server node, which hosts the coordinator of views and no shard.
            (false, 1) if self.is_collective() => {}
            (false, got) if got > 1 && self.is_collective() => {
                return Err(ConfigError::Servers { expected: "0 server nodes, or 1 for the coordinator", got });
            }
            (false, got) if got > 0 => {
                return Err(ConfigError::Servers { expected: "0 server nodes with this topology", got });
            }
            _ => {}
        }
        if len == 0 {
            return Err(ConfigError::EmptyLayout);
        }
        if self.shards() as usize > len {
            return Err(ConfigError::TooManyShards { shards: self.shards(), len });
        }
        let longest = len.div_ceil(self.shards() as usize);
        // A mesh without rounds sends its ledger as one body.
        let limit = if self.has_ledger() { ledger::LEN_MAX } else { LEN_MAX };
        if len > limit {
            return Err(ConfigError::TooLong { what: "the vector", len, limit });
        }
        if longest > TOP_K_LEN_MAX && (self.is_dense_top_k(&self.codec) || self.is_dense_top_k(&self.pull)) {
            return Err(ConfigError::TooLong { what: "a shard", len: longest, limit: TOP_K_LEN_MAX });
        }
        Ok(())
    }

    /// Whether messages of this codec can be longer than the vector. A ramp begins at a density of 1/4.
    fn is_dense_top_k(&self, codec: &Codec) -> bool {
        matches!(codec, Codec::TopK(TopK { density, .. }) if *density > 0.25 || self.end == End::Send)
    }

    /// Checks that a byte budget has room for a header and some entries per tensor.
    pub(crate) fn check_budget(&self, tensors: usize) -> Result<(), ConfigError> {
        for codec in [&self.codec, &self.pull] {
            if let Codec::Threshold(Threshold { control: Control::Budget { bytes }, per_tensor: true, .. }) = *codec {
                check_range("budget", "at least 64 bytes per tensor", bytes as f32, bytes as usize / 64 >= tensors)?;
            }
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), ConfigError> {
        self.period.check()?;
        if let Some(steps) = self.fetch {
            check_range("fetch", "at least 1", steps as f32, steps >= 1)?;
        }
        if let Adapt::Loss { most } = self.adapt {
            check_range("most", "at least the period", most as f32, most >= self.period.at(0))?;
        }
        self.staleness.check()?;
        match self.topology {
            Topology::Servers { shards: 0 } => return Err(out_of_range("shards", "at least 1", 0.0)),
            Topology::Tree { fan_in } if !(1..=8).contains(&fan_in) => {
                return Err(out_of_range("fan_in", "1 to 8", f64::from(fan_in)));
            }
            _ if self.chunk == 0 => return Err(out_of_range("chunk", "at least 1", 0.0)),
            _ => {}
        }
        match self.merge {
            Merge::Sum { lambda } => lambda.check()?,
            Merge::Softsync { updates: 0 } => return Err(out_of_range("updates", "at least 1", 0.0)),
            merge => merge.check()?,
        }
        check_codec(&self.codec)?;
        check_codec(&self.pull)?;
        self.end.check()?;
        self.outer.check()?;
        check_range("decay", "from 0 to 1", self.decay, (0.0..=1.0).contains(&self.decay))?;
        self.compensate.check()?;
        let Correction { momentum, clip_norm, .. } = self.correction;
        check_range("clip_norm", "a finite norm, 0 or more", clip_norm, clip_norm >= 0.0 && clip_norm.is_finite())?;
        check_range("momentum", "from 0 to below 1", momentum, (0.0..1.0).contains(&momentum))
    }

    fn check_axes(&self) -> Result<(), ConfigError> {
        const SYNCHRONOUS_MEAN: &str = "pace=synchronous merge=mean";
        const EQUAL_REPLICAS: &str = "every replica must apply exactly the same updates";
        const OWN_UPDATES: &str = "the worker computes on parameters that include its own unanswered updates, so it \
                                   does not hold the parameters to which a server's difference refers";
        const APART: &str = "fetch other than the period";
        let apart = self.fetches_apart();
        let elastic = matches!(self.merge, Merge::Elastic { .. });
        let compensates = self.compensate != Compensate::None;
        let mesh = matches!(self.topology, Topology::Mesh { .. });
        let tree = self.has_chunks();
        // A mesh whose members apply the mean of a round.
        let gather = mesh && self.pace == Pace::Synchronous;
        let rounds = self.is_collective();
        let shape = if self.topology == Topology::Ring { "topology=ring" } else { "topology=tree" };
        let servers = self.needs_servers();
        let synchronous = self.is_synchronous();
        let first = matches!(self.pace, Pace::First { .. });
        let defers = matches!(self.pace, Pace::First { late: Late::Next, .. });
        let round_mean = (self.pace == Pace::Synchronous || first) && self.merge == Merge::Mean;
        let synchronous_mean = self.pace == Pace::Synchronous && self.merge == Merge::Mean;
        let synchronous_round = self.pace == Pace::Synchronous && self.merge.is_round();
        let asynchronous = matches!(self.pace, Pace::Asynchronous { .. });
        let delayed = matches!(self.outer, Outer::DelayedNesterov { .. });
        let by_steps = self.normalize == Normalize::Steps;
        let by_loss = matches!(self.adapt, Adapt::Loss { .. });
        let lossy_pull = servers && self.pull != Codec::F32;
        // (contradiction, choice, what it requires, reason), the most basic first: only the first one is reported.
        let contradictions: &[(bool, &str, &str, &str)] = &[
            (
                self.payload == Payload::Parameters && !synchronous_round && !round_mean,
                "payload=parameters",
                SYNCHRONOUS_MEAN,
                "late parameters would overwrite the progress of other workers; use payload=updates",
            ),
            (
                self.payload == Payload::Parameters && defers,
                "payload=parameters",
                "late=drop",
                "late parameters would overwrite the progress of other workers; use payload=updates",
            ),
            (
                self.payload == Payload::Gradients && servers,
                "payload=gradients",
                "topology=tree, ring or mesh",
                "the parameters are at the workers alone, and a server could not give them to a newcomer",
            ),
            (
                self.payload == Payload::Gradients && !synchronous_mean,
                "payload=gradients",
                SYNCHRONOUS_MEAN,
                "all workers get the mean of a round; for other paces, use payload=updates",
            ),
            (
                self.payload == Payload::Gradients && self.period != Period::every(1),
                "payload=gradients",
                "period=1",
                "gradients of different parameters have no mean; use payload=updates for local steps",
            ),
            (
                self.payload == Payload::Gradients && self.correction.momentum > 0.0,
                "payload=gradients",
                "momentum=0",
                "momentum before the codec would make velocities of the gradients, and the optimizer of the application has \
                 its own",
            ),
            (
                self.payload == Payload::Gradients && self.optimizer != OptimizerState::Keep,
                "payload=gradients",
                "optimizer=keep",
                "the optimizer's state stays equal at all workers by itself",
            ),
            (
                elastic && !servers,
                "merge=elastic",
                "topology=servers",
                "workers and a center with parameters of its own are drawn to each other",
            ),
            (
                elastic && !synchronous && self.pace != (Pace::Asynchronous { overlap: false }),
                "merge=elastic",
                "pace=synchronous, or pace=asynchronous overlap=false",
                "a worker measures its distance to the center of one moment, and contributes it before it measures again",
            ),
            (
                elastic && self.fetch.is_some(),
                "merge=elastic",
                "no fetch of its own",
                "a worker fetches the center at each synchronisation, and never takes it over",
            ),
            (
                elastic && (!self.staleness.is_constant() || self.outer != Outer::None || compensates),
                "merge=elastic",
                "staleness=const without drop_above, outer=none and compensate=none",
                "the center has to move by as much as the worker does",
            ),
            (
                compensates && !servers,
                "compensate",
                "topology=servers",
                "only a server meets updates that were computed from other parameters than its own",
            ),
            (
                compensates && synchronous,
                "compensate",
                "pace=asynchronous or stale",
                "in rounds, no update is late; outer=adam divides their mean by magnitudes",
            ),
            (
                self.compensate.needs_copies() && self.pace != (Pace::Asynchronous { overlap: false }),
                "compensate=delay or delay-adaptive",
                "pace=asynchronous overlap=false",
                "a worker with two contributions under way does not compute with the parameters that it was sent last",
            ),
            (
                apart && !servers,
                APART,
                "topology=servers",
                "elsewhere, no node keeps parameters that a worker could fetch",
            ),
            (
                apart && !asynchronous,
                APART,
                "pace=asynchronous",
                "a round gives its result to all workers, and the bound of pace=stale promises which contributions a \
                 worker sees",
            ),
            (
                apart && self.pace == (Pace::Asynchronous { overlap: true }),
                APART,
                "overlap=false",
                "a worker that overlaps takes the parameters that answer the contribution before its last one, and a \
                 contribution that asks for none has no such answer",
            ),
            (
                apart && self.adapt != Adapt::None,
                APART,
                "adapt=none",
                "both count the local steps of a worker, and the steps of a period change with the worker's speed",
            ),
            (
                apart && self.period.fixed().is_none(),
                APART,
                "a period of a number of steps",
                "both count the local steps of a worker from the beginning of the run",
            ),
            (
                self.merge.needs_all() && !servers,
                self.merge.text(),
                "topology=servers",
                "it needs the contributions of all workers at one node, and elsewhere they are added up on the way",
            ),
            (
                self.merge.needs_all() && self.pace != Pace::Synchronous,
                self.merge.text(),
                "pace=synchronous",
                "it compares the contributions of a round, one of each worker; other paces have no rounds",
            ),
            (
                self.merge.needs_whole() && self.shards() > 1,
                self.merge.text(),
                "shards=1",
                "it measures whole contributions, and a server of one shard sees a part of each; trimmed-mean and median \
                 take any number of shards",
            ),
            (
                self.merge.needs_updates() && self.payload != Payload::Updates,
                self.merge.text(),
                "payload=updates",
                "the norm of a worker's parameters says nothing of what it has changed",
            ),
            (
                matches!(self.merge, Merge::Krum { .. }) && self.optimizer == OptimizerState::Average,
                self.merge.text(),
                "optimizer=keep or reset",
                "the state of the optimizer would be a part of the distances between contributions",
            ),
            (
                self.merge.needs_dense() && self.codec.is_sparse(),
                self.merge.text(),
                "a codec other than threshold or topk",
                "of a sparse message, most elements are 0, and the few others would be left out as the extreme ones",
            ),
            (
                first && !servers,
                "pace=first",
                "topology=servers",
                "all members of a tree, ring or mesh have to be in a round, since each computes its result",
            ),
            (
                tree && self.pace != Pace::Synchronous,
                shape,
                "pace=synchronous",
                "a node passes on the sum of what it receives, so all contributions of a round must be there; use \
                 topology=servers or mesh for other paces",
            ),
            (
                tree && self.merge != Merge::Mean,
                shape,
                "merge=mean",
                "its messages are weighted means; to apply a sum, scale the learning rate",
            ),
            (
                self.merge == Merge::Mean && !round_mean,
                "merge=mean",
                "pace=synchronous or first",
                "a mean needs rounds with one contribution per worker; use merge=sum or softsync for other paces",
            ),
            (
                matches!(self.merge, Merge::Softsync { .. }) && !asynchronous,
                "merge=softsync",
                "pace=asynchronous",
                "an update that waits for its group to fill would not advance the clock of its worker",
            ),
            (
                mesh && !asynchronous && !gather,
                "topology=mesh",
                "pace=asynchronous or synchronous",
                "a peer of a mesh keeps no clocks of other peers; it has rounds, or applies messages on arrival",
            ),
            (
                gather && self.merge != Merge::Mean,
                "topology=mesh pace=synchronous",
                "merge=mean",
                "a round applies the mean of its messages; to apply a sum, scale the learning rate",
            ),
            (
                mesh && !gather && !matches!(self.merge, Merge::Sum { .. }),
                "topology=mesh pace=asynchronous",
                "merge=sum",
                "a peer adds every message on arrival; lambda=1/n makes the rate that of a mean",
            ),
            (
                mesh && !gather && !matches!(self.codec, Codec::Threshold(_)),
                "topology=mesh pace=asynchronous",
                "codec=threshold",
                "replicas stay equal by counting quanta, and only this codec sends quanta; with pace=synchronous, a mesh \
                 takes the other codecs",
            ),
            (
                gather && self.codec == Codec::F32,
                "topology=mesh pace=synchronous",
                "a codec other than f32",
                "every worker sends its message to every other one; a ring moves plain floats in fewer bytes",
            ),
            (
                gather && self.topology != (Topology::Mesh { relay: 0 }),
                "topology=mesh pace=synchronous",
                "relay=0",
                "the messages of a round go straight from each worker to each other one",
            ),
            (
                gather && self.correction.starters > 0,
                "starters",
                "pace=asynchronous",
                "a round needs the contributions of all workers",
            ),
            (
                tree && self.codec.is_sparse(),
                shape,
                "a codec other than threshold or topk",
                "the sum of sparse messages is less sparse at every hop; use topology=mesh pace=synchronous",
            ),
            (
                tree && self.codec == Codec::SignColumns,
                shape,
                "scope=block",
                "it cuts the vector into chunks without regard to tensors, which would cut their columns; use \
                 topology=servers or mesh for scope=column",
            ),
            (
                self.end != End::Keep && self.codec == Codec::F32,
                "end=send or spread",
                "a codec other than f32",
                "f32 leaves no residual",
            ),
            (
                self.decay != 1.0 && self.codec == Codec::F32,
                "decay",
                "a codec other than f32",
                "f32 leaves no residual that could decay",
            ),
            (
                self.end != End::Keep && rounds,
                "end=send or spread",
                "topology=servers, or topology=mesh pace=asynchronous",
                "in a round all workers contribute at once, so a worker that ends has no message of its own",
            ),
            (
                self.payload == Payload::Parameters && self.codec != Codec::F32,
                "payload=parameters",
                "codec=f32",
                "a residual of earlier parameters would be added to later ones; use payload=updates",
            ),
            (
                self.outer != Outer::None && self.payload == Payload::Gradients,
                "outer",
                "payload=updates",
                "with payload=gradients, the optimizer is the application's, and comes after the mean",
            ),
            (
                self.outer != Outer::None && self.payload == Payload::Parameters,
                "outer",
                "payload=updates",
                "an outer optimizer works on the way that the workers have gone, and not on where they are",
            ),
            (
                self.outer != Outer::None && mesh && !gather,
                "outer",
                "topology=servers, tree or ring, or pace=synchronous",
                "a peer of this mesh adds quanta on arrival: there is no merged update that an optimizer could take",
            ),
            (
                delayed && !servers,
                "outer=delayed-nesterov",
                "topology=servers",
                "it counts the updates that a server merges one by one; for rounds, use outer=momentum look=true",
            ),
            (
                delayed && synchronous,
                "outer=delayed-nesterov",
                "pace=asynchronous, or stale with a bound of 1 or more",
                "a round is a mean of all workers already; use outer=momentum look=true",
            ),
            (
                !servers && self.pull != Codec::F32,
                "a pull codec other than f32",
                "topology=servers",
                "in other topologies no node sends parameters",
            ),
            (
                lossy_pull && self.pace == (Pace::Asynchronous { overlap: true }),
                "a pull codec other than f32",
                "overlap=false",
                OWN_UPDATES,
            ),
            (
                lossy_pull && matches!(self.pace, Pace::Stale { bound: 1.. }),
                "a pull codec other than f32",
                "pace=synchronous or asynchronous, or bound=0",
                OWN_UPDATES,
            ),
            (
                by_steps && self.payload != Payload::Updates,
                "normalize=steps",
                "payload=updates",
                "what workers do per step is an update",
            ),
            (
                by_steps && !synchronous_mean,
                "normalize=steps",
                SYNCHRONOUS_MEAN,
                "the mean number of steps is that of a round",
            ),
            (
                by_steps && self.adapt != Adapt::Speed && !self.period.is_measured(),
                "normalize=steps",
                "adapt=speed, or a period in seconds or examples",
                "otherwise all workers take equally many steps, and a mean of their updates is normalised already",
            ),
            (
                by_loss && servers,
                "adapt=loss",
                "topology=tree, ring or mesh",
                "a server that is started again would not know the loss at the start, which the members of a round tell \
                 each other",
            ),
            (
                by_loss && !rounds,
                "adapt=loss",
                SYNCHRONOUS_MEAN,
                "all workers have the same period, by the mean loss of a round",
            ),
            (
                by_loss && self.period.is_measured(),
                "adapt=loss",
                "a period in steps",
                "in equal times or examples, workers take different numbers of steps",
            ),
            (
                by_loss && !self.period.is_fixed(),
                "adapt=loss",
                "a period without stages",
                "stages begin at a step, and the loss decides how many steps there are until then",
            ),
            (
                by_loss && self.period == Period::every(1),
                "adapt=loss",
                "a period of 2 or more",
                "no period is shorter than one step",
            ),
            (
                self.adapt == Adapt::Speed && !servers,
                "adapt=speed",
                "topology=servers",
                "a server tells its workers how fast the others are; without one, use a period in seconds, as in \
                 period=20s",
            ),
            (
                self.adapt == Adapt::Speed && self.period.has_time(),
                "adapt=speed",
                "a period in steps or examples",
                "in equal times, workers take steps by their speed already",
            ),
            (
                self.adapt == Adapt::Speed && self.period == Period::every(1),
                "adapt=speed",
                "a period of 2 or more",
                "a period of one step cannot be shorter for a slower worker",
            ),
            (
                self.adapt == Adapt::Speed && !self.period.is_fixed(),
                "adapt=speed",
                "a period without stages",
                "stages begin at a step, which workers of unequal speed reach in different rounds",
            ),
            (
                self.period.has_time() && matches!(self.pace, Pace::Stale { bound: 1.. }),
                "a period in seconds",
                "pace=synchronous or asynchronous",
                "the bound counts periods, and workers of any speed have equally many periods of equal time; use a \
                 number of steps with pace=stale",
            ),
            (
                !self.codec.is_sparse() && self.correction != Correction::none(),
                "momentum, warmup, ramp or starters",
                "codec=threshold or topk",
                "these correct for elements that are sent late, and other codecs send every element at once",
            ),
            (
                !mesh && self.correction.starters > 0,
                "starters",
                "topology=mesh",
                "a server would wait for the workers that have not started",
            ),
            (
                mesh && !self.staleness.is_constant(),
                "topology=mesh",
                "staleness=const without drop_above",
                EQUAL_REPLICAS,
            ),
            (
                synchronous && !self.staleness.is_constant(),
                "a synchronous pace (or bound=0)",
                "staleness=const without drop_above",
                "all updates of a round have staleness 0, so nothing would be scaled or dropped",
            ),
            (
                first && !self.staleness.is_constant(),
                "pace=first",
                "staleness=const without drop_above",
                "a round takes contributions as they are; late=drop drops each that is stale",
            ),
            (
                self.optimizer == OptimizerState::Average && self.payload != Payload::Parameters,
                "optimizer=average",
                "payload=parameters",
                "optimizer state is averaged together with the parameters",
            ),
            (
                self.optimizer != OptimizerState::Keep && !synchronous_round && !round_mean,
                "optimizer=reset or average",
                SYNCHRONOUS_MEAN,
                "without rounds there is no moment at which all workers have the same parameters",
            ),
        ];
        match contradictions.iter().find(|(found, ..)| *found) {
            Some(&(_, choice, required, reason)) => Err(ConfigError::Contradiction { choice, required, reason }),
            None => Ok(()),
        }
    }
}

pub(crate) fn check_range(field: &'static str, expected: &'static str, got: f32, ok: bool) -> Result<(), ConfigError> {
    if ok { Ok(()) } else { Err(out_of_range(field, expected, f64::from(got))) }
}

pub(super) const fn out_of_range(field: &'static str, expected: &'static str, got: f64) -> ConfigError {
    ConfigError::OutOfRange { field, expected, got }
}

fn check_codec(codec: &Codec) -> Result<(), ConfigError> {
    let check_density =
        |density| check_range("density", "above 0 and at most 1", density, density > 0.0 && density <= 1.0);
    match *codec {
        Codec::F32 | Codec::Bf16 | Codec::F16 | Codec::Int8 | Codec::Sign | Codec::SignColumns => Ok(()),
        Codec::TopK(TopK { density, .. }) => check_density(density),
        Codec::Threshold(Threshold { tau, control, clip, .. }) => {
            check_tau(tau)?;
            check_range("clip", "a finite number of thresholds, 0 or more", clip, clip >= 0.0 && clip.is_finite())?;
            match control {
                Control::Fixed | Control::Band => Ok(()),
                Control::Density { density } => check_density(density),
                Control::Budget { bytes } => check_range("budget", "at least 64 bytes", bytes as f32, bytes >= 64),
            }
        }
    }
}

fn check_tau(tau: f32) -> Result<(), ConfigError> {
    // The smallest and the largest quantum of the run, 2^-8 tau and 2^8 tau, must be normal floats with room to spare.
    let (least, most) = (f32::from_bits((127 - 110) << 23), f32::from_bits((127 + 110) << 23));
    if !(tau >= least && tau <= most) {
        return Err(out_of_range("tau", "a power of two from 2^-110 to 2^110", f64::from(tau)));
    }
    let nearest = f32::from_bits(tau.to_bits() & 0x7f80_0000);
    if nearest != tau {
        return Err(ConfigError::NotPowerOfTwo { field: "tau", got: tau, nearest });
    }
    Ok(())
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            // As short as it was written: most numbers are floats of 32 bits.
            Self::OutOfRange { field, expected, got } if f64::from(got as f32) == got => {
                write!(f, "{field}: expected {expected}, got {}", got as f32)
            }
            Self::OutOfRange { field, expected, got } => write!(f, "{field}: expected {expected}, got {got}"),
            Self::NotPowerOfTwo { field, got, nearest } => {
                write!(f, "{field}: expected a power of two, got {got} (the nearest below is {nearest})")
            }
            Self::Contradiction { choice, required, reason } => write!(f, "{choice} requires {required}: {reason}"),
            Self::TooFewWorkers { updates, workers } => {
                write!(f, "updates: expected at most the number of workers ({workers}), got {updates}")
            }
            Self::NeedsWorkers { field, got, least, workers, reason } => {
                write!(f, "{field}: {got} requires at least {least} workers, got {workers}: {reason}")
            }
            Self::Alpha { got, workers } => {
                let most = 1.0 / workers as f32;
                write!(f, "alpha: expected at most 1/n with rounds ({most} with {workers} workers), got {got}")
            }
            Self::TooFewContributions { count, workers } => {
                write!(
                    f,
                    "count: expected at most the number of workers ({workers}), got {count}: a worker contributes once \
                     to a round, so none would end"
                )
            }
            Self::TooManySpares { spare, workers } => {
                write!(
                    f,
                    "count: expected n-{} at most with {workers} workers, got n-{spare}",
                    workers.saturating_sub(1)
                )
            }
            Self::Servers { expected, got } => write!(f, "servers: expected {expected}, got {got}"),
            Self::TooManyShards { shards, len } => {
                write!(f, "shards: expected at most the number of parameters ({len}), got {shards}")
            }
            Self::TooLong { what, len, limit } => {
                write!(f, "layout: expected at most {limit} floats in {what}, got {len}")
            }
            Self::EmptyLayout => write!(f, "layout: expected at least 1 parameter, got 0"),
        }
    }
}

impl core::error::Error for ConfigError {}

#[cfg(test)]
mod tests;
