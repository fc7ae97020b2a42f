//! Views: membership that changes while the run goes on.
//!
//! A *view* is a numbered list of members. The [`Coordinator`](coordinator::Coordinator), hosted by one node, decides on the views.
//! Every node has a [`Member`], which reports to the coordinator and follows its decisions. Between two views all members stop.
//!
//! A `Member` does not know the exchange that it serves. A role that uses one provides the following.
//!
//! - Messages of its exchange carry the number of their view. The role asks [`Member::timing`] before it looks at such a message.
//!   It gives an early one to [`Member::hold`] and gets it back from [`Member::take_due`].
//! - All other messages go to [`Member::on_message`]. It closes the connection on kinds that it does not know.
//! - [`Member::on_agreed`] and [`Member::on_lost`] are called from the functions of the same name in [`Role`](super::host::Role).
//! - Each call that may lead to a report takes a [`Standing`]: the rounds that are done here, and the plans of the application.
//! - The role carries out each [`Change`] at once. It stops its exchange, or begins it anew among the members of a view.
//! - [`Role::settle`](super::host::Role::settle) begins with [`Member::advance`] and calls [`Member::take_change`] until nothing
//!   comes. It repeats all of its work while [`Member::has_commands`].
//! - A member that lacks the newest state fetches it from [`View::donor`] before it takes part. Only the role knows this state.
//! - At the end of a settle, [`Member::exit`] says how the node leaves, once the coordinator has released it.

mod coordinator;
mod member;

pub(super) use coordinator::View;
pub(super) use member::{Change, Exit, Member, Standing, Timing};
