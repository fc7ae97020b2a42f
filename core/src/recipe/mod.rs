//! Recipes: the synchronisation method of a run, as one choice on each of several axes.
//!
//! A [`Recipe`] is plain data. A published method is a preset, that is, a point on these axes; no method
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
//! The text form of a recipe is a list of `key=value` words. This table has a row per value, with the keys of the
//! numbers that belong to it and their defaults. Values in bold are the defaults of their axis.
//!
//! | axis | value | numbers | meaning |
//! |---|---|---|---|
//! | [`payload`](Payload) | **`updates`** | | workers send the sum of their updates |
//! | | `parameters` | | workers send their parameters |
//! | | `gradients` | | workers get the mean of their gradients back, and apply it themselves |
//! | [`period`](Period) | **`1`**, `2`, … | | local steps between synchronisations |
//! | | `1,10@500` | | stages: 1, and 10 from local step 500 on |
//! | | `20s`, `500ms` | | a time: faster workers take more steps |
//! | | `4096ex` | | examples of the worker's steps |
//! | `fetch` | `1`, `2`, … | | local steps between fetched parameters, at asynchronous servers (default: the period) |
//! | [`adapt`](Adapt) | **`none`** | | all workers have the same period |
//! | | `speed` | | the period is that of the fastest; slower workers take fewer steps (DyLU) |
//! | | `loss` | `most=64` | the period goes by the root of the training loss (AdaComm) |
//! | [`normalize`](Normalize) | **`none`** | | a mean goes by examples |
//! | | `steps` | | the mean of the workers' progress per step, times the mean number of steps (FedNova) |
//! | [`weigh`](Weigh) | **`examples`** | | a contribution weighs by its examples |
//! | | `batch` | | by its examples, times its examples per step |
//! | [`topology`](Topology) | `servers` | `shards=1` | parameter servers |
//! | | **`auto`** | `chunk=65536` | a ring for long vectors, else a binary tree |
//! | | `tree` | `fan_in=2 chunk=65536` | reduce and broadcast over a tree of the workers |
//! | | `ring` | `chunk=65536` | reduce and broadcast around a ring |
//! | | `mesh` | `relay=0` | every worker to every other, without servers |
//! | [`pace`](Pace) | **`synchronous`** | | a worker goes on after all have contributed |
//! | | `stale` | `bound=3` | a worker goes on while its lead is within the bound |
//! | | `asynchronous` | `overlap=false` | a worker goes on at once |
//! | | `first` | `count=n-1 grace=0s` | a worker goes on after the first have contributed |
//! | [`grace`](Grace) of `pace=first` | **`0s`**, `200ms`, … | | a round waits for more contributions for this time |
//! | | `adaptive` | `cap=2s` | it waits for the workers that it expects in time |
//! | [`late`](Late) of `pace=first` | **`drop`** | | a late contribution is dropped |
//! | | `next` | | it joins the round that is open |
//! | [`merge`](Merge) | **`mean`** | | mean of a round, weighted by examples |
//! | | `sum` | `lambda=1/n` | sum, times lambda |
//! | | `softsync` | `updates=2` | mean of every so many updates |
//! | | `elastic` | `alpha=0.9/n` | workers and the server's center are drawn to each other |
//! | | `trimmed-mean` | `trim=1` | mean of each element without the largest and smallest values |
//! | | `median` | | median of each element |
//! | | `norm-clip` | | mean of contributions that are scaled down to the median norm |
//! | | `centred-clip` | `radius=1 iterations=1` | moves the last result by ways that are clipped |
//! | | `krum` | `faulty=1 best=1` | the contributions with the nearest neighbours |
//! | | `adasum` | | for each tensor: sum of orthogonal, mean of parallel contributions |
//! | | `rda` | | for each tensor: mean norm in the mean direction |
//! | | `mean-of-senders` | | mean of each element over the workers that have sent it |
//! | | `vote` | `length=0.001` | majority of the signs of each element, times length |
//! | [`staleness`](Staleness) | **`const`** | `drop_above` (no limit) | factor 1 on a late update |
//! | | `inverse` | | 1 / max(tau, 1) |
//! | | `inverse-plus-one` | | 1 / (tau + 1) |
//! | | `exp` | `base=0.5` | base^tau |
//! | | `poly` | `power=0.5` | (tau + 1)^-power |
//! | [`compensate`](Compensate) | **`none`** | | late updates are merged as they are |
//! | | `magnitude` | `keep=0.9 length=0.005 least=0.0001` | each element over the moving mean of its magnitude |
//! | | | `push_cost=0 fetch_cost=0` | the smaller the mean, the fewer pushes and fetches |
//! | | `delay` | `strength=0.04 worker_rate=0.1 bounded=false` | corrected by how far the parameters have moved |
//! | | `delay-adaptive` | `strength=2 worker_rate=0.1 keep=0.95 bounded=false` | the same, with a factor for each element |
//! | [`codec`](Codec) | **`f32`**, `bf16`, `f16`, `int8` | | dense encodings of contributions |
//! | | `sign` | `scope=block` | signs, with a scale per 1,024 elements, or two means per column of a tensor |
//! | | `threshold` | `tau=0.001953125 scope=all clip=0` | quanta of ±tau |
//! | | `topk` | `density=0.001 scope=all values=f32` | the largest elements, of the vector or per chunk |
//! | [`values`](Values) of `topk` | **`f32`** | | floats |
//! | | `f16` | | half precision |
//! | | `int8` | | magnitudes in 8 bits, a scale per chunk |
//! | | `two-means` | | signs, and two means per chunk |
//! | [`control`](Control) of `threshold` | **`fixed`** | | tau follows the learning rate only |
//! | | `band` | | threshold by a band of densities, as in DL4J |
//! | | `density` | `density=0.001` | threshold for a density |
//! | | `budget` | `budget=65536` | threshold for a length of messages in bytes |
//! | `pull` | as `codec` | as `codec`, with a prefix: `pull_tau` | encoding of the parameters that servers send |
//! | [`momentum`](Correction) | **`0`** to below 1 | `warmup=0 ramp=0 clip_norm=0` | precedes a sparse codec |
//! | | | `starters=0 head_start=0` | ranks that start before the rest; with any codec at asynchronous servers |
//! | `decay` of a residual | **`1`**, or from 0 | | factor on it before a contribution is added; the lost part is counted |
//! | [`end`](End) of a lossy codec | **`keep`** | | the residual is not sent |
//! | | `send` | | all of it is sent at once |
//! | | `spread` | `messages=20` | its largest part is sent in small steps |
//! | [`outer`](Outer) | **`none`** | | the merged update is subtracted as it is |
//! | | `momentum` | `mu=0.9 rate=1 look=false scale=update` | momentum of merged updates; `mu=1-1/n`: that of BMUF; `scale=rate`: of updates over their learning rate |
//! | | `delayed-nesterov` | `mu=0.9 rate=0.7 pushes=n` | momentum at every `pushes`-th update of asynchronous workers |
//! | | `adagrad` | `rate=1 floor=1e-8` | a rate for each element, by the sum of squares |
//! | | `adam` | `mu=0.9 beta=0.99 rate=0.01 floor=0.001` | momentum, and a rate by the mean square |
//! | [`optimizer`](OptimizerState) | **`keep`** | | each worker keeps its optimizer state |
//! | | `reset` | | set to zero at each synchronisation |
//! | | `average` | | averaged together with the parameters |
//!
//! # Presets
//!
//! The second column is the text form, relative to another preset. Parsing it gives the recipe of the preset.
//!
//! | preset | text form | method |
//! |---|---|---|
//! | `averaging` | `sync payload=parameters period=10 optimizer=reset` | parameter averaging (local SGD) |
//! | `sync` | `topology=auto pace=synchronous merge=mean` | synchronous SGD |
//! | `async` | `sync topology=servers pace=asynchronous merge=sum` | asynchronous SGD |
//! | `softsync` | `async merge=softsync updates=2 staleness=inverse-plus-one` | softsync with Odena's factor |
//! | `ssp` | `async pace=stale bound=3` | stale-synchronous parallel |
//! | `mesh` | `async topology=mesh codec=threshold tau=0.001953125 density=0.01` | threshold quanta without servers |
//! | `ring-bf16` | `sync topology=ring codec=bf16` | synchronous SGD with half the bytes |
//! | `ring-int8` | `sync topology=ring codec=int8` | synchronous SGD with a quarter of the bytes |
//! | `sparse` | `sync topology=mesh codec=topk density=0.01` | synchronous SGD with the largest 1 % |
//! | `local-sparse` | `sparse period=10` | `sparse` every 10 local steps |
//! | `local-bf16` | `ring-bf16 period=20` | `ring-bf16` every 20 local steps |
//! | `gradients` | `sync payload=gradients` | data-parallel training with any optimizer, such as Adam |
//! | `dl4j` | `averaging period=5 optimizer=average` | DL4J, `ParameterAveragingTrainingMaster` |
//! | `su-chen` | `averaging period=10` | Su and Chen 2015 |
//! | `adacomm` | `averaging period=20 adapt=loss` | Wang and Joshi 2019 |
//! | `firecaffe` | `sync topology=tree` | Iandola et al. 2015 |
//! | `hardsync` | `sync topology=servers` | Gupta et al. 2015 |
//! | `backup-workers` | `hardsync pace=first` | Chen et al. 2016 |
//! | `downpour` | `async shards=2 period=5 fetch=10 outer=adagrad rate=0.02` | Dean et al. 2012 |
//! | `rudra` | `softsync updates=1 staleness=inverse` | Zhang et al. 2016 |
//! | `fasgd` | `async lambda=1 staleness=inverse-plus-one compensate=magnitude` | Odena 2016 |
//! | `b-fasgd` | `fasgd push_cost=0.001 fetch_cost=0.001` | Odena 2016, bandwidth-aware |
//! | `dc-asgd` | `async compensate=delay` | Zheng et al. 2017 |
//! | `dc-asgd-a` | `async compensate=delay-adaptive` | Zheng et al. 2017 |
//! | `easgd` | `hardsync merge=elastic period=10` | Zhang, Choromanska and LeCun 2015 |
//! | `aeasgd` | `async merge=elastic period=10` | Zhang, Choromanska and LeCun 2015; EAMSGD with momentum in the optimizer |
//! | `petuum` | `ssp bound=2` | Ho et al. 2013 |
//! | `strom` | `mesh control=fixed` | Strom 2015 |
//! | `dl4j-sharing` | `mesh tau=0.0009765625 control=band` | DL4J, gradient sharing |
//! | `dgc` | `sparse density=0.001 momentum=0.9 ramp=500` | Lin et al. 2018 |
//! | `bmuf` | `sync period=16 outer=momentum mu=1-1/n look=true optimizer=reset` | Chen and Huo 2016, Nesterov's form |
//! | `bmuf-cbm` | `bmuf look=false` | Chen and Huo 2016, classic form |
//! | `slowmo` | `sync period=12 outer=momentum mu=0.5 scale=rate optimizer=reset` | Wang et al. 2020 |
//! | `diloco` | `sync period=50 outer=momentum mu=0.9 rate=0.7 look=true` | Douillard et al. 2023 |
//! | `lookahead` | `sync period=5 outer=momentum mu=0 rate=0.8` | Zhang et al. 2019 |
//! | `fedavgm` | `sync period=20 outer=momentum mu=0.9` | Hsu et al. 2019 |
//! | `fedadam` | `sync period=10 outer=adam` | Reddi et al. 2021 |
//! | `median` | `hardsync merge=median` | Yin et al. 2018 |
//! | `norm-clip` | `hardsync merge=norm-clip` | mean of contributions clipped to the median norm |
//! | `one-bit-sgd` | `hardsync codec=sign scope=column pull=sign pull_scope=column` | Seide et al. 2014 |
//! | `sign-vote` | `hardsync merge=vote codec=sign decay=0 pull=sign` | Bernstein et al. 2019; Signum with momentum in the optimizer |
//! | `sparseloco` | `sparse period=20 density=0.015625 scope=chunk values=two-means decay=0.95` | Sarfi et al. 2025 |
//! | `async-diloco` | `async period=50 adapt=speed outer=delayed-nesterov` | Liu et al. 2024 |
//!
//! # The learning rate, momentum and servers
//!
//! n is the number of workers. The *gain* is how far a step of all workers moves the parameters, relative to one worker
//! that takes one step with the same learning rate ([`Recipe::gain`]). Where it is 1, the best learning rate of one
//! machine is a safe start; [`Recipe::learning_rate`] suggests a faster one.
//!
//! | recipe | gain | momentum | servers |
//! |---|---|---|---|
//! | `averaging`, `su-chen`, `adacomm` | 1: the mean of parameters | in the optimizer; reset at each average | none |
//! | `dl4j` | 1 | in the optimizer; averaged with the parameters | none |
//! | `sync`, `firecaffe`, `ring-bf16`, `ring-int8` | 1: the mean of updates | in the optimizer | none |
//! | `sparse`, `local-sparse`, `local-bf16` | 1: the mean of messages | in the optimizer | none |
//! | `sparseloco` | 1, less what residuals forget | in the optimizer; the residuals are the outer momentum | none |
//! | `gradients` | 1: the mean of gradients | the application's optimizer: any | none |
//! | `dgc` | 1 / (1 - 0.9) = 10; 1 relative to an optimizer with momentum 0.9 | in the recipe, not in the optimizer | none |
//! | `one-bit-sgd` | 1: the mean of messages | in the optimizer | 1; `shards=N`: N |
//! | `hardsync` | 1: the mean of updates | in the optimizer | 1, on any host; `shards=N`: N of them |
//! | `median`, `norm-clip` | 1 | in the optimizer | 1, with a vector per worker |
//! | `sign-vote` | none: a step has the length `length` | in the optimizer (Signum) | 1; `shards=N`: N, with a vector per worker |
//! | `backup-workers` | 1: the mean of the first n - 1 updates | in the optimizer | 1; `shards=N`: N |
//! | `async`, `ssp`, `petuum` | 1: `lambda=1/n` | in the optimizer, small: staleness adds momentum | 1; `shards=N`: N |
//! | `downpour` | none: a step has the length `rate`, and less later; the paper begins with `starters=1 head_start=200` or so | none | 2 |
//! | `easgd`, `aeasgd` | 1: each worker goes its own way | in the optimizer; Nesterov's 0.99 is EAMSGD | 1 |
//! | `fasgd`, `b-fasgd` | none: a step has the length `length`, divided by the staleness + 1 | none | 1 |
//! | `dc-asgd`, `dc-asgd-a` | 1: `lambda=1/n` | none: `worker_rate` is the rate of plain SGD | 1 |
//! | `softsync`, `rudra` | n / c, divided by the staleness (+ 1) | in the optimizer, small | 1; `shards=N`: N |
//! | `mesh`, `strom`, `dl4j-sharing` | 1: `lambda=1/n`, before the codec | in the optimizer, or `momentum=` | none |
//! | `bmuf`, `bmuf-cbm` | n: a block of n workers is as far as one worker that takes all steps | in the recipe; reset in the optimizer | none |
//! | `slowmo`, `fedavgm`, `diloco`, `lookahead` | rate / (1 - mu): 2, 10, 7 and 0.8 | in the recipe, and in the optimizer | none |
//! | `async-diloco` | rate / (1 - mu): 7 | in the recipe, and in the optimizer | 1; `shards=N`: N |
//! | `fedadam` | none: a step has the length `rate` | in the recipe | none |
//!
//! A server moves the bytes of all workers over the link of its host. Servers on the hosts of several workers, with
//! `shards=` at least as many, share that load.
//!
//! # Sources
//!
//! - Bernstein et al. 2018, "signSGD: compressed optimisation for non-convex problems"; 2019, "signSGD with majority vote is
//!   communication efficient and fault tolerant"
//! - Blanchard et al. 2017, "Machine learning with adversaries: Byzantine tolerant gradient descent"
//! - Chan and Lane 2014, "Distributed asynchronous optimization of convolutional neural networks"
//! - Chen et al. 2016, "Revisiting distributed synchronous SGD"
//! - Dean et al. 2012, "Large scale distributed deep networks"
//! - Gupta et al. 2015, "Model accuracy and runtime tradeoff in distributed deep learning"
//! - Ho et al. 2013, "More effective distributed ML via a stale synchronous parallel parameter server"
//! - Iandola et al. 2015, "FireCaffe: near-linear acceleration of deep neural network training on compute clusters"
//! - Karimireddy et al. 2021, "Learning from history for Byzantine robust optimization"
//! - Karimireddy et al. 2019, "Error feedback fixes SignSGD and other gradient compression schemes"
//! - Liu et al. 2024, "Asynchronous local-SGD training for language modeling" (DyLU, delayed Nesterov)
//! - Lin et al. 2018, "Deep gradient compression"
//! - Maleki et al. 2021, "Scaling distributed training with adaptive summation"
//! - Odena 2016, "Faster asynchronous SGD"
//! - Sarfi et al. 2025, "Communication efficient LLM pre-training with SparseLoCo"
//! - Seide et al. 2014, "1-bit stochastic gradient descent"
//! - Stich et al. 2018, "Sparsified SGD with memory"
//! - Strom 2015, "Scalable distributed DNN training using commodity GPU cloud computing"
//! - Su and Chen 2015, "Experiments on parallel training of deep neural network using model averaging"
//! - Wang et al. 2020, "Tackling the objective inconsistency problem in heterogeneous federated optimization" (FedNova)
//! - Wang and Joshi 2019, "Adaptive communication strategies to achieve the best error-runtime trade-off in local-update
//!   SGD" (AdaComm)
//! - Yin et al. 2018, "Byzantine-robust distributed learning: towards optimal statistical rates"
//! - Zheng et al. 2017, "Asynchronous stochastic gradient descent with delay compensation"
//! - Zhang et al. 2016, "Staleness-aware async-SGD for distributed deep learning"

mod axes;
pub(crate) mod check;
mod codec;
mod compensate;
mod end;
mod first;
mod hint;
mod keys;
mod lambda;
mod merge;
mod outer;
mod period;
mod presets;
mod rate;
pub(crate) mod settings;
mod staleness;
mod text;

pub use axes::{Adapt, Merge, Normalize, OptimizerState, Pace, Payload, Topology, Weigh};
pub use codec::{Codec, Control, Correction, Threshold, TopK, Values};
pub use compensate::Compensate;
pub use end::End;
pub use first::{Count, CountParseError, Grace, Late};
pub use hint::Hint;
pub use keys::{KEYS, Key, Values as KeyValues};
pub use lambda::{Lambda, LambdaParseError};
pub use outer::{Mu, MuParseError, Outer, Pushes, PushesParseError, VelocityScale};
pub use period::{Period, PeriodParseError, Span};
pub use presets::{PRESETS, Preset};
pub use staleness::{Scaling, Staleness};
pub use text::RecipeParseError;

// The public path of these two types is the root of the crate.
pub(crate) use check::{ConfigError, check_range};
pub(crate) use settings::Recipe;

// For suggestions elsewhere.
pub(crate) use text::edit_distance;
