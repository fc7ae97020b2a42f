//! The command line of `compare`: flags, checks, and the comparison that they describe.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use gradwire::compare::Comparison;
use gradwire::sim::{Links, Speed};
use gradwire::{Cluster, Recipe};
use gradwire_examples::options::{self, exit};
use gradwire_examples::task::Name;
use gradwire_examples::units::{self, Rate};

use super::calibrate::Calibration;
use super::model::TaskModel;
use super::{faults, reproduce, rules};

/// What headers of Ethernet, IP and TCP leave of the bits on the wire.
const GOODPUT: f64 = 0.94;

/// Most workers on threads.
const THREADS_MAX: u32 = 256;

/// Validations of a run.
const SAMPLES: u64 = 64;

/// The recipes that are compared if none is named.
const RECIPES: &str = "sync,averaging,async,softsync,ssp,mesh";

/// The checked command line.
pub(crate) struct Input {
    pub(crate) comparison: Comparison,
    pub(crate) model: TaskModel,
    /// A run on threads and in the simulator, in place of a comparison.
    pub(crate) calibration: Option<Calibration>,
    /// Repetitions of the comparison, each with other seeds.
    pub(crate) repetitions: u64,
    /// The file that receives a page.
    pub(crate) out: Option<PathBuf>,
    /// The file of results.
    pub(crate) results: Option<PathBuf>,
    pub(crate) json: bool,
    pub(crate) quiet: bool,
}

/// A flag with a value. Values such as `-5ms` must reach the checks here, since their messages name the limits.
fn value(name: &'static str, unit: &'static str, help: &'static str) -> Arg {
    options::value(name, unit, help).allow_hyphen_values(true)
}

/// A flag without a value.
fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).action(ArgAction::SetTrue)
}

/// The page of a comparison, if no other is named.
const PAGE: &str = "compare.html";

pub(crate) fn command() -> Command {
    let command = Command::new("compare")
        .about(
            "Which synchronisation rule is best? Trains a task under each rule, with real arithmetic in\n\
             virtual time, and compares them on validation loss. Without flags: a first answer on\n\
             16 workers of unequal speed, in about a minute on two cores.",
        )
        .after_help(
            "How it compares:\n  \
             - Every rule and reference begins with the same parameters, and sees the same examples in the\n    \
             same order. Budgets are in examples.\n  \
             - Each tries the same --tune learning rates on seeds of their own; then --seeds fresh seeds run\n    \
             with the best one.\n  \
             - A difference counts if its 95 % interval over paired seeds does not contain 0.\n  \
             - The references: the fastest worker alone, and alone with the batch of all workers, which\n    \
             takes it so many times as long.\n\n\
             How to read the tables (medians over seeds):\n  \
             ex/s        examples of all workers per virtual second\n  \
             busy        share of the time in which workers compute; they wait in the rest\n  \
             best loss   lowest validation loss until it no longer improves; +: the budget ended before\n  \
             to target   virtual time, examples and bytes until the target loss\n  \
             T, E        time in which one worker reaches the target; the budget of examples\n  \
             =E          the run had used up its examples before: the loss is that at E\n\n\
             Bandwidths in bits (kbit, mbit, gbit) are those of the line, of which headers take 6 %; in\n\
             bytes (MB/s, GB/s) those that messages have.\n\n\
             Recipes: names or texts with commas between them. A grid in braces is several recipes, a range\n\
             is a number that is tuned together with the rate. `cluster --help` lists the recipes.\n\n\
             Examples:\n  \
             compare --recipes sync,averaging --link 100mbit --speeds 20ms\n  \
             compare --recipes \"averaging period={10,30,100},diloco\" --seeds 10 --out report.html\n  \
             compare --recipes \"averaging period=5..100,ssp bound=1..16\" --tune 8 --results runs.txt\n  \
             compare --task sequence --workers 8 --fault crash:3@2s+1s --json\n  \
             compare --repeat 10 --results runs.txt\n  \
             compare --calibrate sync --workers 4 --examples 3k\n  \
             compare --reproduce staleness",
        )
        .next_help_heading("What is compared")
        .arg(
            value("recipes", "A,B,...", "Recipes: names or texts, grids and ranges; can be repeated [default: the six plain rules]")
                .action(ArgAction::Append),
        )
        .arg(
            value("task", "TASK", "The task that is trained")
                .default_value("digits")
                .value_parser(Name::ALL.map(Name::text)),
        )
        .arg(value("data", "DIR", "Directory with IDX files, named as those of MNIST (digits) [default: built in]"))
        .arg(value("hidden", "N[,N...]", "Sizes of the hidden layers [default: the task's own]"))
        .next_help_heading("Cluster and network")
        .arg(value("workers", "N", "Number of workers").default_value("16").value_parser(value_parser!(u32)))
        .arg(value("servers", "N", "Servers of rules that need servers").default_value("1").value_parser(value_parser!(u32)))
        .arg(value("batch", "N", "Examples of a step of one worker").default_value("4").value_parser(value_parser!(u32)))
        .arg(
            value("speeds", "TIME[,TIME...]", "Times of a step, by rank; they repeat if there are more workers")
                .default_value("20ms,25ms,40ms,80ms"),
        )
        .arg(value("jitter", "X", "Steps take from 1 - X to 1 + X times that, from 0 to below 1").default_value("0.1"))
        .arg(value("link", "RATE", "Bandwidth of each node's port, both ways: 1gbit, 125MB/s").default_value("1gbit"))
        .arg(value("latency", "TIME", "Time of a message without its bytes, one way").default_value("200us"))
        .arg(
            value("fault", "FAULT", "A fault of the rules' runs, as in crash:3@2s+500ms, pause:0@5s+1s, cut:0-1@2s or split:0-1@2s+1s; can be repeated")
                .action(ArgAction::Append),
        )
        .next_help_heading("Effort")
        .arg(value("examples", "N", "Examples of a run: E").default_value("30k"))
        .arg(value("seeds", "N", "Seeds to compare, from 1 on").default_value("5").value_parser(value_parser!(u64)))
        .arg(value("tune", "K", "Points of the tuning; 1: none, the middle of --rates").default_value("7").value_parser(value_parser!(usize)))
        .arg(value("rates", "FROM..TO", "Learning rates of the tuning [default: from a quarter to 16 times the task's own]"))
        .arg(value("tune-examples", "N", "Examples of a run of the tuning [default: half of the budget]"))
        .arg(value("tune-seeds", "N", "Seeds per point of the tuning").default_value("1").value_parser(value_parser!(u64)))
        .arg(value("target", "LOSS", "Validation loss that counts as reached [default: of one worker after 2/workers of the budget, 1/8 to 1/2]"))
        .arg(value("repeat", "N", "Compare N times, each time with other seeds, and print which winners stay [default: 1]").value_parser(value_parser!(u64)))
        .arg(value("threads", "N", "Runs at the same time [default: the number of cores]").value_parser(value_parser!(usize)))
        .arg(value("calibrate", "RECIPE", "Compare nothing: run a recipe on threads, with --speeds in real time, and in the simulator with the same step times; print the simulator's error"))
        .next_help_heading("Output")
        .arg(value("results", "FILE", "Keep runs in this file, and do not repeat those in it: goes on after Ctrl-C"))
        .arg(value("out", "FILE.html", "The page with plots [default: compare.html; with --json: none]"))
        .arg(switch("json", "Print JSON lines instead of tables"))
        .arg(switch("quiet", "Show no progress"));
    reproduce::flags(command.next_help_heading("Published figures"))
}

/// The error of a flag.
fn usage(flag: &str, expected: &str, got: &str) -> (u8, String) {
    (exit::USAGE, format!("--{flag}: expected {expected}, got {got:?}"))
}

impl Input {
    /// # Errors
    /// An exit code and a message that names the flag, if a value is wrong.
    pub(crate) fn from_matches(matches: &ArgMatches) -> Result<Self, (u8, String)> {
        let text = |flag: &str| matches.get_one::<String>(flag).map(String::as_str);
        let path = |flag: &str| text(flag).map(PathBuf::from);
        let task = Name::ALL.into_iter().find(|name| Some(name.text()) == text("task")).unwrap_or(Name::Digits);
        let hidden = match text("hidden") {
            Some(sizes) => options::hidden(sizes, task).map_err(|text| (exit::USAGE, text))?,
            None => task.hidden().to_vec(),
        };
        if text("data").is_some() && task != Name::Digits {
            return Err((exit::USAGE, "--data: expected --task digits, the other tasks generate their data".into()));
        }
        let repetitions = matches.get_one::<u64>("repeat").copied().unwrap_or(1);
        if !(1..=1000).contains(&repetitions) {
            return Err(usage("repeat", "from 1 to 1000", &repetitions.to_string()));
        }
        if repetitions > 1 && text("out").is_some() {
            return Err((exit::USAGE, "--out: expected no --repeat, which has no page".into()));
        }
        let model =
            TaskModel::open(task, hidden, path("data")).map_err(|error| (exit::DATA, format!("--data: {error}")))?;
        Ok(Self {
            comparison: comparison(matches, task)?,
            model,
            calibration: text("calibrate").map(|recipe| calibration(recipe, matches, task)).transpose()?,
            repetitions,
            out: path("out").or_else(|| (!matches.get_flag("json") && repetitions == 1).then(|| PAGE.into())),
            results: path("results"),
            json: matches.get_flag("json"),
            quiet: matches.get_flag("quiet"),
        })
    }
}

fn comparison(matches: &ArgMatches, task: Name) -> Result<Comparison, (u8, String)> {
    let text = |flag: &str| matches.get_one::<String>(flag).map(String::as_str);
    let whole = |flag: &'static str| matches.get_one::<u64>(flag).copied().unwrap_or_default();
    let workers = small(matches, "workers", 2)?;
    let mut comparison = Comparison::new(workers, small(matches, "batch", 1)?)
        .servers(small(matches, "servers", 1)?)
        .speeds(speeds(matches)?)
        .links(links(matches)?)
        .examples(count("examples", text("examples").unwrap_or_default())?)
        .samples(SAMPLES)
        .seeds(whole("seeds"))
        .tuning_seeds(whole("tune-seeds"))
        .rates(rates(text("rates"), task)?, matches.get_one("tune").copied().unwrap_or(1));
    if let Some(text) = text("tune-examples") {
        comparison = comparison.tuning_examples(count("tune-examples", text)?);
    }
    if let Some(text) = text("target") {
        let loss = text.parse().ok().filter(|loss: &f64| loss.is_finite());
        comparison = comparison.target(loss.ok_or_else(|| usage("target", "a finite loss", text))?);
    }
    if let Some(threads) = matches.get_one::<usize>("threads") {
        comparison = comparison.threads(*threads);
    }
    for text in matches.get_many::<String>("fault").into_iter().flatten() {
        let (at, fault) = faults::parse(text).map_err(|error| (exit::USAGE, format!("--fault: {error}")))?;
        comparison = comparison.fault(at, fault);
    }
    let given: Vec<&str> = matches.get_many::<String>("recipes").into_iter().flatten().map(String::as_str).collect();
    let recipes = if given.is_empty() { RECIPES.to_string() } else { given.join(",") };
    let rules = rules::parse(&recipes).map_err(|error| (exit::USAGE, format!("--recipes: {error}")))?;
    for rules::Rule { name, recipe, number } in rules {
        comparison = match number {
            Some((key, values)) => comparison.tuned_rule(&name, recipe, &key, values),
            None => comparison.rule(&name, recipe),
        };
    }
    Ok(comparison)
}

/// The calibration of a recipe on the cluster of the flags.
fn calibration(recipe: &str, matches: &ArgMatches, task: Name) -> Result<Calibration, (u8, String)> {
    let text = |flag: &str| matches.get_one::<String>(flag).map_or("", String::as_str);
    let recipe: Recipe = recipe.parse().map_err(|error| (exit::USAGE, format!("--calibrate: {error}")))?;
    let (workers, batch) = (small(matches, "workers", 2)?, small(matches, "batch", 1)?);
    if workers > THREADS_MAX {
        return Err(usage("workers", &format!("at most {THREADS_MAX} with --calibrate"), &workers.to_string()));
    }
    let servers = if recipe.needs_servers() { small(matches, "servers", 1)? } else { 0 };
    let speeds: Vec<Duration> = speeds(matches)?.iter().map(Speed::mean).collect();
    // The time in which workers that never wait have the examples.
    let ideal: f64 =
        speeds.iter().cycle().take(workers as usize).map(|step| f64::from(batch) / step.as_secs_f64()).sum();
    let seconds = count("examples", text("examples"))? as f64 / ideal;
    let slowest = speeds.iter().max().copied().unwrap_or_default().as_secs_f64();
    if !(2.0 * slowest..=3600.0).contains(&seconds) {
        let (least, most) = ((2.0 * slowest * ideal).ceil(), (3600.0 * ideal).floor());
        let expected = format!("from {least} to {most}, two steps of the slowest worker to an hour");
        return Err(usage("examples", &expected, text("examples")));
    }
    Ok(Calibration {
        recipe,
        cluster: Cluster { workers, servers },
        batch,
        lasts: Duration::from_secs_f64(seconds),
        rate: task.rate(),
        speeds,
    })
}

/// A number of a flag, of at least `least`.
fn small(matches: &ArgMatches, flag: &'static str, least: u32) -> Result<u32, (u8, String)> {
    let number = matches.get_one::<u32>(flag).copied().unwrap_or_default();
    if number >= least { Ok(number) } else { Err(usage(flag, &format!("at least {least}"), &number.to_string())) }
}

/// A whole number of at least 1, with a unit.
fn count(flag: &str, text: &str) -> Result<u64, (u8, String)> {
    let number = units::count(text).map(f64::round).filter(|number| (1.0..=1e12).contains(number));
    number
        .map(|number| number as u64)
        .ok_or_else(|| usage(flag, "a whole number from 1 to 1e12, as in 12000 or 12k", text))
}

fn speeds(matches: &ArgMatches) -> Result<Vec<Speed>, (u8, String)> {
    let text = matches.get_one::<String>("jitter").map_or("", String::as_str);
    let jitter = text.parse().ok().filter(|x: &f64| (0.0..1.0).contains(x));
    let jitter = jitter.ok_or_else(|| usage("jitter", "a number from 0 to below 1", text))?;
    let speed = |text: &str| {
        let step = units::seconds(text).and_then(|step| Duration::try_from_secs_f64(step).ok());
        let step = step.filter(|step| *step > Duration::ZERO);
        let step = step.ok_or_else(|| usage("speeds", "times above 0 with their units, as in 20ms,80ms", text))?;
        Ok(Speed::constant(step).jitter(jitter))
    };
    matches.get_one::<String>("speeds").map_or("", String::as_str).split(',').map(speed).collect()
}

fn links(matches: &ArgMatches) -> Result<Links, (u8, String)> {
    let text = |flag: &str| matches.get_one::<String>(flag).map_or("", String::as_str);
    let rate = units::rate(text("link")).map(|rate| match rate {
        Rate::Line(bits) => bits * GOODPUT,
        Rate::Payload(bytes) => bytes * 8.0,
    });
    let rate = rate.map(f64::round).filter(|bits| (1.0..=1e18).contains(bits));
    let expected = "a rate of at least 1 bit/s with its unit, as in 1gbit, 100mbit or 125MB/s";
    let rate = rate.ok_or_else(|| usage("link", expected, text("link")))?;
    let latency = units::seconds(text("latency")).and_then(|latency| Duration::try_from_secs_f64(latency).ok());
    let latency =
        latency.ok_or_else(|| usage("latency", "a time of 0 or more with its unit, as in 200us", text("latency")))?;
    Ok(Links::new(latency).bandwidth(rate as u64))
}

fn rates(text: Option<&str>, task: Name) -> Result<RangeInclusive<f32>, (u8, String)> {
    let Some(text) = text else { return Ok(task.rate() / 4.0..=task.rate() * 16.0) };
    let range = text.split_once("..").and_then(|(from, to)| {
        let bound = |text: &str| text.trim().parse().ok().filter(|x: &f32| *x > 0.0 && x.is_finite());
        let (from, to) = (bound(from)?, bound(to)?);
        (from <= to).then_some(from..=to)
    });
    range.ok_or_else(|| usage("rates", "two rates above 0, the smaller one first, as in 0.01..1", text))
}
