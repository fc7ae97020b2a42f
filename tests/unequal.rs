//! Machines of unequal speed in virtual time: how much of the time they compute, and that a period in seconds is a
//! period in steps where all speeds are equal.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../benches/unequal/machines.rs"]
mod machines;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use gradwire_core::{Cluster, Instant, Layout, Patience, PeerId, Recipe};
use gradwire_sim::{App, Fault, Halt, Network, Plan, World};
use machines::{Machines, Outcome, STEP_MS};

fn run(recipe: Recipe, step_ms: [u64; 4], seed: u64, seconds: &[u64]) -> Outcome {
    machines::run(&Machines { network: Network::calm(), step_ms, own: 0.0 }, recipe, seed, seconds)
}

fn recipe(text: &str) -> Recipe {
    text.parse().unwrap()
}

/// A fixed period keeps the machines waiting for the slowest one: the mean of its speed over theirs is 46 %.
#[test]
fn a_fixed_period_leaves_machines_idle() {
    for text in ["sync", "sync period=20", "averaging period=20 topology=ring", "hardsync period=5"] {
        let busy = run(recipe(text), STEP_MS, 1, &[999]).mean_busy();
        assert!((0.44..0.47).contains(&busy), "{text}: {busy}");
    }
}

/// A worker computes for at least 1 - step / period of the time, at all speeds.
#[test]
fn a_period_in_seconds_keeps_machines_busy() {
    for text in ["sync period=20s", "averaging period=20s topology=ring", "hardsync period=20s"] {
        let outcome = run(recipe(text), STEP_MS, 1, &[999]);
        for (busy, step) in outcome.busy.iter().zip(STEP_MS) {
            assert!(*busy >= 1.0 - step as f64 / 20_000.0 - 0.002, "{text}: busy {busy}, steps of {step} ms");
        }
        assert!(outcome.mean_busy() >= 0.95, "{text}: {outcome:?}");
        // The machines use that time for more rounds and examples, and for a lower loss.
        let fixed = run(recipe("sync period=20"), STEP_MS, 1, &[999]);
        assert!(outcome.rounds > 2 * fixed.rounds && outcome.examples > 2 * fixed.examples, "{text}: {outcome:?}");
        assert!(outcome.losses[0] < fixed.losses[0], "{text}: {outcome:?} {fixed:?}");
    }
    let others = run(recipe("sync period=10s"), [100, 900, 2300, 4900], 1, &[999]);
    for (busy, step) in others.busy.iter().zip([100, 900, 2300, 4900]) {
        assert!(*busy >= 1.0 - f64::from(step) / 10_000.0 - 0.002, "busy {busy}, steps of {step} ms");
    }
}

/// DyLU: slower workers have shorter periods, after a first one of one step that measures their speed.
#[test]
fn periods_that_follow_the_speed_keep_machines_busy() {
    for text in ["hardsync period=20 adapt=speed", "averaging period=20 topology=servers shards=2 adapt=speed"] {
        let outcome = run(recipe(text), STEP_MS, 1, &[999]);
        assert!(outcome.mean_busy() >= 0.90, "{text}: {outcome:?}");
    }
    let lengths = lengths("hardsync period=20 adapt=speed", STEP_MS, 60, Vec::new()).1;
    for (of, expected) in lengths.iter().zip([20, 15, 7, 3]) {
        assert_eq!(of[..3], [1, expected, expected]);
    }
    // Equal speeds have the whole period.
    let whole = lengths_of_equals();
    assert!(whole.iter().all(|of| of[..4] == [1, 6, 6, 6]), "{whole:?}");
}

/// The periods of workers of equal speed.
fn lengths_of_equals() -> Vec<Vec<u64>> {
    lengths("hardsync period=6 adapt=speed", [250; 4], 40, Vec::new()).1
}

/// At every pace, a worker that is four times as slow has a quarter of the period.
#[test]
fn every_pace_has_periods_that_follow_the_speed() {
    let texts = ["hardsync period=12 adapt=speed", "async period=12 adapt=speed", "ssp bound=2 period=12 adapt=speed"];
    for text in texts {
        let all = lengths(text, [100, 100, 100, 400], 200, Vec::new()).1;
        // With a window of two, the second period begins before the first answer.
        assert_eq!(all[3][2..5], [3, 3, 3], "{text}");
        assert_eq!(all[0][4..6], [12, 12], "{text}");
    }
}

/// The parameters of worker 0 after each of its contributions, with the virtual time in milliseconds.
type Rounds = Arc<Mutex<Vec<Vec<f32>>>>;

/// A program with updates that depend on the parameters and on the worker.
struct Program {
    me: PeerId,
    step: Duration,
    /// Steps of the present period, and of all periods before.
    lengths: Arc<Mutex<Vec<Vec<u64>>>>,
    length: u64,
    rounds: Rounds,
    loss: Option<Loss>,
}

/// The training loss of a worker at a step.
type Loss = fn(PeerId, u64) -> f32;

impl App for Program {
    fn duration(&mut self, _step: u64) -> Duration {
        self.step
    }

    fn update(&mut self, step: u64, params: &[f32], update: &mut [f32]) -> u32 {
        self.length += 1;
        for (i, (update, x)) in update.iter_mut().zip(params).enumerate() {
            let noise = ((u64::from(self.me.0) * 31 + step * 17 + i as u64 * 7) % 23) as f32 / 23.0;
            *update = 0.1 * (x - 1.0) + 0.05 * noise;
        }
        1 + (self.me.0 + step as u32) % 3
    }

    fn loss(&mut self, step: u64) -> Option<f32> {
        self.loss.map(|loss| loss(self.me, step))
    }

    fn contributes(&mut self, _step: u64, _weight: u64) {
        self.lengths.lock().unwrap()[self.me.index()].push(std::mem::take(&mut self.length));
    }

    fn done(&mut self, _step: u64, params: &[f32]) {
        if self.me == PeerId(0) {
            self.rounds.lock().unwrap().push(params.to_vec());
        }
    }
}

/// A run of four workers with steps of these milliseconds. Returns the parameters of worker 0 after each step, and the
/// lengths of all periods by worker.
fn lengths(text: &str, step_ms: [u64; 4], steps: u64, faults: Vec<(Instant, Fault)>) -> (Vec<Vec<f32>>, Vec<Vec<u64>>) {
    lengths_by(text, step_ms, steps, faults, None)
}

/// [`lengths`] of workers that report their losses.
fn lengths_by(
    text: &str,
    step_ms: [u64; 4],
    steps: u64,
    faults: Vec<(Instant, Fault)>,
    loss: Option<Loss>,
) -> (Vec<Vec<f32>>, Vec<Vec<u64>>) {
    let recipe = recipe(text);
    let cluster = Cluster { workers: 4, servers: u32::from(recipe.needs_servers()) };
    let plan = Plan {
        steps,
        faults,
        network: Network { latency: Duration::from_nanos(1), ..Network::calm() },
        patience: Patience::new(Duration::from_secs(1000)),
        ..Plan::new(1, Layout::flat(9), recipe, cluster)
    };
    let (lengths, rounds) = (Arc::new(Mutex::new(vec![Vec::new(); 4])), Rounds::default());
    let mut world = World::new(plan, |me| {
        let step = Duration::from_millis(step_ms[me.index()]);
        let (lengths, rounds) = (Arc::clone(&lengths), Arc::clone(&rounds));
        Box::new(Program { me, step, lengths, length: 0, rounds, loss })
    })
    .unwrap();
    world.run(10_000_000, |_, _| Ok::<(), Halt>(())).unwrap();
    let rounds = rounds.lock().unwrap().clone();
    let lengths = lengths.lock().unwrap().clone();
    (rounds, lengths)
}

/// FedNova with workers of equal speed is the plain mean: bit for bit if they take 4 steps, else to 3 units in the last
/// place. Workers with unequal speed each pull for as long as their examples say, independent of their steps.
#[test]
fn normalised_means_of_equal_steps_are_plain_means() {
    for base in ["sync", "sync topology=ring chunk=2", "hardsync", "sparse density=0.5", "diloco", "hardsync shards=3"]
    {
        for steps in [1, 4, 8, 3, 7] {
            let plain = format!("{base} period={}ms", steps * 250);
            let (expected, periods) = lengths(&plain, [250; 4], 32, Vec::new());
            let (got, others) = lengths(&format!("{plain} normalize=steps"), [250; 4], 32, Vec::new());
            assert_eq!(periods, others, "{plain}");
            assert_eq!(got.len(), expected.len());
            // The last period is shorter.
            let whole = if steps == 3 || steps == 7 { 0 } else { got.len() };
            assert_eq!(got[..whole], expected[..whole], "{plain}");
            let first = steps as usize - 1;
            for (got, expected) in got[first].iter().zip(&expected[first]) {
                assert!((got - expected).abs() <= 3.0 * f32::EPSILON, "{plain}: {got} {expected}");
            }
        }
    }
}

const BY_LOSS: [&str; 4] =
    ["averaging", "sync topology=ring chunk=2", "local-sparse density=0.5", "diloco topology=tree fan_in=3"];

/// AdaComm: a loss that stays as it is, or that some worker does not know, leaves the period as it is, bit for bit.
#[test]
fn a_loss_that_stays_leaves_the_period_as_it_is() {
    let unknown: Loss = |me, _| if me == PeerId(2) { f32::NAN } else { 1.0 };
    for text in BY_LOSS {
        let fixed = lengths(&format!("{text} period=6"), [250; 4], 40, Vec::new());
        let text = format!("{text} period=6 adapt=loss most=12");
        for loss in [None, Some(unknown), Some(|_, _| 2.5)] {
            assert_eq!(lengths_by(&text, [250; 4], 40, Vec::new(), loss), fixed, "{text}");
        }
    }
}

/// AdaComm: all workers have the period that the formula gives for the mean loss, and so has one that joins again.
#[test]
fn periods_follow_the_mean_loss() {
    // Each worker's loss is constant over a period, so that the mean of the four can be named: 4, 4 / 4, 4 / 9, …
    let loss: Loss = |me, step| (1.0 + me.0 as f32 / 2.0) * if step < 6 { 1.0 } else { 1.0 / 4.0 };
    for text in BY_LOSS {
        let text = format!("{text} period=6 adapt=loss most=12");
        let all = lengths_by(&text, [100, 200, 300, 400], 30, Vec::new(), Some(loss)).1;
        assert!(all.iter().all(|of| of[..6] == [6, 6, 3, 3, 3, 3]), "{text}: {all:?}");
        let rising: Loss = |_, step| if step < 6 { 1.0 } else { 2.25 };
        let all = lengths_by(&text, [100; 4], 48, Vec::new(), Some(rising)).1;
        assert!(all.iter().all(|of| of[..4] == [6, 6, 9, 9]), "{text}: {all:?}");
    }
    let (node, restart) = (PeerId(3), Some(Duration::from_millis(1)));
    let crash = (Instant::from_nanos(2_050_000_000), Fault::Crash { node, restart });
    let faults = vec![crash];
    let all = lengths_by("adacomm period=6", [100; 4], 60, faults, Some(loss)).1;
    // Its first period after the restart is as short as the other workers' present periods. Two steps were lost.
    assert_eq!(all[3][..6], [6, 6, 3, 3, 2 + 3, 3], "{all:?}");
}

/// Where all speeds are equal, a period in seconds is the period of so many steps, bit for bit; and so is a period
/// in examples where all batches are equal.
#[test]
fn equal_speeds_make_a_period_in_seconds_one_in_steps() {
    for base in ["averaging", "averaging topology=ring optimizer=keep", "sync", "hardsync", "async", "local-bf16"] {
        for steps in [1, 4, 7] {
            let fixed = lengths(&format!("{base} period={steps}"), [250; 4], 30, Vec::new());
            let timed = lengths(&format!("{base} period={}ms", steps * 250), [250; 4], 30, Vec::new());
            assert_eq!(timed, fixed, "{base} period={steps}");
        }
    }
}

/// A worker that is paused, or takes longer than the period for a step, ends no round for other workers: their
/// periods are as long as ever.
#[test]
fn a_paused_worker_does_not_cut_the_periods_of_others() {
    let speeds = [100, 200, 500, 900];
    let calm = lengths("sync period=2s", speeds, 60, Vec::new()).1;
    assert_eq!(calm[0][0], 20);
    assert_eq!([calm[1][0], calm[2][0], calm[3][0]], [10, 4, 2]);
    let node = PeerId(3);
    let pause = (Instant::from_nanos(2_500_000_000), Fault::Pause { node, lasts: Duration::from_secs(30) });
    let paused = lengths("sync period=2s", speeds, 60, vec![pause]).1;
    // In whole periods, all but the paused worker take as many steps as before.
    for worker in 0..3 {
        let whole = paused[worker].len() - 1;
        assert_eq!(paused[worker][..whole], calm[worker][..whole], "worker {worker}");
    }
}
