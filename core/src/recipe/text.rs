//! The text form of a recipe: `key=value` words, separated by spaces or newlines. The module documentation of
//! [`recipe`](crate::recipe) lists the keys.
//!
//! A first word without `=` names the preset to start from; without one, parsing starts from `sync`. Later words
//! override earlier ones. Writing is canonical: every axis, in a fixed order, with the numbers that belong to its
//! choice. Nodes compare recipes by this text.

use alloc::string::{String, ToString};
use core::fmt;
use core::str::FromStr;
use core::time::Duration;

use super::{
    Adapt, Codec, Compensate, Control, Correction, Count, End, Lambda, Late, Merge, Mu, Normalize, OptimizerState,
    Outer, PRESETS, Pace, Payload, Period, Pushes, Recipe, Scaling, Span, Threshold, TopK, Topology, Values,
};

/// Why a text could not be parsed as a recipe.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecipeParseError {
    /// There is no preset with this name.
    UnknownPreset {
        /// The given name.
        got: String,
        /// The preset with the most similar name, if one is similar enough for a suggestion.
        nearest: Option<&'static str>,
    },
    /// There is no such key, or it belongs to a choice that the recipe has not made.
    UnknownKey {
        /// The given key.
        got: String,
        /// The choice that the key belongs to, for instance `pace=stale` for `bound`.
        required: Option<&'static str>,
    },
    /// The key does not take this value.
    BadValue {
        /// The key, without a prefix `pull_`.
        key: &'static str,
        /// The values that the key takes.
        expected: &'static str,
        /// The given value.
        got: String,
    },
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.payload {
            Payload::Parameters => write!(f, "payload=parameters")?,
            Payload::Updates => write!(f, "payload=updates")?,
            Payload::Gradients => write!(f, "payload=gradients")?,
        }
        write!(f, " period={}", self.period)?;
        if let Some(steps) = self.fetch {
            write!(f, " fetch={steps}")?;
        }
        match self.adapt {
            Adapt::None => {}
            Adapt::Speed => write!(f, " adapt=speed")?,
            Adapt::Loss { most } => write!(f, " adapt=loss most={most}")?,
        }
        match self.normalize {
            Normalize::None => {}
            Normalize::Steps => write!(f, " normalize=steps")?,
        }
        match self.topology {
            Topology::Servers { shards } => write!(f, " topology=servers shards={shards}")?,
            Topology::Tree { fan_in } => write!(f, " topology=tree fan_in={fan_in} chunk={}", self.chunk)?,
            Topology::Ring => write!(f, " topology=ring chunk={}", self.chunk)?,
            Topology::Mesh { relay } => write!(f, " topology=mesh relay={relay}")?,
        }
        match self.pace {
            Pace::Synchronous => write!(f, " pace=synchronous")?,
            Pace::Stale { bound } => write!(f, " pace=stale bound={bound}")?,
            Pace::Asynchronous { overlap } => write!(f, " pace=asynchronous overlap={overlap}")?,
            Pace::First { count, grace, late } => {
                let late = if late == Late::Drop { "drop" } else { "next" };
                write!(f, " pace=first count={count} grace={} late={late}", Span::Time(grace))?;
            }
        }
        write!(f, " ")?;
        self.merge.write(f)?;
        match self.staleness.scaling {
            Scaling::Const => write!(f, " staleness=const")?,
            Scaling::Inverse => write!(f, " staleness=inverse")?,
            Scaling::InversePlusOne => write!(f, " staleness=inverse-plus-one")?,
            Scaling::Exp { base } => write!(f, " staleness=exp base={base}")?,
            Scaling::Poly { power } => write!(f, " staleness=poly power={power}")?,
        }
        if let Some(limit) = self.staleness.drop_above {
            write!(f, " drop_above={limit}")?;
        }
        match self.compensate {
            Compensate::None => {}
            Compensate::Magnitude { keep, length, least } => {
                write!(f, " compensate=magnitude keep={keep} length={length} least={least}")?;
            }
            Compensate::Delay { strength, worker_rate, bounded } => {
                write!(f, " compensate=delay strength={strength} worker_rate={worker_rate} bounded={bounded}")?;
            }
            Compensate::DelayAdaptive { strength, worker_rate, keep, bounded } => {
                write!(f, " compensate=delay-adaptive strength={strength} worker_rate={worker_rate}")?;
                write!(f, " keep={keep} bounded={bounded}")?;
            }
        }
        write!(f, " codec=")?;
        write_codec(f, &self.codec, "")?;
        // Contradictory choices are written too, so that the text shows them and parses to the same recipe.
        if self.needs_servers() || self.pull != Codec::F32 {
            write!(f, " pull=")?;
            write_codec(f, &self.pull, "pull_")?;
        }
        if self.codec.is_sparse() || self.correction != Correction::none() {
            let Correction { momentum, warmup, ramp, starters, head_start, clip_norm } = self.correction;
            write!(f, " momentum={momentum} warmup={warmup} ramp={ramp} starters={starters} head_start={head_start}")?;
            write!(f, " clip_norm={clip_norm}")?;
        }
        if self.decay != 1.0 {
            write!(f, " decay={}", self.decay)?;
        }
        match self.end {
            End::Keep if self.codec == Codec::F32 => {}
            End::Keep => write!(f, " end=keep")?,
            End::Send => write!(f, " end=send")?,
            End::Spread { messages } => write!(f, " end=spread messages={messages}")?,
        }
        match self.outer {
            Outer::None => {}
            Outer::Momentum { mu, rate, look } => write!(f, " outer=momentum mu={mu} rate={rate} look={look}")?,
            Outer::DelayedNesterov { mu, rate, pushes } => {
                write!(f, " outer=delayed-nesterov mu={mu} rate={rate} pushes={pushes}")?;
            }
            Outer::Adagrad { rate, floor } => write!(f, " outer=adagrad rate={rate} floor={floor}")?,
            Outer::Adam { mu, beta, rate, floor } => {
                write!(f, " outer=adam mu={mu} beta={beta} rate={rate} floor={floor}")?;
            }
        }
        match self.optimizer {
            OptimizerState::Keep => write!(f, " optimizer=keep"),
            OptimizerState::Reset => write!(f, " optimizer=reset"),
            OptimizerState::Average => write!(f, " optimizer=average"),
        }
    }
}

fn write_codec(f: &mut fmt::Formatter<'_>, codec: &Codec, prefix: &str) -> fmt::Result {
    match codec {
        Codec::F32 => write!(f, "f32"),
        Codec::Bf16 => write!(f, "bf16"),
        Codec::F16 => write!(f, "f16"),
        Codec::Int8 => write!(f, "int8"),
        Codec::Sign => write!(f, "sign {prefix}scope=block"),
        Codec::SignColumns => write!(f, "sign {prefix}scope=column"),
        Codec::TopK(TopK { density, per_chunk, values }) => {
            let scope = if *per_chunk { "chunk" } else { "all" };
            let values = match values {
                Values::F32 => "f32",
                Values::Int8 => "int8",
                Values::TwoMeans => "two-means",
            };
            write!(f, "topk {prefix}density={density} {prefix}scope={scope} {prefix}values={values}")
        }
        Codec::Threshold(Threshold { tau, control, per_tensor, clip }) => {
            let scope = if *per_tensor { "tensor" } else { "all" };
            write!(f, "threshold {prefix}tau={tau} {prefix}scope={scope} {prefix}clip={clip} {prefix}control=")?;
            match control {
                Control::Fixed => write!(f, "fixed"),
                Control::Band => write!(f, "band"),
                Control::Density { density } => write!(f, "density {prefix}density={density}"),
                Control::Budget { bytes } => write!(f, "budget {prefix}budget={bytes}"),
            }
        }
    }
}

impl Codec {
    /// Changes one number of the codec. `Ok(false)`: this codec has no such key.
    fn set(&mut self, key: &str, value: &str) -> Result<bool, RecipeParseError> {
        match (key, self) {
            ("density", Self::TopK(top)) => top.density = number("density", NUMBER, value)?,
            ("scope", Self::TopK(top)) => top.per_chunk = choice("scope", value, TOP_K_SCOPES)?,
            ("scope", codec @ (Self::Sign | Self::SignColumns)) => *codec = choice("scope", value, SIGN_SCOPES)?,
            ("values", Self::TopK(top)) => top.values = choice("values", value, VALUES)?,
            ("tau", Self::Threshold(threshold)) => threshold.tau = number("tau", NUMBER, value)?,
            ("clip", Self::Threshold(threshold)) => threshold.clip = number("clip", NUMBER, value)?,
            ("scope", Self::Threshold(threshold)) => threshold.per_tensor = choice("scope", value, SCOPES)?,
            ("control", Self::Threshold(threshold)) => threshold.control = choice("control", value, CONTROLS)?,
            // These two keys also select the controller that they belong to.
            ("density", Self::Threshold(threshold)) => {
                threshold.control = Control::Density { density: number("density", NUMBER, value)? };
            }
            ("budget", Self::Threshold(threshold)) => {
                threshold.control = Control::Budget { bytes: number("budget", WHOLE, value)? };
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl Outer {
    /// Changes one number of the outer optimizer. `Ok(false)`: this one has no such key.
    fn set(&mut self, key: &str, value: &str) -> Result<bool, RecipeParseError> {
        match (key, self) {
            ("mu", Self::Momentum { mu, .. } | Self::DelayedNesterov { mu, .. }) => {
                *mu = number::<Mu>("mu", "a number, or 1-1/n", value)?
            }
            ("mu", Self::Adam { mu, .. }) => *mu = number("mu", NUMBER, value)?,
            ("beta", Self::Adam { beta, .. }) => *beta = number("beta", NUMBER, value)?,
            ("look", Self::Momentum { look, .. }) => *look = number("look", "true or false", value)?,
            ("pushes", Self::DelayedNesterov { pushes, .. }) => {
                *pushes = number("pushes", "a whole number, or n", value)?
            }
            ("rate", Self::Momentum { rate, .. } | Self::DelayedNesterov { rate, .. }) => {
                *rate = number("rate", NUMBER, value)?
            }
            ("rate", Self::Adagrad { rate, .. } | Self::Adam { rate, .. }) => {
                *rate = number("rate", NUMBER, value)?;
            }
            ("floor", Self::Adagrad { floor, .. } | Self::Adam { floor, .. }) => {
                *floor = number("floor", NUMBER, value)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl Compensate {
    /// Changes one number of the correction. `Ok(false)`: this one has no such key.
    fn set(&mut self, key: &str, value: &str) -> Result<bool, RecipeParseError> {
        match (key, self) {
            ("keep", Self::Magnitude { keep, .. } | Self::DelayAdaptive { keep, .. }) => {
                *keep = number("keep", NUMBER, value)?;
            }
            ("length", Self::Magnitude { length, .. }) => *length = number("length", NUMBER, value)?,
            ("least", Self::Magnitude { least, .. }) => *least = number("least", NUMBER, value)?,
            ("strength", Self::Delay { strength, .. } | Self::DelayAdaptive { strength, .. }) => {
                *strength = number("strength", NUMBER, value)?;
            }
            ("worker_rate", Self::Delay { worker_rate, .. } | Self::DelayAdaptive { worker_rate, .. }) => {
                *worker_rate = number("worker_rate", NUMBER, value)?;
            }
            ("bounded", Self::Delay { bounded, .. } | Self::DelayAdaptive { bounded, .. }) => {
                *bounded = number("bounded", "true or false", value)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl FromStr for Recipe {
    type Err = RecipeParseError;

    fn from_str(text: &str) -> Result<Self, RecipeParseError> {
        let mut words = text.split_whitespace().peekable();
        let mut recipe = match words.next_if(|word| !word.contains('=')) {
            Some(name) => Self::preset(name)
                .ok_or_else(|| RecipeParseError::UnknownPreset { got: name.to_string(), nearest: nearest(name) })?,
            None => Self::sync(),
        };
        // In order, so that a number can follow the choice that it belongs to.
        for word in words {
            let (key, value) = word.split_once('=').ok_or_else(|| unknown_key(word))?;
            recipe.set(key, value)?;
        }
        Ok(recipe)
    }
}

impl Recipe {
    /// Changes one key of the text form, for instance `set("bound", "4")`. A number that belongs to a choice (`bound`,
    /// `tau`, …) can be set only after the choice is made.
    ///
    /// # Errors
    /// [`RecipeParseError::UnknownKey`] or [`RecipeParseError::BadValue`]; the recipe is unchanged.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), RecipeParseError> {
        let unknown = || Err(unknown_key(key));
        match key {
            "payload" => self.payload = choice("payload", value, PAYLOADS)?,
            "period" => self.period = number::<Period>("period", PERIOD, value)?,
            "fetch" => self.fetch = Some(number("fetch", WHOLE, value)?),
            "adapt" => self.adapt = choice("adapt", value, ADAPTS)?,
            "normalize" => self.normalize = choice("normalize", value, NORMALIZES)?,
            "most" => match &mut self.adapt {
                Adapt::Loss { most } => *most = number("most", WHOLE, value)?,
                _ => return unknown(),
            },
            "topology" => self.topology = choice("topology", value, TOPOLOGIES)?,
            "pace" => self.pace = choice("pace", value, PACES)?,
            "merge" => self.merge = choice("merge", value, MERGES)?,
            "staleness" => self.staleness.scaling = choice("staleness", value, SCALINGS)?,
            "compensate" => self.compensate = choice("compensate", value, COMPENSATIONS)?,
            "keep" | "length" | "least" | "strength" | "worker_rate" | "bounded" => {
                if !self.compensate.set(key, value)? {
                    return unknown();
                }
            }
            "codec" => self.codec = choice("codec", value, CODECS)?,
            "outer" => self.outer = choice("outer", value, OUTERS)?,
            "mu" | "beta" | "rate" | "look" | "floor" | "pushes" => {
                if !self.outer.set(key, value)? {
                    return unknown();
                }
            }
            "optimizer" => self.optimizer = choice("optimizer", value, OPTIMIZERS)?,
            "drop_above" => self.staleness.drop_above = Some(number("drop_above", WHOLE, value)?),
            "shards" => match &mut self.topology {
                Topology::Servers { shards } => *shards = number("shards", WHOLE, value)?,
                _ => return unknown(),
            },
            "fan_in" => match &mut self.topology {
                Topology::Tree { fan_in } => *fan_in = number("fan_in", WHOLE, value)?,
                _ => return unknown(),
            },
            "chunk" if self.has_chunks() => self.chunk = number("chunk", WHOLE, value)?,
            "relay" => match &mut self.topology {
                Topology::Mesh { relay } => *relay = number("relay", WHOLE, value)?,
                _ => return unknown(),
            },
            "bound" => match &mut self.pace {
                Pace::Stale { bound } => *bound = number("bound", WHOLE, value)?,
                _ => return unknown(),
            },
            "overlap" => match &mut self.pace {
                Pace::Asynchronous { overlap } => *overlap = number("overlap", "true or false", value)?,
                _ => return unknown(),
            },
            "count" | "grace" | "late" => {
                let Pace::First { count, grace, late } = &mut self.pace else { return unknown() };
                match key {
                    "count" => *count = number::<Count>("count", "a number, or n-1 for all workers but 1", value)?,
                    "grace" => *grace = time("grace", value)?,
                    _ => *late = choice("late", value, LATES)?,
                }
            }
            "lambda" => match &mut self.merge {
                Merge::Sum { lambda } => *lambda = number("lambda", "a number, or a number over n as in 1/n", value)?,
                _ => return unknown(),
            },
            "alpha" => match &mut self.merge {
                Merge::Elastic { alpha } => {
                    *alpha = number("alpha", "a number, or a number over n as in 0.9/n", value)?
                }
                _ => return unknown(),
            },
            "updates" => match &mut self.merge {
                Merge::Softsync { updates } => *updates = number("updates", WHOLE, value)?,
                _ => return unknown(),
            },
            "trim" | "radius" | "iterations" | "faulty" | "best" => {
                if !self.merge.set(key, value)? {
                    return unknown();
                }
            }
            "base" => match &mut self.staleness.scaling {
                Scaling::Exp { base } => *base = number("base", NUMBER, value)?,
                _ => return unknown(),
            },
            "power" => match &mut self.staleness.scaling {
                Scaling::Poly { power } => *power = number("power", NUMBER, value)?,
                _ => return unknown(),
            },
            "pull" => self.pull = choice("pull", value, CODECS)?,
            "momentum" => self.correction.momentum = number("momentum", NUMBER, value)?,
            "warmup" => self.correction.warmup = number("warmup", WHOLE, value)?,
            "ramp" => self.correction.ramp = number("ramp", WHOLE, value)?,
            "starters" => self.correction.starters = number("starters", WHOLE, value)?,
            "clip_norm" => self.correction.clip_norm = number("clip_norm", NUMBER, value)?,
            "decay" => self.decay = number("decay", NUMBER, value)?,
            "end" => self.end = choice("end", value, ENDS)?,
            "messages" => match &mut self.end {
                End::Spread { messages } => *messages = number("messages", WHOLE, value)?,
                _ => return unknown(),
            },
            "head_start" => self.correction.head_start = number("head_start", WHOLE, value)?,
            // The remaining keys belong to a codec, and with a prefix to the codec of the servers.
            _ => {
                let known = match key.strip_prefix("pull_") {
                    Some(key) => self.pull.set(key, value)?,
                    None => self.codec.set(key, value)?,
                };
                if !known {
                    return unknown();
                }
            }
        }
        Ok(())
    }
}

pub(super) const WHOLE: &str = "a whole number, 0 or more";
pub(super) const NUMBER: &str = "a number";
const PERIOD: &str = "steps, a time as in 20s, examples as in 4096ex, or stages as in 1,10@500 of which only the last may be \
                      other than steps";

/// The values of a key, in words for error messages, and by name.
type Choices<T> = (&'static str, &'static [(&'static str, T)]);

const PAYLOADS: Choices<Payload> = (
    "parameters, updates or gradients",
    &[("parameters", Payload::Parameters), ("updates", Payload::Updates), ("gradients", Payload::Gradients)],
);
const ADAPTS: Choices<Adapt> =
    ("none, speed or loss", &[("none", Adapt::None), ("speed", Adapt::Speed), ("loss", Adapt::Loss { most: 64 })]);
const NORMALIZES: Choices<Normalize> = ("none or steps", &[("none", Normalize::None), ("steps", Normalize::Steps)]);
const TOPOLOGIES: Choices<Topology> = (
    "servers, tree, ring or mesh",
    &[
        ("servers", Topology::Servers { shards: 1 }),
        ("tree", Topology::Tree { fan_in: 2 }),
        ("ring", Topology::Ring),
        ("mesh", Topology::Mesh { relay: 0 }),
    ],
);
const PACES: Choices<Pace> = (
    "synchronous, stale, asynchronous or first",
    &[
        ("synchronous", Pace::Synchronous),
        ("stale", Pace::Stale { bound: 3 }),
        ("asynchronous", Pace::Asynchronous { overlap: false }),
        ("first", Pace::First { count: Count::AllBut(1), grace: Duration::ZERO, late: Late::Drop }),
    ],
);
const LATES: Choices<Late> = ("drop or next", &[("drop", Late::Drop), ("next", Late::Next)]);
const MERGES: Choices<Merge> = (
    "mean, sum, softsync, elastic, trimmed-mean, median, norm-clip, centred-clip, krum, adasum or rda",
    &[
        ("mean", Merge::Mean),
        ("sum", Merge::Sum { lambda: Lambda::per_worker(1.0) }),
        ("softsync", Merge::Softsync { updates: 2 }),
        ("elastic", Merge::Elastic { alpha: Lambda::per_worker(0.9) }),
        ("trimmed-mean", Merge::TrimmedMean { trim: 1 }),
        ("median", Merge::Median),
        ("norm-clip", Merge::NormClip),
        ("centred-clip", Merge::CentredClip { radius: 1.0, iterations: 1 }),
        ("krum", Merge::Krum { faulty: 1, best: 1 }),
        ("adasum", Merge::Adasum),
        ("rda", Merge::Rda),
    ],
);
const SCALINGS: Choices<Scaling> = (
    "const, inverse, inverse-plus-one, exp or poly",
    &[
        ("const", Scaling::Const),
        ("inverse", Scaling::Inverse),
        ("inverse-plus-one", Scaling::InversePlusOne),
        ("exp", Scaling::Exp { base: 0.5 }),
        ("poly", Scaling::Poly { power: 0.5 }),
    ],
);
const COMPENSATIONS: Choices<Compensate> = (
    "none, magnitude, delay or delay-adaptive",
    &[
        ("none", Compensate::None),
        ("magnitude", Compensate::Magnitude { keep: 0.9, length: 0.005, least: 1e-4 }),
        ("delay", Compensate::Delay { strength: 0.04, worker_rate: 0.1, bounded: false }),
        ("delay-adaptive", Compensate::DelayAdaptive { strength: 2.0, worker_rate: 0.1, keep: 0.95, bounded: false }),
    ],
);
const CODECS: Choices<Codec> = (
    "f32, bf16, f16, int8, sign, threshold or topk",
    &[
        ("f32", Codec::F32),
        ("bf16", Codec::Bf16),
        ("f16", Codec::F16),
        ("int8", Codec::Int8),
        ("sign", Codec::Sign),
        ("threshold", Codec::Threshold(Threshold::fixed(1.0 / 512.0))),
        ("topk", Codec::TopK(TopK::all(1e-3))),
    ],
);
const CONTROLS: Choices<Control> = (
    "fixed, band, density or budget",
    &[
        ("fixed", Control::Fixed),
        ("band", Control::Band),
        ("density", Control::Density { density: 1e-3 }),
        ("budget", Control::Budget { bytes: 65_536 }),
    ],
);
const SCOPES: Choices<bool> = ("all or tensor", &[("all", false), ("tensor", true)]);
const TOP_K_SCOPES: Choices<bool> = ("all or chunk", &[("all", false), ("chunk", true)]);
const SIGN_SCOPES: Choices<Codec> = ("block or column", &[("block", Codec::Sign), ("column", Codec::SignColumns)]);
const VALUES: Choices<Values> =
    ("f32, int8 or two-means", &[("f32", Values::F32), ("int8", Values::Int8), ("two-means", Values::TwoMeans)]);
const ENDS: Choices<End> =
    ("keep, send or spread", &[("keep", End::Keep), ("send", End::Send), ("spread", End::Spread { messages: 20 })]);
const OUTERS: Choices<Outer> = (
    "none, momentum, delayed-nesterov, adagrad or adam",
    &[
        ("none", Outer::None),
        ("momentum", Outer::Momentum { mu: Mu::Fixed(0.9), rate: 1.0, look: false }),
        ("delayed-nesterov", Outer::DelayedNesterov { mu: Mu::Fixed(0.9), rate: 0.7, pushes: Pushes::PerWorker }),
        ("adagrad", Outer::Adagrad { rate: 1.0, floor: 1e-8 }),
        ("adam", Outer::Adam { mu: 0.9, beta: 0.99, rate: 0.01, floor: 1e-3 }),
    ],
);
const OPTIMIZERS: Choices<OptimizerState> = (
    "keep, reset or average",
    &[("keep", OptimizerState::Keep), ("reset", OptimizerState::Reset), ("average", OptimizerState::Average)],
);

/// The choice that a key belongs to, for keys that a recipe has only after that choice.
const REQUIRED: &[(&str, &str)] = &[
    ("most", "adapt=loss"),
    ("shards", "topology=servers"),
    ("fan_in", "topology=tree"),
    ("chunk", "topology=tree or ring"),
    ("relay", "topology=mesh"),
    ("bound", "pace=stale"),
    ("overlap", "pace=asynchronous"),
    ("lambda", "merge=sum"),
    ("updates", "merge=softsync"),
    ("alpha", "merge=elastic"),
    ("trim", "merge=trimmed-mean"),
    ("radius", "merge=centred-clip"),
    ("iterations", "merge=centred-clip"),
    ("faulty", "merge=krum"),
    ("best", "merge=krum"),
    ("messages", "end=spread"),
    ("mu", "outer=momentum, delayed-nesterov or adam"),
    ("beta", "outer=adam"),
    ("pushes", "outer=delayed-nesterov"),
    ("rate", "outer=momentum, delayed-nesterov, adagrad or adam"),
    ("look", "outer=momentum"),
    ("floor", "outer=adagrad or adam"),
    ("keep", "compensate=magnitude or delay-adaptive"),
    ("length", "compensate=magnitude"),
    ("least", "compensate=magnitude"),
    ("strength", "compensate=delay or delay-adaptive"),
    ("worker_rate", "compensate=delay or delay-adaptive"),
    ("bounded", "compensate=delay or delay-adaptive"),
    ("base", "staleness=exp"),
    ("count", "pace=first"),
    ("grace", "pace=first"),
    ("late", "pace=first"),
    ("power", "staleness=poly"),
    ("tau", "codec=threshold"),
    ("scope", "codec=threshold, topk or sign"),
    ("values", "codec=topk"),
    ("clip", "codec=threshold"),
    ("control", "codec=threshold"),
    ("budget", "codec=threshold"),
    ("density", "codec=threshold or topk"),
    ("pull_tau", "pull=threshold"),
    ("pull_scope", "pull=threshold, topk or sign"),
    ("pull_values", "pull=topk"),
    ("pull_clip", "pull=threshold"),
    ("pull_control", "pull=threshold"),
    ("pull_budget", "pull=threshold"),
    ("pull_density", "pull=threshold or topk"),
];

fn unknown_key(key: &str) -> RecipeParseError {
    let required = REQUIRED.iter().find(|(name, _)| *name == key).map(|(_, required)| *required);
    RecipeParseError::UnknownKey { got: key.to_string(), required }
}

fn choice<T: Copy>(key: &'static str, value: &str, (expected, choices): Choices<T>) -> Result<T, RecipeParseError> {
    let found = choices.iter().find(|(name, _)| *name == value);
    found.map(|(_, choice)| *choice).ok_or_else(|| RecipeParseError::BadValue { key, expected, got: value.to_string() })
}

pub(super) fn number<T: FromStr>(
    key: &'static str,
    expected: &'static str,
    value: &str,
) -> Result<T, RecipeParseError> {
    value.parse().map_err(|_| RecipeParseError::BadValue { key, expected, got: value.to_string() })
}

fn time(key: &'static str, value: &str) -> Result<Duration, RecipeParseError> {
    match value.parse() {
        Ok(Span::Time(time)) => Ok(time),
        _ => Err(RecipeParseError::BadValue { key, expected: "a time as in 200ms or 0s", got: value.to_string() }),
    }
}

/// The preset with the smallest edit distance to `name`, if that is at most half the length of the preset's name.
fn nearest(name: &str) -> Option<&'static str> {
    // Other systems call rounds of the first contributions by this name. Here a quorum belongs to views.
    if name == "quorum" {
        return Some("backup-workers");
    }
    most_similar(name, PRESETS.iter().map(|preset| preset.name))
}

/// The candidate with the smallest edit distance to `name`, if that is at most half of its own length.
fn most_similar(name: &str, candidates: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let distance = |candidate: &str| edit_distance(name.as_bytes(), candidate.as_bytes());
    let best = candidates.min_by_key(|candidate| distance(candidate))?;
    (distance(best) * 2 <= best.len()).then_some(best)
}

/// Levenshtein distance, with one row of the table in memory.
fn edit_distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: alloc::vec::Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

impl fmt::Display for RecipeParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownPreset { got, nearest } => {
                write!(f, "recipe: expected a preset (")?;
                for (i, preset) in PRESETS.iter().enumerate() {
                    write!(f, "{}{}", if i == 0 { "" } else { ", " }, preset.name)?;
                }
                write!(f, ") or key=value, got {got:?}")?;
                match nearest {
                    Some(name) => write!(f, " (did you mean {name:?}?)"),
                    None => Ok(()),
                }
            }
            Self::UnknownKey { got, required: Some(required) } => {
                write!(f, "recipe: {got:?} is not a setting of this recipe, it requires {required}")
            }
            Self::UnknownKey { got, required: None } => {
                write!(f, "recipe: {got:?} is not a setting")?;
                if got == "quorum" { write!(f, " (did you mean \"pace=first count=\"?)") } else { Ok(()) }
            }
            Self::BadValue { key, expected, got } => {
                write!(f, "{key}: expected {expected}, got {got:?}")?;
                // A list of names, as those of `Choices`. Other texts describe numbers.
                let names = expected.split(", ").flat_map(|names| names.split(" or "));
                let are_names = !names.clone().any(|name| name.contains(' '));
                // Short names are similar soon, so it takes more than half of one.
                let is_close = |name: &&str| edit_distance(got.as_bytes(), name.as_bytes()) * 2 < name.len();
                if *key == "pace" && got == "quorum" {
                    return write!(f, " (did you mean \"first\"?)");
                }
                match most_similar(got, names).filter(|name| are_names && is_close(name)) {
                    Some(name) => write!(f, " (did you mean {name:?}?)"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl core::error::Error for RecipeParseError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Staleness;
    use alloc::vec::Vec;

    #[test]
    fn every_preset_passes_its_check_and_survives_the_text_form() {
        for preset in PRESETS {
            let recipe = (preset.recipe)();
            assert_eq!(recipe.check(4), Ok(()), "{}", preset.name);
            assert_eq!(recipe.to_string().parse(), Ok(recipe), "{}", preset.name);
        }
    }

    #[test]
    fn stages_limits_and_shards_survive_the_text_form() {
        let recipe = Recipe::softsync(3)
            .with_period("1,10@500,50@2000".parse::<Period>().unwrap())
            .with_staleness(Staleness { scaling: Scaling::Exp { base: 0.9 }, drop_above: Some(40) })
            .with_topology(Topology::Servers { shards: 7 });
        assert_eq!(recipe.to_string().parse(), Ok(recipe));
    }

    #[test]
    fn the_steps_between_fetches_survive_the_text_form() {
        let recipe: Recipe = "async period=5 fetch=10".parse().unwrap();
        assert_eq!((recipe, recipe.check(4)), (Recipe::asynchronous().with_period(5).with_fetch(10), Ok(())));
        assert_eq!(recipe.to_string().parse(), Ok(recipe));
        let error = "async fetch=1.5".parse::<Recipe>().unwrap_err().to_string();
        assert_eq!(error, "fetch: expected a whole number, 0 or more, got \"1.5\"");
    }

    #[test]
    fn codecs_of_both_directions_survive_the_text_form() {
        let controls = ["", " control=band", " density=0.01", " budget=4096 scope=tensor clip=3"];
        let threshold = controls.map(|control| alloc::format!("mesh tau=0.25 momentum=0.9 warmup=3 ramp=10{control}"));
        let dense =
            ["f32", "bf16", "f16", "int8", "sign"].map(|codec| alloc::format!("async codec={codec} pull={codec}"));
        let topk = "hardsync codec=topk density=0.1 pull=threshold pull_tau=0.5 pull_budget=100".to_string();
        let decay = [
            "sparse decay=0.95",
            "ring-int8 decay=0",
            "sparse scope=chunk values=int8",
            "hardsync codec=sign scope=column pull=sign",
        ]
        .map(ToString::to_string);
        for text in threshold.into_iter().chain(dense).chain([topk]).chain(decay) {
            let recipe: Recipe = text.parse().unwrap();
            assert_eq!(recipe.check(4), Ok(()), "{text}");
            assert_eq!(recipe.to_string().parse(), Ok(recipe), "{text}");
        }
    }

    #[test]
    fn merge_rules_of_a_round_survive_the_text_form_and_take_parameters_where_they_can() {
        for text in [
            "hardsync merge=trimmed-mean trim=0",
            "averaging topology=servers shards=3 merge=trimmed-mean",
            "dl4j topology=servers merge=median",
            "norm-clip codec=topk pull=topk outer=momentum",
            "hardsync merge=centred-clip radius=0.5 iterations=3",
            "hardsync merge=centred-clip radius=inf",
            "averaging topology=servers merge=krum faulty=0 best=4",
            "hardsync merge=adasum",
            "diloco topology=servers merge=rda",
        ] {
            let recipe: Recipe = text.parse().unwrap();
            assert_eq!((recipe.check(4), recipe.to_string().parse()), (Ok(()), Ok(recipe)), "{text}");
        }
    }

    #[test]
    fn rounds_of_the_first_survive_the_text_form() {
        for (text, written) in [
            ("hardsync pace=first", "pace=first count=n-1 grace=0s late=drop"),
            ("hardsync pace=first count=3 grace=200ms late=next", "pace=first count=3 grace=0.2s late=next"),
            ("hardsync pace=first count=n grace=1.5s", "pace=first count=n grace=1.5s late=drop"),
        ] {
            let recipe: Recipe = text.parse().unwrap();
            assert_eq!(recipe.check(4), Ok(()), "{text}");
            assert!(recipe.to_string().contains(written), "{recipe}");
            assert_eq!(recipe.to_string().parse(), Ok(recipe), "{text}");
        }
    }

    /// A quorum is a notion of views here, and rounds of the first contributions have another name.
    #[test]
    fn a_quorum_of_contributions_is_answered_with_the_name_that_it_has() {
        let error = |text: &str| text.parse::<Recipe>().unwrap_err().to_string();
        assert_eq!(
            error("hardsync pace=quorum"),
            "pace: expected synchronous, stale, asynchronous or first, got \"quorum\" (did you mean \"first\"?)"
        );
        assert_eq!(
            error("hardsync quorum=3"),
            "recipe: \"quorum\" is not a setting (did you mean \"pace=first count=\"?)"
        );
        assert!(error("quorum count=3").ends_with("got \"quorum\" (did you mean \"backup-workers\"?)"));
        assert_eq!(
            error("hardsync count=3"),
            "recipe: \"count\" is not a setting of this recipe, it requires pace=first"
        );
        assert_eq!(
            error("backup-workers late=nxt"),
            "late: expected drop or next, got \"nxt\" (did you mean \"next\"?)"
        );
        assert_eq!(error("backup-workers grace=200"), "grace: expected a time as in 200ms or 0s, got \"200\"");
        assert_eq!(
            error("backup-workers count=n+1"),
            "count: expected a number, or n-1 for all workers but 1, got \"n+1\""
        );
    }

    #[test]
    fn a_preset_can_be_overridden() {
        let adapted: Recipe = "hardsync period=20 adapt=speed".parse().unwrap();
        assert_eq!(adapted.check(4), Ok(()));
        assert_eq!(adapted.to_string().parse(), Ok(adapted));
        for text in ["hardsync period=20 adapt=speed normalize=steps", "sparse period=9ex normalize=steps"] {
            let recipe: Recipe = text.parse().unwrap();
            assert_eq!(recipe.normalize(), Normalize::Steps);
            assert_eq!((recipe.check(4), recipe.to_string().parse()), (Ok(()), Ok(recipe)));
        }
        let delayed: Recipe = "async outer=delayed-nesterov pushes=7 mu=0.5".parse().unwrap();
        let outer = Outer::DelayedNesterov { mu: Mu::Fixed(0.5), rate: 0.7, pushes: Pushes::Fixed(7) };
        assert_eq!(delayed, Recipe::asynchronous().with_outer(outer));
        assert_eq!((delayed.check(4), delayed.to_string().parse()), (Ok(()), Ok(delayed)));
        let adapted: Recipe = "adacomm period=8 most=9".parse().unwrap();
        assert_eq!(adapted, Recipe::averaging(8).with_adapt(Adapt::Loss { most: 9 }));
        assert_eq!((adapted.check(4), adapted.to_string().parse()), (Ok(()), Ok(adapted)));
        let recipe: Recipe = "ssp bound=7 shards=3".parse().unwrap();
        assert_eq!(recipe, Recipe::ssp(7).with_topology(Topology::Servers { shards: 3 }));
    }

    #[test]
    fn parse_errors_say_what_was_expected_and_what_came() {
        let error = |text: &str| text.parse::<Recipe>().unwrap_err().to_string();
        assert!(error("asinc").ends_with("got \"asinc\" (did you mean \"async\"?)"));
        assert!(error("qqqqqqqq").ends_with("got \"qqqqqqqq\""));
        assert_eq!(error("ssp bound=-1"), "bound: expected a whole number, 0 or more, got \"-1\"");
        assert_eq!(error("sync bound=1"), "recipe: \"bound\" is not a setting of this recipe, it requires pace=stale");
        assert_eq!(error("sync bund=1"), "recipe: \"bund\" is not a setting");
        assert_eq!(
            error("sync merge=max"),
            "merge: expected mean, sum, softsync, elastic, trimmed-mean, median, norm-clip, centred-clip, krum, adasum or rda, got \"max\""
        );
    }

    /// The table of axes in the module documentation: each value parses, and the numbers beside it are its defaults.
    #[test]
    fn the_documented_values_and_defaults_are_those_of_the_parser() {
        let code =
            |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(ToString::to_string).collect() };
        let rows = include_str!("mod.rs").lines().skip_while(|line| !line.contains("# Axes"));
        let rows = rows.take_while(|line| !line.contains("# Presets")).filter(|line| line.starts_with("//! | "));
        let (mut axis, mut seen) = (String::new(), 0);
        for row in rows.skip(1) {
            let cells: Vec<&str> = row.split('|').collect();
            axis = code(cells[1]).first().cloned().unwrap_or(axis);
            let base = match axis.as_str() {
                "control" => "sync codec=threshold",
                "values" => "sync codec=topk",
                "late" => "sync pace=first",
                _ => "sync",
            };
            let base: Recipe = base.parse().unwrap();
            for value in code(cells[2]).iter().filter(|value| *value != "codec") {
                let mut recipe = base;
                assert_eq!(recipe.set(&axis, value), Ok(()), "{row}");
                assert!(!cells[2].contains(&alloc::format!("**`{value}`**")) || recipe == base, "{row}");
                for number in code(cells[3]).join(" ").split(' ').filter_map(|number| number.split_once('=')) {
                    let before = recipe;
                    assert_eq!((recipe.set(number.0, number.1), recipe), (Ok(()), before), "{row}");
                }
                seen += 1;
            }
        }
        assert!(seen > 30, "{seen} values");
    }

    #[test]
    fn a_key_exists_after_the_choice_that_an_error_suggests() {
        for (key, required) in REQUIRED {
            let choice = required.split([' ', ',']).next().unwrap();
            let mut recipe: Recipe = choice.parse().unwrap();
            assert!(matches!(recipe.set(key, "?"), Err(RecipeParseError::BadValue { .. })), "{key}");
        }
    }

    #[test]
    fn gradients_that_cannot_be_shared_are_refused_with_the_reason() {
        let error = |text: &str| text.parse::<Recipe>().unwrap().check(4).unwrap_err().to_string();
        for (text, expected) in [
            (
                "gradients topology=servers",
                "payload=gradients requires topology=tree, ring or mesh: the parameters are at the workers alone",
            ),
            (
                "gradients topology=mesh pace=asynchronous merge=sum codec=threshold",
                "payload=gradients requires pace=synchronous merge=mean: all workers get the mean of a round",
            ),
            (
                "gradients merge=sum lambda=0.5",
                "payload=gradients requires pace=synchronous merge=mean: all workers get the mean of a round",
            ),
            (
                "gradients period=2",
                "payload=gradients requires period=1: gradients of different parameters have no mean",
            ),
            ("gradients outer=adam", "outer requires payload=updates: with payload=gradients, the optimizer is "),
            ("gradients optimizer=reset", "payload=gradients requires optimizer=keep: "),
            ("gradients topology=mesh codec=topk momentum=0.9", "payload=gradients requires momentum=0: "),
        ] {
            assert!(error(text).starts_with(expected), "{text}: {}", error(text));
        }
        for text in ["gradients codec=int8", "gradients topology=ring codec=sign", "gradients topology=mesh codec=topk"]
        {
            assert_eq!(text.parse::<Recipe>().unwrap().check(4), Ok(()), "{text}");
        }
    }

    #[test]
    fn a_mistyped_name_suggests_the_right_one() {
        let error = |text: &str| text.parse::<Recipe>().unwrap_err().to_string();
        assert!(error("gradient").ends_with("(did you mean \"gradients\"?)"));
        assert_eq!(
            error("sync payload=gradient"),
            "payload: expected parameters, updates or gradients, got \"gradient\" (did you mean \"gradients\"?)"
        );
        assert_eq!(
            error("sparse values=two-mean"),
            "values: expected f32, int8 or two-means, got \"two-mean\" (did you mean \"two-means\"?)"
        );
        assert_eq!(error("sparse scope=tensor"), "scope: expected all or chunk, got \"tensor\"");
        assert_eq!(
            error("sync values=int8"),
            "recipe: \"values\" is not a setting of this recipe, it requires codec=topk"
        );
        assert!(error("sync topology=rin").ends_with("(did you mean \"ring\"?)"));
        assert!(error("sync payload=weights").ends_with("got \"weights\""));
        assert!(error("sync fan_in=2.5").ends_with("got \"2.5\""), "a number");
    }

    #[test]
    fn contradictory_recipes_are_refused_with_the_reason() {
        let error = |text: &str| text.parse::<Recipe>().unwrap().check(4).unwrap_err().to_string();
        assert_eq!(error("diloco mu=1"), "mu: expected from 0 to below 1, got 1");
        assert_eq!(error("fedadam beta=-0.1"), "beta: expected from 0 to below 1, got -0.1");
        assert_eq!(error("slowmo rate=0"), "rate: expected a finite number above 0, got 0");
        assert_eq!(error("sync outer=adagrad floor=inf"), "floor: expected a finite number above 0, got inf");
        assert_eq!(error("averaging period=0"), "period: expected at least 1, got 0");
        let every = "(period=1 synchronises at every step), got 0";
        assert_eq!(error("averaging period=0s"), alloc::format!("period: expected more than 0 s {every}"));
        assert_eq!(error("averaging period=1,0ms@5"), alloc::format!("period: expected more than 0 s {every}"));
        assert_eq!(error("sync period=0ex"), alloc::format!("period: expected at least 1 example {every}"));
        assert_eq!(error("easgd alpha=0.3"), "alpha: expected at most 1/n with rounds (0.25 with 4 workers), got 0.3");
        assert_eq!(
            error("easgd alpha=1.5/n"),
            "alpha: expected at most 1/n with rounds (0.25 with 4 workers), got 0.375"
        );
        assert_eq!(error("aeasgd alpha=-1"), "alpha: expected from 0 to 1, got -1");
        assert_eq!(error("aeasgd alpha=5/n"), "alpha: expected from 0 to 1, got 1.25");
        for (text, expected) in [
            ("sync merge=elastic", "merge=elastic requires topology=servers: "),
            ("mesh merge=elastic", "merge=elastic requires topology=servers: "),
            ("ssp merge=elastic", "merge=elastic requires pace=synchronous, or pace=asynchronous overlap=false: "),
            ("aeasgd overlap=true", "merge=elastic requires pace=synchronous, or pace=asynchronous overlap=false: "),
            ("aeasgd payload=parameters", "payload=parameters requires "),
            ("aeasgd fetch=3", "merge=elastic requires no fetch of its own: "),
            (
                "aeasgd staleness=inverse",
                "merge=elastic requires staleness=const without drop_above, outer=none and compensate=none: ",
            ),
            (
                "easgd outer=momentum",
                "merge=elastic requires staleness=const without drop_above, outer=none and compensate=none: ",
            ),
            (
                "aeasgd compensate=magnitude",
                "merge=elastic requires staleness=const without drop_above, outer=none and compensate=none: ",
            ),
        ] {
            assert!(error(text).starts_with(expected), "{text}: {}", error(text));
        }
        for text in ["aeasgd alpha=1", "aeasgd alpha=0", "easgd alpha=1/n codec=bf16", "aeasgd pull=f16 codec=topk"] {
            assert_eq!(text.parse::<Recipe>().unwrap().check(4), Ok(()), "{text}");
        }
        assert_eq!(error("fasgd keep=1"), "keep: expected from 0 to below 1, got 1");
        assert_eq!(error("fasgd length=0"), "length: expected a finite number above 0, got 0");
        assert_eq!(error("fasgd least=-1"), "least: expected a finite number above 0, got -1");
        assert_eq!(error("dc-asgd strength=-1"), "strength: expected a finite number, 0 or more, got -1");
        assert_eq!(error("dc-asgd-a worker_rate=0"), "worker_rate: expected a finite number above 0, got 0");
        for (text, expected) in [
            ("sync compensate=delay", "compensate requires topology=servers: "),
            ("mesh compensate=magnitude", "compensate requires topology=servers: "),
            ("hardsync compensate=magnitude", "compensate requires pace=asynchronous or stale: "),
            ("ssp bound=0 compensate=magnitude", "compensate requires pace=asynchronous or stale: "),
            ("ssp compensate=delay", "compensate=delay or delay-adaptive requires pace=asynchronous overlap=false: "),
            (
                "async overlap=true compensate=delay",
                "compensate=delay or delay-adaptive requires pace=asynchronous overlap=false: ",
            ),
        ] {
            assert!(error(text).starts_with(expected), "{text}: {}", error(text));
        }
        for text in
            ["ssp compensate=magnitude", "softsync compensate=delay", "dc-asgd pull=f16 fetch=4", "fasgd fetch=3"]
        {
            assert_eq!(text.parse::<Recipe>().unwrap().check(4), Ok(()), "{text}");
        }
        assert_eq!(error("async fetch=0"), "fetch: expected at least 1, got 0");
        let apart = "fetch other than the period requires ";
        for (text, expected) in [
            ("sync fetch=2", "topology=servers: "),
            ("mesh fetch=2", "topology=servers: "),
            ("hardsync fetch=2", "pace=asynchronous: "),
            ("ssp fetch=2", "pace=asynchronous: "),
            ("async overlap=true fetch=2", "overlap=false: "),
            ("async period=20s fetch=2", "a period of a number of steps: "),
            ("async period=1,2@9 fetch=2", "a period of a number of steps: "),
        ] {
            let got = error(text);
            assert!(got.strip_prefix(apart).is_some_and(|got| got.starts_with(expected)), "{text}: {got}");
        }
        // The same as without.
        for text in ["sync fetch=1", "ssp period=4 fetch=4", "async overlap=true fetch=1"] {
            assert_eq!(text.parse::<Recipe>().unwrap().check(4), Ok(()), "{text}");
        }
        assert!(error("ssp period=20s").starts_with("a period in seconds requires pace=synchronous or asynchronous: "));
        assert_eq!(error("mesh tau=0"), "tau: expected a power of two from 2^-110 to 2^110, got 0");
        assert_eq!(error("mesh tau=NaN"), "tau: expected a power of two from 2^-110 to 2^110, got NaN");
        assert_eq!(error("mesh tau=-1"), "tau: expected a power of two from 2^-110 to 2^110, got -1");
        assert_eq!(error("mesh tau=0.3"), "tau: expected a power of two, got 0.3 (the nearest below is 0.25)");
        assert_eq!(error("mesh density=2"), "density: expected above 0 and at most 1, got 2");
        assert_eq!(error("mesh budget=10"), "budget: expected at least 64 bytes, got 10");
        assert_eq!(error("mesh clip=-1"), "clip: expected a finite number of thresholds, 0 or more, got -1");
        for (decay, got) in [("-0.5", "-0.5"), ("1.5", "1.5"), ("NaN", "NaN"), ("inf", "inf")] {
            let text = alloc::format!("sparse decay={decay}");
            assert_eq!(error(&text), alloc::format!("decay: expected from 0 to 1, got {got}"));
        }
        assert_eq!(error("mesh momentum=1"), "momentum: expected from 0 to below 1, got 1");
        assert_eq!(error("mesh starters=5"), "starters: expected at most the number of workers, got 5");
        assert!(error("mesh tau=1e-37").starts_with("tau: expected a power of two from 2^-110 to 2^110, got 0.00000"));
        assert_eq!(error("softsync updates=5"), "updates: expected at most the number of workers (4), got 5");
        assert_eq!(error("async outer=delayed-nesterov pushes=0"), "pushes: expected at least 1, got 0");
        assert_eq!(error("averaging period=9 adapt=loss most=8"), "most: expected at least the period, got 8");
        assert_eq!(
            error("backup-workers count=5"),
            "count: expected at most the number of workers (4), got 5: a worker contributes once to a round, so none would \
             end"
        );
        assert_eq!(error("backup-workers count=0"), "count: expected at least 1, got 0");
        assert_eq!(error("backup-workers count=n-4"), "count: expected n-3 at most with 4 workers, got n-4");
        assert_eq!(
            error("sync pace=first"),
            "pace=first requires topology=servers: all members of a tree, ring or mesh have to be in a round, since each \
             computes its result"
        );
        assert_eq!(error("sync fan_in=0"), "fan_in: expected 1 to 8, got 0");
        assert_eq!(
            error("hardsync merge=trimmed-mean trim=2"),
            "trim: 2 requires at least 5 workers, got 4: it cuts so many values at each end, and one must be left"
        );
        for text in ["sync merge=median", "sync topology=ring merge=norm-clip", "sparse merge=trimmed-mean"] {
            assert!(error(text).contains(" requires topology=servers: it needs the contributions of all"), "{text}");
        }
        assert!(error("async merge=median").starts_with("merge=median requires pace=synchronous: "));
        assert!(
            error("hardsync pace=stale bound=0 merge=median").starts_with("merge=median requires pace=synchronous: ")
        );
        for text in ["median codec=topk", "hardsync merge=trimmed-mean codec=threshold"] {
            assert!(
                error(text).contains(" requires a codec other than threshold or topk: of a sparse message"),
                "{text}"
            );
        }
        assert!(error("norm-clip shards=2").starts_with("merge=norm-clip requires shards=1: it measures whole "));
        for text in ["centred-clip", "krum faulty=0", "adasum", "rda"] {
            let text = alloc::format!("hardsync shards=2 merge={text}");
            assert!(error(&text).contains(" requires shards=1: it measures whole "), "{text}: {}", error(&text));
        }
        for text in ["centred-clip", "adasum", "rda"] {
            let text = alloc::format!("averaging topology=servers merge={text}");
            assert!(error(&text).contains(" requires payload=updates: "), "{text}: {}", error(&text));
        }
        assert!(error("sync fan_in=3 merge=adasum").starts_with("merge=adasum requires topology=servers: "));
        assert!(
            error("dl4j topology=servers merge=krum faulty=0").starts_with("merge=krum requires optimizer=keep or ")
        );
        assert_eq!(error("hardsync merge=centred-clip radius=0"), "radius: expected above 0, or inf, got 0");
        assert_eq!(error("hardsync merge=centred-clip radius=NaN"), "radius: expected above 0, or inf, got NaN");
        assert_eq!(error("hardsync merge=centred-clip iterations=0"), "iterations: expected at least 1, got 0");
        assert_eq!(error("hardsync merge=krum best=0"), "best: expected at least 1, got 0");
        assert!(error("hardsync merge=krum").starts_with("faulty: 1 requires at least 5 workers, got 4: "));
        assert!(
            error("hardsync merge=krum faulty=0 best=5").starts_with("best: 5 requires at least 5 workers, got 4: ")
        );
        assert!(
            error("norm-clip payload=parameters").starts_with("merge=norm-clip requires payload=updates: the norm ")
        );
        for (text, expected) in [
            ("hardsync period=9 adapt=loss", "adapt=loss requires topology=tree, ring or mesh: a server that "),
            ("mesh period=9 adapt=loss", "adapt=loss requires pace=synchronous merge=mean: all workers have "),
            (
                "async period=20s normalize=steps",
                "normalize=steps requires pace=synchronous merge=mean: the mean number",
            ),
            ("averaging period=20s normalize=steps", "normalize=steps requires payload=updates: what workers do per "),
            ("sync period=20 normalize=steps", "normalize=steps requires adapt=speed, or a period in seconds or "),
            ("diloco outer=delayed-nesterov", "outer=delayed-nesterov requires topology=servers: it counts the "),
            ("hardsync outer=delayed-nesterov", "outer=delayed-nesterov requires pace=asynchronous, or stale with a "),
        ] {
            assert!(error(text).starts_with(expected), "{text}: {}", error(text));
        }
        for text in [
            "averaging adapt=speed",
            "async period=20 fetch=40 adapt=speed",
            "averaging period=20s normalize=steps",
            "async period=20s normalize=steps",
            "sync period=20 normalize=steps",
            "sync period=20 adapt=loss normalize=steps",
            "hardsync period=9 adapt=loss",
            "async period=9 adapt=loss",
            "mesh period=9 adapt=loss",
            "averaging period=9s adapt=loss",
            "averaging period=99ex adapt=loss",
            "averaging period=1,9@5 adapt=loss",
            "sync adapt=loss",
            "gradients adapt=loss",
            "hardsync adapt=speed",
            "hardsync period=20s adapt=speed",
            "hardsync period=1,20@5 adapt=speed",
            "averaging pace=asynchronous",
            "averaging outer=momentum",
            "sync period=20 outer=delayed-nesterov",
            "hardsync period=20 outer=delayed-nesterov",
            "ssp bound=0 outer=delayed-nesterov",
            "mesh outer=momentum",
            "ssp bound=0 staleness=inverse",
            "sync merge=sum",
            "ssp merge=softsync",
            "mesh codec=f32",
            "mesh codec=bf16",
            "sparse codec=f32",
            "sparse relay=2",
            "sparse starters=1",
            "sparse merge=sum",
            "sparse end=send",
            "sync codec=topk",
            "sync topology=ring codec=threshold",
            "ring-int8 end=spread",
            "async end=send",
            "averaging codec=bf16",
            "averaging topology=servers codec=int8",
            "async codec=sign momentum=0.9",
            "async warmup=3",
            "ssp codec=threshold starters=1",
            "mesh pull=bf16",
            "mesh staleness=inverse",
            "async optimizer=average",
            "async merge=mean",
            "mesh pace=stale",
            "mesh pace=first",
            "ring-bf16 pace=first",
            "softsync pace=first",
            "backup-workers payload=parameters late=next",
            "backup-workers staleness=inverse",
            "backup-workers late=next drop_above=3",
            "gradients topology=servers pace=first",
            "gradients topology=servers",
            "gradients topology=mesh pace=asynchronous merge=sum codec=threshold",
            "gradients merge=sum lambda=0.5",
            "gradients period=2",
            "gradients optimizer=reset",
            "gradients topology=mesh codec=topk momentum=0.9",
            "gradients codec=topk",
            "sync decay=0.5",
            "sync codec=sign scope=column",
            "sync topology=ring codec=sign scope=column",
            "gradients topology=mesh",
            "async payload=gradients",
            "averaging payload=gradients",
        ] {
            assert!(error(text).contains(" requires "), "{text}: {}", error(text));
        }
    }
}
