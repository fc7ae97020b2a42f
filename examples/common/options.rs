//! The options of a training: task, recipe, cluster and monitoring. `cluster` and `node` share them.
//!
//! [`training`] adds the flags to a command, and [`Options::from_matches`] checks and converts their values.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use gradwire::monitor::{Announcement, Board};
use gradwire::tcp::Address;
use gradwire::telemetry::Run;
use gradwire::{Builder, Canceller, Cluster, LaunchEnv, Layout, Recipe, RunId, Session};

use super::bad::{Bad, bad_rank};
use super::executor::Executor;
use super::hints::Hints;
use super::paths;
use super::recipes;
use super::task::{self, Task};
use super::tensors;

/// Exit codes. `--help` lists them; 0 is success: the run is done. 128 + n: signal n has ended the process before that.
pub mod exit {
    /// A flag or its value is wrong.
    pub const USAGE: u8 = 2;
    /// The recipe does not fit the cluster, or a peer has another contract.
    pub const CONFIG: u8 = 3;
    /// The run or the network failed.
    pub const RUN: u8 = 4;
    /// A key is missing, unreadable or different from the peers' key.
    pub const AUTH: u8 = 5;
    /// Training data, a parameter file or a checkpoint cannot be used.
    pub const DATA: u8 = 6;
}

/// The checked options of a training.
#[derive(Clone, Debug)]
pub struct Options {
    /// The recipe as it was given, for messages.
    pub name: String,
    pub recipe: Recipe,
    pub cluster: Cluster,
    pub task: task::Name,
    pub epochs: u32,
    /// Examples per step and worker.
    pub batch: usize,
    /// Learning rate of the first epoch.
    pub rate: f32,
    /// Momentum of each worker's optimizer, 0 to 1.
    pub momentum: f32,
    /// Factor on the learning rate after each epoch.
    pub decay: f32,
    /// Sizes of the hidden layers.
    pub hidden: Vec<usize>,
    /// Seed of the data, the order of examples and the initial parameters.
    pub seed: u64,
    /// Directory with images; `None`: the digits in the program.
    pub data: Option<PathBuf>,
    /// The rank of a worker that is slowed down, and the factor.
    pub slow: Option<(u32, f64)>,
    /// The rank of a worker with wrong updates, and the fault in them.
    pub bad: Option<(u32, Bad)>,
    /// Steps per second of each worker; `None`: no limit.
    pub pace: Option<u32>,
    /// How long waits may last: all of them, and by kind to join, of a step, and to leave.
    pub deadline: Option<Duration>,
    pub deadlines: [Option<Duration>; 3],
    /// Cancels the waits of the nodes of this process.
    pub canceller: Canceller,
    /// The smallest number of workers that goes on (tree, ring).
    pub min_workers: Option<u32>,
    /// The run, as the user has named it, and the name for a new one, as the launcher has named its job.
    pub run: Option<RunId>,
    pub job: Option<RunId>,
    /// Directories that tapes are written to, and read from.
    pub record_tape: Option<PathBuf>,
    pub follow_tape: Option<PathBuf>,
    /// Print a JSON object instead of text.
    pub json: bool,
    pub executor: Executor,
    /// The board that nodes of this process publish their status to, if the run is monitored.
    pub monitor: Option<Board>,
    /// How long metrics wait for a last scrape after the run.
    pub linger: Duration,
    /// Lets dtop find the run, until it ends.
    pub announcement: Option<Arc<Announcement>>,
    /// The hints of the nodes of this process.
    pub hints: Hints,
    /// Safetensors file with the initial parameters; `None`: random ones.
    pub init: Option<PathBuf>,
    /// Safetensors file that receives the final parameters.
    pub export: Option<PathBuf>,
}

/// A flag with a value. `unit` is the name of the value in the help text.
pub fn value(name: &'static str, unit: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).value_name(unit)
}

/// A flag with a number and a default.
fn number(name: &'static str, unit: &'static str, default: &'static str, help: &'static str) -> Arg {
    // Negative numbers must reach the range check, since its message names the limits.
    value(name, unit, help).default_value(default).allow_negative_numbers(true)
}

/// A flag for the longest wait of one kind.
fn deadline(name: &'static str, help: &'static str) -> Arg {
    value(name, "SECONDS", help).value_parser(value_parser!(f64))
}

/// The value of a flag in seconds.
///
/// # Errors
/// An exit code and a message, if it is not above 0 or longer than a year.
pub fn seconds(matches: &ArgMatches, name: &str) -> Result<Option<Duration>, (u8, String)> {
    let Some(seconds) = matches.get_one::<f64>(name).copied() else { return Ok(None) };
    if !(seconds > 0.0 && seconds <= 31_536_000.0) {
        return Err((exit::USAGE, format!("--{name}: expected above 0 and at most 31536000 seconds, got {seconds}")));
    }
    Ok(Some(Duration::from_secs_f64(seconds)))
}

/// Adds the flags of a training to a command, in groups.
pub fn training(command: Command) -> Command {
    let command = run_flags(command.next_help_heading("Run"));
    let command = learning_flags(command.next_help_heading("Task and optimizer"));
    recipes::flags(monitor_flags(command.next_help_heading("Monitoring and output")))
}

fn run_flags(command: Command) -> Command {
    command
        .arg(value("recipe", "RECIPE", "Synchronisation method; see the list below").default_value("averaging"))
        .arg(
            value(
                "servers",
                "N",
                "Server nodes; 1 hosts the coordinator of a tree or ring [default: 1 if servers are needed; one beside each \
                 worker if processes exchange at least 65,536 floats for each]",
            )
            .value_parser(value_parser!(u32)),
        )
        .arg(
            value("min-workers", "N", "Workers that must be left for the run to go on [default: half of those before]")
                .value_parser(value_parser!(u32)),
        )
        .arg(value("run", "NAME", "Name of the run: processes and checkpoints of other runs are refused [default: of the job or the peers, else drawn]"))
        .arg(
            value("record-tape", "DIR", "Directory that receives the order of a run without rounds, a file per node")
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(
            value("follow-tape", "DIR", "Directory with the tapes of an earlier run: it is run again, bit for bit")
                .value_parser(value_parser!(PathBuf))
                .conflicts_with("record-tape"),
        )
        .arg(
            value("deadline", "SECONDS", "Longest wait; a silence that a peer has announced does not count [default: 60]")
                .value_parser(value_parser!(f64)),
        )
        .arg(deadline("join-deadline", "Longest wait to join, and of a server for its first worker"))
        .arg(deadline("step-deadline", "Longest wait of a step"))
        .arg(deadline("leave-deadline", "Longest wait to leave, from the last round that is done"))
        .arg(
            value("pace", "N", "Steps per second of each worker [default: no limit]")
                .value_parser(value_parser!(u32).range(1..=1_000_000)),
        )
        .arg(value("slow-rank", "R:FACTOR", "Make the steps of worker R FACTOR times as long, 1 to 1000"))
        .arg(value(
            "bad-rank",
            "R:HOW",
            "Make the updates of worker R wrong: flip (turned round), scale (1000 times as long), or random (-1 to 1)",
        ))
        .arg(
            value("executor", "DEVICE", "Device for updates, means and codecs: cpu, gpu, or auto (a GPU if present)")
                .default_value("cpu")
                .value_parser(["cpu", "gpu", "auto"])
                .hide_possible_values(true),
        )
}

fn learning_flags(command: Command) -> Command {
    command
        .arg(
            value("task", "NAME", "digits: handwritten digits; sequence: generated sequences, for a recurrent network; mixture: generated points of a mixture of Gaussians")
                .default_value(task::Name::Digits.text())
                .value_parser(task::Name::ALL.map(task::Name::text))
                .hide_possible_values(true),
        )
        .arg(number("epochs", "N", "20", "Passes over the data").value_parser(value_parser!(u32).range(1..)))
        .arg(
            number("batch", "N", "16", "Examples per step and worker, 1 to 4096")
                .value_parser(value_parser!(u32).range(1..=4096)),
        )
        .arg(
            value("rate", "RATE", "Learning rate [default: see below the list of recipes]")
                .value_parser(value_parser!(f32)),
        )
        .arg(
            number("decay", "FACTOR", "1", "Factor on the learning rate after each epoch")
                .value_parser(value_parser!(f32)),
        )
        .arg(
            number("momentum", "M", "0", "Momentum of each worker's optimizer, at least 0 and below 1")
                .value_parser(value_parser!(f32)),
        )
        .arg(value("hidden", "N,N", "Sizes of the hidden layers [default: 256,128 for digits, 48 for sequence, 64,64 for mixture]"))
        .arg(
            number("seed", "N", "1", "Seed of the data, the order of examples and the initial parameters")
                .value_parser(value_parser!(u64)),
        )
        .arg(value("data", "DIR", "Directory with IDX files, named as those of MNIST (digits) [default: built in]"))
        .arg(value("init", "FILE", "Safetensors file with the initial parameters [default: random parameters]"))
        .arg(value("export", "FILE", "Safetensors file that receives the final parameters"))
}

/// How long metrics wait for a last scrape, unless `--linger` is given.
const LINGER: Duration = Duration::from_secs(5);

/// The value of `--linger`; unlike other durations, it can be 0.
fn linger(matches: &ArgMatches) -> Result<Duration, (u8, String)> {
    let Some(seconds) = matches.get_one::<f64>("linger").copied() else { return Ok(LINGER) };
    if !(0.0..=3600.0).contains(&seconds) {
        return Err((exit::USAGE, format!("--linger: expected 0 to 3600 seconds, got {seconds}")));
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// Prints a line to stderr: stdout may be a JSON object.
fn say(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The address that a user gives dtop for a listener: with the host as it was given, unless that stands for all addresses.
fn reached(at: std::net::SocketAddr, given: &Address) -> String {
    let host = if at.ip().is_unspecified() { "127.0.0.1".to_string() } else { given.host().to_string() };
    if host.contains(':') { format!("[{host}]:{}", at.port()) } else { format!("{host}:{}", at.port()) }
}

/// The message for a listener that cannot be opened. Beyond loopback, it names the flags that allow it.
fn refused(flag: &str, address: &str, purpose: &str, error: &std::io::Error) -> String {
    match error.kind() == std::io::ErrorKind::PermissionDenied && error.raw_os_error().is_none() {
        true => format!(
            "{flag} {address}: expected a loopback address, {flag}-key-file FILE, or --monitor-open to let every host \
             read it"
        ),
        false if purpose.is_empty() => format!("{flag} {address}: {error}"),
        false => format!("{flag} {address}: {address}{purpose}: {error}"),
    }
}

/// The key in the file that a flag names.
fn monitor_key(matches: &ArgMatches, flag: &str) -> Result<Option<[u8; 32]>, (u8, String)> {
    let path = matches.get_one::<PathBuf>(flag);
    let key = path
        .map(|path| gradwire::tcp::Key::from_file(path).map_err(|error| (exit::AUTH, format!("--{flag}: {error}"))));
    Ok(key.transpose()?.map(|key| key.to_bytes()))
}

fn monitor_flags(command: Command) -> Command {
    command
        .arg(value(
            "monitor",
            "HOST:PORT",
            "Address for dtop, at rank 0; the next port takes the reports of the other processes; port 0: a free one, which is \
             printed",
        ))
        .arg(
            value("monitor-key-file", "FILE", "Key that monitors need, made by node keygen; not the cluster's key")
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(
            Arg::new("monitor-open")
                .long("monitor-open")
                .action(ArgAction::SetTrue)
                .help("Let every host that reaches --monitor or --metrics read them without a key"),
        )
        .arg(value("metrics", "HOST:PORT", "Address that serves OpenMetrics text for Prometheus (rank 0)"))
        .arg(
            value(
                "metrics-key-file",
                "FILE",
                "Key that scrapes need, made by node keygen; Prometheus reads the file as credentials_file",
            )
            .value_parser(value_parser!(PathBuf)),
        )
        .arg(
            value(
                "linger",
                "SECONDS",
                "How long metrics that have been scraped stay for a last scrape after the end [default: 5]",
            )
            .value_parser(value_parser!(f64)),
        )
        .arg(
            value("tensorboard", "DIR", "Directory that receives an event file for TensorBoard (rank 0)")
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(Arg::new("json").long("json").help("Print one JSON object instead of text").action(ArgAction::SetTrue))
}

impl Options {
    /// The options of a command line, for this number of workers. Opens the device of `--executor`.
    ///
    /// # Errors
    /// An exit code and a message, if a value is out of range or the recipe does not fit the cluster.
    pub fn from_matches(matches: &ArgMatches, workers: u32) -> Result<Self, (u8, String)> {
        let usage = |text: String| (exit::USAGE, text);
        let text = |name: &str| matches.get_one::<String>(name).cloned();
        let name = text("recipe").unwrap_or_default();
        if name.trim().is_empty() {
            return Err(usage("--recipe: expected the name of a recipe, got nothing; see --help".to_string()));
        }
        let recipe = recipes::from_matches(&name, matches)?;
        let default_servers = u32::from(recipe.needs_servers());
        let servers = matches.get_one::<u32>("servers").copied().unwrap_or(default_servers);
        let slow = text("slow-rank").map(|value| slow_rank(&value, workers)).transpose().map_err(usage)?;
        let bad = text("bad-rank").map(|value| bad_rank(&value, workers)).transpose().map_err(usage)?;
        let task = task::Name::ALL.into_iter().find(|task| text("task").as_deref() == Some(task.text()));
        let task = task.unwrap_or(task::Name::Digits);
        let hidden = match text("hidden") {
            Some(text) => hidden(&text, task).map_err(usage)?,
            None => task.hidden().to_vec(),
        };
        let data = text("data").map(PathBuf::from);
        if data.is_some() && task != task::Name::Digits {
            return Err(usage("--data: expected --task digits, the other tasks generate their data".to_string()));
        }
        let momentum = matches.get_one::<f32>("momentum").copied().unwrap_or(0.0);
        if !(0.0..1.0).contains(&momentum) {
            return Err(usage(format!("--momentum: expected at least 0 and below 1, got {momentum}")));
        }
        // Momentum lets steps go 1 / (1 - momentum) times as far.
        let default = recipe.learning_rate(task.rate() * (1.0 - momentum), workers);
        let rate = matches.get_one::<f32>("rate").copied().unwrap_or(default);
        if !(rate.is_finite() && rate > 0.0) {
            return Err(usage(format!("--rate: expected a finite number above 0, got {rate}")));
        }
        if let Some(fewest) = matches.get_one::<u32>("min-workers").copied().filter(|fewest| *fewest > workers) {
            let text = format!("--min-workers: expected at most the number of workers ({workers}), got {fewest}");
            return Err((exit::CONFIG, text));
        }
        let export = text("export").map(PathBuf::from);
        // Found out before the training, and not after it.
        let tape = |flag: &str, expected: &str, path: &PathBuf, error: std::io::Error| {
            (exit::DATA, format!("--{flag}: expected {expected}, got {} ({error})", path.display()))
        };
        let record_tape = matches.get_one::<PathBuf>("record-tape").cloned();
        if let Some(path) = &record_tape {
            let expected = "a directory in which files can be created";
            paths::try_directory(path).map_err(|error| tape("record-tape", expected, path, error))?;
        }
        let follow_tape = matches.get_one::<PathBuf>("follow-tape").cloned();
        if let Some(path) = &follow_tape {
            let read = std::fs::read_dir(path).map(drop);
            read.map_err(|error| tape("follow-tape", "a directory with tapes", path, error))?;
        }
        if let Some(path) = &export {
            paths::try_file(path).map_err(|error| {
                (exit::DATA, format!("--export: expected a file that can be written, got {} ({error})", path.display()))
            })?;
        }
        let decay = matches.get_one::<f32>("decay").copied().unwrap_or(1.0);
        if !(decay > 0.0 && decay <= 1.0) {
            return Err(usage(format!("--decay: expected above 0 and at most 1, got {decay}")));
        }
        let cluster = Cluster { workers, servers };
        let named = text("run").map(|run| run.parse().map_err(|error| usage(format!("--run: {error}")))).transpose()?;
        let run = match named {
            Some(run) => Some(run),
            None => LaunchEnv::run().map_err(|error| usage(format!("GRADWIRE_RUN: {error}")))?,
        };
        // The length of the vector is not known before the data are loaded. The session checks it again.
        let too_long = |fault: &gradwire::ConfigError| matches!(fault, gradwire::ConfigError::TooLong { .. });
        let faults = recipe.faults(cluster, usize::MAX / 8).into_iter().filter(|fault| !too_long(fault));
        let faults: Vec<String> = faults.map(|fault| fault.to_string()).collect();
        if !faults.is_empty() {
            return Err((exit::CONFIG, faults.join("; ")));
        }
        Ok(Self {
            name,
            recipe,
            cluster,
            task,
            epochs: matches.get_one::<u32>("epochs").copied().unwrap_or(20),
            batch: matches.get_one::<u32>("batch").copied().unwrap_or(16) as usize,
            rate,
            momentum,
            decay,
            hidden,
            seed: matches.get_one::<u64>("seed").copied().unwrap_or(1),
            data,
            slow,
            bad,
            pace: matches.get_one::<u32>("pace").copied(),
            deadline: seconds(matches, "deadline")?,
            deadlines: [
                seconds(matches, "join-deadline")?,
                seconds(matches, "step-deadline")?,
                seconds(matches, "leave-deadline")?,
            ],
            canceller: Canceller::new(),
            min_workers: matches.get_one::<u32>("min-workers").copied(),
            run,
            job: LaunchEnv::job(),
            record_tape,
            follow_tape,
            json: matches.get_flag("json"),
            monitor: None,
            linger: linger(matches)?,
            announcement: None,
            hints: Hints::default(),
            executor: Executor::from_name(&text("executor").unwrap_or_default())?,
            init: text("init").map(PathBuf::from),
            export,
        })
    }

    /// Puts a server beside each worker, if the user has chosen neither the servers nor the shards, and the vector of `len`
    /// floats is long enough: see [`Recipe::spread`].
    pub fn spread(&mut self, matches: &ArgMatches, len: usize) {
        let named = |name: &str| matches.get_one::<String>(name).is_some_and(|text| text.contains("shards="));
        let chosen = matches.contains_id("servers") || matches.contains_id("shards") || named("recipe");
        if !chosen {
            (self.recipe, self.cluster) = match self.recipe.needs_servers() {
                true => self.recipe.spread(self.cluster.workers, len),
                false => (self.recipe, self.cluster),
            };
        }
    }

    /// Starts monitoring, if a flag asks for it. The process of rank 0 serves monitors and collects the reports of the
    /// other processes, which publish theirs. `place`: rank of this process, and the number of processes; `None`: all
    /// nodes run in this process. Prints the addresses to stderr, since the system chooses a port for port 0.
    ///
    /// # Errors
    /// An exit code and a message, if an address, a directory or the key cannot be used.
    pub fn start_monitoring(
        &mut self,
        matches: &ArgMatches,
        place: Option<(u32, u32)>,
        parameters: usize,
    ) -> Result<(), (u8, String)> {
        let rank = place.map(|(rank, _)| rank);
        let (metrics, tensorboard) = (
            matches.get_one::<String>("metrics"),
            matches.get_one::<PathBuf>("tensorboard").filter(|_| rank.unwrap_or(0) == 0),
        );
        let address = matches.get_one::<String>("monitor");
        if address.is_none() && metrics.is_none() && tensorboard.is_none() {
            return Ok(());
        }
        let board = Board::new(Run {
            recipe: self.recipe.to_string(),
            workers: self.cluster.workers,
            servers: self.cluster.servers,
            parameters: parameters as u64,
            name: self.run,
        });
        self.monitor = Some(board.clone());
        let open = matches.get_flag("monitor-open");
        if let Some(metrics) = metrics.filter(|_| rank.unwrap_or(0) == 0) {
            metrics
                .parse::<Address>()
                .map_err(|error| (exit::USAGE, format!("--metrics: expected HOST:PORT, got {metrics:?} ({error})")))?;
            let at = board
                .serve_metrics(metrics.as_str(), monitor_key(matches, "metrics-key-file")?, open)
                .map_err(|error| (exit::RUN, refused("--metrics", metrics, "", &error)))?;
            say(&format!("metrics at http://{at}/metrics"));
        }
        if let Some(directory) = tensorboard {
            let failed = |error| (exit::RUN, format!("--tensorboard {}: {error}", directory.display()));
            board.tensorboard(directory).map_err(failed)?;
            say(&format!("events for TensorBoard in {}", directory.display()));
        }
        let Some(text) = address else { return Ok(()) };
        let usage = |error: &dyn std::fmt::Display| {
            (exit::USAGE, format!("--monitor: expected HOST:PORT, got {text:?} ({error})"))
        };
        let address = text.parse::<Address>().map_err(|error| usage(&error))?;
        let port = address.port().checked_add(1).ok_or_else(|| usage(&"no port is left for the reports"))?;
        // The two ports of a monitor fail for different reasons: a message names the one that was tried.
        let failed = |what: &str, error: std::io::Error| (exit::RUN, format!("--monitor {text}: {what}: {error}"));
        let key = monitor_key(matches, "monitor-key-file")?;
        let several = place.is_some_and(|(_, processes)| processes > 1);
        if address.port() == 0 && several {
            let example = address.with_port(7700);
            let text = format!(
                "--monitor: expected a port that all processes know, such as {example}, got \"{text}\": only launch, \
                 cluster, and a process alone choose one"
            );
            return Err((exit::USAGE, text));
        }
        let reports = address.with_port(port).to_string();
        let of_reports = format!("{reports} for the reports of the other processes");
        if rank.is_some_and(|rank| rank > 0) {
            return board.publish(reports, key).map_err(|error| failed(&of_reports, error));
        }
        let at = board
            .serve(text.as_str(), key, open)
            .map_err(|error| (exit::RUN, refused("--monitor", text, " for dtop", &error)))?;
        if several {
            let at = board.gather(reports.as_str(), key, open).map_err(|error| failed(&of_reports, error))?;
            say(&format!("reports of the other processes at {at}"));
        }
        // Monitors that are given the address do not need the file.
        self.announcement = board.announce(at, key.is_some()).ok().map(Arc::new);
        let path = matches.get_one::<PathBuf>("monitor-key-file");
        let with_key = path.map_or_else(String::new, |path| format!(" --key-file {}", path.display()));
        say(&format!("watch with: dtop {}{with_key}", reached(at, &address)));
        Ok(())
    }

    /// Writes the last values of all monitoring outputs. For the end of a process, after its nodes have finished.
    pub fn end_monitoring(&self) {
        if let Some(board) = &self.monitor {
            board.flush(self.linger);
        }
    }

    /// The settings that all nodes of the run have in common. A node publishes its status if the run is monitored.
    pub fn builder(&self, layout: Layout) -> Builder {
        let builder = Session::builder(layout, self.recipe, self.cluster).optimizer_vectors(self.optimizer_vectors());
        let builder = self.executor.on(self.min_workers.into_iter().fold(builder, Builder::min_workers));
        let [join, step, leave] = self.deadlines;
        let builder = self.deadline.into_iter().fold(builder, Builder::deadline);
        let builder = join.into_iter().fold(builder, Builder::join_deadline);
        let builder = step.into_iter().fold(builder, Builder::step_deadline);
        let builder = leave.into_iter().fold(builder, Builder::leave_deadline).canceller(&self.canceller);
        let builder = self.run.into_iter().fold(builder, Builder::run);
        let builder = self.job.into_iter().fold(builder, Builder::job);
        let builder = self.record_tape.iter().fold(builder, Builder::record_tape);
        let builder = self.follow_tape.iter().fold(builder, Builder::follow_tape);
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        match &self.monitor {
            Some(board) => builder.publish_to(board.clone(), host.trim()),
            None => builder,
        }
    }

    /// The task with its data.
    ///
    /// # Errors
    /// An exit code and a message, if the data cannot be used, or are too few for the workers.
    pub fn open(&self) -> Result<Box<dyn Task>, (u8, String)> {
        let task = self.task.open(&self.hidden, self.seed, self.data.as_deref());
        let task = task.map_err(|error| (exit::DATA, format!("--data: {error}")))?;
        if task.examples() < self.cluster.workers as usize {
            let text = format!("workers: expected at most {} (one example each)", task.examples());
            return Err((exit::CONFIG, text));
        }
        Ok(task)
    }

    /// The number of synchronisations of each worker in the whole run.
    pub fn messages(&self, task: &dyn Task) -> u64 {
        let share = task.examples() / self.cluster.workers as usize;
        let steps = u64::from(self.epochs) * share.div_ceil(self.batch) as u64;
        let (mut step, mut messages) = (0, 0);
        while step < steps {
            step += u64::from(self.recipe.period().at(step));
            messages += 1;
        }
        messages
    }

    /// Collects the hints that follow from the recipe, and prints them unless `quiet`.
    pub fn hint(&self, task: &dyn Task, quiet: bool) {
        for hint in self.recipe.hints(Some(self.messages(task))) {
            self.hints.report(&hint.to_string(), quiet);
        }
    }

    /// The initial parameters: from `--init`, or random.
    pub fn initial(&self, task: &dyn Task) -> Result<Vec<f32>, (u8, String)> {
        let mut params = task.initial(self.seed);
        let Some(path) = &self.init else { return Ok(params) };
        let read = tensors::import(&task.layout(), path, &mut params);
        read.map(|()| params).map_err(|error| (exit::DATA, format!("--init {error}")))
    }

    /// Writes the final parameters to the file of `--export`, if it is set.
    pub fn write_export(&self, task: &dyn Task, params: &[f32]) -> Result<(), (u8, String)> {
        let Some(path) = &self.export else { return Ok(()) };
        tensors::export(&task.layout(), params, path).map_err(|error| (exit::DATA, format!("--export {error}")))
    }

    /// The number of optimizer vectors that are averaged or carried: 1 (the momentum) for `--optimizer average` and
    /// `--payload gradients`, else 0.
    pub fn optimizer_vectors(&self) -> u32 {
        use gradwire::recipe::{OptimizerState, Payload};
        let (payload, optimizer) = (self.recipe.payload(), self.recipe.optimizer());
        u32::from(payload == Payload::Gradients || optimizer == OptimizerState::Average)
    }
}

/// Parses the value of `--slow-rank`, `R:FACTOR`.
fn slow_rank(text: &str, workers: u32) -> Result<(u32, f64), String> {
    let parsed = text.split_once(':').and_then(|(rank, factor)| Some((rank.parse().ok()?, factor.parse().ok()?)));
    match parsed {
        Some((rank, factor)) if rank < workers && (1.0..=1000.0).contains(&factor) => Ok((rank, factor)),
        _ => Err(format!(
            "--slow-rank: expected R:FACTOR with R below {workers} and FACTOR from 1 to 1000, got {text:?}"
        )),
    }
}

/// Parses the value of `--hidden`.
///
/// # Errors
/// A message that names the flag.
pub fn hidden(text: &str, task: task::Name) -> Result<Vec<usize>, String> {
    let sizes: Result<Vec<usize>, _> = text.split(',').filter(|size| !size.is_empty()).map(str::parse).collect();
    let sizes = sizes.ok().filter(|sizes| sizes.iter().all(|size| (1..=65_536).contains(size)));
    let sizes = sizes.ok_or("--hidden: expected sizes from 1 to 65536, separated by commas")?;
    match task {
        task::Name::Sequence if sizes.len() != 1 => {
            Err(format!("--hidden: expected one size with --task sequence, got {}", sizes.len()))
        }
        _ => Ok(sizes),
    }
}
