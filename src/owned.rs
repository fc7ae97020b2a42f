//! [`OwnedSession`]: a worker's part in a run whose vectors the session owns.

use std::path::Path;
use std::time::Duration;

use gradwire_core::recipe::OptimizerState;
use gradwire_core::{Event, Local, Recipe, Status};

use crate::checkpoint::{NodeIdentity, NoticeCallback};
use crate::error::Error;
use crate::exchange::{Exchange, View};
use crate::session::Session;
use crate::waits::Canceller;
use crate::watch::EventCallback;

/// A worker's part in a run, like a [`Session`], whose vectors the session owns: the application writes its update or
/// its parameters where they are sent from, and reads the parameters where they are made. A step copies no vector in, and
/// trees, rings and meshes with rounds copy none out. [`Builder::join_owned`](crate::Builder::join_owned) makes it.
/// The parameters are those of a [`Session`] with the same steps, bit for bit.
///
/// | the optimizer | writes to | and then calls |
/// |---|---|---|
/// | gives an update to subtract | [`update_mut`](Self::update_mut) | [`step`](Self::step) |
/// | gives the next parameters | [`next_mut`](Self::next_mut) | [`sync`](Self::sync) |
/// | changes the parameters in place | [`params_mut`](Self::params_mut), which copies them once after each synchronisation | [`sync`](Self::sync) |
///
/// With servers, and in a mesh without rounds, the machine may change its parameters while the application computes. A
/// synchronisation then copies the parameters once, to a vector of the session.
///
/// # Recipes
/// Refused are `payload=gradients`, `merge=elastic`, `optimizer=average`, and recipes that push and fetch after
/// different numbers of steps.
///
/// ```
/// use gradwire::{Cluster, Error, Layout, Mem, Recipe, Session};
///
/// // Minimises (x - target)² with the targets 1 and 3 on two workers: the mean of the gradients leads to x = 2.
/// fn train(target: f32, transport: Mem) -> Result<f32, Error> {
///     let cluster = Cluster { workers: 2, servers: 0 };
///     let mut session = Session::builder(Layout::flat(1), Recipe::sync(), cluster).join_owned(transport, &[0.0])?;
///     for _ in 0..50 {
///         let (params, update) = session.update_mut()?;
///         update[0] = 0.1 * 2.0 * (params[0] - target);
///         session.step(1)?;
///     }
///     session.finish()?;
///     Ok(session.params()[0])
/// }
///
/// let workers = Mem::cluster(2).into_iter().zip([1.0, 3.0]);
/// let threads: Vec<_> =
///     workers.map(|(transport, target)| std::thread::spawn(move || train(target, transport))).collect();
/// for thread in threads {
///     assert!((thread.join().unwrap()? - 2.0).abs() < 1e-3);
/// }
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug)]
pub struct OwnedSession {
    session: Session,
    /// The parameters after the last synchronisation.
    view: View,
    /// The content of the vector that the application writes.
    holds: Holds,
    /// The run is over for this worker.
    left: bool,
}

/// The content of the vector that the application writes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Holds {
    /// An earlier vector.
    Nothing,
    /// An update.
    Update,
    /// The application's parameters: those after the last synchronisation, with its local steps since.
    Params,
}

impl OwnedSession {
    /// Refuses recipes for which a session cannot own the vectors.
    pub(crate) fn check(recipe: &Recipe, workers: u32) -> Result<(), Error> {
        let fits = Local::new(*recipe, workers).works_in_place() && recipe.optimizer() != OptimizerState::Average;
        if fits { Ok(()) } else { Err(Error::Owned { got: recipe.to_string() }) }
    }

    /// Waits until the engine has joined.
    pub(crate) fn enter(
        mut exchange: Exchange,
        identity: NodeIdentity,
        notices: NoticeCallback,
        callback: EventCallback,
    ) -> Result<Self, Error> {
        let beginning = exchange.join()?;
        let view = exchange.start_in_place(&beginning.view);
        let session = Session::begun(exchange, &beginning, identity, notices, callback);
        Ok(Self { session, view, holds: Holds::Nothing, left: false })
    }

    // Vectors

    /// The parameters to compute the next batch with: those of the last synchronisation, or those in
    /// [`params_mut`](Self::params_mut) if it was called since. After [`finish`](Self::finish), the final ones.
    pub fn params(&self) -> &[f32] {
        let own = self.session.exchange.vector().filter(|_| self.holds == Holds::Params);
        own.unwrap_or_else(|| self.view.floats())
    }

    /// The parameters, and the vector for the update to subtract from them. It holds an earlier vector: write every
    /// element. [`step`](Self::step) contributes it. Copies nothing.
    ///
    /// # Errors
    /// If the recipe has local steps between synchronisations, or the session has ended.
    pub fn update_mut(&mut self) -> Result<(&[f32], &mut [f32]), Error> {
        self.session.exchange.check_every_step()?;
        self.write(Holds::Update)
    }

    /// The parameters, for an optimizer that changes them in place. [`sync`](Self::sync) contributes them. Copies them
    /// in the first call after a synchronisation.
    ///
    /// # Errors
    /// If the session has ended.
    pub fn params_mut(&mut self) -> Result<&mut [f32], Error> {
        let held = self.holds;
        let (view, vector) = self.write(Holds::Params)?;
        if held != Holds::Params {
            vector.copy_from_slice(view);
        }
        Ok(vector)
    }

    /// The parameters of the last synchronisation, and the vector for the next parameters, for an optimizer that writes
    /// them to another place. [`sync`](Self::sync) contributes them. Copies nothing. After a synchronisation, the vector
    /// holds an earlier one: write every element. Within a period of local steps, it holds the application's parameters,
    /// which [`params`](Self::params) returns too.
    ///
    /// # Errors
    /// If the session has ended.
    pub fn next_mut(&mut self) -> Result<(&[f32], &mut [f32]), Error> {
        self.write(Holds::Params)
    }

    /// The parameters of the last synchronisation, and the vector that the application writes.
    fn write(&mut self, holds: Holds) -> Result<(&[f32], &mut [f32]), Error> {
        if self.left {
            return Err(Error::Ended);
        }
        let vector = self.session.exchange.vector_mut()?;
        self.holds = holds;
        Ok((self.view.floats(), vector))
    }

    // Training

    /// As [`Session::step`], with the update in [`update_mut`](Self::update_mut). Allocates nothing.
    ///
    /// # Errors
    /// If [`update_mut`](Self::update_mut) was not called since the last step, or the update has an element that is not
    /// finite: then nothing has changed. If a wait reaches the deadline, or the run cannot go on: then the session has
    /// ended, and [`params`](Self::params) are those of the last synchronisation.
    pub fn step(&mut self, examples: u32) -> Result<(), Error> {
        self.expect(Holds::Update, "step", "update_mut")?;
        let due = self.session.exchange.step_in_place(&self.view, examples)?;
        self.holds = Holds::Nothing;
        self.synchronise(due, examples)
    }

    /// As [`Session::sync`], with the parameters in [`params_mut`](Self::params_mut) or [`next_mut`](Self::next_mut).
    /// Allocates nothing.
    ///
    /// # Errors
    /// If neither was called since the last synchronisation. Otherwise as for [`step`](Self::step).
    pub fn sync(&mut self, examples: u32) -> Result<(), Error> {
        self.expect(Holds::Params, "sync", "params_mut")?;
        let due = self.session.exchange.stepped_in_place(&self.view, examples)?;
        if due.is_some() {
            self.holds = Holds::Nothing;
        }
        self.synchronise(due, examples)
    }

    fn expect(&self, holds: Holds, call: &'static str, expected: &'static str) -> Result<(), Error> {
        match self.holds {
            _ if self.left => Err(Error::Ended),
            got if got == holds => Ok(()),
            _ => Err(Error::Unwritten { call, expected }),
        }
    }

    fn synchronise(&mut self, due: Option<u64>, examples: u32) -> Result<(), Error> {
        self.session.hint_at_kept_optimizer();
        self.session.steps += 1;
        if let Some(weight) = due {
            self.session.exchange.synchronise_in_place(weight, &mut self.view)?;
        }
        self.session.exchange.count(true, examples.into());
        Ok(())
    }

    // Leaving

    /// As [`Session::leave`]. [`params`](Self::params) are then this worker's last ones; other calls fail.
    ///
    /// # Errors
    /// As for [`Session::leave`].
    pub fn leave(&mut self) -> Result<Status, Error> {
        self.depart("leave", false)
    }

    /// As [`Session::finish`]. [`params`](Self::params) are then the final ones, the same at all workers; other calls
    /// fail.
    ///
    /// # Errors
    /// As for [`Session::finish`].
    pub fn finish(&mut self) -> Result<Status, Error> {
        self.depart("finish", true)
    }

    fn depart(&mut self, purpose: &'static str, stay: bool) -> Result<Status, Error> {
        if std::mem::replace(&mut self.left, true) {
            return Err(Error::Ended);
        }
        let exchange = &mut self.session.exchange;
        exchange.contribute_rest_in_place(&mut self.view)?;
        self.holds = Holds::Nothing;
        let status = exchange.depart_in_place(purpose, stay, &mut self.view)?.status;
        Ok(self.session.of_run(status))
    }

    /// As [`Session::checkpoint`], of the parameters of the last synchronisation.
    ///
    /// # Errors
    /// As for [`Session::checkpoint`].
    pub fn checkpoint(&mut self, directory: &Path, state: &[&[f32]]) -> Result<bool, Error> {
        self.session.checkpoint(directory, self.view.floats(), state)
    }

    // Observation: as for a session that does not own its vectors

    /// As [`Session::set_learning_rate`].
    pub fn set_learning_rate(&mut self, scale: f32) {
        self.session.set_learning_rate(scale);
    }

    /// As [`Session::is_outdated`].
    pub fn is_outdated(&self) -> bool {
        self.session.is_outdated()
    }

    /// As [`Session::steps`].
    pub fn steps(&self) -> u64 {
        self.session.steps()
    }

    /// As [`Session::joined_at`].
    pub fn joined_at(&self) -> u64 {
        self.session.joined_at()
    }

    /// As [`Session::rounds`].
    pub fn rounds(&self) -> u64 {
        self.session.rounds()
    }

    /// As [`Session::report_progress`].
    pub fn report_progress(&mut self, loss: f32, accuracy: f32) {
        self.session.report_progress(loss, accuracy);
    }

    /// As [`Session::status`].
    ///
    /// # Errors
    /// As for [`Session::status`].
    pub fn status(&mut self) -> Result<Status, Error> {
        self.session.status()
    }

    /// As [`Session::events`].
    pub fn events(&mut self) -> Vec<Event> {
        self.session.events()
    }

    /// As [`Session::pump`].
    ///
    /// # Errors
    /// As for [`Session::pump`].
    pub fn pump(&mut self) -> Result<(), Error> {
        self.session.pump()
    }

    /// As [`Session::expect_silence`].
    ///
    /// # Errors
    /// As for [`Session::expect_silence`].
    pub fn expect_silence(&mut self, span: Duration) -> Result<(), Error> {
        self.session.expect_silence(span)
    }

    /// As [`Session::canceller`].
    pub fn canceller(&mut self) -> Canceller {
        self.session.canceller()
    }
}
