//! [`Remedy`]: a change of the recipe that sends less, with the share of a step that sending would take then.
//!
//! The time on the wire is that of the closed forms of [`gradwire::plan`]; the present share is measured. With s the share
//! of a step that is sending and r the time on the wire under the changed recipe over that under the present one, the share
//! becomes s r / (1 - s + s r).

use gradwire::plan::{Case, Link};
use gradwire_core::Recipe;
use gradwire_core::recipe::{Codec, Span};
use gradwire_core::telemetry::NODES_MAX;

use crate::model::Model;

/// A change is proposed if the share would be at most so many times the present one.
const WORTH: f64 = 0.8;
/// The first change that divides the share by this is taken; of others, the best one.
const ENOUGH: f64 = 0.5;

/// Changes of a dense recipe, and of one with a sparse codec: in words, with their keys and values.
type Change = (&'static str, &'static [(&'static str, &'static str)]);

const OF_DENSE: [Change; 5] = [
    ("codec=threshold at 1 %", &[("codec", "threshold"), ("control", "density"), ("density", "0.01")]),
    (
        "codec=threshold and pull=threshold at 1 %",
        &[
            ("codec", "threshold"),
            ("control", "density"),
            ("density", "0.01"),
            ("pull", "threshold"),
            ("pull_control", "density"),
            ("pull_density", "0.01"),
        ],
    ),
    (
        "topology=mesh with codec=threshold at 1 %",
        &[
            ("topology", "mesh"),
            ("pace", "synchronous"),
            ("codec", "threshold"),
            ("control", "density"),
            ("density", "0.01"),
        ],
    ),
    ("codec=topk at 1 %", &[("codec", "topk"), ("density", "0.01")]),
    ("codec=int8", &[("codec", "int8")]),
];
const OF_SPARSE: [Change; 1] =
    [("pull=threshold at 1 %", &[("pull", "threshold"), ("pull_control", "density"), ("pull_density", "0.01")])];

/// A change of the recipe.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Remedy {
    /// In words.
    pub(crate) change: String,
    /// The share of a step that sending would take, 0 to 1.
    pub(crate) share: f64,
}

impl Remedy {
    /// The remedy of a run whose workers send for this share of a step. `None`: no change that is known would help.
    pub(crate) fn of(model: &Model, sending: f64) -> Option<Self> {
        let recipe: Recipe = model.run.recipe.parse().ok()?;
        let case = case(model)?;
        let wire = |recipe: &Recipe| case.forecast(recipe).ok().map(|forecast| forecast.parts.wire);
        let present = wire(&recipe).filter(|wire| *wire > 0.0)?;
        let changes =
            if matches!(recipe.codec(), Codec::Threshold(_) | Codec::TopK(_)) { &OF_SPARSE[..] } else { &OF_DENSE };
        let coded = changes.iter().filter_map(|(words, keys)| {
            let mut changed = recipe;
            keys.iter().try_for_each(|(key, value)| changed.set(key, value)).ok()?;
            Some(((*words).to_string(), changed))
        });
        let longer = match recipe.period().span(0) {
            Span::Steps(steps) => {
                let steps = steps.saturating_mul(10);
                Some((format!("a period of {steps} steps"), recipe.with_period(steps)))
            }
            Span::Time(_) | Span::Examples(_) => None,
        };
        let all = coded.chain(longer);
        let mut all = all.filter_map(|(change, changed)| {
            let ratio = wire(&changed)? / present;
            let share = sending * ratio / (1.0 - sending + sending * ratio);
            Some(Self { change, share }).filter(|it| it.share <= WORTH * sending)
        });
        let mut best = all.next()?;
        for other in all {
            if best.share > ENOUGH * sending && other.share < best.share {
                best = other;
            }
        }
        Some(best)
    }
}

/// The run as the closed forms see it. Steps are short and the link is thin, so that computing hides nothing: only the
/// ratio of two times matters.
fn case(model: &Model) -> Option<Case> {
    // The number of workers is as told by the log.
    let workers = usize::try_from(model.run.workers).ok().filter(|workers| *workers <= NODES_MAX)?;
    let steps = vec![1e-6; workers];
    let mut case = Case::new(usize::try_from(model.run.parameters).ok()?, steps, Link::symmetric(1e6, 0.0));
    case.servers = (model.run.servers > 0).then_some(model.run.servers);
    let density = model.history.iter().last().map_or(0.0, |last| last.density);
    if density > 0.0 {
        case.density = density.min(1.0);
    }
    Some(case)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remedy(recipe: &str, workers: u32, servers: u32) -> Option<(String, u32)> {
        let mut model = Model::default();
        (model.run.recipe, model.run.workers, model.run.servers) = (recipe.into(), workers, servers);
        model.run.parameters = 1_000_000;
        Remedy::of(&model, 0.8).map(|it| (it.change, (100.0 * it.share).round() as u32))
    }

    #[test]
    fn changes_that_the_recipe_allows_are_proposed_with_the_share_that_is_left() {
        for (recipe, servers, change, share) in [
            ("sync", 0, "topology=mesh with codec=threshold at 1 %", 2),
            ("ring-int8", 0, "topology=mesh with codec=threshold at 1 %", 8),
            ("async", 1, "codec=threshold and pull=threshold at 1 %", 1),
            // The bound refuses a codec for pulls, and parameters any codec; a sparse recipe has one.
            ("ssp", 1, "a period of 10 steps", 29),
            ("averaging", 0, "a period of 100 steps", 29),
            ("sparse", 0, "a period of 10 steps", 29),
        ] {
            assert_eq!(remedy(recipe, 4, servers), Some((change.to_string(), share)), "{recipe}");
        }
        assert_eq!(remedy("mesh", 4, 0), None);
    }

    /// A log may tell any numbers.
    #[test]
    fn a_cluster_that_cannot_be_has_no_remedy() {
        assert_eq!(remedy("sync", u32::MAX, 3), None);
        assert_eq!(remedy("sync", 0, 0), None);
        assert_eq!(remedy("no recipe", 4, 0), None);
    }
}
