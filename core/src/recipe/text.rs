//! The text form of a recipe: `key=value` words, separated by spaces or newlines. The module documentation of
//! [`recipe`](crate::recipe) lists the keys.
//!
//! A first word without `=` names the preset to start from; without one, parsing starts from `sync`. Later words
//! override earlier ones. Writing is canonical: every axis, in a fixed order, with the numbers that belong to its
//! choice. Nodes compare recipes by this text.

mod choices;
mod error;
mod write;

use alloc::string::ToString;
use alloc::vec::Vec;
use core::str::FromStr;

use choices::{
    ADAPTS, CODECS, COMPENSATIONS, CONTROLS, ENDS, LATES, MERGES, NORMALIZES, OPTIMIZERS, OUTERS, PACES, PAYLOADS,
    SCALINGS, SCOPES, SIGN_SCOPES, TOP_K_SCOPES, TOPOLOGIES, VALUES, VELOCITY_SCALES, WEIGHS, choice,
};
pub(super) use choices::{NUMBER, PERIOD, WHOLE, number, time};
pub use error::RecipeParseError;
pub(crate) use error::edit_distance;
use error::{nearest, unknown_key};

use super::{
    Adapt, Codec, Compensate, Control, Count, End, Grace, Key, Merge, Mu, Outer, Pace, Period, Recipe, Scaling,
    Topology,
};

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
            ("scale", Self::Momentum { scale, .. }) => *scale = choice("scale", value, VELOCITY_SCALES)?,
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
            ("push_cost", Self::Magnitude { push_cost, .. }) => *push_cost = number("push_cost", NUMBER, value)?,
            ("fetch_cost", Self::Magnitude { fetch_cost, .. }) => *fetch_cost = number("fetch_cost", NUMBER, value)?,
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
        let mut errors = Vec::new();
        let preset = words.next_if(|word| !word.contains('=')).map(|name| {
            Self::preset(name)
                .ok_or_else(|| RecipeParseError::UnknownPreset { got: name.to_string(), nearest: nearest(name) })
        });
        let known = !matches!(preset, Some(Err(_)));
        let mut recipe = preset.transpose().unwrap_or_else(|error| {
            errors.push(error);
            None
        });
        let recipe = recipe.get_or_insert(Self::sync());
        // In order, so that a number can follow the choice that it belongs to.
        for word in words {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            // Of an unknown preset, it is not known which keys it has.
            if known || Key::find(key).is_none() {
                errors.extend(recipe.set(key, value).err());
            }
        }
        match errors.len() {
            0 => Ok(*recipe),
            1 => Err(errors.remove(0)),
            _ => Err(RecipeParseError::Several(errors)),
        }
    }
}

impl Recipe {
    /// Changes one key of the text form, for instance `set("bound", "4")`. A number that belongs to a choice (`bound`,
    /// `tau`, …) can be set only after the choice is made.
    ///
    /// # Errors
    /// [`RecipeParseError::UnknownKey`] or [`RecipeParseError::BadValue`]; the recipe is unchanged.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), RecipeParseError> {
        // Only keys of the reference exist.
        if Key::find(key).is_none() {
            return Err(unknown_key(key, self));
        }
        let before = *self;
        let unknown = || Err(unknown_key(key, &before));
        match key {
            "payload" => self.payload = choice("payload", value, PAYLOADS)?,
            "period" => self.period = number::<Period>("period", PERIOD, value)?,
            "fetch" => self.fetch = Some(number("fetch", WHOLE, value)?),
            "adapt" => self.adapt = choice("adapt", value, ADAPTS)?,
            "normalize" => self.normalize = choice("normalize", value, NORMALIZES)?,
            "weigh" => self.weigh = choice("weigh", value, WEIGHS)?,
            "most" => match &mut self.adapt {
                Adapt::Loss { most } => *most = number("most", WHOLE, value)?,
                _ => return unknown(),
            },
            "topology" => self.topology = choice("topology", value, TOPOLOGIES)?,
            "pace" => self.pace = choice("pace", value, PACES)?,
            "merge" => self.merge = choice("merge", value, MERGES)?,
            "staleness" => self.staleness.scaling = choice("staleness", value, SCALINGS)?,
            "compensate" => self.compensate = choice("compensate", value, COMPENSATIONS)?,
            "keep" | "length" | "least" | "push_cost" | "fetch_cost" | "strength" | "worker_rate" | "bounded" => {
                if !self.compensate.set(key, value)? && !self.merge.set(key, value)? {
                    return unknown();
                }
            }
            "codec" => self.codec = choice("codec", value, CODECS)?,
            "outer" => self.outer = choice("outer", value, OUTERS)?,
            "mu" | "beta" | "rate" | "look" | "scale" | "floor" | "pushes" => {
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
                Topology::Auto => self.topology = Topology::Tree { fan_in: number("fan_in", WHOLE, value)? },
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
            "count" | "grace" | "cap" | "late" => {
                let Pace::First { count, grace, late } = &mut self.pace else { return unknown() };
                match key {
                    "count" => *count = number::<Count>("count", "a number, or n-1 for all workers but 1", value)?,
                    "grace" => *grace = Grace::read(value)?,
                    // This key also makes the grace adaptive.
                    "cap" => *grace = Grace::Adaptive { cap: time("cap", value)? },
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

#[cfg(test)]
mod tests;
