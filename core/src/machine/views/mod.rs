//! Views: membership that changes while the run goes on.
//!
//! A *view* is a numbered list of members. The [`Coordinator`](coordinator::Coordinator), hosted by one node, decides
//! on the views. Every node has a [`Member`], which reports to the coordinator and follows its decisions. Between two
//! views all members stop.
//!
//! A `Member` does not know the exchange that it serves. A role that uses one provides the following.
//!
//! - Messages of its exchange carry the number of their view. The role asks [`Member::timing`] before it looks at such
//!   a message. It gives an early one to [`Member::hold`] and gets it back from [`Member::take_due`].
//! - All other messages go to [`Member::on_message`]. It closes the connection on kinds that it does not know.
//! - [`Member::on_agreed`] and [`Member::on_lost`] are called from the functions of the same name in
//!   [`Role`](super::host::Role).
//! - Each call that may lead to a report takes a [`Standing`]: the rounds that are done here, and the plans of the
//!   application.
//! - The role carries out each [`Change`] at once. It stops its exchange, or begins it anew among the members of a
//!   view.
//! - [`Role::settle`](super::host::Role::settle) begins with [`Member::advance`] and calls [`Member::take_change`]
//!   until nothing comes. It repeats all of its work while [`Member::has_commands`].
//! - A member that lacks the newest state fetches it from [`View::donor`] before it takes part. Only the role knows
//!   this state.
//! - At the end of a settle, [`Member::exit`] says how the node leaves, once the coordinator has released it.
//!
//! # Connections
//!
//! In a tree or a ring, few members exchange messages with each other. A driver that connects nodes on demand
//! ([`Setup::on_demand`]) asks each machine for the peers that it wants ([`Machine::wanted`]). It connects two nodes when
//! either wants the other, and keeps the connection as long as one of them does.
//!
//! | a node wants | for | from | until |
//! |---|---|---|---|
//! | the coordinator's node | reports, losses, views, the end | its start | |
//! | its neighbours in the tree or ring of its view | the exchange | it enters the view | it enters the next |
//! | the donor of its view | the state that it lacks | it enters the view | it has the state, or stops |
//! | all members of its view | the agreement on the end | it has the last round and has lost the coordinator | |
//! | a peer that it has lost | to meet it again | the loss | it has met the peer |
//!
//! The coordinator's node wants all nodes. In a mesh, every node does.
//!
//! - **A view needs no connections to begin.** Members stop, report and enter over the connections with the coordinator.
//!   A message to a neighbour that is not connected yet goes out when it is. So the neighbours of a proposed view need not
//!   be known before its commit.
//! - **Losses.** A neighbour is known to take part, since it has reported. If it is not connected, it counts as down from
//!   the moment at which this node enters the view, and is lost after `dead_after`. The node tells the coordinator, as
//!   for a connection that broke. So two members that cannot reach each other do not hold up the run: the next view
//!   leaves one of them out, until they have met. Both want each other until then. Members hear nothing of other
//!   losses; the coordinator, which is connected with all, does.
//! - **Ends of connections.** A connection that neither node wants is closed, which is no loss. Nothing that matters can
//!   be under way on it: messages of an exchange are for neighbours of a view that both nodes have left. A node that is
//!   ahead wants the other, and that keeps the connection.
//! - **Broken rounds.** A connection that breaks within the view breaks the exchange, as its messages may be lost. A
//!   connection that broke before this node entered the view does not: neither node can have sent a message of the view
//!   over it, unless the other one had entered before; the other one then reports the break itself.
//! - **Memory.** A node has a record of each peer that has come up, and the list of the members of its view.
//!
//! A node that resumes from a checkpoint hears the moments of all nodes, and wants all of them.
//!
//! At servers, a worker wants the servers and a server the workers, all the time.
//!
//! [`Setup::on_demand`]: crate::Setup::on_demand
//! [`Machine::wanted`]: crate::Machine::wanted

mod coordinator;
mod member;

use alloc::vec::Vec;

pub(super) use member::Member;

use crate::id::{Clock, PeerId, Sequence};
use crate::wire::Message;

/// A committed view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) number: Sequence,
    /// In order of rank.
    pub(crate) members: Vec<PeerId>,
    /// Rounds that are done.
    pub(crate) round: Clock,
    /// A member that has the result of these rounds.
    pub(crate) donor: PeerId,
    /// The last of these rounds is the run's last.
    pub(crate) last: bool,
}

impl View {
    /// The view before the first: without members.
    fn none(donor: PeerId) -> Self {
        Self { number: Sequence(0), members: Vec::new(), round: Clock(0), donor, last: false }
    }
}

/// How far a node is. Reports tell the coordinator.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Rounds that are done here.
    pub(crate) round: Clock,
    /// The node has the parameters after these rounds.
    pub(crate) has: bool,
    /// The application makes no more contributions, and the node does not wait for the end.
    pub(crate) leaves: bool,
    /// The node has the parameters after the last round.
    pub(crate) last: bool,
}

/// A decision of the coordinator that the role has to carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Stop the exchange, and then call [`Member::report`].
    Stop,
    /// Call [`Member::enter`] unless the node has left, and begin the exchange anew.
    Enter {
        view: View,
        /// The run has gone on without this node: it takes the state of the view's donor in place of its own.
        returns: bool,
    },
    /// The run is over for this node. A node that has left already says so again: its message got lost.
    Released,
    /// The coordinator's node has been gone for too long.
    HostLost,
}

/// When the view of a message is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Timing {
    /// The node has not heard of the view yet.
    Early,
    /// The node is in the view.
    Current,
    /// The view has ended or is about to, or belongs to a run before this one.
    Past,
}

/// How a node leaves the run.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It sends the coordinator's node this message.
    Tell { host: PeerId, goodbye: Message },
    /// It hosts the coordinator, and all other nodes have left.
    Alone,
    /// It cannot take part any more. `peer` was the donor of the last view.
    Cut { peer: PeerId },
}

#[cfg(test)]
mod tests;
