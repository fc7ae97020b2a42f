//! A role's access to the hub: everything the hub offers, and operations with the role's jobs.

use core::ops::{Deref, DerefMut};

use super::{Hub, Incoming, Jobs, Purpose};
use crate::buffer::Segment;
use crate::id::{OpId, PeerId};
use crate::kernel::Kernel;
use crate::wire::Message;

/// The hub, lent to a role for one input. A job says why the role starts an operation, and comes back at its end.
///
/// The hub itself has no job type, so that a node can lend one hub to several roles in turn.
#[derive(Debug)]
pub(crate) struct Port<'a, J> {
    hub: &'a mut Hub,
    jobs: &'a mut Jobs<J>,
}

impl<'a, J: Copy> Port<'a, J> {
    pub(crate) fn new(hub: &'a mut Hub, jobs: &'a mut Jobs<J>) -> Self {
        Self { hub, jobs }
    }

    /// Runs a kernel.
    pub(crate) fn compute(&mut self, kernel: Kernel, job: J) {
        let op = self.hub.run(kernel, Purpose::Role);
        self.jobs.begin(op, job);
    }

    /// Sends a message with a plain body, or without a body.
    pub(crate) fn transmit(&mut self, peer: PeerId, message: Message, body: Option<Segment>, job: J) {
        self.transmit_coded(peer, message, body, body.map_or(0, |body| body.len), job);
    }

    /// Sends a message with a body that would take `dense` bytes as plain floats.
    pub(crate) fn transmit_coded(&mut self, peer: PeerId, message: Message, body: Option<Segment>, dense: u32, job: J) {
        let op = self.hub.send(peer, message, body, dense, Purpose::Role);
        self.jobs.begin(op, job);
    }

    /// Reads the body of a message into a segment of the same length.
    pub(crate) fn receive(&mut self, incoming: &Incoming, into: Segment, job: J) {
        debug_assert_eq!(incoming.length, into.len);
        let op = self.hub.read(incoming.peer, Some(into), Purpose::Role);
        self.jobs.begin(op, job);
    }

    /// The job of an operation that has just ended.
    pub(crate) fn end(&mut self, op: OpId) -> J {
        self.jobs.end(op)
    }
}

impl<J> Deref for Port<'_, J> {
    type Target = Hub;

    fn deref(&self) -> &Hub {
        self.hub
    }
}

impl<J> DerefMut for Port<'_, J> {
    fn deref_mut(&mut self) -> &mut Hub {
        self.hub
    }
}
