//! Suspension, resumption and quorums in the simulator: the machines of the library, with contributions that floats add
//! exactly.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::sync::{Arc, Mutex};

use gradwire_core::recipe::{Codec, Control, End, Pace, Threshold, TopK, Topology};
use gradwire_core::{Cluster, Duration, Instant, Layout, Patience, PeerId, Recipe};
use gradwire_sim::{App, Fault, Halt, Network, Plan, Random, World};
use harness::{Trainer, Truth};

const WORKERS: u32 = 3;
const LEN: usize = 12;
const TAU: f32 = 16.0 / 1024.0;

/// The program of each worker, which adds its contributions to `truth`.
fn app(seed: u64, spread: f64, truth: &Arc<Mutex<Truth>>) -> impl Fn(PeerId) -> Box<dyn App> {
    let truth = Arc::clone(truth);
    move |me| Box::new(Trainer::new(seed, me, WORKERS, spread, &truth))
}

/// Runs a plan to its end.
fn run(plan: Plan, truth: &Arc<Mutex<Truth>>) -> World {
    let app = app(plan.seed, 0.5, truth);
    let mut world = World::new(plan, app).unwrap();
    world.run(1_000_000, |_, _| Ok::<(), Halt>(())).unwrap();
    world
}

/// A run of 5 steps per worker over a bad network.
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
    Truth::new(WORKERS, LEN)
}

/// Residuals survive a suspension: the final parameters are minus the sum of all contributions, bit for bit.
#[test]
fn a_run_that_was_suspended_twice_has_applied_every_contribution_once() {
    let servers = Topology::Servers { shards: 2 };
    let threshold = Codec::Threshold(Threshold { control: Control::Density { density: 0.3 }, ..Threshold::fixed(TAU) });
    let asynchronous = Recipe::asynchronous().with_lambda(1.0).with_topology(servers);
    let mesh = Recipe::mesh(TAU).with_lambda(1.0).with_end(End::Send);
    let coded = asynchronous.with_codec(Codec::Int8).with_end(End::Send);
    let recipes = [
        asynchronous,
        coded.with_pace(Pace::Asynchronous { overlap: true }),
        coded.with_codec(threshold).with_pull(Codec::TopK(TopK::all(0.2))),
        coded.with_pace(Pace::Stale { bound: 2 }).with_codec(Codec::TopK(TopK::all(0.1))),
        mesh,
        mesh.with_codec(threshold),
        mesh.with_topology(Topology::Mesh { relay: 1 }),
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

/// A tree or ring that is suspended and resumed over a bad network ends with the same parameters, bit for bit, as over
/// a calm one.
#[test]
fn a_resumed_collective_does_not_depend_on_the_network() {
    for recipe in [Recipe::sync(), Recipe::averaging(1).with_topology(Topology::Ring), Recipe::averaging(5)] {
        // The contributions of a part depend only on its seed, so both runs have the same ones.
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

/// With a quorum of 2, one worker of three does not go on alone.
#[test]
fn a_collective_below_its_quorum_waits() {
    // In the middle of the run: a node that crashes before its first hello is not given up.
    let at = Instant::from_nanos(50_000_000);
    let crash = |node| (at, Fault::Crash { node: PeerId(node), restart: None });
    for (quorum, crashed, goes_on) in [(1, vec![1, 2], true), (2, vec![2], true), (2, vec![1, 2], false)] {
        let faults = crashed.iter().map(|node| crash(*node)).collect();
        let plan = Plan { quorum, faults, network: Network::calm(), steps: 50, ..plan(3, Recipe::sync(), 0) };
        let mut world = World::new(plan, app(3, 0.0, &truth())).unwrap();
        let result = world.run(1_000_000, |_, _| Ok::<(), Halt>(()));
        assert_eq!(result.is_ok(), goes_on, "quorum {quorum}, crashed {crashed:?}");
        assert_eq!(world.steps(PeerId(0)) == 50, goes_on);
    }
}
