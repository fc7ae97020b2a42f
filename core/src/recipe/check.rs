//! Which combinations make sense, and why the others do not.

use core::fmt;

use super::{Codec, Control, Correction, Merge, OptimizerState, Pace, Payload, Recipe, Threshold, TopK, Topology};
use crate::id::Cluster;

/// Why a recipe, or a recipe with this cluster, cannot run.
#[derive(Copy, Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A number is out of its range.
    OutOfRange {
        /// The field of the text form.
        field: &'static str,
        /// What would be accepted.
        expected: &'static str,
        /// What was given.
        got: f64,
    },
    /// A power of two is needed, and this is the nearest.
    NotPowerOfTwo {
        /// The field of the text form.
        field: &'static str,
        /// What was given.
        got: f32,
        /// The power of two below it.
        nearest: f32,
    },
    /// Two choices contradict each other.
    Contradiction {
        /// One choice.
        one: &'static str,
        /// The other.
        other: &'static str,
        /// Why they cannot go together.
        because: &'static str,
    },
    /// More updates per application than there are workers.
    TooFewWorkers {
        /// Softsync's c.
        updates: u32,
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
    /// More shards than parameters.
    TooManyShards {
        /// Shards asked for.
        shards: u32,
        /// Floats in the vector.
        len: usize,
    },
    /// The vector is longer than one message may be.
    TooLong {
        /// Floats in the longest shard.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// The layout has no parameters.
    EmptyLayout,
}

/// The longest shard, in floats: a body's length must fit 32 bits.
const SHARD_LEN_MAX: usize = (1 << 30) - 1;

impl Recipe {
    /// Checks that the choices make sense together and for this many workers.
    ///
    /// # Errors
    /// The first thing wrong, with its reason.
    pub fn check(&self, workers: u32) -> Result<(), ConfigError> {
        self.check_numbers()?;
        self.check_axes()?;
        if workers == 0 {
            return Err(out_of_range("workers", "at least 1", 0.0));
        }
        if let Merge::Softsync { updates } = self.merge
            && updates > workers
        {
            return Err(ConfigError::TooFewWorkers { updates, workers });
        }
        let Correction { starters, .. } = self.correction;
        check_range("starters", "at most the number of workers", starters as f32, starters <= workers)
    }

    /// Checks the recipe against the whole cluster and the length of the vector that is exchanged.
    ///
    /// # Errors
    /// The first thing wrong, with its reason.
    pub fn check_cluster(&self, cluster: Cluster, len: usize) -> Result<(), ConfigError> {
        self.check(cluster.workers)?;
        match (self.needs_servers(), cluster.servers) {
            (true, 0) => return Err(ConfigError::Servers { expected: "at least 1 server node", got: 0 }),
            (true, got) if got > self.shards() => {
                return Err(ConfigError::Servers { expected: "at most one server node per shard", got });
            }
            // One node for the coordinator alone.
            (false, 1) if self.is_collective() => {}
            (false, got) if got > 1 && self.is_collective() => {
                return Err(ConfigError::Servers { expected: "none, or 1 node for the coordinator alone", got });
            }
            (false, got) if got > 0 => return Err(ConfigError::Servers { expected: "no server nodes", got }),
            _ => {}
        }
        if len == 0 {
            return Err(ConfigError::EmptyLayout);
        }
        if self.shards() as usize > len {
            return Err(ConfigError::TooManyShards { shards: self.shards(), len });
        }
        let longest = len.div_ceil(self.shards() as usize);
        if longest > SHARD_LEN_MAX {
            return Err(ConfigError::TooLong { len: longest, limit: SHARD_LEN_MAX });
        }
        Ok(())
    }

    /// Checks that a budget has room for the headers of all tensors, and some entries each.
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
            Merge::Sum { lambda } if !(lambda.is_finite() && lambda > 0.0) => {
                return Err(out_of_range("lambda", "finite and above 0", f64::from(lambda)));
            }
            Merge::Softsync { updates: 0 } => return Err(out_of_range("updates", "at least 1", 0.0)),
            _ => {}
        }
        check_codec(&self.codec)?;
        check_codec(&self.pull)?;
        let Correction { momentum, .. } = self.correction;
        check_range("momentum", "from 0 to below 1", momentum, (0.0..1.0).contains(&momentum))
    }

    fn check_axes(&self) -> Result<(), ConfigError> {
        let mesh = matches!(self.topology, Topology::Mesh { .. });
        let tree = self.is_collective();
        let shape = if self.topology == Topology::Ring { "topology=ring" } else { "topology=tree" };
        let servers = self.needs_servers();
        let synchronous = self.is_synchronous();
        let refused: &[(bool, &str, &str, &str)] = &[
            (
                self.payload == Payload::Parameters && !(self.pace == Pace::Synchronous && self.merge == Merge::Mean),
                "payload=parameters",
                "any pace but synchronous or any merge but mean",
                "parameters that arrive late would overwrite the progress of others; let updates travel instead",
            ),
            (
                tree && self.pace != Pace::Synchronous,
                shape,
                "any pace but synchronous",
                "a node can add up what others pass on to it only when all of it has come",
            ),
            (
                tree && self.merge != Merge::Mean,
                shape,
                "any merge but mean",
                "it carries weighted means; scale the learning rate for a sum",
            ),
            (
                self.merge == Merge::Mean && self.pace != Pace::Synchronous,
                "merge=mean",
                "any pace but synchronous",
                "a mean needs to know whose updates it is of; without rounds, use sum or softsync",
            ),
            (
                matches!(self.merge, Merge::Softsync { .. }) && !matches!(self.pace, Pace::Asynchronous { .. }),
                "merge=softsync",
                "any pace but asynchronous",
                "an update waiting for others to fill its group would not count for its clock",
            ),
            (
                mesh && !matches!(self.pace, Pace::Asynchronous { .. }),
                "topology=mesh",
                "any pace but asynchronous",
                "peers of a mesh apply what comes when it comes; nobody counts clocks for them",
            ),
            (
                mesh && self.merge != (Merge::Sum { lambda: 1.0 }),
                "topology=mesh",
                "any merge but sum with lambda=1",
                "a replica must apply exactly what every other applies",
            ),
            (
                mesh && !matches!(self.codec, Codec::Threshold(_)),
                "topology=mesh",
                "any codec but threshold",
                "replicas of a mesh stay equal because they count quanta, which only this codec sends",
            ),
            (
                tree && self.codec != Codec::F32,
                shape,
                "any codec but f32",
                "every node would round the mean of those behind it again; use topology=servers",
            ),
            (
                self.payload == Payload::Parameters && self.codec != Codec::F32,
                "payload=parameters",
                "any codec but f32",
                "what is left of parameters in a residual would be added to other parameters; let updates travel",
            ),
            (
                !servers && self.pull != Codec::F32,
                "pull=",
                "any topology but servers",
                "nobody else sends parameters to be pulled",
            ),
            (
                servers && self.pull != Codec::F32 && matches!(self.pace, Pace::Asynchronous { overlap: true }),
                "pull=",
                "overlap=true",
                "a worker that computes on its own updates does not hold what the server sent",
            ),
            (
                servers && self.pull != Codec::F32 && matches!(self.pace, Pace::Stale { bound: 1.. }),
                "pull=",
                "pace=stale",
                "a worker that computes on its own updates does not hold what the server sent",
            ),
            (
                !self.codec.is_sparse() && self.correction != Correction::none(),
                "momentum, warmup, ramp or starters",
                "a dense codec",
                "they make up for elements that are sent late, and there all are sent at once",
            ),
            (
                !mesh && self.correction.starters > 0,
                "starters",
                "any topology but mesh",
                "a server would wait for those who have not started",
            ),
            (
                !self.staleness.is_constant() && (synchronous || mesh),
                "a staleness rule",
                if mesh { "topology=mesh" } else { "a synchronous pace (or bound=0)" },
                if mesh {
                    "a replica must apply exactly what every other applies"
                } else {
                    "every update is fresh there, so nothing would be scaled"
                },
            ),
            (
                self.optimizer == OptimizerState::Average && self.payload != Payload::Parameters,
                "optimizer=average",
                "payload=updates",
                "the state belongs to the parameters that are averaged; let these travel",
            ),
            (
                self.optimizer != OptimizerState::Keep
                    && !(self.pace == Pace::Synchronous && self.merge == Merge::Mean),
                "optimizer=reset or average",
                "any pace but synchronous or any merge but mean",
                "optimizer state is merged when everyone's parameters are, and here they never all are",
            ),
        ];
        match refused.iter().find(|(refused, ..)| *refused) {
            Some(&(_, one, other, because)) => Err(ConfigError::Contradiction { one, other, because }),
            None => Ok(()),
        }
    }
}

pub(crate) fn check_range(field: &'static str, expected: &'static str, got: f32, ok: bool) -> Result<(), ConfigError> {
    if ok { Ok(()) } else { Err(out_of_range(field, expected, f64::from(got))) }
}

const fn out_of_range(field: &'static str, expected: &'static str, got: f64) -> ConfigError {
    ConfigError::OutOfRange { field, expected, got }
}

fn check_codec(codec: &Codec) -> Result<(), ConfigError> {
    let check_density =
        |density| check_range("density", "above 0 and at most 1", density, density > 0.0 && density <= 1.0);
    match *codec {
        Codec::F32 | Codec::Bf16 | Codec::F16 | Codec::Int8 | Codec::Sign => Ok(()),
        Codec::TopK(TopK { density }) => check_density(density),
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
    // So that the smallest and the largest quantum of the run are ordinary numbers too.
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
            Self::OutOfRange { field, expected, got } => write!(f, "{field}: expected {expected}, got {got}"),
            Self::NotPowerOfTwo { field, got, nearest } => {
                write!(f, "{field}: expected a power of two, got {got} (the nearest below is {nearest})")
            }
            Self::Contradiction { one, other, because } => write!(f, "{one} cannot go with {other}: {because}"),
            Self::TooFewWorkers { updates, workers } => {
                write!(f, "updates: expected at most the number of workers ({workers}), got {updates}")
            }
            Self::Servers { expected, got } => write!(f, "servers: expected {expected}, got {got}"),
            Self::TooManyShards { shards, len } => {
                write!(f, "shards: expected at most the number of parameters ({len}), got {shards}")
            }
            Self::TooLong { len, limit } => {
                write!(f, "shards: expected at most {limit} parameters in one, got {len}; use more shards")
            }
            Self::EmptyLayout => write!(f, "layout: expected at least 1 parameter, got 0"),
        }
    }
}

impl core::error::Error for ConfigError {}
