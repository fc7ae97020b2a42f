//! Hints: choices of a recipe that are allowed and cost much, and signs of them during a run.

use core::fmt;

use super::{Codec, Correction, Merge, Mu, Outer, Recipe, Span, TopK};
use crate::id::PeerId;
use crate::recipe::Control;

/// The outer momentum from which on a period has to be long: with 0.8, an update still has a tenth of its weight after ten
/// rounds, when the parameters are elsewhere.
const LARGE_MU: f32 = 0.8;
/// The period that counts as long, in local steps. Published recipes with such a momentum have 16 and more.
const LONG_PERIOD: u32 = 16;

/// A choice that costs much in this run. Each hint is given once per node, as [`Event::Hint`](crate::Event::Hint).
#[derive(Copy, Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Hint {
    /// Contributions are sparse, and servers answer each of them with dense floats.
    DensePull,
    /// The last messages of this node carried no element: the threshold is too large for the updates.
    NothingSent {
        /// Messages in a row without an element.
        messages: u64,
        /// The threshold of the last one.
        tau: f64,
    },
    /// The residual of this node keeps growing.
    ResidualGrows {
        /// The norm of the residual, as a multiple of the norm of an update.
        updates: f64,
    },
    /// The outer momentum is large for so short a period: the velocity carries updates that are long out of date.
    OuterMomentum {
        /// The coefficient of the outer momentum.
        mu: f64,
        /// Local steps between two synchronisations.
        period: u32,
    },
    /// Servers keep a copy of their parameters for each worker.
    Copies,
    /// Servers keep the last update of each worker.
    Repeats,
    /// The mean is taken over the senders of an element, so that elements which few workers send take long steps.
    Senders,
    /// The contributions of a worker are always late, and are dropped ([`Late::Drop`](super::Late::Drop)).
    AlwaysLate {
        /// Rank of the worker.
        worker: PeerId,
        /// Late contributions in a row.
        contributions: u32,
    },
    /// The recipe resets the optimizer's state, and the application has synchronised by a call that does not pass it.
    OptimizerKept,
    /// At this density, a message carries a given element less than once in the whole run.
    LateElements {
        /// Share of the elements that a message carries.
        density: f64,
        /// Messages of the whole run.
        messages: u64,
    },
}

impl Recipe {
    /// The hints that follow from the recipe alone. `messages`: synchronisations of a worker in the whole run, if known.
    pub fn hints(&self, messages: Option<u64>) -> impl Iterator<Item = Hint> + use<> {
        let dense_pull = self.needs_servers() && self.codec.is_sparse() && self.pull == Codec::F32;
        let late = messages.and_then(|messages| self.correction.late_elements(&self.codec, messages));
        let outer = match (self.outer, self.period.span(0)) {
            (Outer::Momentum { mu: Mu::Fixed(mu), .. }, Span::Steps(period @ ..LONG_PERIOD)) if mu >= LARGE_MU => {
                Some(Hint::OuterMomentum { mu: f64::from(mu), period })
            }
            _ => None,
        };
        let copies = self.compensate.needs_copies().then_some(Hint::Copies);
        let repeats = self.compensate.repeats().then_some(Hint::Repeats);
        let senders = (self.merge == Merge::MeanOfSenders).then_some(Hint::Senders);
        dense_pull
            .then_some(Hint::DensePull)
            .into_iter()
            .chain(late)
            .chain(outer)
            .chain(copies)
            .chain(repeats)
            .chain(senders)
    }
}

impl Correction {
    /// The hint for a run of so many messages, if they carry a given element less than once. Messages of a warm-up carry
    /// all elements, and messages of a ramp more than later ones.
    pub(crate) fn late_elements(&self, codec: &Codec, messages: u64) -> Option<Hint> {
        let density = codec.density().filter(|_| self.warmup == 0)?;
        let ramp = messages.min(u64::from(self.ramp));
        let mut carried = f64::from(density) * (messages - ramp) as f64;
        // The first stages are dense enough to end this sum after about a thousand messages.
        for message in 1..=ramp {
            if carried >= 1.0 {
                break;
            }
            carried += f64::from(self.density(message, density));
        }
        (carried < 1.0).then_some(Hint::LateElements { density: f64::from(density), messages })
    }
}

impl Codec {
    /// The share of the elements that a message carries, if it is a setting of the codec.
    pub const fn density(&self) -> Option<f32> {
        match *self {
            Self::TopK(TopK { density, .. }) => Some(density),
            Self::Threshold(threshold) => match threshold.control {
                Control::Density { density } => Some(density),
                _ => None,
            },
            _ => None,
        }
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DensePull => write!(
                f,
                "servers answer sparse updates with dense parameters; set pull= to a sparse codec as well, or use \
                 topology=mesh"
            ),
            Self::NothingSent { messages, tau } => write!(
                f,
                "the last {messages} messages carried no element: the threshold of {tau:.1e} is too large for the \
                 updates; lower tau, or use density="
            ),
            Self::ResidualGrows { updates } => write!(
                f,
                "the residual keeps growing, and is {updates:.0} times as large as an update; raise the density or lower \
                 tau"
            ),
            Self::OuterMomentum { mu, period } => write!(
                f,
                "an outer momentum of {mu:.2} with a period of {period} steps carries old updates for long: lower mu or \
                 the rate, or raise the period to {LONG_PERIOD} or more"
            ),
            Self::OptimizerKept => write!(
                f,
                "optimizer=reset has no effect on a loop that calls step or sync: they do not have the optimizer's state; \
                 call sync_with, or set it to zero at each synchronisation; without momentum, optimizer=keep says the same"
            ),
            Self::Copies => write!(
                f,
                "servers keep a copy of their parameters for each worker, to correct delays: as much memory as so many \
                 models; more servers share it"
            ),
            Self::Repeats => write!(
                f,
                "servers keep the last update of each worker, to apply it again in place of one that is not sent: as much \
                 memory as so many models; more servers share it"
            ),
            Self::Senders => write!(
                f,
                "merge=mean-of-senders moves an element by the mean of the workers that send it, up to as many times as far \
                 as merge=mean as there are workers; lower the learning rate if the loss rises"
            ),
            Self::AlwaysLate { worker, contributions } => write!(
                f,
                "worker {worker} was late with {contributions} contributions in a row, and late=drop drops them: take \
                 late=next, or a period in seconds, in which a slower worker takes fewer steps"
            ),
            Self::LateElements { density, messages } => write!(
                f,
                "at a density of {:.2} %, most elements are sent less than once in {messages} messages; raise the \
                 density",
                density * 100.0
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn hints_follow_from_the_recipe_and_the_length_of_the_run() {
        let hints = |text: &str, messages| text.parse::<Recipe>().unwrap().hints(messages).collect::<Vec<_>>();
        assert_eq!(hints("hardsync codec=topk", None), [Hint::DensePull]);
        assert_eq!(hints("hardsync codec=topk pull=topk", None), []);
        assert_eq!(hints("hardsync codec=bf16", Some(1)), []);
        let late = [Hint::LateElements { density: f64::from(0.125f32), messages: 7 }];
        assert_eq!(hints("sparse density=0.125", Some(7)), late);
        assert_eq!(hints("sparse density=0.125", Some(8)), []);
        assert_eq!(hints("mesh density=0.125", Some(7)), late);
        // The first of five stages sends a quarter, the second at least an eighth.
        assert_eq!(hints("sparse density=0.125 ramp=5", Some(7)), []);
        assert_eq!(hints("sparse density=0.125 warmup=1", Some(2)), []);
        let momentum = [Hint::OuterMomentum { mu: f64::from(0.9f32), period: 10 }];
        assert_eq!(hints("fedavgm period=10", None), momentum);
        for quiet in ["fedavgm", "fedavgm period=10 mu=0.7", "fedavgm period=20s", "diloco", "bmuf period=1", "fedadam"]
        {
            assert_eq!(hints(quiet, None), [], "{quiet}");
        }
        assert_eq!(hints("dc-asgd", None), [Hint::Copies]);
        assert_eq!(hints("dc-asgd strength=0", None), []);
        assert_eq!(hints("fasgd push_cost=1", None), [Hint::Repeats]);
        assert_eq!(hints("fasgd fetch_cost=1", None), []);
        assert_eq!(hints("sparse merge=mean-of-senders", None), [Hint::Senders]);
        assert_eq!(hints("dgc", Some(300)), []);
        assert_eq!(hints("dgc", Some(3)).len(), 1);
    }
}
