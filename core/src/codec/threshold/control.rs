//! Who chooses the threshold of a message. The quantum is the largest power of two up to it.

use super::{Aim, Control, HEADER_WORDS, Section};
use crate::kernel::threshold::Quantum;
use crate::kernel::tier::Tier;

/// DL4J's band of densities, and its step: twenty of them halve or double.
const BAND: (f32, f32) = (1e-4, 1e-2);
const STEP: f32 = 0.965_936_3; // 0.5^(1/20)

/// Elements of a sample that lie side by side: a cache line of each vector.
pub const RUN: usize = 16;
/// Elements that a sample should have above the threshold, for a standard error of 6 %.
const ABOVE: f32 = 256.0;
/// The least elements of a sample, and the largest share of a vector that is one.
const SAMPLE_MIN: usize = 1 << 14;
const SHARE_MAX: usize = 4;

/// How the threshold of a message is found.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum Choice {
    /// It is known.
    Known(Quantum),
    /// It is a quantile of a sample.
    Sampled(Sample),
}

/// Which elements of a section are looked at, and the how manieth largest finite magnitude of theirs is the threshold; the
/// section's last one if there are not so many.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Of so many runs of [`RUN`] elements, the first; and the elements after the last run, if it is every run.
    pub every: usize,
    /// How many elements that are.
    pub elements: usize,
    /// From 1.
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

/// How the threshold of a section's next message is found.
pub fn choose(aim: &Aim, section: &Section, total: usize) -> Choice {
    let len = section.len as usize;
    match aim.control {
        _ if aim.dense => Choice::Known(quantum(aim, aim.unit)),
        Control::Fixed => Choice::Known(quantum(aim, aim.tau)),
        Control::Band => Choice::Known(quantum(aim, section.threshold)),
        Control::Density { density } => Choice::Sampled(Sample::new(len, density)),
        Control::Budget { bytes } => {
            let bits = if section.bits > 0.0 { section.bits } else { 16.0 };
            // Somewhat less than fits: a message that does not fit is encoded twice.
            let entries = 0.95 * 8.0 * payload(bytes, section, total) / bits;
            Choice::Sampled(Sample::new(len, (entries / section.len as f32).clamp(0.0, 1.0)))
        }
    }
}

/// The threshold to try, before the residual is touched.
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

/// A section's share of a budget, without its header.
fn payload(bytes: u32, section: &Section, total: usize) -> f32 {
    let share = bytes as f32 * (section.len as f32 / total as f32);
    (share - (4 * HEADER_WORDS) as f32).max(4.0)
}

/// The quantum of a threshold: what a run allows, of what is asked for.
pub fn quantum(aim: &Aim, threshold: f32) -> Quantum {
    let quantum = Quantum::below(threshold.max(aim.unit).min(f32::MAX));
    if quantum.tau > aim.tau_max() { Quantum::with_threshold(quantum.threshold, aim.tau_max()) } else { quantum }
}

/// What the controller learns from a message; a higher threshold if the message is too long.
pub(super) fn after(
    aim: &Aim,
    section: &mut Section,
    total: usize,
    quantum: Quantum,
    words: usize,
    entries: u32,
) -> Option<Quantum> {
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
        // Quanta end at the largest tau, the threshold goes on: sooner or later few enough elements reach it.
        Control::Budget { bytes } => {
            let long = (4 * words) as f32 > payload(bytes, section, total);
            if long && entries > 0 && quantum.threshold < f32::MAX {
                return Some(self::quantum(aim, quantum.threshold * 1.125));
            }
        }
    }
    None
}

/// The magnitude that a sample's largest of some rank have.
fn quantile(section: &Section, wanted: Sample, update: Option<&[f32]>, residual: &[f32], scratch: &mut [u32]) -> f32 {
    // Most of a sample lies far below the threshold; what does is not kept.
    for floor in [0.75 * section.threshold, 0.0] {
        let kept = Tier::best().run(|| sample(wanted.every, floor, update, residual, scratch));
        if wanted.rank <= kept {
            let (_, bits, _) = scratch[..kept].select_nth_unstable(kept - wanted.rank);
            return f32::from_bits(*bits);
        }
    }
    // Nothing in the sample is finite: nothing of it can be sent either.
    section.threshold
}

/// Writes the magnitudes of every `every`-th run that reach the floor; returns how many.
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
