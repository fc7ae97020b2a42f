//! Steps of one process over TCP, for `benches/thin/run.py`, which starts one process per network namespace behind thin
//! links.
//!
//! Options after `--`: `--recipe TEXT`, `--rank N`, `--processes N`, `--meet HOST:PORT`, `--floats N`, `--steps N`
//! (measured ones), `--servers N` (default: 1 if the recipe needs servers), `--interface NAME` (its bytes are counted),
//! `--insecure-open` (no key, no encryption). Server `s` is a thread of process `s % processes`. Without `--rank`, two
//! threads take a few steps over loopback, to check that the bench works. `--far`: a table of steps over a link with a
//! long delay, in virtual time.
//!
//! Prints one line of JSON: the time of a step and the best time in seconds, and the bytes of a step that the interface
//! has sent and received, headers of TCP included. The time of a step is the median in synchronous recipes. In
//! asynchronous ones it is the mean: most steps do not wait, and some wait long. In recipes with a period, a time is that
//! of a whole period, divided by its steps.

#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

mod far;

use std::thread;
use std::time::{Duration, Instant};

use gradwire::{Cluster, Layout, Recipe, RunState, Session};
use gradwire_tcp::{Builder, Key, Tcp};

/// Longest wait of a call. The driver has a limit of its own, for the whole process.
const DEADLINE: Duration = Duration::from_secs(600);

/// Elements by which the updates of two steps are shifted against each other.
const STRIDE: usize = 4099;

/// The options of a process.
#[derive(Clone)]
struct Options {
    recipe: Recipe,
    rank: u32,
    processes: u32,
    servers: u32,
    meet: String,
    floats: usize,
    steps: usize,
    interface: String,
    open: bool,
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| args.iter().position(|arg| arg == name).map(|at| args[at + 1].clone());
    let number = |name: &str, default: usize| value(name).map_or(default, |text| text.parse().unwrap());
    if args.iter().any(|arg| arg == "--far") {
        return far::tables(14_600_000, 40);
    }
    let Some(rank) = value("--rank") else { return check() };
    let recipe: Recipe = value("--recipe").unwrap_or_else(|| "sync topology=ring".into()).parse().unwrap_or_else(fail);
    Options {
        recipe,
        rank: rank.parse().unwrap(),
        processes: number("--processes", 1) as u32,
        servers: number("--servers", recipe.needs_servers().into()) as u32,
        meet: value("--meet").unwrap_or_else(|| "127.0.0.1:29510".into()),
        floats: number("--floats", 560_000),
        steps: number("--steps", 20),
        interface: value("--interface").unwrap_or_else(|| "lo".into()),
        open: args.iter().any(|arg| arg == "--insecure-open"),
    }
    .run();
}

/// Ends the process with the message in one line: the driver prints it in the table.
fn fail<T>(error: impl std::fmt::Display) -> T {
    eprintln!("{error}");
    std::process::exit(1)
}

/// A few steps over loopback, and in virtual time.
fn check() {
    far::tables(100_000, 4);
    for text in ["sync topology=ring", "mesh", "hardsync codec=topk density=0.01 pull=topk pull_density=0.02"] {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let recipe: Recipe = text.parse().unwrap();
        let options = Options {
            recipe,
            rank: 0,
            processes: 2,
            servers: recipe.needs_servers().into(),
            meet: format!("127.0.0.1:{port}"),
            floats: 10_000,
            steps: 5,
            interface: "lo".into(),
            open: false,
        };
        let other = Options { rank: 1, ..options.clone() };
        let other = thread::spawn(move || other.run());
        options.run();
        other.join().unwrap();
    }
}

impl Options {
    fn cluster(&self) -> Cluster {
        Cluster { workers: self.processes, servers: self.servers }
    }

    fn layout(&self) -> Layout {
        Layout::flat(self.floats)
    }

    fn tcp(&self, rank: u32) -> Tcp {
        // A body of a large model takes seconds. A thread that spins would take a processor from one that could work.
        let builder = Builder::new(rank, self.cluster().nodes(), &self.meet)
            .dead_after(Duration::from_secs(60))
            .spin(Duration::ZERO)
            .insecure_open(self.open);
        let builder = if self.open { builder } else { builder.key(Key::parse(&"5a".repeat(32)).unwrap()) };
        builder.open().unwrap_or_else(fail)
    }

    /// Takes the steps as a worker, beside the servers of this process.
    fn run(&self) {
        // Rank 0 first: the other nodes connect to it.
        let worker = self.tcp(self.rank);
        let here = (0..self.servers).filter(|server| server % self.processes == self.rank);
        let servers: Vec<_> = here.map(|server| self.tcp(self.processes + server)).collect();
        thread::scope(|scope| {
            for server in servers {
                scope.spawn(|| self.serve(server));
            }
            self.measure(worker);
        });
    }

    fn serve(&self, transport: Tcp) {
        let mut params = vec![0.0; self.floats];
        let builder = Session::builder(self.layout(), self.recipe, self.cluster()).deadline(DEADLINE);
        let mut server = builder.serve(transport, &params).unwrap_or_else(fail);
        while server.wait(&mut params, Duration::from_secs(1)).unwrap_or_else(fail) == RunState::Running {}
    }

    /// Measures the steps, and prints the result.
    fn measure(&self, transport: Tcp) {
        let period = self.recipe.period().at(0) as usize;
        let periods = self.steps.div_ceil(period).max(3);
        let warm_up = 1 + periods / 5;
        // Prepared before, so that the measured time has nothing but the session's work in it. Each step gets another
        // part of the vector.
        let source = updates(self.floats + STRIDE * period * (periods + warm_up), self.rank);
        let mut params = vec![0.0; self.floats];
        let builder = Session::builder(self.layout(), self.recipe, self.cluster()).deadline(DEADLINE);
        let mut session = builder.join(transport, &mut params).unwrap_or_else(fail);

        let mut starts = source.windows(self.floats).step_by(STRIDE);
        let mut times = Vec::with_capacity(periods);
        let mut before = Traffic::default();
        for round in 0..warm_up + periods {
            if round == warm_up {
                before = Traffic::of(&self.interface);
            }
            let begun = Instant::now();
            for update in starts.by_ref().take(period) {
                session.step(&mut params, update, 1).unwrap_or_else(fail);
            }
            times.push(begun.elapsed().as_secs_f64() / period as f64);
        }
        let after = Traffic::of(&self.interface);
        let merged = session.status().unwrap_or_else(fail).counters.merged;
        session.finish(&mut params).unwrap_or_else(fail);

        let mut times = times.split_off(warm_up);
        times.sort_unstable_by(f64::total_cmp);
        let mean = times.iter().sum::<f64>() / periods as f64;
        let step = if self.recipe.is_synchronous() { times[periods / 2] } else { mean };
        let steps = (period * periods) as f64;
        println!(
            r#"{{"rank":{},"steps":{steps},"step":{step:.6},"best":{:.6},"sent":{:.0},"received":{:.0},"merged":{merged}}}"#,
            self.rank,
            times[0],
            (after.sent - before.sent) as f64 / steps,
            (after.received - before.received) as f64 / steps,
        );
    }
}

/// Random values with heavy tails, as gradients have them: the magnitudes are log-normal with the median 2^-15. About
/// 1 % of them exceed the threshold with which the recipe `mesh` begins.
fn updates(len: usize, rank: u32) -> Vec<f32> {
    let mut state = u64::from(rank) + 1;
    let mut next = || {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    };
    let mut value = || {
        let bits = next();
        // The sum of four uniform numbers is close to normal.
        let sum: f32 = (0..4).map(|i| (bits >> (16 * i) & 0x7fff) as f32 / 32768.0).sum();
        let magnitude = (4.0 * (sum - 2.0) - 15.0).exp2();
        if bits >> 63 == 0 { magnitude } else { -magnitude }
    };
    (0..len).map(|_| value()).collect()
}

/// Bytes that an interface has carried since it exists.
#[derive(Copy, Clone, Default)]
struct Traffic {
    sent: u64,
    received: u64,
}

impl Traffic {
    /// The counters of this process's network namespace.
    fn of(interface: &str) -> Self {
        let table = std::fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
        let row = table.lines().find_map(|line| line.trim_start().strip_prefix(interface)?.strip_prefix(':'));
        let counters: Vec<u64> = row.map_or(Vec::new(), |row| row.split_whitespace().flat_map(str::parse).collect());
        // Eight columns for received data, then eight for sent data.
        Self { sent: counters.get(8).copied().unwrap_or(0), received: counters.first().copied().unwrap_or(0) }
    }
}
