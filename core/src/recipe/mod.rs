//! Recipes: every method is one choice on each of a few axes.
//!
//! | axis | question | values here |
//! |---|---|---|
//! | payload | what travels | parameters, updates |
//! | period | how often | every H local steps, H by a schedule |
//! | topology | between whom | parameter servers, tree, ring, mesh (full or relayed) |
//! | pace | when may a worker go on | synchronous, stale-synchronous, asynchronous |
//! | merge | how many become one | example-weighted mean, sum times lambda, softsync |
//! | staleness | how a late update is scaled | const, inverse, inverse-plus-one, exp, poly; drop-above |
//! | codec, each way | how it is written | f32, bf16, f16, int8, sign, threshold, top-k |
//! | correction | what goes before a sparse codec | momentum with masking, warm-up, ramp, head start |
//! | optimizer | what becomes of the worker's optimizer state | keep, reset, average |
//!
//! Code follows the axes: a rule lives in one file of its axis, and a published method is a preset
//! ([`presets`](crate::recipe::PRESETS)), never a code path of its own.

mod axes;
pub(crate) mod check;
mod codec;
mod period;
mod presets;
pub(crate) mod settings;
mod staleness;
mod text;

pub use axes::{Merge, OptimizerState, Pace, Payload, Topology};
pub use codec::{Codec, Control, Correction, Threshold, TopK};
pub use period::{Period, PeriodParseError};
pub use presets::{PRESETS, Preset};
pub use staleness::{Scaling, Staleness};
pub use text::RecipeParseError;

// Users reach these two at the root of the crate.
pub(crate) use check::{ConfigError, check_range};
pub(crate) use settings::Recipe;
