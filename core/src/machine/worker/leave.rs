//! The end of a worker. A worker that stays tells the servers twice: that it makes no more contributions, and that it
//! has the final parameters.

use super::{Job, Port, Progress, State, Worker};
use crate::id::PeerId;
use crate::machine::Signal;
use crate::status::Presence;
use crate::wire::{Leave, Message};

impl Worker {
    pub(super) fn maybe_left(&mut self, hub: &mut Port<'_>) {
        let State::Leaving { stays } = self.state else { return };
        if !self.flushed || self.is_deciding() {
            return;
        }
        let cluster = hub.setup.cluster;
        for server in (cluster.workers..cluster.nodes()).map(PeerId) {
            if !stays && hub.presence(server) == Presence::Lost {
                // This worker needs nothing from it any more.
                self.link(hub, server).leave_delivered = true;
            } else if !self.link(hub, server).leave_sent {
                let sent = self.tell_leave(hub, server, stays);
                self.link(hub, server).leave_sent = sent;
            }
        }
        if stays && self.rows.iter().all(|row| row.progress == Progress::Final) {
            self.state = State::Leaving { stays: false };
            for link in &mut self.servers {
                (link.leave_sent, link.leave_delivered) = (false, false);
            }
            self.maybe_left(hub);
        } else if !stays && self.servers.iter().all(|link| link.leave_delivered) {
            self.state = State::Left;
            hub.signal(Signal::Left);
        }
    }

    /// Tells a server that is connected and has all contributions; says whether it did.
    fn tell_leave(&self, hub: &mut Port<'_>, server: PeerId, stays: bool) -> bool {
        let mut rows = self.rows.iter().enumerate().filter(|(shard, _)| self.server(hub, *shard) == server);
        let knows = rows.all(|(_, row)| row.answered == self.sequence && row.progress != Progress::Awaited);
        if !hub.is_agreed(server) || !knows {
            return false;
        }
        let (origin, incarnation) = (hub.setup.me, hub.setup.incarnation);
        let leave = Leave { origin, incarnation, last: self.sequence, stays };
        hub.transmit(server, Message::Leave(leave), None, Job::Leave { server, stays });
        true
    }
}
