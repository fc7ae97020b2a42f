//! How much a late update still counts.
//!
//! The staleness of an update is `tau = T - j`: applications at the server since the parameters that it was
//! computed from. Zhang et al. 2016 divide by `tau`; Odena 2016's code by `tau + 1`, which avoids the tie of
//! 0 and 1; Chan and Lane 2014 let it decay exponentially.

use super::{ConfigError, check_range};

/// A scaling rule, and a limit above which an update is dropped.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Staleness {
    /// The factor as a function of staleness.
    pub scaling: Scaling,
    /// Updates staler than this are dropped, and counted.
    pub drop_above: Option<u64>,
}

/// The factor on an update of staleness `tau`.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum Scaling {
    /// 1
    Const,
    /// 1 / max(tau, 1)
    Inverse,
    /// 1 / (tau + 1)
    InversePlusOne,
    /// base^tau
    Exp {
        /// In (0, 1].
        base: f32,
    },
    /// (tau + 1)^-power
    Poly {
        /// Above 0, at most 16.
        power: f32,
    },
}

impl Staleness {
    /// Every update counts in full.
    pub const fn constant() -> Self {
        Self { scaling: Scaling::Const, drop_above: None }
    }

    /// 1 / max(tau, 1) (Zhang et al. 2016).
    pub const fn inverse() -> Self {
        Self { scaling: Scaling::Inverse, drop_above: None }
    }

    /// 1 / (tau + 1) (Odena 2016).
    pub const fn inverse_plus_one() -> Self {
        Self { scaling: Scaling::InversePlusOne, drop_above: None }
    }

    /// The same rule, dropping updates staler than `limit`.
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
