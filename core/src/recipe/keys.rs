//! [`KEYS`]: the keys of the text form, with their values, defaults and meaning.
//!
//! The parser refuses a key that is not in this table, so the table is complete. The guide of the facade has it as
//! pages, and programs take the help texts of their flags from it.

use super::text::{NUMBER, PERIOD, WHOLE};

/// A key of the text form of recipes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The key, as in `key=value`.
    pub name: &'static str,
    /// The choices after which a recipe has this key, for instance `pace=stale`. Empty: every recipe has it.
    pub of: &'static str,
    /// The values that the key takes.
    pub values: Values,
    /// The value of a recipe that does not set the key. Of a key that belongs to a choice, it is the value after that
    /// choice. Empty: there is no such value, and `about` says what holds without the key.
    pub default: &'static str,
    /// The meaning, in one sentence without its full stop.
    pub about: &'static str,
}

/// The values that a key takes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Values {
    /// One of these names. Each has its meaning beside it.
    Names(&'static [(&'static str, &'static str)]),
    /// Other texts: a description.
    Text(&'static str),
}

const SWITCH: &str = "true or false";
const TIME: &str = "a time, as in 200ms or 2s";

const fn names(
    name: &'static str,
    of: &'static str,
    default: &'static str,
    about: &'static str,
    values: &'static [(&'static str, &'static str)],
) -> Key {
    Key { name, of, values: Values::Names(values), default, about }
}

const fn text(
    name: &'static str,
    of: &'static str,
    values: &'static str,
    default: &'static str,
    about: &'static str,
) -> Key {
    Key { name, of, values: Values::Text(values), default, about }
}

/// The values of `codec` and `pull`.
const CODECS: &[(&str, &str)] = &[
    ("f32", "plain floats: 4 bytes per element, no error"),
    ("bf16", "the upper half of a float: 2 bytes per element"),
    ("f16", "half precision: 2 bytes per element"),
    ("int8", "8-bit integers, with a scale per block of 64: about 1 byte per element"),
    ("sign", "the sign, with a scale per block or column: about 1 bit per element"),
    ("threshold", "quanta of plus or minus tau, for the elements that have reached it"),
    ("topk", "the elements of largest magnitude"),
];
const SCOPES: &[(&str, &str)] = &[
    ("all", "of threshold and topk: of the whole vector; their default"),
    ("tensor", "of threshold: a threshold for each tensor"),
    ("chunk", "of topk: the share of each chunk of 4,096 elements"),
    ("block", "of sign: a scale per 1,024 elements; its default"),
    ("column", "of sign: two means per column of a tensor"),
];
const VALUES: &[(&str, &str)] = &[
    ("f32", "floats"),
    ("f16", "half precision"),
    ("int8", "magnitudes in 8 bits, with a scale per chunk"),
    ("two-means", "signs, with the means of the positive and of the negative elements per chunk"),
];
const CONTROLS: &[(&str, &str)] = &[
    ("fixed", "tau follows the learning rate only"),
    ("band", "tau falls below a density of 0.01 % and rises above 1 %, as in DL4J"),
    ("density", "tau is set for a density"),
    ("budget", "tau is set for a length of messages in bytes"),
];

/// All keys of the text form: each choice, followed by the numbers that belong to it.
pub const KEYS: &[Key] = &[
    names(
        "payload",
        "",
        "updates",
        "The vector that workers send",
        &[
            ("updates", "the sum of their updates since the last synchronisation"),
            ("parameters", "their parameters"),
            ("gradients", "their gradients; each gets the mean back and applies it itself"),
        ],
    ),
    text("period", "", PERIOD, "1", "Length of a period: a worker computes so long between two synchronisations"),
    text(
        "fetch",
        "",
        WHOLE,
        "",
        "Local steps between fetched parameters, at asynchronous servers; without it, the period",
    ),
    names(
        "adapt",
        "",
        "none",
        "The quantity that the length of periods follows",
        &[
            ("none", "periods are as long as the recipe says"),
            ("speed", "slower workers take fewer steps, at servers (DyLU)"),
            ("loss", "periods shorten as the training loss falls, without servers (AdaComm)"),
        ],
    ),
    text("most", "adapt=loss", WHOLE, "64", "Most steps of a period that follows the loss"),
    names(
        "normalize",
        "",
        "none",
        "How local steps count in a mean",
        &[
            ("none", "contributions weigh by their examples"),
            ("steps", "mean of the movements per step, times the mean number of steps (FedNova)"),
        ],
    ),
    names(
        "weigh",
        "",
        "examples",
        "Weight of a contribution in a mean",
        &[("examples", "its examples"), ("batch", "its examples, times its examples per step (Decoupled DiLoCo)")],
    ),
    names(
        "topology",
        "",
        "auto",
        "Nodes between which vectors travel",
        &[
            ("servers", "from workers to parameter servers and back"),
            ("auto", "a ring for long dense vectors, else a binary tree"),
            ("tree", "up and down a tree of the workers"),
            ("ring", "around a ring of the workers"),
            ("mesh", "from every worker to every other, without servers"),
        ],
    ),
    text("shards", "topology=servers", WHOLE, "1", "Ranges into which the vector is cut; at least one per server"),
    text("fan_in", "topology=tree", WHOLE, "2", "Children of a node of the tree, 1 to 8"),
    text("chunk", "topology=auto, tree or ring", WHOLE, "65536", "Longest message in floats"),
    text("relay", "topology=mesh", WHOLE, "0", "Children of a node that passes messages on; 0: workers send directly"),
    names(
        "pace",
        "",
        "synchronous",
        "The moment at which a worker goes on",
        &[
            ("synchronous", "after all workers have contributed to the round"),
            ("stale", "while its lead over the slowest worker is within the bound"),
            ("asynchronous", "at once"),
            ("first", "after the first contributions to the round"),
        ],
    ),
    text("bound", "pace=stale", WHOLE, "3", "Largest lead of a worker over the slowest, in clocks"),
    text(
        "overlap",
        "pace=asynchronous",
        SWITCH,
        "false",
        "Whether a worker computes while its last update is in flight",
    ),
    text(
        "count",
        "pace=first",
        "a number, or n-1 for all workers but 1",
        "n-1",
        "Contributions that a round waits for",
    ),
    text(
        "grace",
        "pace=first",
        "a time as in 200ms or 0s, or adaptive",
        "0s",
        "Time for which a round waits for further contributions; adaptive: for the workers that it expects",
    ),
    text("cap", "pace=first", TIME, "", "Longest adaptive grace, 2s if it is not set; also makes the grace adaptive"),
    names(
        "late",
        "pace=first",
        "drop",
        "Treatment of a contribution whose round is over",
        &[("drop", "it is dropped and counted"), ("next", "it joins the round that is open")],
    ),
    names(
        "merge",
        "",
        "mean",
        "How contributions are combined",
        &[
            ("mean", "mean of a round, weighted by examples"),
            ("sum", "sum, times lambda"),
            ("softsync", "mean of every so many updates, in order of arrival"),
            ("elastic", "workers and the center at the server are drawn to each other"),
            ("trimmed-mean", "mean of each element without its smallest and largest values"),
            ("median", "median of each element"),
            ("norm-clip", "mean of contributions that are scaled down to their median norm"),
            ("centred-clip", "the last result, moved by clipped differences"),
            ("krum", "mean of the contributions with the nearest neighbours"),
            ("adasum", "per tensor: sum of orthogonal, mean of parallel contributions"),
            ("rda", "per tensor: mean norm, in the direction of the mean direction"),
            ("mean-of-senders", "mean of each element over the workers that have sent it"),
            ("vote", "majority of the signs of each element, times length"),
        ],
    ),
    text("lambda", "merge=sum", "a number, or a number over n as in 1/n", "1/n", "Factor on every update; n: workers"),
    text("updates", "merge=softsync", WHOLE, "2", "Updates per application"),
    text(
        "alpha",
        "merge=elastic",
        "a number, or a number over n as in 0.9/n",
        "0.9/n",
        "Share of the distance between a worker and the center that each moves",
    ),
    text("trim", "merge=trimmed-mean", WHOLE, "1", "Values that are cut at each end"),
    text("radius", "merge=centred-clip", NUMBER, "1", "Longest difference of a contribution to the last result"),
    text("iterations", "merge=centred-clip", WHOLE, "1", "Moves per round"),
    text("faulty", "merge=krum", WHOLE, "1", "Workers that may send anything"),
    text("best", "merge=krum", WHOLE, "1", "Contributions to take"),
    names(
        "staleness",
        "",
        "const",
        "Factor on an update of staleness s: applications at the server since the parameters that it was computed from",
        &[
            ("const", "1"),
            ("inverse", "1 / max(s, 1)"),
            ("inverse-plus-one", "1 / (s + 1)"),
            ("exp", "base^s"),
            ("poly", "(s + 1)^-power"),
        ],
    ),
    text("drop_above", "", WHOLE, "", "Staleness above which an update is dropped; without it, none is"),
    text("base", "staleness=exp", NUMBER, "0.5", "Base of the factor, above 0 and at most 1"),
    text("power", "staleness=poly", NUMBER, "0.5", "Power of the factor"),
    names(
        "compensate",
        "",
        "none",
        "Correction of late updates at servers",
        &[
            ("none", "they are merged as they are"),
            ("magnitude", "each element is divided by the moving mean of its magnitude (FASGD)"),
            ("delay", "corrected for how far the parameters have moved (DC-ASGD)"),
            ("delay-adaptive", "the same, with a factor for each element (DC-ASGD-a)"),
        ],
    ),
    text(
        "keep",
        "compensate=magnitude or delay-adaptive",
        NUMBER,
        "0.9",
        "Share of the moving mean that is kept; 0.95 after delay-adaptive",
    ),
    text(
        "length",
        "compensate=magnitude or merge=vote",
        NUMBER,
        "0.005",
        "How far an element moves in a step; 0.001 after merge=vote",
    ),
    text("least", "compensate=magnitude", NUMBER, "0.0001", "Added to the mean magnitude"),
    text(
        "push_cost",
        "compensate=magnitude",
        NUMBER,
        "0",
        "Mean magnitude at which half of the updates are sent; 0: all are",
    ),
    text(
        "fetch_cost",
        "compensate=magnitude",
        NUMBER,
        "0",
        "Mean magnitude at which half of the updates fetch parameters; 0: all do",
    ),
    text(
        "strength",
        "compensate=delay or delay-adaptive",
        NUMBER,
        "0.04",
        "Factor on the correction; 2 after delay-adaptive",
    ),
    text("worker_rate", "compensate=delay or delay-adaptive", NUMBER, "0.1", "Learning rate of the workers"),
    text(
        "bounded",
        "compensate=delay or delay-adaptive",
        SWITCH,
        "false",
        "Whether a correction is at most as large as its update",
    ),
    names("codec", "", "f32", "Encoding of contributions", CODECS),
    names(
        "scope",
        "codec=threshold, topk or sign",
        "",
        "The part of the vector that shares a threshold, a share or a scale",
        SCOPES,
    ),
    text("tau", "codec=threshold", "a number", "0.001953125", "Threshold: a power of two, in units of updates"),
    text(
        "clip",
        "codec=threshold",
        NUMBER,
        "0",
        "Limit of the residual in thresholds, beyond which it is lost; 0: no limit",
    ),
    names("control", "codec=threshold", "fixed", "Control of the threshold during the run", CONTROLS),
    text(
        "budget",
        "codec=threshold",
        WHOLE,
        "",
        "Limit of a message in bytes; also sets control=budget, where it is 65536 if it is not set",
    ),
    text(
        "density",
        "codec=threshold or topk",
        NUMBER,
        "",
        "Share of the elements that a message carries, 0.001 if it is not set; of threshold, it also sets control=density",
    ),
    names("values", "codec=topk", "f32", "How the elements are written", VALUES),
    names("pull", "", "f32", "Encoding of the parameters that servers send", CODECS),
    names("pull_scope", "pull=threshold, topk or sign", "", "As scope, for pull", SCOPES),
    text("pull_tau", "pull=threshold", NUMBER, "0.001953125", "As tau, for pull"),
    text("pull_clip", "pull=threshold", NUMBER, "0", "As clip, for pull"),
    names("pull_control", "pull=threshold", "fixed", "As control, for pull", CONTROLS),
    text("pull_budget", "pull=threshold", WHOLE, "", "As budget, for pull"),
    text("pull_density", "pull=threshold or topk", NUMBER, "", "As density, for pull"),
    names("pull_values", "pull=topk", "f32", "As values, for pull", VALUES),
    text(
        "momentum",
        "",
        NUMBER,
        "0",
        "Momentum before a sparse codec, in place of the optimizer's: the loop must have none",
    ),
    text("clip_norm", "", NUMBER, "0", "Limit of the norm of an update before a sparse codec; 0: no limit"),
    text("warmup", "", WHOLE, "0", "First messages of a sparse codec that are dense"),
    text("ramp", "", WHOLE, "0", "Messages over which the density falls from 25 % to its target"),
    text("starters", "", WHOLE, "0", "Ranks that train before the others begin, without rounds; 0: all begin at once"),
    text("head_start", "", WHOLE, "0", "Messages of the starters before the others begin"),
    text("decay", "", NUMBER, "1", "Factor on the residual before a contribution is added; what it removes is lost"),
    names(
        "end",
        "",
        "keep",
        "The residual of a worker that ends",
        &[
            ("keep", "it is not sent"),
            ("send", "all of it is sent at once"),
            ("spread", "its largest part is sent in several messages"),
        ],
    ),
    text("messages", "end=spread", WHOLE, "20", "Most messages that send the residual"),
    names(
        "outer",
        "",
        "none",
        "Optimizer that turns merged updates into new parameters",
        &[
            ("none", "the merged update is subtracted as it is"),
            ("momentum", "momentum of merged updates"),
            ("delayed-nesterov", "momentum of the mean of several updates, for asynchronous workers"),
            ("adagrad", "a rate for each element, by its sum of squares"),
            ("adam", "momentum, and a rate for each element by its mean square"),
        ],
    ),
    text(
        "mu",
        "outer=momentum, delayed-nesterov or adam",
        "a number, or 1-1/n",
        "0.9",
        "Share of the velocity that is kept",
    ),
    text(
        "rate",
        "outer=momentum, delayed-nesterov, adagrad or adam",
        NUMBER,
        "1",
        "Factor on a merged update; 0.7 after delayed-nesterov, 0.01 after adam",
    ),
    text("look", "outer=momentum", SWITCH, "false", "Whether the momentum is in Nesterov's form"),
    names(
        "scale",
        "outer=momentum",
        "update",
        "Unit of the velocity",
        &[("update", "updates"), ("rate", "updates divided by their learning rate (SlowMo)")],
    ),
    text(
        "pushes",
        "outer=delayed-nesterov",
        "a whole number, or n",
        "n",
        "Updates for each step of the momentum; n: workers",
    ),
    text("beta", "outer=adam", NUMBER, "0.99", "Share of the mean square that is kept"),
    text("floor", "outer=adagrad or adam", NUMBER, "0.00000001", "Added to the root of the squares; 0.001 after adam"),
    names(
        "optimizer",
        "",
        "keep",
        "The workers' optimizer state at a synchronisation",
        &[
            ("keep", "each worker keeps its own"),
            ("reset", "sync_with sets it to zero; step and sync do not have it, and leave it"),
            ("average", "sync_with averages it together with the parameters"),
        ],
    ),
];

impl Key {
    /// The key with this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }
}
