//! B-FASGD (Odena 2016): the share of its updates that a worker sends, and after which it fetches parameters.
//!
//! ```text
//! share = 1 / (1 + cost / (v + added)),   v = mean of the moving means of magnitudes at all servers
//! ```
//! The released code transmits if a random number is below the share. Here a meter adds the shares up
//! ([`kernel::meter`](crate::kernel::meter)).

use crate::recipe::Recipe;

/// The rule of a recipe with costs.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(crate) struct Thinning {
    /// Of a push, and of a fetch. In units of updates.
    costs: [f32; 2],
    /// Added to the mean magnitude.
    added: f32,
    /// Where the meters of this worker begin: workers transmit in turn, and a worker pushes at other steps than it fetches.
    pub(crate) phases: [f32; 2],
}

impl Thinning {
    /// The rule for one of so many workers; `None` for a recipe without costs.
    pub(crate) fn new(recipe: &Recipe, rank: u32, workers: u32) -> Option<Self> {
        let (costs, added) = recipe.compensate.costs()?;
        let push = f64::from(rank % workers) / f64::from(workers);
        let fetch = if push < 0.5 { push + 0.5 } else { push - 0.5 };
        Some(Self { costs, added, phases: [push as f32, fetch as f32] })
    }

    /// The shares of pushes and of fetches. `magnitudes`: the floats of each shard, and its mean magnitude. 1 while a
    /// magnitude is not known, and for a cost of 0.
    pub(crate) fn shares(&self, magnitudes: impl Iterator<Item = (usize, Option<f32>)>) -> [f32; 2] {
        let (mut sum, mut floats) = (0.0f64, 0.0f64);
        for (len, magnitude) in magnitudes {
            let Some(magnitude) = magnitude else { return [1.0; 2] };
            sum += len as f64 * f64::from(magnitude);
            floats += len as f64;
        }
        let scale = sum / floats + f64::from(self.added);
        self.costs.map(|cost| (1.0 / (1.0 + f64::from(cost) / scale)) as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thinning(text: &str, rank: u32) -> Option<Thinning> {
        Thinning::new(&text.parse().unwrap(), rank, 4)
    }

    #[test]
    fn the_share_is_that_of_the_formula_over_all_shards() {
        let rule = thinning("b-fasgd least=0.01 push_cost=0.3 fetch_cost=0.1", 0).unwrap();
        // The mean is 0.099, with least / 10 it is 0.1.
        let [push, fetch] = rule.shares([(3, Some(0.032)), (1, Some(0.3))].into_iter());
        assert!((push - 0.25).abs() < 1e-6 && (fetch - 0.5).abs() < 1e-6, "{push} {fetch}");
    }

    #[test]
    fn all_is_sent_without_a_cost_or_a_magnitude() {
        let rule = thinning("fasgd fetch_cost=1", 0).unwrap();
        let [push, fetch] = rule.shares([(5, Some(1e-20))].into_iter());
        assert!(push == 1.0 && fetch < 1e-4, "{push} {fetch}");
        assert_eq!(rule.shares([(5, Some(0.1)), (5, None)].into_iter()), [1.0; 2]);
        assert_eq!(thinning("fasgd", 0), None);
        assert_eq!(thinning("dc-asgd", 0), None);
    }

    #[test]
    fn workers_begin_at_phases_of_their_own() {
        let phases = [0, 1, 2, 3].map(|rank| thinning("b-fasgd", rank).unwrap().phases);
        assert_eq!(phases, [[0.0, 0.5], [0.25, 0.75], [0.5, 0.0], [0.75, 0.25]]);
    }
}
