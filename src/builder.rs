//! Setting a session up.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gradwire_core::kernel::executor::{Cpu, Executor};
use gradwire_core::{
    Clock, Cluster, Contract, Event, Incarnation, Layout, Local, Patience, PeerId, Recipe, Resumed, Setup, Transport,
};

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::desk::{Answer, Desk};
use crate::engine::{Engine, Pump};
use crate::error::Error;
use crate::monitor::Board;
use crate::server::{Mark, Server};
use crate::session::{Drive, Session, check_finite};

/// What a node needs to know before it takes part. Made by [`Session::builder`]; ended by [`join`](Self::join) for a
/// worker, by [`serve`](Self::serve) for a server.
#[derive(Clone, Debug)]
pub struct Builder {
    layout: Layout,
    recipe: Recipe,
    cluster: Cluster,
    deadline: Duration,
    patience: Patience,
    quorum: u32,
    optimizer_vectors: u32,
    own_thread: bool,
    watcher: Watcher,
    executor: Make,
    board: Option<Board>,
    host: String,
}

/// Makes an executor for a node.
#[derive(Clone)]
struct Make(Arc<dyn Fn() -> Box<dyn Executor> + Send + Sync>);

impl Default for Make {
    fn default() -> Self {
        Self(Arc::new(|| Box::new(Cpu)))
    }
}

impl fmt::Debug for Make {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Make")
    }
}

/// What a node goes on from, and where it was found.
struct Origin {
    checkpoint: Checkpoint,
    path: PathBuf,
}

/// Whom to tell what happens.
#[derive(Clone, Default)]
pub(crate) struct Watcher(Option<Arc<dyn Fn(Event) + Send + Sync>>);

impl Watcher {
    pub(crate) fn tell(&self, event: Event) {
        if let Some(watcher) = &self.0 {
            watcher(event);
        }
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watcher({})", self.0.is_some())
    }
}

impl Builder {
    pub(crate) fn new(layout: Layout, recipe: Recipe, cluster: Cluster) -> Self {
        Self {
            layout,
            recipe,
            cluster,
            deadline: Duration::from_secs(60),
            patience: Patience::default(),
            quorum: 1,
            optimizer_vectors: 0,
            own_thread: true,
            watcher: Watcher::default(),
            executor: Make::default(),
            board: None,
            host: String::new(),
        }
    }

    /// How long any call may wait before it fails with the name of whom it waits for. 60 s unless set.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// How long a peer may stay disconnected before the run goes on without it. 5 s unless set or the transport
    /// knows better.
    #[must_use]
    pub fn dead_after(self, dead_after: Duration) -> Self {
        Self { patience: Patience::new(dead_after), ..self }
    }

    /// Fewest workers that go on without the others, in recipes whose workers agree on views (trees and rings): with
    /// fewer, the rest waits until some come back. 1 unless set; more than there are is as many as there are.
    #[must_use]
    pub fn min_workers(self, min: u32) -> Self {
        Self { quorum: min.max(1), ..self }
    }

    /// How many vectors of optimizer state, each as long as the layout, are averaged along with the parameters
    /// (`optimizer=average`); see [`Session::sync_with`].
    #[must_use]
    pub fn optimizer_vectors(self, count: u32) -> Self {
        Self { optimizer_vectors: count, ..self }
    }

    /// Calls `watcher` whenever something happens, also while a step waits: stalls, peers that come and go, views. It is
    /// called on the thread that drives the session, and must not take long.
    #[must_use]
    pub fn watch(self, watcher: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self { watcher: Watcher(Some(Arc::new(watcher))), ..self }
    }

    /// Drives the session on the caller's thread only, in its calls and in [`Session::pump`], instead of on a thread
    /// of its own.
    #[must_use]
    pub fn caller_driven(self) -> Self {
        Self { own_thread: false, ..self }
    }

    /// Who carries out the arithmetic of this node, for instance a device; `make` is called when the node enters. The
    /// processor it enters on, unless set.
    #[must_use]
    pub fn executor(self, make: impl Fn() -> Box<dyn Executor> + Send + Sync + 'static) -> Self {
        Self { executor: Make(Arc::new(make)), ..self }
    }

    /// Says how this node is on a board, ten times a second, for monitors to watch (which allocates, unlike a step); `host` is what people call the place where it
    /// runs.
    #[must_use]
    pub fn monitor(self, board: Board, host: &str) -> Self {
        Self { board: Some(board), host: host.to_string(), ..self }
    }

    /// Takes part as a worker, at the rank of the transport. Waits until `params` holds the parameters that everyone
    /// starts from: those of the servers, or without servers those of rank 0.
    ///
    /// # Errors
    /// When recipe, cluster and transport do not go together, `params` is not of the layout's length or not finite,
    /// a peer runs something else, or not all have come by the deadline.
    pub fn join<T: Transport + 'static>(self, transport: T, params: &mut [f32]) -> Result<Session, Error> {
        self.enter(transport, params, None)
    }

    /// Takes part as a worker, going on from the newest whole checkpoint of this rank below `directory`: `params` and the
    /// optimizer vectors `state` are as they were, and [`Session::steps`] says after how many steps. So are residuals,
    /// in recipes that have them. Everyone resumes, from the same moment.
    ///
    /// A worker that is started anew in a run that was resumed may do so as well, where there are no rounds: it takes the
    /// others' parameters then, its residual is dropped, and [`Session::is_outdated`] says so.
    ///
    /// # Errors
    /// As for [`join`](Self::join); and when there is no checkpoint that fits, or the others go on from another moment.
    pub fn resume<T: Transport + 'static>(
        self,
        directory: &Path,
        transport: T,
        params: &mut [f32],
        state: &mut [&mut [f32]],
    ) -> Result<Session, Error> {
        let (rank, _) = transport.place();
        let origin = self.origin(directory, rank, 1 + state.len())?;
        let into = std::iter::once(&mut *params).chain(state.iter_mut().map(|vector| &mut **vector));
        for (into, vector) in into.zip(&origin.checkpoint.vectors) {
            if into.len() != vector.len() {
                return Err(Error::Length { what: "resume", expected: vector.len(), got: into.len() });
            }
            into.copy_from_slice(vector);
        }
        self.enter(transport, params, Some(&origin))
    }

    /// The newest checkpoint of a rank, which must be of this run and have so many vectors.
    fn origin(&self, directory: &Path, rank: PeerId, vectors: usize) -> Result<Origin, Error> {
        let (checkpoint, _) = Checkpoint::newest(directory, rank.0)?;
        let path = directory.join(format!("rank-{rank}"));
        let (expected, got) = (self.contract().digest(), checkpoint.digest);
        if expected != got {
            return Err(CheckpointError::Contract { path, expected, got }.into());
        }
        if checkpoint.rank != rank.0 {
            return Err(CheckpointError::Rank { path, expected: rank.0, got: checkpoint.rank }.into());
        }
        let (expected, got) = (vectors, checkpoint.vectors.len());
        if expected != got || checkpoint.vectors.iter().any(|vector| vector.len() != self.layout.len()) {
            return Err(CheckpointError::Vectors { path, expected, got }.into());
        }
        Ok(Origin { checkpoint, path })
    }

    fn contract(&self) -> Contract {
        Contract::new(&self.layout, &self.recipe, self.cluster, self.optimizer_vectors)
    }

    fn enter<T: Transport + 'static>(
        self,
        transport: T,
        params: &mut [f32],
        from: Option<&Origin>,
    ) -> Result<Session, Error> {
        let (rank, _) = transport.place();
        let digest = self.contract().digest();
        let (desk, drive) = self.start(transport, params, true, from)?;
        let mut session = Session {
            layout: self.layout,
            recipe: self.recipe,
            local: Local::new(self.recipe),
            desk,
            drive,
            deadline: self.deadline,
            optimizer_vectors: self.optimizer_vectors,
            spare: None,
            steps: from.map_or(0, |from| from.checkpoint.steps),
            clock: 0,
            suspensions: 0,
            made: from.map_or(0, |from| from.checkpoint.made),
            outdated: false,
            rank,
            digest,
            over: false,
        };
        let Answer::Joined { clock, view, spare, outdated } = session.answer("join")? else {
            unreachable!("a machine joins before anything else")
        };
        (session.clock, session.outdated) = (clock, outdated);
        if let Some(Origin { checkpoint, .. }) = from {
            let (expected, got) = (clock, checkpoint.clock);
            if !session.recipe.is_collective() {
                session.suspensions = checkpoint.clock;
            } else if expected != got {
                return Err(CheckpointError::Moment { expected, got }.into());
            }
            session.local.resume(checkpoint.steps);
        }
        session.local.start(params, view.floats());
        session.spare = Some(spare);
        Ok(session)
    }

    /// Takes part as a server, at the rank of the transport, starting from `params`. Returns at once;
    /// [`Server::wait`] waits for the end.
    ///
    /// # Errors
    /// As for [`join`](Self::join), but does not wait for anyone.
    pub fn serve<T: Transport + 'static>(self, transport: T, params: &[f32]) -> Result<Server, Error> {
        self.serve_from(transport, params, None)
    }

    /// Takes part as a server, going on from the newest whole checkpoint of this rank below `directory`; see
    /// [`resume`](Self::resume).
    ///
    /// # Errors
    /// As for [`serve`](Self::serve), and when there is no checkpoint that fits.
    pub fn resume_serving<T: Transport + 'static>(self, directory: &Path, transport: T) -> Result<Server, Error> {
        let (rank, _) = transport.place();
        let origin = self.origin(directory, rank, 1)?;
        self.serve_from(transport, &origin.checkpoint.vectors[0], Some(&origin))
    }

    fn serve_from<T: Transport + 'static>(
        self,
        transport: T,
        params: &[f32],
        from: Option<&Origin>,
    ) -> Result<Server, Error> {
        let (rank, _) = transport.place();
        let (desk, drive) = self.start(transport, params, false, from)?;
        let ranges = Server::ranges(&self.recipe, self.cluster, rank, self.layout.len());
        let mark =
            Mark { digest: self.contract().digest(), rank, suspensions: from.map_or(0, |from| from.checkpoint.clock) };
        Ok(Server::new(desk, drive, ranges, self.layout.len(), self.deadline, mark))
    }

    fn start<T: Transport + 'static>(
        &self,
        transport: T,
        params: &[f32],
        worker: bool,
        from: Option<&Origin>,
    ) -> Result<(Arc<Desk>, Drive), Error> {
        let (me, nodes) = transport.place();
        let len = self.layout.len() * (1 + self.optimizer_vectors as usize);
        self.recipe.check_cluster(self.cluster, len)?;
        let (expected, got) = (self.cluster.nodes(), nodes);
        if expected != got {
            return Err(Error::Nodes { expected, got });
        }
        self.check_role(me, worker)?;
        check_vectors(&self.recipe, self.optimizer_vectors)?;
        if params.len() != self.layout.len() {
            return Err(Error::Length { what: "params", expected: self.layout.len(), got: params.len() });
        }
        check_finite("params", &self.layout, params)?;
        let patience = transport.patience().map_or(self.patience, Patience::new);
        let resumed =
            from.map(|Origin { checkpoint, .. }| Resumed { at: Clock(checkpoint.clock), made: checkpoint.made });
        let setup = Setup {
            incarnation: Incarnation(RandomState::new().build_hasher().finish() | 1),
            patience,
            quorum: self.quorum,
            resumed,
            ..Setup::new(me, self.cluster, self.recipe, &self.layout, self.optimizer_vectors)
        };
        // Averaged vectors lie behind the parameters.
        let averaged = from.map_or(&[][..], |from| &from.checkpoint.vectors[1..]);
        let averaged = averaged.iter().take(self.optimizer_vectors as usize);
        let initial: Vec<f32> = params.iter().chain(averaged.flatten()).copied().collect();
        let desk = Arc::new(Desk::new());
        let waker = transport.waker();
        let executor = (self.executor.0)();
        let mut engine = Engine::new(setup, transport, executor, &initial, Arc::clone(&desk), self.watcher.clone())?;
        if let Some(board) = &self.board {
            engine.observe(board.clone(), &self.host);
        }
        if let Some(Origin { checkpoint, path }) = from {
            engine.restore(&checkpoint.kept, path)?;
        }
        if !self.own_thread {
            return Ok((desk, Drive::Caller(Box::new(engine))));
        }
        let name = format!("gradwire-{me}");
        let thread = std::thread::Builder::new().name(name).spawn(move || engine.run());
        let thread = thread.map_err(|error| Error::Transport(Box::new(error)))?;
        Ok((desk, Drive::Thread { thread: Some(thread), waker }))
    }

    fn check_role(&self, rank: PeerId, worker: bool) -> Result<(), Error> {
        let role = |worker| if worker { "worker" } else { "server" };
        if self.cluster.is_worker(rank) == worker {
            return Ok(());
        }
        Err(Error::Role { rank, expected: role(!worker), got: role(worker) })
    }
}

/// Optimizer vectors travel exactly when the recipe averages them.
fn check_vectors(recipe: &Recipe, count: u32) -> Result<(), Error> {
    use gradwire_core::recipe::OptimizerState;
    if (recipe.optimizer() == OptimizerState::Average) == (count > 0) {
        return Ok(());
    }
    Err(Error::OptimizerVectors { expected: u32::from(count == 0), got: count })
}
