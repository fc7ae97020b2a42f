//! The outer axis: the optimizer that turns merged updates into new parameters, at the servers or at every member of a
//! tree, ring or mesh with rounds.

use core::fmt;
use core::str::FromStr;

use super::{ConfigError, check_range};
use crate::kernel::outer::Step;

/// The outer optimizer. Its state belongs to the parameters: checkpoints save it, and newcomers get it.
///
/// `d` is the merged update: the vector that is subtracted from the parameters without an outer optimizer.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub enum Outer {
    /// The merged update is subtracted as it is.
    #[default]
    None,
    /// `v = mu v + rate d`, and `v` is subtracted (block momentum, Chen and Huo 2016; SlowMo, Wang et al. 2020).
    Momentum {
        /// The share of the velocity that is kept.
        mu: Mu,
        /// Factor on the merged update: the block rate. Finite and above 0.
        rate: f32,
        /// Nesterov's form: `rate d + mu v` is subtracted (Chen and Huo 2016; DiLoCo, Douillard et al. 2023).
        look: bool,
        /// The unit of the velocity.
        scale: VelocityScale,
    },
    /// Delayed Nesterov (Liu et al. 2024), for asynchronous workers. `rate d` is subtracted at once, and added to `b`. Every
    /// `pushes`-th time, `v = mu v + b` and `b = 0` first, and `rate d + mu v` is subtracted: momentum of the mean of so
    /// many updates, and not of each, which would be that of the fastest workers and many times as much. After a resumed
    /// run, the count begins anew. Requires servers without rounds.
    DelayedNesterov {
        /// The share of the velocity that is kept.
        mu: Mu,
        /// Factor on the merged update. Finite and above 0.
        rate: f32,
        /// Merged updates for each step of the momentum: at least as many as there are workers, or it hears only the
        /// fast ones. 1 is [`Outer::Momentum`] in Nesterov's form.
        pushes: Pushes,
    },
    /// `s = s + d d`, and `rate d / sqrt(s + floor)` is subtracted (Duchi et al. 2011; Downpour, Dean et al. 2012). A
    /// learning rate of the workers that stays the same cancels.
    Adagrad {
        /// Factor on the step. Finite and above 0.
        rate: f32,
        /// Keeps the first steps finite. Finite and above 0.
        floor: f32,
    },
    /// `m = mu m + (1 - mu) d`, `s = beta s + (1 - beta) d d`, and `rate m / (sqrt(s) + floor)` is subtracted (Kingma and
    /// Ba 2015, without correction of the bias; Reddi et al. 2021).
    Adam {
        /// The share of the mean that is kept, from 0 to below 1.
        mu: f32,
        /// The share of the mean square that is kept, from 0 to below 1.
        beta: f32,
        /// Factor on the step. Finite and above 0.
        rate: f32,
        /// Keeps steps of elements with small updates finite. Finite and above 0.
        floor: f32,
    },
}

/// The unit of the velocity of an outer momentum.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum VelocityScale {
    /// That of the updates: a velocity of times with a larger learning rate stays as large as it was.
    #[default]
    Update,
    /// That of the updates over their learning rate a: `u = mu u + (rate / a) d`, and `a u` is subtracted (SlowMo, Wang et
    /// al. 2020, algorithm 1). After a warm-up or a decay of the rate, the velocity is as if the rate had always been the
    /// present one.
    ///
    /// a is relative to the rate at the start. It is the mean over a worker's steps since its last contribution, as told
    /// by [`Local::set_learning_rate`](crate::Local::set_learning_rate), and in a round the mean over the workers,
    /// weighted by their examples: the same bits at all members, also if workers disagree. While the rate is that of the
    /// start, the steps are those of `update`, bit for bit. A rate below [`VelocityScale::RATE_MIN`] counts as that: 0 at
    /// the start of a warm-up divides nothing by 0.
    Rate,
}

impl VelocityScale {
    /// The smallest relative learning rate by which an update is divided: 2^-20.
    pub const RATE_MIN: f32 = 1.0 / 1_048_576.0;
}

/// The momentum of an outer optimizer: a number, or `1-1/n` for n workers (Chen and Huo 2016).
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum Mu {
    /// This number, from 0 to below 1.
    Fixed(f32),
    /// 1 - 1/n: n workers then move the parameters as far as one worker does that takes all their steps.
    PerWorker,
}

/// A number of merged updates: a number, or `n` for n workers.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Pushes {
    /// This number, at least 1.
    Fixed(u32),
    /// As many as there are workers.
    PerWorker,
}

/// A text that is no number of pushes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct PushesParseError;

impl Pushes {
    /// The number for a cluster of so many workers.
    pub fn of(self, workers: u32) -> u32 {
        match self {
            Self::Fixed(pushes) => pushes,
            Self::PerWorker => workers.max(1),
        }
    }
}

impl fmt::Display for Pushes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(pushes) => write!(f, "{pushes}"),
            Self::PerWorker => f.write_str("n"),
        }
    }
}

impl FromStr for Pushes {
    type Err = PushesParseError;

    fn from_str(text: &str) -> Result<Self, PushesParseError> {
        match text {
            "n" => Ok(Self::PerWorker),
            _ => text.parse().map(Self::Fixed).map_err(|_| PushesParseError),
        }
    }
}

/// A text that is no momentum.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct MuParseError;

impl Mu {
    /// The number for a cluster of so many workers.
    pub fn of(self, workers: u32) -> f32 {
        match self {
            Self::Fixed(mu) => mu,
            Self::PerWorker => 1.0 - 1.0 / workers.max(1) as f32,
        }
    }
}

impl From<f32> for Mu {
    fn from(mu: f32) -> Self {
        Self::Fixed(mu)
    }
}

impl fmt::Display for Mu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(mu) => write!(f, "{mu}"),
            Self::PerWorker => f.write_str("1-1/n"),
        }
    }
}

impl FromStr for Mu {
    type Err = MuParseError;

    fn from_str(text: &str) -> Result<Self, MuParseError> {
        match text {
            "1-1/n" => Ok(Self::PerWorker),
            _ => text.parse().map(Self::Fixed).map_err(|_| MuParseError),
        }
    }
}

impl Outer {
    /// The step of a cluster of so many workers.
    pub(crate) fn step(self, workers: u32) -> Option<Step> {
        Some(match self {
            Self::None => return None,
            Self::Momentum { mu, rate, look, .. } => Step::Momentum { mu: mu.of(workers), rate, look },
            // One push per milestone: nothing is delayed.
            Self::DelayedNesterov { mu, rate, pushes } if pushes.of(workers) == 1 => {
                Step::Momentum { mu: mu.of(workers), rate, look: true }
            }
            Self::DelayedNesterov { mu, rate, .. } => Step::Delayed { mu: mu.of(workers), rate, milestone: false },
            Self::Adagrad { rate, floor } => Step::Adagrad { rate, floor },
            Self::Adam { mu, beta, rate, floor } => Step::Adam { mu, beta, rate, floor },
        })
    }

    /// Does the step depend on the learning rate of the workers?
    pub(crate) const fn follows_rate(self) -> bool {
        matches!(self, Self::Momentum { scale: VelocityScale::Rate, .. })
    }

    /// How far a merged update moves the parameters in all, relative to its own length. Steps of Adagrad and Adam have a
    /// length of their own, and count as 1.
    pub(crate) fn gain(self, workers: u32) -> f32 {
        match self {
            Self::Momentum { mu, rate, .. } | Self::DelayedNesterov { mu, rate, .. } => rate / (1.0 - mu.of(workers)),
            Self::None | Self::Adagrad { .. } | Self::Adam { .. } => 1.0,
        }
    }

    /// How far a merged update moves the parameters at once.
    pub(crate) fn first_gain(self, workers: u32) -> f32 {
        match self {
            Self::Momentum { mu, rate, look: true, .. } => rate * (1.0 + mu.of(workers)),
            Self::DelayedNesterov { mu, rate, pushes } if pushes.of(workers) == 1 => rate * (1.0 + mu.of(workers)),
            Self::Momentum { rate, .. } | Self::DelayedNesterov { rate, .. } => rate,
            Self::None | Self::Adagrad { .. } | Self::Adam { .. } => 1.0,
        }
    }

    pub(crate) fn check(self) -> Result<(), ConfigError> {
        let positive =
            |field, value: f32| check_range(field, "a finite number above 0", value, value > 0.0 && value.is_finite());
        let share = |field, value: f32| check_range(field, "from 0 to below 1", value, (0.0..1.0).contains(&value));
        match self {
            Self::None => Ok(()),
            Self::DelayedNesterov { pushes: Pushes::Fixed(0), .. } => check_range("pushes", "at least 1", 0.0, false),
            Self::Momentum { mu, rate, .. } | Self::DelayedNesterov { mu, rate, .. } => {
                positive("rate", rate)?;
                if let Mu::Fixed(mu) = mu { share("mu", mu) } else { Ok(()) }
            }
            Self::Adagrad { rate, floor } => {
                positive("rate", rate)?;
                positive("floor", floor)
            }
            Self::Adam { mu, beta, rate, floor } => {
                share("mu", mu)?;
                share("beta", beta)?;
                positive("rate", rate)?;
                positive("floor", floor)
            }
        }
    }
}
