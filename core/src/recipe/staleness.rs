//! The staleness axis: how much a late update still counts.
//!
//! The staleness of an update is `tau = T - j`: T is the number of applications at the server so far, j their number in
//! the parameters from which the update was computed. The arithmetic is in `rule/staleness.rs`.

use super::{ConfigError, check_range};

/// The factor on a late update, and an optional limit above which an update is dropped.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Staleness {
    /// The factor as a function of staleness.
    pub scaling: Scaling,
    /// Updates with a staleness above this limit are dropped and counted in
    /// [`Counters::dropped`](crate::status::Counters::dropped). `None`, the default: no limit.
    pub drop_above: Option<u64>,
}

/// The factor on an update of staleness `tau`. It lies in (0, 1].
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum Scaling {
    /// 1: staleness does not matter.
    Const,
    /// 1 / max(tau, 1) (Zhang et al. 2016).
    Inverse,
    /// 1 / (tau + 1) (Odena 2016, from the code of that paper). Unlike [`Inverse`](Self::Inverse), it differs for tau =
    /// 0 and tau = 1.
    InversePlusOne,
    /// base^tau: exponential decay (Chan and Lane 2014).
    Exp {
        /// Above 0, at most 1.
        base: f32,
    },
    /// (tau + 1)^-power.
    Poly {
        /// Above 0, at most 16.
        power: f32,
    },
}

impl Staleness {
    /// Factor 1 for every update, no limit.
    pub const fn constant() -> Self {
        Self { scaling: Scaling::Const, drop_above: None }
    }

    /// Factor 1 / max(tau, 1), no limit (Zhang et al. 2016).
    pub const fn inverse() -> Self {
        Self { scaling: Scaling::Inverse, drop_above: None }
    }

    /// Factor 1 / (tau + 1), no limit (Odena 2016).
    pub const fn inverse_plus_one() -> Self {
        Self { scaling: Scaling::InversePlusOne, drop_above: None }
    }

    /// The same factor, and updates with a staleness above `limit` are dropped.
    #[must_use]
    pub const fn dropping_above(self, limit: u64) -> Self {
        Self { drop_above: Some(limit), ..self }
    }

    pub(crate) fn is_constant(&self) -> bool {
        self.scaling == Scaling::Const && self.drop_above.is_none()
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        match self.scaling {
            Scaling::Exp { base } => check_range("base", "above 0, at most 1", base, base > 0.0 && base <= 1.0),
            Scaling::Poly { power } => check_range("power", "above 0, at most 16", power, power > 0.0 && power <= 16.0),
            _ => Ok(()),
        }
    }
}
