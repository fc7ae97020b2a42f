//! The time of an exchange: from the last contribution of a round until all workers have the result, and the load of
//! the ports.

use gradwire_core::Cluster;
use gradwire_core::recipe::{OptimizerState, Pace, Payload, Topology};

use super::size::{Body, HEADER, body};
use super::{Case, Hosts, Recipe, Sharing, Waits};

/// An exchange of all workers, or of one worker with asynchronous servers. Times in seconds.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Exchange {
    /// The wire, with the latency that other chunks hide.
    pub(super) wire: f64,
    /// The latency that nothing hides.
    pub(super) latency: f64,
    /// Arithmetic that the wire does not hide.
    pub(super) code: f64,
    /// The wire of the longer of both ways, to servers or back.
    pub(super) way: f64,
    /// Arithmetic of a worker for the messages of other workers, in a mesh without rounds.
    pub(super) others: f64,
    /// Bytes of all messages for one contribution of each worker, over the workers.
    pub(super) bytes: f64,
    /// Bytes through the busiest port for one contribution of each worker.
    pub(super) busiest: f64,
    /// Seconds of the busiest port for one contribution of each worker: no worker can be faster on average.
    pub(super) port: f64,
    /// The port that limits it.
    pub(super) place: Place,
}

/// The place of the busiest port.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Place {
    #[default]
    Worker,
    Server,
    Inner,
}

impl Place {
    pub(super) fn waits(self) -> Waits {
        match self {
            Self::Worker => Waits::Wire,
            Self::Server => Waits::Server,
            Self::Inner => Waits::Inner,
        }
    }
}

impl Exchange {
    pub(super) fn of(case: &Case, recipe: &Recipe, cluster: Cluster) -> Self {
        let workers = cluster.workers as usize;
        let nanos = 1e-9;
        // Averaged optimizer states travel behind the parameters.
        let averages = recipe.payload() == Payload::Parameters && recipe.optimizer() == OptimizerState::Average;
        let vectors = if averages { 1 + case.optimizer_vectors } else { 1 };
        let len = case.params as f64 * f64::from(vectors);
        let fixed = len * case.costs.passes * case.costs.axpy * nanos;
        if workers == 1 && !recipe.needs_servers() {
            return Self::default();
        }
        let mut exchange = match recipe.topology() {
            Topology::Auto => unreachable!("forecasts are of fitted recipes"),
            Topology::Tree { fan_in } => tree(case, recipe, len, workers, fan_in as usize),
            Topology::Ring => ring(case, recipe, len, workers),
            Topology::Servers { .. } => servers(case, recipe, len, cluster),
            Topology::Mesh { relay } => mesh(case, recipe, len, workers, relay as usize),
        };
        exchange.code += fixed;
        exchange
    }
}

/// The cut of a vector into chunks, in bytes on the wire.
#[derive(Copy, Clone, Debug)]
struct Cut {
    /// All chunks of one vector, with their headers.
    all: f64,
    /// One chunk.
    chunk: f64,
    /// Number of chunks.
    count: f64,
}

impl Cut {
    fn of(case: &Case, recipe: &Recipe, len: f64, workers: usize) -> Self {
        let chunk = recipe.chunk_len(len as usize, workers as u32) as f64;
        let count = (len / chunk).ceil();
        let bytes = |len| body(&recipe.codec(), len, case.density).bytes + HEADER;
        let rest = len - (count - 1.0) * chunk;
        Self { all: (count - 1.0) * bytes(chunk) + bytes(rest), chunk: bytes(chunk), count }
    }
}

/// Arithmetic in seconds of a node that takes the parts of so many children: it adds them to its own, encodes the mean,
/// and decodes the result.
fn arithmetic(case: &Case, recipe: &Recipe, len: f64, children: f64) -> f64 {
    let coder = case.costs.of(&recipe.codec());
    let decodes = (children + 1.0) * coder.decode;
    len * 1e-9 * (children * case.costs.axpy + coder.encode + decodes)
}

/// Chunks go up to the root and down again in a pipeline of 2 D hops.
fn tree(case: &Case, recipe: &Recipe, len: f64, workers: usize, fan_in: usize) -> Exchange {
    let Cut { all, chunk, count } = Cut::of(case, recipe, len, workers);
    let children = |at: usize| (fan_in * at + 1..workers).take(fan_in).count();
    // Hops from the last worker, which is one of the deepest, to the root.
    let (mut at, mut depth, mut fill, mut widest) = (workers - 1, 0.0, 0.0, 1);
    let shared = case.link.sharing == Sharing::Port;
    while at > 0 {
        at = (at - 1) / fan_in;
        depth += 1.0;
        fill += if shared { children(at) as f64 } else { 1.0 };
    }
    // Messages of a chunk through the port of a node in each direction.
    for node in 0..workers {
        widest = widest.max(children(node) + usize::from(node > 0));
    }
    let load = if shared { widest as f64 } else { 1.0 };
    let slower = case.link.slower();
    let wire = (load * (all - chunk) + 2.0 * fill * chunk) / slower;
    // Each node works on one chunk at a time, while the next one is on the wire.
    let code = arithmetic(case, recipe, len, children(0).max(1) as f64);
    let fill_code = 2.0 * depth * code / count;
    Exchange {
        wire,
        latency: 2.0 * depth * case.link.latency,
        code: (code - wire).max(0.0) + fill_code,
        bytes: 2.0 * (workers - 1) as f64 * all / workers as f64,
        busiest: widest as f64 * all,
        place: if widest > 1 && workers > 2 { Place::Inner } else { Place::Worker },
        ..Exchange::default()
    }
}

/// Every chunk goes along a chain of all workers to its root, and its result goes on to all. All links are in use at once,
/// each in one direction.
fn ring(case: &Case, recipe: &Recipe, len: f64, workers: usize) -> Exchange {
    let Cut { all, chunk, count } = Cut::of(case, recipe, len, workers);
    let (n, slower, latency) = (workers as f64, case.link.slower(), case.link.latency);
    // The chunks of each root: chunk k has the root k % N, and the last chunk is the shortest.
    let last = (count as usize - 1) % workers;
    let group = |root: usize| {
        let chunks = ((count - root as f64) / n).ceil().max(0.0);
        let shorter = if root == last { count * chunk - all } else { 0.0 };
        (chunks * chunk - shorter) / slower
    };
    let most = (0..workers).map(group).fold(0.0, f64::max);
    // A worker sends the parts of all roots but its own, and the results of all but the one that it sends to.
    let sent = |at: usize| 2.0 * all / slower - group(at) - group((at + 1) % workers);
    let busy = (0..workers).map(sent).fold(0.0, f64::max);
    // It sends the chunks of one root after the other, 2 N - 2 times. A chunk can be sent on when all of it has come.
    let hops = 2.0 * n - 3.0;
    let (hop, turn) = ((busy - most) / hops, chunk / slower + latency);
    let total = hops * hop.max(turn) + most + latency;
    let stalls = if hop >= turn { latency } else { (hops + 1.0) * latency };
    let code = arithmetic(case, recipe, len, 1.0);
    let wire = total - stalls.min(total);
    Exchange {
        wire,
        latency: stalls.min(total),
        code: (code - wire).max(0.0) + 2.0 * (n - 1.0) * code / count.max(n),
        bytes: 2.0 * (n - 1.0) / n * all,
        busiest: 2.0 * (n - 1.0) / n * all,
        ..Exchange::default()
    }
}

/// Every worker sends its contribution to the servers, and gets the parameters back.
fn servers(case: &Case, recipe: &Recipe, len: f64, cluster: Cluster) -> Exchange {
    let Topology::Servers { shards } = recipe.topology() else { return Exchange::default() };
    let (n, hosts, shards) = (f64::from(cluster.workers), f64::from(cluster.servers), f64::from(shards));
    let part = len / shards;
    let message = |codec| body(&codec, part, case.density);
    let (push, pull) = (message(recipe.codec()), message(recipe.pull()));
    // Of one worker, to and from all servers.
    let (up, down) = (shards * (push.bytes + HEADER), shards * (pull.bytes + HEADER));
    // Answers that carry parameters, of all answers.
    let fetched = match recipe.fetch() {
        Some(fetch) => (f64::from(recipe.period().at(u64::MAX)) / f64::from(fetch)).min(1.0),
        None => 1.0,
    };
    let down = fetched * down + (1.0 - fetched) * shards * HEADER;
    let beside = case.hosts == Hosts::Workers && cluster.servers <= cluster.workers;
    // Workers that reach a server over its port; the share that a worker without a server of its own sends through its
    // own port is 1.
    let remote = if beside { n - 1.0 } else { n };
    let own = if beside && cluster.servers == cluster.workers { 1.0 - 1.0 / hosts } else { 1.0 };
    let own = if n == 1.0 && beside { 0.0 } else { own };
    let (link, rounds) = (case.link, recipe.has_rounds());
    // The servers of most shards have one more, if shards do not divide evenly.
    let load = (shards / hosts).ceil() / shards;
    let phase = |bytes: f64, sends: f64, receives: f64| match link.sharing {
        Sharing::Pair => bytes * load / link.slower(),
        Sharing::Port if rounds => (remote * load * bytes / receives).max(own * bytes / sends),
        Sharing::Port => bytes * own / sends.min(receives),
    };
    let (out, back) = (phase(up, link.up, link.down), phase(down, link.down, link.up));
    // While the last shard is pushed, the first is answered.
    let cuts = match link.sharing {
        Sharing::Pair => (shards / hosts).ceil(),
        Sharing::Port if rounds => (shards / hosts).ceil(),
        Sharing::Port => shards,
    };
    let wire = out + back - out.min(back) * (1.0 - 1.0 / cuts);
    let port = match link.sharing {
        Sharing::Pair => 0.0,
        Sharing::Port => (remote * load * up / link.down).max(remote * load * down / link.up),
    };
    let (costs, coder, pull_coder) = (case.costs, case.costs.of(&recipe.codec()), case.costs.of(&recipe.pull()));
    let server = load * shards * 1e-9;
    // Of one contribution at a server: decoded, checked and added; and the answer encoded.
    let merge = server * (coder.decode * push.entries + 2.0 * part * costs.axpy);
    let answer = server * part * pull_coder.encode;
    let worker = 1e-9 * (len * coder.encode + shards * pull_coder.decode * pull.entries);
    let code = match rounds {
        true => worker + merge + answer + ((n - 1.0) * (merge + answer) - wire).max(0.0),
        false => worker + merge + answer,
    };
    Exchange {
        wire,
        latency: if remote > 0.0 { 2.0 * link.latency } else { 0.0 },
        code,
        bytes: (up + down) * if beside { 1.0 - 1.0 / n } else { 1.0 },
        busiest: (remote * load * up.max(down)).max(own * up.max(down)),
        port: port.max(n * (merge + answer)),
        way: out.max(back),
        others: 0.0,
        place: if link.sharing == Sharing::Port && remote * load > own { Place::Server } else { Place::Worker },
    }
}

/// Every worker sends its message to every other one, directly or over relays.
fn mesh(case: &Case, recipe: &Recipe, len: f64, workers: usize, relay: usize) -> Exchange {
    let Body { bytes, entries } = body(&recipe.codec(), len, case.density);
    let (bytes, others) = (bytes + HEADER, (workers - 1) as f64);
    let coder = case.costs.of(&recipe.codec());
    let (encode, decode) = (1e-9 * len * coder.encode, 1e-9 * (entries * coder.decode).max(0.0));
    // Along a tree, each message crosses each of the N - 1 links once; a node with a parent and `relay` children passes
    // the messages that come over one link on to all the rest of them.
    let neighbours = if relay == 0 { others } else { others.min(relay as f64 + 1.0) };
    let sent = if relay == 0 { others } else { neighbours + others * (neighbours - 1.0).max(0.0) };
    let wire = match case.link.sharing {
        Sharing::Pair => bytes / case.link.slower(),
        Sharing::Port => sent.max(others) * bytes / case.link.slower(),
    };
    // Bodies are decoded as they arrive, and the last one after it has arrived.
    let late = (others * decode - wire).max(0.0) + decode;
    let without_rounds = matches!(recipe.pace(), Pace::Asynchronous { .. } | Pace::Stale { .. });
    Exchange {
        wire,
        latency: case.link.latency,
        code: encode + if without_rounds { 0.0 } else { late },
        others: others * decode,
        bytes: others * bytes,
        busiest: sent.max(others) * bytes,
        port: wire,
        way: 0.0,
        place: if relay == 0 { Place::Worker } else { Place::Inner },
    }
}
