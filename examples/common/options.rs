//! The options of a training: model, data, recipe, cluster and monitoring. `cluster` and `node` share them.
//!
//! [`training`] adds the flags to a command, and [`Options::from_matches`] checks and converts their values.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use gradwire::monitor::Board;
use gradwire::recipe::{PRESETS, Payload};
use gradwire::telemetry::Run;
use gradwire::{Builder, Cluster, Recipe};

use super::executor::Executor;
use super::model::Model;
use super::tensors;

/// Exit codes. `--help` lists them; 0 is success, and 130 the end after Ctrl-C.
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
    /// Seed of the split of the data, the order of examples and the initial parameters.
    pub seed: u64,
    /// Directory of the training data; `None`: the digits in the program.
    pub data: Option<PathBuf>,
    /// The rank of a worker that is slowed down, and the factor.
    pub slow: Option<(u32, f64)>,
    /// Steps per second of each worker; `None`: no limit.
    pub pace: Option<u32>,
    /// Seconds that a wait may last.
    pub deadline: u64,
    /// The smallest number of workers that goes on (tree, ring).
    pub min_workers: u32,
    /// Print a JSON object instead of text.
    pub json: bool,
    pub executor: Executor,
    /// The board that nodes of this process publish their status to, if the run is monitored.
    pub monitor: Option<Board>,
    /// Safetensors file with the initial parameters; `None`: random ones.
    pub init: Option<PathBuf>,
    /// Safetensors file that receives the final parameters.
    pub export: Option<PathBuf>,
}

/// Flags that change one setting of the recipe: flag, key in the recipe's text form, help text.
const RECIPE_FLAGS: &[(&str, &str, &str)] = &[
    ("topology", "topology", "Nodes between which vectors travel: servers, tree, ring or mesh"),
    ("period", "period", "Local steps between synchronisations (H), or a schedule such as 1,10@500"),
    ("bound", "bound", "Clocks that a worker may be ahead of the slowest one (ssp)"),
    ("updates", "updates", "Updates per application, c in the paper (softsync)"),
    ("lambda", "lambda", "Factor on every update (async, ssp)"),
    ("staleness", "staleness", "Scaling of late updates: const, inverse, inverse-plus-one, exp or poly"),
    ("drop-above", "drop_above", "Staleness above which updates are dropped"),
    ("overlap", "overlap", "true: compute while the last update is in flight (async, softsync)"),
    ("codec", "codec", "Encoding of updates: f32, bf16, f16, int8, sign, threshold or topk"),
    ("pull", "pull", "Encoding of the parameters from servers, as --codec; any but f32 sends differences"),
    ("tau", "tau", "Threshold, a power of two; the first one, if a control changes it (threshold)"),
    ("control", "control", "Control of the threshold: fixed, band (as in DL4J), density or budget"),
    ("density", "density", "Share of the elements to send, above 0 and at most 1 (threshold, topk)"),
    ("byte-budget", "budget", "Limit of a message in bytes, except dense first ones and the last (threshold)"),
    ("scope", "scope", "all: one threshold for the vector; tensor: one per tensor"),
    ("clip", "clip", "Limit of the residual, in thresholds; the excess is lost and counted; 0: no limit"),
    ("momentum-correction", "momentum", "Momentum before the residual, reset where it is sent (threshold, topk)"),
    ("warmup", "warmup", "Number of dense messages at the start (threshold, topk)"),
    ("ramp", "ramp", "Messages over which the density falls from 25 % to its target"),
    ("starters", "starters", "Number of ranks that begin before the rest (mesh)"),
    ("head-start", "head_start", "Messages of the starters before the rest begins"),
    ("pull-tau", "pull_tau", "As --tau, for --pull"),
    ("pull-density", "pull_density", "As --density, for --pull"),
    ("relay", "relay", "Children per relay; 0: every worker sends to every other one (mesh)"),
    ("fan-in", "fan_in", "Children per node (tree)"),
    ("chunk", "chunk", "Largest message in floats (tree, ring)"),
    ("shards", "shards", "Ranges into which the parameters are cut (recipes with servers)"),
    ("optimizer", "optimizer", "Momentum at a synchronisation: keep, reset or average (averaging)"),
];

/// The list of recipes and of exit codes, for the end of a help text.
pub fn recipes() -> String {
    let recipes: Vec<String> = PRESETS.iter().map(|preset| format!("  {:<12} {}", preset.name, preset.about)).collect();
    format!(
        "Recipes (a recipe with changes is one argument: \"ssp bound=5 shards=2\"):\n{}\n\n\
         Exit codes:\n  0  success\n  2  wrong usage\n  3  recipe, cluster or contract do not fit\n  \
         4  the run or the network failed\n  5  key\n  6  data, parameter file or checkpoint",
        recipes.join("\n")
    )
}

/// A flag with a value. `unit` is the name of the value in the help text.
pub fn value(name: &'static str, unit: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).value_name(unit)
}

/// A flag with a number and a default.
fn number(name: &'static str, unit: &'static str, default: &'static str, help: &'static str) -> Arg {
    // Negative numbers must reach the range check, whose message names the limits.
    value(name, unit, help).default_value(default).allow_negative_numbers(true)
}

/// Adds the flags of a training to a command, in groups.
pub fn training(command: Command) -> Command {
    let command = run_flags(command.next_help_heading("Run"));
    let command = learning_flags(command.next_help_heading("Model, data and optimizer"));
    let mut command = monitor_flags(command.next_help_heading("Monitoring and output"));
    for (flag, _, help) in RECIPE_FLAGS {
        let arg = value(flag, "VALUE", help).help_heading("Settings of the recipe [default: the recipe's own]");
        command = command.arg(arg.allow_negative_numbers(true));
    }
    command
}

fn run_flags(command: Command) -> Command {
    command
        .arg(value("recipe", "RECIPE", "Synchronisation method; see the list below").default_value("averaging"))
        .arg(
            value(
                "servers",
                "N",
                "Server nodes; 1 hosts the coordinator of a tree or ring [default: 1 if servers are needed]",
            )
            .value_parser(value_parser!(u32)),
        )
        .arg(
            value("min-workers", "N", "Workers that must be left for the run to go on (tree, ring) [default: 1]")
                .value_parser(value_parser!(u32)),
        )
        .arg(number("deadline", "SECONDS", "60", "Longest wait").value_parser(value_parser!(u64).range(1..)))
        .arg(
            value("pace", "N", "Steps per second of each worker [default: no limit]")
                .value_parser(value_parser!(u32).range(1..=1_000_000)),
        )
        .arg(value("slow-rank", "R:FACTOR", "Make the steps of worker R FACTOR times as long, 1 to 1000"))
        .arg(
            value("executor", "DEVICE", "Device for updates, means and codecs: cpu, gpu, or auto (a GPU if present)")
                .default_value("cpu")
                .value_parser(["cpu", "gpu", "auto"])
                .hide_possible_values(true),
        )
}

fn learning_flags(command: Command) -> Command {
    command
        .arg(number("epochs", "N", "20", "Passes over the data").value_parser(value_parser!(u32).range(1..)))
        .arg(
            number("batch", "N", "16", "Examples per step and worker, 1 to 4096")
                .value_parser(value_parser!(u32).range(1..=4096)),
        )
        .arg(value("rate", "RATE", "Learning rate [default: depends on the recipe]").value_parser(value_parser!(f32)))
        .arg(
            number("decay", "FACTOR", "1", "Factor on the learning rate after each epoch")
                .value_parser(value_parser!(f32)),
        )
        .arg(
            number("momentum", "M", "0", "Momentum of each worker's optimizer, at least 0 and below 1")
                .value_parser(value_parser!(f32)),
        )
        .arg(value("hidden", "N,N", "Sizes of the hidden layers").default_value("256,128"))
        .arg(
            number("seed", "N", "1", "Seed of the split, the order of examples and the initial parameters")
                .value_parser(value_parser!(u64)),
        )
        .arg(value("data", "DIR", "Directory with IDX files, named as those of MNIST [default: built-in digits]"))
        .arg(value("init", "FILE", "Safetensors file with the initial parameters [default: random parameters]"))
        .arg(value("export", "FILE", "Safetensors file that receives the final parameters"))
}

fn monitor_flags(command: Command) -> Command {
    command
        .arg(value(
            "monitor",
            "HOST:PORT",
            "Address for dtop, at rank 0; the next port takes the reports of the other processes",
        ))
        .arg(
            value("monitor-key-file", "FILE", "Key that monitors need, made by node keygen; not the cluster's key")
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(value("metrics", "HOST:PORT", "Loopback address that serves OpenMetrics text for Prometheus (rank 0)"))
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
        let mut recipe: Recipe = name.parse().map_err(|error| usage(format!("{error}")))?;
        for (flag, key, _) in RECIPE_FLAGS {
            if let Some(value) = text(flag) {
                recipe.set(key, &value).map_err(|error| usage(format!("--{flag}: {error}")))?;
            }
        }
        let default_servers = u32::from(recipe.needs_servers());
        let servers = matches.get_one::<u32>("servers").copied().unwrap_or(default_servers);
        let slow = text("slow-rank").map(|value| slow_rank(&value, workers)).transpose().map_err(usage)?;
        let hidden = text("hidden").unwrap_or_default();
        let hidden: Result<Vec<usize>, _> = hidden.split(',').filter(|size| !size.is_empty()).map(str::parse).collect();
        let hidden = hidden.ok().filter(|sizes| sizes.iter().all(|size| (1..=65_536).contains(size)));
        let hidden =
            hidden.ok_or_else(|| usage("--hidden: expected sizes from 1 to 65536, separated by commas".into()))?;
        let momentum = matches.get_one::<f32>("momentum").copied().unwrap_or(0.0);
        if !(0.0..1.0).contains(&momentum) {
            return Err(usage(format!("--momentum: expected at least 0 and below 1, got {momentum}")));
        }
        let rate = matches.get_one::<f32>("rate").copied().unwrap_or_else(|| default_rate(&recipe, workers));
        if !(rate.is_finite() && rate > 0.0) {
            return Err(usage(format!("--rate: expected a finite number above 0, got {rate}")));
        }
        let decay = matches.get_one::<f32>("decay").copied().unwrap_or(1.0);
        if !(decay > 0.0 && decay <= 1.0) {
            return Err(usage(format!("--decay: expected above 0 and at most 1, got {decay}")));
        }
        let cluster = Cluster { workers, servers };
        // The length of the vector is not known before the data are loaded. The session checks it again.
        recipe.check_cluster(cluster, usize::MAX / 8).or_else(|error| match error {
            gradwire::ConfigError::TooLong { .. } => Ok(()),
            error => Err((exit::CONFIG, error.to_string())),
        })?;
        Ok(Self {
            name,
            recipe,
            cluster,
            epochs: matches.get_one::<u32>("epochs").copied().unwrap_or(20),
            batch: matches.get_one::<u32>("batch").copied().unwrap_or(16) as usize,
            rate,
            momentum,
            decay,
            hidden,
            seed: matches.get_one::<u64>("seed").copied().unwrap_or(1),
            data: text("data").map(PathBuf::from),
            slow,
            pace: matches.get_one::<u32>("pace").copied(),
            deadline: matches.get_one::<u64>("deadline").copied().unwrap_or(60),
            min_workers: matches.get_one::<u32>("min-workers").copied().unwrap_or(1),
            json: matches.get_flag("json"),
            monitor: None,
            executor: Executor::from_name(&text("executor").unwrap_or_default())?,
            init: text("init").map(PathBuf::from),
            export: text("export").map(PathBuf::from),
        })
    }

    /// Starts monitoring, if a flag asks for it. The process of rank 0 serves monitors and collects the reports of the
    /// other processes, which publish theirs. `rank`: of this process; `None`: all nodes run in this process.
    ///
    /// # Errors
    /// An exit code and a message, if an address, a directory or the key cannot be used.
    pub fn start_monitoring(
        &mut self,
        matches: &ArgMatches,
        rank: Option<u32>,
        parameters: usize,
    ) -> Result<(), (u8, String)> {
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
        });
        self.monitor = Some(board.clone());
        if let Some(metrics) = metrics.filter(|_| rank.unwrap_or(0) == 0) {
            board
                .serve_metrics(metrics.as_str(), false)
                .map_err(|error| (exit::RUN, format!("--metrics {metrics}: {error}")))?;
        }
        if let Some(directory) = tensorboard {
            let failed = |error| (exit::RUN, format!("--tensorboard {}: {error}", directory.display()));
            board.tensorboard(directory).map_err(failed)?;
        }
        let Some(address) = address else { return Ok(()) };
        let failed = |error: std::io::Error| (exit::RUN, format!("--monitor {address}: {error}"));
        let key = matches.get_one::<PathBuf>("monitor-key-file").map(|path| {
            let key = gradwire::tcp::Key::from_file(path).map_err(|error| (exit::AUTH, error.to_string()))?;
            Ok::<_, (u8, String)>(key.to_bytes())
        });
        let key = key.transpose()?;
        let (host, port) = address
            .rsplit_once(':')
            .ok_or_else(|| (exit::USAGE, format!("--monitor: expected HOST:PORT, got {address:?}")))?;
        let port: u16 = port.parse().map_err(|_| (exit::USAGE, format!("--monitor: expected a port, got {port:?}")))?;
        let reports = format!("{host}:{}", port.saturating_add(1));
        match rank {
            Some(rank) if rank > 0 => board.publish(reports, key).map_err(failed)?,
            _ => {
                board.serve(address.as_str(), key, false).map_err(failed)?;
                if rank.is_some() {
                    board.gather(reports.as_str(), key, false).map_err(failed)?;
                }
            }
        }
        Ok(())
    }

    /// Lets a node publish its status, if the run is monitored.
    pub fn with_monitoring(&self, builder: Builder) -> Builder {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        match &self.monitor {
            Some(board) => builder.publish_to(board.clone(), host.trim()),
            None => builder,
        }
    }

    /// The initial parameters: from `--init`, or random.
    pub fn initial(&self, model: &Model) -> Result<Vec<f32>, (u8, String)> {
        let mut params = model.initial(self.seed);
        let Some(path) = &self.init else { return Ok(params) };
        let read = tensors::import(&model.layout(), path, &mut params);
        read.map(|()| params).map_err(|error| (exit::DATA, format!("--init {error}")))
    }

    /// Writes the final parameters to the file of `--export`, if it is set.
    pub fn write_export(&self, model: &Model, params: &[f32]) -> Result<(), (u8, String)> {
        let Some(path) = &self.export else { return Ok(()) };
        tensors::export(&model.layout(), params, path).map_err(|error| (exit::DATA, format!("--export {error}")))
    }

    /// The number of optimizer vectors that are averaged: 1 (the momentum) for `--optimizer average`, else 0.
    pub fn optimizer_vectors(&self) -> u32 {
        u32::from(self.recipe.optimizer() == gradwire::recipe::OptimizerState::Average)
    }
}

/// Parses a command line. The text of `--help` is returned as an error with code 0.
pub fn matches(command: Command, args: Vec<std::ffi::OsString>) -> Result<ArgMatches, (u8, String)> {
    command.try_get_matches_from(args).map_err(|error| {
        let code = if error.use_stderr() { exit::USAGE } else { 0 };
        (code, error.to_string())
    })
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

/// The default learning rate. The mean of N workers' updates is a step on a batch that is N times as large, so
/// synchronous means use N times the rate of one worker, at most 0.4 (Goyal et al. 2017); averaged parameters use
/// sqrt(N) times.
///
/// Softsync divides by c and by the staleness + 1, so it could take a higher rate if all workers had the same pace. But
/// between processes some updates are a dozen versions old, and with a higher rate one run in thirty ended four points
/// below the rest.
fn default_rate(recipe: &Recipe, workers: u32) -> f32 {
    use gradwire::recipe::{Merge, Pace};
    let base = 0.1;
    let n = workers as f32;
    match (recipe.payload(), recipe.merge(), recipe.pace()) {
        (Payload::Parameters, ..) => base * n.sqrt(),
        (_, Merge::Mean, Pace::Synchronous) => (base * n).min(0.4),
        _ => base,
    }
}
