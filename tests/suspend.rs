//! Runs that are suspended and resumed: no contribution is lost, and no contribution is counted twice.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use gradwire::checkpoint::{Checkpoint, CheckpointError};
use gradwire::{Cluster, Error, Layout, Mem, Recipe, RunId, RunState, Session};

const LEN: usize = 40;
const WORKERS: u32 = 3;

fn run() -> RunId {
    "suspended".parse().unwrap()
}

fn layout() -> Layout {
    Layout::new().tensor("dense.weight", &[3, 10]).tensor("dense.bias", &[10])
}

fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("gradwire-suspend-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    path
}

/// A pseudo-random multiple of 2^-10. Most values are below the recipes' thresholds, so that residuals are not empty.
fn update(rank: u32, step: u64, i: usize) -> f32 {
    let mixed = (u64::from(rank) * 31 + step * 7 + i as u64 * 13).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58;
    mixed as f32 / 1024.0 - 24.0 / 1024.0
}

/// Each worker's parameters and residual norm at the end of a leg.
type Leg = Vec<Result<(Vec<f32>, f64), Error>>;

/// Runs `steps` steps from where the leg before was suspended; `first`: from the start. Then suspends the run; `last`:
/// finishes it.
fn leg(recipe: Recipe, directory: &Path, first: bool, steps: u64, last: bool) -> Leg {
    let cluster = Cluster { workers: WORKERS, servers: u32::from(recipe.needs_servers()) };
    let (mut threads, mut servers) = (Vec::new(), Vec::new());
    for (rank, transport) in (0..).zip(Mem::cluster(cluster.nodes())) {
        let builder = Session::builder(layout(), recipe, cluster).run(run()).deadline(Duration::from_secs(20));
        if rank >= WORKERS {
            let server = if first {
                builder.serve(transport, &[0.0; LEN])
            } else {
                builder.resume_serving(directory, transport, &[0.0; LEN])
            };
            servers.push(server.unwrap());
            continue;
        }
        let directory = directory.to_path_buf();
        threads.push(thread::spawn(move || {
            let mut params = vec![0.0; LEN];
            let mut session = if first {
                builder.join(transport, &mut params)?
            } else {
                builder.resume(&directory, transport, &mut params, &mut [])?
            };
            assert!(!session.is_outdated());
            for step in session.steps()..session.steps() + steps {
                let update: Vec<f32> = (0..LEN).map(|i| update(rank, step, i)).collect();
                session.step(&mut params, &update, 8)?;
            }
            let status =
                if last { session.finish(&mut params)? } else { session.suspend(&directory, &mut params, &[])? };
            Ok((params, status.residual_norm))
        }));
    }
    let results = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    for mut server in servers {
        let mut params = vec![0.0; LEN];
        if server.wait(&mut params, Duration::from_secs(20)).is_ok_and(|state| state == RunState::Ended) {
            assert!(server.checkpoint(directory, &params).unwrap());
        }
    }
    results
}

/// The centre of centred clipping goes on from where it was.
#[test]
fn the_centre_of_a_merge_goes_with_the_checkpoint() {
    let recipe: Recipe = "hardsync merge=centred-clip radius=0.01".parse().unwrap();
    let directory = scratch("centre");
    let bits = |leg: Leg| -> Vec<Vec<u32>> {
        leg.into_iter().map(|end| end.unwrap().0.iter().map(|x| x.to_bits()).collect()).collect()
    };
    drop(bits(leg(recipe, &directory, true, 3, false)));
    let resumed = bits(leg(recipe, &directory, false, 4, true));
    assert_eq!(resumed, bits(leg(recipe, &directory, true, 7, true)));
    std::fs::remove_dir_all(directory).unwrap();
}

fn recipes() -> Vec<Recipe> {
    let texts = [
        "async lambda=1",
        "softsync updates=2 staleness=const",
        "ssp bound=2 lambda=1",
        "hardsync",
        "async lambda=1 codec=threshold tau=0.03125 end=send",
        "async lambda=1 codec=threshold tau=0.03125 pull=threshold end=send",
        "ssp bound=2 lambda=1 codec=threshold tau=0.03125 shards=2 end=send",
        "strom tau=0.03125 lambda=1 end=send",
        "strom tau=0.03125 lambda=1 end=send control=density density=0.05 warmup=2",
        "strom tau=0.03125 lambda=1 end=send relay=1",
    ];
    texts.iter().map(|text| text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))).collect()
}

/// The contributions are small multiples of 2^-10, so floats add them exactly: the final parameters are minus their
/// sum, bit for bit.
#[test]
fn final_parameters_are_the_sum_of_all_contributions() {
    // Even numbers: softsync merges pairs, and half a pair at a suspension would be weighted differently.
    const STEPS: [u64; 3] = [4, 2, 6];
    for recipe in recipes() {
        let directory = scratch("exact");
        let mut residuals = 0.0;
        for (index, steps) in STEPS.into_iter().enumerate() {
            let last = index == STEPS.len() - 1;
            let ends: Vec<_> =
                leg(recipe, &directory, index == 0, steps, last).into_iter().map(Result::unwrap).collect();
            assert!(ends.iter().all(|(params, _)| *params == ends[0].0), "{recipe}: leg {index}");
            residuals += ends.iter().map(|(_, norm)| norm).sum::<f64>();
            if !last {
                continue;
            }
            let made = STEPS.iter().sum();
            let scale = if recipe.to_string().contains("merge=softsync") { 0.5 } else { 1.0 };
            let mean = if recipe.is_synchronous() { 1.0 / WORKERS as f32 } else { scale };
            for (i, got) in ends[0].0.iter().enumerate() {
                let steps = || (0..WORKERS).flat_map(|rank| (0..made).map(move |step| (rank, step)));
                let sum: f32 = steps().map(|(rank, step)| update(rank, step, i)).sum();
                let near = if recipe.is_synchronous() { 1e-5 } else { 0.0 };
                assert!((got + mean * sum).abs() <= near, "{recipe}: element {i}: {got}, expected {}", -mean * sum);
            }
        }
        assert_eq!(residuals > 0.0, recipe.to_string().contains("tau="), "{recipe}: {residuals}");
        std::fs::remove_dir_all(directory).unwrap();
    }
}

/// Checkpoints count from the start of the run, and not from the last resumption.
#[test]
fn a_resumed_run_counts_on() {
    let directory = scratch("counts");
    let recipe: Recipe = "async lambda=1 codec=threshold tau=0.03125".parse().unwrap();
    for (leg_number, steps) in [(0, 4), (1, 2), (2, 3)] {
        leg(recipe, &directory, leg_number == 0, steps, false).into_iter().for_each(|end| drop(end.unwrap()));
    }
    for rank in 0..WORKERS {
        let (checkpoint, _) = Checkpoint::newest(&directory, run(), rank).unwrap();
        assert_eq!((checkpoint.clock, checkpoint.steps, checkpoint.contributions), (3, 9, 9), "rank {rank}");
    }
    std::fs::remove_dir_all(directory).unwrap();
}

/// A run that begins anew under a name that has checkpoints must not be resumed later from these old checkpoints.
#[test]
fn a_new_beginning_sets_older_checkpoints_aside() {
    let directory = scratch("anew");
    let recipe: Recipe = "async lambda=1".parse().unwrap();
    for (first, steps) in [(true, 4), (false, 2), (true, 3)] {
        leg(recipe, &directory, first, steps, false).into_iter().for_each(|end| drop(end.unwrap()));
    }
    for rank in 0..WORKERS {
        let (checkpoint, _) = Checkpoint::newest(&directory, run(), rank).unwrap();
        assert_eq!((checkpoint.clock, checkpoint.steps), (1, 3), "rank {rank}");
    }
    std::fs::remove_dir_all(directory).unwrap();
}

/// A checkpoint with machine buffers that do not fit the recipe is refused before the node takes part.
#[test]
fn a_checkpoint_without_its_residual_is_refused() {
    let recipe: Recipe = "strom tau=0.03125".parse().unwrap();
    let directory = scratch("buffers");
    leg(recipe, &directory, true, 3, false).into_iter().for_each(|end| drop(end.unwrap()));
    let mut buffers = 0;
    for rank in 0..WORKERS {
        let (mut checkpoint, _) = Checkpoint::newest(&directory, run(), rank).unwrap();
        buffers = checkpoint.saved.len();
        assert!(buffers > 0);
        checkpoint.saved.clear();
        checkpoint.write(&directory).unwrap();
    }
    let mut refused = 0;
    for end in leg(recipe, &directory, false, 3, false) {
        match end {
            Err(Error::Checkpoint(CheckpointError::SavedBuffers { expected, got, .. })) => {
                assert_eq!((expected, got), (buffers, 0));
                refused += 1;
            }
            // The other nodes had left before this one had heard of the moment.
            Err(Error::Deadline(_)) => {}
            end => panic!("{end:?}"),
        }
    }
    assert!(refused > 0);
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_collective_refuses_to_suspend() {
    let directory = scratch("kinds");
    let ends = leg(Recipe::sync(), &directory, true, 1, false);
    for end in ends {
        let error = end.unwrap_err().to_string();
        assert!(error.starts_with("suspend: expected a recipe with servers or a mesh"), "{error}");
    }
}
