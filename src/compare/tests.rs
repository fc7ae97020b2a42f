//! Whole comparisons of a small model: the report, the verdict, stops and resumption, and wrong settings.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use gradwire_core::{Duration, Layout, PeerId, Recipe};
use gradwire_sim::simulation::{Fault, Learner, Links, MBIT, Speed, Step, Validation};

use super::{Comparison, Criterion, Error, Kind, Measure, Model, Report, Results, Seat, Stability};

const LEN: usize = 64;

/// Finds the means of noisy vectors. Its loss has noise from the examples, and depends on the rule.
struct Means {
    /// Learners that have been made.
    learners: AtomicU32,
    /// Examples of all steps.
    examples: Arc<AtomicU64>,
    validates: bool,
    /// Learners have a test part, on which a loss is the inverse of the validation loss.
    tests: bool,
    initial: f32,
}

impl Means {
    fn new() -> Self {
        Self { learners: AtomicU32::new(0), examples: Arc::default(), validates: true, tests: false, initial: 0.0 }
    }
}

struct Worker {
    seat: Seat,
    step: u64,
    validates: bool,
    tests: bool,
    examples: Arc<AtomicU64>,
}

impl Model for Means {
    type Learner = Worker;

    fn name(&self) -> String {
        "means".into()
    }

    fn layout(&self) -> Layout {
        Layout::flat(LEN)
    }

    fn initial(&self, _seed: u64) -> Vec<f32> {
        vec![self.initial; LEN]
    }

    fn learner(&self, seat: &Seat) -> Worker {
        self.learners.fetch_add(1, Ordering::Relaxed);
        Worker {
            seat: seat.clone(),
            step: 0,
            validates: self.validates,
            tests: self.tests,
            examples: Arc::clone(&self.examples),
        }
    }
}

impl Learner for Worker {
    fn step(&mut self, params: &[f32], update: &mut [f32]) -> Step {
        update.fill(0.0);
        for position in self.seat.positions(self.step) {
            let mut random = self.seat.random(position);
            for (update, param) in update.iter_mut().zip(params) {
                *update += self.seat.rate * (param - 2.0 * random.unit() as f32) / self.seat.batch as f32;
            }
        }
        self.step += 1;
        self.examples.fetch_add(u64::from(self.seat.batch), Ordering::Relaxed);
        Step::of(self.seat.batch)
    }

    fn validate(&mut self, params: &[f32]) -> Option<Validation> {
        let loss = params.iter().map(|param| f64::from((param - 1.0) * (param - 1.0))).sum::<f64>() / LEN as f64;
        self.validates.then(|| Validation::of(loss))
    }

    fn test(&mut self, params: &[f32]) -> Option<Validation> {
        let validation = self.validate(params).filter(|_| self.tests)?;
        Some(Validation::of(1.0 / validation.loss).accuracy(0.5))
    }
}

/// Four workers, of which two take three times as long, over links on which a vector takes 2 ms.
fn comparison() -> Comparison {
    Comparison::new(4, 2)
        .speeds([10, 30].map(|ms| Speed::constant(Duration::from_millis(ms)).jitter(0.1)))
        .links(Links::new(Duration::from_millis(1)).bandwidth(MBIT))
        .examples(640)
        .rates(0.02..=0.5, 3)
}

fn small() -> Comparison {
    comparison().rule("averaging", "averaging period=5".parse().unwrap()).rule("async", Recipe::asynchronous())
}

fn run(comparison: &Comparison) -> Report {
    comparison.run(&Means::new()).unwrap()
}

fn row<'a>(report: &'a Report, name: &str) -> &'a super::Row {
    report.rows.iter().find(|row| row.name == name).unwrap()
}

fn sentence<'a>(report: &'a Report, begin: &str) -> &'a str {
    report
        .verdict
        .iter()
        .find(|sentence| sentence.starts_with(begin))
        .unwrap_or_else(|| panic!("{:#?}", report.verdict))
}

#[test]
fn the_report_has_all_rows_and_the_same_effort_for_each() {
    let report = run(&small());
    let names: Vec<&str> = report.rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["one worker", "large batch", "sync", "averaging", "async"]);
    let kinds: Vec<Kind> = report.rows.iter().map(|row| row.kind).collect();
    assert_eq!(kinds, [Kind::OneWorker, Kind::LargeBatch, Kind::Rule, Kind::Rule, Kind::Rule]);
    for row in &report.rows {
        let rates: Vec<f32> = row.tuned.trials.iter().map(|trial| trial.rate).collect();
        assert_eq!(rates, report.conditions.rates, "{}", row.name);
        let best = row.tuned.trials.iter().map(|trial| trial.loss).fold(f64::INFINITY, f64::min);
        assert!(row.tuned.trials.iter().any(|trial| trial.rate == row.tuned.rate && trial.loss == best));
        let seeds: Vec<u64> = row.runs.iter().map(|run| run.seed).collect();
        assert_eq!(seeds, report.conditions.seeds);
        assert_eq!(row.failures(), 0, "{}", row.name);
        // All begin with the same loss, and use the budget up.
        assert!(row.runs.iter().all(|run| run.curve[0].loss == 1.0 && run.curve.last().unwrap().examples == 640));
    }
    assert!(report.conditions.tuning_seeds.iter().all(|seed| !report.conditions.seeds.contains(seed)));
    assert_eq!(report.winners.len(), 4);
    let criteria: Vec<Criterion> = report.winners.iter().map(|winner| winner.criterion).collect();
    assert_eq!(criteria, Criterion::ALL);
    assert!(!report.pareto.is_empty());
}

/// `sync` computes what one worker with the batch of all workers computes, in another time.
#[test]
fn sync_learns_as_one_worker_with_the_batch_of_all() {
    let report = run(&small().samples(80));
    let (large, sync) = (row(&report, "large batch"), row(&report, "sync"));
    assert_eq!(large.tuned.rate, sync.tuned.rate);
    for (large, sync) in large.runs.iter().zip(&sync.runs) {
        assert_eq!(large.curve.len(), 81);
        for b in &sync.curve {
            let a = large.curve.iter().find(|a| a.examples == b.examples).unwrap();
            assert!((a.loss - b.loss).abs() < 1e-5, "{} examples: {} and {}", a.examples, a.loss, b.loss);
        }
        let seconds = |run: &super::Run| run.curve.last().unwrap().seconds;
        // 80 steps. The batch of four workers on the fastest one takes 40 ms. The slowest of four workers takes about
        // 31 ms, and two levels up and down about 14 ms.
        assert!((seconds(large) / 3.2 - 1.0).abs() < 0.1, "{}", seconds(large));
        assert!((seconds(sync) / 3.6 - 1.0).abs() < 0.1, "{}", seconds(sync));
    }
    assert_eq!(large.runs[0].curve.last().unwrap().bytes, 0);
}

#[test]
fn equal_settings_give_equal_reports() {
    let once = run(&small().threads(1));
    assert_eq!(once, run(&small().threads(2)));
    assert_ne!(once, run(&small().examples(704)));
}

/// Stops after each number of runs, and goes on from what was written.
#[test]
fn a_resumed_comparison_equals_one_without_a_stop() {
    let expected = run(&small());
    for after in [1, 7, 16, 30] {
        let (mut text, mut lines) = (Results::header(), 0);
        let stopped = small().threads(1).run_watched(&Means::new(), &Results::default(), |progress| {
            text += progress.line.unwrap_or_default();
            lines += usize::from(progress.line.is_some());
            if lines == after { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!(stopped, Err(Error::Stopped { ended: after, runs: 40 }));
        let known = Results::read(&text).unwrap().results;
        assert_eq!(known.len(), after);
        let mut most = 0;
        let resumed = small().run_watched(&Means::new(), &known, |progress| {
            text += progress.line.unwrap_or_default();
            most = progress.ended;
            ControlFlow::Continue(())
        });
        assert_eq!(resumed.unwrap(), expected, "{after}");
        assert_eq!(most, 40);

        // Now all runs are known, and none is run again.
        let (model, known) = (Means::new(), Results::read(&text).unwrap().results);
        assert_eq!(small().run_watched(&model, &known, |_| panic!("a run")).unwrap(), expected);
        assert_eq!(model.learners.into_inner(), 1, "one learner checks that the model validates");
    }
}

/// Results of other settings are not taken.
#[test]
fn each_setting_that_decides_a_run_is_a_part_of_its_key() {
    let mut text = Results::header();
    let base = || comparison().rule("async", Recipe::asynchronous()).seeds(1).rates(0.1..=0.1, 1);
    let all = base().run_watched(&Means::new(), &Results::default(), |progress| {
        text += progress.line.unwrap_or_default();
        ControlFlow::Continue(())
    });
    all.unwrap();
    let known = Results::read(&text).unwrap().results;
    let again = |comparison: Comparison, model: Means| {
        let mut runs = 0;
        let report = comparison.run_watched(&model, &known, |progress| {
            runs += usize::from(progress.line.is_some());
            ControlFlow::Continue(())
        });
        report.unwrap();
        runs
    };
    assert_eq!(again(base(), Means::new()), 0);
    assert_eq!(again(base().seeds(2), Means::new()), 4, "the new seed only");
    assert_eq!(again(base().rule("averaging", Recipe::averaging(5)), Means::new()), 1, "the new rule only");
    assert_eq!(again(base().target(0.5), Means::new()), 0, "the target changes no run");
    let crash = Fault::Pause { node: PeerId(1), lasts: Duration::from_millis(5) };
    assert_eq!(again(base().fault(Duration::from_millis(50), crash), Means::new()), 2, "one worker has no faults");
    for other in [
        base().examples(648),
        base().samples(16),
        base().links(Links::default()),
        base().rates(0.2..=0.2, 1),
        base().patience(Duration::from_secs(1)),
        base().speeds([Speed::constant(Duration::from_millis(11))]),
    ] {
        assert_eq!(again(other.clone(), Means::new()), 4, "{other:?}");
    }
    assert_eq!(again(base(), Means { initial: 0.5, ..Means::new() }), 4, "other initial parameters");
}

/// On thin links, one exchange in 50 steps is faster than one in each step by far.
#[test]
fn a_planted_winner_is_named_with_its_conditions() {
    let links = Links::new(Duration::from_millis(1)).bandwidth(MBIT / 50);
    let comparison = comparison().links(links).examples(6400).rule("averaging", "averaging period=50".parse().unwrap());
    let report = run(&comparison);
    let speed = sentence(&report, "Speed: ");
    assert!(speed.starts_with("Speed: averaging handles the most examples a second"), "{speed}");
    assert!(speed.ends_with("the difference to every other rule is shown."), "{speed}");
    let first = sentence(&report, "This holds for ");
    for words in
        ["means with 64 parameters", "4 workers with 2 examples", "10.0 ms and 30.0 ms", "0.02 Mbit/s", "5 seeds"]
    {
        assert!(first.contains(words), "{words}: {first}");
    }
    sentence(&report, "Other workers, speeds, links");
}

/// Where an exchange takes longer than hundreds of steps, one worker is faster.
#[test]
fn not_to_distribute_is_an_answer() {
    let links = Links::new(Duration::from_secs(1)).bandwidth(MBIT / 500);
    let report = run(&comparison().links(links).rule("async", Recipe::asynchronous()));
    assert!(
        sentence(&report, "Do not distribute: one worker reaches it ").contains("as fast as the fastest rule, async")
    );
}

/// A run ends when the validated parameters have seen the budget: with periods, a round later than the examples.
#[test]
fn runs_end_soon_after_their_budget() {
    let model = Means::new();
    let comparison = comparison().rule("averaging", Recipe::averaging(20)).rates(0.1..=0.1, 1);
    let report = comparison.run(&model).unwrap();
    let (runs, budget, round) = (4 * 5, 640, 4 * 2 * 20);
    let examples = model.examples.load(Ordering::Relaxed);
    assert!((runs * budget..runs * (budget + 2 * round)).contains(&examples), "{examples}");
    assert!(report.rows.iter().flat_map(|row| &row.runs).all(|run| run.curve.last().unwrap().examples == budget));
}

#[test]
fn two_equal_rules_show_no_difference() {
    let report = run(&comparison().rule("first", Recipe::ssp(3)).rule("second", Recipe::ssp(3)));
    let (first, second) = (row(&report, "first"), row(&report, "second"));
    assert_eq!(first.runs, second.runs);
    let at = |name: &str| report.rows.iter().position(|row| row.name == name).unwrap();
    for winner in report.winners.iter().filter(|winner| winner.row == at("first")) {
        let difference = winner.differences.iter().find(|difference| difference.row == at("second")).unwrap();
        assert!(!difference.shown && difference.low == 0.0 && difference.high == 0.0, "{difference:?}");
    }
    let speed = sentence(&report, "Speed: ");
    assert!(speed.starts_with("Speed: first") && speed.contains("no difference shown to second"), "{speed}");
}

/// Repetitions share no seed. An answer is against the others only if it shows a difference to their winner.
#[test]
fn repetitions_have_other_seeds_and_are_counted() {
    let mut reports: Vec<Report> = (0..3).map(|at| run(&small().tuning_seeds(2).repetition(at))).collect();
    let seeds: Vec<u64> = reports.iter().flat_map(|report| report.conditions.seeds.clone()).collect();
    assert_eq!(seeds, (1..=15).collect::<Vec<_>>());
    let tuning: Vec<u64> = reports.iter().flat_map(|report| report.conditions.tuning_seeds.clone()).collect();
    assert_eq!(tuning, (1_000_001..=1_000_006).collect::<Vec<_>>());
    let speed = |reports: &[Report]| Stability::of(reports).remove(0);
    let whole = speed(&reports);
    assert_eq!((whole.criterion, whole.row, whole.agreeing()), (Criterion::Speed, Some(4), 3), "async is fastest");
    assert!(whole.is_stable());

    // The last repetition now has another winner: first with a shown difference to async, then without one.
    let winner = &mut reports[2].winners[0];
    (winner.row, winner.differences[0].row) = (2, 4);
    winner.differences[0].shown = true;
    let against = speed(&reports);
    assert_eq!((against.row, against.agreeing(), against.wins(4), against.wins(2)), (Some(4), 2, 2, 1));
    assert!(!against.is_stable() && !against.answers[2].agrees);
    reports[2].winners[0].differences[0].shown = false;
    assert_eq!(speed(&reports).agreeing(), 3);
    // Without a winner, it does not agree.
    reports[2].winners.remove(0);
    assert_eq!((speed(&reports).agreeing(), speed(&reports).answers[2].winner), (2, None));
    assert_eq!(Stability::of(&[])[0].row, None);
}

/// Nothing is chosen by the test part, and the attainable loss is judged on it.
#[test]
fn the_test_part_has_the_last_word_only() {
    let (plain, tested) = (run(&small()), small().run(&Means { tests: true, ..Means::new() }).unwrap());
    for (plain, tested) in plain.rows.iter().zip(&tested.rows) {
        assert_eq!(plain.tuned, tested.tuned, "the tuning is by validation");
        for (plain, tested) in plain.runs.iter().zip(&tested.runs) {
            assert_eq!((&plain.curve, plain.figures.test_loss), (&tested.curve, None));
            let best = tested.curve.iter().map(|sample| sample.loss).fold(f64::INFINITY, f64::min);
            let test = tested.figures.test_loss.unwrap();
            assert!(test >= 1.0 / best * (1.0 - 1e-12), "of the best parameters: {test} and {best}");
            assert_eq!(tested.figures.test_accuracy, Some(0.5));
        }
    }
    let measure = |report: &Report| report.winners[1].measure;
    assert_eq!((measure(&plain), measure(&tested)), (Measure::Attained, Measure::TestLoss));
    let winner = row(&tested, &tested.rows[tested.winners[1].row].name).summary(Measure::TestLoss).median;
    assert!(tested.rows[2..].iter().all(|row| row.summary(Measure::TestLoss).median >= winner));
    sentence(&tested, "Attainable: ");
}

/// Steps of 10 and 30 ms give or take a tenth. In `async` no worker waits for another one; `sync` takes the time of the
/// slowest.
#[test]
fn step_times_are_those_of_workers_with_their_waits() {
    let report = run(&small().links(Links::new(Duration::from_micros(10))));
    let of = |name: &str, measure| row(&report, name).summary(measure).median;
    for (name, measure, from, to) in [
        ("one worker", Measure::StepP50, 0.009, 0.011),
        ("one worker", Measure::StepP90, 0.010, 0.011),
        ("async", Measure::StepP50, 0.009, 0.0115),
        ("async", Measure::StepP90, 0.028, 0.034),
        ("sync", Measure::StepP50, 0.028, 0.034),
        ("averaging", Measure::StepP50, 0.009, 0.034),
    ] {
        assert!((from..to).contains(&of(name, measure)), "{name}, {measure:?}: {}", of(name, measure));
    }
}

#[test]
fn few_seeds_show_nothing_and_say_so() {
    let report = run(&small().seeds(2));
    assert!(report.winners.iter().all(|winner| winner.differences.iter().all(|difference| !difference.shown)));
    sentence(&report, "2 seeds are too few to show a difference");
}

/// A worker that never comes back ends `sync`, which waits for it, and is a row all the same.
#[test]
fn runs_that_fail_and_diverge_are_rows() {
    let crash = Fault::Crash { node: PeerId(2), restart: None };
    let comparison = comparison()
        .rates(40.0..=40.0, 1)
        .seeds(2)
        .fault(Duration::from_millis(100), crash)
        .rule("async", Recipe::asynchronous());
    let report = run(&comparison);
    let one = row(&report, "one worker");
    assert_eq!(one.failures(), 2);
    assert!(
        one.runs.iter().all(|run| run.failed.as_deref().unwrap().starts_with("diverged")),
        "{:?}",
        one.runs[0].failed
    );
    assert!(one.runs.iter().all(|run| run.figures.attained.is_none()));
    assert_eq!(one.summary(Measure::Attained).median, f64::INFINITY);
    assert_eq!((report.target_time, report.pareto.len()), (None, 0));
    let failed = sentence(&report, "Runs failed or diverged: ");
    assert!(failed.contains("one worker (2 of 2)"), "{failed}");
    assert!(sentence(&report, "This holds for").contains("at 100ms, node 2 is killed"));
}

#[test]
fn a_number_is_tuned_together_with_the_rate() {
    let averaging = "averaging".parse().unwrap();
    let report = run(&comparison().seeds(1).tuned_rule("averaging", averaging, "period", 1.0..=27.0));
    let tuned = &row(&report, "averaging").tuned;
    let periods: Vec<&str> = tuned.trials.iter().map(|trial| trial.number.as_deref().unwrap()).collect();
    assert_eq!(periods, ["3", "9", "1"]);
    let (key, value) = tuned.number.clone().unwrap();
    let chosen = tuned.trials.iter().find(|trial| trial.rate == tuned.rate).unwrap();
    assert_eq!((key.as_str(), Some(value.as_str())), ("period", chosen.number.as_deref()));
    assert_eq!(
        row(&report, "averaging").recipe.to_string(),
        format!("averaging period={value}").parse::<Recipe>().unwrap().to_string()
    );
}

#[test]
fn a_correction_of_delays_has_the_learning_rate() {
    let report = run(&comparison().seeds(1).rule("dc", "dc-asgd".parse().unwrap()));
    let dc = row(&report, "dc");
    let expected = format!("dc-asgd worker_rate={}", dc.tuned.rate).parse::<Recipe>().unwrap();
    assert_eq!(dc.recipe, expected);
}

#[test]
fn progress_counts_all_runs() {
    let mut seen = Vec::new();
    let report = small().threads(1).run_watched(&Means::new(), &Results::default(), |progress| {
        assert_eq!((progress.runs, progress.known), (40, 0));
        if progress.line.is_some() {
            seen.push((progress.ended, progress.is_tuning, progress.row.to_string()));
        }
        assert!(progress.left.is_some() || progress.ended == 0);
        ControlFlow::Continue(())
    });
    report.unwrap();
    assert!(seen.iter().map(|seen| seen.0).eq(1..=40));
    assert_eq!(seen.iter().filter(|seen| seen.1).count(), 15);
    assert_eq!(seen[39].2, "async");
}

#[test]
fn wrong_settings_are_named() {
    let error = |comparison: Comparison, model: Means| comparison.run(&model).unwrap_err().to_string();
    let base = || comparison().rule("async", Recipe::asynchronous());
    let cases = [
        (comparison(), "rules: expected at least 1, got 0"),
        (Comparison::new(0, 4).rule("async", Recipe::asynchronous()), "workers: expected from 2 to 4096, got 0"),
        (Comparison::new(4, 0).rule("async", Recipe::asynchronous()), "batch: expected from 1 to 1073741823, got 0"),
        (base().rule("async", Recipe::ssp(3)), "rules: two rows have the name \"async\""),
        (base().rule("one worker", Recipe::ssp(3)), "rules: two rows have the name \"one worker\""),
        (base().examples(7), "examples: expected at least 8, a step of all workers, got 7"),
        (base().tuning_examples(7), "examples of the tuning: expected at least 8, a step of all workers, got 7"),
        (base().seeds(0), "seeds: expected from 1 to 1000, got 0"),
        (base().repetition(1000), "repetition: expected from 0 to 999, got 1000"),
        (base().samples(1), "samples: expected from 8 to 10000, got 1"),
        (base().speeds([]), "speeds: expected at least 1, got 0"),
        (
            base().rates(f32::NAN..=1.0, 3),
            "learning rates: expected two finite rates above 0, the smaller one first, got NaN to 1",
        ),
        (
            base().rates(1.0..=0.1, 3),
            "learning rates: expected two finite rates above 0, the smaller one first, got 1 to 0.1",
        ),
        (base().target(f64::NAN), "target: expected a finite loss, got NaN"),
        (base().rule("soft", Recipe::softsync(9)), "soft: "),
        (base().links(Links::default().bandwidth(0)), "one worker: a link of 0 bit/s: of all nodes"),
        (base().tuned_rule("a", Recipe::averaging(5), "bound", 1.0..=5.0), "a: "),
        (
            base().tuned_rule("a", Recipe::averaging(5), "period", 0.0..=5.0),
            "number to tune: expected two finite numbers above 0 for period",
        ),
        (
            base().fault(Duration::ZERO, Fault::Pause { node: PeerId(9), lasts: Duration::ZERO }),
            "sync: a fault of node 9",
        ),
    ];
    for (comparison, expected) in cases {
        let got = error(comparison, Means::new());
        assert!(got.starts_with(expected) && !got.contains('\n'), "expected {expected:?}, got {got:?}");
    }
    let blind = Means { validates: false, ..Means::new() };
    assert_eq!(error(base(), blind), "means: its learner does not validate, so there is no figure to compare by");
    let huge = Means { initial: 1e30, ..Means::new() };
    assert!(error(base(), huge).starts_with("initial parameters of seed 1: expected a finite validation loss"));
}
