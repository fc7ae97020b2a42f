//! Combinations of choices that cannot work, each with its reason.

use alloc::vec::Vec;

use super::ConfigError;
use crate::recipe::{
    Adapt, Codec, Compensate, Correction, End, Late, Merge, Normalize, OptimizerState, Outer, Pace, Payload, Period,
    Recipe, Topology, Weigh,
};

impl Recipe {
    pub(super) fn check_axes(&self, faults: &mut Vec<ConfigError>) {
        const SYNCHRONOUS_MEAN: &str = "pace=synchronous merge=mean";
        const EQUAL_REPLICAS: &str = "every replica must apply exactly the same updates";
        const OWN_UPDATES: &str = "the worker computes on parameters that include its own unanswered updates, so it \
                                   does not hold the parameters to which a server's difference refers";
        const APART: &str = "fetch other than the period";
        let apart = self.fetches_apart();
        let elastic = matches!(self.merge, Merge::Elastic { .. });
        let compensates = self.compensate != Compensate::None;
        let thins = self.compensate.costs().is_some();
        let mesh = matches!(self.topology, Topology::Mesh { .. });
        let tree = self.has_chunks();
        let adasum = self.merge == Merge::Adasum;
        let pairs = adasum && matches!(self.topology, Topology::Auto | Topology::Tree { .. });
        // A mesh in which the members apply the mean of a round.
        let gather = mesh && self.pace == Pace::Synchronous;
        let rounds = self.is_collective();
        let shape = if self.topology == Topology::Ring { "topology=ring" } else { "topology=tree" };
        let servers = self.needs_servers();
        let synchronous = self.is_synchronous();
        let first = matches!(self.pace, Pace::First { .. });
        let defers = matches!(self.pace, Pace::First { late: Late::Next, .. });
        let in_rounds = self.pace == Pace::Synchronous || first;
        let round = in_rounds && self.merge.is_round();
        let synchronous_mean = self.pace == Pace::Synchronous && self.merge.is_mean();
        let asynchronous = matches!(self.pace, Pace::Asynchronous { .. });
        let delayed = matches!(self.outer, Outer::DelayedNesterov { .. });
        let by_steps = self.normalize == Normalize::Steps;
        let by_batch = self.weigh == Weigh::Batch;
        let by_loss = matches!(self.adapt, Adapt::Loss { .. });
        let vote = matches!(self.merge, Merge::Vote { .. });
        // A head start is of the run; the other corrections are of a sparse codec.
        let Correction { starters, head_start, .. } = self.correction;
        let lossy_pull = servers && self.pull != Codec::F32;
        // (contradiction, choice, what it requires, reason), the most basic first.
        let contradictions: &[(bool, &str, &str, &str)] = &[
            (
                self.payload == Payload::Parameters && !round,
                "payload=parameters",
                SYNCHRONOUS_MEAN,
                "late parameters would overwrite the progress of other workers; use payload=updates",
            ),
            (
                self.payload == Payload::Parameters && defers,
                "payload=parameters",
                "late=drop",
                "late parameters would overwrite the progress of other workers; use payload=updates",
            ),
            (
                self.payload == Payload::Gradients && servers,
                "payload=gradients",
                "topology=tree, ring or mesh",
                "the parameters are at the workers alone, and a server could not give them to a newcomer",
            ),
            (
                self.payload == Payload::Gradients && !synchronous_mean,
                "payload=gradients",
                SYNCHRONOUS_MEAN,
                "all workers get the mean of a round; for other paces, use payload=updates",
            ),
            (
                self.payload == Payload::Gradients && self.period != Period::every(1),
                "payload=gradients",
                "period=1",
                "gradients of different parameters have no mean; use payload=updates for local steps",
            ),
            (
                self.payload == Payload::Gradients && self.correction.momentum > 0.0,
                "payload=gradients",
                "momentum=0",
                "momentum before the codec would make velocities of the gradients, and the optimizer of the application has \
                 its own",
            ),
            (
                self.payload == Payload::Gradients && self.optimizer != OptimizerState::Keep,
                "payload=gradients",
                "optimizer=keep",
                "the optimizer's state stays equal at all workers by itself",
            ),
            (
                elastic && !servers,
                "merge=elastic",
                "topology=servers",
                "workers and a center with parameters of its own are drawn to each other",
            ),
            (
                elastic && !synchronous && self.pace != (Pace::Asynchronous { overlap: false }),
                "merge=elastic",
                "pace=synchronous, or pace=asynchronous overlap=false",
                "a worker measures its distance to the center of one moment, and contributes it before it measures again",
            ),
            (
                elastic && self.fetch.is_some(),
                "merge=elastic",
                "no fetch of its own",
                "a worker fetches the center at each synchronisation, and never takes it over",
            ),
            (
                elastic && (!self.staleness.is_constant() || self.outer != Outer::None || compensates),
                "merge=elastic",
                "staleness=const without drop_above, outer=none and compensate=none",
                "the center has to move by as much as the worker does",
            ),
            (
                compensates && !servers,
                "compensate",
                "topology=servers",
                "only a server meets updates that were computed from other parameters than its own",
            ),
            (
                compensates && synchronous,
                "compensate",
                "pace=asynchronous or stale",
                "in rounds, no update is late; outer=adam divides their mean by magnitudes",
            ),
            (
                self.compensate.needs_copies() && self.pace != (Pace::Asynchronous { overlap: false }),
                "compensate=delay or delay-adaptive",
                "pace=asynchronous overlap=false",
                "a worker with two contributions under way does not compute with the parameters that it was sent last",
            ),
            (
                thins && self.pace != (Pace::Asynchronous { overlap: false }),
                "push_cost or fetch_cost",
                "pace=asynchronous overlap=false",
                "a worker decides by the answer to its last update, and the bound of pace=stale promises which updates it \
                 sees",
            ),
            (
                thins && apart,
                "push_cost or fetch_cost",
                "no fetch of its own",
                "the servers' magnitudes say at which steps a worker fetches",
            ),
            (
                apart && !servers,
                APART,
                "topology=servers",
                "elsewhere, no node keeps parameters that a worker could fetch",
            ),
            (
                apart && !asynchronous,
                APART,
                "pace=asynchronous",
                "a round gives its result to all workers, and the bound of pace=stale promises which contributions a \
                 worker sees",
            ),
            (
                apart && self.pace == (Pace::Asynchronous { overlap: true }),
                APART,
                "overlap=false",
                "a worker that overlaps takes the parameters that answer the contribution before its last one, and a \
                 contribution that asks for none has no such answer",
            ),
            (
                apart && self.adapt != Adapt::None,
                APART,
                "adapt=none",
                "both count the local steps of a worker, and the steps of a period change with the worker's speed",
            ),
            (
                apart && self.period.fixed().is_none(),
                APART,
                "a period of a number of steps",
                "both count the local steps of a worker from the beginning of the run",
            ),
            (
                adasum && !servers && !pairs,
                "merge=adasum",
                "topology=servers, or tree with fan_in=2",
                "it merges whole tensors in pairs; in a ring each part of a tensor would go through a chain of pairs, in which \
                 the last contribution counts most, and in a mesh messages are added up",
            ),
            (
                pairs && !matches!(self.topology, Topology::Auto | Topology::Tree { fan_in: 2 }),
                "merge=adasum",
                "fan_in=2",
                "it merges pairs; contributions of more children would go through a chain of pairs, in which the last one \
                 counts most",
            ),
            (
                pairs && self.codec != Codec::F32,
                "merge=adasum topology=tree",
                "codec=f32",
                "the residual of a hop would be merged with other contributions than those it is left of, and adasum does \
                 not just add it; servers take any codec",
            ),
            (
                self.merge.needs_all() && !servers && !pairs,
                self.merge.text(),
                "topology=servers",
                "it needs the contributions of all workers at one node, and elsewhere they are added up on the way",
            ),
            (
                self.merge.needs_all() && !in_rounds,
                self.merge.text(),
                "pace=synchronous or first",
                "it compares the contributions of a round, one of each worker; other paces have no rounds",
            ),
            (
                self.merge.needs_whole() && self.shards() > 1,
                self.merge.text(),
                "shards=1",
                "it measures whole contributions, and a server of one shard sees a part of each; trimmed-mean and median \
                 take any number of shards",
            ),
            (
                self.merge.needs_updates() && self.payload != Payload::Updates,
                self.merge.text(),
                "payload=updates",
                "the norm of a worker's parameters says nothing of what it has changed",
            ),
            (
                matches!(self.merge, Merge::Krum { .. }) && self.optimizer == OptimizerState::Average,
                self.merge.text(),
                "optimizer=keep or reset",
                "the state of the optimizer would be a part of the distances between contributions",
            ),
            (
                self.merge.needs_dense() && self.codec.is_sparse(),
                self.merge.text(),
                "a codec other than threshold or topk",
                "of a sparse message, most elements are 0, and the few others would be left out as the extreme ones",
            ),
            (
                vote && self.payload != Payload::Updates,
                "merge=vote",
                "payload=updates",
                "the sign of a parameter says nothing of the way that it should go",
            ),
            (
                vote && self.codec.is_sparse(),
                "merge=vote",
                "a codec other than threshold or topk",
                "an element that a message leaves out would be a vote for plus",
            ),
            (
                vote && self.codec != Codec::F32 && self.decay != 0.0,
                "merge=vote with a lossy codec",
                "decay=0",
                "a vote has no size, so that a residual cannot make up for what earlier votes have left out; for error \
                 feedback, use merge=mean",
            ),
            (
                vote && self.end != End::Keep,
                "merge=vote",
                "end=keep",
                "a residual that is sent at the end would be a vote of full length",
            ),
            (
                vote && matches!(self.outer, Outer::Adagrad { .. } | Outer::Adam { .. }),
                "merge=vote",
                "outer=none or momentum",
                "all elements move by the same length, so that a rate for each element has nothing to adapt to",
            ),
            (
                first && !servers,
                "pace=first",
                "topology=servers",
                "all members of a tree, ring or mesh have to be in a round, since each computes its result",
            ),
            (
                tree && self.pace != Pace::Synchronous,
                shape,
                "pace=synchronous",
                "a node passes on the sum of what it receives, so all contributions of a round must be there; use \
                 topology=servers or mesh for other paces",
            ),
            (
                tree && self.merge != Merge::Mean && !pairs,
                shape,
                "merge=mean",
                "its messages are weighted means; to apply a sum, scale the learning rate",
            ),
            (
                self.merge.is_mean() && !in_rounds,
                self.merge.text(),
                "pace=synchronous or first",
                "a mean needs rounds with one contribution per worker; use merge=sum or softsync for other paces",
            ),
            (
                self.merge == Merge::MeanOfSenders && !self.codec.is_sparse(),
                "merge=mean-of-senders",
                "codec=threshold or topk",
                "other messages carry all elements, so that each worker is a sender of each: use merge=mean",
            ),
            (
                self.merge == Merge::MeanOfSenders && by_steps,
                "normalize=steps",
                "merge=mean",
                "the mean number of steps is that of all workers, and not of the senders of an element",
            ),
            (
                matches!(self.merge, Merge::Softsync { .. }) && !asynchronous,
                "merge=softsync",
                "pace=asynchronous",
                "an update that waits for its group to fill would not advance the clock of its worker",
            ),
            (
                mesh && !asynchronous && !gather,
                "topology=mesh",
                "pace=asynchronous or synchronous",
                "a peer of a mesh keeps no clocks of other peers; it has rounds, or applies messages on arrival",
            ),
            (
                gather && !self.merge.is_mean(),
                "topology=mesh pace=synchronous",
                "merge=mean",
                "a round applies the mean of its messages; to apply a sum, scale the learning rate",
            ),
            (
                mesh && !gather && !matches!(self.merge, Merge::Sum { .. }),
                "topology=mesh pace=asynchronous",
                "merge=sum",
                "a peer adds every message on arrival; lambda=1/n makes the rate that of a mean",
            ),
            (
                mesh && !gather && !matches!(self.codec, Codec::Threshold(_)),
                "topology=mesh pace=asynchronous",
                "codec=threshold",
                "replicas stay equal by counting quanta, and only this codec sends quanta; with pace=synchronous, a mesh \
                 takes the other codecs",
            ),
            (
                gather && self.codec == Codec::F32,
                "topology=mesh pace=synchronous",
                "a codec other than f32",
                "every worker sends its message to every other one; a ring moves plain floats in fewer bytes",
            ),
            (
                gather && self.topology != (Topology::Mesh { relay: 0 }),
                "topology=mesh pace=synchronous",
                "relay=0",
                "the messages of a round go straight from each worker to each other one",
            ),
            (
                gather && self.correction.starters > 0,
                "starters",
                "pace=asynchronous",
                "a round needs the contributions of all workers",
            ),
            (
                tree && self.codec.is_sparse(),
                shape,
                "a codec other than threshold or topk",
                "the sum of sparse messages is less sparse at every hop; use topology=mesh pace=synchronous",
            ),
            (
                tree && self.codec == Codec::SignColumns,
                shape,
                "scope=block",
                "it cuts the vector into chunks without regard to tensors, which would cut their columns; use \
                 topology=servers or mesh for scope=column",
            ),
            (
                self.end != End::Keep && self.codec == Codec::F32,
                "end=send or spread",
                "a codec other than f32",
                "f32 leaves no residual",
            ),
            (
                self.decay != 1.0 && self.codec == Codec::F32,
                "decay",
                "a codec other than f32",
                "f32 leaves no residual that could decay",
            ),
            (
                self.end != End::Keep && rounds,
                "end=send or spread",
                "topology=servers, or topology=mesh pace=asynchronous",
                "in a round all workers contribute at once, so a worker that ends has no message of its own",
            ),
            (
                self.payload == Payload::Parameters && self.codec != Codec::F32,
                "payload=parameters",
                "codec=f32",
                "a residual of earlier parameters would be added to later ones; use payload=updates",
            ),
            (
                self.outer != Outer::None && self.payload == Payload::Gradients,
                "outer",
                "payload=updates",
                "with payload=gradients, the optimizer is the application's, and comes after the mean",
            ),
            (
                self.outer != Outer::None && self.payload == Payload::Parameters,
                "outer",
                "payload=updates",
                "an outer optimizer works on the way that the workers have gone, and not on where they are",
            ),
            (
                self.outer != Outer::None && mesh && !gather,
                "outer",
                "topology=servers, tree or ring, or pace=synchronous",
                "a peer of this mesh adds quanta on arrival: there is no merged update that an optimizer could take",
            ),
            (
                delayed && !servers,
                "outer=delayed-nesterov",
                "topology=servers",
                "it counts the updates that a server merges one by one; for rounds, use outer=momentum look=true",
            ),
            (
                delayed && synchronous,
                "outer=delayed-nesterov",
                "pace=asynchronous, or stale with a bound of 1 or more",
                "a round is a mean of all workers already; use outer=momentum look=true",
            ),
            (
                self.outer.follows_rate() && (by_steps || by_loss || by_batch),
                "scale=rate",
                "normalize=none, weigh=examples, and adapt=none or speed",
                "the number that travels with a contribution is its learning rate, so that there is no room for its steps or \
                 its loss",
            ),
            (
                !servers && self.pull != Codec::F32,
                "a pull codec other than f32",
                "topology=servers",
                "in other topologies no node sends parameters",
            ),
            (
                lossy_pull && self.pace == (Pace::Asynchronous { overlap: true }),
                "a pull codec other than f32",
                "overlap=false",
                OWN_UPDATES,
            ),
            (
                lossy_pull && matches!(self.pace, Pace::Stale { bound: 1.. }),
                "a pull codec other than f32",
                "pace=synchronous or asynchronous, or bound=0",
                OWN_UPDATES,
            ),
            (
                by_steps && self.payload != Payload::Updates,
                "normalize=steps",
                "payload=updates",
                "what workers do per step is an update",
            ),
            (
                by_steps && !synchronous_mean,
                "normalize=steps",
                SYNCHRONOUS_MEAN,
                "the mean number of steps is that of a round",
            ),
            (
                by_steps && self.adapt != Adapt::Speed && !self.period.is_measured(),
                "normalize=steps",
                "adapt=speed, or a period in seconds or examples",
                "otherwise all workers take equally many steps, and a mean of their updates is normalised already",
            ),
            (
                by_batch && !self.merge.weighs(),
                "weigh=batch",
                "merge=mean, norm-clip, centred-clip, krum or rda",
                "other rules count each contribution once, whatever its weight",
            ),
            (
                by_batch && self.payload == Payload::Gradients,
                "weigh=batch",
                "payload=updates or parameters",
                "the gradient of all examples is the mean of the workers' gradients by examples",
            ),
            (by_batch && by_steps, "weigh=batch", "normalize=none", "a mean by steps is weighted by examples"),
            (
                by_batch && by_loss,
                "weigh=batch",
                "adapt=none or speed",
                "with adapt=loss, contributions tell the loss in place of their steps",
            ),
            (
                by_loss && servers,
                "adapt=loss",
                "topology=tree, ring or mesh",
                "a server that is started again would not know the loss at the start, which the members of a round tell \
                 each other",
            ),
            (
                by_loss && !rounds,
                "adapt=loss",
                SYNCHRONOUS_MEAN,
                "all workers have the same period, by the mean loss of a round",
            ),
            (
                by_loss && self.period.is_measured(),
                "adapt=loss",
                "a period in steps",
                "in equal times or examples, workers take different numbers of steps",
            ),
            (
                by_loss && !self.period.is_fixed(),
                "adapt=loss",
                "a period without stages",
                "stages begin at a step, and the loss decides how many steps there are until then",
            ),
            (
                by_loss && self.period == Period::every(1),
                "adapt=loss",
                "a period of 2 or more",
                "no period is shorter than one step",
            ),
            (
                self.adapt == Adapt::Speed && !servers,
                "adapt=speed",
                "topology=servers",
                "a server tells its workers how fast the others are; without one, use a period in seconds, as in \
                 period=20s",
            ),
            (
                self.adapt == Adapt::Speed && self.period.has_time(),
                "adapt=speed",
                "a period in steps or examples",
                "in equal times, workers take steps by their speed already",
            ),
            (
                self.adapt == Adapt::Speed && self.period == Period::every(1),
                "adapt=speed",
                "a period of 2 or more",
                "a period of one step cannot be shorter for a slower worker",
            ),
            (
                self.adapt == Adapt::Speed && !self.period.is_fixed(),
                "adapt=speed",
                "a period without stages",
                "stages begin at a step, which workers of unequal speed reach in different rounds",
            ),
            (
                self.period.has_time() && matches!(self.pace, Pace::Stale { bound: 1.. }),
                "a period in seconds",
                "pace=synchronous or asynchronous",
                "the bound counts periods, and workers of any speed have equally many periods of equal time; use a \
                 number of steps with pace=stale",
            ),
            (
                !self.codec.is_sparse() && self.correction != Correction { starters, head_start, ..Correction::none() },
                "momentum, warmup, ramp or clip_norm",
                "codec=threshold or topk",
                "these correct for elements that are sent late, and other codecs send every element at once",
            ),
            (
                starters > 0 && !mesh && (!servers || !asynchronous),
                "starters",
                "topology=mesh or servers, and pace=asynchronous",
                "a round would wait for the workers that have not started, and the bound of pace=stale for workers that have \
                 ended",
            ),
            (
                mesh && !self.staleness.is_constant(),
                "topology=mesh",
                "staleness=const without drop_above",
                EQUAL_REPLICAS,
            ),
            (
                synchronous && !self.staleness.is_constant(),
                "a synchronous pace (or bound=0)",
                "staleness=const without drop_above",
                "all updates of a round have staleness 0, so nothing would be scaled or dropped",
            ),
            (
                first && !self.staleness.is_constant(),
                "pace=first",
                "staleness=const without drop_above",
                "a round takes contributions as they are; late=drop drops each that is stale",
            ),
            (
                self.optimizer == OptimizerState::Average && self.payload != Payload::Parameters,
                "optimizer=average",
                "payload=parameters",
                "optimizer state is averaged together with the parameters",
            ),
            (
                self.optimizer != OptimizerState::Keep && !round,
                "optimizer=reset or average",
                SYNCHRONOUS_MEAN,
                "without rounds there is no moment at which all workers have the same parameters",
            ),
        ];
        let found = contradictions.iter().filter(|(found, ..)| *found);
        faults.extend(found.map(|&(_, choice, required, reason)| ConfigError::Contradiction {
            choice,
            required,
            reason,
        }));
    }
}
