//! Suspended and resumed runs, and quorums, in the simulator: the machines that ship, with exact contributions.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::sync::{Arc, Mutex};

use gradwire_core::recipe::{Codec, Control, Pace, Threshold, TopK, Topology};
use gradwire_core::{Cluster, Duration, Instant, Layout, Patience, PeerId, Recipe};
use gradwire_sim::{App, Fault, Halt, Network, Plan, Random, World};
use harness::{Trainer, Truth};

const WORKERS: u32 = 3;
const LEN: usize = 12;
const TAU: f32 = 16.0 / 1024.0;

/// Runs a plan to its end; contributions are added to `truth`.
fn run(plan: Plan, truth: &Arc<Mutex<Truth>>) -> World {
    let seed = plan.seed;
    let app = |me: PeerId| {
        let trainer = Trainer {
            me,
            workers: WORKERS,
            random: Random::new(seed, 100 + u64::from(me.0)),
            pace: Duration::from_millis(2),
            spread: 0.5,
            own: None,
            sees_own: false,
            lag: None,
            truth: Arc::clone(truth),
        };
        let app: Box<dyn App> = Box::new(trainer);
        app
    };
    let mut world = World::new(plan, app).unwrap();
    world.run(1_000_000, |_, _| Ok::<(), Halt>(())).unwrap();
    world
}

fn plan(seed: u64, recipe: Recipe, servers: u32) -> Plan {
    Plan {
        network: Network::stormy(&mut Random::new(seed, 9)),
        patience: Patience::new(Duration::from_millis(900)),
        steps: 5,
        ..Plan::new(seed, Layout::flat(LEN), recipe, Cluster { workers: WORKERS, servers })
    }
}

/// Suspends a run twice, resumes it each time, and finishes it. Returns the final parameters of each worker.
fn in_three_parts(seed: u64, recipe: Recipe, servers: u32, truth: &Arc<Mutex<Truth>>) -> Vec<Vec<f32>> {
    let mut resumed = Vec::new();
    for part in 0..3 {
        let suspend = part < 2;
        let world = run(Plan { resumed, suspend, ..plan(seed + part, recipe, servers) }, truth);
        let nodes = (0..WORKERS + servers).map(PeerId);
        resumed = if suspend { nodes.map(|node| world.saved(node).unwrap()).collect() } else { Vec::new() };
        if !suspend {
            return (0..WORKERS).map(|worker| world.params(PeerId(worker)).to_vec()).collect();
        }
    }
    unreachable!("the third part ends the run")
}

fn truth() -> Arc<Mutex<Truth>> {
    Arc::new(Mutex::new(Truth { contributed: vec![vec![0; LEN]; WORKERS as usize], ..Truth::default() }))
}

/// Nothing is lost and nothing is applied twice: final parameters are minus the sum of all contributions, residuals included.
#[test]
fn a_run_that_was_suspended_twice_has_applied_every_contribution_once() {
    let servers = Topology::Servers { shards: 2 };
    let threshold = Codec::Threshold(Threshold { control: Control::Density { density: 0.3 }, ..Threshold::fixed(TAU) });
    let asynchronous = Recipe::asynchronous().with_topology(servers);
    let recipes = [
        asynchronous,
        asynchronous.with_pace(Pace::Asynchronous { overlap: true }).with_codec(Codec::Int8),
        asynchronous.with_codec(threshold).with_pull(Codec::TopK(TopK { density: 0.2 })),
        Recipe::ssp(2).with_topology(servers).with_codec(Codec::TopK(TopK { density: 0.1 })),
        Recipe::mesh(TAU),
        Recipe::mesh(TAU).with_codec(threshold),
        Recipe::mesh(TAU).with_topology(Topology::Mesh { relay: 1 }),
    ];
    for (index, recipe) in recipes.into_iter().enumerate() {
        for seed in 0..20 {
            let truth = truth();
            let servers = 2 * u32::from(recipe.needs_servers());
            let params = in_three_parts(1000 * index as u64 + 10 * seed, recipe, servers, &truth);
            let contributed = &truth.lock().unwrap().contributed;
            let expected: Vec<f32> =
                (0..LEN).map(|i| -contributed.iter().map(|of| of[i]).sum::<i64>() as f32 / 1024.0).collect();
            for (worker, params) in params.iter().enumerate() {
                assert_eq!(*params, expected, "worker {worker} of {recipe}, seed {seed}");
            }
        }
    }
}

/// A tree or ring that resumes ends with the same parameters, bit for bit, as one that was never interrupted.
#[test]
fn a_collective_that_resumes_does_what_it_would_have_done() {
    for recipe in [Recipe::sync(), Recipe::averaging(1).with_topology(Topology::Ring), Recipe::averaging(5)] {
        // The contributions of a part depend on its seed and on nothing else.
        let parts = in_three_parts(7, recipe, 0, &truth());
        let mut resumed = Vec::new();
        let mut calm = Vec::new();
        for part in 0..3 {
            let calm_plan = Plan { network: Network::calm(), ..plan(7 + part, recipe, 0) };
            let world = run(Plan { resumed, suspend: true, ..calm_plan }, &truth());
            resumed = (0..WORKERS).map(|node| world.saved(PeerId(node)).unwrap()).collect();
            calm = resumed.iter().map(|saved| saved.params.clone()).collect();
        }
        assert_eq!(parts, calm, "{recipe}");
    }
}

/// A minority does not go on: with a quorum of two, the last of three workers waits for another.
#[test]
fn below_its_quorum_a_collective_waits() {
    let crash = |node| (Instant::from_nanos(5_000_000), Fault::Crash { node: PeerId(node), restart: None });
    for (quorum, crashed, goes_on) in [(1, vec![1, 2], true), (2, vec![2], true), (2, vec![1, 2], false)] {
        let faults = crashed.iter().map(|node| crash(*node)).collect();
        let plan = Plan { quorum, faults, network: Network::calm(), steps: 50, ..plan(3, Recipe::sync(), 0) };
        let truth = truth();
        let app = |me: PeerId| {
            let random = Random::new(3, 100 + u64::from(me.0));
            let (pace, truth) = (Duration::from_millis(2), Arc::clone(&truth));
            let trainer = Trainer {
                me,
                workers: WORKERS,
                random,
                pace,
                spread: 0.0,
                own: None,
                sees_own: false,
                lag: None,
                truth,
            };
            let app: Box<dyn App> = Box::new(trainer);
            app
        };
        let mut world = World::new(plan, app).unwrap();
        let result = world.run(1_000_000, |_, _| Ok::<(), Halt>(()));
        assert_eq!(result.is_ok(), goes_on, "quorum {quorum}, crashed {crashed:?}");
        assert_eq!(world.steps(PeerId(0)) == 50, goes_on);
    }
}
