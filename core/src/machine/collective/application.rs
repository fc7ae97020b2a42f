//! The application's side of a node: its part in the current round, and how it ends.

use super::chunks::Mean;
use crate::machine::Misuse;
use crate::rider::Rider;

/// The application, as its node knows it.
#[derive(Debug)]
pub(super) struct Application {
    stage: Stage,
    /// The application contributes no more examples and stays for the end. It still takes part in rounds.
    finishing: bool,
    /// The number that travels with its contributions from now on.
    rider: Option<Rider>,
}

/// The life of a node.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// There is no application: the node only hosts the coordinator.
    Hosting,
    /// The coordinator's run is over, and its driver has been told.
    Finished,
    /// The application waits for the parameters to start from.
    Joining,
    /// The application computes.
    Computing,
    /// The application has contributed, and waits for the round.
    Contributed { weight: u64 },
    /// The application makes no more contributions and does not wait for the end. The coordinator has yet to release
    /// the node.
    Leaving,
    /// The node has no part in the run any more.
    Left,
}

impl Application {
    pub(super) fn new(stage: Stage) -> Self {
        Self { stage, finishing: false, rider: None }
    }

    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    /// The application makes no more contributions, and does not wait for the end.
    pub(super) fn leaves(&self) -> bool {
        matches!(self.stage, Stage::Leaving | Stage::Left)
    }

    /// The contribution to the current round, if it is made.
    pub(super) fn contribution(&self) -> Option<Mean> {
        let Stage::Contributed { weight } = self.stage else { return None };
        Some(Mean { weight, finishing: self.finishing, rider: self.rider.filter(|_| weight > 0) })
    }

    /// The node has the parameters to start from. Returns whether the application waits for them.
    pub(super) fn join(&mut self) -> bool {
        let joins = self.stage == Stage::Joining;
        if joins {
            self.stage = Stage::Computing;
        }
        joins
    }

    /// The round of the contribution is done. Returns whether the application waits for it.
    pub(super) fn go_on(&mut self) -> bool {
        let waits = matches!(self.stage, Stage::Contributed { .. });
        if waits {
            self.stage = Stage::Computing;
        }
        waits
    }

    pub(super) fn set_rider(&mut self, rider: Option<Rider>) {
        self.rider = rider;
    }

    pub(super) fn on_step(&mut self, weight: u64) -> Result<(), Misuse> {
        if self.stage != Stage::Computing {
            return Err(Misuse::NotReady);
        }
        self.stage = Stage::Contributed { weight };
        Ok(())
    }

    pub(super) fn on_leave(&mut self, stay: bool) -> Result<(), Misuse> {
        match self.stage {
            Stage::Computing if stay => {
                self.finishing = true;
                self.stage = Stage::Contributed { weight: 0 };
            }
            Stage::Joining | Stage::Computing | Stage::Contributed { .. } if !stay => self.stage = Stage::Leaving,
            _ => return Err(Misuse::NotReady),
        }
        Ok(())
    }

    /// The coordinator has not heard that this node leaves.
    pub(super) fn become_leaving(&mut self) {
        self.stage = Stage::Leaving;
    }

    pub(super) fn become_left(&mut self) {
        self.stage = Stage::Left;
    }

    pub(super) fn become_finished(&mut self) {
        self.stage = Stage::Finished;
    }
}
