//! Synchronisations of a session that owns its vectors: the contribution is made where the application has written, and
//! the parameters are read where the machine has made them.

use std::sync::Arc;

use gradwire_core::Storage;

use super::{Exchange, HAS_SPARE, contribution};
use crate::check;
use crate::error::Error;
use crate::mailbox::{Departure, Ended, Leave, NextRound};
use crate::waits::WaitKind;

/// The parameters after a synchronisation, as the application reads them.
#[derive(Debug)]
pub(crate) struct View {
    storage: Arc<Storage>,
    /// The storage is the machine's buffer. Trees, rings and meshes with rounds write another one in the next round.
    /// Other machines may write it while the application computes, so that it is copied.
    shared: bool,
}

impl View {
    pub(crate) fn floats(&self) -> &[f32] {
        self.storage.floats()
    }

    fn take(&mut self, storage: Arc<Storage>) {
        if self.shared {
            self.storage = storage;
        } else {
            Arc::make_mut(&mut self.storage).floats_mut().copy_from_slice(storage.floats());
        }
    }
}

impl Exchange {
    /// Begins the first period. `view`: the parameters to start from.
    pub(crate) fn start_in_place(&mut self, view: &Arc<Storage>) -> View {
        self.local.begin_in_place(self.drive.now());
        let shared = self.recipe.is_collective();
        let storage = if shared { Arc::clone(view) } else { Arc::new(Storage::clone(view)) };
        View { storage, shared }
    }

    /// The vector for the next contribution. `None` after a failure.
    pub(crate) fn vector(&self) -> Option<&[f32]> {
        self.spare.as_deref().map(Storage::floats)
    }

    /// As [`vector`](Self::vector), for writing.
    ///
    /// # Errors
    /// After a failure.
    pub(crate) fn vector_mut(&mut self) -> Result<&mut [f32], Error> {
        self.drive.check()?;
        Ok(contribution(&mut self.spare))
    }

    /// Refuses updates as contributions, if there are local steps.
    pub(crate) fn check_every_step(&self) -> Result<(), Error> {
        if self.local.synchronises_every_step() {
            return Ok(());
        }
        Err(Error::LocalSteps { got: self.recipe.to_string() })
    }

    /// One local step with the update in the vector. Returns the examples of the synchronisation that is due.
    pub(crate) fn step_in_place(&mut self, view: &View, examples: u32) -> Result<Option<u64>, Error> {
        self.local_step("update", |exchange| {
            let (now, vector) = (exchange.drive.now(), contribution(&mut exchange.spare));
            exchange.local.step_in_place(vector, view.floats(), examples, now)
        })
    }

    /// One local step, after which the parameters are in the vector. Returns the examples of the synchronisation that
    /// is due.
    pub(crate) fn stepped_in_place(&mut self, view: &View, examples: u32) -> Result<Option<u64>, Error> {
        self.local_step("params", |exchange| {
            let (now, vector) = (exchange.drive.now(), contribution(&mut exchange.spare));
            exchange.local.stepped_in_place(vector, view.floats(), examples, now)
        })
    }

    fn local_step(
        &mut self,
        what: &'static str,
        step: impl FnOnce(&mut Self) -> Result<Option<u64>, usize>,
    ) -> Result<Option<u64>, Error> {
        self.drive.check()?;
        self.drive.steps().mark(|meter, now| meter.step_begins(now));
        step(self).map_err(|index| {
            self.count(false, 0);
            let got = self.vector().expect(HAS_SPARE)[index];
            self.refusal(what, index, got)
        })
    }

    /// Contributes the vector and takes the parameters.
    pub(crate) fn synchronise_in_place(&mut self, weight: u64, view: &mut View) -> Result<(), Error> {
        let (storage, changed, advice) = self.contribute(weight)?;
        if changed {
            view.take(storage);
        }
        self.local.begin_in_place(self.drive.now());
        self.local.follow(advice);
        Ok(())
    }

    /// Contributes the rest of a period that has begun.
    pub(crate) fn contribute_rest_in_place(&mut self, view: &mut View) -> Result<(), Error> {
        self.drive.check()?;
        self.drive.steps().mark(|meter, now| meter.leaves(now));
        match self.local.rest_in_place(contribution(&mut self.spare), view.floats()) {
            Some(weight) => self.synchronise_in_place(weight, view),
            None => Ok(()),
        }
    }

    /// As [`depart`](Self::depart): with `stay`, `view` then has the final parameters.
    pub(crate) fn depart_in_place(
        &mut self,
        purpose: &'static str,
        stay: bool,
        view: &mut View,
    ) -> Result<Box<Ended>, Error> {
        let leave = Leave { stay, keep: false, rate: self.rate.take(), state: Vec::new() };
        let mut departure = self.drive.call(purpose, WaitKind::Leave, leave)?;
        loop {
            match departure {
                Departure::Left(ended) => {
                    self.drive.farewell();
                    if stay {
                        view.take(Arc::clone(&ended.view));
                    }
                    check::finite("final parameters", &self.layout, view.floats())?;
                    return Ok(ended);
                }
                Departure::Round { view: storage, changed, .. } => {
                    if changed {
                        view.take(storage);
                    }
                }
            }
            departure = self.drive.call(purpose, WaitKind::Leave, NextRound { state: Vec::new() })?;
        }
    }
}
