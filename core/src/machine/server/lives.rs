//! The workers as a server knows them, with the number of those in each state: no input looks at all workers to find out
//! whether there is one in some state.

use alloc::vec;
use alloc::vec::Vec;

use crate::id::PeerId;

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// It has not said hello.
    Awaited,
    Present,
    Lost,
    /// It makes no more contributions and waits for the final parameters.
    Staying,
    /// It did so, and has been lost.
    Stayed,
    Left,
    /// It came when the run was over.
    Refused,
}

#[derive(Debug)]
pub(super) struct Lives {
    /// By worker.
    all: Vec<Life>,
    /// By state.
    counts: [u32; Life::Refused as usize + 1],
}

impl Lives {
    pub(super) fn new(workers: u32) -> Self {
        let mut counts = [0; Life::Refused as usize + 1];
        counts[Life::Awaited as usize] = workers;
        Self { all: vec![Life::Awaited; workers as usize], counts }
    }

    /// Workers of the run.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn get(&self, worker: PeerId) -> Life {
        self.all[worker.index()]
    }

    pub(super) fn set(&mut self, worker: PeerId, life: Life) {
        let before = core::mem::replace(&mut self.all[worker.index()], life);
        self.counts[before as usize] -= 1;
        self.counts[life as usize] += 1;
    }

    /// Is a worker in one of these states?
    pub(super) fn any(&self, states: &[Life]) -> bool {
        states.iter().any(|life| self.counts[*life as usize] > 0)
    }

    /// The first worker that is in one of these states.
    pub(super) fn first(&self, states: &[Life]) -> Option<PeerId> {
        if !self.any(states) {
            return None;
        }
        self.iter().find(|(_, life)| states.contains(life)).map(|(worker, _)| worker)
    }

    /// The state of each worker, by rank.
    pub(super) fn iter(&self) -> impl Iterator<Item = (PeerId, Life)> {
        self.all.iter().enumerate().map(|(rank, life)| (PeerId(rank as u32), *life))
    }
}
