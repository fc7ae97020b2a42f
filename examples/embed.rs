//! A minimal program with gradwire: two workers fit a line. Each worker has one half of the points.

use gradwire::{Cluster, Layout, Mem, Recipe, Session};

fn main() -> Result<(), gradwire::Error> {
    let cluster = Cluster { workers: 2, servers: 0 };
    let threads: Vec<_> = Mem::cluster(cluster.nodes())
        .into_iter()
        .enumerate()
        .map(|(rank, transport)| std::thread::spawn(move || train(rank, transport, cluster)))
        .collect();
    for thread in threads {
        let params = thread.join().expect("the worker thread does not panic")?;
        println!("y = {:.3} x + {:.3}", params[0], params[1]);
    }
    Ok(())
}

fn train(rank: usize, transport: Mem, cluster: Cluster) -> Result<Vec<f32>, gradwire::Error> {
    // All points are on y = 2 x + 1. Worker 0 has the points with x < 0, worker 1 the points with x > 0.
    let side = if rank == 0 { -1.0 } else { 1.0 };
    let points: Vec<(f32, f32)> = (1..=10).map(|i| side * i as f32 / 10.0).map(|x| (x, 2.0 * x + 1.0)).collect();

    // The parameters are one flat vector. The layout names its parts, for messages.
    let layout = Layout::new().tensor("slope", &[1]).tensor("offset", &[1]);
    let mut params = vec![0.0; layout.len()];
    let mut session = Session::builder(layout, Recipe::sync(), cluster).join(transport, &mut params)?;
    // After `join`, both workers have the same parameters.
    for _ in 0..200 {
        let mut update = [0.0; 2];
        for (x, y) in &points {
            let error = params[0] * x + params[1] - y;
            update[0] += 0.5 * error * x / points.len() as f32;
            update[1] += 0.5 * error / points.len() as f32;
        }
        // Subtracts the mean of both workers' updates from the parameters.
        session.step(&mut params, &update, points.len() as u32)?;
    }
    session.finish(&mut params)?;
    Ok(params)
}
