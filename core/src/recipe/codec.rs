//! The codec axis: how vectors are encoded on the wire, and the corrections that precede a sparse codec.
//!
//! These are the choices as data. The encoders are in [`codec`](crate::codec).

/// The encoding of a vector on the wire. All codecs but [`F32`](Self::F32) are lossy: the sender keeps the error in a
/// residual and adds it to its next message (error feedback; Seide et al. 2014, Stich et al. 2018).
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum Codec {
    /// Plain floats: 32 bits per element, no error.
    F32,
    /// The upper half of a float: 16 bits per element, 8 of them precision.
    Bf16,
    /// IEEE half precision: 16 bits per element, 11 of them precision. Elements are clamped to ±65504.
    F16,
    /// 8-bit integers with a power-of-two scale per block of 64 elements: 8.125 bits per element.
    Int8,
    /// The sign, with a scale per block of 1,024 elements: about 1.03 bits per element (Seide et al. 2014; Karimireddy
    /// et al. 2019).
    Sign,
    /// The sign, with the mean of the positive and of the negative elements for each column of a tensor (Seide et al. 2014).
    /// A column is the elements with the same last index; a tensor with fewer than 32 of them per column is one column.
    SignColumns,
    /// Quanta of ±tau for elements whose accumulated update has reached a threshold (Strom 2015). Sparse.
    Threshold(Threshold),
    /// The elements of largest magnitude (Lin et al. 2018). Sparse.
    TopK(TopK),
}

/// Settings of the threshold codec.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Threshold {
    /// The quantum of the first message: a power of two from 2^-110 to 2^110, in units of the update. The controller
    /// may change it for later messages, within 2^-8 to 2^8 times this value.
    pub tau: f32,
    /// The controller: it chooses the threshold of each message.
    pub control: Control,
    /// True: each tensor has a threshold of its own. False: one threshold for the whole vector.
    pub per_tensor: bool,
    /// Clipping as in DL4J: after each message, the residual is cut to ± this many thresholds. The excess is lost, and
    /// counted in [`Status::clipped`](crate::Status::clipped). 0, the default, disables clipping.
    ///
    /// A message carries all whole quanta of an element, up to 2^15 - 1. So a clip of 1 or more only affects elements
    /// above that count.
    pub clip: f32,
}

/// Settings of the top-k codec.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct TopK {
    /// Share of the elements that a message carries: above 0, at most 1.
    pub density: f32,
    /// True: the share of each chunk of 4,096 elements, at least one (SparseLoCo; Sarfi et al. 2025). False: the share of
    /// the whole vector, or of a server's shard.
    pub per_chunk: bool,
    /// How the elements are written.
    pub values: Values,
}

/// How a top-k message writes the values of its elements. The lost precision stays in the residual. Dense messages have
/// floats in any case: the messages of a warm-up, and the last ones with [`End::Send`](super::End::Send).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Values {
    /// Floats: 32 bits per element, no error.
    F32,
    /// IEEE half precision: 16 bits per element, 11 of them precision. Larger magnitudes than 65504 are sent as 65504, and
    /// the residual keeps the rest. Magnitudes up to 2^-25 round to 0, and are not sent.
    F16,
    /// Magnitudes in 8 bits, with a power-of-two scale per chunk. Elements below 1/510 of the largest one in their chunk
    /// are not sent.
    Int8,
    /// The sign alone. Positive elements of a chunk are decoded as their mean, and negative ones as theirs: 2 floats per
    /// chunk (Seide et al. 2014).
    TwoMeans,
}

/// The controller of a threshold: it chooses the threshold of each message from the data or from earlier messages.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum Control {
    /// The threshold is tau, scaled with the learning rate.
    Fixed,
    /// DL4J's rule. Below a density of 1e-4 the threshold falls by the factor 0.5^(1/20) per message; above a density
    /// of 1e-2 it rises by the inverse.
    Band,
    /// The threshold at which a message has this density, estimated by a quantile of a sample.
    Density {
        /// Share of the elements that a message carries: above 0, at most 1.
        density: f32,
    },
    /// The lowest threshold at which a message's body fits a number of bytes. Exempt are dense messages: the first ones
    /// if [`Correction::warmup`] is set, and the last ones with [`End::Send`](super::End::Send).
    Budget {
        /// Limit of a body in bytes: at least 64, and at least 64 per tensor with one threshold per tensor.
        bytes: u32,
    },
}

/// Corrections that precede a sparse codec: momentum (Lin et al. 2018, section 3) and a start-up schedule.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Correction {
    /// Momentum that is applied before the residual: from 0 to below 1. It stands in place of the optimizer's momentum, so
    /// the training loop must have none: `update = rate * gradient`. With both, a step goes 1 / (1 - momentum) times as
    /// far as either does. The
    /// velocity of an element is set to zero when the element is sent (momentum factor masking). 0: no momentum.
    pub momentum: f32,
    /// Number of first messages that are dense: they carry every element of at least the smallest quantum.
    pub warmup: u32,
    /// Number of messages after the warm-up over which the target density falls from 25 % by factors of 4.
    pub ramp: u32,
    /// Workers with a rank below this number train first while the other workers wait (Strom 2015, section 4; Dean et al.
    /// 2012, section 4.1). 0: all start at once. In meshes without rounds, and at asynchronous servers, where dense
    /// codecs take it as well.
    ///
    /// A worker that waits has not joined yet, and joins with the parameters after the head start.
    /// If no starter is left, the others begin.
    pub starters: u32,
    /// The other workers start after this many messages of all starters together; at servers, of contributions to each
    /// shard. A server that has parameters of an earlier process lets all begin.
    pub head_start: u32,
    /// Limit of the Euclidean norm of an update, before momentum: the update of each of n workers is scaled down to
    /// `clip_norm / sqrt(n)` (Lin et al. 2018, section 3.2). In units of the update. 0: no limit.
    pub clip_norm: f32,
}

impl Codec {
    /// True if a message carries some elements and leaves out the rest.
    pub const fn is_sparse(&self) -> bool {
        matches!(self, Self::Threshold(_) | Self::TopK(_))
    }
}

impl TopK {
    /// This share of the elements of the whole vector, as floats.
    pub const fn all(density: f32) -> Self {
        Self { density, per_chunk: false, values: Values::F32 }
    }
}

impl Threshold {
    /// The largest quantum of a run is 2^`SPAN` times the smallest.
    pub const SPAN: u32 = 16;

    /// A fixed quantum for the whole vector, without clipping.
    pub const fn fixed(tau: f32) -> Self {
        Self { tau, control: Control::Fixed, per_tensor: false, clip: 0.0 }
    }

    /// The smallest quantum of a run: 2^-8 tau. Ledgers count in this unit.
    pub const fn unit(&self) -> f32 {
        self.tau / (1u32 << (Self::SPAN / 2)) as f32
    }

    /// The largest quantum of a run: 2^8 tau.
    pub const fn tau_max(&self) -> f32 {
        self.tau * (1u32 << (Self::SPAN / 2)) as f32
    }
}

impl Correction {
    /// No momentum, no warm-up, no ramp, and all workers start at once.
    pub const fn none() -> Self {
        Self { momentum: 0.0, warmup: 0, ramp: 0, starters: 0, head_start: 0, clip_norm: 0.0 }
    }

    /// Does the worker wait for a head start of others?
    pub(crate) const fn comes_later(&self, worker: u32) -> bool {
        self.starters > 0 && worker >= self.starters
    }

    /// The target density of message number `message`, counted from 1. `density` is the target after the ramp.
    pub fn density(&self, message: u64, density: f32) -> f32 {
        let at = message.saturating_sub(u64::from(self.warmup) + 1);
        if at >= u64::from(self.ramp) {
            return density;
        }
        // Five stages of equal length: 25 %, 6.25 %, … as in Lin et al. 2018, section 3.3.
        let stage = at * 5 / u64::from(self.ramp);
        (0.25 / (1u32 << (2 * stage)) as f32).max(density)
    }
}
