//! Sessions with the GPU executor: they end with the parameters of sessions on the CPU, and vectors that the
//! application has on the device are not copied to the host.
//!
//! Without an adapter the tests are skipped, with a message. With `GRADWIRE_REQUIRE_GPU` set they fail instead.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::thread;
use std::time::Duration;

use gradwire::gpu::{Context, Gpu, give, take, wgpu};
use gradwire::{Cluster, Layout, Mem, Recipe, RunState, Session};

const WORKERS: u32 = 3;
const LEN: usize = 5000;

/// The device, or `None` if there is no adapter and the test is to be skipped.
fn context() -> Option<Context> {
    match Context::open() {
        Ok(context) => Some(context),
        Err(error) => {
            assert!(std::env::var_os("GRADWIRE_REQUIRE_GPU").is_none(), "GRADWIRE_REQUIRE_GPU is set, but {error}");
            let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("skipped: {error}\n").as_bytes());
            None
        }
    }
}

/// A pseudo-random multiple of 2^-10, which floats add exactly.
fn update(rank: u32, step: u32, i: usize) -> f32 {
    let mixed = (u64::from(rank * 31 + step * 7) + i as u64 * 13).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58;
    mixed as f32 / 1024.0 - 24.0 / 1024.0
}

/// Runs `train` on every worker, on the device if there is a `context`. Returns the final parameters of each worker.
fn run(
    recipe: Recipe,
    context: Option<&Context>,
    train: impl Fn(u32, &mut Session, &mut [f32]) + Send + Sync + Clone + 'static,
) -> Vec<Vec<f32>> {
    let cluster = Cluster { workers: WORKERS, servers: u32::from(recipe.needs_servers()) };
    let (mut threads, mut servers) = (Vec::new(), Vec::new());
    for (rank, transport) in (0..).zip(Mem::cluster(cluster.nodes())) {
        let mut builder = Session::builder(Layout::flat(LEN), recipe, cluster).deadline(Duration::from_secs(60));
        if let Some(context) = context.cloned() {
            builder = builder.executor(move || Box::new(Gpu::new(context.clone())));
        }
        if rank >= WORKERS {
            servers.push(builder.serve(transport, &[0.0; LEN]).unwrap());
            continue;
        }
        // One worker drives its session by its calls only.
        let builder = if rank == 1 { builder.caller_driven() } else { builder };
        let train = train.clone();
        threads.push(thread::spawn(move || {
            let mut params = vec![0.0; LEN];
            let mut session = builder.join(transport, &mut params).unwrap();
            train(rank, &mut session, &mut params);
            session.finish(&mut params).unwrap();
            params
        }));
    }
    let ends = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    for mut server in servers {
        assert_eq!(server.wait(&mut [0.0; LEN], Duration::from_secs(60)).unwrap(), RunState::Ended);
    }
    ends
}

/// Synchronous runs end with the same parameters on the CPU and on the device, bit for bit, with every codec.
#[test]
fn synchronous_results_on_a_device_equal_those_on_the_cpu() {
    let Some(context) = context() else { return };
    let texts = [
        "sync",
        "sync topology=ring chunk=1000",
        "averaging period=2",
        "hardsync shards=2",
        "hardsync codec=threshold tau=0.015625 pull=threshold",
        "hardsync codec=threshold control=density density=0.01 momentum=0.5 clip=2",
        "hardsync codec=int8 pull=bf16",
        "hardsync codec=sign",
        "hardsync codec=topk density=0.02 pull=f16",
        "ssp bound=0",
        "sync codec=int8",
        "sync topology=ring codec=bf16 chunk=1000",
        "sync topology=ring codec=sign",
        "sparse density=0.02 momentum=0.5",
        "sync topology=mesh codec=threshold density=0.02 momentum=0.5 clip_norm=0.5",
        "sync topology=mesh codec=f16",
    ];
    for text in texts {
        let recipe: Recipe = text.parse().unwrap();
        let train = |rank: u32, session: &mut Session, params: &mut [f32]| {
            for step in 0..6 {
                let update: Vec<f32> = (0..LEN).map(|i| update(rank, step, i) * 0.37).collect();
                session.step(params, &update, 7 + rank).unwrap();
            }
        };
        let expected = run(recipe, None, train);
        let got = run(recipe, Some(&context), train);
        let bits = |ends: &[Vec<f32>]| ends.iter().flatten().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert!(bits(&expected) == bits(&got), "{text}");
    }
}

/// With vectors in buffers of the application, `step_through` contributes each update once: the final parameters are
/// minus the sum of all updates.
#[test]
fn step_through_contributes_vectors_on_the_device() {
    let Some(context) = context() else { return };
    let recipe: Recipe = "strom tau=0.03125 lambda=1 end=send".parse().unwrap();
    let steps = 5;
    let device = context.clone();
    let train = move |rank: u32, session: &mut Session, _: &mut [f32]| {
        let buffer = |label| {
            device.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size: 4 * LEN as u64 + 64,
                usage: wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        };
        let (updates, params) = (buffer("updates"), buffer("parameters"));
        for step in 0..steps {
            let update: Vec<u8> = (0..LEN).flat_map(|i| update(rank, step, i).to_le_bytes()).collect();
            device.queue().write_buffer(&updates, 64, &update);
            session.step_through(8, give(updates.clone(), 64), take(params.clone(), 0)).unwrap();
        }
    };
    let ends = run(recipe, Some(&context), train);
    for (i, got) in ends[0].iter().enumerate() {
        let all = (0..WORKERS).flat_map(|rank| (0..steps).map(move |step| (rank, step)));
        let sum: f32 = all.map(|(rank, step)| update(rank, step, i)).sum();
        assert_eq!(*got, -sum, "element {i}");
    }
    assert!(ends.iter().all(|end| *end == ends[0]));
}

/// A lost device is an error. It must not give zeros instead of results.
#[test]
fn a_lost_device_is_an_error() {
    let Some(context) = context() else { return };
    let cluster = Cluster { workers: 1, servers: 0 };
    let transport = Mem::cluster(1).remove(0);
    let on = context.clone();
    let builder = Session::builder(Layout::flat(LEN), "strom tau=0.03125".parse().unwrap(), cluster)
        .deadline(Duration::from_secs(20))
        .executor(move || Box::new(Gpu::new(on.clone())));
    let mut params = vec![1.0; LEN];
    let mut session = builder.join(transport, &mut params).unwrap();
    session.step(&mut params, &[0.5; LEN], 1).unwrap();
    context.device().destroy();
    let errors = (0..3).find_map(|_| session.step(&mut params, &[0.5; LEN], 1).err());
    let error = errors.unwrap().to_string();
    assert!(error.starts_with("executor: gpu: the device is lost"), "{error}");
}
