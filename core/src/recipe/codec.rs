//! The codec axis: how vectors are written.

/// How updates are written to the wire. All but `F32` lose something, and keep what they lose in a residual on the
/// side that writes, to be written later.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum Codec {
    /// As they are: 32 bits per element.
    F32,
    /// The upper half of a float: 16 bits, 8 of them precision.
    Bf16,
    /// IEEE half precision: 16 bits, 11 of them precision.
    F16,
    /// 8 bits and a scale per block of 64.
    Int8,
    /// 1 bit and a scale per block of 1,024 (Seide et al. 2014; Karimireddy et al. 2019).
    Sign,
    /// Quanta of ±tau where the accumulated update has reached a threshold (Strom 2015).
    Threshold(Threshold),
    /// The largest elements, as they are (Lin et al. 2018).
    TopK(TopK),
}

/// How a threshold is chosen, and for what.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Threshold {
    /// The quantum, or where a controller starts: a power of two, in units of the update. All quanta of a run are
    /// powers of two from 2^-8 to 2^8 times this one.
    pub tau: f32,
    /// Who chooses from then on.
    pub control: Control,
    /// Does each tensor have its own threshold? Else there is one for all.
    pub per_tensor: bool,
    /// Clipping as in DL4J: after each message the residual is cut to ± this many thresholds, and what is cut is lost,
    /// and counted. All whole quanta are sent, so that from 1 on there is nothing to cut but what one message cannot
    /// carry (2^15 quanta of an element). 0, the default: nothing is lost.
    pub clip: f32,
}

/// The largest elements.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct TopK {
    /// Which share of the elements is sent, above 0 and at most 1.
    pub density: f32,
}

/// Who chooses the threshold.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum Control {
    /// It stays, scaled only with the learning rate.
    Fixed,
    /// DL4J's rule: below a density of 1e-4 it falls by the factor 0.5^(1/20), above 1e-2 it rises by as much.
    Band,
    /// In one go, to this share of elements, by the quantile of a sample.
    Density {
        /// Above 0 and at most 1.
        density: f32,
    },
    /// In one go, so that no body is longer than this, but for dense first messages and a leaver's last.
    Budget {
        /// Bytes of a message's body.
        bytes: u32,
    },
}

/// What goes before a sparse codec: DGC's momentum correction (Lin et al. 2018), and an easy start.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Correction {
    /// Momentum that is applied before the residual instead of by the optimizer, and forgotten where an element is
    /// sent. 0: none.
    pub momentum: f32,
    /// First messages that are dense: whatever is at least the smallest quantum.
    pub warmup: u32,
    /// Messages after those, over which the target density comes down from 25 % by factors of 4.
    pub ramp: u32,
    /// Ranks that begin alone. 0: all.
    pub starters: u32,
    /// Messages of theirs after which the others join in.
    pub head_start: u32,
}

impl Codec {
    /// Does it send some elements and not others?
    pub const fn is_sparse(&self) -> bool {
        matches!(self, Self::Threshold(_) | Self::TopK(_))
    }
}

impl Threshold {
    /// How many times the quantum can double between the smallest and the largest of a run.
    pub const SPAN: u32 = 16;

    /// A fixed quantum for all tensors together, and nothing is ever lost.
    pub const fn fixed(tau: f32) -> Self {
        Self { tau, control: Control::Fixed, per_tensor: false, clip: 0.0 }
    }

    /// The smallest quantum of a run, in which its ledgers count.
    pub const fn unit(&self) -> f32 {
        self.tau / (1u32 << (Self::SPAN / 2)) as f32
    }

    /// The largest quantum of a run.
    pub const fn tau_max(&self) -> f32 {
        self.tau * (1u32 << (Self::SPAN / 2)) as f32
    }
}

impl Correction {
    /// None at all.
    pub const fn none() -> Self {
        Self { momentum: 0.0, warmup: 0, ramp: 0, starters: 0, head_start: 0 }
    }

    /// The target density of a message, counted from 1, where `density` is the one to arrive at.
    pub fn density(&self, message: u64, density: f32) -> f32 {
        let at = message.saturating_sub(u64::from(self.warmup) + 1);
        if at >= u64::from(self.ramp) {
            return density;
        }
        let stage = at * 5 / u64::from(self.ramp);
        (0.25 / (1u32 << (2 * stage)) as f32).max(density)
    }
}
