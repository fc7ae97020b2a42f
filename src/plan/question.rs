//! Questions about forecasts: the bandwidth or the number of workers from which on distributing pays, and laws that are
//! fitted to measured steps.

use super::{Case, Link, PlanError, Recipe};

/// A step that costs `compute` seconds, and `exchange` seconds that shrink with a factor: `compute + exchange / factor`.
/// The factor is the period of averaging, or the bandwidth relative to another one.
///
/// ```
/// use gradwire::plan::Law;
///
/// // Images per second of ResNet-50 on 32 GPUs with local SGD, 4096 images a step: every step, and every 16th.
/// let law = Law::through((1.0, 4096.0 / 8271.0), (16.0, 4096.0 / 9431.0)).unwrap();
/// assert!((law.step(4.0) / (4096.0 / 8763.0) - 1.0).abs() < 0.05);
/// ```
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Law {
    /// Seconds that do not shrink.
    pub compute: f64,
    /// Seconds at a factor of 1.
    pub exchange: f64,
}

impl Law {
    /// The law through two measurements, each a factor and the seconds of a step. `None`: the factors are equal, a number
    /// is not finite and above 0, or the step does not shrink with the factor.
    pub fn through((a, at_a): (f64, f64), (b, at_b): (f64, f64)) -> Option<Self> {
        if ![a, b, at_a, at_b].iter().all(|x| x.is_finite() && *x > 0.0) || a == b {
            return None;
        }
        let exchange = (at_a - at_b) / (1.0 / a - 1.0 / b);
        let law = Self { compute: at_a - exchange / a, exchange };
        (law.exchange >= 0.0 && law.compute >= 0.0).then_some(law)
    }

    /// Seconds of a step at a factor.
    pub fn step(&self, factor: f64) -> f64 {
        self.compute + self.exchange / factor
    }

    /// The share of the time that is compute, at a factor.
    pub fn busy(&self, factor: f64) -> f64 {
        self.compute / self.step(factor)
    }

    /// The factor from which on at least this share of the time is compute; `share` above 0 and below 1.
    pub fn factor_for(&self, share: f64) -> f64 {
        share / (1.0 - share) * self.exchange / self.compute
    }
}

impl Case {
    /// The law of the period for a dense ring of very many workers: a step, and twice the vector through a port. Its
    /// `busy(H)` is 1 / (1 + 2 / (R H)), with R the time of a step over that of a vector.
    pub fn ring_law(&self) -> Law {
        let slowest = self.steps.iter().copied().fold(0.0, f64::max);
        Law { compute: slowest, exchange: 2.0 * 4.0 * self.params as f64 / self.link.slower() }
    }

    /// The factor on the bandwidth from which on a recipe is `speed_up` times as fast as the fastest worker alone, and
    /// no messages have to be merged. 0: at any bandwidth; `None`: at none.
    ///
    /// # Errors
    /// As [`forecast`](Self::forecast).
    pub fn bandwidth_for(&self, recipe: &Recipe, speed_up: f64) -> Result<Option<f64>, PlanError> {
        let fast = |factor: f64| {
            let link = self.link.times(factor);
            let forecast = Self { link, ..self.clone() }.forecast(recipe)?;
            Ok::<_, PlanError>(forecast.speed_up >= speed_up && forecast.merged <= 1.0)
        };
        let (mut low, mut high) = (1e-9, 1e9);
        if !fast(high)? {
            return Ok(None);
        }
        if fast(low)? {
            return Ok(Some(0.0));
        }
        while high / low > 1.001 {
            let middle = (low * high).sqrt();
            if fast(middle)? { high = middle } else { low = middle }
        }
        Ok(Some(high))
    }

    /// The fewest workers, from 2 to `most`, that are `speed_up` times as fast as one, if all are as fast as the first.
    /// `None`: no such number is.
    ///
    /// # Errors
    /// As [`forecast`](Self::forecast), but numbers of workers that do not fit the recipe are passed over.
    pub fn workers_for(&self, recipe: &Recipe, speed_up: f64, most: usize) -> Result<Option<usize>, PlanError> {
        let Some(step) = self.steps.first() else { return Ok(None) };
        for workers in 2..=most {
            let case = Self { steps: vec![*step; workers], ..self.clone() };
            match case.forecast(recipe) {
                Ok(forecast) if forecast.speed_up >= speed_up => return Ok(Some(workers)),
                Ok(_) | Err(PlanError::Recipe(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The same machines, if one thing were better: in words, and as a case.
    pub fn variants(&self) -> Vec<(&'static str, Self)> {
        let fastest = self.steps.iter().copied().fold(f64::INFINITY, f64::min);
        let mut variants = vec![
            ("twice the bandwidth", Self { link: self.link.times(2.0), ..self.clone() }),
            ("half the model", Self { params: self.params.div_ceil(2), ..self.clone() }),
            ("a tenth of the latency", {
                let link = Link { latency: self.link.latency / 10.0, ..self.link };
                Self { link, ..self.clone() }
            }),
            ("steps twice as long (larger batch)", {
                let steps = self.steps.iter().map(|step| 2.0 * step).collect();
                Self { steps, ..self.clone() }
            }),
        ];
        if self.steps.iter().any(|step| *step != fastest) || self.spread > 0.0 {
            let steps = vec![fastest; self.steps.len()];
            variants.push(("all as fast as the fastest", Self { steps, spread: 0.0, ..self.clone() }));
        }
        variants
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_law_goes_through_its_points() {
        let law = Law::through((1.0, 3.0), (4.0, 1.5)).unwrap();
        assert_eq!((law.compute, law.exchange), (1.0, 2.0));
        assert_eq!((law.step(2.0), law.busy(2.0), law.factor_for(0.5)), (2.0, 0.5, 2.0));
        for points in [((1.0, 2.0), (1.0, 1.0)), ((1.0, 1.0), (2.0, 2.0)), ((1.0, f64::NAN), (2.0, 1.0))] {
            assert_eq!(Law::through(points.0, points.1), None, "{points:?}");
        }
        assert_eq!(Law::through((0.0, 2.0), (2.0, 1.0)), None);
    }

    /// R H: half of the time is compute from 2 on, 80 % from 8 on, 90 % from 18 on.
    #[test]
    fn the_ring_law_is_the_one_of_r_times_h() {
        let case = Case::new(1_000_000, vec![0.4], Link::symmetric(10e6, 0.0));
        let (law, r) = (case.ring_law(), 0.4 / (4e6 / 10e6));
        for (share, product) in [(0.5, 2.0), (0.8, 8.0), (0.9, 18.0)] {
            assert!((law.factor_for(share) * r / product - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn the_break_even_is_where_the_forecast_crosses() {
        let case = Case::new(14_600_000, vec![0.12; 4], Link::symmetric(125e6, 1e-4));
        let recipe = Recipe::sync();
        let factor = case.bandwidth_for(&recipe, 1.0).unwrap().unwrap();
        assert!(factor > 1.0);
        let at = |factor| Case { link: case.link.times(factor), ..case.clone() }.forecast(&recipe).unwrap().speed_up;
        assert!(at(factor) >= 1.0 && at(factor * 0.99) < 1.0, "{factor}");
        assert_eq!(case.bandwidth_for(&recipe, 5.0), Ok(None));
        let averaging = Recipe::averaging(50);
        assert_eq!(case.workers_for(&averaging, 2.5, 64), Ok(Some(3)));
        assert_eq!(case.workers_for(&recipe, 1e3, 8), Ok(None));
        for (name, variant) in case.variants() {
            let [before, after] = [&case, &variant].map(|case| case.forecast(&recipe).unwrap().speed_up);
            assert!(after >= before, "{name}: {before} to {after}");
        }
    }
}
