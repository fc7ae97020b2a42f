//! The checks of a [`Comparison`] before anything is run.

use std::collections::BTreeSet;

use super::comparison::Comparison;
use super::error::Error;
use super::rows::Entry;

impl Comparison {
    /// Checks the numbers, and the names of the rows.
    pub(super) fn check(&self, entries: &[Entry]) -> Result<(), Error> {
        let range = |field, expected: &str, got: &dyn ToString, within| match within {
            true => Ok(()),
            false => Err(Error::OutOfRange { field, expected: expected.into(), got: got.to_string() }),
        };
        let most = Self::WORKERS_MAX;
        range("workers", &format!("from 2 to {most}"), &self.workers, (2..=most).contains(&self.workers))?;
        range("servers", "at least 1", &self.servers, self.servers > 0)?;
        range("speeds", "at least 1", &self.speeds.len(), !self.speeds.is_empty())?;
        let (batch, most) = (u64::from(self.batch), u64::from(u32::MAX / self.workers));
        range("batch", &format!("from 1 to {most}"), &batch, (1..=most).contains(&batch))?;
        let least = batch * u64::from(self.workers);
        let expected = format!("at least {least}, a step of all workers");
        range("examples", &expected, &self.examples, self.examples >= least)?;
        let tuning = self.tuning_budget();
        range("examples of the tuning", &expected, &tuning, tuning >= least)?;
        range("samples", "from 8 to 10000", &self.samples, (8..=10_000).contains(&self.samples))?;
        range("seeds", "from 1 to 1000", &self.seeds, (1..=1000).contains(&self.seeds))?;
        range("repetition", "from 0 to 999", &self.repetition, self.repetition < 1000)?;
        range("seeds of the tuning", "from 1 to 1000", &self.tuning_seeds, (1..=1000).contains(&self.tuning_seeds))?;
        range("points of the tuning", "from 1 to 1000", &self.points, (1..=1000).contains(&self.points))?;
        let (from, to) = (*self.rates.start(), *self.rates.end());
        let is_rate = |x: f32| x > 0.0 && x.is_finite();
        let got = format!("{from} to {to}");
        range("learning rates", "two finite rates above 0, the smaller one first", &got, {
            is_rate(from) && is_rate(to) && from <= to
        })?;
        if let Some(target) = self.target {
            range("target", "a finite loss", &target, target.is_finite())?;
        }
        self.check_rules(entries)
    }

    fn check_rules(&self, entries: &[Entry]) -> Result<(), Error> {
        if self.rules.is_empty() {
            return Err(Error::NoRules);
        }
        let mut names = BTreeSet::new();
        for Entry { name, .. } in entries {
            if !names.insert(name) {
                return Err(Error::SameName { name: name.clone() });
            }
        }
        for rule in &self.rules {
            let Some(number) = &rule.number else { continue };
            let is_range = number.from > 0.0 && number.from <= number.to && number.to.is_finite();
            if !is_range {
                return Err(Error::OutOfRange {
                    field: "number to tune",
                    expected: format!("two finite numbers above 0 for {}, the smaller one first", number.key),
                    got: format!("{} to {}", number.from, number.to),
                });
            }
        }
        Ok(())
    }
}
