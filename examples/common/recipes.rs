//! Recipes on the command line: a flag per setting, and the table of presets in help texts.

use clap::{Arg, ArgMatches, Command};
use gradwire::Recipe;
use gradwire::recipe::{Key, KeyValues};

use super::options::{exit, value};

/// Flags that change one setting of the recipe, in the order in which they are applied: flag, key in the recipe's text
/// form, help text. A choice comes before the numbers that belong to it.
const FLAGS: &[(&str, &str, &str)] = &[
    ("payload", "payload", "What workers send: updates, parameters or gradients"),
    ("topology", "topology", "Nodes between which vectors travel: servers, auto (ring or tree), tree, ring or mesh"),
    ("recipe-pace", "pace", "When a worker goes on: synchronous, stale, asynchronous or first"),
    (
        "merge",
        "merge",
        "How updates are combined: mean, sum, softsync or elastic; with bad workers trimmed-mean, median, norm-clip, centred-clip, krum or vote; adasum or rda; mean-of-senders of sparse messages",
    ),
    (
        "period",
        "period",
        "Local steps between synchronisations (H), a time (20s), examples (4096ex), or stages (1,10@500)",
    ),
    ("fetch", "fetch", "Local steps between fetched parameters (async) [default: the period]"),
    ("adapt", "adapt", "speed: shorter periods for slower workers (servers); loss: shorter as the loss falls; or none"),
    ("normalize", "normalize", "steps: a mean of what workers have done per step (FedNova); or none"),
    ("weigh", "weigh", "Weight in a mean: examples; or batch, examples times examples per step (Decoupled DiLoCo)"),
    ("most", "most", "Most steps of a period that follows the loss"),
    ("bound", "bound", "Clocks that a worker may be ahead of the slowest one (stale)"),
    ("count", "count", "Contributions that a round waits for (first); n-1: of all workers but 1"),
    ("round-grace", "grace", "Time that a round waits for more, as in 200ms; or adaptive (first)"),
    ("round-cap", "cap", "Longest adaptive grace, as in 2s (first)"),
    ("late", "late", "Contributions after their round: drop, or next: they join it (first)"),
    ("updates", "updates", "Updates per application, c in the paper (softsync)"),
    ("trim", "trim", "Values to cut at each end of an element (trimmed-mean)"),
    ("radius", "radius", "Longest way that one contribution moves the result (centred-clip)"),
    ("iterations", "iterations", "Moves per round (centred-clip)"),
    ("faulty", "faulty", "Workers that may be bad (krum)"),
    ("best", "best", "Contributions to take (krum)"),
    ("vote-length", "length", "How far each element moves in a round (vote)"),
    ("lambda", "lambda", "Factor on every update (sum); 1/n: divide by the number of workers"),
    ("alpha", "alpha", "Share of the distance to the center (elastic); 0.9/n: divided by the workers"),
    ("staleness", "staleness", "Scaling of late updates: const, inverse, inverse-plus-one, exp or poly"),
    ("base", "base", "Base of the scaling exp, above 0 and at most 1"),
    ("power", "power", "Power of the scaling poly"),
    ("drop-above", "drop_above", "Staleness above which updates are dropped"),
    ("overlap", "overlap", "true: compute while the last update is in flight (async, softsync)"),
    ("compensate", "compensate", "Correction of late updates: none, magnitude, delay or delay-adaptive"),
    ("compensate-keep", "keep", "Share of a moving mean that is kept (magnitude, delay-adaptive)"),
    ("compensate-length", "length", "Step of an element whose updates are all of one size (magnitude)"),
    ("compensate-least", "least", "Added to the mean magnitude (magnitude)"),
    ("push-cost", "push_cost", "Mean magnitude at which half of the updates are sent; 0: all (magnitude)"),
    ("fetch-cost", "fetch_cost", "Mean magnitude at which half of the updates fetch parameters; 0: all (magnitude)"),
    ("compensate-strength", "strength", "Factor on the correction, lambda in the paper (delay, delay-adaptive)"),
    ("compensate-rate", "worker_rate", "Learning rate of the workers (delay, delay-adaptive)"),
    ("compensate-bounded", "bounded", "true: a correction is at most as large as its update (delay, delay-adaptive)"),
    ("codec", "codec", "Encoding of updates: f32, bf16, f16, int8, sign, threshold or topk"),
    ("pull", "pull", "Encoding of the parameters from servers, as --codec"),
    ("tau", "tau", "Threshold, a power of two; the first one under a control (threshold)"),
    ("control", "control", "Control of the threshold: fixed, band (as in DL4J), density or budget"),
    ("density", "density", "Share of the elements to send, above 0 and at most 1 (threshold, topk)"),
    ("byte-budget", "budget", "Limit of a message in bytes, except dense ones (threshold)"),
    ("scope", "scope", "tensor (threshold), chunk (topk), column (sign); or all, block"),
    ("values", "values", "Values of the elements: f32, f16, int8 or two-means (topk)"),
    ("clip", "clip", "Limit of the residual in thresholds; the excess is lost; 0: no limit"),
    ("residual-decay", "decay", "Factor on the residual before an update is added; what it forgets is lost"),
    ("momentum-correction", "momentum", "Momentum before the residual, reset where it is sent"),
    ("clip-norm", "clip_norm", "Limit of the norm of an update, before momentum; 0: no limit"),
    ("warmup", "warmup", "Number of dense messages at the start (threshold, topk)"),
    ("ramp", "ramp", "Messages over which the density falls from 25 % to its target"),
    ("starters", "starters", "Number of ranks that begin before the rest (mesh, async)"),
    ("head-start", "head_start", "Messages of the starters before the rest begins"),
    ("end", "end", "The residual of a worker that ends: keep (unsent), send, or spread"),
    ("end-messages", "messages", "Most messages over which spread sends it"),
    ("pull-tau", "pull_tau", "As --tau, for --pull"),
    ("pull-control", "pull_control", "As --control, for --pull"),
    ("pull-density", "pull_density", "As --density, for --pull"),
    ("pull-byte-budget", "pull_budget", "As --byte-budget, for --pull"),
    ("pull-scope", "pull_scope", "As --scope, for --pull"),
    ("pull-values", "pull_values", "As --values, for --pull"),
    ("pull-clip", "pull_clip", "As --clip, for --pull"),
    ("relay", "relay", "Children per relay; 0: every worker sends to every other one (mesh)"),
    ("fan-in", "fan_in", "Children per node (tree)"),
    ("chunk", "chunk", "Largest message in floats (tree, ring)"),
    ("shards", "shards", "Ranges into which the parameters are cut (servers)"),
    ("outer", "outer", "Optimizer of merged updates: none, momentum, delayed-nesterov, adagrad or adam"),
    ("outer-mu", "mu", "Momentum of merged updates (outer momentum, adam); 1-1/n: as BMUF"),
    ("outer-beta", "beta", "Share of the mean square that is kept (outer adam)"),
    ("outer-rate", "rate", "Factor on a merged update (outer)"),
    ("outer-look", "look", "true: Nesterov's form (outer momentum)"),
    ("outer-scale", "scale", "rate: momentum of updates over their learning rate (outer momentum); or update"),
    ("outer-pushes", "pushes", "Updates for each step of the momentum (outer delayed-nesterov); n: as many as workers"),
    ("outer-floor", "floor", "Keeps steps finite where updates are small (outer adagrad, adam)"),
    ("optimizer", "optimizer", "Momentum at a synchronisation: keep, reset or average"),
];

/// The presets in groups: for each its name, and when to use it, in at most 55 characters.
const GROUPS: &[(&str, &[(&str, &str)])] = &[
    (
        "Plain methods",
        &[
            ("averaging", "few messages: synchronises every 10 steps"),
            ("sync", "the reference: one worker with n times the batch"),
            ("gradients", "as sync, with the optimizer after the mean: exact Adam"),
            ("async", "workers of different speed; one server; late updates"),
            ("softsync", "as async; means of 2 updates, with less weight if late"),
            ("ssp", "as async, but no worker runs more than 3 steps ahead"),
            ("mesh", "as async without a server, with the largest 1 % only"),
        ],
    ),
    (
        "For slow networks",
        &[
            ("ring-bf16", "half the bytes of sync, and the same loss"),
            ("ring-int8", "a quarter of the bytes of sync, and the same loss"),
            ("sparse", "a few per cent of the bytes; higher loss in short runs"),
            ("local-bf16", "a fortieth of the bytes; every 20 steps"),
            ("adacomm", "averaging, more often as the loss falls (2019)"),
            ("local-sparse", "the fewest bytes: sparse every 10 steps; learns slower"),
            ("sparseloco", "every 20 steps, the signs of 1.6 %; many workers (2025)"),
        ],
    ),
    (
        "With an optimizer of merged updates",
        &[
            ("diloco", "every 50 steps, Nesterov 0.9: workers far apart (2023)"),
            ("async-diloco", "diloco without rounds, for unequal machines (2024)"),
            ("slowmo", "every 12 steps, momentum 0.5 (2020)"),
            ("bmuf", "every 16 steps, momentum 1-1/n, Nesterov (2016)"),
            ("bmuf-cbm", "the same without Nesterov (2016)"),
            ("lookahead", "every 5 steps, 0.8 of the way (2019)"),
            ("fedavgm", "every 20 steps, momentum 0.9 (2019)"),
            ("fedadam", "every 10 steps, Adam (2021)"),
        ],
    ),
    (
        "If a worker may be broken: at a server, with a vector per worker",
        &[
            ("median", "the median of each element (2018)"),
            ("norm-clip", "the mean of updates, clipped to their median norm"),
        ],
    ),
    (
        "Published systems, to compare with",
        &[
            ("dl4j", "averaging every 5 steps, with the optimizer's momentum"),
            ("su-chen", "averaging every 10 steps (2015)"),
            ("firecaffe", "sync over a binary tree (2015)"),
            ("hardsync", "sync at a parameter server (2015)"),
            ("one-bit-sgd", "hardsync in a thirtieth of the bytes (2014)"),
            ("sign-vote", "the same bytes; majority of signs, against bad workers"),
            ("downpour", "async: push each 5, fetch each 10 steps, Adagrad (2012)"),
            ("backup-workers", "hardsync without the last of a round (2016)"),
            ("rudra", "softsync of 1 update, divided by its staleness (2016)"),
            ("fasgd", "async, over mean magnitude and staleness + 1 (2016)"),
            ("b-fasgd", "fasgd that sends and fetches less as updates shrink"),
            ("dc-asgd", "async, corrected for delays; --compensate-rate (2017)"),
            ("dc-asgd-a", "the same, with a factor for each element (2017)"),
            ("easgd", "every 10 steps, drawn to a center, in rounds (2015)"),
            ("aeasgd", "the same without rounds; --momentum: EAMSGD (2015)"),
            ("petuum", "ssp with bound 2 (2013)"),
            ("strom", "mesh with a fixed threshold, which you must tune (2015)"),
            ("dl4j-sharing", "mesh with a threshold that finds a density"),
            ("dgc", "sparse at 0.1 % with momentum 0.9; for long runs (2018)"),
        ],
    ),
];

/// The number of workers for which the table states the gain.
const WORKERS: u32 = 4;

/// The table of recipes, the meaning of the learning rate, and exit codes, for the end of a help text.
pub fn help() -> String {
    let mut text = String::from("Recipes (a recipe with changes is one argument: \"ssp bound=5 shards=2\"):\n");
    text += "    name           gain  when to use it\n";
    for (group, presets) in GROUPS {
        text += &format!("\n  {group}\n");
        for (name, when) in *presets {
            let gain = Recipe::preset(name).map_or(0.0, |recipe| recipe.gain(WORKERS));
            text += &format!("    {name:<14} {gain:>4.1}  {when}\n");
        }
    }
    text += &format!(
        "\n\
         The gain is how far a step of all workers (here {WORKERS}) moves the parameters,\n\
         relative to a step of one worker with the same learning rate. So the best rate\n\
         of one machine is safe where the gain is near 1. The momentum of dgc replaces\n\
         that of the optimizer: its gain is 1 for a rate tuned with momentum 0.9. That of\n\
         bmuf makes up for the mean over n workers. A step of fedadam has a length of its\n\
         own, --outer-rate, and so has one of downpour.\n\
         The default of --rate is the rate of one worker (0.2 for sequence, else 0.1),\n\
         times the number of workers (at most 4; its root for averaging), and\n\
         divided by the gain of updates that are not late.\n\n\
         Exit codes:\n  0  success\n  2  wrong usage\n  3  recipe, cluster or contract do not fit\n  \
         4  the run or the network failed\n  5  key\n  6  data, parameter file or checkpoint\n  \
         128 + n  ended by signal n before the end of the run, with a summary"
    );
    text
}

/// The name of the value of a key.
fn unit(key: &str) -> &'static str {
    match Key::find(key).map(|key| key.values) {
        Some(KeyValues::Names(_)) => "NAME",
        Some(KeyValues::Text("true or false")) => "true|false",
        Some(KeyValues::Text(text)) if text.starts_with("a time") => "TIME",
        Some(KeyValues::Text("a whole number, 0 or more")) => "N",
        Some(KeyValues::Text("a number")) => "X",
        _ => "VALUE",
    }
}

/// Adds a flag per setting of the recipe.
pub fn flags(mut command: Command) -> Command {
    for (flag, key, help) in FLAGS {
        let arg: Arg = value(flag, unit(key), help).help_heading("Settings of the recipe [default: the recipe's own]");
        command = command.arg(arg.allow_negative_numbers(true).hide_short_help(true));
    }
    command
}

/// The recipe with this name or text, changed by flags.
///
/// # Errors
/// An exit code and a message.
pub fn from_matches(text: &str, matches: &ArgMatches) -> Result<Recipe, (u8, String)> {
    let usage = |text: String| (exit::USAGE, text);
    let mut recipe: Recipe = text.parse().map_err(|error| usage(format!("{error}")))?;
    for (flag, key, _) in FLAGS {
        if let Some(value) = matches.get_one::<String>(flag) {
            recipe.set(key, value).map_err(|error| usage(format!("--{flag}: {error}")))?;
        }
    }
    Ok(recipe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gradwire::recipe::PRESETS;

    #[test]
    fn every_preset_is_in_one_group() {
        let mut listed: Vec<&str> =
            GROUPS.iter().flat_map(|(_, presets)| presets.iter().map(|(name, _)| *name)).collect();
        let mut presets: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
        listed.sort_unstable();
        presets.sort_unstable();
        assert_eq!(listed, presets);
    }

    #[test]
    fn the_table_fits_80_columns() {
        for line in help().lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    /// Every key of the reference has a flag.
    #[test]
    fn every_key_has_a_flag() {
        for key in gradwire::recipe::KEYS {
            assert!(FLAGS.iter().any(|(_, known, _)| *known == key.name), "{}", key.name);
        }
    }
}
