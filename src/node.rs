//! The settings of a node, and its start: checks, the engine, and the thread that drives it.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::sync::Arc;

use gradwire_core::kernel::executor::{Cpu, Executor};
use gradwire_core::recipe::Payload;
use gradwire_core::telemetry::Run;
use gradwire_core::{
    Clock, Cluster, Contract, ContractNote, Incarnation, Layout, Patience, PeerId, Recipe, Resumed, RunId, Setup,
    Transport,
};

use crate::check;
use crate::checkpoint;
use crate::checkpoint::{Candidates, NodeIdentity, NoticeCallback};
use crate::drive::{Drive, Driver, Turns};
use crate::engine::Engine;
use crate::error::Error;
use crate::monitor::Board;
use crate::observe::Observer;
use crate::publish::{self, Publication};
use crate::tape::TapePlan;
use crate::waits::{Canceller, Waits};
use crate::watch::EventCallback;

/// The settings of a node. The methods of [`Builder`](crate::Builder) document them.
#[derive(Clone, Debug)]
pub(crate) struct NodeSettings {
    pub(crate) layout: Layout,
    pub(crate) recipe: Recipe,
    pub(crate) cluster: Cluster,
    pub(crate) waits: Waits,
    pub(crate) canceller: Option<Canceller>,
    pub(crate) patience: Patience,
    pub(crate) quorum: u32,
    pub(crate) optimizer_vectors: u32,
    pub(crate) own_thread: bool,
    pub(crate) callback: EventCallback,
    /// The run, if this node has been given one.
    pub(crate) run: Option<RunId>,
    /// The name of a run that is new.
    pub(crate) job: Option<RunId>,
    /// Facts that the application adds to the contract.
    pub(crate) notes: Vec<ContractNote>,
    pub(crate) notices: NoticeCallback,
    pub(crate) tape: TapePlan,
    pub(crate) executor: ExecutorFactory,
    /// The board to publish to, and the display name of the machine.
    pub(crate) board: Option<(Board, String)>,
    /// Where this node publishes to monitors, if it has no board of the application's.
    pub(crate) publication: Option<Publication>,
}

/// Makes the executor of a node when the node starts.
#[derive(Clone)]
pub(crate) struct ExecutorFactory(pub(crate) Arc<dyn Fn() -> Box<dyn Executor> + Send + Sync>);

impl Default for ExecutorFactory {
    fn default() -> Self {
        Self(Arc::new(|| Box::new(Cpu)))
    }
}

impl fmt::Debug for ExecutorFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExecutorFactory")
    }
}

/// Whether a node goes on from a checkpoint.
#[derive(Debug)]
pub(crate) enum Resumes {
    /// It begins a new run, or comes to one without a checkpoint.
    No,
    /// It goes on from the moment that the nodes agree on. `None`: it has no checkpoint of any run.
    From(Option<Candidates>),
}

impl Resumes {
    fn moments(&self) -> Option<Vec<Resumed>> {
        let Self::From(candidates) = self else { return None };
        let moments = candidates.iter().flat_map(Candidates::moments);
        Some(moments.map(|(clock, made)| Resumed { at: Clock(clock), made }).collect())
    }

    fn into_candidates(self) -> Option<Candidates> {
        match self {
            Self::No => None,
            Self::From(candidates) => candidates,
        }
    }
}

/// The part of a node in a cluster. Its rank must fit: workers are `0..workers`, servers follow.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Worker,
    Server,
}

impl Role {
    fn of(rank: PeerId, cluster: Cluster) -> Self {
        if cluster.is_worker(rank) { Self::Worker } else { Self::Server }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Server => "server",
        }
    }
}

impl NodeSettings {
    pub(crate) fn new(layout: Layout, recipe: Recipe, cluster: Cluster) -> Self {
        Self {
            layout,
            recipe,
            cluster,
            waits: Waits::default(),
            canceller: None,
            patience: Patience::default(),
            quorum: 0,
            optimizer_vectors: 0,
            own_thread: true,
            callback: EventCallback::default(),
            run: None,
            job: None,
            notes: Vec::new(),
            notices: NoticeCallback::default(),
            tape: TapePlan::Off,
            executor: ExecutorFactory::default(),
            board: None,
            publication: None,
        }
    }

    fn contract(&self) -> Contract {
        Contract::with_notes(&self.layout, &self.recipe, self.cluster, self.optimizer_vectors, &self.notes)
    }

    /// The identity that a checkpoint of this rank has to match.
    pub(crate) fn identity(&self, rank: PeerId) -> NodeIdentity {
        NodeIdentity { digest: self.contract().lasting_digest(), rank }
    }

    /// The checkpoints of a rank below `directory`, with so many vectors of the layout. The node belongs to their
    /// run from now on.
    pub(crate) fn candidates(
        &mut self,
        directory: &Path,
        rank: PeerId,
        vectors: usize,
    ) -> Result<Option<Candidates>, Error> {
        let identity = self.identity(rank);
        // A job that was started again has a new name, and goes on with another job's run. But a process of a job that
        // has begun a run comes back to that run.
        let of_job = self.job.filter(|job| checkpoint::has_run(directory, *job));
        let run = self.run.or(of_job);
        let found = Candidates::find(directory, run, identity, vectors, self.layout.len(), &self.notices)?;
        self.run = run.or_else(|| found.as_ref().map(|found| found.run));
        Ok(found)
    }

    /// Checks the settings, and starts the engine of a node with the parameters `params`.
    pub(crate) fn start<T: Transport + 'static>(
        &self,
        mut transport: T,
        params: &[f32],
        state: &[&mut [f32]],
        role: Role,
        resumes: Resumes,
    ) -> Result<Drive, Error> {
        // Everything is checked before a thread starts and before peers see this node.
        let (me, nodes) = transport.place();
        self.check(me, nodes, role, params.len())?;
        check::finite("params", &self.layout, params)?;
        for vector in state {
            check::length("optimizer vector", self.layout.len(), vector.len())?;
            check::finite("optimizer vector", &self.layout, vector)?;
        }
        match (self.run, self.job) {
            (Some(run), _) => transport.set_run(run),
            (None, Some(job)) => transport.propose_run(job),
            (None, None) => {}
        }
        let mut setup = Setup {
            contract: self.contract(),
            run: self.run,
            // A restarted process needs a new incarnation. The bit excludes 0, which is not valid.
            incarnation: Incarnation(RandomState::new().build_hasher().finish() | 1),
            // Threads of one process never reconnect, and the transport knows that better than the builder.
            patience: transport
                .patience()
                .map_or(self.patience, Patience::new)
                .with_stall_at_most(self.waits.explained()),
            quorum: self.quorum,
            resume: resumes.moments(),
            on_demand: transport.connects_on_demand(),
            ..Setup::new(me, self.cluster, self.recipe, &self.layout, self.optimizer_vectors)
        };
        let tape = self.tape.open(&mut setup)?;
        let (orders, lengths) = std::mem::take(&mut setup.tape).split();
        setup.tape = orders;
        let incarnation = setup.incarnation;
        let published = match &self.publication {
            Some(publication) if self.board.is_none() => {
                Some((publication.open(me, nodes, self.description())?, publish::host()))
            }
            _ => None,
        };
        let observer = self.board.as_ref().or(published.as_ref());
        let observer = observer
            .map_or_else(Observer::inactive, |(board, host)| Observer::new(board.clone(), host, me, incarnation));
        let board = self.board.as_ref().or(published.as_ref()).map(|(board, _)| board.clone());
        // Before the engine takes the transport, and a thread takes the engine.
        let waker = transport.waker();
        transport.set_caller_driven(!self.own_thread);
        let executor = (self.executor.0)();
        let candidates = resumes.into_candidates();
        let mut engine = Engine::new(setup, transport, executor, params, candidates, self.callback.clone(), observer)?;
        let steps = engine.steps();
        if me.0 >= self.cluster.workers {
            steps.mark(|meter, now| meter.serves(now));
        }
        engine.set_tape(tape);
        engine.provide(state);
        let mailbox = engine.mailbox();
        let rings = waker.clone();
        let driver = if self.own_thread {
            // A server's calls only look at it.
            let turns = Arc::new(Turns::new(Box::new(engine), role == Role::Worker));
            let (own, mailbox) = (Arc::clone(&turns), Arc::clone(&mailbox));
            let thread = std::thread::Builder::new().name(format!("gradwire-{me}"));
            let spawned = thread.spawn(move || own.run(&mailbox)).map_err(|error| Error::Transport(Box::new(error)))?;
            Driver::Thread { thread: Some(spawned), turns, waker }
        } else {
            Driver::Caller(Box::new(engine))
        };
        let canceller = self.canceller.clone().unwrap_or_default();
        Ok(Drive::new(mailbox, driver, self.waits, canceller, rings).with_lengths(lengths).with_board(steps, board))
    }

    /// The description of the run for monitors.
    fn description(&self) -> Run {
        Run {
            recipe: self.recipe.fitted(self.cluster, self.layout.len()).to_string(),
            workers: self.cluster.workers,
            servers: self.cluster.servers,
            parameters: self.layout.len() as u64,
            name: self.run,
        }
    }

    /// Checks everything that does not depend on peers. Names all faults, since the remedy of one can show the next.
    fn check(&self, me: PeerId, nodes: u32, role: Role, params: usize) -> Result<(), Error> {
        self.layout.check()?;
        // A vector with a length that overflows is also too long for a message.
        let averaged = if self.recipe.payload() == Payload::Gradients { 0 } else { self.optimizer_vectors as usize };
        let len = self.layout.len().saturating_mul(1 + averaged);
        let mut errors: Vec<Error> = self.recipe.faults(self.cluster, len).into_iter().map(Error::Config).collect();
        if self.cluster.nodes() != nodes {
            errors.push(Error::Nodes { expected: self.cluster.nodes(), got: nodes });
        } else if Role::of(me, self.cluster) != role {
            let expected = Role::of(me, self.cluster).name();
            errors.push(Error::Role { rank: me, expected, got: role.name() });
        }
        errors.extend(check::length("params", self.layout.len(), params).err());
        errors.extend(check::averaged_vectors(&self.recipe, self.optimizer_vectors).err());
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Error::Several(errors)),
        }
    }
}
