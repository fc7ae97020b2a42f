//! Steps of a ring over a link with a long delay, in virtual time: the machines, and a network with a rate and a delay.

use gradwire_core::{Cluster, Duration, Layout, PeerId, Recipe};
use gradwire_sim::{App, Halt, Network, Plan, World};

/// One way.
const DELAY: Duration = Duration::from_millis(50);

struct Worker;

impl App for Worker {
    fn duration(&mut self, _step: u64) -> Duration {
        Duration::ZERO
    }

    fn update(&mut self, _step: u64, _params: &[f32], update: &mut [f32]) -> u32 {
        update.fill(1.0 / 1024.0);
        1
    }
}

/// Prints a table: for each rate, the time of the later steps with windows that begin at so many bytes.
pub(crate) fn tables(floats: usize, steps: u64) {
    println!("| 2 processes, {:.1} MB, 50 ms one way | link ms | 256 KiB | 8 MiB | no limit |", floats as f64 * 4e-6);
    println!("|---|---|---|---|---|");
    for mbit in [100, 1000] {
        let bandwidth = mbit * 125_000;
        // Each direction carries half of the parts and half of the results.
        let link = floats as f64 * 4e3 / bandwidth as f64;
        let times = [256 << 10, 8 << 20, u32::MAX].map(|under_way| step(floats, steps, bandwidth, under_way));
        let [one, eight, all] = times.map(|time| format!("{:.0}", time * 1e3));
        println!("| {mbit} Mbit/s | {link:.0} | {one} | {eight} | {all} |");
    }
}

/// Mean time of a step in seconds, over the second half of the steps.
fn step(floats: usize, steps: u64, bandwidth: u64, under_way: u32) -> f64 {
    let network = Network { latency: DELAY, bandwidth, buffered: true, ..Network::calm() };
    let recipe: Recipe = "sync topology=ring".parse().unwrap();
    let cluster = Cluster { workers: 2, servers: 0 };
    let plan = Plan { network, under_way, steps, ..Plan::new(1, Layout::flat(floats), recipe, cluster) };
    let mut world = World::new(plan, |_| Box::new(Worker)).unwrap();
    let (mut half, mut end) = (None, 0.0);
    let run: Result<(), Halt> = world.run(10_000_000, |world, _| {
        let (now, done) = (world.now().as_nanos() as f64 * 1e-9, world.steps(PeerId(0)));
        if done >= steps / 2 {
            half.get_or_insert((now, done));
        }
        if done < steps {
            end = now;
        }
        Ok(())
    });
    run.unwrap();
    let (begun, done) = half.unwrap();
    (end - begun) / (steps - done) as f64
}
