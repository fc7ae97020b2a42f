//! The program `node`: one process of a run. It is a worker, a server, or a worker with servers beside it: server `k` is
//! beside worker `k`, and with more servers than workers, beside worker `k` modulo their number.
//!
//! `cluster` and `launch` contain this program as well, and start themselves as its processes.

mod flags;
mod so_far;

use std::ffi::OsString;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use clap::ArgMatches;
use gradwire::recipe::Hint;
use gradwire::tcp::{Address, Key, Notice, Refusal, StreamError, TcpError};
use gradwire::{Canceller, Cluster, Error, Event, LaunchEnv, PeerId, RunState, Session, Status, Transport};

pub use flags::command;
use so_far::SoFar;

use super::children::name;
use super::cli;
use super::options::{self, Options, exit};
use super::outcome::{self, Ending, number};
use super::paths;
use super::stop::Stop;
use super::task::Task;
use super::units::bytes;
use super::worker::{self, Checkpoints, OnEvent, Watch, digest};

/// How long a process may take to stop. Some launchers kill it after two seconds.
const GRACE: Duration = Duration::from_millis(1500);

/// An exit code and a message.
type Failure = (u8, String);

/// The transport between processes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Wire {
    Tcp,
    Shm,
}

/// The checked options of a process.
struct Node {
    options: Options,
    /// Rank, number of processes, and the address of rank 0.
    env: LaunchEnv,
    /// Servers are processes of their own, with the last ranks, instead of threads of rank 0.
    apart: bool,
    wire: Wire,
    /// Name of the cluster. Processes with another name are refused.
    cluster: String,
    dead_after: Duration,
    /// How long a thread polls its connections before it sleeps.
    spin: Duration,
    listen: Option<String>,
    advertise: Option<String>,
    /// The port of the first server, unless servers have processes of their own; the other servers have the following ports,
    /// each on the host of its worker. `None`: any.
    server_port: Option<u16>,
    /// The directory of the sockets of shared memory.
    shm_directory: Option<PathBuf>,
    key: Option<Key>,
    insecure_open: bool,
    /// Why the last process was refused that has another number of processes.
    misfit: Arc<Mutex<Option<String>>>,
    checkpoints: Option<Checkpoints>,
    /// Print no events.
    quiet: bool,
    /// The worker of this process has failed: its servers end.
    has_failed: AtomicBool,
    /// Print a line per epoch even with `--json`: `cluster` reads both.
    progress: bool,
}

/// Runs a process with these arguments. The first one is the name of the program.
///
/// # Errors
/// An exit code and a message.
pub fn main(args: Vec<OsString>) -> Result<(), Failure> {
    let matches = cli::matches(command(), args.clone())?;
    if let Some(("keygen", matches)) = matches.subcommand() {
        let path = matches.get_one::<PathBuf>("file").cloned().unwrap_or_default();
        let key = Key::generate().and_then(|key| key.write(&path)).map_err(|error| (exit::AUTH, error.to_string()));
        return key.map(|()| {
            let _ = writeln!(std::io::stdout(), "wrote a new key to {}, readable by its owner only", path.display());
        });
    }
    let matches = match matches.get_one::<PathBuf>("config") {
        Some(path) => cli::matches(command(), flags::with_config(path, args)?)?,
        None => matches,
    };
    let canceller = Canceller::new();
    let grace = options::seconds(&matches, "grace")?.unwrap_or(GRACE);
    // Before all steps that can take long.
    let stop = Stop::on_signals(grace, &canceller).map_err(|error| (exit::RUN, format!("signals: {error}")))?;
    let mut node = Node::from_matches(&matches)?;
    node.options.canceller = canceller;
    let task = node.options.open()?;
    if !node.apart {
        node.options.spread(&matches, task.layout().len());
    }
    node.check_ports()?;
    node.options.start_monitoring(&matches, Some((node.env.rank, node.env.processes)), task.layout().len())?;
    let result = node.run(&*task, &stop);
    // Also after an error: the last values may tell its reason. Not after a signal: the time is short.
    if !stop.is_asked() {
        node.options.end_monitoring();
    }
    result
}

impl Node {
    fn from_matches(matches: &ArgMatches) -> Result<Self, Failure> {
        let text = |name: &str| matches.get_one::<String>(name).cloned();
        let env = flags::launch_env(matches)?;
        let seconds = matches.get_one::<f64>("dead-after").copied().unwrap_or(5.0);
        if !(0.1..=86_400.0).contains(&seconds) {
            return Err((exit::USAGE, format!("--dead-after: expected 0.1 to 86400 seconds, got {seconds}")));
        }
        let apart = matches.get_flag("apart");
        // With `--apart`, the number of servers determines the number of workers, and the recipe determines the number
        // of servers.
        let all = Options::from_matches(matches, env.processes)?;
        let options = if apart {
            let workers = env.processes.checked_sub(all.cluster.servers).filter(|workers| *workers > 0);
            let workers = workers.ok_or_else(|| {
                let text =
                    format!("--apart: expected more than {} processes, got {}", all.cluster.servers, env.processes);
                (exit::CONFIG, text)
            })?;
            Options::from_matches(matches, workers)?
        } else {
            all
        };
        // Where nodes outnumber processors, a thread that polls takes the processor from one that could work.
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let crowded = options.cluster.nodes() as usize > processors;
        let spin = matches.get_one::<u64>("spin").copied().unwrap_or(if crowded { 0 } else { 50 });
        let server_port = matches.get_one::<u16>("server-port").copied();
        let checkpoints = matches.get_one::<PathBuf>("checkpoint").map(|directory| Checkpoints {
            directory: directory.clone(),
            every: matches.get_one::<u64>("every").copied().unwrap_or(100),
            resume: matches.get_flag("resume"),
        });
        if let Some(Checkpoints { directory, .. }) = &checkpoints {
            paths::try_directory(directory).map_err(|error| {
                let text = "--checkpoint: expected a directory in which files can be created, got";
                (exit::DATA, format!("{text} {} ({error})", directory.display()))
            })?;
        }
        Ok(Self {
            apart,
            wire: if text("transport").as_deref() == Some("shm") { Wire::Shm } else { Wire::Tcp },
            cluster: flags::cluster(matches, &options),
            dead_after: Duration::from_secs_f64(seconds),
            spin: Duration::from_micros(spin),
            listen: text("listen"),
            advertise: text("advertise"),
            server_port,
            shm_directory: matches.get_one::<PathBuf>("shm-directory").cloned(),
            misfit: Arc::default(),
            key: flags::key(matches)?,
            insecure_open: matches.get_flag("insecure-open"),
            checkpoints,
            quiet: matches.get_flag("quiet"),
            has_failed: AtomicBool::new(false),
            progress: matches.get_flag("progress"),
            options,
            env,
        })
    }

    /// The last server has the highest port.
    fn check_ports(&self) -> Result<(), Failure> {
        let servers = self.options.cluster.servers;
        match self.server_port.filter(|first| u32::from(u16::MAX - first) + 1 < servers) {
            None => Ok(()),
            Some(first) => {
                let limit = (1 << 16) - i64::from(servers);
                let text = format!("--server-port: expected at most {limit} with {servers} servers, got {first}");
                Err((exit::USAGE, text))
            }
        }
    }

    /// Runs the nodes of this process to the end of the run. `stop`: leave, or suspend the run.
    fn run(&self, task: &dyn Task, stop: &Stop) -> Result<(), Failure> {
        let rank = self.env.rank;
        self.log(&format!(
            "process {rank} of {} ({}), {} of {} over {}",
            self.env.processes,
            self.env.source,
            if rank < self.options.cluster.workers { "a worker" } else { "a server" },
            self.options.name,
            if self.wire == Wire::Tcp { "TCP" } else { "shared memory" },
        ));
        self.env.notes.iter().for_each(|note| self.log(note));
        let Cluster { workers, servers } = self.options.cluster;
        if rank == 0 && servers > 1 && !self.apart {
            let hosts = servers.min(workers);
            let text =
                format!("{servers} servers beside {hosts} workers; a worker that is lost takes its server with it");
            self.log(&format!("{text} (--servers 1: one, beside rank 0)"));
        }
        if self.insecure_open && self.key.is_none() && self.wire == Wire::Tcp {
            // Printed even with `--quiet`.
            let text = "WARNING: no key and --insecure-open: any host that can connect can take part";
            let _ = writeln!(std::io::stderr(), "node {rank}: {text}");
        }
        self.options.hint(task, self.quiet);
        match self.wire {
            Wire::Tcp => self.run_over(task, stop, |rank, own| self.tcp(rank, own)),
            Wire::Shm => self.run_over(task, stop, |rank, _| self.shm(rank)),
        }
    }

    fn run_over<T: Transport + 'static>(
        &self,
        task: &dyn Task,
        stop: &Stop,
        open: impl Fn(u32, Option<&T>) -> Result<T, Failure>,
    ) -> Result<(), Failure> {
        let (rank, workers) = (self.env.rank, self.options.cluster.workers);
        if rank >= workers {
            let status = self.serve(task, open(rank, None)?, stop)?;
            self.report(None, &status, 0, 0, 0.0);
            let early = || (stop.code(), format!("node {rank}: the run was ended early by {}", name(stop.signal())));
            return if stop.is_asked() { Err(early()) } else { Ok(()) };
        }
        // The worker first: the servers of this process listen at its address.
        let own = open(rank, None)?;
        let servers = if self.apart { 0..0 } else { workers..self.options.cluster.nodes() };
        let beside = servers.filter(|server| (server - workers) % workers == rank);
        let servers = beside.map(|rank| open(rank, Some(&own))).collect::<Result<Vec<_>, _>>()?;
        std::thread::scope(|scope| {
            let servers: Vec<_> = servers
                .into_iter()
                .map(|transport| {
                    let task = task.copy();
                    scope.spawn(move || self.serve(&*task, transport, stop))
                })
                .collect();
            let trained = self.train(task, own, stop);
            if trained.is_err() {
                // The process ends with its worker. Servers that were told to end may be started again elsewhere; other
                // servers tell the workers that there is no way on.
                if stop.is_asked() {
                    self.options.canceller.cancel();
                }
                self.has_failed.store(true, Ordering::Relaxed);
            }
            let join = |thread: ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            let served: Vec<_> = servers.into_iter().map(join).collect();
            let early = trained?;
            for status in served {
                self.report(None, &status?, 0, 0, 0.0);
            }
            early.map_or(Ok(()), Err)
        })
    }

    /// Trains as a worker, and prints the result. Rank 0 also evaluates the model. Returns the exit code and the message of
    /// a training that a signal has ended early.
    fn train<T: Transport + 'static>(
        &self,
        task: &dyn Task,
        transport: T,
        stop: &Stop,
    ) -> Result<Option<Failure>, Failure> {
        let options = &self.options;
        let rank = self.env.rank;
        let evaluator = (rank == 0).then(|| task.copy());
        let begun = Instant::now();
        let mut progress =
            Progress { node: self, stop, evaluator, so_far: Arc::default(), begun, looked: begun, curve: Vec::new() };
        let directory = self.checkpoints.as_ref().map(|checkpoints| checkpoints.directory.clone());
        *lock(&progress.so_far) = SoFar { rank, checkpoints: directory, ..SoFar::default() };
        let so_far = Arc::clone(&progress.so_far);
        stop.summary(move |signal| lock(&so_far).ended_early(signal));
        let initial = options.initial(task)?;
        let checkpoints = self.checkpoints.as_ref();
        let done = worker::train(options, &mut *task.copy(), transport, initial, checkpoints, &mut progress);
        let done = done.map_err(|error| {
            let (code, text) = self.failure(&error, stop);
            match stop.is_asked() {
                true => (stop.code(), format!("{text}\n{}", lock(&progress.so_far).ended_early(stop.signal()))),
                false => (code, text),
            }
        })?;
        if rank == 0 {
            options.write_export(task, &done.params)?;
        }
        let seconds = progress.begun.elapsed().as_secs_f64();
        let evaluation = progress.evaluator.as_mut().map(|task| {
            let after = task.evaluate(&done.params);
            (after, if done.before_end == done.params { after } else { task.evaluate(&done.before_end) })
        });
        let curve = format!("[{}]", progress.curve.join(","));
        let result = TrainingResult { evaluation, digest: digest(&done.params), drained: done.drained, curve };
        self.report(Some(result), &done.status, done.steps, done.examples, seconds);
        // Also before the first step.
        let early = done.drained || stop.is_asked() && done.steps == 0;
        let mut so_far = lock(&progress.so_far);
        (so_far.sent, so_far.saved) = (done.status.bytes_out(), done.saved);
        Ok(early.then(|| (stop.code(), so_far.ended_early(stop.signal()))))
    }

    /// Runs a server to the end of the run. Returns its last status.
    fn serve<T: Transport + 'static>(&self, task: &dyn Task, transport: T, stop: &Stop) -> Result<Status, Failure> {
        let options = &self.options;
        let mut params = options.initial(task)?;
        let rank = transport.place().0.0;
        let every = self.checkpoints.as_ref().map(|checkpoints| checkpoints.every);
        let builder = options.agree(options.builder(task.layout()), task, &params, every).on_event(self.on_event(rank));
        let builder = match &self.checkpoints {
            Some(checkpoints) => builder.on_checkpoint_notice(checkpoints.told_by(rank as usize)),
            None => builder,
        };
        let run = || {
            let mut server = match self.checkpoints.as_ref().filter(|checkpoints| checkpoints.resume) {
                Some(checkpoints) => builder.resume_serving(&checkpoints.directory, transport, &params.clone())?,
                None => builder.serve(transport, &params.clone())?,
            };
            while server.wait(&mut params, Duration::from_millis(100))? == RunState::Running {
                if self.has_failed.load(Ordering::Relaxed) {
                    let worker = PeerId(self.env.rank);
                    server.end_without(worker);
                    return Err(Error::Cut { peer: worker });
                }
            }
            if let Some(checkpoints) = &self.checkpoints {
                server.checkpoint(&checkpoints.directory, &params)?;
            }
            Ok((server.status()?, server.is_whole()))
        };
        let (status, whole) = run().map_err(|error| self.failure(&error, stop))?;
        if !whole {
            return Err((exit::RUN, format!("node {rank}: every worker was lost before the end of the run")));
        }
        Ok(status)
    }

    // Transports

    /// The TCP transport of a node. `own`: the transport of rank 0, for a server of the same process.
    fn tcp(&self, rank: u32, own: Option<&gradwire::tcp::Tcp>) -> Result<gradwire::tcp::Tcp, Failure> {
        let meet = self.env.meet.clone().ok_or_else(|| {
            let text = "--meet: expected HOST:PORT, the address of rank 0, which no launcher has set";
            (exit::USAGE, text.to_string())
        })?;
        let Cluster { workers, servers } = self.options.cluster;
        let (mut meet, mut listen, mut advertise) = (meet, self.listen.clone(), self.advertise.clone());
        if let Some(own) = own {
            let at = own.carrier().bound();
            let port = self.server_port.map_or(0, |first| first + (rank - workers) as u16);
            if self.env.rank == 0 {
                // The meeting point may be another host's address, from which nothing comes back to this process. Peers
                // find the server at the host where they reach rank 0.
                meet = SocketAddr::new(reachable(at.ip()), at.port()).to_string();
            }
            listen = Some(SocketAddr::new(at.ip(), port).to_string());
            let host = advertise.and_then(|advertise| advertise.parse::<Address>().ok());
            advertise = host.map(|host| host.with_port(0).to_string());
        }
        let mut builder = gradwire::tcp::Builder::new(rank, workers + servers, &meet)
            .servers(servers)
            .cluster(&self.cluster)
            .dead_after(self.dead_after)
            .spin(self.spin)
            .insecure_open(self.insecure_open);
        if let Some(listen) = listen {
            builder = builder.listen(&listen);
        }
        if let Some(advertise) = advertise {
            builder = builder.advertise(&advertise);
        }
        if let Some(key) = &self.key {
            builder = builder.key(key.clone());
        }
        builder.notices(self.on_notice(rank)).open().map_err(|error| {
            let code = match error {
                TcpError::Address { .. } => exit::USAGE,
                TcpError::Open { .. } => exit::AUTH,
                _ => exit::RUN,
            };
            (code, format!("node {rank}: {error}"))
        })
    }

    fn shm(&self, rank: u32) -> Result<gradwire::shm::Shm, Failure> {
        let mut builder = gradwire::shm::Builder::new(rank, self.options.cluster.nodes())
            .cluster(&self.cluster)
            .dead_after(self.dead_after)
            .spin(self.spin);
        if let Some(directory) = &self.shm_directory {
            builder = builder.directory(directory);
        }
        builder.notices(self.on_notice(rank)).open().map_err(|error| (exit::RUN, format!("node {rank}: {error}")))
    }

    // Output

    /// Prints the notices of a transport, unless `--quiet` is set, and keeps why a process was refused that does not fit.
    fn on_notice(&self, rank: u32) -> impl FnMut(Notice) + Send + 'static {
        let (quiet, misfit) = (self.quiet, Arc::clone(&self.misfit));
        move |notice| {
            if let Notice::TurnedAway { reason, refusal: Some(Refusal::Nodes { .. }), .. } = &notice {
                *misfit.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.clone());
            }
            if !quiet {
                let _ = writeln!(std::io::stderr(), "node {rank}: {notice}");
            }
        }
    }

    /// Prints the events of a node, unless `--quiet` is set, and collects its hints.
    fn on_event(&self, rank: u32) -> OnEvent {
        let (hints, quiet) = (self.options.hints.clone(), self.quiet);
        let failed = Mutex::new(None);
        Box::new(move |event| match event {
            // `worker` resets the momentum, if there is one.
            Event::Hint(Hint::OptimizerKept) => {}
            Event::Hint(hint) => hints.report(&hint.to_string(), quiet),
            _ if quiet => {}
            // A peer that has failed is lost as well, and that has been said.
            Event::PeerLost { peer } if lock(&failed).take() == Some(peer) => {}
            Event::PeerFailed { peer, .. } => {
                *lock(&failed) = Some(peer);
                drop(writeln!(std::io::stderr(), "node {rank}: {event}"));
            }
            event => drop(writeln!(std::io::stderr(), "node {rank}: {event}")),
        })
    }

    /// Prints a message about this process, unless `--quiet` is set.
    fn log(&self, text: &str) {
        if !self.quiet {
            let _ = writeln!(std::io::stderr(), "node {}: {text}", self.env.rank);
        }
    }

    /// The exit code and the message for an error of a session or server.
    fn failure(&self, error: &Error, stop: &Stop) -> Failure {
        let misfit = self.misfit.lock().unwrap_or_else(PoisonError::into_inner).take();
        let code = match error {
            Error::Cancelled(_) => stop.code(),
            Error::Config(_)
            | Error::Several(_)
            | Error::Contract { .. }
            | Error::OtherRun { .. }
            | Error::Nodes { .. }
            // The threshold of the recipe is too small.
            | Error::LedgerFull { .. }
            | Error::Role { .. } => exit::CONFIG,
            Error::Checkpoint(_) => exit::DATA,
            Error::Transport(error) => match error.downcast_ref::<StreamError>() {
                Some(StreamError::Handshake { .. } | StreamError::Refused { reason: Refusal::Key, .. }) => exit::AUTH,
                Some(StreamError::OtherRun { .. } | StreamError::OtherCluster { .. }) => exit::CONFIG,
                Some(StreamError::Refused { reason: Refusal::Cluster { .. } | Refusal::Nodes { .. }, .. }) => {
                    exit::CONFIG
                }
                _ => exit::RUN,
            },
            Error::Deadline(_) if misfit.is_some() => exit::CONFIG,
            _ => exit::RUN,
        };
        let misfit = misfit.filter(|_| code == exit::CONFIG && matches!(error, Error::Deadline(_)));
        let misfit =
            misfit.map_or_else(String::new, |text| format!("; a process that does not fit was refused: {text}"));
        (code, format!("node {}: {error}{misfit}", self.env.rank))
    }

    /// Prints the result at the end: a JSON object per node, or text at rank 0. `result`: `None` for a server.
    fn report(&self, result: Option<TrainingResult>, status: &Status, steps: u64, examples: u64, seconds: f64) {
        let mut out = std::io::stdout();
        if !self.options.json {
            if let Some(TrainingResult { evaluation: Some(((accuracy, loss), before)), digest, drained, .. }) = result {
                let drained = if drained { ", ended early by a signal" } else { "" };
                let ending = ending(status, before).text(&self.options, (accuracy, loss));
                let _ = writeln!(
                    out,
                    "\naccuracy        {:.2} % on the test data\ntest loss       {loss:.4}\n{ending}\
                     steps           {steps} of this worker{drained}\ntime            {seconds:.2} s\n\
                     sent            {} by this process\n\
                     parameters      digest {digest:016x}",
                    accuracy * 100.0,
                    bytes(status.bytes_out() as f64),
                );
            }
            return;
        }
        let evaluation = result.as_ref().and_then(|result| result.evaluation);
        let ((accuracy, loss), before) = evaluation.unwrap_or(((-1.0, -1.0), (-1.0, -1.0)));
        let (digest, drained, curve) =
            result.map_or_else(|| (0, false, "[]".to_string()), |result| (result.digest, result.drained, result.curve));
        let _ = writeln!(
            out,
            "{{\"rank\":{},\"steps\":{steps},\"examples\":{examples},\"seconds\":{seconds:.4},\
             \"accuracy\":{},\"loss\":{},{}{}\"bytes_sent\":{},\"bytes_dense\":{},\"staleness_sum\":{},\"staleness_count\":{},\
             \"staleness_max\":{},\"density\":{:.6},\"tau\":{:e},\"view\":{},\"reconnects\":{},\
             \"residual_norm\":{:.6},\"clipped\":{:.6},\"forgotten\":{:.6},\"merged\":{},\"applied\":{},\"late\":{},\
             \"deferred\":{},\"skipped_pushes\":{},\"skipped_fetches\":{},\"drained\":{drained},\
             \"digest\":\"{digest:016x}\",\"hints\":{},\"curve\":{curve}}}",
            status.me,
            number(accuracy, 4),
            number(loss, 5),
            ending(status, before).json(),
            outcome::times(&status.times),
            status.bytes_out(),
            status.counters.dense_bytes,
            status.staleness.sum(),
            status.staleness.count(),
            status.staleness.max(),
            status.density,
            status.tau,
            status.view,
            status.counters.reconnects,
            status.residual_norm,
            status.clipped,
            status.forgotten,
            status.counters.merged,
            status.counters.applied,
            status.counters.late,
            status.counters.deferred,
            status.counters.skipped_pushes,
            status.counters.skipped_fetches,
            self.options.hints.json(),
        );
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The result of a worker.
struct TrainingResult {
    /// Accuracy (0 to 1) and mean loss on the test data, after and before the end, at rank 0.
    evaluation: Option<((f64, f64), (f64, f64))>,
    /// A hash of the final parameters.
    digest: u64,
    /// A signal ended the training early.
    drained: bool,
    /// A JSON array of epochs.
    curve: String,
}

/// Time between two looks at the traffic.
const LOOK: Duration = Duration::from_millis(500);

/// Follows the training of this process's worker. Rank 0 prints a line per epoch.
struct Progress<'a> {
    node: &'a Node,
    stop: &'a Stop,
    /// At rank 0: a model for evaluation.
    evaluator: Option<Box<dyn Task>>,
    so_far: Arc<Mutex<SoFar>>,
    begun: Instant,
    /// When the traffic was last looked at.
    looked: Instant,
    /// A JSON object per epoch.
    curve: Vec<String>,
}

impl Watch for Progress<'_> {
    fn should_stop(&self) -> bool {
        self.stop.is_asked()
    }

    fn on_event(&self) -> Option<OnEvent> {
        Some(self.node.on_event(self.node.env.rank))
    }

    fn step(&mut self, steps: u64, loss: f64, session: &mut Session) -> Result<(), Error> {
        if steps == 1 && !self.node.quiet {
            self.node.log("first step done");
        }
        let sent = match self.looked.elapsed() >= LOOK {
            true => Some(session.status()?.bytes_out()),
            false => None,
        };
        let mut so_far = lock(&self.so_far);
        (so_far.steps, so_far.loss) = (steps, Some(loss));
        if let Some(sent) = sent {
            (so_far.sent, self.looked) = (sent, Instant::now());
        }
        Ok(())
    }

    fn epoch(&mut self, epoch: u32, loss: f64, params: &[f32], _: &mut Session) -> Result<Option<f64>, Error> {
        let options = &self.node.options;
        let Some(task) = self.evaluator.as_mut() else { return Ok(None) };
        let (accuracy, test_loss) = task.evaluate(params);
        lock(&self.so_far).accuracy = Some(accuracy);
        let seconds = self.begun.elapsed().as_secs_f64();
        self.curve.push(outcome::point(epoch, seconds, loss, (accuracy, test_loss)));
        if self.node.progress || !options.json {
            let (steps, left) =
                (lock(&self.so_far).steps, seconds / f64::from(epoch) * f64::from(options.epochs - epoch));
            let _ = writeln!(
                std::io::stdout(),
                "epoch {epoch:>3}  test acc {:>5.1} %  train loss {loss:.3}  step {steps:>6}  {seconds:>7.2} s, {left:.0} s left",
                accuracy * 100.0
            );
        }
        Ok(Some(accuracy))
    }
}

/// The end of a node with this status. `before`: accuracy and loss before it.
fn ending(status: &Status, before: (f64, f64)) -> Ending {
    let Status { residual_updates, rest, .. } = *status;
    Ending { before, residual_updates, rest, kept: rest.map_or(0.0, |rest| rest.kept) }
}

/// An address at which a listener of this process is reached from this process.
fn reachable(at: IpAddr) -> IpAddr {
    match at {
        // A listener at all addresses takes both families. A host without IPv6 can have such a listener, but has no ::1.
        at if at.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        at => at,
    }
}
