//! The vectors that a session holds: the buffers of its machine, and those between machine and application.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::alloc::{GlobalAlloc, Layout as Memory, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use gradwire::{Mem, Session};
use gradwire_core::{Cluster, Layout, Machine, Node, PeerId, Recipe, Setup};

/// The system's allocator, with the bytes of long allocations that are in use, and the most since the last reset.
struct Counting;

/// Bytes from which on an allocation counts: those of a chunk and more. Queues and texts are shorter.
const LONG: usize = 32 << 10;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[allow(unsafe_code)]
// SAFETY: each call is passed unchanged to the system's allocator. Counting touches atomics only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, memory: Memory) -> *mut u8 {
        if memory.size() >= LONG {
            let live = LIVE.fetch_add(memory.size(), Ordering::Relaxed) + memory.size();
            PEAK.fetch_max(live, Ordering::Relaxed);
        }
        // SAFETY: as above.
        unsafe { System.alloc(memory) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, memory: Memory) {
        if memory.size() >= LONG {
            LIVE.fetch_sub(memory.size(), Ordering::Relaxed);
        }
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, memory) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Floats of a vector, and of a chunk. A vector is shorter than those that get pages of their own (`gradwire::pages`).
const LEN: usize = 1 << 20;
const CHUNK: usize = 16 << 10;

/// Buffers of the machine of rank 0, in vectors of the parameters' length.
fn vectors(text: &str) -> f64 {
    let recipe: Recipe = text.parse().unwrap();
    let cluster = Cluster { workers: 4, servers: 2 };
    let setup = Setup::new(PeerId(0), cluster, recipe, &Layout::flat(1 << 22), 0);
    let bytes: usize = Node::new(setup).unwrap().buffers().iter().sum();
    bytes as f64 / (4 << 22) as f64
}

/// The most bytes in use by a worker of `workers`, from its second step to its last, and the bytes of a chunk.
fn peak(text: &str, workers: u32, owned: bool) -> usize {
    let recipe: Recipe = text.parse().unwrap();
    let cluster = Cluster { workers, servers: 0 };
    let builder = Session::builder(Layout::flat(LEN), recipe.with_chunk(CHUNK as u32), cluster);
    let before = LIVE.load(Ordering::Relaxed);
    let barrier = Arc::new(Barrier::new(workers as usize));
    let threads = Mem::cluster(workers).into_iter().map(|end| {
        let (builder, barrier) = (builder.clone(), Arc::clone(&barrier));
        thread::spawn(move || {
            let mut params = vec![0.0; LEN];
            let mut copying = None;
            let mut owning = None;
            if owned {
                owning = Some(builder.join_owned(end, &params).unwrap());
                params = Vec::new();
            } else {
                copying = Some(builder.join(end, &mut params).unwrap());
            }
            for step in 0..5 {
                if let Some(session) = &mut owning {
                    session.params_mut().unwrap()[0] += 1.0;
                    session.sync(1).unwrap();
                } else if let Some(session) = &mut copying {
                    params[0] += 1.0;
                    session.sync(&mut params, 1).unwrap();
                }
                if step == 0 && barrier.wait().is_leader() {
                    PEAK.store(LIVE.load(Ordering::Relaxed), Ordering::Relaxed);
                }
                barrier.wait();
            }
            barrier.wait();
            let peak = PEAK.load(Ordering::Relaxed);
            barrier.wait();
            peak
        })
    });
    let threads: Vec<_> = threads.collect();
    let peak = threads.into_iter().map(|thread| thread.join().unwrap()).max().unwrap();
    (peak - before) / workers as usize
}

/// View, contribution, and the buffer for the next contribution. The texts of contracts are the rest.
#[test]
fn a_worker_of_servers_owns_three_vectors() {
    for text in ["hardsync shards=2", "async shards=2", "async shards=4", "softsync shards=2"] {
        let owned = 1.0 + vectors(text);
        assert!((3.0..3.01).contains(&owned), "{text}: {owned} vectors");
    }
}

/// The parameters before and after a round, the application's vector, and a few chunks. With a vector of the caller, one
/// more.
#[test]
fn a_member_of_a_tree_or_ring_holds_three_vectors() {
    let (vector, chunk) = (4 * LEN, 4 * CHUNK);
    for (text, workers) in [
        ("averaging period=1 topology=ring", 2),
        ("averaging period=1 topology=ring", 3),
        ("averaging period=2 topology=ring", 2),
        ("averaging period=1 topology=tree", 3),
    ] {
        for (owned, vectors) in [(true, 3), (false, 4)] {
            let got = peak(text, workers, owned);
            // 1 MiB of chunks under way and one more, at each member, for the parts of the others and for the means.
            let chunks = ((1 << 20) / chunk + 1) * (2 * workers as usize - 1);
            let most = vectors * vector + chunks * chunk + (64 << 10);
            assert!(got >= vectors * vector, "{text}, {workers} workers: the count misses a vector: {got} bytes");
            assert!(got <= most, "{text}, {workers} workers: expected at most {most} bytes, got {got}");
        }
    }
}
