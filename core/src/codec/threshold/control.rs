//! Controllers: the choice of a message's threshold, by the recipe's [`Control`]. The quantum is the largest power of
//! two that is not above the threshold.
//!
//! | control | threshold of the next message |
//! |---|---|
//! | fixed | tau, scaled with the learning rate |
//! | band | the last threshold, 3.4 % lower or higher if the last density was outside of a band |
//! | density | a quantile of a sample of `residual + update` |
//! | budget | a quantile, for the density that the budget and the bits per entry of the last message allow |
//!
//! Before a pass, [`choose`] says how the threshold is found. After it, [`after`] updates the state of the controller
//! and checks the budget.

use super::{Aim, Control, HEADER_WORDS, Section};
use crate::kernel::threshold::Quantum;
use crate::kernel::tier::Tier;

/// DL4J's band of densities: the threshold falls below it and rises above it.
const BAND: (f32, f32) = (1e-4, 1e-2);
/// DL4J's factor per message, 0.5^(1/20): twenty messages halve or double the threshold.
const STEP: f32 = 0.965_936_3;

/// Elements of a sample that are adjacent: one cache line of each vector.
pub const RUN: usize = 16;
/// Number of sampled elements that should lie above the threshold. The relative standard error of the density is the
/// inverse of its square root, 6 %.
const ABOVE: f32 = 256.0;
/// Smallest number of elements in a sample.
const SAMPLE_MIN: usize = 1 << 14;
/// The inverse of the largest share of a vector that is sampled, unless [`SAMPLE_MIN`] requires more.
const SHARE_MAX: usize = 4;

/// The way in which the threshold of a message is found.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum Choice {
    /// The quantum is known.
    Known(Quantum),
    /// The threshold is a quantile of a sample.
    Sampled(Sample),
}

/// A sample of a section. The threshold is the `rank`-th largest finite magnitude in it; if there are fewer finite
/// elements, the threshold of the previous message.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Stride of the sample in runs of [`RUN`] elements: run 0, `every`, 2 `every` and so on. With 1, the sample is the
    /// whole section, including the elements after the last full run.
    pub every: usize,
    /// Number of sampled elements.
    pub elements: usize,
    /// Rank of the magnitude that is the threshold, from 1.
    pub rank: usize,
}

impl Sample {
    fn new(len: usize, density: f32) -> Self {
        let wanted = ((ABOVE / density).min((len / SHARE_MAX) as f32) as usize).max(SAMPLE_MIN);
        let every = (len / wanted).max(1);
        let elements = if every == 1 { len } else { (len / RUN).div_ceil(every) * RUN };
        Self { every, elements, rank: ((density * elements as f32) as usize).max(1) }
    }
}

/// Chooses how the threshold of a section's next message is found. `total`: elements of all sections.
pub fn choose(aim: &Aim, section: &Section, total: usize) -> Choice {
    let len = section.len as usize;
    match aim.control {
        _ if aim.dense => Choice::Known(quantum(aim, aim.unit)),
        Control::Fixed => Choice::Known(quantum(aim, aim.tau)),
        Control::Band => Choice::Known(quantum(aim, section.threshold)),
        Control::Density { density } => Choice::Sampled(Sample::new(len, density)),
        Control::Budget { bytes } => {
            // 16 bits per entry is a guess for the first message.
            let bits = if section.bits > 0.0 { section.bits } else { 16.0 };
            // 5 % less than fits, because a message that does not fit must be encoded again.
            let entries = 0.95 * 8.0 * payload(bytes, section, total) / bits;
            Choice::Sampled(Sample::new(len, (entries / section.len as f32).clamp(0.0, 1.0)))
        }
    }
}

/// The quantum of the first attempt, computed before the pass changes the residual.
pub(super) fn before(
    aim: &Aim,
    section: &Section,
    total: usize,
    update: Option<&[f32]>,
    residual: &[f32],
    scratch: &mut [u32],
) -> Quantum {
    match choose(aim, section, total) {
        Choice::Known(quantum) => quantum,
        Choice::Sampled(wanted) => quantum(aim, quantile(section, wanted, update, residual, scratch)),
    }
}

/// A section's share of a budget in bytes, without its header. At least one word, so that one entry fits.
fn payload(bytes: u32, section: &Section, total: usize) -> f32 {
    let share = bytes as f32 * (section.len as f32 / total as f32);
    (share - (4 * HEADER_WORDS) as f32).max(4.0)
}

/// The quantum for a wanted threshold, within the bounds of the run. Above the largest quantum, the threshold still
/// rises.
pub fn quantum(aim: &Aim, threshold: f32) -> Quantum {
    let quantum = Quantum::below(threshold.max(aim.unit).min(f32::MAX));
    if quantum.tau > aim.tau_max() { Quantum::with_threshold(quantum.threshold, aim.tau_max()) } else { quantum }
}

/// Updates the state of the controller after an attempt of `words` words. Returns a higher quantum for another attempt
/// if the section exceeds the budget.
pub(super) fn after(
    aim: &Aim,
    section: &mut Section,
    total: usize,
    quantum: Quantum,
    words: usize,
    entries: u32,
) -> Option<Quantum> {
    // A dense message says nothing about the threshold of the next one, and is exempt from the budget.
    if aim.dense {
        return None;
    }
    if entries > 0 {
        section.bits = (32 * words) as f32 / entries as f32;
    }
    section.threshold = quantum.threshold;
    match aim.control {
        Control::Fixed | Control::Density { .. } => {}
        Control::Band => {
            let density = entries as f32 / section.len as f32;
            if density < BAND.0 {
                section.threshold = (quantum.threshold * STEP).max(aim.unit);
            } else if density > BAND.1 {
                section.threshold = (quantum.threshold / STEP).min(aim.tau_max());
            }
        }
        // The quantum is bounded and the threshold is not, so after some attempts few enough elements reach it.
        Control::Budget { bytes } => {
            let long = (4 * words) as f32 > payload(bytes, section, total);
            if long && quantum.threshold < f32::MAX {
                // Steps of 12.5 %: few attempts, and not far above the lowest threshold that fits.
                return Some(self::quantum(aim, quantum.threshold * 1.125));
            }
        }
    }
    None
}

/// The `wanted.rank`-th largest finite magnitude of a sample.
fn quantile(section: &Section, wanted: Sample, update: Option<&[f32]>, residual: &[f32], scratch: &mut [u32]) -> f32 {
    // Most elements lie far below the threshold. The first attempt keeps only elements near the previous threshold or
    // above it, which makes the selection cheap; the second one keeps all.
    for floor in [0.75 * section.threshold, 0.0] {
        let kept = Tier::best().run(|| sample(wanted.every, floor, update, residual, scratch));
        if wanted.rank <= kept {
            let (_, bits, _) = scratch[..kept].select_nth_unstable(kept - wanted.rank);
            return f32::from_bits(*bits);
        }
    }
    // Too few elements are finite. Keep the threshold.
    section.threshold
}

/// Writes the finite magnitudes of a sample that reach `floor` to `kept`, as bits, and returns their number. The bits
/// of floats without sign sort as the floats do.
#[inline(always)]
fn sample(every: usize, floor: f32, update: Option<&[f32]>, residual: &[f32], kept: &mut [u32]) -> usize {
    let (runs, rest) = residual.as_chunks::<RUN>();
    let updates = update.map(|update| update.as_chunks::<RUN>());
    let mut count = 0;
    let mut keep = |x: f32| {
        if x >= floor && x.is_finite() {
            kept[count] = x.to_bits();
            count += 1;
        }
    };
    for i in (0..runs.len()).step_by(every) {
        let mut acc = runs[i];
        if let Some((updates, _)) = updates {
            acc.iter_mut().zip(&updates[i]).for_each(|(acc, update)| *acc += update);
        }
        let acc = acc.map(f32::abs);
        // A fold without a branch vectorises, and few runs reach the floor.
        if acc.iter().fold(false, |any, x| any | (*x >= floor)) {
            acc.into_iter().for_each(&mut keep);
        }
    }
    if every == 1 {
        for (i, x) in rest.iter().enumerate() {
            keep((x + updates.map_or(0.0, |(_, rest)| rest[i])).abs());
        }
    }
    count
}
