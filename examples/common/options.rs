//! What is trained and by which rule, from the command line: the same for threads and for processes.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use gradwire::monitor::Board;
use gradwire::recipe::{PRESETS, Payload};
use gradwire::telemetry::Run;
use gradwire::{Builder, Cluster, Recipe};

use super::executor::Executor;
use super::model::Model;
use super::tensors;

/// Exit codes, as `--help` lists them.
pub mod exit {
    pub const USAGE: u8 = 2;
    pub const CONFIG: u8 = 3;
    pub const RUN: u8 = 4;
    pub const AUTH: u8 = 5;
    pub const DATA: u8 = 6;
}

#[derive(Clone, Debug)]
pub struct Options {
    pub name: String,
    pub recipe: Recipe,
    pub cluster: Cluster,
    pub epochs: u32,
    pub batch: usize,
    pub rate: f32,
    pub momentum: f32,
    /// Factor on the learning rate after each epoch.
    pub decay: f32,
    pub hidden: Vec<usize>,
    pub seed: u64,
    pub data: Option<PathBuf>,
    /// Rank and factor.
    pub slow: Option<(u32, f64)>,
    /// Steps per second of each worker, to watch.
    pub pace: Option<u32>,
    pub deadline: u64,
    /// Fewest workers that go on (tree, ring).
    pub min_workers: u32,
    pub json: bool,
    pub executor: Executor,
    /// What monitors are told is left there.
    pub monitor: Option<Board>,
    /// Safetensors to begin with, and to end with.
    pub init: Option<PathBuf>,
    pub export: Option<PathBuf>,
}

/// The recipe's own knobs: flag, key of the recipe's text form, meaning.
const KNOBS: &[(&str, &str, &str)] = &[
    ("topology", "topology", "servers, tree, ring or mesh [default: the recipe's]"),
    ("period", "period", "Local steps between synchronisations (H), or a schedule: 1,10@500"),
    ("bound", "bound", "Largest lead over the slowest worker (ssp)"),
    ("updates", "updates", "Updates per application (softsync's c)"),
    ("lambda", "lambda", "Factor on every update (async, ssp)"),
    ("staleness", "staleness", "const, inverse, inverse-plus-one, exp or poly"),
    ("drop-above", "drop_above", "Drop updates staler than this"),
    ("overlap", "overlap", "true: compute while the last update travels (async, softsync)"),
    ("codec", "codec", "How updates are written: f32, bf16, f16, int8, sign, threshold or topk"),
    ("pull", "pull", "How servers write parameters: the same, as differences"),
    ("tau", "tau", "Quantum, a power of two; the one to start with, unless it is fixed (threshold)"),
    ("control", "control", "Who chooses the threshold: fixed, band (DL4J's), density or budget"),
    ("density", "density", "Share of the parameters to send, above 0 and at most 1 (threshold, topk)"),
    ("byte-budget", "budget", "Bytes that no body may exceed, but for dense first ones and the last (threshold)"),
    ("scope", "scope", "all: one threshold; tensor: one for each"),
    ("clip", "clip", "Cut the residual to so many thresholds, and lose the rest; 0 keeps all"),
    ("momentum-correction", "momentum", "Momentum before the residual, forgotten where it is sent (threshold, topk)"),
    ("warmup", "warmup", "First messages that are dense (threshold, topk)"),
    ("ramp", "ramp", "Messages over which the density comes down from 25 %"),
    ("starters", "starters", "Ranks that begin alone (mesh)"),
    ("head-start", "head_start", "Messages of theirs before the others join in"),
    ("pull-tau", "pull_tau", "As --tau, for --pull"),
    ("pull-density", "pull_density", "As --density, for --pull"),
    ("relay", "relay", "Children per relay, 0 for everyone to everyone (mesh)"),
    ("fan-in", "fan_in", "Children per node (tree)"),
    ("chunk", "chunk", "Most floats of a message (tree, ring)"),
    ("shards", "shards", "Ranges of the parameters (recipes with servers)"),
    ("optimizer", "optimizer", "keep, reset or average the momentum (averaging)"),
];

/// Recipes and exit codes, for the end of a help text.
pub fn recipes() -> String {
    let recipes: Vec<String> = PRESETS.iter().map(|preset| format!("  {:<12} {}", preset.name, preset.about)).collect();
    format!(
        "Recipes:\n{}\n  or any recipe in full, for instance \"ssp bound=5 shards=2\"\n\n\
         Exit codes: 0 done, 2 usage, 3 recipe, cluster or contract, 4 run or network failed, 5 key, 6 data",
        recipes.join("\n")
    )
}

pub fn value(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).value_name("VALUE")
}

/// Adds the flags of a training to a command.
pub fn training(command: Command) -> Command {
    let number =
        |name, default: &'static str, help| value(name, help).default_value(default).allow_negative_numbers(true);
    let mut command = command
        .arg(
            value("servers", "Nodes that hold shards [default: 1 for recipes with servers]; of a tree or ring: 1 to coordinate and nothing else")
                .value_parser(value_parser!(u32)),
        )
        .arg(value("recipe", "By which rule").default_value("averaging"))
        .arg(number("epochs", "20", "Passes over the training data").value_parser(value_parser!(u32).range(1..)))
        .arg(number("batch", "16", "Examples per step and worker").value_parser(value_parser!(u32).range(1..=4096)))
        .arg(value("rate", "Learning rate [default: by recipe]").value_parser(value_parser!(f32)))
        .arg(number("momentum", "0", "Momentum of each worker's optimizer").value_parser(value_parser!(f32)))
        .arg(number("decay", "1", "Factor on the learning rate after each epoch").value_parser(value_parser!(f32)))
        .arg(value("hidden", "Sizes of the hidden layers").default_value("256,128"))
        .arg(number("seed", "1", "Seed of split, order and initial parameters").value_parser(value_parser!(u64)))
        .arg(value("data", "Directory with MNIST-style IDX files [default: the digits that come along]"))
        .arg(value("slow-rank", "R:FACTOR, makes worker R that many times slower"))
        .arg(
            value("pace", "Steps per second of each worker, to watch [default: as fast as it goes]")
                .value_parser(value_parser!(u32).range(1..=1_000_000)),
        )
        .arg(number("deadline", "60", "Seconds that any wait may last").value_parser(value_parser!(u64).range(1..)))
        .arg(value("init", "Safetensors file with the parameters to begin with [default: random ones]"))
        .arg(value("export", "Safetensors file that gets the parameters at the end"))
        .arg(
            value("min-workers", "Fewest workers that go on without the others (tree, ring) [default: 1]")
                .value_parser(value_parser!(u32)),
        )
        .arg(
            value("executor", "Where updates, means and codes are computed: cpu, gpu, or auto, a GPU if there is one")
                .default_value("cpu")
                .value_parser(["cpu", "gpu", "auto"]),
        )
        .arg(value("monitor", "HOST:PORT where dtop is told how the run is: rank 0 listens there, and others tell it at the port above"))
        .arg(
            value("monitor-key-file", "File with a key that monitors must have, made by node keygen; not the cluster's")
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(value("metrics", "HOST:PORT where Prometheus finds the run as OpenMetrics text (loopback; of this process, and of those that tell it)"))
        .arg(value("tensorboard", "Directory that gets a file for TensorBoard").value_parser(value_parser!(PathBuf)))
        .arg(Arg::new("json").long("json").help("Print one JSON object and nothing else").action(ArgAction::SetTrue));
    for (flag, _, help) in KNOBS {
        command = command.arg(value(flag, help).help_heading("Knobs of the recipe").allow_negative_numbers(true));
    }
    command
}

impl Options {
    /// What the flags say, for so many workers.
    pub fn from_matches(matches: &ArgMatches, workers: u32) -> Result<Self, (u8, String)> {
        let usage = |text: String| (exit::USAGE, text);
        let text = |name: &str| matches.get_one::<String>(name).cloned();
        let name = text("recipe").unwrap_or_default();
        let mut recipe: Recipe = name.parse().map_err(|error| usage(format!("{error}")))?;
        for (flag, key, _) in KNOBS {
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
        let hidden = hidden.ok_or_else(|| usage("--hidden: expected sizes from 1 to 65536 joined by commas".into()))?;
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

    /// Has the nodes of this process say how they are: told at `--monitor` by the process of rank 0, which the others tell. All
    /// in one process if `rank` is none.
    pub fn monitored(
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
        let (host, port) =
            address.rsplit_once(':').ok_or_else(|| (exit::USAGE, "--monitor: expected HOST:PORT".to_string()))?;
        let port: u16 = port.parse().map_err(|_| (exit::USAGE, format!("--monitor: expected a port, got {port:?}")))?;
        let above = format!("{host}:{}", port.saturating_add(1));
        match rank {
            Some(rank) if rank > 0 => board.publish(above, key).map_err(failed)?,
            _ => {
                board.serve(address.as_str(), key, false).map_err(failed)?;
                if rank.is_some() {
                    board.gather(above.as_str(), key, false).map_err(failed)?;
                }
            }
        }
        Ok(())
    }

    /// Has a node watched, if the run is.
    pub fn watched(&self, builder: Builder) -> Builder {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        match &self.monitor {
            Some(board) => builder.monitor(board.clone(), host.trim()),
            None => builder,
        }
    }

    /// The parameters to begin with.
    pub fn initial(&self, model: &Model) -> Result<Vec<f32>, (u8, String)> {
        let mut params = model.initial(self.seed);
        let Some(path) = &self.init else { return Ok(params) };
        let read = tensors::import(&model.layout(), path, &mut params);
        read.map(|()| params).map_err(|error| (exit::DATA, format!("--init {error}")))
    }

    /// Writes those at the end, if they are wanted.
    pub fn keep(&self, model: &Model, params: &[f32]) -> Result<(), (u8, String)> {
        let Some(path) = &self.export else { return Ok(()) };
        tensors::export(&model.layout(), params, path).map_err(|error| (exit::DATA, format!("--export {error}")))
    }

    /// How many optimizer vectors travel: the momentum, where it is averaged.
    pub fn optimizer_vectors(&self) -> u32 {
        u32::from(self.recipe.optimizer_state() == gradwire::recipe::OptimizerState::Average)
    }
}

/// Reads a command line. `--help` is an error with code 0.
pub fn matches(command: Command, args: Vec<std::ffi::OsString>) -> Result<ArgMatches, (u8, String)> {
    command.try_get_matches_from(args).map_err(|error| {
        let code = if error.use_stderr() { exit::USAGE } else { 0 };
        (code, error.to_string())
    })
}

fn slow_rank(text: &str, workers: u32) -> Result<(u32, f64), String> {
    let parsed = text.split_once(':').and_then(|(rank, factor)| Some((rank.parse().ok()?, factor.parse().ok()?)));
    match parsed {
        Some((rank, factor)) if rank < workers && (1.0..=1000.0).contains(&factor) => Ok((rank, factor)),
        _ => Err(format!(
            "--slow-rank: expected R:FACTOR with R below {workers} and FACTOR from 1 to 1000, got {text:?}"
        )),
    }
}

/// Rules that make one step of N workers' updates take N times the step (Goyal et al. 2017). Softsync divides by c and by
/// its staleness + 1, and could take more than `base` of evenly paced workers; between processes some updates are a dozen
/// versions old, and one run in thirty ended four points below the rest.
fn default_rate(recipe: &Recipe, workers: u32) -> f32 {
    use gradwire::recipe::{Merge, Pace};
    let base = 0.1;
    let n = workers as f32;
    match (recipe.what(), recipe.merging(), recipe.pacing()) {
        (Payload::Parameters, ..) => base * n.sqrt(),
        (_, Merge::Mean, Pace::Synchronous) => (base * n).min(0.4),
        _ => base,
    }
}
