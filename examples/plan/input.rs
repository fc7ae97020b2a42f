//! The command line of `plan`: flags, checks, and the cases to be forecast.

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use gradwire::Recipe;
use gradwire::plan::{Case, Costs, Hosts, Link};
use gradwire_examples::options::exit;
use gradwire_examples::units::{self, Rate};

use super::links::Measured;

/// What headers of Ethernet, IP and TCP leave of the bits on the wire.
pub(crate) const GOODPUT: f64 = 0.94;

/// The latency of a link in seconds, if none is given or measured: that of a local network.
const LATENCY: f64 = 100e-6;

/// Most workers of a case.
const WORKERS_MAX: u32 = 4096;

/// A flag with a value. Values such as `-5ms` must reach the checks here, since their messages name the limits.
fn value(name: &'static str, unit: &'static str, help: &'static str) -> Arg {
    gradwire_examples::options::value(name, unit, help).allow_hyphen_values(true)
}

/// The recipes that are compared if none is named.
const CANDIDATES: [&str; 12] = [
    "sync",
    "sync topology=tree",
    "ring-bf16",
    "ring-int8",
    "averaging",
    "local-bf16",
    "hardsync",
    "async",
    "ssp",
    "mesh",
    "sparse",
    "local-sparse",
];

/// The checked command line.
pub(crate) struct Input {
    /// The case of each number of workers.
    pub(crate) cases: Vec<Case>,
    /// Recipes by their names.
    pub(crate) recipes: Vec<(String, Recipe)>,
    /// By recipe: the examples that it needs for the same result, relative to one worker. `None`: not measured.
    pub(crate) penalties: Vec<Option<f64>>,
    /// Examples of an epoch.
    pub(crate) examples: Option<f64>,
    /// Simulate the best rows as well.
    pub(crate) simulates: bool,
    pub(crate) json: bool,
}

pub(crate) fn command() -> Command {
    Command::new("plan")
        .about(
            "Is distributing worth it? Forecasts the time of a step under each recipe, from the size of\n\
             the model, the time of a step and the network. Nothing is run or sent.",
        )
        .after_help(
            "How to read the table (a row per recipe, the fastest first):\n  \
             speed-up    steps per second of all workers, relative to the fastest worker alone\n  \
             step        time from one step of a worker to its next, waits included\n  \
             busy        share of the time in which the machines compute\n  \
             sent/step   bytes of a step and worker, of all messages\n  \
             waits for   the largest part of the rest: slower workers (\"slowest\", or a rank), the port\n              \
             of each worker (wire), of a server or of an inner node of the tree, latency, code\n  \
             turns at    the ranking turns if the first row needs so many times the examples of this\n              \
             row for the same result\n\n\
             The speed-up says nothing about learning. Averaging seldom, stale updates and sparse messages\n\
             cost examples. Measure that with few workers (examples until a target, relative to one\n\
             worker), and pass it: --penalty averaging=1.2. Speed-ups are then divided by it. Without it,\n\
             look at \"turns at\": that is the honest break-even.\n\n\
             Bandwidths in bits (kbit, mbit, gbit) are those of the line, of which headers take 6 %; in\n\
             bytes (MB/s, GB/s) those that an application sees. All messages of a machine share its port.\n\
             Servers run beside workers, one per shard. Codecs have the speed of a machine with 10 GB/s\n\
             of memory bandwidth.\n\n\
             Examples:\n  \
             plan --params 14600000 --step 120ms --link 1gbit --workers 2,4,8,16\n  \
             plan --params 25.6M --step 430ms --link 10gbit --latency 20us --workers 32 --examples 1.28M --batch 128\n  \
             plan --params 50k --step 0.58s,0.75s,1.51s,3.33s --link 100mbit --recipe sync --recipe \"averaging period=20s\"\n  \
             plan --measure --params 14.6M > here.json && plan --measured here.json --params 14.6M --step 120ms --link 1gbit\n  \
             plan --answer 0.0.0.0:7070    # on one machine; and on another, to measure the link as well:\n  \
             plan --measure --params 14.6M --to first:7070 > here.json && plan --measured here.json --params 14.6M --step 120ms\n  \
             plan --params 7B --step 2s --spread 0.1 --up 100mbit --down 1gbit --workers 8 --recipe diloco --penalty diloco=1.1",
        )
        .next_help_heading("Model and machines")
        .arg(value("params", "N", "Parameters of the model: 14600000, or 14.6M"))
        .arg(value("step", "TIME[,TIME...]", "Time of a step of one worker, without communication: 120ms; or of each worker"))
        .arg(value("spread", "X", "Standard deviation of a step's time over its mean, from step to step").default_value("0"))
        .arg(value("workers", "N[,N...]", "Numbers of workers [default: 2,4,8,16, or as many as steps]"))
        .arg(value("batch", "N", "Examples of a step of one worker"))
        .arg(value("examples", "N", "Examples of an epoch: adds its time to the table (needs --batch)"))
        .next_help_heading("Network")
        .arg(value("link", "RATE", "Bandwidth of each machine's port, both ways: 1gbit, 125MB/s [default: that of --measured]"))
        .arg(value("up", "RATE", "Bandwidth to send, if it is another"))
        .arg(value("down", "RATE", "Bandwidth to receive, if it is another"))
        .arg(value("latency", "TIME", "Time of a message without its bytes, one way [default: that of --measured, or 100us]"))
        .next_help_heading("Recipes")
        .arg(
            value("recipe", "RECIPE", "A recipe to compare, with changes: \"ssp bound=5\"; can be repeated [default: twelve]")
                .action(ArgAction::Append),
        )
        .arg(
            value("penalty", "RECIPE=X", "Examples that a recipe needs, relative to one worker; can be repeated")
                .action(ArgAction::Append),
        )
        .arg(value("servers", "N", "Server nodes [default: those of node]").value_parser(value_parser!(u32)))
        .arg(
            value("server-hosts", "WHERE", "workers: servers run beside workers; own: on machines of their own")
                .default_value("workers")
                .value_parser(["workers", "own"])
                .hide_possible_values(true),
        )
        .arg(value("density", "X", "Share of elements that a fixed threshold sends (strom)").default_value("0.01"))
        .arg(
            value("optimizer-vectors", "N", "Vectors of the optimizer that dl4j averages: 1 for momentum, 2 for Adam")
                .default_value("1")
                .value_parser(value_parser!(u32)),
        )
        .next_help_heading("Speed of this machine")
        .arg(
            Arg::new("measure")
                .long("measure")
                .help("Measure codecs and memory for --params, a few seconds, and print a file for --measured")
                .action(ArgAction::SetTrue),
        )
        .arg(value("to", "HOST:PORT", "With --measure: measure the link to a machine where --answer runs as well"))
        .arg(value(
            "answer",
            "HOST:PORT",
            "Answer the measurements of other machines at this address; any host that can connect can ask for 64 MiB at a time",
        ))
        .arg(value("measured", "FILE", "Times of codecs and memory, and the link, as --measure has printed them"))
        .next_help_heading("Output")
        .arg(
            Arg::new("simulate")
                .long("simulate")
                .help("Run the best recipes in virtual time as well, 8 to 500 rounds each: some seconds")
                .action(ArgAction::SetTrue),
        )
        .arg(Arg::new("json").long("json").help("Print a JSON object").action(ArgAction::SetTrue))
}

/// The error of a flag.
fn usage(flag: &str, expected: &str, got: &str) -> (u8, String) {
    (exit::USAGE, format!("--{flag}: expected {expected}, got {got:?}"))
}

impl Input {
    /// # Errors
    /// An exit code and a message that names the flag, if a value is missing or out of its range.
    pub(crate) fn from_matches(matches: &ArgMatches) -> Result<Self, (u8, String)> {
        let text = |flag: &str| matches.get_one::<String>(flag).map(String::as_str);
        let needed = |flag: &'static str, example: &str| {
            text(flag).ok_or_else(|| (exit::USAGE, format!("--{flag}: expected {example}, got nothing; see --help")))
        };
        let params = params(matches)?;
        let steps = steps(needed("step", "the time of a step, as in 120ms")?)?;
        let spread = number(matches, "spread", "0 or more, at most 10", |x| (0.0..=10.0).contains(&x))?;
        let density = number(matches, "density", "above 0, and at most 1", |x| x > 0.0 && x <= 1.0)?;
        let workers = workers(text("workers"), &steps)?;
        let batch = text("batch").map(|batch| whole("batch", batch)).transpose()?;
        let examples = text("examples").map(|examples| whole("examples", examples)).transpose()?;
        if examples.is_some() && batch.is_none() {
            return Err((exit::USAGE, "--examples: expected --batch beside it, got none".into()));
        }
        let recipes = recipes(matches)?;
        let hosts = if text("server-hosts") == Some("own") { Hosts::Own } else { Hosts::Workers };
        let servers = matches.get_one::<u32>("servers").copied();
        if servers == Some(0) {
            return Err(usage("servers", "at least 1", "0"));
        }
        let (costs, measured) = match text("measured") {
            Some(path) => {
                let named = |error: String| (exit::USAGE, format!("--measured {path}: {error}"));
                let file = std::fs::read_to_string(path).map_err(|error| named(error.to_string()))?;
                super::measure::read(&file).map_err(named)?
            }
            None => (Costs::typical(), None),
        };
        let link = link(matches, measured)?;
        let case = |workers: u32| Case {
            spread,
            density,
            hosts,
            servers,
            batch: batch.map(|batch| batch as u32),
            optimizer_vectors: matches.get_one::<u32>("optimizer-vectors").copied().unwrap_or(1),
            costs,
            ..Case::new(params, expand(&steps, workers), link)
        };
        Ok(Self {
            cases: workers.into_iter().map(case).collect(),
            penalties: penalties(matches, &recipes)?,
            recipes,
            examples,
            simulates: matches.get_flag("simulate"),
            json: matches.get_flag("json"),
        })
    }
}

/// The parameters of the model.
pub(crate) fn params(matches: &ArgMatches) -> Result<usize, (u8, String)> {
    let missing =
        || (exit::USAGE, "--params: expected the parameters of the model, as in 14.6M, got nothing; see --help".into());
    let text = matches.get_one::<String>("params").ok_or_else(missing)?;
    Ok(whole("params", text)? as usize)
}

/// The steps of so many workers: of each, or the same for all.
fn expand(steps: &[f64], workers: u32) -> Vec<f64> {
    if let [step] = steps { vec![*step; workers as usize] } else { steps.to_vec() }
}

/// A whole number of at least 1, with a unit.
fn whole(flag: &str, text: &str) -> Result<f64, (u8, String)> {
    let expected = "a whole number from 1 to 1e12, as in 14600000 or 14.6M";
    let number = units::count(text).map(f64::round).filter(|number| (1.0..=1e12).contains(number));
    number.ok_or_else(|| usage(flag, expected, text))
}

fn number(matches: &ArgMatches, flag: &str, expected: &str, fits: fn(f64) -> bool) -> Result<f64, (u8, String)> {
    let text = matches.get_one::<String>(flag).map_or("", String::as_str);
    text.parse().ok().filter(|x| fits(*x)).ok_or_else(|| usage(flag, &format!("a number: {expected}"), text))
}

fn steps(text: &str) -> Result<Vec<f64>, (u8, String)> {
    let step = |text: &str| {
        units::seconds(text)
            .filter(|seconds| *seconds > 0.0)
            .ok_or_else(|| usage("step", "a time above 0 with its unit, as in 120ms or 1.5s", text))
    };
    text.split(',').map(step).collect()
}

fn workers(text: Option<&str>, steps: &[f64]) -> Result<Vec<u32>, (u8, String)> {
    let Some(text) = text else {
        return Ok(if steps.len() > 1 { vec![steps.len() as u32] } else { vec![2, 4, 8, 16] });
    };
    let parse = |text: &str| {
        let number = text.trim().parse().ok().filter(|number| (1..=WORKERS_MAX).contains(number));
        number.ok_or_else(|| {
            usage("workers", &format!("numbers from 1 to {WORKERS_MAX}, with commas between them"), text)
        })
    };
    let workers: Vec<u32> = text.split(',').map(parse).collect::<Result<_, _>>()?;
    if steps.len() > 1 && workers != [steps.len() as u32] {
        let expected = format!("as many times as workers ({text})");
        return Err(usage("step", &expected, &format!("{} times", steps.len())));
    }
    Ok(workers)
}

/// The link of the flags. What they leave open is as `measured`.
fn link(matches: &ArgMatches, measured: Option<Measured>) -> Result<Link, (u8, String)> {
    let rate = |flag: &str| {
        let Some(text) = matches.get_one::<String>(flag) else { return Ok(None) };
        let rate = units::rate(text).map(|rate| match rate {
            Rate::Line(bits) => bits / 8.0 * GOODPUT,
            Rate::Payload(bytes) => bytes,
        });
        let expected = "a rate above 0 with its unit, as in 1gbit, 100mbit or 125MB/s";
        rate.filter(|rate| *rate > 0.0).map(Some).ok_or_else(|| usage(flag, expected, text))
    };
    let (both, up, down) = (rate("link")?, rate("up")?, rate("down")?);
    let missing = || {
        let text = "--link: expected the bandwidth of a machine, as in 1gbit, or --measured with a file that has it \
                    (plan --measure --to), got nothing; see --help";
        (exit::USAGE, text.into())
    };
    let up = up.or(both).or_else(|| measured.map(|link| link.up)).ok_or_else(missing)?;
    let down = down.or(both).or_else(|| measured.map(|link| link.down)).ok_or_else(missing)?;
    let latency = match matches.get_one::<String>("latency") {
        Some(text) => units::seconds(text)
            .filter(|latency| *latency >= 0.0)
            .ok_or_else(|| usage("latency", "a time of 0 or more with its unit, as in 100us", text))?,
        None => measured.map_or(LATENCY, |link| link.latency),
    };
    Ok(Link { up, down, ..Link::symmetric(up, latency) })
}

fn recipes(matches: &ArgMatches) -> Result<Vec<(String, Recipe)>, (u8, String)> {
    let named = matches.get_many::<String>("recipe");
    let names: Vec<&str> = named.map_or_else(|| CANDIDATES.to_vec(), |names| names.map(String::as_str).collect());
    let parse = |name: &str| {
        let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
        if name.is_empty() {
            return Err(usage("recipe", "the name of a recipe", ""));
        }
        let recipe = name.parse().map_err(|error: gradwire::recipe::RecipeParseError| {
            let text = error.to_string();
            (exit::USAGE, format!("--recipe: {}", text.strip_prefix("recipe: ").unwrap_or(&text)))
        })?;
        Ok((name, recipe))
    };
    names.into_iter().map(parse).collect()
}

fn penalties(matches: &ArgMatches, recipes: &[(String, Recipe)]) -> Result<Vec<Option<f64>>, (u8, String)> {
    let mut penalties = vec![None; recipes.len()];
    for text in matches.get_many::<String>("penalty").into_iter().flatten() {
        let (name, factor) =
            text.rsplit_once('=').ok_or_else(|| usage("penalty", "RECIPE=X, as in averaging=1.2", text))?;
        let factor = factor.trim().parse().ok().filter(|x: &f64| x.is_finite() && *x > 0.0);
        let factor =
            factor.ok_or_else(|| usage("penalty", "RECIPE=X with a number X above 0, as in averaging=1.2", text))?;
        let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
        let Some(at) = recipes.iter().position(|(other, _)| *other == name) else {
            let names: Vec<&str> = recipes.iter().map(|(name, _)| name.as_str()).collect();
            // A mistyped preset gets a suggestion.
            let hint = name.parse::<Recipe>().err().map(|error| format!(" ({error})")).unwrap_or_default();
            return Err(usage("penalty", &format!("one of the recipes compared: {}", names.join(", ")), &name))
                .map_err(|(code, text)| (code, text + &hint));
        };
        penalties[at] = Some(factor);
    }
    Ok(penalties)
}
