//! A worker with wrong updates, for comparing merge rules: `--bad-rank`.

use super::data::next;

/// The fault in the updates of a worker.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Bad {
    /// They point the other way.
    Flip,
    /// They are 1,000 times as long.
    Scale,
    /// They are random numbers from -1 to 1.
    Random,
}

impl Bad {
    pub const ALL: [Self; 3] = [Self::Flip, Self::Scale, Self::Random];

    pub const fn text(self) -> &'static str {
        match self {
            Self::Flip => "flip",
            Self::Scale => "scale",
            Self::Random => "random",
        }
    }

    /// Makes an update wrong. `state`: the state of a generator of random numbers, not 0.
    pub fn spoil(self, update: &mut [f32], state: &mut u64) {
        for update in update {
            *update = match self {
                Self::Flip => -*update,
                Self::Scale => 1000.0 * *update,
                Self::Random => (next(state) >> 24) as f32 / (1u32 << 23) as f32 - 1.0,
            };
        }
    }
}

/// The value of `--bad-rank`.
pub fn bad_rank(text: &str, workers: u32) -> Result<(u32, Bad), String> {
    let parsed = text.split_once(':').and_then(|(rank, how)| {
        let rank = rank.parse().ok().filter(|rank| *rank < workers)?;
        Some((rank, Bad::ALL.into_iter().find(|bad| bad.text() == how)?))
    });
    parsed
        .ok_or_else(|| format!("--bad-rank: expected R:flip, R:scale or R:random with R below {workers}, got {text:?}"))
}
