//! The example `adam`: workers with Adam equal one worker with the whole batch, over every transport.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../adam.rs"]
mod adam;

use gradwire::{Mem, Recipe};

const STEPS: u64 = 60;

fn recipe(text: &str) -> Recipe {
    text.parse().unwrap()
}

/// All workers end with the same bits. Up to rounding, they end as one worker with the whole batch.
#[track_caller]
fn assert_exact(got: &[Vec<f32>], what: &str) {
    let whole = &adam::run(Mem::cluster(1), recipe("gradients"), STEPS).unwrap()[0];
    for params in got {
        assert_eq!(params, &got[0], "{what}: workers differ");
        for (x, expected) in params.iter().zip(whole) {
            assert!((x - expected).abs() < 1e-4, "{what}: {params:?}, expected {whole:?}");
        }
    }
    assert!(whole[0] > 0.4, "the task is learnt: {whole:?}");
}

#[test]
fn workers_with_adam_equal_one_with_the_whole_batch() {
    for text in
        ["gradients", "gradients fan_in=1 chunk=3", "gradients topology=ring", "gradients topology=ring chunk=2"]
    {
        for workers in [2, 3, 5] {
            let params = adam::run(Mem::cluster(workers), recipe(text), STEPS).unwrap();
            assert_exact(&params, &format!("{text}, {workers} workers"));
        }
    }
    // A mesh sends with a codec: all elements, as floats.
    let params = adam::run(Mem::cluster(3), recipe("gradients topology=mesh codec=topk density=1"), STEPS).unwrap();
    assert_exact(&params, "mesh");
}

#[test]
fn also_over_tcp() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let open = |rank| gradwire::tcp::Builder::new(rank, 3, &format!("127.0.0.1:{port}")).open().unwrap();
    let params = adam::run((0..3).map(open).collect(), recipe("gradients"), STEPS).unwrap();
    assert_exact(&params, "tcp");
}

#[cfg(target_os = "linux")]
#[test]
fn also_over_shared_memory() {
    let directory = std::env::temp_dir().join(format!("gradwire-adam-{}", std::process::id()));
    // Shared memory takes no directory to which other users have access.
    std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700).create(&directory).unwrap();
    let open = |rank| gradwire::shm::Builder::new(rank, 3).directory(&directory).open().unwrap();
    let params = adam::run((0..3).map(open).collect(), recipe("gradients topology=ring"), STEPS);
    std::fs::remove_dir_all(&directory).unwrap();
    assert_exact(&params.unwrap(), "shm");
}
