//! The books: the harness counts the messages and kernels of each node, and compares the counts with the counters that
//! the node's [`Status`] promises.

use std::collections::{BTreeMap, BTreeSet};

use gradwire_core::kernel::KernelResult;
use gradwire_core::recipe::{Adapt, Codec, Compensate, Merge, Pace, Span, Topology};
use gradwire_core::status::{LinkStatus, Role};
use gradwire_core::wire::{HEADER_LEN, Header, Message, Push};
use gradwire_core::{Event, PeerId, Recipe, ShardId, Status, shard_range};
use gradwire_sim::{Deed, Effort, Entry, Life, Plan, World};

use super::check::{Failure, ensure, repeats};
use super::reference::Reference;
use super::{Kind, Scenario, Truth};

/// The counts of all nodes, each since the start of its process.
pub struct Books(Vec<Book>);

/// The counts of one node.
#[derive(Clone, Default)]
struct Book {
    /// Traffic with each node, indexed by `PeerId`.
    links: Vec<Traffic>,
    /// Bytes sent, with plain floats in place of encoded bodies.
    dense: Vec<(PeerId, Header)>,
    /// Messages to each peer that were sent before, and how often.
    resent: u64,
    sent: BTreeSet<(u32, u32, u32, u64, u64)>,
    /// Numbers of the contributions that repeat the last one, and of those with examples that ask for no parameters.
    repeats: BTreeSet<u64>,
    quiet: BTreeSet<u64>,
    /// Contributions with a body that was read, and how many messages each stands for.
    read: Vec<(PeerId, Message)>,
    /// Number of contributions with a body that was dropped.
    dropped: u64,
    /// Elements in encoded messages.
    entries: u64,
    /// Pairs of messages that were merged.
    merged: u64,
    /// Total that clipping has removed, added up in the order of the kernels.
    clipped: f64,
    /// Total that decay has removed, added up in the order of the kernels.
    forgotten: f64,
    /// Squared norms of contributions that were measured.
    norms: Vec<f64>,
    /// Parts of a round without examples.
    empty: u64,
    /// By shard: the newest version that a worker has offered; `None` once the server has begun.
    offered: BTreeMap<u32, Option<u64>>,
    /// By server and shard: version, row clock, and the own contributions in it, of the parameters that came last.
    replies: BTreeMap<(u32, u32), [u64; 3]>,
    /// The first parameters, sent or received, that were older than they should be, in words.
    stale: Option<String>,
}

#[derive(Clone, Copy, Default)]
struct Traffic {
    messages_out: u64,
    bytes_out: u64,
    messages_in: u64,
    bytes_in: u64,
    /// The process that has said hello, and how often it did so again.
    process: u64,
    reconnects: u64,
}

impl Books {
    pub fn new(nodes: u32) -> Self {
        let book = Book { links: vec![Traffic::default(); nodes as usize], ..Book::default() };
        Self(vec![book; nodes as usize])
    }

    /// Enters the deeds of nodes into their books.
    pub fn take(&mut self, deeds: &[(PeerId, Deed)]) {
        let nodes = self.0.len() as u32;
        for (node, deed) in deeds {
            let book = &mut self.0[node.index()];
            match *deed {
                Deed::Started => *book = Self::new(nodes).0.swap_remove(0),
                Deed::Sent { peer, header } => book.on_sent(peer, header),
                Deed::Heard { peer, header } => book.on_heard(peer, &header),
                Deed::Read { peer, message, .. } => book.on_read(*node, peer, message),
                Deed::Dropped { message: Message::Push(_) | Message::Quanta(_), .. } => book.dropped += 1,
                Deed::Dropped { .. } => {}
                Deed::Computed { result: KernelResult::Encoded(encoded) } => {
                    book.entries += u64::from(encoded.entries);
                    book.forgotten += encoded.forgotten;
                }
                Deed::Computed { result: KernelResult::Merged { .. } } => book.merged += 1,
                Deed::Computed { result: KernelResult::Clipped { lost, .. } } => book.clipped += lost,
                Deed::Computed { result: KernelResult::Norm { squares } } => book.norms.push(squares),
                Deed::Computed { .. } | Deed::Asked { .. } => {}
            }
        }
    }

    /// Compares the counters of all nodes with the books, at the end of a run.
    pub fn check(&self, scenario: &Scenario, world: &World, truth: &Truth, pushes: &[Push]) -> Result<(), Failure> {
        let cluster = scenario.plan.cluster;
        for node in (0..cluster.nodes()).map(PeerId) {
            let Some(status) = world.status(node) else { continue };
            let book = &self.0[node.index()];
            if let Some(text) = &book.stale {
                return Err(Failure::Violation(text.clone()));
            }
            book.check_traffic(scenario, &status)?;
            book.check_messages(scenario, &status, truth)?;
            if !cluster.is_worker(node) && status.role == Role::Server {
                check_staleness(scenario, &status, truth, pushes)?;
            }
            book.check_measured(scenario, &status)?;
            check_residual(scenario, world, &status)?;
            check_view(world, &status)?;
        }
        Ok(())
    }
}

impl Book {
    fn on_sent(&mut self, peer: PeerId, header: Header) {
        let link = &mut self.links[peer.index()];
        link.messages_out += 1;
        link.bytes_out += HEADER_LEN as u64 + u64::from(header.length());
        self.dense.push((peer, header));
        if let Message::Params(reply) | Message::Delta(reply) = header.message() {
            let offered = self.offered.insert(reply.shard.0, None).flatten().unwrap_or(0);
            if reply.version.0 < offered {
                let text = format!("version {offered} was offered, the server begins with {}", reply.version.0);
                self.stale.get_or_insert(text);
            }
        }
        if let Message::Push(push) = header.message() {
            self.repeats.extend(push.repeats.then_some(push.sequence.0));
            self.quiet.extend((!push.fetches && push.weight > 0).then_some(push.sequence.0));
        }
        let key = match header.message() {
            Message::Push(push) => (peer.0, push.shard.0, push.worker.0, push.incarnation.0, push.sequence.0),
            Message::Quanta(quanta) => (peer.0, 0, quanta.origin.0, quanta.incarnation.0, quanta.last.0),
            _ => return,
        };
        self.resent += u64::from(!self.sent.insert(key));
    }

    fn on_read(&mut self, me: PeerId, peer: PeerId, message: Message) {
        self.read.push((peer, message));
        match message {
            Message::Offer(offer) => {
                let newest = self.offered.entry(offer.shard.0).or_insert(Some(0));
                *newest = newest.map(|newest| newest.max(offer.version.0));
            }
            Message::Params(reply) | Message::Delta(reply) => {
                let got = [reply.version.0, reply.row.0, reply.sequence.0];
                let before = self.replies.insert((peer.0, reply.shard.0), got);
                if before.is_none() && matches!(message, Message::Delta(_)) {
                    let text =
                        format!("worker {me} got a difference to parameters of {} that it never had", reply.shard);
                    self.stale.get_or_insert(text);
                }
                let last = before.unwrap_or_default();
                if got.iter().zip(last).any(|(got, last)| *got < last) {
                    let text = format!(
                        "worker {me} got version, row and contribution {got:?} of {} after {last:?}",
                        reply.shard
                    );
                    self.stale.get_or_insert(text);
                }
            }
            _ => {}
        }
    }

    fn on_heard(&mut self, peer: PeerId, header: &Header) {
        let link = &mut self.links[peer.index()];
        link.messages_in += 1;
        link.bytes_in += HEADER_LEN as u64 + u64::from(header.length());
        if let Message::Up(part) = header.message() {
            self.empty += u64::from(part.weight == 0);
        }
        if let Message::Hello(hello) = header.message() {
            if link.process != hello.incarnation.0 {
                // A restarted server can be behind the state that this worker has seen of the earlier process.
                self.replies.retain(|(server, _), _| *server != peer.0);
            }
            link.reconnects += u64::from(link.process == hello.incarnation.0);
            link.process = hello.incarnation.0;
        }
    }

    fn check_traffic(&self, scenario: &Scenario, status: &Status) -> Result<(), Failure> {
        let (me, counters) = (status.me, status.counters);
        for link in &status.links {
            let LinkStatus { peer, bytes_out, bytes_in, messages_out, messages_in, last_heard, .. } = *link;
            let Traffic { messages_out: m_out, bytes_out: b_out, messages_in: m_in, bytes_in: b_in, .. } =
                self.links[peer.index()];
            let (got, expected) = ([messages_out, bytes_out, messages_in, bytes_in], [m_out, b_out, m_in, b_in]);
            ensure!(got == expected, "node {me} counts {got:?} messages and bytes with {peer}, expected {expected:?}");
            ensure!(last_heard.is_some() == (m_in > 0), "node {me} has heard {peer} at {last_heard:?}");
        }
        let dense: u64 = self.dense.iter().map(|(_, header)| HEADER_LEN as u64 + dense(scenario, header)).sum();
        ensure!(
            counters.dense_bytes == dense,
            "node {me} counts {} dense bytes, expected {dense}",
            counters.dense_bytes
        );
        let reconnects: u64 = self.links.iter().map(|link| link.reconnects).sum();
        ensure!(
            counters.reconnects == reconnects,
            "node {me} counts {} reconnections, expected {reconnects}",
            counters.reconnects
        );
        Ok(())
    }

    fn check_messages(&self, scenario: &Scenario, status: &Status, truth: &Truth) -> Result<(), Failure> {
        let (plan, me, counters) = (&scenario.plan, status.me, status.counters);
        // A message that the machine has taken back has not been sent, but counts as sent when it is sent again. And a
        // relay gets the messages of other nodes again in a new view.
        let exact = plan.effort == Effort::none();
        let more = !exact && counters.resent > self.resent;
        let fewer = scenario.kind == Kind::Relay && status.view > 1 && counters.resent < self.resent;
        ensure!(
            counters.resent == self.resent || more || fewer,
            "node {me} counts {} messages that were sent again, expected {}",
            counters.resent,
            self.resent
        );
        let (entries, merged) = (counters.entries, counters.merged);
        // A message of a tree that was encoded for a round that broke off has not been sent.
        let broken_off = may_break_off(scenario, status) && entries < self.entries;
        ensure!(entries == self.entries || broken_off, "node {me} counts {entries} entries, expected {}", self.entries);
        ensure!(merged == self.merged, "node {me} counts {merged} merged messages, expected {}", self.merged);
        let count = status.staleness.count();
        ensure!(counters.applied == count, "node {me} knows the staleness of {count} of {} updates", counters.applied);
        if !scenario.crashing().is_empty() {
            return Ok(());
        }
        match status.role {
            Role::Server if scenario.kind == Kind::First => self.check_first(status, exact),
            Role::Server => self.check_server(scenario, status, exact),
            Role::Mesh => self.check_mesh(scenario, status, exact),
            Role::Collective => {
                // Parts that come when their view has ended are dropped.
                let past = status.view > 1 && counters.empty < self.empty;
                ensure!(
                    counters.empty == self.empty || past,
                    "node {me} counts {} parts without examples, expected {}",
                    counters.empty,
                    self.empty
                );
                check_rounds(scenario, status, truth)
            }
            Role::Worker => {
                let sum = counters.applied + counters.duplicates + counters.late + counters.dropped + counters.empty;
                ensure!(sum == 0, "worker {me} counts {sum} contributions that it cannot get");
                // With `fetch=`, the recipe says which contributions ask for no parameters.
                let quiet = if plan.recipe.compensate() == Compensate::None { 0 } else { self.quiet.len() as u64 };
                let quiet = if plan.recipe.fetch().is_some() { 0 } else { quiet };
                let (got, expected) =
                    ([counters.skipped_pushes, counters.skipped_fetches], [self.repeats.len() as u64, quiet]);
                ensure!(got == expected, "worker {me} has skipped {got:?} pushes and fetches, expected {expected:?}");
                Ok(())
            }
        }
    }

    /// The residual's size and the clipped amount that a worker reports follow from the results of its kernels.
    fn check_measured(&self, scenario: &Scenario, status: &Status) -> Result<(), Failure> {
        let (Plan { recipe, cluster, .. }, me) = (&scenario.plan, status.me);
        if !cluster.is_worker(me) {
            return Ok(());
        }
        let (got, expected) = (status.clipped, self.clipped);
        ensure!(got == expected, "worker {me} has clipped {got}, expected {expected}");
        let (got, expected) = (status.forgotten, self.forgotten);
        // A message of a tree that was encoded for a round that broke off has left no trace. Other messages are added
        // up round by round, which may round differently.
        let broken_off = may_break_off(scenario, status) && got < expected;
        let near = (got - expected).abs() <= 1e-12 * expected;
        ensure!(near || broken_off, "worker {me} has forgotten {got}, expected {expected}");
        ensure!((got > 0.0) <= (recipe.decay() < 1.0), "worker {me} has forgotten {got} with {recipe}");
        // A mesh without rounds multiplies contributions by lambda when they are measured.
        let lambda = match (recipe.merge(), recipe.topology()) {
            (Merge::Sum { lambda }, Topology::Mesh { .. }) => f64::from(lambda.of(cluster.workers)),
            _ => 1.0,
        };
        let limit = match recipe.correction().clip_norm {
            0.0 => f64::INFINITY,
            limit => f64::from((f64::from(limit) / f64::from(cluster.workers).sqrt()) as f32),
        };
        // The mean follows each norm by a quarter of the distance.
        let norms = self.norms.iter().map(|squares| squares.sqrt().min(limit) * lambda);
        let mean = norms.reduce(|mean, norm| mean + (norm - mean) / 4.0).unwrap_or(0.0);
        let expected = if mean > 0.0 { status.residual_norm / mean } else { 0.0 };
        let got = status.residual_updates;
        ensure!(
            (got - expected).abs() <= 1e-9 * expected,
            "worker {me} says that its residual is {got} updates, expected {expected}"
        );
        Ok(())
    }

    /// Each contribution that has arrived is in one counter.
    fn check_server(&self, scenario: &Scenario, status: &Status, exact: bool) -> Result<(), Failure> {
        let (me, counters) = (status.me, status.counters);
        let pushed = |(_, message): &(PeerId, Message)| match message {
            Message::Push(push) => Some((push.shard.0, push.worker.0, push.sequence.0)),
            _ => None,
        };
        let read: Vec<_> = self.read.iter().filter_map(pushed).collect();
        let distinct: BTreeSet<_> = read.iter().collect();
        ensure!(distinct.len() == read.len(), "server {me} has read a contribution twice");
        // Contributions that repeat the last one have no body to read.
        let taken = counters.applied + counters.dropped + counters.rejected - counters.repeated;
        ensure!(taken == read.len() as u64, "server {me} counts {taken} contributions, {} have arrived", read.len());
        let again = counters.duplicates + counters.late;
        // A push that only asks for parameters has no body that could be dropped.
        let recipe = &scenario.plan.recipe;
        let bodiless = recipe.fetch().is_some() || matches!(recipe.merge(), Merge::Elastic { .. }) || repeats(recipe);
        ensure!(
            again == self.dropped || ((!exact || bodiless) && again > self.dropped),
            "server {me} counts {again} duplicates and late contributions, expected {}",
            self.dropped
        );
        Ok(())
    }

    /// I-110: each contribution that has arrived is in one counter; with `pace=first`, bodies can be read and come too
    /// late.
    fn check_first(&self, status: &Status, exact: bool) -> Result<(), Failure> {
        let (me, counters) = (status.me, status.counters);
        let bodies = self.read.iter().filter(|(_, message)| matches!(message, Message::Push(_))).count() as u64;
        let arrived = bodies + self.dropped;
        let counted = counters.applied + counters.rejected + counters.late + counters.dropped + counters.duplicates;
        ensure!(
            counted == arrived || (!exact && counted > arrived),
            "server {me} counts {counted} contributions, {arrived} have arrived: {counters:?}"
        );
        ensure!(counters.deferred <= counters.applied + counters.empty, "server {me} counts {counters:?}");
        Ok(())
    }

    fn check_mesh(&self, scenario: &Scenario, status: &Status, exact: bool) -> Result<(), Failure> {
        let (me, counters) = (status.me, status.counters);
        let made: u64 = status.workers.iter().map(|worker| worker.clock.0).sum::<u64>() + status.clock.0;
        ensure!(status.updates == made, "node {me} holds {} of {made} updates", status.updates);
        let quanta = |(_, message): &(PeerId, Message)| match message {
            Message::Quanta(quanta) => Some(*quanta),
            _ => None,
        };
        let read = || self.read.iter().filter_map(quanta);
        let full = scenario.plan.recipe.topology() == Topology::Mesh { relay: 0 };
        // A relay passes on contributions that it already has in its ledger.
        if full && status.view == 1 {
            let count: u64 = read().map(|quanta| quanta.last.0 - quanta.first.0 + 1).sum();
            ensure!(counters.applied == count, "node {me} counts {} updates, expected {count}", counters.applied);
            ensure!(
                counters.duplicates == self.dropped || (!exact && counters.duplicates > self.dropped),
                "node {me} counts {} duplicates, expected {}",
                counters.duplicates,
                self.dropped
            );
        }
        Ok(())
    }
}

/// Can a round of a tree or ring have broken off at this node? Another view then begins it anew, or there is no other
/// view, because the coordinator is lost.
fn may_break_off(scenario: &Scenario, status: &Status) -> bool {
    let Plan { recipe, cluster, .. } = &scenario.plan;
    let host = PeerId(if cluster.servers > 0 { cluster.workers } else { 0 });
    has_chunks(recipe) && (status.view > 1 || scenario.crashing().contains(&host))
}

/// Trees and rings cut the vector into chunks.
fn has_chunks(recipe: &Recipe) -> bool {
    matches!(recipe.topology(), Topology::Auto | Topology::Tree { .. } | Topology::Ring)
}

/// Body of a message in bytes, with plain floats in place of an encoded one.
fn dense(scenario: &Scenario, header: &Header) -> u64 {
    let plan = &scenario.plan;
    let (len, recipe) = (plan.layout.len(), &plan.recipe);
    let shard = |shard: ShardId| match recipe.topology() {
        Topology::Servers { shards } => 4 * shard_range(len, shards, shard.0).len() as u64,
        _ => 0,
    };
    let chunk = |chunk: u32| {
        let floats = match recipe.topology() {
            // A chunk is a tensor. Empty ones are left out.
            _ if recipe.merge() == Merge::Adasum => {
                return 4 * plan.layout.tensors()[chunk as usize].range().len() as u64;
            }
            _ if has_chunks(recipe) => recipe.fitted(plan.cluster, len).chunk_len(len, plan.cluster.workers),
            _ => len,
        };
        4 * floats.min(len - floats * chunk as usize) as u64
    };
    match header.message() {
        Message::Push(push) => shard(push.shard),
        Message::Delta(reply) => shard(reply.shard),
        Message::Quanta(_) => 4 * len as u64,
        Message::Up(part) | Message::Down(part) if header.length() > 0 => chunk(part.chunk),
        _ => u64::from(header.length()),
    }
}

/// Rounds that have changed something are counted, each once.
fn check_rounds(scenario: &Scenario, status: &Status, truth: &Truth) -> Result<(), Failure> {
    let (me, counters, plan) = (status.me, status.counters, &scenario.plan);
    ensure!(counters.applied == counters.applications, "node {me} counts {counters:?}");
    if plan.cluster.is_worker(me) {
        let rounds = match (plan.recipe.adapt(), plan.recipe.period().span(0)) {
            (Adapt::None, Span::Steps(steps)) => plan.steps.div_ceil(u64::from(steps)),
            // The worker with the most of them.
            (Adapt::Speed | Adapt::Loss { .. }, _) | (_, Span::Time(_) | Span::Examples(_)) => {
                truth.rounds.iter().map(Vec::len).max().unwrap_or(0) as u64
            }
        };
        // A member that took the state of another did not apply the round itself.
        ensure!(
            counters.applied == rounds || (status.view > 1 && counters.applied < rounds),
            "node {me} counts {} rounds, expected {rounds}",
            counters.applied
        );
    }
    Ok(())
}

/// The staleness of each contribution: versions between the one that it was computed from and the one that it met.
fn check_staleness(scenario: &Scenario, status: &Status, truth: &Truth, pushes: &[Push]) -> Result<(), Failure> {
    let (plan, me) = (&scenario.plan, status.me);
    let Topology::Servers { shards } = plan.recipe.topology() else { return Ok(()) };
    let ordered = matches!(plan.recipe.pace(), Pace::Asynchronous { .. } | Pace::Stale { bound: 1.. });
    if !scenario.crashing().is_empty() || !ordered {
        return Ok(());
    }
    let (mut sum, mut max, mut versions) = (0, 0, 0);
    for shard in (0..shards).filter(|shard| plan.cluster.server_of(ShardId(*shard)) == me) {
        let mut reference = Reference::new(&plan.recipe, plan.cluster.workers, &[0.0]);
        for push in pushes.iter().filter(|push| push.shard.0 == shard && push.weight > 0) {
            let staleness = reference.version - push.base.0;
            (sum, max) = (sum + staleness, max.max(staleness));
            reference.push(&[0.0], push.weight, push.base.0);
        }
        reference.end();
        versions += reference.version;
    }
    let (got, most, applications) = (status.staleness.sum(), status.staleness.max(), status.counters.applications);
    ensure!(
        (got, most) == (sum, max),
        "server {me} counts a staleness of {got}, at most {most}; expected {sum} and {max}; {} workers",
        truth.contributed.len()
    );
    ensure!(applications == versions, "server {me} counts {applications} applications, expected {versions}");
    Ok(())
}

/// The norm of the residual, and the rest that a worker reports at its end.
fn check_residual(scenario: &Scenario, world: &World, status: &Status) -> Result<(), Failure> {
    let (plan, me) = (&scenario.plan, status.me);
    if plan.recipe.codec() == Codec::F32 || !plan.cluster.is_worker(me) {
        ensure!(
            status.residual_norm == 0.0 || plan.recipe.codec() != Codec::F32,
            "node {me} has a residual of {}",
            status.residual_norm
        );
        return Ok(());
    }
    ensure!(status.counters.non_finite == 0, "node {me} counts elements that are not finite");
    ensure!((0.0..=1.0).contains(&status.density), "node {me} has sent a share of {}", status.density);
    // In trees, the residual has two places, and each hop has its own.
    if world.life(me) != Life::Done || has_chunks(&plan.recipe) {
        return Ok(());
    }
    let residual = &world.saved_buffers(me)[0];
    let norm = residual.iter().map(|bits| f64::from(f32::from_bits(*bits)).powi(2)).sum::<f64>().sqrt();
    let near = |x: f64| (x - norm).abs() <= 1e-5 * norm + 1e-12;
    ensure!(near(status.residual_norm), "node {me} says that its residual is {}, it is {norm}", status.residual_norm);
    let told = world.log().iter().rev().find_map(|log| match log.entry {
        Entry::Event(Event::Rest(rest)) if log.node == me => Some(rest),
        _ => None,
    });
    if let (Some(rest), true) = (told, scenario.crashing().is_empty()) {
        ensure!(near(rest.kept), "node {me} has told that {} are left, {norm} are", rest.kept);
        ensure!(status.rest == Some(rest), "node {me} has told {rest:?}, and shows {:?}", status.rest);
    }
    Ok(())
}

/// A status shows the view that the node has announced last.
fn check_view(world: &World, status: &Status) -> Result<(), Failure> {
    let last = world.log().iter().rev().filter(|log| log.node == status.me).find_map(|log| match log.entry {
        Entry::Event(Event::View { number, members }) => Some((number, members)),
        _ => None,
    });
    let got = (status.view, status.members);
    ensure!(
        got == last.unwrap_or_default() || got == (0, 0),
        "node {} shows view {got:?}, expected {last:?}",
        status.me
    );
    Ok(())
}
