//! The compensation axis: how a server corrects a late update before it is merged.
//!
//! The formulas are in `kernel/compensate.rs`.

use super::{ConfigError, check_range};
use crate::kernel::compensate::Formula;

/// The correction of an update by the changes at the server since the parameters from which it was computed.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum Compensate {
    /// No correction.
    None,
    /// FASGD (Odena 2016, as in the released code): each element is divided by the moving mean of its magnitude, so that
    /// a step has a length of its own. The server keeps one more vector, which checkpoints save. With
    /// [`Scaling::InversePlusOne`](super::Scaling::InversePlusOne), this is the method of the paper.
    Magnitude {
        /// The share of the mean that is kept at each update, from 0 to below 1.
        keep: f32,
        /// The step of an element whose updates all have the same magnitude, above 0: the learning rate of the paper.
        length: f32,
        /// Added to the mean, above 0. In units of updates: the paper's 0.001 times the learning rate of the workers.
        least: f32,
        /// B-FASGD's c_push, 0 or more, in units of updates as `least` is. 0: a worker sends each update. Above 0, it sends
        /// the share `1 / (1 + push_cost / (v + least / 10))` of them, where v is the mean of the moving means of the whole
        /// vector, and a server applies the worker's last update again in place of one that it is not sent. For that it
        /// keeps the last update of each worker: n times the memory of a shard.
        push_cost: f32,
        /// B-FASGD's c_fetch, 0 or more, in the same units. 0: a worker takes the parameters after each update. Above 0, it
        /// takes them after the same share of its updates with `fetch_cost`, and else goes on with the ones that it took
        /// last.
        fetch_cost: f32,
    },
    /// DC-ASGD with a constant factor (Zheng et al. 2017): the first order of the gradient's Taylor expansion, with the
    /// square of the gradient in place of the Hessian's diagonal. The server keeps a copy of its parameters for each
    /// worker, as the worker got them: n times the memory of a shard.
    Delay {
        /// Factor on the correction, 0 or more: lambda in the paper. 0: no correction.
        strength: f32,
        /// The learning rate of the workers, above 0: their updates are learning rate times gradient.
        worker_rate: f32,
        /// No element of the correction is larger than that of the update.
        bounded: bool,
    },
    /// DC-ASGD with a factor for each element: lambda over the root of the mean square of the gradients. The server keeps
    /// that mean, which checkpoints save, and the copies of [`Delay`](Self::Delay).
    DelayAdaptive {
        /// Factor on the correction, 0 or more: lambda in the paper. 0: no correction.
        strength: f32,
        /// The learning rate of the workers, above 0.
        worker_rate: f32,
        /// The share of the mean square that is kept at each update, from 0 to below 1.
        keep: f32,
        /// No element of the correction is larger than that of the update.
        bounded: bool,
    },
}

/// Added to the mean square of the gradients, as in the paper.
const LEAST_SQUARE: f32 = 1e-7;

impl Compensate {
    /// The formula, if it changes anything.
    pub(crate) fn formula(self) -> Option<Formula> {
        match self {
            Self::None | Self::Delay { strength: 0.0, .. } | Self::DelayAdaptive { strength: 0.0, .. } => None,
            Self::Magnitude { keep, length, least, .. } => Some(Formula::Magnitude { keep, length, least }),
            Self::Delay { strength, worker_rate, bounded } => {
                Some(Formula::Delay { factor: strength / worker_rate, bounded })
            }
            Self::DelayAdaptive { strength, worker_rate, keep, bounded } => {
                Some(Formula::DelayAdaptive { strength, worker_rate, keep, least: LEAST_SQUARE, bounded })
            }
        }
    }

    /// The formula compares the parameters with the ones that the worker got.
    pub(crate) fn needs_copies(self) -> bool {
        self.formula().is_some_and(|formula| formula.reads_parameters())
    }

    /// The costs of a push and of a fetch, if there are any, and the number that is added to the mean magnitude.
    ///
    /// The released code adds 0.0001 to the mean in this place, a tenth of what it adds to the mean of an element.
    pub(crate) fn costs(self) -> Option<([f32; 2], f32)> {
        match self {
            Self::Magnitude { least, push_cost, fetch_cost, .. } if push_cost > 0.0 || fetch_cost > 0.0 => {
                Some(([push_cost, fetch_cost], least / 10.0))
            }
            _ => None,
        }
    }

    /// A server may have to apply the last update of a worker again.
    pub(crate) fn repeats(self) -> bool {
        self.costs().is_some_and(|([push, _], _)| push > 0.0)
    }

    /// A worker may go on without new parameters.
    pub(crate) fn skips_fetches(self) -> bool {
        self.costs().is_some_and(|([_, fetch], _)| fetch > 0.0)
    }

    pub(crate) fn check(self) -> Result<(), ConfigError> {
        let positive =
            |field, value: f32| check_range(field, "a finite number above 0", value, value > 0.0 && value.is_finite());
        let share = |value: f32| check_range("keep", "from 0 to below 1", value, (0.0..1.0).contains(&value));
        let cost = |field, value: f32| {
            check_range(field, "a finite number, 0 or more", value, value >= 0.0 && value.is_finite())
        };
        let factor = |value: f32| cost("strength", value);
        match self {
            Self::None => Ok(()),
            Self::Magnitude { keep, length, least, push_cost, fetch_cost } => {
                share(keep)?;
                positive("length", length)?;
                positive("least", least)?;
                cost("push_cost", push_cost)?;
                cost("fetch_cost", fetch_cost)
            }
            Self::Delay { strength, worker_rate, .. } => {
                factor(strength)?;
                positive("worker_rate", worker_rate)
            }
            Self::DelayAdaptive { strength, worker_rate, keep, .. } => {
                factor(strength)?;
                positive("worker_rate", worker_rate)?;
                share(keep)
            }
        }
    }
}
