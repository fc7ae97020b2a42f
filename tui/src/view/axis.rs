//! [`Axis`]: bounds and labels of a chart's y axis, from the values that it has to show.
//!
//! ratatui draws labels at equal distances, so the bounds are multiples of a round step.

use crate::theme::count;

/// Most steps of an axis.
const STEPS_MAX: usize = 5;
/// A logarithmic axis has two labels if the largest value is not this many times the least one.
const HARDLY_MOVES: f64 = 1.5;

/// The scale of an axis.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// It contains 0: for rates, of which 0 is a value like any other.
    FromZero,
    /// It fits the values.
    Fit,
    /// It fits the values, as logarithms. All values are above 0.
    Log,
}

/// An axis: positions of its ends, and the labels from the lower to the upper end.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Axis {
    pub(super) bounds: [f64; 2],
    pub(super) labels: Vec<String>,
}

impl Scale {
    /// Logarithmic if all values are above 0.
    pub(super) fn of(points: &[(f64, f64)]) -> Self {
        let positive = points.iter().all(|(_, y)| *y > 0.0) && !points.is_empty();
        if positive { Self::Log } else { Self::Fit }
    }

    /// The position of a value.
    pub(super) fn position(self, y: f64) -> f64 {
        if self == Self::Log { y.log10() } else { y }
    }

    /// The axis for values from `low` to `high`, on `rows` lines of text.
    pub(super) fn axis(self, low: f64, high: f64, rows: usize) -> Axis {
        let (values, texts) = match self {
            Self::FromZero => linear(low.min(0.0), high.max(0.0)),
            Self::Fit => linear(low, high),
            Self::Log if high < HARDLY_MOVES * low => {
                let (values, texts) = linear(low, high);
                // The labels between the ends would not be at equal distances.
                let ends = |first: usize| [first, values.len() - 1];
                // A logarithm needs a value above 0.
                let first = usize::from(values[0] <= 0.0);
                (ends(first).map(|at| values[at]).to_vec(), ends(first).map(|at| texts[at].clone()).to_vec())
            }
            Self::Log => logarithmic(low, high),
        };
        let ends = [values[0], values[values.len() - 1]];
        Axis { bounds: ends.map(|end| self.position(end)), labels: thinned(texts, rows) }
    }
}

/// Multiples of a round step that enclose the values, and their labels.
fn linear(low: f64, high: f64) -> (Vec<f64>, Vec<String>) {
    let (low, high) = match high > low {
        true => (low, high),
        // A curve that does not move lies in the middle, or at the lower end if it is 0.
        false if low == 0.0 => (0.0, 1.0),
        false => (low - 0.1 * low.abs(), low + 0.1 * low.abs()),
    };
    let mut exponent = ((high - low) / STEPS_MAX as f64).log10().floor() as i32;
    loop {
        for mantissa in [1.0, 2.0, 5.0] {
            let step = mantissa * 10f64.powi(exponent);
            // 1e-9: a value at a multiple of the step is not rounded to the next one.
            let (first, last) = ((low / step + 1e-9).floor(), (high / step - 1e-9).ceil());
            if last - first <= STEPS_MAX as f64 {
                let values: Vec<f64> =
                    (0..=(last - first).max(1.0) as usize).map(|i| (first + i as f64) * step).collect();
                let digits = (-exponent).max(0) as usize;
                let largest = values.iter().fold(0.0f64, |most, y| most.max(y.abs()));
                let label = |y: &f64| match largest {
                    0.0..10_000.0 if digits <= 4 => format!("{y:.digits$}"),
                    10_000.0..1e18 => count(*y),
                    _ => format!("{y:.0e}"),
                };
                let texts = values.iter().map(label).collect();
                return (values, texts);
            }
        }
        exponent += 1;
    }
}

/// Values with a constant factor between them that enclose the given ones, and their labels.
fn logarithmic(low: f64, high: f64) -> (Vec<f64>, Vec<String>) {
    let decade = 10f64.powf(low.log10().floor());
    let mantissas = [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.5, 1.0];
    let base = mantissas.into_iter().map(|mantissa| mantissa * decade).find(|base| *base <= low).unwrap_or(low);
    // A difference of logarithms: the quotient could be infinite.
    let steps = |factor: f64| ((high.ln() - base.ln()) / factor.ln() - 1e-9).ceil().max(1.0);
    let factors = [2.0, 4.0].into_iter().chain((1..).map(|decades| 10f64.powi(decades)));
    let factor = factors.take(300).find(|factor| steps(*factor) <= STEPS_MAX as f64).unwrap_or(f64::MAX);
    let values: Vec<f64> = (0..=steps(factor).min(STEPS_MAX as f64) as i32).map(|i| base * factor.powi(i)).collect();
    let texts = values.iter().map(|y| significant(*y)).collect();
    (values, texts)
}

/// A number above 0 with two significant digits.
fn significant(y: f64) -> String {
    match y {
        10.0..10_000.0 => format!("{y:.0}"),
        1.0..10.0 => format!("{y:.1}"),
        0.1..1.0 => format!("{y:.2}"),
        0.01..0.1 => format!("{y:.3}"),
        0.001..0.01 => format!("{y:.4}"),
        10_000.0..1e18 => count(y),
        _ => format!("{y:.0e}"),
    }
}

/// As many of the labels, at equal distances, as lines with a line between them have room for: at least both ends.
fn thinned(labels: Vec<String>, rows: usize) -> Vec<String> {
    let steps = labels.len() - 1;
    let fits = |every: &usize| steps.is_multiple_of(*every) && 2 * (steps / every) < rows;
    let every = (1..=steps).find(fits).unwrap_or(steps);
    // A constant width in most cases: a chart does not move when its labels change.
    let width = labels.iter().map(String::len).fold(5, usize::max);
    labels.into_iter().step_by(every).map(|label| format!("{label:>width$}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn expect(scale: Scale, low: f64, high: f64, rows: usize, labels: &[&str]) {
        let axis = scale.axis(low, high, rows);
        let got: Vec<&str> = axis.labels.iter().map(|label| label.trim()).collect();
        assert_eq!(got, labels, "{scale:?} {low} to {high}");
        assert!(
            axis.bounds[0] <= scale.position(low) + 1e-9 && scale.position(high) <= axis.bounds[1] + 1e-9,
            "{axis:?}"
        );
    }

    #[test]
    fn an_axis_fits_its_values_and_has_round_labels() {
        expect(Scale::Fit, 0.687, 0.981, 20, &["0.6", "0.7", "0.8", "0.9", "1.0"]);
        expect(Scale::Fit, 0.981, 0.984, 20, &["0.981", "0.982", "0.983", "0.984"]);
        expect(Scale::Fit, 0.5, 0.5, 20, &["0.45", "0.50", "0.55"]);
        expect(Scale::Fit, 0.0, 1.0, 20, &["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        expect(Scale::Fit, 0.687, 0.981, 2, &["0.6", "1.0"]);
        expect(Scale::FromZero, 648.0, 864.0, 20, &["0", "200", "400", "600", "800", "1000"]);
        expect(Scale::FromZero, 0.0, 0.0, 20, &["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        expect(Scale::FromZero, 0.0, 43_000.0, 5, &["0", "50.0k"]);
        expect(Scale::Log, 0.0976, 1.33, 20, &["0.090", "0.18", "0.36", "0.72", "1.4"]);
        expect(Scale::Log, 1e-6, 2.0, 20, &["1e-6", "1e-4", "0.010", "1.0", "100"]);
        expect(Scale::Log, 0.051, 2.0, 5, &["0.050", "3.2"]);
        expect(Scale::Log, 0.5, 0.5, 20, &["0.45", "0.55"]);
    }

    /// Any two values of reports, which are f32, have an axis with finite ends.
    #[test]
    fn every_range_has_an_axis() {
        let values = [-1e15, -1.0, 0.0, 1e-45, 1e-12, 0.3, 1.0, 1e9, 1e15];
        for (i, low) in values.into_iter().enumerate() {
            for high in values.into_iter().skip(i) {
                for scale in [Scale::Fit, Scale::FromZero, Scale::Log] {
                    if scale == Scale::Log && low <= 0.0 {
                        continue;
                    }
                    let Axis { bounds: [from, to], labels } = scale.axis(low, high, 9);
                    assert!(from < to && from.is_finite() && to.is_finite(), "{scale:?} {low} {high}: {from} {to}");
                    assert!((2..=STEPS_MAX + 1).contains(&labels.len()), "{labels:?}");
                }
            }
        }
    }
}
