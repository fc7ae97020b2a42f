//! [`Stability`]: whether a verdict holds with other seeds.

use super::report::{Criterion, Kind, Report};

/// How many repetitions of a comparison, each with other seeds, agree on a criterion.
///
/// [`Comparison::repetition`](super::Comparison::repetition) chooses the seeds, of the tuning and of the comparison.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Stability {
    /// The criterion.
    pub criterion: Criterion,
    /// The position of the rule that wins in most repetitions; of equal ones, the first. `None`: no repetition has a
    /// winner.
    pub row: Option<usize>,
    /// The answer of each repetition, in their order.
    pub answers: Vec<Answer>,
}

/// The answer of a repetition to a criterion.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// The position of the winner. `None`: no rule has a figure.
    pub winner: Option<usize>,
    /// The winner is the rule of [`Stability::row`], or no difference between the two is shown.
    pub agrees: bool,
}

impl Stability {
    /// The stability of each criterion, in the order of [`Criterion::ALL`].
    ///
    /// # Panics
    /// If the reports have different rows.
    pub fn of(reports: &[Report]) -> Vec<Self> {
        let names = |report: &Report| report.rows.iter().map(|row| row.name.clone()).collect::<Vec<_>>();
        for report in reports {
            assert_eq!(names(report), names(&reports[0]), "reports of one comparison have the same rows");
        }
        Criterion::ALL.map(|criterion| Self::of_criterion(reports, criterion)).into()
    }

    fn of_criterion(reports: &[Report], criterion: Criterion) -> Self {
        let winners: Vec<_> =
            reports.iter().map(|report| report.winners.iter().find(|winner| winner.criterion == criterion)).collect();
        let rows = reports.first().map_or(&[][..], |report| &report.rows);
        let wins = |at: usize| winners.iter().flatten().filter(|winner| winner.row == at).count();
        let rules = (0..rows.len()).filter(|at| rows[*at].kind == Kind::Rule && wins(*at) > 0);
        // Of equal ones, `max_by_key` takes the last.
        let row = rules.rev().max_by_key(|at| wins(*at));
        let answers = winners.iter().map(|winner| Answer {
            winner: winner.map(|winner| winner.row),
            agrees: winner.map(|winner| winner.row) == row
                || winner.zip(row).is_some_and(|(winner, row)| winner.tied().any(|at| at == row)),
        });
        Self { criterion, row, answers: answers.collect() }
    }

    /// Number of repetitions that agree.
    pub fn agreeing(&self) -> usize {
        self.answers.iter().filter(|answer| answer.agrees).count()
    }

    /// Number of repetitions that a rule wins.
    pub fn wins(&self, row: usize) -> usize {
        self.answers.iter().filter(|answer| answer.winner == Some(row)).count()
    }

    /// True if at least nine of ten repetitions agree.
    pub fn is_stable(&self) -> bool {
        10 * self.agreeing() >= 9 * self.answers.len()
    }
}
