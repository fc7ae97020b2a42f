//! Runs of `gradwire_sim::simulation`: equal seeds, times that follow from speeds and links, curves, ends, faults, errors.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use gradwire_core::{Cluster, Layout, PeerId, Recipe};
use gradwire_sim::simulation::{
    End, Error, Fault, GBIT, InPlace, Learner, Life, Links, MBIT, Next, Outcome, Random, Simulation, Speed, Step,
    Sweep, Validation, Worker,
};

const LEN: usize = 12;

/// Goes to 1 in all elements, with noise.
struct Noisy(Random);

impl Noisy {
    fn of(worker: &Worker) -> Self {
        Self(worker.random())
    }
}

impl Learner for Noisy {
    fn step(&mut self, params: &[f32], update: &mut [f32]) -> Step {
        for (update, x) in update.iter_mut().zip(params) {
            *update = 0.1 * (x - 1.0) + 0.01 * (self.0.unit() as f32 - 0.5);
        }
        Step::of(1 + self.0.below(8) as u32).loss((params[0] - 1.0).powi(2))
    }

    fn validate(&mut self, params: &[f32]) -> Option<Validation> {
        let loss = params.iter().map(|x| f64::from(x - 1.0).powi(2)).sum::<f64>();
        Some(Validation::of(loss).accuracy(1.0 - loss.min(1.0)))
    }

    fn test(&mut self, params: &[f32]) -> Option<Validation> {
        self.validate(params)
    }
}

/// The run is tested with the parameters of its best validation, and not with those of its end.
#[test]
fn a_run_is_tested_with_its_best_parameters() {
    let run = simulation("sync", 2).seed(5).steps(200).record_every_examples(8);
    let outcome = run.run(Noisy::of).unwrap();
    let validations = outcome.curve.iter().filter_map(|point| point.validation);
    let best = validations.reduce(|best, it| if it.loss < best.loss { it } else { best });
    assert!(best.is_some() && outcome.test == best, "{:?} and {best:?}", outcome.test);
    assert_ne!(best, outcome.curve.last().unwrap().validation);
    let p50 = outcome.step_times.quantile(0.5).unwrap();
    assert!(close(p50, 0.1, 0.02) && outcome.step_times.len() >= 2 * 198, "{p50:?}");
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn cluster(text: &str, workers: u32) -> (Recipe, Cluster) {
    let recipe: Recipe = text.parse().unwrap();
    (recipe, Cluster { workers, servers: u32::from(recipe.needs_servers()) })
}

/// A recipe on this number of workers, with steps of 100 ms.
fn simulation(text: &str, workers: u32) -> Simulation {
    let (recipe, cluster) = cluster(text, workers);
    Simulation::new(Layout::flat(LEN), recipe, cluster).speed(Speed::constant(ms(100)))
}

fn close(got: Duration, expected: f64, share: f64) -> bool {
    (got.as_secs_f64() / expected - 1.0).abs() < share
}

const RULES: [&str; 8] = [
    "sync",
    "averaging period=4",
    "async",
    "softsync",
    "ssp",
    "mesh topology=mesh",
    "backup-workers",
    "async merge=elastic period=2",
];

/// Everything that is random, in one run.
fn wild(text: &str, seed: u64) -> Simulation {
    let links = Links::new(ms(3)).bandwidth(MBIT).jitter(ms(2)).loss(0.05, ms(20));
    let speed = Speed::constant(ms(100)).jitter(0.3).tail(0.05, 8.0).slow(secs(2)..secs(4), 3.0);
    let restart = Some(ms(500));
    simulation(text, 4)
        .seed(seed)
        .speed(speed.clone())
        .speed_of(PeerId(2), speed.exponential())
        .links(links.latency_between(PeerId(0), PeerId(3), ms(30)))
        .fault(secs(3), Fault::Crash { node: PeerId(1), restart })
        .fault(secs(1), Fault::Pause { node: PeerId(3), lasts: ms(700) })
        .record_every(secs(1))
        .until(secs(9))
}

#[test]
fn equal_seeds_give_equal_runs_on_any_number_of_threads() {
    let runs: Vec<Simulation> = RULES.iter().flat_map(|text| [1, 2].map(|seed| wild(text, seed))).collect();
    let alone: Vec<Outcome> = runs.iter().map(|run| run.run(Noisy::of).unwrap()).collect();
    for threads in [1, 2, 7] {
        assert_eq!(Sweep::new(runs.clone()).threads(threads).run(Noisy::of).unwrap(), alone);
    }
    for (outcomes, text) in alone.chunks(2).zip(RULES) {
        for outcome in outcomes {
            assert_eq!((&outcome.end, outcome.time, outcome.curve.len()), (&End::Time, secs(9), 10), "{text}");
            let end = outcome.curve[9];
            assert!(end.validation.unwrap().loss < 1.0 && end.loss.unwrap() < 0.5, "{text}: {end:?}");
            assert!(end.examples > 300 && end.bytes == outcome.bytes && end.rounds > 3, "{text}: {end:?}");
            assert_eq!(end.steps, outcome.workers.iter().map(|worker| worker.steps).sum::<u64>());
        }
        assert_ne!(outcomes[0].trace, outcomes[1].trace, "{text}");
    }
}

/// A worker computes for its share of the time of the slowest, and waits for the rest.
#[test]
fn workers_wait_for_the_slowest() {
    let run = |text| {
        let speeds = [100, 150, 300, 600].into_iter().enumerate();
        let of_all = speeds.fold(simulation(text, 4), |run, (rank, step)| {
            run.speed_of(PeerId(rank as u32), Speed::constant(ms(step)))
        });
        of_all.links(Links::new(Duration::from_nanos(1))).until(secs(600)).run(Noisy::of).unwrap()
    };
    let (sync, free) = (run("sync"), run("async"));
    for (rank, step) in [100, 150, 300, 600].into_iter().enumerate() {
        let (waiting, busy) = (&sync.workers[rank], &free.workers[rank]);
        assert!((999..=1000).contains(&waiting.steps) && waiting.life == Life::Up, "{waiting:?}");
        assert!(close(waiting.busy, step as f64, 0.002), "{waiting:?}");
        assert_eq!(waiting.busy + waiting.waited, secs(600));
        assert!(close(busy.busy, 600.0, 1e-4), "{busy:?}");
        assert!(busy.steps.abs_diff(600_000 / step) <= 1, "{busy:?}");
    }
    assert!(free.busy(PeerId(3)) > 0.999 && sync.busy(PeerId(0)) < 0.17);
    assert!(free.staleness.mean() > 2.0 && sync.staleness.mean() == 0.0);
    assert_eq!(free.counters.applied, free.workers.iter().map(|worker| worker.contributions).sum::<u64>());
}

/// The line of a server carries the contributions of all workers, one after the other, and their answers.
#[test]
fn a_round_takes_the_time_of_its_bytes_on_the_narrowest_line() {
    let (recipe, cluster) = cluster("hardsync", 4);
    let run = |links: Links| {
        let run = Simulation::new(Layout::flat(250_000), recipe, cluster).speed(Speed::constant(ms(500))).links(links);
        let after = |steps| {
            let outcome = run.clone().steps(steps).run(|_: &Worker| quiet).unwrap();
            assert_eq!(outcome.end, End::Steps);
            outcome.time
        };
        // Without the beginning and the end.
        (after(12) - after(4)) / 8
    };
    let (near, server) = (Links::new(Duration::from_micros(1)), PeerId(4));
    // A megabyte takes 0.1 s at 80 Mbit/s. The last worker begins after 4 answers, and its contribution is the last of 4;
    // those of the other workers have come before.
    let narrow = run(near.clone().bandwidth_of(server, 80 * MBIT, 80 * MBIT));
    assert!(close(narrow, 0.5 + 0.5, 0.05), "{narrow:?}");
    let up = run(near.clone().bandwidth_of(server, 80 * MBIT, 100 * GBIT));
    assert!(close(up, 0.5 + 0.4, 0.05), "{up:?}");
    // On lines of their own, the workers send and receive side by side.
    let far = (0..4).fold(near.clone(), |links, rank| links.bandwidth_of(PeerId(rank), 80 * MBIT, 80 * MBIT));
    assert!(close(run(far), 0.5 + 0.2, 0.05));
    // A path of a pair, and its latency.
    let path = near.between(PeerId(1), server, ms(250), 80 * MBIT);
    assert!(close(run(path), 0.5 + 0.2 + 0.5, 0.05));
}

/// A learner that changes nothing.
fn quiet(_params: &[f32], update: &mut [f32]) -> Step {
    update.fill(0.0);
    Step::of(1)
}

/// Each member of a ring sends 2 (N - 1) / N of the vector.
#[test]
fn a_ring_shares_the_lines_of_all() {
    let (recipe, cluster) = cluster("sync topology=ring chunk=2500", 4);
    let run = Simulation::new(Layout::flat(250_000), recipe, cluster).speed(Speed::constant(ms(500))).steps(10);
    let links = Links::new(Duration::from_micros(1)).bandwidth(80 * MBIT);
    let outcome = run.links(links).run(|_: &Worker| quiet).unwrap();
    assert_eq!(outcome.end, End::Steps);
    let expected = 0.5 + 2.0 * 3.0 / 4.0 * 0.1;
    assert!(close(outcome.time / 10, expected, 0.05), "{:?}, expected {expected}", outcome.time / 10);
}

/// A point shows the state at its moment, and has no effect on the run.
#[test]
fn curves_show_moments_and_change_nothing() {
    let run = simulation("sync", 2).links(Links::new(Duration::from_nanos(10)));
    let recorded = run.clone().record_at([950, 100, 310].map(ms)).until(secs(1)).run(Noisy::of).unwrap();
    let times: Vec<(Duration, u64)> = recorded.curve.iter().map(|point| (point.time, point.steps)).collect();
    let expected = [(Duration::ZERO, 0), (ms(100), 0), (ms(310), 6), (ms(950), 18), (secs(1), 18)];
    // Joining takes some microseconds, so the first step ends a little after 100 ms.
    assert_eq!(times, expected);
    let bare = run.clone().until(secs(1)).run(Noisy::of).unwrap();
    assert_eq!((bare.trace, bare.digest, &bare.params), (recorded.trace, recorded.digest, &recorded.params));
    assert_eq!(bare.curve.len(), 1);
    assert_eq!(bare.curve[0].validation, recorded.curve[4].validation);
    // By examples: after each 50.
    let by_examples = run.clone().record_every_examples(50).until(secs(10)).run(Noisy::of).unwrap();
    let counts: Vec<u64> = by_examples.curve.iter().map(|point| point.examples).collect();
    let inner = &counts[..counts.len() - 1];
    assert!(
        inner.iter().enumerate().all(|(i, count)| (50 * i as u64..50 * i as u64 + 16).contains(count)),
        "{counts:?}"
    );
    // A round under way is not in the parameters: at most 2 x 8 examples.
    assert!(
        by_examples.curve.iter().all(|point| (0..=16).contains(&(point.examples - point.seen))),
        "{:?}",
        by_examples.curve
    );
    assert!(by_examples.curve.iter().any(|point| point.seen < point.examples));
    // A worker that is alone joins at once: its third step ends at 300 ms, and belongs to the point of that moment.
    let alone = simulation("sync", 1).record_at([ms(300)]).until(ms(350)).run(Noisy::of).unwrap();
    assert_eq!(alone.curve[1].steps, 3);
    // Points of both kinds, and the end at the moment of a point.
    let both = run.record_every(ms(500)).record_at([ms(500)]).until(secs(1)).run(Noisy::of).unwrap();
    assert_eq!(both.curve.iter().map(|point| point.time).collect::<Vec<_>>(), [ms(0), ms(500), secs(1)]);
    let losses: Vec<bool> = both.curve.iter().map(|point| point.loss.is_some()).collect();
    assert_eq!(losses, [false, true, true]);
}

#[test]
fn runs_end_where_they_should() {
    let run = || simulation("averaging period=4", 3).record_every(ms(500));
    let steps = run().steps(9).run(Noisy::of).unwrap();
    assert_eq!((&steps.end, steps.curve.last().unwrap().steps), (&End::Steps, 27));
    assert!(steps.workers.iter().all(|worker| worker.life == Life::Done && worker.contributions == 3));
    let examples = run().examples(200).run(Noisy::of).unwrap();
    assert_eq!(examples.end, End::Examples);
    assert!((200..300).contains(&examples.curve.last().unwrap().examples));
    assert_eq!(run().until(ms(1234)).run(Noisy::of).unwrap().time, ms(1234));
    let reached = run().until_loss(0.5).until(secs(100)).run(Noisy::of).unwrap();
    assert_eq!(reached.end, End::Target);
    assert_eq!(reached.first_with_loss(0.5), reached.curve.last());
    assert!(reached.time < secs(10) && reached.validation().unwrap().loss <= 0.5);
    let accurate = run().until_accuracy(0.9).until(secs(100)).run(Noisy::of).unwrap();
    assert_eq!((&accurate.end, accurate.first_with_accuracy(0.9)), (&End::Target, accurate.curve.last()));
    let limited = run().steps(1_000_000).events(500).run(Noisy::of).unwrap();
    assert_eq!((&limited.end, limited.events), (&End::Events { limit: 500 }, 500));
    assert!(!limited.end.is_good() && steps.end.is_good());
    let mut points = 0;
    let watched = run().until(secs(100)).run_watched(Noisy::of, |point| {
        points += 1;
        if point.time >= secs(2) { Next::EndRun } else { Next::Continue }
    });
    assert_eq!((watched.unwrap().end, points), (End::Stopped, 5));
}

#[test]
fn failed_runs_are_results() {
    let learner = |worker: &Worker| {
        let (rank, mut steps) = (worker.rank, 0);
        move |_: &[f32], update: &mut [f32]| {
            update.fill(if rank == PeerId(1) && steps == 7 { f32::NAN } else { 0.0 });
            steps += 1;
            Step::of(1)
        }
    };
    for text in RULES {
        let outcome = simulation(text, 3).until(secs(60)).run(learner).unwrap();
        assert_eq!(outcome.end, End::Diverged { worker: PeerId(1), step: Some(7) }, "{text}");
        assert!(outcome.params.iter().all(|x| x.is_finite()), "{text}");
        assert_eq!(outcome.workers[1].steps, 8);
    }
    struct Lost;
    impl Learner for Lost {
        fn step(&mut self, _: &[f32], update: &mut [f32]) -> Step {
            update.fill(1.0);
            Step::of(1)
        }
        fn validate(&mut self, params: &[f32]) -> Option<Validation> {
            Some(Validation::of(if params[0] < -5.0 { f64::NAN } else { 1.0 }))
        }
    }
    let judged = simulation("sync", 2).record_every(ms(350)).until(secs(60)).run(|_: &Worker| Lost).unwrap();
    assert_eq!((&judged.end, judged.time), (&End::Diverged { worker: PeerId(0), step: None }, ms(700)));
    // The end of a run that is over by its time is judged as well.
    let late = simulation("sync", 2).until(secs(2)).run(|_: &Worker| Lost).unwrap();
    assert_eq!(late.end, End::Diverged { worker: PeerId(0), step: None });

    // Workers wait for a server that never comes back.
    let crash = |node| Fault::Crash { node: PeerId(node), restart: None };
    let stuck = simulation("hardsync", 2).fault(secs(1), crash(2)).events(100_000).steps(100).run(Noisy::of).unwrap();
    assert!(matches!(stuck.end, End::Stuck { .. } | End::Events { .. }), "{}", stuck.end);
    let gone =
        simulation("sync", 2).fault(secs(1), crash(0)).fault(secs(1), crash(1)).steps(100).run(Noisy::of).unwrap();
    assert_eq!(gone.end, End::Lost);
    assert_eq!(gone.workers[0].life, Life::Down);
}

#[test]
fn faults_hold_a_run_up_and_do_not_break_it() {
    for text in ["sync", "averaging period=4", "hardsync", "async", "sync topology=ring chunk=4"] {
        let run = || simulation(text, 4).steps(40);
        let calm = run().run(Noisy::of).unwrap();
        let node = PeerId(2);
        let paused = run().fault(secs(1), Fault::Pause { node, lasts: secs(3) }).run(Noisy::of).unwrap();
        assert!((2.8..3.3).contains(&(paused.time.as_secs_f64() - calm.time.as_secs_f64())), "{text}: {paused:?}");
        // The time of the pause is no computation.
        assert_eq!(paused.workers[2].busy, calm.workers[2].busy, "{text}");
        let restart = Some(ms(400));
        let crashed = run().fault(secs(1), Fault::Crash { node, restart }).run(Noisy::of).unwrap();
        let split = run().split(secs(1), ms(1500), &[PeerId(2)]).run(Noisy::of).unwrap();
        for outcome in [&calm, &paused, &crashed, &split] {
            assert_eq!(outcome.end, End::Steps, "{text}");
            assert!(outcome.workers.iter().all(|worker| worker.life == Life::Done && worker.steps == 40), "{text}");
        }
        assert!(crashed.trace != calm.trace && crashed.time > calm.time, "{text}: {:?}", crashed.time);
        assert!(split.time > calm.time + secs(1), "{text}: {:?}", split.time);
    }
    // Worker 0 is gone: another worker's parameters are validated.
    let gone = Fault::Crash { node: PeerId(0), restart: None };
    let run = simulation("async", 3).fault(secs(1), gone).patience(secs(2)).record_every(secs(1)).until(secs(8));
    let outcome = run.run(Noisy::of).unwrap();
    let losses: Vec<f64> = outcome.curve.iter().map(|point| point.validation.unwrap().loss).collect();
    assert!(losses[8] < losses[1] / 10.0, "{losses:?}");
    assert_eq!(outcome.workers[0].life, Life::Down);
}

/// An optimizer that changes the parameters in place is the same as its update, where parameters are contributed.
#[test]
fn optimizers_in_place_are_like_updates() {
    let in_place = |worker: &Worker| {
        let mut noisy = Noisy::of(worker);
        InPlace(move |params: &mut [f32]| {
            let mut update = [0.0; LEN];
            let step = noisy.step(params, &mut update);
            params.iter_mut().zip(update).for_each(|(param, update)| *param -= update);
            step
        })
    };
    for text in ["averaging period=3", "averaging topology=ring chunk=5", "averaging topology=servers period=2"] {
        let run = simulation(text, 3).steps(20);
        let (one, other) = (run.run(in_place).unwrap(), run.run(Noisy::of).unwrap());
        assert_eq!(
            (one.digest, one.bytes, one.curve[0].loss),
            (other.digest, other.bytes, other.curve[0].loss),
            "{text}"
        );
    }
    // As updates or gradients: up to the rounding of differences.
    for text in ["sync", "sync period=3", "gradients"] {
        let run = simulation(text, 3).steps(20);
        let (one, other) = (run.run(in_place).unwrap(), run.run(Noisy::of).unwrap());
        let near = one.params.iter().zip(&other.params).all(|(one, other)| (one - other).abs() < 1e-5);
        assert!(near && other.params[0] > 0.5, "{text}: {:?} {:?}", one.params, other.params);
    }
}

#[test]
fn learners_can_set_the_time_of_their_steps() {
    struct Slower(u64);
    impl Learner for Slower {
        fn step(&mut self, params: &[f32], update: &mut [f32]) -> Step {
            quiet(params, update)
        }
        fn step_time(&mut self) -> Option<Duration> {
            self.0 += 1;
            Some(ms(self.0))
        }
    }
    let outcome = simulation("async", 1).steps(10).run(|_: &Worker| Slower(0)).unwrap();
    assert_eq!(outcome.workers[0].busy, ms(55));
    let measured = simulation("sync", 1).steps(1).measure(
        |_: &Worker| {
            |params: &[f32], update: &mut [f32]| {
                std::thread::sleep(ms(2));
                quiet(params, update)
            }
        },
        5,
    );
    assert!(measured.unwrap() >= ms(2));
}

#[test]
fn watches_end_runs_and_sweeps() {
    let run = |seed| simulation("sync", 2).seed(seed).record_every(secs(1)).until(secs(5));
    let sweep = || Sweep::new((1..=4).map(run)).threads(1);
    let mut seen = Vec::new();
    let all = sweep().run_watched(Noisy::of, |progress| {
        seen.push((progress.run, progress.runs, progress.ended, progress.outcome.is_some()));
        Next::Continue
    });
    assert!(all.unwrap().iter().all(|outcome| outcome.end == End::Time));
    assert_eq!(seen.len(), 4 * 7);
    assert_eq!((seen[6], seen[27]), ((0, 4, 1, true), (3, 4, 4, true)));
    let ends = |outcomes: Vec<Outcome>| -> Vec<(End, usize)> {
        outcomes.into_iter().map(|outcome| (outcome.end, outcome.curve.len())).collect()
    };
    let at = |time, next| {
        move |progress: gradwire_sim::simulation::Progress<'_>| {
            if progress.run == 1 && progress.point.time == time { next } else { Next::Continue }
        }
    };
    let whole = || (End::Time, 6);
    let one = ends(sweep().run_watched(Noisy::of, at(secs(2), Next::EndRun)).unwrap());
    assert_eq!(one, [whole(), (End::Stopped, 3), whole(), whole()]);
    let rest = ends(sweep().run_watched(Noisy::of, at(secs(2), Next::EndAll)).unwrap());
    assert_eq!(rest, [whole(), (End::Stopped, 3), (End::Stopped, 0), (End::Stopped, 0)]);
}

/// Learners know their run, so that settings of a sweep can be settings of the learner.
#[test]
fn learners_know_their_place() {
    let runs = [2, 3].map(|workers| simulation("sync", workers).seed(u64::from(workers)).steps(1));
    let learner = |worker: &Worker| {
        assert_eq!((worker.workers, worker.seed), (worker.run as u32 + 2, worker.run as u64 + 2));
        assert_eq!(worker.common_random().next(), Worker::common_random(worker).next());
        let value = worker.run as f32 + 1.0;
        move |_: &[f32], update: &mut [f32]| {
            update.fill(value);
            Step::of(1)
        }
    };
    let outcomes = Sweep::new(runs).run(learner).unwrap();
    assert_eq!(outcomes.iter().map(|outcome| outcome.params[0]).collect::<Vec<_>>(), [-1.0, -2.0]);
}

#[test]
fn wrong_settings_are_named() {
    let good = || simulation("sync", 4).steps(1);
    let pause = |node| Fault::Pause { node: PeerId(node), lasts: secs(1) };
    let cut = |a, b| Fault::Cut { a: PeerId(a), b: PeerId(b) };
    let links = |links: Links| good().links(links);
    let near = || Links::new(ms(1));
    let (zero, one, nine) = (PeerId(0), PeerId(1), PeerId(9));
    let cases = [
        (simulation("sync", 0).steps(1), "workers: expected at least 1, got 0"),
        (simulation("sync", 4), "the run has no end: set a number of steps or examples, or a virtual time"),
        (good().steps(0), "steps: expected at least 1, got 0"),
        (good().examples(0), "examples: expected at least 1, got 0"),
        (good().events(0), "events: expected at least 1, got 0"),
        (good().initial(vec![0.0; 3]), "initial parameters: expected 12 floats, as in the layout, got 3"),
        (
            good().initial([&[f32::NAN; 1][..], &[0.0; 11]].concat()),
            "initial parameters: expected finite floats, got NaN at index 0",
        ),
        (good().speed_of(nine, Speed::per_second(1.0)), "the speed of worker 9: there are 4 workers, from 0 to 3"),
        (
            good().speed_of(one, Speed::per_second(f64::NAN)),
            "time of a step in seconds of worker 1: expected above 0, got NaN",
        ),
        (good().fault(secs(1), pause(4)), "a fault of node 4: there are 4 nodes, from 0 to 3"),
        (good().fault(secs(1), cut(2, 2)), "a fault of node 2 and itself: expected two nodes"),
        (good().split(secs(1), secs(1), &[nine]), "a fault of node 9: there are 4 nodes, from 0 to 3"),
        (good().record_every(Duration::ZERO), "seconds between records: expected above 0, got 0"),
        (good().record_every_examples(0), "examples between records: expected at least 1, got 0"),
        (good().until_loss(f64::NAN).record_every(secs(1)), "loss at the end: expected a finite number, got NaN"),
        (good().until_accuracy(2.0).record_every(secs(1)), "accuracy at the end: expected from 0 to 1, got 2"),
        (good().until_loss(0.1), "the run ends at a validation figure, and never validates: set when to record"),
        (
            links(near().bandwidth(0)),
            "a link of 0 bit/s: of all nodes; leave the bandwidth out for a link without a limit",
        ),
        (
            links(near().bandwidth_of(one, 0, 1)),
            "a link of 0 bit/s: from node 1; leave the bandwidth out for a link without a limit",
        ),
        (
            links(near().bandwidth_of(one, 1, 0)),
            "a link of 0 bit/s: to node 1; leave the bandwidth out for a link without a limit",
        ),
        (
            links(near().one_way(one, zero, ms(1), 0)),
            "a link of 0 bit/s: from node 1 to node 0; leave the bandwidth out for a link without a limit",
        ),
        (links(near().between(one, nine, ms(1), 5)), "a path of node 9: there are 4 nodes, from 0 to 3"),
        (links(near().between(one, one, ms(1), 5)), "a path of node 1 and itself: expected two nodes"),
        (links(near().bandwidth_of(nine, 5, 5)), "a line of node 9: there are 4 nodes, from 0 to 3"),
        (links(near().loss(1.0, ms(1))), "loss: expected from 0 to below 1, got 1"),
    ];
    for (simulation, expected) in cases {
        let error = simulation.run(Noisy::of).unwrap_err();
        assert_eq!(error.to_string(), expected);
        let swept = Sweep::new([good(), simulation]).run(Noisy::of).unwrap_err();
        assert!(matches!(swept, Error::Run { run: 1, .. }));
        assert_eq!(swept.to_string(), format!("run 1: {expected}"));
    }
    let none = Sweep::new([]).run(Noisy::of).unwrap_err();
    assert_eq!(none.to_string(), "a sweep without runs");
}

/// Links that carry nothing for a while hold up no step of a mesh without rounds, though each holds back other messages.
#[test]
fn links_that_stand_still_hold_up_no_step_of_a_mesh() {
    let run = |faults: &[(u64, u32)]| {
        let still = |at: u64, to| (ms(at), Fault::Partition { a: PeerId(0), b: PeerId(to), lasts: secs(10) });
        let run = simulation("strom tau=0.0078125", 5).until(secs(9));
        let run = faults.iter().fold(run, |run, (at, to)| {
            let (at, fault) = still(*at, *to);
            run.fault(at, fault)
        });
        run.run(Noisy::of).unwrap().workers[0].steps
    };
    let undisturbed = run(&[]);
    assert!(undisturbed > 85, "{undisturbed}");
    assert_eq!(run(&[(1000, 2), (1350, 3), (1850, 4)]), undisturbed);
}
