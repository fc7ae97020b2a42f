//! Checks of a recipe: ranges of numbers, and combinations of choices that cannot work, each with its reason.

mod axes;
mod error;

use alloc::vec::Vec;

pub use error::ConfigError;

use super::{Adapt, Codec, Control, Correction, End, Merge, Pace, Recipe, Threshold, TopK, Topology};
use crate::id::Cluster;
use crate::kernel::{MEAN_MAX, ledger};

/// Longest vector in floats: the length of a segment, or of a body, in bytes must fit 32 bits.
const LEN_MAX: usize = (1 << 30) - 1;
/// Longest shard in floats whose top-k messages fit 32 bits, at any density: a message has a word for each value, and
/// half a word per element for the list.
const TOP_K_LEN_MAX: usize = LEN_MAX / 3 * 2 - 2;

/// Most workers of a tree of pairs: rank 0 has a child for each doubling.
const PAIRS_MAX: u32 = 1 << (MEAN_MAX - 1);

impl Recipe {
    /// Checks ranges, combinations of choices, and the number of workers.
    ///
    /// # Errors
    /// The first violation; see [`ConfigError`]. [`faults`](Self::faults) lists all of them.
    pub fn check(&self, workers: u32) -> Result<(), ConfigError> {
        first(&self.faults_with(workers))
    }

    /// Checks the recipe as [`check`](Self::check) does, then the number of server nodes and `len`, the length in
    /// floats of the vector that is exchanged.
    ///
    /// # Errors
    /// The first violation; see [`ConfigError`]. [`faults`](Self::faults) lists all of them.
    pub fn check_cluster(&self, cluster: Cluster, len: usize) -> Result<(), ConfigError> {
        first(&self.faults(cluster, len))
    }

    /// Everything that keeps this recipe from running in this cluster, with a vector of `len` floats: the most basic
    /// fault first. Empty if it can run.
    ///
    /// ```
    /// use gradwire_core::{Cluster, Recipe};
    ///
    /// let recipe: Recipe = "ssp bound=2 codec=topk density=2".parse()?;
    /// let faults = recipe.faults(Cluster { workers: 4, servers: 0 }, 1000);
    /// assert_eq!(faults.len(), 2);
    /// assert_eq!(faults[0].to_string(), "density: expected above 0 and at most 1, got 2");
    /// assert!(faults[1].to_string().starts_with("servers: expected at least 1 server node, got 0"));
    /// # Ok::<(), gradwire_core::recipe::RecipeParseError>(())
    /// ```
    pub fn faults(&self, cluster: Cluster, len: usize) -> Vec<ConfigError> {
        let mut faults = self.faults_with(cluster.workers);
        let servers = match (self.needs_servers(), cluster.servers) {
            (true, 0) => Some("at least 1 server node"),
            (true, got) if got > self.shards() => Some("at most one server node per shard"),
            // A collective may have one server node, which hosts the coordinator of views and no shard.
            (false, got) if got > 1 && self.is_collective() => Some("0 server nodes, or 1 for the coordinator"),
            (false, got) if got > 0 && !self.is_collective() => Some("0 server nodes with this topology"),
            _ => None,
        };
        faults.extend(servers.map(|expected| ConfigError::Servers { expected, got: cluster.servers }));
        if len == 0 {
            faults.push(ConfigError::EmptyLayout);
            return faults;
        }
        let shards = self.shards().max(1);
        if shards as usize > len {
            faults.push(ConfigError::TooManyShards { shards, len });
        }
        let longest = len.div_ceil(shards as usize);
        // A mesh without rounds sends its ledger as one body.
        let limit = if self.has_ledger() { ledger::LEN_MAX } else { LEN_MAX };
        if len > limit {
            faults.push(ConfigError::TooLong { what: "the vector", len, limit });
        } else if longest > TOP_K_LEN_MAX && (self.is_dense_top_k(&self.codec) || self.is_dense_top_k(&self.pull)) {
            faults.push(ConfigError::TooLong { what: "a shard", len: longest, limit: TOP_K_LEN_MAX });
        }
        faults
    }

    /// The faults of the recipe, and of this number of workers with it.
    fn faults_with(&self, workers: u32) -> Vec<ConfigError> {
        let mut faults = Vec::new();
        self.check_numbers(&mut faults);
        self.check_axes(&mut faults);
        if workers == 0 {
            faults.push(out_of_range("workers", "at least 1", 0.0));
            return faults;
        }
        faults.extend(self.check_workers(workers).err());
        faults
    }

    fn check_workers(&self, workers: u32) -> Result<(), ConfigError> {
        // A group larger than the cluster would wait for updates that no worker sends.
        if let Merge::Softsync { updates } = self.merge
            && updates > workers
        {
            return Err(ConfigError::TooFewWorkers { updates, workers });
        }
        self.merge.check_workers(workers)?;
        if self.merge == Merge::Adasum && self.has_chunks() && workers > PAIRS_MAX {
            return Err(out_of_range("workers", "at most 256 with merge=adasum topology=tree", f64::from(workers)));
        }
        if let Some(alpha) = self.merge.elastic(workers) {
            check_range("alpha", "from 0 to 1", alpha, (0.0..=1.0).contains(&alpha))?;
            // 1/n rounds to a little more than 1 for some n.
            if self.is_synchronous() && alpha * workers as f32 > 1.000_001 {
                return Err(ConfigError::Alpha { got: alpha, workers });
            }
        }
        if let Pace::First { count, .. } = self.pace {
            count.check(workers)?;
            self.merge.check_count(count.of(workers))?;
        }
        let Correction { starters, .. } = self.correction;
        check_range("starters", "at most the number of workers", starters as f32, starters <= workers)
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

    fn check_numbers(&self, faults: &mut Vec<ConfigError>) {
        let mut note = |result: Result<(), ConfigError>| faults.extend(result.err());
        note(self.period.check());
        if let Some(steps) = self.fetch {
            note(check_range("fetch", "at least 1", steps as f32, steps >= 1));
        }
        if let Adapt::Loss { most } = self.adapt {
            note(check_range("most", "at least the period", most as f32, most >= self.period.at(0)));
        }
        note(self.staleness.check());
        match self.topology {
            Topology::Servers { shards: 0 } => note(Err(out_of_range("shards", "at least 1", 0.0))),
            Topology::Tree { fan_in } if !(1..=8).contains(&fan_in) => {
                note(Err(out_of_range("fan_in", "1 to 8", f64::from(fan_in))));
            }
            _ => {}
        }
        note(check_range("chunk", "at least 1", self.chunk as f32, self.chunk > 0));
        match self.merge {
            Merge::Sum { lambda } => note(lambda.check()),
            Merge::Softsync { updates: 0 } => note(Err(out_of_range("updates", "at least 1", 0.0))),
            merge => note(merge.check()),
        }
        note(check_codec(&self.codec));
        note(check_codec(&self.pull));
        note(self.end.check());
        note(self.outer.check());
        note(check_range("decay", "from 0 to 1", self.decay, (0.0..=1.0).contains(&self.decay)));
        note(self.compensate.check());
        let Correction { momentum, clip_norm, .. } = self.correction;
        let finite = clip_norm >= 0.0 && clip_norm.is_finite();
        note(check_range("clip_norm", "a finite norm, 0 or more", clip_norm, finite));
        note(check_range("momentum", "from 0 to below 1", momentum, (0.0..1.0).contains(&momentum)));
    }
}

fn first(faults: &[ConfigError]) -> Result<(), ConfigError> {
    faults.first().map_or(Ok(()), |fault| Err(*fault))
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

#[cfg(test)]
mod tests;
