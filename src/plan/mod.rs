//! When is distributing worth it? Closed forms for the time of a step under any recipe.
//!
//! A [`Case`] is a model on a set of machines: parameters, the time of a local step of each worker, and the links.
//! [`Case::forecast`] says for a recipe how fast all workers together are, how much of the time they compute, the bytes
//! that they send, and the reason why they wait. Nothing here does IO, and a forecast takes microseconds, or a few
//! milliseconds with random steps.
//!
//! ```
//! use gradwire::Recipe;
//! use gradwire::plan::{Case, Link};
//!
//! // Four workers with steps of 120 ms, at 1 Gbit/s and 100 us.
//! let case = Case::new(14_600_000, vec![0.120; 4], Link::symmetric(125e6, 1e-4));
//! let sync = case.forecast(&Recipe::sync())?;
//! assert!(sync.speed_up < 1.0, "a dense exchange of 58.4 MB takes longer than the steps");
//! let averaging = case.forecast(&Recipe::averaging(50))?;
//! assert!(averaging.speed_up > 3.0);
//! # Ok::<(), gradwire::plan::PlanError>(())
//! ```
//!
//! A forecast is about time only. How much a step teaches under a recipe has to be measured: multiply the forecast by the
//! examples that the recipe needs relative to another one.
//!
//! # The forms
//!
//! t is the time of a local step, H the local steps of a period, N the number of workers, L the latency, B the bandwidth,
//! V the bytes of a vector, v those of a chunk. A forecast is the compute of a round plus its exchange.
//!
//! | part | closed form |
//! |---|---|
//! | compute of a synchronous round | mean of the largest of N sums of H steps |
//! | of `pace=first` | mean of the K-th smallest; with `grace`, at most so much more; with an adaptive one, of the last before the cap |
//! | of a period in time | the whole steps that fit |
//! | tree of depth D | V/B + (2 D - 1) v/B + 2 D L: chunks in a pipeline up and down |
//! | ring | 2 (N - 1)/N V/B, and the latency of a hop where chunks are too few to hide it |
//! | servers | V/B + V/B + 2 L; at the server's port N times as much |
//! | mesh | (N - 1) encoded messages, L, and their decoding |
//! | asynchronous | each worker its own cycle; at most what the port of the server carries |
//!
//! The sizes of messages are those of the codecs. The forms of trees, rings and servers with plain floats are within 5 %
//! of the simulator that runs the machines themselves (`tests/plan.rs`).
//!
//! Random steps have a gamma distribution: with a [spread](Case::spread) of 1 they are exponential, and the mean of the
//! largest of N is t (1 + 1/2 + … + 1/N). A period of H steps has the spread divided by the root of H.

mod code;
mod exchange;
mod order;
mod question;
mod rhythm;
mod size;

use gradwire_core::{Cluster, ConfigError, Recipe};

pub use code::{Coder, Costs};
pub use question::Law;

use exchange::Exchange;
use rhythm::Rhythm;

/// The network between the machines. All links are alike, and full duplex.
///
/// ```
/// use gradwire::plan::{Link, Sharing};
///
/// let gigabit = Link::symmetric(125e6, 1e-4); // bytes per second, seconds
/// let cloud = Link { up: 60e6, sharing: Sharing::Pair, ..gigabit };
/// assert_eq!((cloud.up, cloud.down), (60e6, 125e6));
/// ```
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Link {
    /// Bytes per second that a machine can send: what an application sees, without the headers of packets.
    pub up: f64,
    /// Bytes per second that a machine can receive.
    pub down: f64,
    /// Seconds from the last byte sent to its arrival.
    pub latency: f64,
    /// What the bandwidth is shared by.
    pub sharing: Sharing,
}

/// The messages that share a bandwidth.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// All messages of a machine share its port: a switch with one cable per machine.
    Port,
    /// The messages of each pair of machines share a link of their own: a limit per connection, as clouds have it, and
    /// the simulator.
    Pair,
}

/// The machines on which parameter servers run.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// Server k runs beside worker k. Traffic between the two does not use the port.
    Workers,
    /// Machines of their own.
    Own,
}

/// A model on a set of machines. Plain data: [`Case::new`] fills it, and its fields can be changed.
///
/// ```
/// use gradwire::Recipe;
/// use gradwire::plan::{Case, Link};
///
/// // Three equal workers and one of half their speed, with steps that vary by 20 %.
/// let mut case = Case::new(1_000_000, vec![0.1, 0.1, 0.1, 0.2], Link::symmetric(125e6, 1e-4));
/// case.spread = 0.2;
/// let (sync, ssp) = (case.forecast(&Recipe::sync())?, case.forecast(&Recipe::asynchronous())?);
/// assert!(ssp.speed_up > sync.speed_up, "no worker waits for the slow one");
/// # Ok::<(), gradwire::plan::PlanError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Parameters of the model, at least 1.
    pub params: usize,
    /// Seconds of a local step by worker: forward, backward and optimizer, without communication. Each above 0.
    pub steps: Vec<f64>,
    /// Standard deviation of the time of a step over its mean: how much it changes from step to step.
    pub spread: f64,
    /// The network.
    pub link: Link,
    /// The speed of codecs and of the memory.
    pub costs: Costs,
    /// Server nodes, for recipes that need some. `None`: one per shard, and at most as many as workers.
    pub servers: Option<u32>,
    /// Where servers run.
    pub hosts: Hosts,
    /// Examples of a local step, for periods in examples.
    pub batch: Option<u32>,
    /// Vectors of the optimizer, for recipes that average them: 1 for momentum, 2 for Adam.
    pub optimizer_vectors: u32,
    /// The share of elements that a threshold sends if the recipe does not say it.
    pub density: f64,
}

/// The time of a round of a recipe, and what follows from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    /// Local steps per second of all workers together. Steps whose contribution is dropped do not count.
    pub rate: f64,
    /// [`rate`](Self::rate) relative to the fastest worker alone.
    pub speed_up: f64,
    /// Seconds of a step: the mean time from one local step of a worker to its next, waits included.
    pub step: f64,
    /// Mean local steps of a worker between two synchronisations.
    pub period: f64,
    /// The share of the time that the machines compute, for contributions that count.
    pub busy: f64,
    /// The seconds of a step, by what they are spent on.
    pub parts: Parts,
    /// Bytes of a step that a worker causes: all messages of all machines, over steps and workers.
    pub bytes: f64,
    /// Bytes of a step through the busiest port, in its busier direction.
    pub busiest: f64,
    /// Contributions per message: above 1 in a mesh without rounds whose messages are merged, because the wire is too slow
    /// for each of them. Staleness grows with it.
    pub merged: f64,
    /// Mean versions between the parameters of an update and those that it is applied to.
    pub staleness: f64,
    /// The reason for the largest part of the time in which workers do not compute.
    pub waits: Waits,
    /// Server nodes.
    pub servers: u32,
}

/// The seconds of a mean step by what they are spent on.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub struct Parts {
    /// Local steps, also those whose contribution is dropped.
    pub compute: f64,
    /// Waiting for slower workers.
    pub straggle: f64,
    /// Bytes on the wire that nothing else hides.
    pub wire: f64,
    /// Latency of messages.
    pub latency: f64,
    /// Encoding, decoding and adding, where the wire does not hide it.
    pub code: f64,
}

/// What workers wait for most.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Waits {
    /// They compute at least 95 % of the time.
    Nothing,
    /// Slower workers: the rank with the longest steps. `None`: all are equally slow on average.
    Stragglers(Option<u32>),
    /// The port of every worker.
    Wire,
    /// The port of a parameter server.
    Server,
    /// The port of a node of the tree that has children.
    Inner,
    /// The latency of messages.
    Latency,
    /// Codecs and sums.
    Code,
}

/// Why there is no forecast.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum PlanError {
    /// A number of the case is out of its range: name, range, value.
    Range {
        /// The field.
        name: &'static str,
        /// The values that it takes.
        expected: &'static str,
        /// The given value.
        got: f64,
    },
    /// The recipe does not fit the cluster.
    Recipe(ConfigError),
    /// The period is a number of examples, and [`Case::batch`] is not known.
    NoBatch,
}

impl std::fmt::Display for PlanError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Range { name, expected, got } => write!(f, "{name}: expected {expected}, got {got}"),
            Self::Recipe(error) => error.fmt(f),
            Self::NoBatch => write!(f, "period: expected a known batch for a period in examples, got none"),
        }
    }
}

// A program that returns this error from `main` prints it by `Debug`.
impl std::fmt::Debug for PlanError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for PlanError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Recipe(error) => Some(error),
            _ => None,
        }
    }
}

impl Link {
    /// So many bytes per second in both directions, shared by the port of a machine. `latency`: in seconds.
    pub const fn symmetric(bandwidth: f64, latency: f64) -> Self {
        Self { up: bandwidth, down: bandwidth, latency, sharing: Sharing::Port }
    }

    /// The bandwidths multiplied by a factor.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        Self { up: self.up * factor, down: self.down * factor, ..self }
    }

    /// The lower of both bandwidths.
    pub fn slower(&self) -> f64 {
        self.up.min(self.down)
    }
}

impl Case {
    /// A model of so many parameters on workers with these seconds per step, which do not vary. Servers run beside
    /// workers, and codecs have the speed of [`Costs::typical`].
    pub fn new(params: usize, steps: Vec<f64>, link: Link) -> Self {
        Self {
            params,
            steps,
            spread: 0.0,
            link,
            costs: Costs::typical(),
            servers: None,
            hosts: Hosts::Workers,
            batch: None,
            optimizer_vectors: 1,
            density: 0.01,
        }
    }

    /// The forecast for a recipe. A period with stages has the length of its last stage, and a period that follows the
    /// loss its first length.
    ///
    /// # Errors
    /// When a number of the case is out of its range, or the recipe does not fit the cluster.
    pub fn forecast(&self, recipe: &Recipe) -> Result<Forecast, PlanError> {
        self.check()?;
        let cluster = self.cluster(recipe);
        let recipe = &recipe.fitted(cluster, self.params);
        recipe.check_cluster(cluster, self.params).map_err(PlanError::Recipe)?;
        let exchange = Exchange::of(self, recipe, cluster);
        Ok(Rhythm::of(self, recipe)?.with(self, recipe, cluster, &exchange))
    }

    /// Steps per second of the fastest worker alone.
    pub fn alone(&self) -> f64 {
        1.0 / self.steps.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// The workers, and the servers that the recipe needs.
    pub fn cluster(&self, recipe: &Recipe) -> Cluster {
        let workers = self.steps.len() as u32;
        let servers = match recipe.topology() {
            gradwire_core::recipe::Topology::Servers { shards } => {
                self.servers.unwrap_or_else(|| shards.min(workers).max(1))
            }
            _ => 0,
        };
        Cluster { workers, servers }
    }

    fn check(&self) -> Result<(), PlanError> {
        let range = |name, expected, got: f64, holds: bool| match holds {
            true => Ok(()),
            false => Err(PlanError::Range { name, expected, got }),
        };
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let (link, costs) = (self.link, self.costs);
        range("params", "at least 1", self.params as f64, self.params >= 1)?;
        range("workers", "1 to 100000", self.steps.len() as f64, (1..=100_000).contains(&self.steps.len()))?;
        for step in &self.steps {
            range("step", "a finite number of seconds above 0", *step, positive(*step))?;
        }
        range("spread", "from 0 to 10", self.spread, (0.0..=10.0).contains(&self.spread))?;
        range("link", "above 0 bytes per second to send", link.up, link.up > 0.0)?;
        range("link", "above 0 bytes per second to receive", link.down, link.down > 0.0)?;
        range("latency", "0 or more seconds", link.latency, link.latency.is_finite() && link.latency >= 0.0)?;
        range("density", "above 0, and at most 1", self.density, self.density > 0.0 && self.density <= 1.0)?;
        range("batch", "at least 1", 0.0, self.batch != Some(0))?;
        let coders = costs.coders();
        for time in [costs.axpy, costs.passes].into_iter().chain(coders.iter().flat_map(|(_, coder)| coder.times())) {
            range("costs", "0 or more", time, time.is_finite() && time >= 0.0)?;
        }
        Ok(())
    }
}
