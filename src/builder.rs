//! [`Builder`]: sets a node up, and has it enter the run as a worker or a server.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gradwire_core::kernel::executor::Executor;
use gradwire_core::{Cluster, ContractNote, Event, Layout, Patience, Recipe, RunId, Transport};

use crate::check;
use crate::checkpoint::{Notice, NoticeCallback};
use crate::error::Error;
use crate::exchange::Exchange;
use crate::monitor::Board;
use crate::node::{ExecutorFactory, NodeSettings, Resumes, Role};
use crate::owned::OwnedSession;
use crate::publish::Publication;
use crate::server::Server;
use crate::session::Session;
use crate::tape::TapePlan;
use crate::waits::Canceller;
use crate::watch::EventCallback;

/// The settings of a node before it enters the run.
///
/// [`Session::builder`] makes one. All nodes of a run need the same layout, recipe, cluster and number of optimizer
/// vectors; the other settings are each node's own. [`join`](Self::join) makes the node a worker,
/// [`serve`](Self::serve) a server; [`resume`](Self::resume) and [`resume_serving`](Self::resume_serving) do the same
/// from a checkpoint.
///
/// ```
/// use std::time::Duration;
///
/// use gradwire::{Cluster, Error, Event, Layout, Mem, Recipe, Session};
///
/// let builder = Session::builder(Layout::flat(4), Recipe::sync(), Cluster { workers: 1, servers: 0 })
///     .deadline(Duration::from_secs(10))
///     .on_event(|event| {
///         if let Event::PeerLost { peer } = event {
///             eprintln!("peer {peer} is lost");
///         }
///     });
/// let mut params = vec![0.0; 4];
/// let session = builder.clone().join(Mem::cluster(1).remove(0), &mut params)?;
/// session.finish(&mut params)?;
///
/// // Settings that do not fit together are refused when the node enters the run.
/// let error = builder.join(Mem::cluster(2).remove(0), &mut params).unwrap_err();
/// assert!(matches!(error, Error::Nodes { expected: 1, got: 2 }));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    settings: NodeSettings,
}

impl Session {
    /// A builder with the default settings, for a node of a run with this layout, recipe and cluster.
    pub fn builder(layout: Layout, recipe: Recipe, cluster: Cluster) -> Builder {
        Builder { settings: NodeSettings::new(layout, recipe, cluster) }
    }
}

impl Builder {
    /// The longest wait of a call, after which it fails with [`Error::Deadline`]. It applies to the kinds of waits that
    /// have no deadline of their own, see the next three settings. A silence that the awaited peer has
    /// [announced](Session::expect_silence) does not count. Default: 60 s.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.settings.waits.all = deadline;
        self
    }

    /// The longest wait to join, and of a server for its first worker. Default: [`deadline`](Self::deadline).
    #[must_use]
    pub fn join_deadline(mut self, deadline: Duration) -> Self {
        self.settings.waits.join = Some(deadline);
        self
    }

    /// The longest wait of a step, and of other calls during a run. Default: [`deadline`](Self::deadline).
    #[must_use]
    pub fn step_deadline(mut self, deadline: Duration) -> Self {
        self.settings.waits.step = Some(deadline);
        self
    }

    /// The longest wait to leave, finish or suspend, counted from the last round that is done. Default:
    /// [`deadline`](Self::deadline).
    #[must_use]
    pub fn leave_deadline(mut self, deadline: Duration) -> Self {
        self.settings.waits.leave = Some(deadline);
        self
    }

    /// The token that cancels the waits of this node, from the first one on. Default: a token of its own, see
    /// [`Session::canceller`].
    #[must_use]
    pub fn canceller(mut self, canceller: &Canceller) -> Self {
        self.settings.canceller = Some(canceller.clone());
        self
    }

    /// How long a peer may stay disconnected before the run goes on without it. Default: 5 s. A transport that knows
    /// its own value overrides it: [`Mem`](crate::Mem) uses 0, since threads of one process do not reconnect.
    #[must_use]
    pub fn dead_after(mut self, dead_after: Duration) -> Self {
        self.settings.patience = Patience::new(dead_after);
        self
    }

    /// The smallest number of workers that goes on after losses, in recipes of trees and rings. With fewer, the rest
    /// waits until lost workers are back. Workers that have left of their own count. Capped at the number of workers in
    /// the cluster. Default: at least half of the workers that went on together before. This is safe when a network
    /// splits: the half without rank 0, which hosts the coordinator, waits.
    #[must_use]
    pub fn min_workers(mut self, min: u32) -> Self {
        self.settings.quorum = min.max(1);
        self
    }

    /// How many vectors of optimizer state are averaged with the parameters, for recipes with `optimizer=average`; see
    /// [`Session::sync_with`]. With `payload=gradients`: how many reach a newcomer with the parameters; see
    /// [`Session::mean`]. Each is as long as the layout. Default: 0.
    #[must_use]
    pub fn optimizer_vectors(mut self, count: u32) -> Self {
        self.settings.optimizer_vectors = count;
        self
    }

    /// Writes a tape into `directory`, which is made if it does not exist: the file `rank-RANK.tape` with the decisions
    /// of this node that depend on when messages arrive. From the tapes of all nodes, a run without rounds
    /// (asynchronous, softsync, stale, a mesh) can be run again bit for bit; see [`follow_tape`](Self::follow_tape). In
    /// runs with rounds nothing depends on the time, and tapes stay empty. While a mesh records, a peer that cannot
    /// keep up holds up the other peers. If the file cannot be written, this node ends with [`Error::Tape`]. It also
    /// does with `pace=first`, because its rounds depend on the time itself. Default: no tape.
    ///
    /// ```
    /// use gradwire::{Builder, Cluster, Error, Layout, Mem, Recipe, Session};
    ///
    /// fn train(with: impl Fn(Builder) -> Builder) -> Result<Vec<f32>, Error> {
    ///     let cluster = Cluster { workers: 1, servers: 1 };
    ///     let builder = with(Session::builder(Layout::flat(2), Recipe::asynchronous(), cluster));
    ///     let mut ends = Mem::cluster(2);
    ///     let _server = builder.clone().serve(ends.remove(1), &[0.0; 2])?;
    ///     let mut params = vec![0.0; 2];
    ///     let mut session = builder.join(ends.remove(0), &mut params)?;
    ///     session.step(&mut params, &[0.1, 0.2], 1)?;
    ///     session.finish(&mut params)?;
    ///     Ok(params)
    /// }
    ///
    /// # let directory = std::env::temp_dir().join(format!("gradwire-doc-tape-{}", std::process::id()));
    /// let recorded = train(|builder| builder.record_tape(&directory))?;
    /// let again = train(|builder| builder.follow_tape(&directory))?;
    /// assert_eq!(recorded, again);
    /// # std::fs::remove_dir_all(directory)?;
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn record_tape(mut self, directory: impl Into<PathBuf>) -> Self {
        self.settings.tape = TapePlan::Record(directory.into());
        self
    }

    /// Makes the decisions of the tape in `directory`, in its order. All nodes of the run have to follow their tapes,
    /// and all applications have to repeat the recorded run: the same seeds, steps and learning rates. Speeds and
    /// networks may differ. Decisions of the application must not follow from [`Session::status`], which depends on the
    /// time of the call; [`Session::joined_at`] does not. The tape of a process that was killed has no end: after its
    /// last decision, the run goes on as without a tape. If the recorded run ended, the final parameters of both runs
    /// are compared, and the last call fails with [`Error::Tape`] if they differ.
    ///
    /// A run in which a worker was lost or came again, or a connection broke during an answer, cannot be run again: its
    /// tape is refused. A resumed run is run again from the same checkpoints.
    #[must_use]
    pub fn follow_tape(mut self, directory: impl Into<PathBuf>) -> Self {
        self.settings.tape = TapePlan::Follow(directory.into());
        self
    }

    /// Calls `callback` for each event as it happens, also while a step waits. The callback runs on the thread that
    /// drives the machine and delays it, so it should return quickly. It can be the session's own thread, or that of a
    /// call.
    ///
    /// ```
    /// use std::sync::mpsc::channel;
    ///
    /// use gradwire::{Cluster, Event, Layout, Mem, Recipe, Session};
    ///
    /// let (sender, events) = channel();
    /// let session = Session::builder(Layout::flat(1), Recipe::sync(), Cluster { workers: 1, servers: 0 })
    ///     .on_event(move |event| drop(sender.send(event)))
    ///     .join(Mem::cluster(1).remove(0), &mut [0.0])?;
    /// session.finish(&mut [0.0])?;
    /// for event in events {
    ///     match event {
    ///         Event::PeerLost { peer } => println!("go on without peer {peer}"),
    ///         event => println!("{event}"), // a sentence
    ///     }
    /// }
    /// # Ok::<(), gradwire::Error>(())
    /// ```
    #[must_use]
    pub fn on_event(mut self, callback: impl Fn(Event) + Send + Sync + 'static) -> Self {
        self.settings.callback = EventCallback::new(callback);
        self
    }

    /// The run that this node belongs to. Nodes of different runs refuse each other, and each run has a directory of
    /// its own for checkpoints. Default: the run of the checkpoint that the node resumes from; else that of its peers;
    /// in a new run that has not been named, a random name.
    #[must_use]
    pub fn run(mut self, run: RunId) -> Self {
        self.settings.run = Some(run);
        self
    }

    /// The name for a new run, for instance the name of the launcher's job. Unlike with [`run`](Self::run), a node that
    /// resumes goes on with the run that was written last, if the job has written no checkpoint. A node that has
    /// nothing to resume from adopts the run of its peers.
    #[must_use]
    pub fn job(mut self, job: RunId) -> Self {
        self.settings.job = Some(job);
        self
    }

    /// Adds a fact to the contract on which all nodes must agree, such as the seed, a digest of the data, the batch
    /// size or the learning rate. Nodes with different facts refuse each other, and name the fact. A checkpoint can be
    /// resumed with other facts than it was written with. All nodes add the same keys in the same order.
    #[must_use]
    pub fn note(mut self, key: &str, value: impl Display) -> Self {
        self.settings.notes.push(ContractNote { key: key.to_string(), value: value.to_string() });
        self
    }

    /// Calls `callback` for each [`Notice`] about checkpoints, on the thread that reads or writes them. Default:
    /// notices are dropped.
    #[must_use]
    pub fn on_checkpoint_notice(mut self, callback: impl Fn(&Notice) + Send + Sync + 'static) -> Self {
        self.settings.notices = NoticeCallback::new(callback);
        self
    }

    /// Drives the machine on the caller's thread only, during calls to the session and in [`Session::pump`]. Without this,
    /// the session has a thread of its own as well, which drives the machine while the application computes.
    #[must_use]
    pub fn caller_driven(mut self) -> Self {
        self.settings.own_thread = false;
        self
    }

    /// Runs this node's arithmetic on the executor that `make` returns, for instance a GPU. `make` is called when the
    /// node enters the run. Default: [`device::Cpu`](crate::device::Cpu), on the thread that drives the machine.
    #[must_use]
    pub fn executor(mut self, make: impl Fn() -> Box<dyn Executor> + Send + Sync + 'static) -> Self {
        self.settings.executor = ExecutorFactory(Arc::new(make));
        self
    }

    /// Publishes this node's status to `board` ten times a second, and its events as they happen. `host` is the display
    /// name of the machine. Each report allocates, on the thread that drives the machine.
    #[must_use]
    pub fn publish_to(mut self, board: Board, host: &str) -> Self {
        self.settings.board = Some((board, host.to_string()));
        self
    }

    /// Shows the run to monitors such as `dtop` at `address`, `HOST:PORT` of the machine of rank 0. All processes set the
    /// same address: rank 0 serves monitors there, and at the next port takes the reports of the other processes. Beyond
    /// loopback, a key is needed, which all processes and monitors share. [`publish_to`](Self::publish_to) comes first,
    /// and gives more choice. The node fails to enter the run with [`Error::Monitor`] if the address cannot be used.
    ///
    /// ```
    /// use gradwire::{Cluster, Layout, Mem, Recipe, Session};
    ///
    /// let cluster = Cluster { workers: 1, servers: 0 };
    /// let builder = Session::builder(Layout::flat(1), Recipe::sync(), cluster).monitor("127.0.0.1:29771", None);
    /// let mut params = [0.0];
    /// let session = builder.join(Mem::cluster(1).remove(0), &mut params)?; // now: dtop 127.0.0.1:29771
    /// session.finish(&mut params)?;
    /// # Ok::<(), gradwire::Error>(())
    /// ```
    #[must_use]
    pub fn monitor(mut self, address: &str, key: Option<[u8; 32]>) -> Self {
        self.settings.publication = Some(Publication { address: address.to_string(), key });
        self
    }

    /// Joins the run as a worker, at the transport's rank. Waits until `params` holds the parameters from which all
    /// workers start: the servers' parameters, or without servers rank 0's parameters.
    ///
    /// # Errors
    /// If recipe, cluster and transport do not fit together; if `params` has another length than the layout, or an
    /// element that is not finite; if a peer runs another contract; if a node is still missing at the deadline.
    pub fn join<T: Transport + 'static>(self, transport: T, params: &mut [f32]) -> Result<Session, Error> {
        self.join_with(transport, params, &mut [])
    }

    /// As [`join`](Self::join), with the optimizer vectors that a recipe with `payload=gradients` carries: `state` then
    /// receives the run's vectors as well. For other recipes, `state` is left as it is.
    ///
    /// # Errors
    /// As for [`join`](Self::join). Also if a recipe with `payload=gradients` gets another number of vectors than
    /// [`optimizer_vectors`](Self::optimizer_vectors) has set.
    pub fn join_with<T: Transport + 'static>(
        mut self,
        transport: T,
        params: &mut [f32],
        state: &mut [&mut [f32]],
    ) -> Result<Session, Error> {
        // Nothing else can give this node a run.
        self.settings.run = self.settings.run.or(self.settings.job);
        self.enter(transport, params, state, Resumes::No)
    }

    /// Joins the run as a worker that goes on from an intact checkpoint of its rank and [run](Self::run) below
    /// `directory`. Fills `params` and the optimizer vectors in `state` from it, and restores residuals.
    /// [`Session::steps`] returns the number of steps before the checkpoint.
    ///
    /// All nodes resume. They wait for each other, and go on from the newest moment of which all nodes have a
    /// checkpoint. If there is no such moment, they take the moment of which most nodes have a checkpoint. A node
    /// without a checkpoint of that moment takes the parameters of its peers. If no node has a checkpoint, a new run
    /// begins, as with [`join`](Self::join). A worker that comes later, to a run that is under way, takes the other
    /// workers' parameters. A node that does not go on from a checkpoint of its own has no residual, and leaves `state`
    /// as it is.
    ///
    /// If no run was named, the run that was written last is taken, and [`Notice::RunChosen`] names the other runs.
    ///
    /// # Errors
    /// As for [`join`](Self::join). Also if a checkpoint does not fit this node.
    pub fn resume<T: Transport + 'static>(
        mut self,
        directory: &Path,
        transport: T,
        params: &mut [f32],
        state: &mut [&mut [f32]],
    ) -> Result<Session, Error> {
        let (rank, _) = transport.place();
        for vector in &*state {
            check::length("resume", self.settings.layout.len(), vector.len())?;
        }
        let candidates = self.settings.candidates(directory, rank, 1 + state.len())?;
        self.enter(transport, params, state, Resumes::From(candidates))
    }

    /// As [`join`](Self::join), as a session that [owns its vectors](OwnedSession). `initial` are the parameters to start
    /// from, if this worker is the one to have them; it can be dropped.
    ///
    /// # Errors
    /// As for [`join`](Self::join). Also if the recipe is one of those that [`OwnedSession`] lists as refused.
    pub fn join_owned<T: Transport + 'static>(mut self, transport: T, initial: &[f32]) -> Result<OwnedSession, Error> {
        self.settings.run = self.settings.run.or(self.settings.job);
        self.enter_owned(transport, initial, Resumes::No)
    }

    /// As [`resume`](Self::resume), as a session that [owns its vectors](OwnedSession). Optimizer vectors are not
    /// restored.
    ///
    /// # Errors
    /// As for [`resume`](Self::resume) and [`join_owned`](Self::join_owned).
    pub fn resume_owned<T: Transport + 'static>(
        mut self,
        directory: &Path,
        transport: T,
        initial: &[f32],
    ) -> Result<OwnedSession, Error> {
        let (rank, _) = transport.place();
        let candidates = self.settings.candidates(directory, rank, 1)?;
        self.enter_owned(transport, initial, Resumes::From(candidates))
    }

    fn enter_owned<T: Transport + 'static>(
        self,
        transport: T,
        initial: &[f32],
        resumes: Resumes,
    ) -> Result<OwnedSession, Error> {
        let (rank, _) = transport.place();
        OwnedSession::check(&self.settings.recipe, self.settings.cluster.workers)?;
        let identity = self.settings.identity(rank);
        let drive = self.settings.start(transport, initial, &[], Role::Worker, resumes)?;
        let NodeSettings { layout, recipe, cluster, optimizer_vectors, notices, callback, .. } = self.settings;
        let exchange = Exchange::new(layout, recipe, cluster.workers, optimizer_vectors, drive);
        OwnedSession::enter(exchange, identity, notices, callback)
    }

    fn enter<T: Transport + 'static>(
        self,
        transport: T,
        params: &mut [f32],
        state: &mut [&mut [f32]],
        resumes: Resumes,
    ) -> Result<Session, Error> {
        let (rank, _) = transport.place();
        check::carried_vectors(&self.settings.recipe, self.settings.optimizer_vectors, state.len())?;
        let identity = self.settings.identity(rank);
        let drive = self.settings.start(transport, params, state, Role::Worker, resumes)?;
        let NodeSettings { layout, recipe, cluster, optimizer_vectors, notices, callback, .. } = self.settings;
        let exchange = Exchange::new(layout, recipe, cluster.workers, optimizer_vectors, drive);
        Session::enter(exchange, identity, params, state, notices, callback)
    }

    /// Enters the run as a server, at the transport's rank. `params` are the parameters from which the run starts.
    /// Returns at once; [`Server::wait`] waits for the end of the run.
    ///
    /// # Errors
    /// If recipe, cluster and transport do not fit together; if `params` has another length than the layout, or an
    /// element that is not finite.
    pub fn serve<T: Transport + 'static>(mut self, transport: T, params: &[f32]) -> Result<Server, Error> {
        self.settings.run = self.settings.run.or(self.settings.job);
        self.serve_from(transport, params, Resumes::No)
    }

    /// Enters the run as a server that goes on from the newest intact checkpoint of its rank below `directory`; see
    /// [`resume`](Self::resume). Without one, the run starts from `params`, as with [`serve`](Self::serve).
    ///
    /// # Errors
    /// As for [`serve`](Self::serve). Also if a checkpoint does not fit this node.
    pub fn resume_serving<T: Transport + 'static>(
        mut self,
        directory: &Path,
        transport: T,
        params: &[f32],
    ) -> Result<Server, Error> {
        let (rank, _) = transport.place();
        let candidates = self.settings.candidates(directory, rank, 1)?;
        self.serve_from(transport, params, Resumes::From(candidates))
    }

    fn serve_from<T: Transport + 'static>(
        self,
        transport: T,
        params: &[f32],
        resumes: Resumes,
    ) -> Result<Server, Error> {
        let (rank, _) = transport.place();
        let settings = &self.settings;
        let drive = settings.start(transport, params, &[], Role::Server, resumes)?;
        let ranges = Server::ranges(&settings.recipe, settings.cluster, rank, settings.layout.len());
        let (identity, notices) = (settings.identity(rank), settings.notices.clone());
        Ok(Server::new(drive, ranges, settings.layout.len(), identity, notices))
    }
}
