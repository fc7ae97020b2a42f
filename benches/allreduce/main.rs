//! All-reduce between processes: `cargo bench --bench allreduce`. `benches/peers/run.sh` compares it with gloo and Open
//! MPI.
//!
//! Each process calls `Session::sync` on the thread that drives the session. A call averages the whole vector over a
//! ring, and includes the two copies that a training program needs, into the session and out of it. With `-owned` after
//! the name of a transport, the session owns its vectors, and nothing is copied in or out.
//!
//! Options after `--`: `--transport tcp,sealed,shm,rings,tcp-owned,shm-owned` (sealed: TCP with encryption; rings: shared
//! memory, all bytes through the rings), `--processes 2,4`, `--bytes N,N`.

#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gradwire::recipe::Topology;
use gradwire::{Builder, Cluster, Layout, Recipe, Session, Transport};

/// Sizes of the vector in bytes: a small and a large message, the 14.6 million parameters of Strom 2015, and a model of
/// 100 million parameters.
const SIZES: [usize; 4] = [64 << 10, 1 << 20, 58_400_000, 400_000_000];

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let Ok(rank) = std::env::var("GRADWIRE_BENCH_RANK") {
        return child(rank.parse().unwrap(), &args);
    }
    let value = |name: &str| args.iter().position(|arg| arg == name).map(|at| args[at + 1].clone());
    let tiny = args.iter().any(|arg| arg == "--test") || !args.iter().any(|arg| arg == "--bench");
    let transports = value("--transport").unwrap_or_else(|| "tcp,tcp-owned,sealed,shm,shm-owned".into());
    let counts = value("--processes").unwrap_or_else(|| if tiny { "2".into() } else { "2,4".into() });
    let sizes = value("--bytes").unwrap_or_else(|| {
        let sizes = if tiny { &SIZES[..1] } else { &SIZES[..] };
        sizes.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
    });
    println!("{:>9}  {:>2}  {:>11}  {:>12}  {:>12}  {:>8}", "", "n", "bytes", "median us", "best us", "GB/s");
    for transport in transports.split(',') {
        for count in counts.split(',') {
            for bytes in sizes.split(',') {
                run(transport, count.parse().unwrap(), bytes.parse().unwrap(), tiny);
            }
        }
    }
}

/// Starts one process per rank, and waits for them.
fn run(transport: &str, count: u32, bytes: usize, tiny: bool) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let start = |rank: u32| {
        Command::new(std::env::current_exe().unwrap())
            .args([transport, &count.to_string(), &bytes.to_string(), &port.to_string(), if tiny { "1" } else { "0" }])
            .env("GRADWIRE_BENCH_RANK", rank.to_string())
            .stdout(if rank == 0 { Stdio::inherit() } else { Stdio::null() })
            .spawn()
            .unwrap()
    };
    let mut children: Vec<_> = (0..count).map(start).collect();
    assert!(children.iter_mut().all(|child| child.wait().unwrap().success()), "{transport} {count} {bytes}");
}

/// The process of one rank.
fn child(rank: u32, args: &[String]) {
    let [_, transport, count, bytes, port, tiny] = args else { panic!("{args:?}") };
    let (count, bytes, tiny): (u32, usize, bool) = (count.parse().unwrap(), bytes.parse().unwrap(), tiny == "1");
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    // With more processes than processors, a process that spins takes the processor from one that could work.
    let spin = if count as usize > processors { Duration::ZERO } else { Duration::from_micros(200) };
    let meet = format!("127.0.0.1:{port}");
    let kind = transport.strip_suffix("-owned").unwrap_or(transport);
    match kind {
        "shm" | "rings" => {
            let shm = gradwire_shm::Builder::new(rank, count).cluster(&format!("bench-{port}")).spin(spin);
            let shm = shm.attach(kind == "shm");
            measure(shm.open().unwrap(), transport, bytes, tiny);
        }
        _ => {
            let tcp = gradwire_tcp::Builder::new(rank, count, &meet).spin(spin);
            let key = gradwire_tcp::Key::parse(&"5a".repeat(32)).unwrap();
            let tcp = if kind == "sealed" { tcp.key(key) } else { tcp };
            measure(tcp.open().unwrap(), transport, bytes, tiny);
        }
    }
}

/// Averages the vector repeatedly, checks the results, and prints the times at rank 0.
fn measure<T: Transport + 'static>(transport: T, name: &str, bytes: usize, tiny: bool) {
    let (rank, count) = transport.place();
    let len = bytes / 4;
    let topology = Topology::Ring;
    let recipe = Recipe::averaging(1).with_topology(topology).with_chunk(chunk());
    let cluster = Cluster { workers: count, servers: 0 };
    let builder = Session::builder(Layout::flat(len), recipe, cluster).caller_driven();
    let params = vec![1.0f32; len];
    let mut sync =
        if name.ends_with("-owned") { owned(builder, transport, params) } else { copying(builder, transport, params) };
    let rounds = if tiny { 3 } else { (2_000_000_000 / bytes.max(1)).clamp(12, 2000) };
    let mut times = Vec::new();
    for round in 0..rounds + rounds / 5 + 1 {
        let (time, [first, last]) = sync(Some(rank.0 as f32 + round as f32));
        times.push(time);
        let expected = (count - 1) as f32 / 2.0 + round as f32;
        assert!(first == expected && last == expected, "expected {expected}, got {first} and {last}");
    }
    sync(None);
    // The first sixth warms caches and connections up.
    let mut times = times.split_off(rounds / 5 + 1);
    times.sort_unstable();
    if rank.0 == 0 {
        let (median, best) = (times[times.len() / 2], times[0]);
        println!(
            "{name:>9}  {count:>2}  {bytes:>11}  {:>12.1}  {:>12.1}  {:>8.2}",
            median.as_secs_f64() * 1e6,
            best.as_secs_f64() * 1e6,
            bytes as f64 / median.as_secs_f64() / 1e9
        );
    }
}

/// Fills the vector with a value and averages it; ends the session without one. Returns the time of that, and the first and
/// last element.
type Sync = Box<dyn FnMut(Option<f32>) -> (Duration, [f32; 2])>;

/// With a vector of the caller.
fn copying<T: Transport + 'static>(builder: Builder, transport: T, mut params: Vec<f32>) -> Sync {
    let mut session = Some(builder.join(transport, &mut params).unwrap());
    Box::new(move |value| {
        params.fill(value.unwrap_or_default());
        let begun = Instant::now();
        match value {
            Some(_) => session.as_mut().unwrap().sync(&mut params, 1).unwrap(),
            None => drop(session.take().unwrap().finish(&mut params).unwrap()),
        }
        (begun.elapsed(), [params[0], params[params.len() - 1]])
    })
}

/// With vectors of the session.
fn owned<T: Transport + 'static>(builder: Builder, transport: T, params: Vec<f32>) -> Sync {
    let mut session = builder.join_owned(transport, &params).unwrap();
    Box::new(move |value| {
        if let Some(value) = value {
            session.next_mut().unwrap().1.fill(value);
        }
        let begun = Instant::now();
        match value {
            Some(_) => session.sync(1).unwrap(),
            None => drop(session.finish().unwrap()),
        }
        let params = session.params();
        (begun.elapsed(), [params[0], params[params.len() - 1]])
    })
}

/// Floats per message. `GRADWIRE_CHUNK` sets another value.
fn chunk() -> u32 {
    std::env::var("GRADWIRE_CHUNK").ok().and_then(|text| text.parse().ok()).unwrap_or(64 * 1024)
}
