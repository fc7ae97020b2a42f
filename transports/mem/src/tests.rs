//! Two endpoints in one thread: the order of inputs, and the life of loans.

use gradwire_core::wire::{Ack, Message, Push};
use gradwire_core::{BufferId, Clock, Incarnation, Sequence, ShardId};

use super::*;

const BODY: Segment = Segment { buffer: BufferId(0), start: 0, len: 8 };

/// A push with a body of `length` bytes, or an acknowledgement without one.
fn header(sequence: u64, length: u32) -> Header {
    let (origin, incarnation, sequence) = (PeerId(0), Incarnation(1), Sequence(sequence));
    let message = if length > 0 {
        let (shard, clock) = (ShardId(0), Clock(0));
        Message::Push(Push {
            shard,
            worker: origin,
            incarnation,
            sequence,
            base: clock,
            weight: 1,
            repeats: false,
            fetches: true,
            step_time: None,
            rider: None,
        })
    } else {
        Message::QuantaAck(Ack { origin, incarnation, last: sequence })
    };
    Header::new(0, origin, incarnation, length, message)
}

/// A node: its transport and its buffers.
struct End {
    mem: Mem,
    pool: Pool,
}

impl End {
    #[track_caller]
    fn expect(&mut self, expected: Input) {
        let got = self.mem.poll(&mut self.pool, Some(Duration::from_secs(5))).unwrap();
        assert_eq!(got, Some(expected));
    }

    #[track_caller]
    fn expect_nothing(&mut self) {
        assert_eq!(self.mem.poll(&mut self.pool, Some(Duration::ZERO)).unwrap(), None);
    }
}

/// Two nodes, past their `Connected` inputs.
fn pair() -> [End; 2] {
    let ends = Mem::cluster(2).into_iter().map(|mem| End { mem, pool: Pool::new([8, 8]) });
    let mut ends: [End; 2] = ends.collect::<Vec<_>>().try_into().unwrap_or_else(|_| unreachable!());
    ends[0].expect(Input::Connected { peer: PeerId(1) });
    ends[1].expect(Input::Connected { peer: PeerId(0) });
    ends
}

#[test]
fn a_transmission_completes_when_its_body_has_been_received() {
    let [mut a, mut b] = pair();
    a.pool.floats_mut(BODY).copy_from_slice(&[1.0, 2.0]);
    a.mem.transmit(OpId(7), PeerId(1), header(1, 8), Some(BODY), &a.pool);
    b.expect(Input::Header { peer: PeerId(0), header: header(1, 8) });
    a.expect_nothing();
    b.mem.receive(OpId(9), PeerId(0), Some(BODY), &mut b.pool);
    b.expect(Input::Completed { op: OpId(9), result: KernelResult::Nothing });
    a.expect(Input::Completed { op: OpId(7), result: KernelResult::Nothing });
    assert_eq!(b.pool.floats(BODY), [1.0, 2.0]);
}

/// The message refers to the storage of the sender's buffer. The only copy is made by the receiver.
#[test]
fn a_message_shares_the_senders_storage() {
    let [mut a, mut b] = pair();
    let storage = a.pool.share(BufferId(0));
    a.mem.transmit(OpId(1), PeerId(1), header(1, 8), Some(BODY), &a.pool);
    b.expect(Input::Header { peer: PeerId(0), header: header(1, 8) });
    assert_eq!(Arc::strong_count(&storage), 3, "the pool, this test and the message share one storage");
    b.mem.receive(OpId(1), PeerId(0), None, &mut b.pool);
    assert_eq!(Arc::strong_count(&storage), 2);
}

#[test]
fn headers_are_delivered_in_order_and_wait_for_the_body_before_them() {
    let [mut a, mut b] = pair();
    a.mem.transmit(OpId(1), PeerId(1), header(1, 0), None, &a.pool);
    a.mem.transmit(OpId(2), PeerId(1), header(2, 8), Some(BODY), &a.pool);
    a.mem.transmit(OpId(3), PeerId(1), header(3, 0), None, &a.pool);
    b.expect(Input::Header { peer: PeerId(0), header: header(1, 0) });
    b.expect(Input::Header { peer: PeerId(0), header: header(2, 8) });
    b.expect_nothing();
    b.mem.receive(OpId(1), PeerId(0), None, &mut b.pool);
    b.expect(Input::Completed { op: OpId(1), result: KernelResult::Nothing });
    b.expect(Input::Header { peer: PeerId(0), header: header(3, 0) });
    for op in 1..=3 {
        a.expect(Input::Completed { op: OpId(op), result: KernelResult::Nothing });
    }
}

#[test]
fn dropping_an_endpoint_disconnects_its_peers_and_aborts_their_operations() {
    let [mut a, b] = pair();
    a.mem.transmit(OpId(1), PeerId(1), header(1, 8), Some(BODY), &a.pool);
    drop(b);
    a.expect(Input::Disconnected { peer: PeerId(1) });
    a.expect(Input::Aborted { op: OpId(1) });
    a.mem.transmit(OpId(2), PeerId(1), header(2, 0), None, &a.pool);
    a.expect(Input::Aborted { op: OpId(2) });
}

#[test]
fn the_waker_ends_a_poll_that_waits_in_another_thread() {
    let [mut a, _b] = pair();
    let waker = a.mem.waker();
    let other = std::thread::spawn(move || waker.wake());
    assert_eq!(a.mem.poll(&mut a.pool, None).unwrap(), None);
    other.join().unwrap();
}

/// Two nodes are connected when one of them wants the other. The third is not connected with them.
#[test]
fn nodes_are_connected_if_one_of_them_wants_it() {
    let mut ends: Vec<End> = Mem::cluster(3).into_iter().map(|mem| End { mem, pool: Pool::new([8, 8]) }).collect();
    for (end, wanted) in ends.iter_mut().zip([&[PeerId(1)][..], &[], &[]]) {
        end.mem.want(wanted);
    }
    ends[0].expect(Input::Connected { peer: PeerId(1) });
    ends[1].expect(Input::Connected { peer: PeerId(0) });
    ends.iter_mut().for_each(End::expect_nothing);
    ends[1].mem.want(&[PeerId(0), PeerId(2)]);
    ends[2].expect(Input::Connected { peer: PeerId(1) });
    ends[1].expect(Input::Connected { peer: PeerId(2) });
    ends.iter_mut().for_each(End::expect_nothing);
}

/// A node that has been dropped is reported to the nodes that want it later.
#[test]
fn a_node_that_is_gone_is_connected_and_lost_at_once() {
    let mut ends: Vec<End> = Mem::cluster(2).into_iter().map(|mem| End { mem, pool: Pool::new([8, 8]) }).collect();
    ends[0].mem.want(&[]);
    drop(ends.pop());
    ends[0].expect_nothing();
    ends[0].mem.want(&[PeerId(1)]);
    ends[0].expect(Input::Connected { peer: PeerId(1) });
    ends[0].expect(Input::Disconnected { peer: PeerId(1) });
}
