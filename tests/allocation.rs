//! A step allocates nothing, in any thread of the process, after the first steps of a session.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::alloc::{GlobalAlloc, Layout as Memory, System};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use gradwire::recipe::Payload;
use gradwire::{Cluster, Layout, Mean, Mem, Recipe, Session};

/// The system's allocator, with a count of allocations while `COUNTING` is set.
struct Counting;

static COUNTING: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicU64 = AtomicU64::new(0);

#[allow(unsafe_code)]
// SAFETY: each call is passed unchanged to the system's allocator. Counting touches an atomic only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, memory: Memory) -> *mut u8 {
        COUNT.fetch_add(u64::from(COUNTING.load(Ordering::Relaxed)), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc(memory) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, memory: Memory) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, memory) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of all threads in the phase that is counted. Workers wait twice after each of two phases.
fn counted(barrier: &Barrier) -> u64 {
    barrier.wait();
    COUNT.store(0, Ordering::Relaxed);
    COUNTING.store(true, Ordering::Relaxed);
    barrier.wait();
    barrier.wait();
    COUNTING.store(false, Ordering::Relaxed);
    barrier.wait();
    COUNT.load(Ordering::Relaxed)
}

/// The recipe of a text form.
fn coded(text: &str) -> Recipe {
    text.parse().unwrap()
}

#[test]
fn a_step_allocates_nothing() {
    let recipes = [
        Recipe::averaging(2),
        Recipe::sync(),
        Recipe::asynchronous().with_lambda(1.0),
        Recipe::softsync(2),
        Recipe::ssp(2).with_lambda(1.0),
        Recipe::mesh(1.0 / 64.0).with_lambda(1.0),
        coded("sync codec=int8"),
        coded("diloco period=2"),
        coded("hardsync outer=adam"),
        coded("hardsync shards=3"),
        coded("downpour period=1 fetch=1"),
        coded("b-fasgd push_cost=0.01 fetch_cost=0.01 shards=2"),
        coded("async shards=2 pull=bf16 outer=momentum"),
        coded("async shards=3 codec=int8 pull=threshold pull_density=0.1"),
        coded("ssp bound=2 shards=2 codec=topk density=0.1"),
        coded("hardsync merge=median"),
        coded("hardsync merge=norm-clip"),
        coded("hardsync merge=centred-clip radius=0.01"),
        coded("hardsync merge=krum faulty=0"),
        coded("hardsync merge=adasum"),
        coded("sync merge=adasum"),
        coded("sync topology=ring codec=sign"),
        coded("sparse density=0.05 momentum=0.5 clip_norm=0.5"),
        coded("sync topology=mesh codec=bf16"),
        coded("mesh density=0.05 scope=tensor momentum=0.5 clip=4"),
        coded("mesh budget=200 relay=1"),
        coded("async codec=int8 pull=threshold pull_density=0.1"),
        coded("hardsync codec=topk density=0.1 pull=bf16"),
        coded("sparseloco period=1"),
        coded("async codec=sign pull=f16"),
        coded("gradients"),
        coded("gradients topology=mesh codec=topk density=0.05"),
        // Without rounds: in a round, a worker would wait for workers that have done all of their steps.
        coded("async period=2 adapt=speed"),
    ];
    // Gradients that are given range by range.
    let by_ranges = [
        coded("gradients chunk=100"),
        coded("gradients topology=ring chunk=100 codec=int8"),
        coded("gradients topology=mesh codec=topk density=0.05"),
    ];
    let whole = recipes.into_iter().map(|recipe| (recipe, false));
    for (recipe, by_ranges) in whole.chain(by_ranges.map(|recipe| (recipe, true))) {
        let cluster = Cluster { workers: 3, servers: u32::from(recipe.needs_servers()) };
        let mut ends = Mem::cluster(cluster.nodes());
        let carries = recipe.payload() == Payload::Gradients;
        let builder = Session::builder(Layout::flat(1000), recipe, cluster).optimizer_vectors(carries.into());
        let server = ends.split_off(3).pop().map(|end| builder.clone().serve(end, &[0.0; 1000]).unwrap());
        // Of the three workers and this thread, which counts between the two waits of a phase.
        let barrier = Arc::new(Barrier::new(4));
        let threads = ends.into_iter().map(|end| {
            let (builder, barrier) = (builder.clone(), Arc::clone(&barrier));
            thread::spawn(move || {
                let (mut params, update) = (vec![0.0; 1000], vec![1.0 / 128.0; 1000]);
                let (mut state, mut gradient) = (vec![0.0; if carries { 1000 } else { 0 }], update.clone());
                let optimizer = &mut [&mut state[..]][..usize::from(carries)];
                let mut session = builder.join_with(end, &mut params, optimizer).unwrap();
                for phase in 0..2 {
                    // Queues grow to their working size during the first steps.
                    for _ in 0..if phase == 0 { 300 } else { 200 } {
                        if by_ranges {
                            let mut parts = session.begin_mean(1, &params, &[&*optimizer[0]]).unwrap();
                            for range in [900..1000, 500..900, 100..500, 0..100] {
                                parts.give_range(range.clone(), &update[range]).unwrap();
                            }
                            let given = parts.finish(&mut gradient, &mut params, optimizer);
                            assert_eq!(given.unwrap(), Mean::Given);
                        } else if carries {
                            gradient.copy_from_slice(&update);
                            assert_eq!(session.mean(&mut gradient, 1, &mut params, optimizer).unwrap(), Mean::Given);
                        } else {
                            session.step(&mut params, &update, 1).unwrap();
                        }
                    }
                    barrier.wait();
                    barrier.wait();
                }
                if carries {
                    session.finish_with(&mut params, optimizer, |_, _, _, _| {}).unwrap();
                } else {
                    session.finish(&mut params).unwrap();
                }
            })
        });
        let threads: Vec<_> = threads.collect();
        let count = counted(&barrier);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        drop(server);
        // Three workers take 200 steps each. A queue may still grow once or twice; an allocation per step would count
        // hundreds.
        assert!(count <= 8, "{recipe}: {count} allocations in 600 steps");
    }
    for text in
        ["sync", "sync topology=ring chunk=100", "averaging period=2", "hardsync", "ssp bound=2", "mesh density=0.05"]
    {
        let count = owned(coded(text));
        assert!(count <= 8, "{text}: {count} allocations in 600 steps with owned vectors");
    }
}

/// Allocations of three workers in 200 steps each, with vectors of the session.
fn owned(recipe: Recipe) -> u64 {
    let cluster = Cluster { workers: 3, servers: u32::from(recipe.needs_servers()) };
    let mut ends = Mem::cluster(cluster.nodes());
    let builder = Session::builder(Layout::flat(1000), recipe, cluster);
    let server = ends.split_off(3).pop().map(|end| builder.clone().serve(end, &[0.0; 1000]).unwrap());
    let barrier = Arc::new(Barrier::new(4));
    let threads = ends.into_iter().map(|end| {
        let (builder, barrier) = (builder.clone(), Arc::clone(&barrier));
        thread::spawn(move || {
            let mut session = builder.join_owned(end, &[0.0; 1000]).unwrap();
            for phase in 0..2 {
                for _ in 0..if phase == 0 { 300 } else { 200 } {
                    if recipe.payload() == Payload::Updates {
                        session.update_mut().unwrap().1.fill(1.0 / 128.0);
                        session.step(1).unwrap();
                    } else {
                        session.params_mut().unwrap()[0] += 1.0;
                        session.sync(1).unwrap();
                    }
                }
                barrier.wait();
                barrier.wait();
            }
            session.finish().unwrap();
        })
    });
    let threads: Vec<_> = threads.collect();
    let count = counted(&barrier);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    drop(server);
    count
}
