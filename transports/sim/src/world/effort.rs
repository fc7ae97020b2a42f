//! Operations that take time: kernels, the reading of bodies, and the ends of operations on broken connections.

use gradwire_core::kernel::{self, Kernel, KernelResult};
use gradwire_core::wire::Header;
use gradwire_core::{Duration, Input, Machine, OpId, PeerId, Segment};

use super::{Scheduled, World};
use crate::node::{Deed, Receiving, Running, Work};

impl World {
    /// A random time with this mean; zero without drawing a number if the mean is zero.
    fn effort(&mut self, mean: Duration) -> Duration {
        match mean.as_nanos() as f64 {
            0.0 => Duration::ZERO,
            mean => Duration::from_nanos(self.efforts.exponential(mean) as u64),
        }
    }

    /// Starts a kernel.
    pub(super) fn compute(&mut self, me: PeerId, op: OpId, kernel: Kernel) {
        self.deeds.push((me, Deed::Asked { kernel }));
        let mean = self.plan.effort.kernel;
        let takes = if mean > Duration::ZERO && self.efforts.chance(0.7) { self.effort(mean) } else { Duration::ZERO };
        let now = self.now;
        let late = takes > Duration::ZERO && self.efforts.chance(0.5);
        let node = &mut self.nodes[me.index()];
        if late {
            node.running = Some(Running { op, work: Work::Ahead(kernel) });
        } else {
            let result = kernel::run(&kernel, &mut node.pool);
            if takes == Duration::ZERO {
                let machine = node.machine.as_mut().expect("it has just computed");
                machine.handle_input(now, Input::Completed { op, result }).expect("an open operation");
                self.deeds.push((me, Deed::Computed { result }));
                return;
            }
            node.running = Some(Running { op, work: Work::Done(result) });
        }
        let epoch = node.epoch;
        self.schedule(now.after(takes), Scheduled::KernelEnd { node: me, epoch });
    }

    pub(super) fn on_kernel_end(&mut self, me: PeerId) -> Option<PeerId> {
        let node = &mut self.nodes[me.index()];
        let Running { op, work } = node.running.take()?;
        let result = match work {
            Work::Ahead(kernel) => kernel::run(&kernel, &mut node.pool),
            Work::Done(result) => result,
        };
        self.feed(me, Input::Completed { op, result })
    }

    /// Reads the body of the first message from `peer`.
    pub(super) fn receive(&mut self, me: PeerId, op: OpId, peer: PeerId, into: Option<Segment>) {
        let takes = self.effort(self.plan.effort.body);
        let side = self.side(me, peer);
        if !side.reading {
            // The connection has broken since the header was delivered.
            return self.abort(me, peer, op);
        }
        assert!(side.receiving.is_none(), "node {me} reads the body of {peer} twice");
        side.receiving = Some(Receiving { op, into });
        if let (None, Some(message)) = (into, side.inbox.front()) {
            let header = Header::parse(&message.header).expect("headers travel unharmed");
            self.deeds.push((me, Deed::Dropped { peer, message: *header.message() }));
        }
        if takes == Duration::ZERO {
            self.take_body(me, peer);
            // The peer's next header can be delivered, once this node's outputs are drained.
            self.schedule(self.now, Scheduled::Resume { node: me });
            return;
        }
        let epoch = self.nodes[me.index()].epoch;
        let (at, session) = (self.now.after(takes), self.link(me, peer).session);
        self.schedule(at, Scheduled::BodyEnd { node: me, epoch, peer, session });
    }

    pub(super) fn on_body_end(&mut self, me: PeerId, peer: PeerId) -> Option<PeerId> {
        self.take_body(me, peer);
        self.drive(me);
        self.deliver(me);
        Some(me)
    }

    /// The body is complete: it goes into the buffer, and the operation ends.
    fn take_body(&mut self, me: PeerId, peer: PeerId) {
        let now = self.now;
        let side = self.side(me, peer);
        let Some(Receiving { op, into }) = side.receiving.take() else { return };
        side.reading = false;
        let message = side.take().expect("a message is being read");
        let is_due = side.is_due();
        let node = &mut self.nodes[me.index()];
        if is_due {
            node.note_due(peer);
        }
        if let (Some(into), Some(body)) = (into, &message.body) {
            node.pool.make_room_for(into);
            node.pool.bytes_mut(into).copy_from_slice(body.bytes());
        }
        if let Some(into) = into {
            let header = Header::parse(&message.header).expect("headers travel unharmed");
            self.deeds.push((me, Deed::Read { peer, message: *header.message(), into }));
        }
        let machine = node.machine.as_mut().expect("it is reading");
        machine.handle_input(now, Input::Completed { op, result: KernelResult::Nothing }).expect("an open operation");
        self.received(me, peer, message.op);
    }

    /// The connection breaks while a body is being read. Returns the operation, which has written a part of the buffer.
    pub(super) fn tear(&mut self, me: PeerId, peer: PeerId) -> Option<OpId> {
        let Receiving { op, into } = self.side(me, peer).receiving.take()?;
        self.torn += 1;
        if let Some(into) = into.filter(|into| into.len > 0) {
            let torn = self.efforts.below(u64::from(into.len) + 1) as usize;
            let pool = &mut self.nodes[me.index()].pool;
            pool.make_room_for(into);
            for byte in &mut pool.bytes_mut(into)[..torn] {
                *byte = self.efforts.next() as u8;
            }
        }
        Some(op)
    }

    /// Ends an operation on a connection that the machine knows to be broken.
    pub(super) fn abort_after_a_time(&mut self, me: PeerId, peer: PeerId, op: OpId) {
        let takes = self.effort(self.plan.effort.abort);
        if takes == Duration::ZERO {
            self.feed(me, Input::Aborted { op });
            return;
        }
        self.side(me, peer).aborting += 1;
        let (at, epoch) = (self.now.after(takes), self.nodes[me.index()].epoch);
        self.schedule(at, Scheduled::Abort { node: me, epoch, peer, op });
    }
}
