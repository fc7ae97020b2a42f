//! Published methods as points on the axes. The module documentation of [`recipe`](crate::recipe) lists them with their
//! sources.

use super::{
    Adapt, Codec, Compensate, Control, Correction, Count, End, Grace, Lambda, Late, Merge, Mu, Normalize,
    OptimizerState, Outer, Pace, Payload, Period, Pushes, Recipe, Staleness, Threshold, TopK, Topology, Values,
    VelocityScale, Weigh,
};

/// A named recipe.
#[derive(Copy, Clone, Debug)]
pub struct Preset {
    /// The first word of the text form, for command lines and configuration files.
    pub name: &'static str,
    /// A description of at most 80 characters, for help texts.
    pub about: &'static str,
    /// Returns the recipe with its default numbers.
    pub recipe: fn() -> Recipe,
}

/// All presets: first the methods by their plain names, then published systems.
pub const PRESETS: &[Preset] = &[
    Preset { name: "averaging", about: "mean of parameters every 10 local steps", recipe: || Recipe::averaging(10) },
    Preset { name: "sync", about: "mean of updates at every step", recipe: Recipe::sync },
    Preset {
        name: "async",
        about: "a server applies each update on arrival, at any staleness",
        recipe: Recipe::asynchronous,
    },
    Preset {
        name: "softsync",
        about: "mean of every 2 updates, each divided by its staleness + 1",
        recipe: || Recipe::softsync(2),
    },
    Preset {
        name: "ssp",
        about: "stale-synchronous: at most 3 clocks ahead of the slowest worker",
        recipe: || Recipe::ssp(3),
    },
    Preset {
        name: "mesh",
        about: "no server or rounds: the largest 1 % of updates, as quanta, to all workers",
        recipe: || {
            let control = Control::Density { density: 0.01 };
            let threshold = Threshold { control, ..Threshold::fixed(1.0 / 512.0) };
            Recipe::mesh(threshold.tau).with_codec(Codec::Threshold(threshold))
        },
    },
    Preset {
        name: "ring-bf16",
        about: "mean of updates at every step over a ring, in half the bytes",
        recipe: || Recipe::sync().with_topology(Topology::Ring).with_codec(Codec::Bf16),
    },
    Preset {
        name: "ring-int8",
        about: "mean of updates at every step over a ring, in a quarter of the bytes",
        recipe: || Recipe::sync().with_topology(Topology::Ring).with_codec(Codec::Int8),
    },
    Preset {
        name: "sparse",
        about: "mean of the largest 1 % of updates at every step, between all workers",
        recipe: || Recipe::sparse(0.01),
    },
    Preset {
        name: "local-sparse",
        about: "the same every 10 local steps: for slow networks",
        recipe: || Recipe::sparse(0.01).with_period(10),
    },
    Preset {
        name: "local-bf16",
        about: "mean of the updates of 20 local steps over a ring, in half the bytes",
        recipe: || Recipe::sync().with_period(20).with_topology(Topology::Ring).with_codec(Codec::Bf16),
    },
    Preset {
        name: "gradients",
        about: "mean of gradients at every step, applied by the caller's optimizer",
        recipe: || Recipe::sync().with_payload(Payload::Gradients),
    },
    Preset {
        name: "dl4j",
        about: "DL4J parameter averaging: every 5 steps, optimizer state averaged",
        recipe: || Recipe::averaging(5).with_optimizer(OptimizerState::Average),
    },
    Preset {
        name: "su-chen",
        about: "Su and Chen 2015: parameter averaging every 10 steps",
        recipe: || Recipe::averaging(10),
    },
    Preset {
        name: "adacomm",
        about: "Wang and Joshi 2019: averaging every 20 steps at first, less as the loss falls",
        recipe: || Recipe::averaging(20).with_adapt(Adapt::Loss { most: 64 }),
    },
    Preset {
        name: "firecaffe",
        about: "Iandola et al. 2015: synchronous updates over a binary tree",
        recipe: || Recipe::sync().with_topology(Topology::Tree { fan_in: 2 }),
    },
    Preset {
        name: "hardsync",
        about: "Gupta et al. 2015: synchronous updates at a parameter server",
        recipe: || Recipe::sync().with_topology(Topology::Servers { shards: 1 }),
    },
    Preset {
        name: "backup-workers",
        about: "Chen et al. 2016: mean of the first n-1 updates at a server, the last dropped",
        recipe: || {
            let first = Pace::First { count: Count::AllBut(1), grace: Grace::NONE, late: Late::Drop };
            Recipe::sync().with_topology(Topology::Servers { shards: 1 }).with_pace(first)
        },
    },
    Preset {
        name: "downpour",
        about: "Dean et al. 2012: push every 5 steps, fetch every 10, Adagrad at 2 shards",
        recipe: || {
            Recipe::asynchronous()
                .with_topology(Topology::Servers { shards: 2 })
                .with_period(5)
                .with_fetch(10)
                .with_outer(Outer::Adagrad { rate: 0.02, floor: 1e-8 })
        },
    },
    Preset {
        name: "rudra",
        about: "Zhang et al. 2016: 1-update softsync, each divided by its staleness",
        recipe: || Recipe::softsync(1).with_staleness(Staleness::inverse()),
    },
    Preset {
        name: "fasgd",
        about: "Odena 2016: each element divided by its mean magnitude and by staleness + 1",
        recipe: || {
            Recipe::asynchronous()
                .with_lambda(1.0)
                .with_staleness(Staleness::inverse_plus_one())
                .with_compensate(magnitude(0.0, 0.0))
        },
    },
    Preset {
        name: "b-fasgd",
        about: "Odena 2016: the same, where small updates are rarely sent and seldom fetched",
        recipe: || {
            Recipe::asynchronous()
                .with_lambda(1.0)
                .with_staleness(Staleness::inverse_plus_one())
                .with_compensate(magnitude(1e-3, 1e-3))
        },
    },
    Preset {
        name: "dc-asgd",
        about: "Zheng et al. 2017: updates corrected for their delay, constant factor",
        recipe: || {
            let compensate = Compensate::Delay { strength: 0.04, worker_rate: 0.1, bounded: false };
            Recipe::asynchronous().with_compensate(compensate)
        },
    },
    Preset {
        name: "dc-asgd-a",
        about: "Zheng et al. 2017: the same, with a factor for each element",
        recipe: || {
            let compensate = Compensate::DelayAdaptive { strength: 2.0, worker_rate: 0.1, keep: 0.95, bounded: false };
            Recipe::asynchronous().with_compensate(compensate)
        },
    },
    Preset {
        name: "easgd",
        about: "Zhang et al. 2015: elastic averaging every 10 steps, in rounds",
        recipe: || elastic(Recipe::sync().with_topology(Topology::Servers { shards: 1 })),
    },
    Preset {
        name: "aeasgd",
        about: "Zhang et al. 2015: elastic averaging every 10 steps of each worker",
        recipe: || elastic(Recipe::asynchronous()),
    },
    Preset { name: "petuum", about: "Ho et al. 2013: stale-synchronous, bound 2", recipe: || Recipe::ssp(2) },
    Preset {
        name: "strom",
        about: "Strom 2015: threshold quanta with residual, from every worker to every other",
        recipe: || Recipe::mesh(1.0 / 512.0),
    },
    Preset {
        name: "dl4j-sharing",
        about: "DL4J gradient sharing: threshold controlled by a band of densities",
        recipe: || {
            let threshold = Threshold { control: Control::Band, ..Threshold::fixed(1.0 / 1024.0) };
            Recipe::mesh(threshold.tau).with_codec(Codec::Threshold(threshold))
        },
    },
    Preset {
        name: "dgc",
        about: "Lin et al. 2018: synchronous, the largest 0.1 %, momentum correction, ramp",
        recipe: || Recipe::sparse(1e-3).with_correction(Correction { momentum: 0.9, ramp: 500, ..Correction::none() }),
    },
    Preset {
        name: "bmuf",
        about: "Chen and Huo 2016: mean of 16 steps, block momentum 1-1/n, Nesterov",
        recipe: || bmuf(true),
    },
    Preset {
        name: "bmuf-cbm",
        about: "Chen and Huo 2016: mean of 16 steps, block momentum 1-1/n, classic",
        recipe: || bmuf(false),
    },
    Preset {
        name: "slowmo",
        about: "Wang et al. 2020: mean of 12 steps, slow momentum 0.5",
        recipe: || {
            let scale = VelocityScale::Rate;
            let momentum = Outer::Momentum { mu: Mu::Fixed(0.5), rate: 1.0, look: false, scale };
            outer(12, momentum).with_optimizer(OptimizerState::Reset)
        },
    },
    Preset {
        name: "diloco",
        about: "Douillard et al. 2023: mean of 50 steps, Nesterov 0.9 at rate 0.7",
        recipe: || outer(50, momentum(0.9, 0.7, true)),
    },
    Preset {
        name: "lookahead",
        about: "Zhang et al. 2019: 0.8 of the way that 5 steps have gone",
        recipe: || outer(5, momentum(0.0, 0.8, false)),
    },
    Preset {
        name: "fedavgm",
        about: "Hsu et al. 2019: mean of 20 steps, momentum 0.9",
        recipe: || outer(20, momentum(0.9, 1.0, false)),
    },
    Preset {
        name: "fedadam",
        about: "Reddi et al. 2021: mean of 10 steps, Adam at rate 0.01",
        recipe: || outer(10, Outer::Adam { mu: 0.9, beta: 0.99, rate: 0.01, floor: 1e-3 }),
    },
    Preset {
        name: "median",
        about: "Yin et al. 2018: the median of each element of the updates, at every step",
        recipe: || robust(Merge::Median),
    },
    Preset {
        name: "norm-clip",
        about: "mean of updates that are clipped to their median norm, at every step",
        recipe: || robust(Merge::NormClip),
    },
    Preset {
        name: "one-bit-sgd",
        about: "Seide et al. 2014: signs and two means per column, both ways, at a server",
        recipe: || {
            let server = Topology::Servers { shards: 1 };
            Recipe::sync().with_topology(server).with_codec(Codec::SignColumns).with_pull(Codec::SignColumns)
        },
    },
    Preset {
        name: "sign-vote",
        about: "Bernstein et al. 2019: majority of signs, one bit both ways, at a server",
        recipe: || {
            let vote = robust(Merge::Vote { length: 0.001 });
            vote.with_codec(Codec::Sign).with_decay(0.0).with_pull(Codec::Sign)
        },
    },
    Preset {
        name: "sparseloco",
        about: "Sarfi et al. 2025: every 20 steps, 64 of each 4,096 as signs, decay 0.95",
        recipe: || {
            let top = TopK { density: 1.0 / 64.0, per_chunk: true, values: Values::TwoMeans };
            Recipe::sparse(top.density).with_codec(Codec::TopK(top)).with_period(20).with_decay(0.95)
        },
    },
    Preset {
        name: "async-diloco",
        about: "Liu et al. 2024: asynchronous periods by speed, momentum of the mean of n",
        recipe: || {
            let outer = Outer::DelayedNesterov { mu: Mu::Fixed(0.9), rate: 0.7, pushes: Pushes::PerWorker };
            Recipe::asynchronous().with_period(50).with_adapt(Adapt::Speed).with_outer(outer)
        },
    },
];

/// A merge rule that a few bad workers do not mislead, in rounds at a server.
fn robust(merge: Merge) -> Recipe {
    Recipe::sync().with_topology(Topology::Servers { shards: 1 }).with_merge(merge)
}

/// The mean of the updates of `period` local steps, with an outer optimizer.
fn outer(period: u32, outer: Outer) -> Recipe {
    Recipe::sync().with_period(period).with_outer(outer)
}

fn momentum(mu: f32, rate: f32, look: bool) -> Outer {
    Outer::Momentum { mu: Mu::Fixed(mu), rate, look, scale: VelocityScale::Update }
}

/// FASGD, with the costs of B-FASGD.
fn magnitude(push_cost: f32, fetch_cost: f32) -> Compensate {
    Compensate::Magnitude { keep: 0.9, length: 0.005, least: 1e-4, push_cost, fetch_cost }
}

fn elastic(recipe: Recipe) -> Recipe {
    recipe.with_period(10).with_merge(Merge::Elastic { alpha: Lambda::per_worker(0.9) })
}

fn bmuf(look: bool) -> Recipe {
    let scale = VelocityScale::Update;
    outer(16, Outer::Momentum { mu: Mu::PerWorker, rate: 1.0, look, scale }).with_optimizer(OptimizerState::Reset)
}

impl Recipe {
    /// The preset with this name from [`PRESETS`].
    pub fn preset(name: &str) -> Option<Self> {
        PRESETS.iter().find(|preset| preset.name == name).map(|preset| (preset.recipe)())
    }

    /// Synchronous SGD: the mean of all updates, weighted by examples, at every step over a ring or a tree ([`Topology::Auto`]).
    pub const fn sync() -> Self {
        Self {
            payload: Payload::Updates,
            period: Period::every(1),
            fetch: None,
            adapt: Adapt::None,
            normalize: Normalize::None,
            weigh: Weigh::Examples,
            topology: Topology::Auto,
            pace: Pace::Synchronous,
            merge: Merge::Mean,
            staleness: Staleness::constant(),
            compensate: Compensate::None,
            codec: Codec::F32,
            pull: Codec::F32,
            correction: Correction::none(),
            decay: 1.0,
            end: End::Keep,
            outer: Outer::None,
            optimizer: OptimizerState::Keep,
            chunk: 64 * 1024,
        }
    }

    /// Parameter averaging every `period` local steps (local SGD; Su and Chen 2015). Optimizer state is reset at each
    /// averaging, which suits momentum; with Adam, [`OptimizerState::Keep`] usually works better.
    pub fn averaging(period: u32) -> Self {
        Self::sync().with_payload(Payload::Parameters).with_period(period).with_optimizer(OptimizerState::Reset)
    }

    /// Asynchronous SGD: a server applies every update on arrival, divided by the number of workers (Dean et al. 2012).
    pub fn asynchronous() -> Self {
        Self::sync()
            .with_topology(Topology::Servers { shards: 1 })
            .with_pace(Pace::Asynchronous { overlap: false })
            .with_merge(Merge::Sum { lambda: Lambda::per_worker(1.0) })
    }

    /// Softsync: a server applies the mean of every `updates` updates (Zhang et al. 2016), each scaled by
    /// 1 / (staleness + 1).
    pub fn softsync(updates: u32) -> Self {
        Self::asynchronous().with_merge(Merge::Softsync { updates }).with_staleness(Staleness::inverse_plus_one())
    }

    /// Stale-synchronous parallel: a worker computes at most `bound` clocks ahead of the slowest (Ho et al. 2013).
    pub fn ssp(bound: u64) -> Self {
        Self::asynchronous().with_pace(Pace::Stale { bound })
    }

    /// Synchronous SGD with sparse messages: every worker sends the elements of largest magnitude, a share of `density`,
    /// to every other worker, and all apply the mean of the messages (the exchange of Lin et al. 2018).
    pub fn sparse(density: f32) -> Self {
        Self::sync().with_topology(Topology::Mesh { relay: 0 }).with_codec(Codec::TopK(TopK::all(density)))
    }

    /// Decentralised threshold coding: every worker sends quanta of ±`tau` to every other worker and keeps the rest in
    /// a residual (Strom 2015). Updates are divided by the number of workers before they are encoded. `tau` is a power
    /// of two.
    pub fn mesh(tau: f32) -> Self {
        Self::asynchronous()
            .with_topology(Topology::Mesh { relay: 0 })
            .with_codec(Codec::Threshold(Threshold::fixed(tau)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    /// The table of presets in the module documentation: name and text form of each row.
    #[test]
    fn the_documented_text_form_of_each_preset_is_its_recipe() {
        let rows: Vec<(&str, &str)> = include_str!("mod.rs")
            .lines()
            .skip_while(|line| !line.contains("# Presets"))
            .filter_map(|line| line.strip_prefix("//! | `")?.split_once("` | `"))
            .map(|(name, rest)| (name, rest.split('`').next().unwrap()))
            .collect();
        assert_eq!(rows.len(), PRESETS.len());
        for (preset, (name, text)) in PRESETS.iter().zip(rows) {
            assert_eq!((preset.name, Ok((preset.recipe)())), (name, text.parse()));
        }
    }

    /// Help texts print the descriptions in one line each.
    #[test]
    fn descriptions_are_short() {
        for preset in PRESETS {
            assert!(preset.about.chars().count() <= 80, "{}: {}", preset.name, preset.about);
        }
    }
}
