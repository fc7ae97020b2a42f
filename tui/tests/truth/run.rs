//! [`Run`]: a run of this process's threads. [`Processes`]: a run of several processes, which are this program again.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use gradwire::monitor::Board;
use gradwire::telemetry::Run as Description;
use gradwire::{Cluster, Error, Layout, Mem, Recipe, RunState, Session, Transport};

/// Parameters of the model.
pub(crate) const LEN: usize = 512;
/// Examples per step.
pub(crate) const BATCH: u32 = 16;

/// The orders of a test to a worker, and the worker's own figures.
#[derive(Default)]
pub(crate) struct Worker {
    /// Milliseconds of computing per step.
    pub(crate) pace: AtomicU64,
    /// Call `leave`, `finish`, or drop the session.
    pub(crate) leave: AtomicBool,
    pub(crate) finish: AtomicBool,
    pub(crate) drop: AtomicBool,
    /// Report this accuracy, in per cent. 0: none.
    pub(crate) accuracy: AtomicU64,
    calls: Mutex<Calls>,
    /// The learning rate, in per cent. From 200 on, learning diverges. 0: random updates, and no loss is told.
    pub(crate) rate: AtomicU64,
    /// Its data are broken: it tells an infinite loss.
    pub(crate) broken: AtomicBool,
}

/// When a worker has called for its steps, and when these calls have returned, in seconds by its own clock. The call with
/// number 0 is that of joining.
#[derive(Default)]
struct Calls(Vec<[f64; 2]>);

impl Calls {
    fn step_ms(&self, (from, to): (usize, usize)) -> StepMs {
        let ([from_called, from_returned], [to_called, to_returned]) = (self.0[from], self.0[to]);
        let ms = |seconds: f64| 1e3 * seconds / (to - from) as f64;
        StepMs {
            least: ms(to_called - from_returned),
            said: ms(to_returned - from_returned),
            most: ms(to_returned - from_called),
        }
    }
}

/// Milliseconds per step as a run says them.
pub(crate) struct StepMs {
    /// Between the returns of two calls.
    pub(crate) said: f64,
    /// A step ends at a moment within its call. When the system gives the processor to others before the call returns,
    /// the run notices the end of the step late.
    pub(crate) least: f64,
    pub(crate) most: f64,
}

pub(crate) struct Run {
    pub(crate) address: String,
    pub(crate) workers: Vec<Arc<Worker>>,
    threads: Vec<JoinHandle<()>>,
}

impl Run {
    /// A run with workers of these paces.
    pub(crate) fn start(recipe: &str, paces: &[u64], servers: u32) -> Self {
        let transports = Mem::cluster(paces.len() as u32 + servers);
        let transports = transports.into_iter().map(|it| Box::new(it) as Box<dyn Transport>).collect();
        Self::over(transports, recipe, paces, LEN)
    }

    /// A run over these transports, of the workers and then of the servers, with so many parameters.
    pub(crate) fn over(transports: Vec<Box<dyn Transport>>, recipe: &str, paces: &[u64], len: usize) -> Self {
        let recipe: Recipe = recipe.parse().unwrap();
        let workers = paces.len() as u32;
        let cluster = Cluster { workers, servers: transports.len() as u32 - workers };
        let board = board(recipe, cluster, len);
        let address = board.serve("127.0.0.1:0", None, false).unwrap().to_string();
        let workers: Vec<_> = paces.iter().map(|_| Arc::new(Worker::default())).collect();
        workers.iter().zip(paces).for_each(|(worker, pace)| worker.pace.store(*pace, Ordering::Relaxed));
        let threads = transports.into_iter().enumerate().map(|(rank, transport)| {
            let (board, worker) = (board.clone(), workers.get(rank).cloned());
            let builder = Session::builder(Layout::flat(len), recipe, cluster);
            let builder = builder.publish_to(board, &format!("host-{rank}"));
            thread::spawn(move || {
                let mut params = vec![0.0; len];
                let begun = Instant::now();
                match worker {
                    Some(worker) => {
                        let session = builder.join(transport, &mut params).unwrap();
                        work(session, &mut params, &worker, begun).unwrap();
                    }
                    None => {
                        let mut server = builder.serve(transport, &params).unwrap();
                        while server.wait(&mut params, Duration::from_millis(50)).unwrap() == RunState::Running {}
                    }
                }
            })
        });
        let threads = threads.collect();
        Self { address, workers, threads }
    }

    pub(crate) fn finish(self) {
        self.workers.iter().for_each(|worker| worker.finish.store(true, Ordering::Relaxed));
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }

    /// Milliseconds per step of a worker between two numbers of steps.
    pub(crate) fn step_ms(&self, rank: usize, steps: (usize, usize)) -> StepMs {
        self.workers[rank].calls.lock().unwrap().step_ms(steps)
    }
}

fn board(recipe: Recipe, cluster: Cluster, len: usize) -> Board {
    let Cluster { workers, servers } = cluster;
    Board::new(Description { recipe: recipe.to_string(), workers, servers, parameters: len as u64, name: None })
}

/// Takes steps as the test tells. `begun`: before joining.
fn work(mut session: Session, params: &mut [f32], worker: &Worker, begun: Instant) -> Result<(), Error> {
    let now = || begun.elapsed().as_secs_f64();
    worker.calls.lock().unwrap().0.push([0.0, now()]);
    let mut random = 1u64;
    let told = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
    while !told(&worker.finish) && !told(&worker.leave) && !told(&worker.drop) {
        thread::sleep(Duration::from_millis(worker.pace.load(Ordering::Relaxed)));
        match worker.accuracy.load(Ordering::Relaxed) {
            0 => {}
            accuracy => session.report_progress(0.5, accuracy as f32 / 100.0),
        }
        let mut noise = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            0.01 * ((random >> 33) % 1000) as f32 / 1000.0 - 0.005
        };
        let update: Vec<f32> = match worker.rate.load(Ordering::Relaxed) {
            0 => params.iter().map(|_| noise()).collect(),
            rate => {
                // The minimum of a square, which each worker sees with a noise of its own.
                let squares = params.iter().map(|x| (x - 1.0) * (x - 1.0)).sum::<f32>();
                let loss = 0.1 + squares / params.len() as f32;
                session.report_progress(if told(&worker.broken) { f32::INFINITY } else { loss }, f32::NAN);
                params.iter().map(|x| rate as f32 / 100.0 * (x - 1.0 - 10.0 * noise())).collect()
            }
        };
        let called = now();
        session.step(params, &update, BATCH)?;
        worker.calls.lock().unwrap().0.push([called, now()]);
    }
    if told(&worker.drop) {
        return Ok(());
    }
    if told(&worker.leave) { session.leave(params).map(drop) } else { session.finish(params).map(drop) }
}

/// A run of several processes over TCP. Rank 0 serves monitors.
pub(crate) struct Processes {
    pub(crate) address: String,
    recipe: &'static str,
    servers: usize,
    /// Seconds after which a lost node is given up.
    dead_after: u64,
    meet: String,
    ranks: Vec<Option<Process>>,
}

struct Process {
    child: Child,
    calls: Arc<Mutex<Calls>>,
}

/// The name of the variable with a process's arguments.
const NODE: &str = "GRADWIRE_TRUTH_NODE";

impl Processes {
    pub(crate) fn new(recipe: &'static str, workers: usize) -> Self {
        Self::with_servers(recipe, workers, 0, 3)
    }

    /// Workers, and then servers. A lost node is given up after so many seconds.
    pub(crate) fn with_servers(recipe: &'static str, workers: usize, servers: usize, dead_after: u64) -> Self {
        let monitor = port_with_next();
        let meet = format!("127.0.0.1:{}", port_with_next());
        let ranks = (0..workers + servers).map(|_| None).collect();
        Self { address: format!("127.0.0.1:{monitor}"), recipe, servers, dead_after, meet, ranks }
    }

    /// Starts a rank of the run of this name.
    pub(crate) fn start(&mut self, rank: usize, run: &str) {
        let numbers = [rank, self.ranks.len() - self.servers, self.servers, self.dead_after as usize];
        let numbers = numbers.map(|number| number.to_string()).join(" ");
        let args = [&numbers, self.recipe, &self.meet, &self.address, run];
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "node_of_a_run", "--nocapture"])
            .env(NODE, args.map(String::from).join("|"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let calls = Arc::<Mutex<Calls>>::default();
        let (lines, latest) = (BufReader::new(child.stdout.take().unwrap()).lines(), Arc::clone(&calls));
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some((called, returned)) = line.strip_prefix("call ").and_then(|times| times.split_once(' ')) {
                    latest.lock().unwrap().0.push([called.parse().unwrap(), returned.parse().unwrap()]);
                }
            }
        });
        self.ranks[rank] = Some(Process { child, calls });
    }

    pub(crate) fn start_all(&mut self, run: &str) {
        (0..self.ranks.len()).for_each(|rank| self.start(rank, run));
    }

    pub(crate) fn signal(&self, rank: usize, signal: &str) {
        let process = self.ranks[rank].as_ref().unwrap();
        let status = Command::new("kill").args([signal, &process.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    pub(crate) fn kill(&mut self, rank: usize) {
        let mut process = self.ranks[rank].take().unwrap();
        process.child.kill().unwrap();
        process.child.wait().unwrap();
    }

    /// The steps of a rank since its start.
    pub(crate) fn steps(&self, rank: usize) -> usize {
        self.ranks[rank].as_ref().unwrap().calls.lock().unwrap().0.len().saturating_sub(1)
    }

    /// Waits until a rank has made a step.
    #[track_caller]
    pub(crate) fn begins(&self, rank: usize) {
        self.reaches(rank, 1);
    }

    /// Waits until a rank has said that it has made so many steps.
    #[track_caller]
    fn reaches(&self, rank: usize, steps: usize) {
        let begun = Instant::now();
        while self.steps(rank) < steps {
            assert!(begun.elapsed() < Duration::from_secs(40), "rank {rank} does not make {steps} steps");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Milliseconds per step of a rank between two numbers of steps.
    #[track_caller]
    pub(crate) fn step_ms(&self, rank: usize, steps: (usize, usize)) -> StepMs {
        // dtop can be faster than the pipe of the process.
        self.reaches(rank, steps.1);
        self.ranks[rank].as_ref().unwrap().calls.lock().unwrap().step_ms(steps)
    }

    /// Tells all ranks to finish, and waits for their ends.
    pub(crate) fn finish(&mut self) {
        self.ranks.iter_mut().flatten().for_each(|process| drop(process.child.stdin.take()));
        for process in &mut self.ranks {
            assert!(process.take().unwrap().child.wait().unwrap().success());
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for process in self.ranks.iter_mut().flatten() {
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}

/// A free port, of which the next one is free as well.
fn port_with_next() -> u16 {
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // Below the ports that the system gives to clients, so that none of them takes it before the run does.
        let port = 10_000 + port % 20_000;
        if [port, port + 1].iter().all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()) {
            return port;
        }
    }
}

/// A process of a run, if it was started as one. Computes 20 ms per step, until its stdin is closed.
pub(crate) fn node() {
    let Ok(args) = std::env::var(NODE) else { return };
    let args: Vec<&str> = args.split('|').collect();
    let [numbers, recipe, meet, monitor, run] = args[..] else { panic!("{args:?}") };
    let numbers: Vec<u32> = numbers.split(' ').map(|number| number.parse().unwrap()).collect();
    let [rank, workers, servers, dead_after] = numbers[..] else { panic!("{numbers:?}") };
    let recipe: Recipe = recipe.parse().unwrap();
    let cluster = Cluster { workers, servers };
    let board = board(recipe, cluster, LEN);
    let (host, port) = monitor.rsplit_once(':').unwrap();
    let reports = format!("{host}:{}", port.parse::<u16>().unwrap() + 1);
    match rank {
        0 => {
            board.serve(monitor, None, false).unwrap();
            board.gather(reports.as_str(), None, false).unwrap();
        }
        _ => board.publish(reports, None).unwrap(),
    }
    let transport = gradwire::tcp::Builder::new(rank, cluster.nodes(), meet).servers(servers);
    let transport = transport.dead_after(Duration::from_secs(dead_after.into())).open().unwrap();
    let mut params = vec![0.0; LEN];
    let builder = Session::builder(Layout::flat(LEN), recipe, cluster).publish_to(board, &format!("host-{rank}"));
    let builder = builder.run(run.parse().unwrap());
    if rank >= workers {
        let mut server = builder.serve(transport, &params).unwrap();
        while server.wait(&mut params, Duration::from_millis(50)).unwrap() == RunState::Running {}
        return;
    }
    let begun = Instant::now();
    let now = || begun.elapsed().as_secs_f64();
    let say = |called: f64| writeln!(std::io::stdout(), "call {called} {}", now());
    let mut session = builder.join(transport, &mut params).unwrap();
    let _ = say(0.0);
    let closed = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&closed);
    thread::spawn(move || {
        let _ = std::io::stdin().lines().count();
        flag.store(true, Ordering::Relaxed);
    });
    while !closed.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(20));
        session.report_progress(0.5, 0.75);
        let called = now();
        session.step(&mut params, &[1e-4; LEN], BATCH).unwrap();
        let _ = say(called);
    }
    session.finish(&mut params).unwrap();
}
