//! The mesh, input by input.

use super::*;
use crate::recipe::Topology;
use crate::wire::Quanta;

/// A relay that hears its own message again knows it.
#[test]
fn an_own_message_that_is_echoed_is_a_duplicate() {
    let mut m = trace(Recipe::mesh(0.5).with_topology(Topology::Mesh { relay: 1 }), 0, 2);
    m.hello(1, 1).expect_event(joined(1, 1));
    m.expect_transmit(1, Kind::Mark);
    m.tell(1, Message::StreamStart { after: Sequence(0), joined: false });
    m.expect_signal(Signal::Joined { clock: Clock(0) });
    m.expect_transmit(1, Kind::Mark);
    m.step(1.0).expect_ready(1);
    let (first, last) = (Sequence(1), Sequence(1));
    let echo = Quanta { origin: PeerId(0), incarnation: OWN, first, last, base: Clock(0) };
    m.announce(1, Message::Quanta(echo), 1);
    assert!(matches!(m.wants.pop_front(), Some(Output::Receive { into: None, .. })), "{:?}", m.wants);
    assert_eq!((m.counters().duplicates, m.counters().applied), (1, 0));
}
