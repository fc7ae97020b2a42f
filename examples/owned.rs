//! A worker whose vectors the session owns: nothing is copied in, and trees and rings copy nothing out. Two workers fit a
//! line, as in `embed.rs`.

use gradwire::{Cluster, Layout, Mem, Recipe, Session};

fn main() -> Result<(), gradwire::Error> {
    let cluster = Cluster { workers: 2, servers: 0 };
    let threads: Vec<_> = Mem::cluster(cluster.nodes())
        .into_iter()
        .zip([-1.0, 1.0])
        .map(|(transport, side)| std::thread::spawn(move || train(side, transport, cluster)))
        .collect();
    for thread in threads {
        let [slope, offset] = thread.join().expect("the worker thread does not panic")?;
        println!("y = {slope:.3} x + {offset:.3}");
    }
    Ok(())
}

fn train(side: f32, transport: Mem, cluster: Cluster) -> Result<[f32; 2], gradwire::Error> {
    // All points are on y = 2 x + 1. Worker 0 has the points with x < 0, worker 1 the points with x > 0.
    let points: Vec<(f32, f32)> = (1..=10).map(|i| side * i as f32 / 10.0).map(|x| (x, 2.0 * x + 1.0)).collect();
    let layout = Layout::new().tensor("slope", &[1]).tensor("offset", &[1]);
    let initial = vec![0.0; layout.len()];
    let mut session = Session::builder(layout, Recipe::sync(), cluster).join_owned(transport, &initial)?;
    for _ in 0..200 {
        // The parameters to read, and the vector to write the update to. Both are the session's.
        let (params, update) = session.update_mut()?;
        update.fill(0.0);
        for (x, y) in &points {
            let error = params[0] * x + params[1] - y;
            update[0] += 0.5 * error * x / points.len() as f32;
            update[1] += 0.5 * error / points.len() as f32;
        }
        session.step(points.len() as u32)?;
    }
    session.finish()?;
    Ok([session.params()[0], session.params()[1]])
}
