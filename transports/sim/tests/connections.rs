//! Which nodes the simulator connects: in trees and rings, each with the coordinator and with its neighbours.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use gradwire_core::{Cluster, Duration, Event, Instant, Layout, Patience, PeerId};
use gradwire_sim::{App, Entry, Fault, Halt, Life, Plan, World};

/// Steps of 10 ms, which subtract 1 from each parameter.
struct Descent;

impl App for Descent {
    fn duration(&mut self, _step: u64) -> Duration {
        Duration::from_millis(10)
    }

    fn update(&mut self, _step: u64, _params: &[f32], update: &mut [f32]) -> u32 {
        update.fill(1.0);
        32
    }
}

const STEPS: u64 = 5;

fn world(recipe: &str, workers: u32, change: impl FnOnce(Plan) -> Plan) -> World {
    let (recipe, cluster) = (recipe.parse().unwrap(), Cluster { workers, servers: 0 });
    let plan = Plan { steps: STEPS, ..Plan::new(1, Layout::flat(4), recipe, cluster) };
    World::new(change(plan), |_| Box::new(Descent)).unwrap()
}

/// Runs to the end. Returns the most connections of each node at any time.
fn run(world: &mut World, workers: u32) -> Vec<usize> {
    let mut most = vec![0; workers as usize];
    let ended = world.run(10_000_000, |world, node| {
        most[node.index()] = world.connected(node).count().max(most[node.index()]);
        Ok::<(), Halt>(())
    });
    ended.unwrap();
    most
}

#[test]
fn a_node_of_a_tree_of_1000_is_connected_with_its_neighbours_and_the_coordinator() {
    for recipe in ["sync topology=tree fan_in=1", "sync topology=tree fan_in=2", "sync topology=ring"] {
        let mut world = world(recipe, 1000, |plan| plan);
        let most = run(&mut world, 1000);
        assert_eq!(most[0], 999, "{recipe}: the coordinator is connected with all");
        // A parent, two children and the coordinator.
        assert!(most[1..].iter().all(|most| *most <= 4), "{recipe}: {:?}", most[1..].iter().max());
        // Each connection of a tree has two ends.
        let sum: usize = most[1..].iter().sum();
        assert!(sum <= 3 * 999, "{recipe}: {sum} connections of 999 nodes");
        assert!((0..1000).all(|rank| world.params(PeerId(rank)) == [-(STEPS as f32); 4]), "{recipe}");
    }
}

/// With all connections and with few, runs have the same results.
#[test]
fn results_do_not_depend_on_the_connections() {
    for recipe in ["sync topology=tree fan_in=3", "sync topology=ring", "sync merge=adasum", "sync codec=int8"] {
        let [few, all] = [true, false].map(|on_demand| {
            let mut world = world(recipe, 9, |plan| Plan { on_demand, ..plan });
            let most = run(&mut world, 9);
            let params: Vec<Vec<f32>> = (0..9).map(|rank| world.params(PeerId(rank)).to_vec()).collect();
            (most, params)
        });
        assert_eq!(few.1, all.1, "{recipe}");
        assert_eq!(all.0, [8; 9], "{recipe}");
        assert!(few.0[8] < 8, "{recipe}: {:?}", few.0);
    }
}

/// Node 3 of a chain is killed. Nodes 2 and 4 have to meet, and end with the rest.
#[test]
fn the_neighbours_of_a_lost_node_are_connected_with_each_other() {
    let killed = Instant::from_nanos(25_000_000);
    let mut world = world("sync topology=tree fan_in=1", 6, |plan| Plan {
        patience: Patience::new(Duration::from_millis(50)),
        faults: vec![(killed, Fault::Crash { node: PeerId(3), restart: None })],
        ..plan
    });
    let met = |world: &World, a: u32, b: u32| world.connected(PeerId(a)).any(|peer| peer == PeerId(b));
    let (mut before, mut after) = (false, false);
    let ended = world.run(1_000_000, |world, _| {
        before |= world.now() < killed && met(world, 2, 4);
        after |= world.now() > killed && met(world, 2, 4) && !met(world, 2, 3);
        Ok::<(), Halt>(())
    });
    assert_eq!((ended, before, after), (Ok(()), false, true));
    for rank in [0, 1, 2, 4, 5] {
        assert_eq!(world.life(PeerId(rank)), Life::Done, "{rank}");
        assert_eq!(world.params(PeerId(rank)), world.params(PeerId(0)), "{rank}");
    }
    // The coordinator and the two neighbours have given it up. The other nodes have not met it, and have been told.
    let mut lost: Vec<u32> = world
        .log()
        .iter()
        .filter_map(|log| match log.entry {
            Entry::Event(Event::PeerLost { peer: PeerId(3) }) => Some(log.node.0),
            _ => None,
        })
        .collect();
    lost.sort_unstable();
    assert_eq!(lost, [0, 1, 2, 4, 5]);
}

/// Node 3 of a chain comes back. Nodes 2 and 4 are neighbours only while it is away.
#[test]
fn a_connection_that_neither_node_wants_is_closed() {
    let killed = Instant::from_nanos(25_000_000);
    let mut world = world("sync topology=tree fan_in=1", 6, |plan| Plan {
        patience: Patience::new(Duration::from_millis(50)),
        faults: vec![(killed, Fault::Crash { node: PeerId(3), restart: Some(Duration::from_millis(150)) })],
        steps: 60,
        ..plan
    });
    let mut met = false;
    let is_met = |world: &World| world.connected(PeerId(2)).any(|peer| peer == PeerId(4));
    let ended = world.run(1_000_000, |world, _| {
        met |= is_met(world);
        Ok::<(), Halt>(())
    });
    assert_eq!((ended, met, is_met(&world)), (Ok(()), true, false));
    assert!((0..6).all(|rank| world.life(PeerId(rank)) == Life::Done));
    // The end of that connection is no loss.
    let lost = |log: &gradwire_sim::Log| match log.entry {
        Entry::Event(Event::PeerLost { peer }) => Some(peer),
        _ => None,
    };
    assert!(world.log().iter().filter_map(lost).all(|peer| peer == PeerId(3)));
}

/// Nodes 1 and 2 of a chain cannot reach each other from before the start, though the coordinator reaches both. One of
/// them is left out until they have met.
#[test]
fn neighbours_that_cannot_meet_do_not_hold_up_the_run_and_meet_later() {
    let silence = |from, to| Fault::Silence { from: PeerId(from), to: PeerId(to), lasts: Duration::from_millis(200) };
    let mut world = world("sync topology=tree fan_in=1", 4, |plan| Plan {
        patience: Patience::new(Duration::from_millis(50)),
        steps: 100,
        faults: vec![(Instant::ORIGIN, silence(1, 2)), (Instant::ORIGIN, silence(2, 1))],
        ..plan
    });
    let mut early = 0;
    let ended = world.run(1_000_000, |world, _| {
        if world.now() < Instant::from_nanos(190_000_000) {
            early = early.max(world.steps(PeerId(0)));
        }
        Ok::<(), Halt>(())
    });
    assert_eq!(ended, Ok(()));
    assert!(early > 3, "{early} steps before the two have met");
    assert!((0..4).all(|rank| world.life(PeerId(rank)) == Life::Done));
    assert!((0..4).all(|rank| world.params(PeerId(rank)) == world.params(PeerId(0))));
    let views: Vec<u32> = world
        .log()
        .iter()
        .filter_map(|log| match log.entry {
            Entry::Event(Event::View { members, .. }) if log.node == PeerId(0) => Some(members),
            _ => None,
        })
        .collect();
    assert_eq!(views, [4, 3, 4]);
}
