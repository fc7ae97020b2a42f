//! The peers that a node wants, where its driver connects nodes on demand.

use alloc::vec::Vec;

use super::*;
use crate::recipe::Topology;
use crate::status::Presence;
use crate::wire::Commit;

/// Worker `me` of a tree of seven with fan-in 2, which has met the coordinator.
fn node(me: u32) -> Trace {
    node_of(me, |setup| setup)
}

fn node_of(me: u32, change: impl FnOnce(Setup) -> Setup) -> Trace {
    let recipe = Recipe::sync().with_topology(Topology::Tree { fan_in: 2 });
    let mut m = trace_of(recipe, me, 7, |setup| change(Setup { on_demand: true, ..setup }));
    m.expect_wanted(&[0]);
    m.hello(0, 1).expect_event(joined(0, 1)).expect_report();
    m
}

impl Trace {
    #[track_caller]
    fn expect_wanted(&mut self, ranks: &[u32]) -> &mut Self {
        let wanted: Vec<u32> = self.machine.wanted().iter().map(|peer| peer.0).collect();
        assert_eq!(wanted, ranks);
        self
    }

    /// The coordinator commits a view of these ranks, and this node enters it.
    #[track_caller]
    fn enter(&mut self, view: u64, ranks: &[u32], donor: u32) -> &mut Self {
        let (number, donor) = (Sequence(view), PeerId(donor));
        self.tell(0, Message::Prepare { view: number });
        self.expect_report();
        let mask = ranks.iter().fold(0, |mask, rank| mask | 1 << rank);
        self.tell(0, Message::Members { view: number, first: PeerId(0), mask });
        self.tell(0, Message::Commit(Commit { view: number, round: Clock(0), donor, last: false, returns: false }));
        self.expect_event(Event::View { number: view, members: ranks.len() as u32 })
    }

    /// This node asks the donor of the view, rank 0, for the parameters, and gets them.
    #[track_caller]
    fn fetch(&mut self, view: u64) -> &mut Self {
        let view = Sequence(view);
        assert_eq!(self.expect_transmit(0, Kind::Fetch), Message::FetchParameters { view });
        self.send(0, Message::Parameters { view, round: Clock(0), vector: 0, riders: None }, 1.0);
        self.expect_signal(Signal::Joined { clock: Clock(0) }).expect_idle()
    }

    #[track_caller]
    fn expect_lost(&mut self, rank: u32) -> &mut Self {
        self.expect_event(Event::PeerLost { peer: PeerId(rank) });
        let told = Message::Lost { first: PeerId(0), mask: 1 << rank };
        assert_eq!(self.expect_transmit(0, Kind::Member), told);
        self
    }

    fn presence(&self, rank: u32) -> Presence {
        self.machine.status().workers.iter().find(|worker| worker.rank.0 == rank).unwrap().state
    }
}

const ALL: [u32; 7] = [0, 1, 2, 3, 4, 5, 6];

/// Node 1 has the children 3 and 4 in a view of all. Without 2, node 4 is in the place of 3, and node 5 in that of 4. Node
/// 6 is then a child of 3.
fn follows_views(change: impl Fn(Setup) -> Setup) {
    let mut m = node_of(1, &change);
    m.enter(1, &ALL, 0).expect_wanted(&[0, 3, 4]).fetch(1);
    m.enter(2, &[0, 1, 3, 4, 5, 6], 0).expect_wanted(&[0, 4, 5]);
    let mut m = node_of(6, &change);
    m.enter(1, &ALL, 0).expect_wanted(&[0, 2]).fetch(1);
    m.enter(2, &[0, 1, 3, 4, 5, 6], 0).expect_wanted(&[0, 3]);
    assert_eq!(m.presence(2), Presence::Awaited);
}

#[test]
fn a_node_wants_the_coordinator_and_its_neighbours_in_the_tree_of_the_present_view() {
    follows_views(|setup| setup);
}

#[cfg(planted)]
#[test]
#[should_panic = "assertion"]
fn the_test_finds_a_node_that_does_not_want_its_parent() {
    follows_views(|setup| Setup { bug: Some(crate::planted::Bug::ParentNotWanted), ..setup });
}

/// The number by which a driver sees that it has to look again.
#[test]
fn changes_are_counted() {
    let mut m = node(1);
    let before = m.machine.wanted_changes();
    m.enter(1, &ALL, 0);
    let entered = m.machine.wanted_changes();
    assert!(entered > before);
    m.fetch(1).hello(3, 1).expect_event(joined(3, 1)).step(1.0).expect_idle();
    assert_eq!(m.machine.wanted_changes(), entered);
}

#[test]
fn a_newcomer_wants_the_donor_until_it_has_its_state() {
    let mut m = node(6);
    m.enter(1, &ALL, 5).expect_wanted(&[0, 2, 5]).expect_idle();
    m.hello(5, 1).expect_event(joined(5, 1));
    let view = Sequence(1);
    assert_eq!(m.expect_transmit(5, Kind::Fetch), Message::FetchParameters { view });
    m.send(5, Message::Parameters { view, round: Clock(0), vector: 0, riders: None }, 1.0);
    m.expect_signal(Signal::Joined { clock: Clock(0) }).expect_wanted(&[0, 2]);
    // The driver ends the connection, which is no loss.
    m.disconnect(5).at(5_000).feed(Input::Timeout);
    m.expect_lost(2).expect_idle();
}

/// A neighbour is known to take part. If it cannot be reached, the coordinator has to hear of it. The two stay interested
/// in each other until they have met.
#[test]
fn a_neighbour_that_does_not_come_is_lost_and_wanted_until_it_is_met() {
    let mut m = node(6);
    m.at(100).enter(1, &ALL, 0).fetch(1);
    assert_eq!((m.until(), m.presence(2)), (Some(Instant::from_nanos(1_100_000_000)), Presence::Suspect));
    m.at(1_099).feed(Input::Timeout).expect_idle();
    m.at(1_100).feed(Input::Timeout).expect_lost(2);
    m.enter(2, &[0, 1, 3, 4, 5, 6], 0).expect_wanted(&[0, 2, 3]);
    m.hello(2, 1).expect_event(joined(2, 1));
    assert_eq!(m.expect_transmit(0, Kind::Member), Message::Lost { first: PeerId(0), mask: 0 });
    m.expect_wanted(&[0, 3]).disconnect(2).at(5_000).feed(Input::Timeout).expect_lost(3);
}

/// A message of a round can get lost only with a connection that breaks within its view.
#[test]
fn a_connection_that_ended_in_an_earlier_view_does_not_break_the_present_one() {
    let mut m = node(6);
    m.enter(1, &ALL, 0).fetch(1);
    m.hello(2, 1).expect_event(joined(2, 1)).enter(2, &[0, 1, 3, 4, 5, 6], 0).expect_wanted(&[0, 3]);
    m.enter(3, &ALL, 0).expect_wanted(&[0, 2]).expect_idle();
    m.disconnect(2).hello(2, 1);
    assert!(m.expect_report().broken);
    m.expect_idle().enter(4, &[0, 1, 3, 4, 5, 6], 0).disconnect(2).enter(5, &ALL, 0).hello(2, 1).expect_idle();
}

/// A node waits without limit where drivers do not reconnect.
#[test]
fn without_patience_a_neighbour_that_does_not_come_is_awaited() {
    let mut m = node_of(6, |setup| Setup { patience: Patience::none(), ..setup });
    m.enter(1, &ALL, 0).fetch(1).at(60_000).feed(Input::Timeout).expect_idle();
    assert_eq!(m.presence(2), Presence::Awaited);
}

#[test]
fn a_ring_wants_both_neighbours_a_worker_its_servers_and_a_mesh_all() {
    let wanted = |recipe: Recipe, me: u32, on_demand: bool| {
        let mut m = trace_of(recipe, me, 5, |setup| Setup { on_demand, ..setup });
        if me > 0 && recipe.is_collective() {
            m.hello(0, 1).wants.clear();
            m.tell(0, Message::Prepare { view: Sequence(1) });
            m.tell(0, Message::MemberRange { view: Sequence(1), first: PeerId(0), count: 5 });
            let (view, donor) = (Sequence(1), PeerId(0));
            m.tell(0, Message::Commit(Commit { view, round: Clock(0), donor, last: false, returns: false }));
        }
        m.machine.wanted().iter().map(|peer| peer.0).collect::<Vec<_>>()
    };
    let ring = Recipe::sync().with_topology(Topology::Ring);
    assert_eq!(wanted(ring, 3, true), [0, 2, 4]);
    // The coordinator's node needs all, and so does a node whose driver connects all.
    assert_eq!((wanted(ring, 0, true), wanted(ring, 3, false)), ([1, 2, 3, 4].into(), [0, 1, 2, 4].into()));
    assert_eq!(wanted(Recipe::sparse(0.1), 3, true), [0, 1, 2, 4]);
    // Workers want the server, and the server all workers; rank 5 is the server.
    assert_eq!(
        (wanted(Recipe::asynchronous(), 3, true), wanted(Recipe::asynchronous(), 5, true)),
        ([5].into(), [0, 1, 2, 3, 4].into())
    );
}

/// The host of the coordinator is connected with all nodes, and tells them of a loss. A node that is connected with the
/// one that is lost sees that itself.
#[test]
fn the_host_tells_of_a_loss_that_far_nodes_do_not_see() {
    let recipe = Recipe::sync().with_topology(Topology::Tree { fan_in: 2 });
    let failure = Failure::Panicked;
    let told = |on_demand: bool| {
        let mut m = trace_of(recipe, 0, 3, |setup| Setup { on_demand, ..setup });
        for peer in [1, 2] {
            m.hello(peer, 1).wants.clear();
        }
        m.tell(1, Message::Failed { failure });
        let told = m.wants.iter().filter_map(|output| match output {
            Output::Transmit { peer, header, .. } if header.message().kind() == Kind::Failed => {
                Some((peer.0, *header.message()))
            }
            _ => None,
        });
        told.collect::<Vec<_>>()
    };
    assert_eq!(
        (told(true), told(false)),
        ([(2, Message::PeerLost { peer: PeerId(1), failure: Some(failure) })].into(), [].into())
    );
    let mut m = node(6);
    m.enter(1, &ALL, 0).fetch(1).hello(2, 1).expect_event(joined(2, 1));
    let news = |peer| Message::PeerLost { peer: PeerId(peer), failure: Some(failure) };
    m.tell(0, news(5)).expect_event(Event::PeerFailed { peer: PeerId(5), failure });
    m.expect_event(Event::PeerLost { peer: PeerId(5) }).expect_idle();
    let peer = PeerId(4);
    m.tell(0, Message::PeerLost { peer, failure: None }).expect_event(Event::PeerLost { peer }).expect_idle();
    m.tell(0, news(2)).tell(0, news(6)).tell(2, news(4)).tell(0, news(99)).expect_idle();
}

/// A neighbour that is down is given up in this node's own time. If the next view does not have it before that, this node
/// misses it no more, and the host's news is all that there is.
#[test]
fn a_loss_that_the_host_tells_is_reported_once() {
    let news = Message::PeerLost { peer: PeerId(2), failure: None };
    let down = || {
        let mut m = node(6);
        m.enter(1, &ALL, 0).fetch(1).hello(2, 1).expect_event(joined(2, 1));
        m.disconnect(2).tell(0, news).expect_idle();
        m
    };
    let mut m = down();
    m.at(1_100).feed(Input::Timeout).expect_lost(2).expect_idle();
    m.enter(2, &[0, 1, 3, 4, 5, 6], 0).expect_idle();
    let mut m = down();
    m.enter(2, &[0, 1, 3, 4, 5, 6], 0).expect_event(Event::PeerLost { peer: PeerId(2) }).expect_idle();
    m.at(1_100).feed(Input::Timeout);
    m.expect_lost(3).expect_idle();
    // It has come back before the next view.
    let mut m = down();
    m.hello(2, 1);
    m.wants.clear();
    m.enter(2, &[0, 1, 3, 4, 5, 6], 0).expect_idle();
}
