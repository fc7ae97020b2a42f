//! A server's part in a run.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use gradwire_core::recipe::Topology;
use gradwire_core::status::Presence;
use gradwire_core::{Cluster, Event, PeerId, Recipe, ShardId, Status, shard_range};

use crate::checkpoint::Checkpoint;
use crate::desk::{Answer, Desk, Papers};
use crate::error::Error;
use crate::session::Drive;

/// A server's part in a run: it holds shards of the parameters until all workers have left or are lost.
#[derive(Debug)]
pub struct Server {
    desk: Arc<Desk>,
    drive: Drive,
    ranges: Vec<Range<usize>>,
    len: usize,
    deadline: Duration,
    mark: Mark,
}

/// What a server's checkpoint says of it.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Mark {
    pub(crate) digest: u64,
    pub(crate) rank: PeerId,
    /// How often the run had been suspended.
    pub(crate) suspensions: u64,
}

impl Server {
    pub(crate) fn new(
        desk: Arc<Desk>,
        drive: Drive,
        ranges: Vec<Range<usize>>,
        len: usize,
        deadline: Duration,
        mark: Mark,
    ) -> Self {
        Self { desk, drive, ranges, len, deadline, mark }
    }

    /// The ranges of the flat vector that the server of this rank holds.
    pub fn ranges(recipe: &Recipe, cluster: Cluster, rank: PeerId, len: usize) -> Vec<Range<usize>> {
        let Topology::Servers { shards } = recipe.topology() else { return Vec::new() };
        let here = (0..shards).filter(|shard| cluster.servers > 0 && cluster.server_of(ShardId(*shard)) == rank);
        here.map(|shard| shard_range(len, shards, shard)).collect()
    }

    /// A snapshot of numbers; the last one, once the run is over. Allocates.
    ///
    /// # Errors
    /// When the server has ended with an error.
    pub fn status(&mut self) -> Result<Status, Error> {
        self.desk.lock().status_wanted = true;
        self.wake();
        let status = |papers: &mut Papers| papers.status.take().or_else(|| papers.last.clone());
        self.drive.wait(&self.desk, "read the status", self.deadline, status)
    }

    /// What happened since the last call.
    pub fn events(&mut self) -> Vec<Event> {
        self.desk.lock().events.drain(..).collect()
    }

    /// Waits until all workers have left or are lost, at most `limit`; then puts the final parameters of this server's
    /// ranges into `params`. `None` when the time is over and the run is not.
    ///
    /// # Errors
    /// When `params` is not of the layout's length, or the run cannot go on.
    pub fn wait(&mut self, params: &mut [f32], limit: Duration) -> Result<Option<()>, Error> {
        if params.len() != self.len {
            return Err(Error::Length { what: "params", expected: self.len, got: params.len() });
        }
        let begun = Clock::now();
        let left = self.drive.wait(&self.desk, "wait for all workers to leave", limit, |papers| papers.answer.take());
        match left {
            Ok(Answer::Left { view, .. } | Answer::Ready { view, .. } | Answer::Joined { view, .. }) => {
                for range in &self.ranges {
                    params[range.clone()].copy_from_slice(&view.floats()[range.clone()]);
                }
                Ok(Some(()))
            }
            Err(Error::Deadline(_)) if begun.elapsed() >= limit => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a checkpoint of a server whose run has been suspended: `params` as [`wait`](Self::wait) has left them. Not
    /// if all workers were lost (`Ok(false)`): then there is no common moment to go on from.
    ///
    /// # Errors
    /// When `params` is not of the layout's length, or the disk says no.
    pub fn checkpoint(&mut self, directory: &Path, params: &[f32]) -> Result<bool, Error> {
        if params.len() != self.len {
            return Err(Error::Length { what: "checkpoint", expected: self.len, got: params.len() });
        }
        if !self.status()?.workers.iter().any(|worker| worker.state == Presence::Left) {
            return Ok(false);
        }
        let Mark { digest, rank, suspensions } = self.mark;
        let (clock, vectors) = (suspensions + 1, vec![params.to_vec()]);
        Checkpoint { digest, rank: rank.0, clock, steps: 0, made: 0, vectors, kept: Vec::new() }.write(directory)?;
        Ok(true)
    }

    fn wake(&self) {
        if let Drive::Thread { waker, .. } = &self.drive {
            waker.wake_by_ref();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.desk.lock().stop = true;
    }
}
