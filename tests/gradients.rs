//! `payload=gradients`: means that go back to the callers, against an f64 model; workers without examples; workers that
//! come, are lost and come back; checkpoints.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use gradwire::{Cluster, Error, Layout, Mean, Mem, Recipe, RunId, Session, Transport};

const LEN: usize = 37;

fn recipe(text: &str) -> Recipe {
    text.parse().unwrap()
}

fn builder(recipe: Recipe, workers: u32) -> gradwire::Builder {
    let cluster = Cluster { workers, servers: 0 };
    Session::builder(Layout::flat(LEN), recipe, cluster).deadline(Duration::from_secs(20))
}

/// The gradient of a worker in a round, and its examples. Worker 1 has no examples in every third round, worker 2 never
/// has any, and no worker has any in round 4.
fn gradient(rank: u32, round: u64) -> (Vec<f32>, u32) {
    let value = |i: usize| ((i as u64 * 7 + round * 13 + u64::from(rank) * 5) % 31) as f32 / 8.0 - 1.7;
    let examples = match rank {
        _ if round == 4 => 0,
        1 if round.is_multiple_of(3) => 0,
        2 => 0,
        _ => 1 + (u64::from(rank) * 3 + round) as u32 % 5,
    };
    ((0..LEN).map(value).collect(), examples)
}

/// The means of some rounds, as each worker has got them.
fn means(text: &'static str, workers: u32, rounds: u64) -> Vec<Vec<Vec<f32>>> {
    let run = |(rank, transport): (u32, Mem)| {
        thread::spawn(move || {
            let mut params = vec![0.25; LEN];
            let mut session = builder(recipe(text), workers).join(transport, &mut params).unwrap();
            let mut means = Vec::new();
            for round in 0..rounds {
                let (mut vector, examples) = gradient(rank, round);
                let given = session.mean(&mut vector, examples, &mut params, &mut []);
                assert_eq!(
                    given.unwrap_or_else(|error| panic!("{text}, {workers} workers, round {round}: {error}")),
                    Mean::Given
                );
                assert_eq!((session.rounds(), session.steps()), (round + 1, round + 1));
                means.push(vector);
            }
            session.finish(&mut params).unwrap();
            assert_eq!(params, [0.25; LEN], "the library changes no parameters");
            means
        })
    };
    let threads: Vec<_> = (0..).zip(Mem::cluster(workers)).map(run).collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

/// The weighted mean of a round in f64. 0 without examples.
fn model(workers: u32, round: u64) -> Vec<f64> {
    let (mut sum, mut weight) = (vec![0.0; LEN], 0.0);
    for rank in 0..workers {
        let (vector, examples) = gradient(rank, round);
        sum.iter_mut().zip(vector).for_each(|(sum, x)| *sum += f64::from(x) * f64::from(examples));
        weight += f64::from(examples);
    }
    sum.into_iter().map(|sum| if weight == 0.0 { 0.0 } else { sum / weight }).collect()
}

#[test]
fn the_mean_is_that_of_all_examples_and_the_same_bits_everywhere() {
    let exact = [
        "gradients",
        "gradients fan_in=1 chunk=5",
        "gradients topology=ring chunk=4",
        "gradients topology=mesh codec=topk density=1",
    ];
    for (text, workers) in exact.into_iter().flat_map(|text| [1, 2, 3, 6].map(|workers| (text, workers))) {
        let means = means(text, workers, 7);
        for round in 0..7 {
            let expected = model(workers, round);
            for (rank, means) in means.iter().enumerate() {
                let got = &means[round as usize];
                for (x, expected) in got.iter().zip(&expected) {
                    assert!(
                        (f64::from(*x) - expected).abs() < 2e-6,
                        "{text}, {workers} workers, round {round}, rank {rank}: {x}, expected {expected}"
                    );
                }
            }
        }
        assert!(means.iter().all(|other| other == &means[0]), "{text}, {workers} workers: means differ");
    }
}

/// Codecs with a residual: elements that are left out of one round come with a later one.
#[test]
fn lossy_means_are_the_same_bits_everywhere_and_close_over_time() {
    for text in [
        "gradients codec=bf16",
        "gradients topology=ring codec=int8 chunk=8",
        "gradients codec=sign",
        "gradients topology=mesh codec=f16",
        "gradients topology=mesh codec=topk density=0.2",
        "gradients topology=mesh codec=threshold tau=0.0625",
    ] {
        let rounds = 40;
        let means = means(text, 3, rounds);
        assert!(means.iter().all(|other| other == &means[0]), "{text}: means differ");
        // Not in detail: messages are weighted by the examples of their own round. But a mean that is scaled or shifted
        // shows after some rounds.
        let mut worst = 0.0f64;
        for i in 0..LEN {
            let got: f64 = means[0].iter().map(|mean| f64::from(mean[i])).sum();
            let expected: f64 = (0..rounds).map(|round| model(3, round)[i]).sum();
            worst = worst.max((got - expected).abs() / rounds as f64);
        }
        assert!(worst < 0.5, "{text}: off by {worst} a round");
    }
}

/// A program with momentum: its gradient is the distance to a target of its own.
struct Program {
    params: Vec<f32>,
    momentum: Vec<f32>,
}

impl Program {
    fn new(start: f32) -> Self {
        Self { params: vec![start; LEN], momentum: vec![start / 3.0; LEN] }
    }

    fn join<T: Transport + 'static>(&mut self, builder: gradwire::Builder, transport: T) -> Result<Session, Error> {
        builder.optimizer_vectors(1).join_with(transport, &mut self.params, &mut [&mut self.momentum])
    }

    fn apply(params: &mut [f32], momentum: &mut [f32], mean: &[f32]) {
        for ((p, m), g) in params.iter_mut().zip(momentum).zip(mean) {
            *m = 0.9 * *m + g;
            *p -= 0.03 * *m;
        }
    }

    /// Takes part in rounds up to round `until`. Returns how often the state was replaced.
    fn steps(&mut self, session: &mut Session, rank: u32, until: u64) -> Result<u32, Error> {
        let mut adopted = 0;
        while session.rounds() < until {
            let target = |i: usize| ((i as u32 + rank) % 5) as f32 - 1.5 * rank as f32;
            let mut vector: Vec<f32> = self.params.iter().enumerate().map(|(i, p)| p - target(i)).collect();
            match session.mean(&mut vector, 1 + rank, &mut self.params, &mut [&mut self.momentum])? {
                Mean::Given => Self::apply(&mut self.params, &mut self.momentum, &vector),
                Mean::Adopted => adopted += 1,
            }
        }
        Ok(adopted)
    }

    fn finish(mut self, session: Session) -> Result<(Vec<f32>, Vec<f32>), Error> {
        session.finish_with(&mut self.params, &mut [&mut self.momentum], |params, state, mean, _| {
            Self::apply(params, state[0], mean);
        })?;
        Ok((self.params, self.momentum))
    }
}

/// A new process of a lost worker gets parameters and optimizer state. All end with the same bits, and one that finishes
/// early applies the means of the rest.
#[test]
fn a_worker_that_comes_back_gets_the_state_of_the_optimizer() {
    for text in ["gradients", "gradients topology=ring", "gradients topology=mesh codec=topk density=0.5"] {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dead_after = Duration::from_millis(1000);
        let open = move |rank| {
            gradwire_tcp::Builder::new(rank, 3, &format!("127.0.0.1:{port}")).dead_after(dead_after).open().unwrap()
        };
        let is_back = Arc::new(AtomicBool::new(false));
        let worker = |rank: u32| {
            let is_back = Arc::clone(&is_back);
            thread::spawn(move || {
                let mut program = Program::new(0.5);
                let mut session = program.join(builder(recipe(text), 3), open(rank)).unwrap();
                let mut until = 6;
                // Goes on until the lost worker is back, and then for some rounds.
                while !is_back.load(Relaxed) {
                    program.steps(&mut session, rank, until).unwrap();
                    until = session.rounds() + 1;
                    thread::sleep(Duration::from_millis(5));
                }
                program.steps(&mut session, rank, until + 4 + 3 * u64::from(rank)).unwrap();
                program.finish(session).unwrap()
            })
        };
        let rest = [worker(0), worker(1)];
        let mut program = Program::new(0.5);
        let mut session = program.join(builder(recipe(text), 3), open(2)).unwrap();
        program.steps(&mut session, 2, 5).unwrap();
        drop(session);
        // With parameters that must not count.
        let mut program = Program::new(-100.0);
        let mut session = program.join(builder(recipe(text), 3), open(2)).unwrap();
        assert!(session.rounds() >= 5 && program.params[0].abs() < 50.0, "{text}: {:?}", program.params);
        assert!(program.momentum[0].abs() < 30.0, "{text}: {:?}", program.momentum);
        let from = session.rounds();
        program.steps(&mut session, 2, from + 2).unwrap();
        is_back.store(true, Relaxed);
        let last = program.finish(session).unwrap();
        for (rank, other) in rest.into_iter().enumerate() {
            assert_eq!(other.join().unwrap(), last, "{text}: worker {rank} differs from the one that came back");
        }
    }
}

/// A checkpoint holds parameters and optimizer state after a step. Going on from it is bitwise the uninterrupted run.
#[test]
fn a_resumed_run_is_the_uninterrupted_one() {
    let directory = std::env::temp_dir().join(format!("gradwire-gradients-{}", std::process::id()));
    let run = |until: u64, resume: bool, save: bool, directory: &std::path::Path| {
        let threads = (0..).zip(Mem::cluster(3)).map(|(rank, transport)| {
            let directory = directory.to_path_buf();
            thread::spawn(move || {
                let mut program = Program::new(if resume { -7.0 } else { 0.5 });
                let builder = builder(recipe("gradients codec=int8"), 3)
                    .run(RunId::from_text("gradients").unwrap())
                    .optimizer_vectors(1);
                let (params, state) = (&mut program.params, &mut [&mut program.momentum[..]]);
                let mut session = match resume {
                    true => builder.resume(&directory, transport, params, state).unwrap(),
                    false => builder.join_with(transport, params, state).unwrap(),
                };
                program.steps(&mut session, rank, until).unwrap();
                if save {
                    assert!(session.checkpoint(&directory, &program.params, &[&program.momentum]).unwrap());
                }
                program.finish(session).unwrap()
            })
        });
        threads.collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    };
    let whole = run(12, false, false, &directory);
    run(5, false, true, &directory);
    assert_eq!(run(12, true, false, &directory), whole);
    // A worker that has lost its checkpoint takes the state of the other workers, moments included. With its residual
    // it loses the unsent part of its gradients.
    let own = std::fs::read_dir(directory.join("gradients")).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_dir_all(own).unwrap();
    let ends = run(12, true, false, &directory);
    assert!(ends.iter().all(|end| end == &ends[0]));
    assert!(ends[0].0.iter().zip(&whole[0].0).all(|(a, b)| (a - b).abs() < 0.2), "{ends:?}, {whole:?}");
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn wrong_calls_are_named() {
    let open = |recipe: Recipe| {
        let mut params = vec![0.0; LEN];
        (builder(recipe, 1).join(Mem::cluster(1).pop().unwrap(), &mut params).unwrap(), params)
    };
    let (mut session, mut params) = open(recipe("gradients"));
    let error = session.step(&mut params, &[0.0; LEN], 1).unwrap_err();
    assert!(
        error.to_string().starts_with("step: expected a recipe with payload=updates or parameters, got "),
        "{error}"
    );
    let error = session.sync(&mut params, 1).unwrap_err();
    assert!(error.to_string().starts_with("sync: expected a recipe with payload=updates or parameters"), "{error}");
    let error = session.mean(&mut [0.0; 2], 1, &mut params, &mut []).unwrap_err();
    assert_eq!(error.to_string(), format!("gradient: expected {LEN} floats, got 2"));
    let mut bad = vec![0.0; LEN];
    bad[3] = f32::NAN;
    let error = session.mean(&mut bad, 1, &mut params, &mut []).unwrap_err();
    assert!(error.to_string().starts_with("gradient: expected finite floats, got NaN at index 3"), "{error}");
    let error = session.mean(&mut [0.0; LEN], 1, &mut params, &mut [&mut [0.0; LEN]]).unwrap_err();
    assert_eq!(error.to_string(), "optimizer vectors: expected 0, got 1");
    // No wrong call has ended the session. Without examples, the vector is not read.
    assert_eq!(session.mean(&mut bad, 0, &mut params, &mut []).unwrap(), Mean::Given);
    assert_eq!(bad, [0.0; LEN]);
    session.finish(&mut params).unwrap();
    let (mut session, mut params) = open(Recipe::sync());
    let error = session.mean(&mut [0.0; LEN], 1, &mut params, &mut []).unwrap_err();
    assert!(
        error.to_string().starts_with("mean: expected a recipe with payload=gradients, got payload=updates"),
        "{error}"
    );
    let builder = builder(recipe("gradients"), 1).optimizer_vectors(2);
    let error = builder.join(Mem::cluster(1).pop().unwrap(), &mut params).unwrap_err();
    assert_eq!(error.to_string(), "optimizer vectors: expected 2, got 0");
}

/// `finish` cannot apply means. A worker that finishes before the other workers announces it, and they go on without
/// it.
#[test]
fn a_worker_that_finishes_early_without_a_step_to_take_fails() {
    let train = |(rank, transport): (u64, Mem)| {
        thread::spawn(move || {
            let mut params = vec![0.0; LEN];
            let mut session = builder(recipe("gradients"), 2).join(transport, &mut params).unwrap();
            while session.rounds() < 5 - 2 * rank {
                let _ = session.mean(&mut [1.0; LEN], 1, &mut params, &mut [])?;
            }
            session.finish(&mut params)
        })
    };
    let threads: Vec<_> = (0..).zip(Mem::cluster(2)).map(train).collect();
    let ends: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert!(matches!(ends[1], Err(Error::FinishedEarly { round: 4 })), "{:?}", ends[1]);
    assert!(ends[0].is_ok(), "{:?}", ends[0]);
}
