//! The text of a recipe.

use core::fmt;

use crate::recipe::{
    Adapt, Codec, Compensate, Control, Correction, End, Late, Normalize, OptimizerState, Outer, Pace, Payload, Recipe,
    Scaling, Threshold, TopK, Topology, Values, VelocityScale, Weigh,
};

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
        match self.weigh {
            Weigh::Examples => {}
            Weigh::Batch => write!(f, " weigh=batch")?,
        }
        match self.topology {
            Topology::Servers { shards } => write!(f, " topology=servers shards={shards}")?,
            Topology::Auto => write!(f, " topology=auto chunk={}", self.chunk)?,
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
                write!(f, " pace=first count={count} grace={grace} late={late}")?;
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
            Compensate::Magnitude { keep, length, least, push_cost, fetch_cost } => {
                write!(f, " compensate=magnitude keep={keep} length={length} least={least}")?;
                if push_cost != 0.0 || fetch_cost != 0.0 {
                    write!(f, " push_cost={push_cost} fetch_cost={fetch_cost}")?;
                }
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
            Outer::Momentum { mu, rate, look, scale } => {
                let scale = match scale {
                    VelocityScale::Update => "update",
                    VelocityScale::Rate => "rate",
                };
                write!(f, " outer=momentum mu={mu} rate={rate} look={look} scale={scale}")?;
            }
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
                Values::F16 => "f16",
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
