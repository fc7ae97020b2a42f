//! One process of a run: a worker, a server, or a worker with the servers beside it.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use gradwire::tcp::{Key, KeyError, Notice, StreamError};
use gradwire::{Error, Event, Place, Session, Status, Transport};
use toml::de::{DeTable, DeValue};

use super::data::Data;
use super::model::Model;
use super::options::{self, Options, exit, value};
use super::worker::{self, Keep, Watch, digest};

type Failure = (u8, String);

/// How processes reach each other.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Wire {
    Tcp,
    Shm,
}

struct Node {
    options: Options,
    place: Place,
    /// Servers are processes of their own, the last ones.
    apart: bool,
    wire: Wire,
    cluster: String,
    dead_after: Duration,
    spin: Duration,
    listen: Option<String>,
    advertise: Option<String>,
    key: Option<Key>,
    insecure_open: bool,
    keep: Option<Keep>,
    quiet: bool,
    /// Lines per epoch beside JSON.
    progress: bool,
}

pub fn command() -> Command {
    let command = Command::new("node")
        .about("One process of a run: trains handwritten digits together with others, over TCP or shared memory.")
        .args_override_self(true)
        .subcommand_negates_reqs(true)
        .subcommand(
            Command::new("keygen")
                .about("Writes a new key to a file that only you can read; copy it to every machine.")
                .arg(Arg::new("file").required(true).value_parser(value_parser!(PathBuf))),
        )
        .after_help(format!(
            "Rank, number of processes and meeting point come from flags, else from what a launcher has left in the \
             environment: GRADWIRE_RANK, GRADWIRE_PROCESSES and GRADWIRE_MEET; torchrun; Open MPI or PMI; Slurm; \
             Kubernetes.\n\n{}\n\n\
             By hand, in four terminals:\n  node --rank 0 --processes 4 --meet 127.0.0.1:29510 --recipe ssp\n  node --rank 1 \
             --processes 4 --meet 127.0.0.1:29510 --recipe ssp\n  …\n\nBetween machines: node keygen cluster.key; then on \
             each: node --key-file cluster.key --meet HOST:29510 …",
            options::recipes()
        ))
        .arg(value("rank", "Number of this process, from 0").value_parser(value_parser!(u32)))
        .arg(value("processes", "How many processes there are").value_parser(value_parser!(u32).range(1..=1024)))
        .arg(value("meet", "HOST:PORT where rank 0 listens (tcp)"))
        .arg(value("transport", "tcp or shm").default_value("tcp").value_parser(["tcp", "shm"]))
        .arg(
            Arg::new("apart")
                .long("apart")
                .action(ArgAction::SetTrue)
                .help("Servers are processes of their own, the last ones, instead of threads of rank 0"),
        )
        .arg(value("listen", "HOST:PORT to listen at [default: rank 0 where it is met, others at any port] (tcp)"))
        .arg(value("advertise", "HOST:PORT where others reach this process, if it is another (tcp)"))
        .arg(
            value("key-file", "File with the cluster's key, made by keygen; or GRADWIRE_KEY_FILE (tcp)")
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(
            Arg::new("insecure-open")
                .long("insecure-open")
                .action(ArgAction::SetTrue)
                .help("Listen beyond loopback without a key: anyone who can connect can take part"),
        )
        .arg(value("cluster", "Name of the cluster: others are turned away").default_value("gradwire"))
        .arg(
            value("dead-after", "Seconds of silence after which a process is given up; all timeouts follow from it")
                .default_value("5")
                .value_parser(value_parser!(f64)),
        )
        .arg(
            value("spin", "Microseconds to look for work before sleeping [default: 50, or 0 where processes outnumber processors]")
                .value_parser(value_parser!(u64)),
        )
        .arg(
            value("checkpoint", "Directory for checkpoints: trees and rings write them as they go, others when all their processes are asked to stop (SIGTERM)").value_parser(value_parser!(PathBuf)),
        )
        .arg(
            value("every", "Steps between checkpoints").default_value("100").value_parser(value_parser!(u64).range(1..)),
        )
        .arg(
            Arg::new("resume")
                .long("resume")
                .action(ArgAction::SetTrue)
                .requires("checkpoint")
                .help("Go on from the newest checkpoint; every process does"),
        )
        .arg(Arg::new("progress").long("progress").action(ArgAction::SetTrue).hide(true))
        .arg(
            Arg::new("quiet").long("quiet").action(ArgAction::SetTrue).help("Say nothing of who comes and goes"),
        )
        .arg(
            value("config", "TOML file whose keys are these flags; flags on the command line count more")
                .value_parser(value_parser!(PathBuf)),
        );
    options::training(command)
}

/// Runs a process with these arguments, the program's name first.
pub fn main(args: Vec<OsString>) -> Result<(), Failure> {
    let matches = options::matches(command(), args.clone())?;
    if let Some(("keygen", matches)) = matches.subcommand() {
        let path = matches.get_one::<PathBuf>("file").cloned().unwrap_or_default();
        let key = Key::generate().and_then(|key| key.write(&path)).map_err(|error| (exit::AUTH, error.to_string()));
        return key.map(|()| {
            let _ = writeln!(std::io::stdout(), "wrote a new key to {}; only you can read it", path.display());
        });
    }
    let matches = match matches.get_one::<PathBuf>("config") {
        Some(path) => options::matches(command(), with_config(path, args)?)?,
        None => matches,
    };
    let mut node = Node::from_matches(&matches)?;
    let parameters = Model::new(node.pixels()?, &node.options.hidden, 1).layout().len();
    node.options.monitored(&matches, Some(node.place.rank), parameters)?;
    let stop = stop_on_signals().map_err(|error| (exit::RUN, format!("signals: {error}")))?;
    node.run(&stop)
}

/// Puts what a file says before what the command line says.
fn with_config(path: &std::path::Path, args: Vec<OsString>) -> Result<Vec<OsString>, Failure> {
    let failed = |what: String| (exit::USAGE, format!("--config {}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let table = DeTable::parse(&text).map_err(|error| failed(error.message().to_string()))?.into_inner();
    let mut all: Vec<OsString> = args.iter().take(1).cloned().collect();
    for (key, value) in table {
        let key = key.into_inner();
        match value.into_inner() {
            DeValue::Boolean(false) => {}
            DeValue::Boolean(true) => all.push(format!("--{key}").into()),
            DeValue::String(text) => all.push(format!("--{key}={text}").into()),
            DeValue::Integer(number) => all.push(format!("--{key}={number}").into()),
            DeValue::Float(number) => all.push(format!("--{key}={}", number.as_str()).into()),
            other => {
                return Err(failed(format!("{key}: expected text, a number, true or false, got {}", other.type_str())));
            }
        }
    }
    all.extend(args.into_iter().skip(1));
    Ok(all)
}

/// The first SIGTERM or SIGINT asks to stop; the second ends the process at once.
pub fn stop_on_signals() -> std::io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

impl Node {
    fn from_matches(matches: &ArgMatches) -> Result<Self, Failure> {
        let text = |name: &str| matches.get_one::<String>(name).cloned();
        let place = place(matches)?;
        let seconds = matches.get_one::<f64>("dead-after").copied().unwrap_or(5.0);
        if !(0.1..=86_400.0).contains(&seconds) {
            return Err((exit::USAGE, format!("--dead-after: expected 0.1 to 86400 seconds, got {seconds}")));
        }
        let apart = matches.get_flag("apart");
        // With servers apart, workers are those that are left.
        let all = Options::from_matches(matches, place.processes)?;
        let options = if apart {
            let workers = place.processes.checked_sub(all.cluster.servers).filter(|workers| *workers > 0);
            let workers = workers.ok_or_else(|| {
                let text =
                    format!("--apart: expected more than {} processes, got {}", all.cluster.servers, place.processes);
                (exit::CONFIG, text)
            })?;
            Options::from_matches(matches, workers)?
        } else {
            all
        };
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let crowded = options.cluster.nodes() as usize > processors;
        let spin = matches.get_one::<u64>("spin").copied().unwrap_or(if crowded { 0 } else { 50 });
        let keep = matches.get_one::<PathBuf>("checkpoint").map(|directory| Keep {
            directory: directory.clone(),
            every: matches.get_one::<u64>("every").copied().unwrap_or(100),
            resume: matches.get_flag("resume"),
        });
        Ok(Self {
            apart,
            wire: if text("transport").as_deref() == Some("shm") { Wire::Shm } else { Wire::Tcp },
            cluster: text("cluster").unwrap_or_default(),
            dead_after: Duration::from_secs_f64(seconds),
            spin: Duration::from_micros(spin),
            listen: text("listen"),
            advertise: text("advertise"),
            key: key(matches).map_err(|error| (exit::AUTH, error.to_string()))?,
            insecure_open: matches.get_flag("insecure-open"),
            keep,
            quiet: matches.get_flag("quiet"),
            progress: matches.get_flag("progress"),
            options,
            place,
        })
    }

    fn run(&self, stop: &AtomicBool) -> Result<(), Failure> {
        let rank = self.place.rank;
        self.say(&format!(
            "process {rank} of {} ({}), {} of {} over {}",
            self.place.processes,
            self.place.source,
            if rank < self.options.cluster.workers { "a worker" } else { "a server" },
            self.options.name,
            if self.wire == Wire::Tcp { "TCP" } else { "shared memory" },
        ));
        if self.insecure_open && self.key.is_none() && self.wire == Wire::Tcp {
            // Quiet or not.
            let text =
                "WARNING: no key, and listening beyond loopback is allowed: anyone who can connect can take part";
            let _ = writeln!(std::io::stderr(), "node {rank}: {text}");
        }
        match self.wire {
            Wire::Tcp => self.run_over(stop, |rank| self.tcp(rank)),
            Wire::Shm => self.run_over(stop, |rank| self.shm(rank)),
        }
    }

    fn run_over<T: Transport + 'static>(
        &self,
        stop: &AtomicBool,
        open: impl Fn(u32) -> Result<T, Failure>,
    ) -> Result<(), Failure> {
        let (rank, workers) = (self.place.rank, self.options.cluster.workers);
        if rank >= workers {
            return self.serve(open(rank)?).map(|status| self.report(None, &status, 0, 0, 0.0));
        }
        // Opened in this order: rank 0 is whom the others meet.
        let own = open(rank)?;
        let beside = if rank == 0 && !self.apart { workers..self.options.cluster.nodes() } else { 0..0 };
        let servers = beside.map(open).collect::<Result<Vec<_>, _>>()?;
        std::thread::scope(|scope| {
            let servers: Vec<_> = servers.into_iter().map(|transport| scope.spawn(|| self.serve(transport))).collect();
            let trained = self.train(own, stop);
            let served: Vec<_> = if trained.is_ok() {
                servers
                    .into_iter()
                    .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                    .collect()
            } else {
                // They wait for workers that may not come any more; the process ends with this one.
                let (code, text) = trained.err().unwrap_or_default();
                let _ = writeln!(std::io::stderr(), "{text}");
                std::process::exit(code.into());
            };
            for status in served {
                self.report(None, &status?, 0, 0, 0.0);
            }
            Ok(())
        })
    }

    fn train<T: Transport + 'static>(&self, transport: T, stop: &AtomicBool) -> Result<(), Failure> {
        let options = &self.options;
        let data = match &options.data {
            Some(directory) => Data::load(directory),
            None => Data::digits(),
        };
        let (train, test) = data.map_err(|error| (exit::DATA, format!("data: {error}")))?.split(options.seed);
        if train.len() < options.cluster.workers as usize {
            return Err((exit::CONFIG, format!("workers: expected at most {} (one image each)", train.len())));
        }
        let rank = self.place.rank;
        let judge = (rank == 0).then(|| (Model::new(test.pixels, &options.hidden, 256), test));
        let mut progress = Progress { node: self, stop, judge, steps: 0, begun: Instant::now() };
        let model = Model::new(train.pixels, &options.hidden, options.batch);
        let initial = options.initial(&model)?;
        let done = worker::train(options, &train, transport, initial, self.keep.as_ref(), &mut progress);
        let done = done.map_err(|error| self.failure(&error))?;
        if rank == 0 {
            options.keep(&model, &done.params)?;
        }
        let seconds = progress.begun.elapsed().as_secs_f64();
        let verdict = progress.judge.as_mut().map(|(model, test)| model.evaluate(&done.params, test));
        let last = Last { verdict, digest: digest(&done.params), drained: done.drained };
        self.report(Some(last), &done.status, done.steps, done.examples, seconds);
        Ok(())
    }

    /// Of an image.
    fn pixels(&self) -> Result<usize, Failure> {
        let data = match &self.options.data {
            Some(directory) => Data::load(directory),
            None => Data::digits(),
        };
        data.map(|data| data.pixels).map_err(|error| (exit::DATA, format!("data: {error}")))
    }

    fn serve<T: Transport + 'static>(&self, transport: T) -> Result<Status, Failure> {
        let options = &self.options;
        let model = Model::new(self.pixels()?, &options.hidden, options.batch);
        let mut params = options.initial(&model)?;
        let builder = Session::builder(model.layout(), options.recipe, options.cluster)
            .optimizer_vectors(options.optimizer_vectors());
        let rank = transport.place().0.0;
        let builder = options.watched(options.executor.on(builder));
        let builder = if self.quiet { builder } else { builder.watch(move |event| tell(rank, event)) };
        let run = || {
            let mut server = match self.keep.as_ref().filter(|keep| keep.resume) {
                Some(keep) => builder.resume_serving(&keep.directory, transport)?,
                None => builder.serve(transport, &params.clone())?,
            };
            while server.wait(&mut params, Duration::from_millis(200))?.is_none() {}
            if let Some(keep) = &self.keep {
                server.checkpoint(&keep.directory, &params)?;
            }
            server.status()
        };
        run().map_err(|error| self.failure(&error))
    }

    // Transports

    fn tcp(&self, rank: u32) -> Result<gradwire::tcp::Tcp, Failure> {
        let meet = self.place.meet.clone().ok_or_else(|| {
            (exit::USAGE, "--meet: expected HOST:PORT, where rank 0 listens; no launcher has told it".to_string())
        })?;
        let nodes = self.options.cluster.nodes();
        let mut builder = gradwire::tcp::Builder::new(rank, nodes, &meet)
            .cluster(&self.cluster)
            .dead_after(self.dead_after)
            .spin(self.spin)
            .insecure_open(self.insecure_open);
        // Servers beside a worker listen at ports of their own.
        if let Some(listen) = self.listen.as_ref().filter(|_| rank == self.place.rank) {
            builder = builder.listen(listen);
        }
        if let Some(advertise) = self.advertise.as_ref().filter(|_| rank == self.place.rank) {
            builder = builder.advertise(advertise);
        }
        if let Some(key) = &self.key {
            builder = builder.key(key.clone());
        }
        if !self.quiet {
            builder = builder.notices(notice(rank));
        }
        builder.open().map_err(|error| {
            let code = if matches!(error, gradwire::tcp::TcpError::Open { .. }) { exit::AUTH } else { exit::RUN };
            (code, format!("node {rank}: {error}"))
        })
    }

    fn shm(&self, rank: u32) -> Result<gradwire::shm::Shm, Failure> {
        let mut builder = gradwire::shm::Builder::new(rank, self.options.cluster.nodes())
            .cluster(&self.cluster)
            .dead_after(self.dead_after)
            .spin(self.spin);
        if !self.quiet {
            builder = builder.notices(notice(rank));
        }
        builder.open().map_err(|error| (exit::RUN, format!("node {rank}: {error}")))
    }

    // What is said

    fn say(&self, text: &str) {
        if !self.quiet {
            let _ = writeln!(std::io::stderr(), "node {}: {text}", self.place.rank);
        }
    }

    fn failure(&self, error: &Error) -> Failure {
        let code = match error {
            Error::Config(_) | Error::Contract { .. } | Error::Nodes { .. } | Error::Role { .. } => exit::CONFIG,
            Error::Checkpoint(_) => exit::DATA,
            Error::Transport(error) => match error.downcast_ref::<StreamError>() {
                Some(StreamError::Handshake { .. }) => exit::AUTH,
                _ => exit::RUN,
            },
            _ => exit::RUN,
        };
        (code, format!("node {}: {error}", self.place.rank))
    }

    /// The last line: one object, for whoever started this process; or a few words.
    fn report(&self, last: Option<Last>, status: &Status, steps: u64, examples: u64, seconds: f64) {
        let mut out = std::io::stdout();
        if !self.options.json {
            if let Some(Last { verdict: Some((accuracy, loss)), digest, drained }) = last {
                let _ = writeln!(
                    out,
                    "\naccuracy        {:.2} % on the test images\nloss            {loss:.4}\nsteps           {steps} of this \
                     worker{}\ntime            {seconds:.2} s\nparameters      digest {digest:016x}",
                    accuracy * 100.0,
                    if drained { ", then asked to stop" } else { "" },
                );
            }
            return;
        }
        let (accuracy, loss) = last.as_ref().and_then(|last| last.verdict).unwrap_or((-1.0, -1.0));
        let (digest, drained) = last.map_or((0, false), |last| (last.digest, last.drained));
        let _ = writeln!(
            out,
            "{{\"rank\":{},\"steps\":{steps},\"examples\":{examples},\"seconds\":{seconds:.4},\"accuracy\":{accuracy:.4},\
             \"loss\":{loss:.5},\"bytes_sent\":{},\"bytes_dense\":{},\"staleness_sum\":{},\"staleness_count\":{},\
             \"staleness_max\":{},\"density\":{:.6},\"tau\":{:e},\"view\":{},\"reconnects\":{},\"residual_norm\":{:.6},\"clipped\":{:.6},\"merged\":{},\"drained\":{drained},\
             \"digest\":\"{digest:016x}\"}}",
            status.me,
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
            status.counters.merged,
        );
    }
}

struct Last {
    verdict: Option<(f64, f64)>,
    digest: u64,
    drained: bool,
}

/// What a worker says while it trains: rank 0, a line per epoch.
struct Progress<'a> {
    node: &'a Node,
    stop: &'a AtomicBool,
    judge: Option<(Model, Data)>,
    steps: u64,
    begun: Instant,
}

impl Watch for Progress<'_> {
    fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn teller(&self) -> Option<fn(u32, Event)> {
        (!self.node.quiet).then_some(tell)
    }

    fn step(&mut self, steps: u64, _: &mut Session) -> Result<(), Error> {
        if steps == 1 && !self.node.quiet {
            self.node.say("first step done");
        }
        self.steps = steps;
        Ok(())
    }

    fn epoch(&mut self, epoch: u32, loss: f64, params: &[f32], _: &mut Session) -> Result<Option<f64>, Error> {
        let options = &self.node.options;
        let wanted = self.node.progress || !options.json || options.monitor.is_some();
        let Some((model, test)) = self.judge.as_mut().filter(|_| wanted) else { return Ok(None) };
        let (accuracy, _) = model.evaluate(params, test);
        if self.node.progress || !options.json {
            let (steps, seconds) = (self.steps, self.begun.elapsed().as_secs_f64());
            let _ = writeln!(
                std::io::stdout(),
                "epoch {epoch:>3}  accuracy {:>5.1} %  loss {loss:.3}  step {steps:>6}  {seconds:>7.2} s",
                accuracy * 100.0
            );
        }
        Ok(Some(accuracy))
    }
}

fn tell(rank: u32, event: Event) {
    let _ = writeln!(std::io::stderr(), "node {rank}: {event}");
}

fn notice(rank: u32) -> impl FnMut(Notice) + Send + 'static {
    move |notice| {
        let _ = writeln!(std::io::stderr(), "node {rank}: {notice}");
    }
}

/// Flags count more than what a launcher says.
fn place(matches: &ArgMatches) -> Result<Place, Failure> {
    let found = Place::detect().map_err(|error| (exit::USAGE, error.to_string()))?;
    let number = |name: &str| matches.get_one::<u32>(name).copied();
    let meet = matches.get_one::<String>("meet").cloned();
    let place = match (number("rank"), number("processes"), found) {
        (Some(rank), Some(processes), _) => Place { rank, processes, local_rank: None, meet: None, source: "flags" },
        (None, None, Some(place)) => place,
        (None, None, None) => Place { rank: 0, processes: 1, local_rank: None, meet: None, source: "alone" },
        _ => return Err((exit::USAGE, "expected --rank and --processes together, got one of them".to_string())),
    };
    if place.rank >= place.processes {
        return Err((exit::USAGE, format!("--rank: expected less than {}, got {}", place.processes, place.rank)));
    }
    let alone = (place.processes == 1).then(|| "127.0.0.1:0".to_string());
    Ok(Place { meet: meet.or(place.meet).or(alone), ..place })
}

/// From a file, or from the environment; never from the arguments, which everyone on the host can read.
fn key(matches: &ArgMatches) -> Result<Option<Key>, KeyError> {
    let path = matches.get_one::<PathBuf>("key-file").cloned();
    match path.or_else(|| std::env::var_os("GRADWIRE_KEY_FILE").map(PathBuf::from)) {
        Some(path) => Key::from_file(&path).map(Some),
        None => std::env::var("GRADWIRE_KEY").ok().map(|text| Key::parse(&text)).transpose(),
    }
}
