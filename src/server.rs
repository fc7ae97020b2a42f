//! [`Server`]: a node that holds shards of the parameters.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use gradwire_core::recipe::Topology;
use gradwire_core::status::{Presence, WorkerStatus};
use gradwire_core::{Cluster, Event, PeerId, Recipe, ShardId, Status, shard_range};

use crate::check;
use crate::checkpoint::{Checkpoint, NodeIdentity, NoticeCallback, Store};
use crate::drive::{Drive, RunState};
use crate::error::Error;
use crate::mailbox::{Answers, Ended};
use crate::session::now_millis;
use crate::waits::{Wait, WaitKind};

/// A parameter server's part in a run: it holds shards of the parameters until all workers have left or are lost.
///
/// [`Builder::serve`](crate::Builder::serve) makes one, at a rank from `workers` on. A cluster with a tree or ring may
/// have a single server, which then hosts the coordinator and holds no parameters. Dropping a server ends its part at
/// once, and its workers cannot go on; see also [`end_without`](Self::end_without).
///
/// # Memory
///
/// A server of one shard has the parameters, a contribution, and the vector that a synchronous round is gathered in: 3
/// vectors of the shard's length. Without rounds, it has a second version of the parameters instead. `softsync` has both,
/// so 4. A contribution that comes while another is coming, and a version that is still being sent to a slow worker, have
/// memory meanwhile: up to 4 of each, so that slow workers hold up no other. A server with several shards has the whole
/// vector once more, for the ends of the run. A server with one of several shards has a vector of the whole length for
/// the application, and the rest by the length of its shard.
///
/// What a rule needs beyond that is in addition: `pace=first` a contribution of each worker (two with `late=next`),
/// rules that merge a round together the contributions of the round, `pull=` and delay compensation the parameters as
/// each worker has them, outer optimizers their state.
///
/// ```
/// use std::time::Duration;
///
/// use gradwire::{Cluster, Layout, Mem, Recipe, RunState, Session};
///
/// let cluster = Cluster { workers: 1, servers: 1 };
/// let builder = Session::builder(Layout::flat(2), Recipe::asynchronous(), cluster);
/// let mut endpoints = Mem::cluster(cluster.nodes());
/// let mut server = builder.clone().serve(endpoints.remove(1), &[1.0, 2.0])?;
///
/// let mut params = vec![0.0; 2]; // replaced by the server's parameters
/// let mut session = builder.join(endpoints.remove(0), &mut params)?;
/// session.step(&mut params, &[0.5, 0.5], 8)?;
/// session.finish(&mut params)?;
///
/// let mut last = vec![0.0; 2];
/// while server.wait(&mut last, Duration::from_millis(100))? == RunState::Running {}
/// assert_eq!(last, [0.5, 1.5]);
/// # Ok::<(), gradwire::Error>(())
/// ```
#[derive(Debug)]
pub struct Server {
    drive: Drive,
    ranges: Vec<Range<usize>>,
    len: usize,
    identity: NodeIdentity,
    notices: NoticeCallback,
    /// The wait for a worker while no worker is there: before the first has come, or after the last was lost.
    meeting: Option<Wait>,
    /// The engine's last answer, once the run is over.
    ended: Option<Ended>,
}

impl Server {
    pub(crate) fn new(
        drive: Drive,
        ranges: Vec<Range<usize>>,
        len: usize,
        identity: NodeIdentity,
        notices: NoticeCallback,
    ) -> Self {
        Self { drive, ranges, len, identity, notices, meeting: None, ended: None }
    }

    /// The ranges of the flat parameter vector, in elements, that the server of this rank holds. `len` is the length of
    /// the vector. Empty for workers and for recipes without servers.
    pub fn ranges(recipe: &Recipe, cluster: Cluster, rank: PeerId, len: usize) -> Vec<Range<usize>> {
        let Topology::Servers { shards } = recipe.topology() else { return Vec::new() };
        let here = (0..shards).filter(|shard| cluster.servers > 0 && cluster.server_of(ShardId(*shard)) == rank);
        here.map(|shard| shard_range(len, shards, shard)).collect()
    }

    /// A snapshot of this node's status; the last one, once the run is over. Allocates.
    ///
    /// # Errors
    /// If the server has failed, or does not answer by the deadline.
    pub fn status(&mut self) -> Result<Status, Error> {
        if self.ended.is_none() {
            self.drive.request_status();
            // The run can end before the engine sees the request: then its last answer has the status.
            let find = |answers: &mut Answers| answers.take::<Status>().map(Ok).or_else(|| answers.take().map(Err));
            let limit = self.drive.waits().limit(WaitKind::Step);
            match self.drive.wait(&mut Wait::new("read the status", WaitKind::Step, limit), find)? {
                Ok(status) => return Ok(status),
                Err(ended) => self.ended = Some(ended),
            }
        }
        self.ended.as_ref().map(|ended| ended.status.clone()).ok_or(Error::Ended)
    }

    /// The events since the last call. At most the newest 256 are held.
    pub fn events(&mut self) -> Vec<Event> {
        self.drive.events()
    }

    /// Waits at most `limit` for the end of the run: all workers have left or are lost. At the end, copies the final
    /// parameters of this server's [`ranges`](Self::ranges) into `params`, and leaves its other elements as they are.
    ///
    /// # Errors
    /// If `params` has another length than the layout, there has been no worker for the
    /// [deadline to join](crate::Builder::join_deadline), a [`Canceller`](crate::Canceller) has ended the wait, or the
    /// server has failed.
    pub fn wait(&mut self, params: &mut [f32], limit: Duration) -> Result<RunState, Error> {
        check::length("params", self.len, params.len())?;
        if self.ended.is_none() {
            let mut wait = Wait::new("see the end of the run", WaitKind::Leave, limit);
            match self.drive.wait(&mut wait, Answers::take) {
                Ok(ended) => {
                    self.ended = Some(ended);
                    self.drive.farewell();
                }
                // Not a failure here: `limit` is the caller's polling interval.
                Err(Error::Deadline(_)) => {
                    self.meet()?;
                    if self.ended.is_none() {
                        return Ok(RunState::Running);
                    }
                }
                Err(error) => return Err(self.drive.end_with(error)),
            }
        }
        if let Some(Ended { view, .. }) = &self.ended {
            for range in &self.ranges {
                params[range.clone()].copy_from_slice(&view.floats()[range.clone()]);
            }
        }
        Ok(RunState::Ended)
    }

    /// Without workers, a server would wait for ever.
    fn meet(&mut self) -> Result<(), Error> {
        let status = self.status()?;
        let here = |worker: &WorkerStatus| matches!(worker.state, Presence::Present | Presence::Suspect);
        if self.ended.is_some() || status.workers.iter().any(here) {
            self.meeting = None;
            return Ok(());
        }
        let limit = self.drive.waits().limit(WaitKind::Join);
        let wait = self.meeting.get_or_insert_with(|| Wait::new("meet a worker", WaitKind::Join, limit));
        let result = self.drive.patience(wait);
        result.map(drop).map_err(|error| self.drive.end_with(error))
    }

    /// Ends this server's part, and tells the workers that it could not go on without `peer`: a worker of the same
    /// process, for instance, that has failed.
    pub fn end_without(mut self, peer: PeerId) {
        let _ = self.drive.end_with(Error::Cut { peer });
    }

    /// Whether workers have left the run, rather than all having been lost. False before the end.
    pub fn is_whole(&self) -> bool {
        let left = |status: &Status| status.workers.iter().any(|worker| worker.state == Presence::Left);
        self.ended.as_ref().is_some_and(|ended| left(&ended.status))
    }

    /// Writes a checkpoint below `directory`, after [`wait`](Self::wait) has returned [`RunState::Ended`] and filled
    /// `params`, in a run that its workers have suspended. Returns false and writes nothing if the run has not ended,
    /// or if every worker was lost: then the nodes have no common moment to resume from.
    ///
    /// # Errors
    /// If `params` has another length than the layout, or on an I/O error.
    pub fn checkpoint(&mut self, directory: &Path, params: &[f32]) -> Result<bool, Error> {
        check::length("checkpoint", self.len, params.len())?;
        // Only workers that have left (or suspended) have a checkpoint that goes with this one.
        let ended = self.ended.as_ref().filter(|_| self.is_whole());
        let Some(Ended { saved, run, moment, .. }) = ended else { return Ok(false) };
        let NodeIdentity { digest, rank } = self.identity;
        let checkpoint = Checkpoint {
            run: *run,
            written: now_millis(),
            digest,
            rank: rank.0,
            clock: moment + 1,
            steps: 0,
            contributions: 0,
            vectors: vec![params.to_vec()],
            saved: saved.clone(),
        };
        let store = Store::new(directory, *run, rank.0, self.notices.clone());
        store.remove_parts();
        store.go_on_from(*moment);
        store.write(&checkpoint)?;
        Ok(true)
    }
}
