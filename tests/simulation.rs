//! A simulated run and real sessions over threads end with the same parameters, where a recipe has rounds.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::thread;
use std::time::Duration;

use gradwire::{Cluster, Layout, Mem, PeerId, Recipe, Session};
use gradwire_sim::simulation::{End, InPlace, Learner, Links, MBIT, Random, Simulation, Speed, Step, Worker};

const STEPS: u64 = 17;
const WORKERS: u32 = 3;

fn layout() -> Layout {
    Layout::new().tensor("one", &[5, 3]).tensor("two", &[4])
}

fn initial() -> Vec<f32> {
    (0..layout().len()).map(|i| (i as f32).sin()).collect()
}

/// Updates that depend on the parameters, the worker and the step, and batches of several sizes.
struct Program(Random);

impl Program {
    fn of(rank: u32) -> Self {
        Self(Random::new(5, u64::from(rank)))
    }
}

impl Learner for Program {
    fn step(&mut self, params: &[f32], update: &mut [f32]) -> Step {
        for (update, x) in update.iter_mut().zip(params) {
            *update = 0.07 * (x - 0.3) + 0.02 * (self.0.unit() as f32 - 0.5);
        }
        Step::of(1 + self.0.below(6) as u32)
    }
}

fn cluster(recipe: Recipe, servers: u32) -> Cluster {
    Cluster { workers: WORKERS, servers: if recipe.needs_servers() { servers } else { 0 } }
}

fn simulated<L: Learner + 'static>(recipe: Recipe, servers: u32, learner: impl Fn(&Worker) -> L) -> Vec<f32> {
    // Speeds and links have no influence on a recipe with rounds.
    let outcome = Simulation::new(layout(), recipe, cluster(recipe, servers))
        .initial(initial())
        .speed(Speed::constant(Duration::from_millis(10)).exponential())
        .speed_of(PeerId(1), Speed::constant(Duration::from_millis(70)))
        .links(Links::new(Duration::from_millis(2)).bandwidth(MBIT).jitter(Duration::from_millis(3)))
        .steps(STEPS)
        .run(learner)
        .unwrap();
    assert_eq!(outcome.end, End::Steps);
    outcome.params
}

fn real(recipe: Recipe, servers: u32, step: fn(&mut Session, &mut Program, &mut [f32])) -> Vec<f32> {
    let cluster = cluster(recipe, servers);
    let transports = (0..).zip(Mem::cluster(cluster.nodes()));
    let nodes: Vec<_> = transports
        .map(|(rank, transport)| {
            thread::spawn(move || {
                let (builder, mut params) = (Session::builder(layout(), recipe, cluster), initial());
                if !cluster.is_worker(PeerId(rank)) {
                    let mut server = builder.serve(transport, &params).unwrap();
                    while server.wait(&mut params, Duration::from_millis(50)).unwrap() == gradwire::RunState::Running {}
                    return params;
                }
                let (mut session, mut program) = (builder.join(transport, &mut params).unwrap(), Program::of(rank));
                for _ in 0..STEPS {
                    step(&mut session, &mut program, &mut params);
                }
                session.finish(&mut params).unwrap();
                params
            })
        })
        .collect();
    let ends: Vec<Vec<f32>> = nodes.into_iter().map(|node| node.join().unwrap()).collect();
    assert!(ends[..WORKERS as usize].iter().all(|end| *end == ends[0]), "{recipe}");
    ends.into_iter().next().unwrap()
}

fn bits(params: &[f32]) -> Vec<u32> {
    params.iter().map(|x| x.to_bits()).collect()
}

/// Recipes with rounds, and their server nodes.
const RULES: [(&str, u32); 13] = [
    ("sync", 0),
    ("sync topology=ring chunk=4", 0),
    ("sync topology=tree fan_in=3 period=4", 0),
    ("averaging period=5", 0),
    ("averaging topology=servers period=3", 1),
    ("hardsync", 1),
    ("hardsync shards=2 outer=momentum mu=0.9 rate=0.5", 2),
    ("median", 1),
    ("sparse density=0.3", 0),
    ("ring-int8", 0),
    ("slowmo period=4", 0),
    ("easgd period=2", 1),
    ("hardsync codec=int8 pull=bf16", 1),
];

#[test]
fn a_simulation_ends_as_real_sessions_do() {
    for (text, servers) in RULES {
        let recipe: Recipe = text.parse().unwrap();
        let expected = real(recipe, servers, |session, program, params| {
            let mut update = vec![0.0; params.len()];
            let step = program.step(params, &mut update);
            session.step(params, &update, step.examples).unwrap();
        });
        let got = simulated(recipe, servers, |worker| Program::of(worker.rank.0));
        assert_eq!(bits(&got), bits(&expected), "{text}");
        assert_ne!(bits(&got), bits(&initial()), "{text}");
    }
}

#[test]
fn optimizers_in_place_end_as_real_sessions_do() {
    fn in_place(program: &mut Program, params: &mut [f32]) -> Step {
        let mut update = vec![0.0; params.len()];
        let step = program.step(params, &mut update);
        params.iter_mut().zip(update).for_each(|(param, update)| *param -= 0.9 * update);
        step
    }
    for (text, servers) in RULES {
        let recipe: Recipe = text.parse().unwrap();
        let expected = real(recipe, servers, |session, program, params| {
            let step = in_place(program, params);
            session.sync(params, step.examples).unwrap();
        });
        let got = simulated(recipe, servers, |worker| {
            let mut program = Program::of(worker.rank.0);
            InPlace(move |params: &mut [f32]| in_place(&mut program, params))
        });
        assert_eq!(bits(&got), bits(&expected), "{text}");
    }
}
