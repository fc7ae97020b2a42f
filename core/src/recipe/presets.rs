//! Published methods as points on the axes.

use super::{
    Codec, Control, Correction, Merge, OptimizerState, Pace, Payload, Period, Recipe, Staleness, Threshold, TopK,
    Topology,
};

/// A named recipe.
#[derive(Copy, Clone, Debug)]
pub struct Preset {
    /// Its name on command lines.
    pub name: &'static str,
    /// What it is, in a few words.
    pub about: &'static str,
    /// The recipe with its usual settings.
    pub recipe: fn() -> Recipe,
}

/// All presets: first the six rules by their plain names, then published systems.
pub const PRESETS: &[Preset] = &[
    Preset { name: "averaging", about: "mean of parameters every 10 local steps", recipe: || Recipe::averaging(10) },
    Preset { name: "sync", about: "mean of updates at every step", recipe: Recipe::sync },
    Preset { name: "async", about: "every update applied as it comes, however stale", recipe: Recipe::asynchronous },
    Preset {
        name: "softsync",
        about: "mean of every 2 updates, each divided by its staleness + 1",
        recipe: || Recipe::softsync(2),
    },
    Preset {
        name: "ssp",
        about: "stale-synchronous: at most 3 clocks ahead of the slowest",
        recipe: || Recipe::ssp(3),
    },
    Preset {
        name: "mesh",
        about: "no server: quanta of ±2^-9 with residual, to everyone",
        recipe: || Recipe::mesh(1.0 / 512.0),
    },
    Preset {
        name: "dl4j",
        about: "DL4J parameter averaging: every 5 steps, optimizer state averaged",
        recipe: || Recipe::averaging(5).with_optimizer(OptimizerState::Average),
    },
    Preset {
        name: "su-chen",
        about: "Su and Chen 2015: parameter averaging about every 10 steps",
        recipe: || Recipe::averaging(10),
    },
    Preset {
        name: "firecaffe",
        about: "Iandola et al. 2015: synchronous updates over a binary tree",
        recipe: Recipe::sync,
    },
    Preset {
        name: "hardsync",
        about: "Gupta et al. 2015: synchronous updates at a parameter server",
        recipe: || Recipe::sync().with_topology(Topology::Servers { shards: 1 }),
    },
    Preset {
        name: "downpour",
        about: "Dean et al. 2012: asynchronous updates at 2 server shards",
        recipe: || Recipe::asynchronous().with_topology(Topology::Servers { shards: 2 }),
    },
    Preset {
        name: "rudra",
        about: "Zhang et al. 2016: 1-update softsync, each divided by its staleness",
        recipe: || Recipe::softsync(1).with_staleness(Staleness::inverse()),
    },
    Preset { name: "petuum", about: "Ho et al. 2013: stale-synchronous, bound 2", recipe: || Recipe::ssp(2) },
    Preset {
        name: "strom",
        about: "Strom 2015: threshold quanta with residual, everyone to everyone",
        recipe: || Recipe::mesh(1.0 / 512.0),
    },
    Preset {
        name: "dl4j-sharing",
        about: "DL4J gradient sharing: threshold by a band of densities",
        recipe: || {
            let threshold = Threshold { control: Control::Band, ..Threshold::fixed(1.0 / 1024.0) };
            Recipe::mesh(threshold.tau).with_codec(Codec::Threshold(threshold))
        },
    },
    Preset {
        name: "dgc",
        about: "Lin et al. 2018: synchronous, the largest 0.1 %, momentum correction, ramp",
        recipe: || {
            Recipe::sync()
                .with_topology(Topology::Servers { shards: 1 })
                .with_codec(Codec::TopK(TopK { density: 1e-3 }))
                .with_correction(Correction { momentum: 0.9, ramp: 500, ..Correction::none() })
        },
    },
];

impl Recipe {
    /// The preset of that name.
    pub fn preset(name: &str) -> Option<Self> {
        PRESETS.iter().find(|preset| preset.name == name).map(|preset| (preset.recipe)())
    }

    /// Synchronous SGD: the example-weighted mean of all updates at every step, over a binary tree.
    pub const fn sync() -> Self {
        Self {
            payload: Payload::Updates,
            period: Period::every(1),
            topology: Topology::Tree { fan_in: 2 },
            pace: Pace::Synchronous,
            merge: Merge::Mean,
            staleness: Staleness::constant(),
            codec: Codec::F32,
            pull: Codec::F32,
            correction: Correction::none(),
            optimizer: OptimizerState::Keep,
            chunk: 64 * 1024,
        }
    }

    /// Parameter averaging every `period` local steps (local SGD). Momentum is reset at each averaging, as is
    /// usual; Adam users will prefer `OptimizerState::Keep`.
    pub fn averaging(period: u32) -> Self {
        Self::sync().with_payload(Payload::Parameters).with_period(period).with_optimizer(OptimizerState::Reset)
    }

    /// Asynchronous SGD: a server applies every update as it comes.
    pub fn asynchronous() -> Self {
        Self::sync()
            .with_topology(Topology::Servers { shards: 1 })
            .with_pace(Pace::Asynchronous { overlap: false })
            .with_merge(Merge::Sum { lambda: 1.0 })
    }

    /// Softsync: a server applies the mean of every `updates` updates (Zhang et al. 2016), each scaled by
    /// 1 / (staleness + 1).
    pub fn softsync(updates: u32) -> Self {
        Self::asynchronous().with_merge(Merge::Softsync { updates }).with_staleness(Staleness::inverse_plus_one())
    }

    /// Stale-synchronous parallel: nobody computes more than `bound` clocks ahead of the slowest (Ho et al. 2013).
    pub fn ssp(bound: u64) -> Self {
        Self::asynchronous().with_pace(Pace::Stale { bound })
    }

    /// Decentralised: every worker sends quanta of ±`tau` to every other and keeps the rest (Strom 2015).
    pub fn mesh(tau: f32) -> Self {
        Self::asynchronous()
            .with_topology(Topology::Mesh { relay: 0 })
            .with_codec(Codec::Threshold(Threshold::fixed(tau)))
    }
}
