//! Recipes: the synchronisation method of a run, as one choice on each of ten axes.
//!
//! A [`Recipe`](crate::Recipe) is plain data. A published method is a preset, that is, a point on these axes; no method
//! has a code path of its own. The decisions that follow from a recipe are in `rule/`, the encoders in
//! [`codec`](crate::codec).
//!
//! Terms used below:
//! - *update*: the vector that a worker subtracts from its parameters in one local step, after learning rate and
//!   optimizer.
//! - *contribution*: the vector that a worker sends at a synchronisation: the sum of its updates since the previous
//!   synchronisation, or its parameters.
//! - *staleness* of an update: applications at the server since the parameters from which the update was computed.
//! - *residual*: the part of the contributions so far that a lossy codec has not sent yet.
//!
//! # Axes
//!
//! The text form of a recipe is a list of `key=value` words. Numbers that follow a choice belong to it; the table shows
//! their defaults.
//!
//! | axis | question | text form | default |
//! |---|---|---|---|
//! | [`Payload`] | what do workers send? | `payload=updates`, `payload=parameters` | `updates` |
//! | [`Period`] | how many local steps lie between synchronisations? | `period=10`, or stages: `period=1,10@500` is 1, and 10 from local step 500 on | `1` |
//! | [`Topology`] | between which nodes? | `topology=servers shards=1`, `topology=tree fan_in=2`, `topology=ring`, `topology=mesh relay=0`; a tree or ring also has `chunk=65536` | `tree` |
//! | [`Pace`] | when may a worker go on? | `pace=synchronous`, `pace=stale bound=3`, `pace=asynchronous overlap=false` | `synchronous` |
//! | [`Merge`] | how are contributions combined? | `merge=mean`, `merge=sum lambda=1`, `merge=softsync updates=2` | `mean` |
//! | [`Staleness`] | how much does a late update count? | `staleness=const`, `inverse`, `inverse-plus-one`, `exp base=0.5`, `poly power=0.5`; optional limit: `drop_above=40` | `const` |
//! | [`Codec`] | how are contributions encoded? | `codec=f32`, `bf16`, `f16`, `int8`, `sign`, `topk density=0.001`, `threshold tau=0.001953125 scope=all clip=0 control=fixed`; other controls: `band`, `density density=0.001`, `budget budget=65536` | `f32` |
//! | [`Codec`] | how do servers encode parameters? | `pull=…`, as `codec=…`; its numbers have a prefix, as in `pull_tau` | `f32` |
//! | [`Correction`] | what precedes a sparse codec? | `momentum=0 warmup=0 ramp=0 starters=0 head_start=0` | all 0 |
//! | [`OptimizerState`] | what becomes of the workers' optimizer state? | `optimizer=keep`, `reset`, `average` | `keep` |
//!
//! # Presets
//!
//! The second column is the preset's text form, or the words by which it differs from another preset.
//!
//! | preset | recipe | source |
//! |---|---|---|
//! | `averaging` | `sync payload=parameters period=10 optimizer=reset` | parameter averaging, local SGD |
//! | `sync` | `payload=updates period=1 topology=tree pace=synchronous merge=mean` | synchronous SGD |
//! | `async` | `sync topology=servers pace=asynchronous merge=sum` | asynchronous SGD |
//! | `softsync` | `async merge=softsync updates=2 staleness=inverse-plus-one` | Zhang et al. 2016, with the factor of Odena 2016 |
//! | `ssp` | `async pace=stale bound=3` | Ho et al. 2013 |
//! | `mesh` | `async topology=mesh codec=threshold tau=0.001953125` | Strom 2015 |
//! | `dl4j` | `averaging period=5 optimizer=average` | DL4J, `ParameterAveragingTrainingMaster` |
//! | `su-chen` | `averaging period=10` | Su and Chen 2015, "Experiments on parallel training of deep neural network using model averaging" |
//! | `firecaffe` | `sync` | Iandola et al. 2015, "FireCaffe" |
//! | `hardsync` | `sync topology=servers` | Gupta et al. 2015, "Model accuracy and runtime tradeoff in distributed deep learning" |
//! | `downpour` | `async shards=2` | Dean et al. 2012, "Large scale distributed deep networks" |
//! | `rudra` | `softsync updates=1 staleness=inverse` | Zhang et al. 2016, "Staleness-aware async-SGD for distributed deep learning" |
//! | `petuum` | `ssp bound=2` | Ho et al. 2013, "More effective distributed ML via a stale synchronous parallel parameter server" |
//! | `strom` | `mesh` | Strom 2015, "Scalable distributed DNN training using commodity GPU cloud computing" |
//! | `dl4j-sharing` | `mesh tau=0.0009765625 control=band` | DL4J, gradient sharing |
//! | `dgc` | `hardsync codec=topk density=0.001 momentum=0.9 ramp=500` | Lin et al. 2018, "Deep gradient compression" |

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

// The public path of these two types is the root of the crate.
pub(crate) use check::{ConfigError, check_range};
pub(crate) use settings::Recipe;
