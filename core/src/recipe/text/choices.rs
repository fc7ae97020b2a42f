//! The values of keys, by name, and the choices that keys belong to.

use alloc::string::ToString;
use core::str::FromStr;
use core::time::Duration;

use super::RecipeParseError;
use crate::recipe::{
    Adapt, Codec, Compensate, Control, Count, End, Grace, Lambda, Late, Merge, Mu, Normalize, OptimizerState, Outer,
    Pace, Payload, Pushes, Scaling, Span, Threshold, TopK, Topology, Values, VelocityScale, Weigh,
};

pub(in crate::recipe) const WHOLE: &str = "a whole number, 0 or more";
pub(in crate::recipe) const NUMBER: &str = "a number";
pub(in crate::recipe) const PERIOD: &str = "steps, a time as in 20s, examples as in 4096ex, or stages as in 1,10@500 of which only the last may be \
                      other than steps";

/// The values of a key, in words for error messages, and by name.
pub(super) type Choices<T> = (&'static str, &'static [(&'static str, T)]);

pub(super) const PAYLOADS: Choices<Payload> = (
    "parameters, updates or gradients",
    &[("parameters", Payload::Parameters), ("updates", Payload::Updates), ("gradients", Payload::Gradients)],
);
pub(super) const ADAPTS: Choices<Adapt> =
    ("none, speed or loss", &[("none", Adapt::None), ("speed", Adapt::Speed), ("loss", Adapt::Loss { most: 64 })]);
pub(super) const NORMALIZES: Choices<Normalize> =
    ("none or steps", &[("none", Normalize::None), ("steps", Normalize::Steps)]);
pub(super) const WEIGHS: Choices<Weigh> =
    ("examples or batch", &[("examples", Weigh::Examples), ("batch", Weigh::Batch)]);
pub(super) const TOPOLOGIES: Choices<Topology> = (
    "servers, auto, tree, ring or mesh",
    &[
        ("servers", Topology::Servers { shards: 1 }),
        ("auto", Topology::Auto),
        ("tree", Topology::Tree { fan_in: 2 }),
        ("ring", Topology::Ring),
        ("mesh", Topology::Mesh { relay: 0 }),
    ],
);
pub(super) const PACES: Choices<Pace> = (
    "synchronous, stale, asynchronous or first",
    &[
        ("synchronous", Pace::Synchronous),
        ("stale", Pace::Stale { bound: 3 }),
        ("asynchronous", Pace::Asynchronous { overlap: false }),
        ("first", Pace::First { count: Count::AllBut(1), grace: Grace::NONE, late: Late::Drop }),
    ],
);
pub(super) const LATES: Choices<Late> = ("drop or next", &[("drop", Late::Drop), ("next", Late::Next)]);
pub(super) const MERGES: Choices<Merge> = (
    "mean, sum, softsync, elastic, trimmed-mean, median, norm-clip, centred-clip, krum, adasum, rda, mean-of-senders or vote",
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
        ("mean-of-senders", Merge::MeanOfSenders),
        ("vote", Merge::Vote { length: 0.001 }),
    ],
);
pub(super) const SCALINGS: Choices<Scaling> = (
    "const, inverse, inverse-plus-one, exp or poly",
    &[
        ("const", Scaling::Const),
        ("inverse", Scaling::Inverse),
        ("inverse-plus-one", Scaling::InversePlusOne),
        ("exp", Scaling::Exp { base: 0.5 }),
        ("poly", Scaling::Poly { power: 0.5 }),
    ],
);
pub(super) const COMPENSATIONS: Choices<Compensate> = (
    "none, magnitude, delay or delay-adaptive",
    &[
        ("none", Compensate::None),
        ("magnitude", Compensate::Magnitude { keep: 0.9, length: 0.005, least: 1e-4, push_cost: 0.0, fetch_cost: 0.0 }),
        ("delay", Compensate::Delay { strength: 0.04, worker_rate: 0.1, bounded: false }),
        ("delay-adaptive", Compensate::DelayAdaptive { strength: 2.0, worker_rate: 0.1, keep: 0.95, bounded: false }),
    ],
);
pub(super) const CODECS: Choices<Codec> = (
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
pub(super) const CONTROLS: Choices<Control> = (
    "fixed, band, density or budget",
    &[
        ("fixed", Control::Fixed),
        ("band", Control::Band),
        ("density", Control::Density { density: 1e-3 }),
        ("budget", Control::Budget { bytes: 65_536 }),
    ],
);
pub(super) const SCOPES: Choices<bool> = ("all or tensor", &[("all", false), ("tensor", true)]);
pub(super) const TOP_K_SCOPES: Choices<bool> = ("all or chunk", &[("all", false), ("chunk", true)]);
pub(super) const SIGN_SCOPES: Choices<Codec> =
    ("block or column", &[("block", Codec::Sign), ("column", Codec::SignColumns)]);
pub(super) const VALUES: Choices<Values> = (
    "f32, f16, int8 or two-means",
    &[("f32", Values::F32), ("f16", Values::F16), ("int8", Values::Int8), ("two-means", Values::TwoMeans)],
);
pub(super) const ENDS: Choices<End> =
    ("keep, send or spread", &[("keep", End::Keep), ("send", End::Send), ("spread", End::Spread { messages: 20 })]);
pub(super) const OUTERS: Choices<Outer> = (
    "none, momentum, delayed-nesterov, adagrad or adam",
    &[
        ("none", Outer::None),
        ("momentum", Outer::Momentum { mu: Mu::Fixed(0.9), rate: 1.0, look: false, scale: VelocityScale::Update }),
        ("delayed-nesterov", Outer::DelayedNesterov { mu: Mu::Fixed(0.9), rate: 0.7, pushes: Pushes::PerWorker }),
        ("adagrad", Outer::Adagrad { rate: 1.0, floor: 1e-8 }),
        ("adam", Outer::Adam { mu: 0.9, beta: 0.99, rate: 0.01, floor: 1e-3 }),
    ],
);
pub(super) const VELOCITY_SCALES: Choices<VelocityScale> =
    ("update or rate", &[("update", VelocityScale::Update), ("rate", VelocityScale::Rate)]);
pub(super) const OPTIMIZERS: Choices<OptimizerState> = (
    "keep, reset or average",
    &[("keep", OptimizerState::Keep), ("reset", OptimizerState::Reset), ("average", OptimizerState::Average)],
);

pub(super) fn choice<T: Copy>(
    key: &'static str,
    value: &str,
    (expected, choices): Choices<T>,
) -> Result<T, RecipeParseError> {
    let found = choices.iter().find(|(name, _)| *name == value);
    found.map(|(_, choice)| *choice).ok_or_else(|| RecipeParseError::BadValue { key, expected, got: value.to_string() })
}

pub(in crate::recipe) fn number<T: FromStr>(
    key: &'static str,
    expected: &'static str,
    value: &str,
) -> Result<T, RecipeParseError> {
    value.parse().map_err(|_| RecipeParseError::BadValue { key, expected, got: value.to_string() })
}

pub(in crate::recipe) fn time(key: &'static str, value: &str) -> Result<Duration, RecipeParseError> {
    match value.parse() {
        Ok(Span::Time(time)) => Ok(time),
        _ => Err(RecipeParseError::BadValue { key, expected: "a time as in 200ms or 0s", got: value.to_string() }),
    }
}
