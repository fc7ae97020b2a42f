//! The hub, input by input: hellos, contracts, misuse and deadlines.

use super::server::server;
use super::*;

#[test]
fn hellos_are_checked() {
    let mut s = trace(Recipe::asynchronous().with_lambda(1.0), 2, 2);
    s.feed(Input::Connected { peer: PeerId(0) });
    s.expect_transmit(0, Kind::Hello);
    s.announce(0, Message::Push(push_message(0, 1, 1, 0)), LEN);
    s.expect_close(0, ProtocolError::NoHello { kind: Kind::Push });
    s.feed(Input::Connected { peer: PeerId(0) });
    s.expect_transmit(0, Kind::Hello);
    let (digest, incarnation) = (s.setup.contract.digest(), Incarnation(1));
    let stranger = Hello { rank: PeerId(1), incarnation, digest, has_parameters: false, resumed_at: Clock(0), run: 0 };
    s.tell(0, Message::Hello(stranger));
    s.expect_close(0, ProtocolError::WrongRank { expected: PeerId(0), got: PeerId(1) }).expect_idle();
}

#[test]
fn another_contract_is_refused_by_its_first_differing_line() {
    let mut s = trace(Recipe::ssp(2).with_lambda(1.0), 2, 2);
    let contract = Contract::new(&Layout::flat(LEN), &Recipe::ssp(5).with_lambda(1.0), s.setup.cluster, 0);
    let text = contract.text();
    s.feed(Input::Connected { peer: PeerId(0) });
    s.expect_transmit(0, Kind::Hello);
    let (digest, incarnation) = (contract.digest(), Incarnation(1));
    let hello = Hello { rank: PeerId(0), incarnation, digest, has_parameters: false, resumed_at: Clock(0), run: 0 };
    let input = s.header(0, 1, text.len(), Message::Hello(hello));
    s.feed(input);
    let Some(Output::Receive { op, into: Some(into), .. }) = s.wants.pop_front() else { panic!("the text is read") };
    s.pool.bytes_mut(into).copy_from_slice(text.as_bytes());
    s.feed(Input::Completed { op, result: KernelResult::Nothing });
    let line = text.lines().position(|line| line == "bound = 5").unwrap() as u32;
    s.expect_signal(Signal::ContractDiffers { peer: PeerId(0), line, length: text.len() as u32 });
    assert!(matches!(s.wants.pop_front(), Some(Output::Close { reason: ProtocolError::Contract { .. }, .. })));
}

/// Two nodes that know their runs, and know different ones, refuse each other. A node without a run is welcome.
#[test]
fn a_node_of_another_run_is_refused() {
    let [ours, theirs] = ["morning", "evening"].map(|name| name.parse::<RunId>().unwrap());
    let named = |setup| Setup { run: Some(ours), ..setup };
    let come = |s: &mut Trace, run: u64| {
        s.feed(Input::Connected { peer: PeerId(0) });
        let Message::Hello(own) = s.expect_transmit(0, Kind::Hello) else { panic!("a hello comes first") };
        assert_eq!(own.run, ours.tag());
        let digest = s.setup.contract.digest();
        let hello = Hello {
            rank: PeerId(0),
            incarnation: Incarnation(1),
            digest,
            has_parameters: false,
            resumed_at: Clock(0),
            run,
        };
        s.tell(0, Message::Hello(hello));
    };
    let run = theirs.tag();
    let refused = ProtocolError::OtherRun { expected: ours.tag(), got: run };
    let mut s = trace_of(Recipe::sync(), 1, 2, named);
    come(&mut s, run);
    s.expect_signal(Signal::OtherRun { peer: PeerId(0), run }).expect_close(0, refused).expect_idle();
    for welcome in [0, ours.tag()] {
        let mut s = trace_of(Recipe::sync(), 1, 2, named);
        come(&mut s, welcome);
        s.expect_event(joined(0, 1));
    }
}

#[cfg(planted)]
#[test]
#[should_panic(expected = "assertion")]
fn a_planted_lack_of_the_check_of_runs_is_found() {
    let run = |name: &str| name.parse::<RunId>().ok();
    let bug = Some(crate::planted::Bug::RunNotChecked);
    let mut s = trace_of(Recipe::sync(), 1, 2, |setup| Setup { run: run("morning"), bug, ..setup });
    s.feed(Input::Connected { peer: PeerId(0) });
    s.expect_transmit(0, Kind::Hello);
    let (digest, incarnation) = (s.setup.contract.digest(), Incarnation(1));
    let tag = run("evening").map_or(0, |run| run.tag());
    let (has_parameters, resumed_at) = (false, Clock(0));
    s.tell(0, Message::Hello(Hello { rank: PeerId(0), incarnation, digest, has_parameters, resumed_at, run: tag }));
    s.expect_signal(Signal::OtherRun { peer: PeerId(0), run: tag });
}

/// A message for a connection that broke does not go out on the next one, which begins with a hello.
#[test]
fn operations_that_the_driver_was_not_given_end_with_their_connection() {
    let mut s = server(Recipe::asynchronous().with_lambda(1.0), 2);
    let header = s.header(0, 1, LEN * 4, Message::Push(push_message(0, 1, 1, 0)));
    // A kernel takes its time: the driver takes no outputs meanwhile.
    for input in [header, Input::Disconnected { peer: PeerId(0) }, Input::Connected { peer: PeerId(0) }] {
        s.machine.handle_input(s.now, input).unwrap();
    }
    s.drain();
    s.expect_transmit(0, Kind::Hello);
    s.expect_idle();
    assert_eq!(s.machine.status().operations, 0);
    // The same update comes again.
    s.disconnect(0).hello(0, 1).expect_params(0, 0, 0, 0);
    s.push(0, 1, 0, 1.0).expect_params(0, 1, 1, 0);
}

/// The same for the closing of a connection, and for the counters of sent messages.
#[test]
fn a_new_connection_is_not_closed_for_what_came_on_the_one_before() {
    let mut s = server(Recipe::asynchronous().with_lambda(1.0), 2);
    let gap = s.header(0, 1, LEN * 4, Message::Push(push_message(0, 1, 7, 0)));
    let before = s.counters();
    let (gone, back) = (Input::Disconnected { peer: PeerId(0) }, Input::Connected { peer: PeerId(0) });
    for input in [gap, gone, back, gone, back] {
        s.machine.handle_input(s.now, input).unwrap();
    }
    s.drain();
    s.expect_transmit(0, Kind::Hello);
    s.expect_idle();
    let sent = s.counters().dense_bytes - before.dense_bytes;
    assert_eq!(sent, (crate::wire::HEADER_LEN as u64) + u64::from(s.setup.contract.len()));
    s.disconnect(0).hello(0, 1).expect_params(0, 0, 0, 0).expect_idle();
    let sent = s.counters().dense_bytes - before.dense_bytes - sent;
    let (header, hello) = (crate::wire::HEADER_LEN as u64, u64::from(s.setup.contract.len()));
    assert_eq!(sent, header + hello + header + LEN as u64 * 4);
}

/// A short break is counted each time, and changes the record of the peer as little as possible.
#[test]
fn reconnections_are_counted_and_end_what_the_peer_had_announced() {
    let mut s = server(Recipe::ssp(0).with_lambda(1.0), 2);
    s.tell(1, Message::Silence { span_ms: 5000 });
    s.at(100).push(0, 1, 0, 0.0).expect_transmit(0, Kind::Awaits);
    assert!(s.machine.awaited_silence().is_some());
    // A peer that is still silent says so again.
    s.disconnect(1).hello(1, 1).expect_params(1, 0, 0, 0).expect_idle();
    assert_eq!(s.machine.awaited_silence(), None);
    s.disconnect(1).hello(1, 1).expect_params(1, 0, 0, 0).expect_idle();
    s.disconnect(1).hello(1, 2);
    assert_eq!(s.counters().reconnects, 2);
}

/// The time after which a peer is given up counts from its last connection, also if it has not said hello on that one.
#[test]
fn a_peer_is_given_up_after_its_last_connection() {
    let mut s = server(Recipe::asynchronous().with_lambda(1.0), 2);
    s.at(100).disconnect(0);
    let due = |millis: u64| Some(Instant::from_nanos(millis * 1_000_000));
    assert_eq!(s.until(), due(1100));
    s.at(500).feed(Input::Connected { peer: PeerId(0) }).expect_transmit(0, Kind::Hello);
    assert_eq!(s.until(), None);
    s.at(900).disconnect(0);
    assert_eq!(s.until(), due(1900));
}

/// A process that has said that it fails, and says hello again, has not failed.
#[test]
fn a_failure_counts_until_the_next_hello() {
    let mut s = server(Recipe::asynchronous().with_lambda(1.0), 2);
    let failure = Failure::Cancelled;
    s.tell(0, Message::Failed { failure }).expect_event(Event::PeerFailed { peer: PeerId(0), failure });
    s.expect_event(Event::PeerLost { peer: PeerId(0) }).expect_idle();
    s.disconnect(0).hello(0, 2).expect_event(joined(0, 2)).expect_params(0, 0, 0, 0);
    // A broken connection is tolerated again.
    s.disconnect(0).expect_idle();
    s.at(1000).feed(Input::Timeout).expect_event(Event::PeerLost { peer: PeerId(0) });
}

/// A node that is connected here announces its silence here. Reports of other nodes on it may be out of date.
#[test]
fn hearsay_of_a_silence_counts_only_for_nodes_that_are_not_connected() {
    for connected in [true, false] {
        let mut s = server(Recipe::ssp(0).with_lambda(1.0), 3);
        if !connected {
            s.disconnect(2);
        }
        s.push(0, 1, 0, 0.0).push(1, 1, 0, 0.0);
        s.wants.clear();
        s.tell(1, Message::Awaits { on: PeerId(2), at: Clock(0), silent_ms: 5000 });
        assert_eq!(s.machine.awaited_silence().is_some(), !connected);
        // The silence has ended before its time.
        s.tell(1, Message::Awaits { on: PeerId(2), at: Clock(0), silent_ms: 0 });
        assert_eq!(s.machine.awaited_silence(), None);
    }
}

/// The time to an answer counts from the first message that has not been answered.
#[test]
fn response_times_count_from_the_first_unanswered_message() {
    let mut s = server(Recipe::asynchronous().with_lambda(1.0), 2);
    let heard = |s: &Trace| s.machine.status().links[0].response_ns;
    s.at(10).push(0, 1, 0, 0.0).expect_params(0, 1, 1, 0);
    s.at(15).feed(Input::Silence { span: Duration::from_secs(3) }).expect_transmit(0, Kind::Silence);
    s.expect_transmit(1, Kind::Silence);
    let before = heard(&s);
    s.at(30).push(0, 2, 1, 0.0);
    let took = 20_000_000;
    assert_eq!(heard(&s), if before == 0 { took } else { before - before / 8 + took / 8 });
}

/// A node is told that its earlier process took part only if there was one.
#[test]
fn only_a_second_process_resumes_again() {
    let resumed = Some(Resumed { at: Clock(3), made: 2 });
    let recipe = Recipe::asynchronous().with_lambda(1.0);
    let mut s = trace_of(recipe, 1, 1, |setup| Setup { resumed, ..setup });
    for incarnation in [1, 1, 2] {
        s.feed(Input::Connected { peer: PeerId(0) });
        s.expect_transmit(0, Kind::Hello);
        let (rank, digest, has_parameters) = (PeerId(0), s.setup.contract.digest(), false);
        let incarnation = Incarnation(incarnation);
        let hello = Hello { rank, incarnation, digest, has_parameters, resumed_at: Clock(3), run: 0 };
        let input = s.header(0, incarnation.0, 0, Message::Hello(hello));
        s.feed(input);
        let told = s
            .wants
            .iter()
            .any(|want| matches!(want, Output::Transmit { header, .. } if header.kind() == Message::Again.kind()));
        assert_eq!(told, incarnation == Incarnation(2));
        s.wants.clear();
        s.disconnect(0);
    }
}

#[test]
fn misuse_changes_nothing() {
    let mut s = server(Recipe::asynchronous().with_lambda(1.0), 2);
    let before = s.machine.status();
    for (input, misuse) in [
        (Input::Step { weight: 1 }, Misuse::NotReady),
        (Input::Completed { op: OpId(99), result: KernelResult::Nothing }, Misuse::UnknownOp { op: OpId(99) }),
        (Input::Connected { peer: PeerId(2) }, Misuse::UnknownPeer { peer: PeerId(2) }),
        (Input::Disconnected { peer: PeerId(7) }, Misuse::UnknownPeer { peer: PeerId(7) }),
    ] {
        assert_eq!(s.machine.handle_input(s.now, input), Err(misuse));
    }
    assert_eq!(s.machine.status(), before);
    let mut worker = trace(Recipe::asynchronous().with_lambda(1.0), 0, 2);
    assert_eq!(worker.machine.handle_input(worker.now, Input::Step { weight: 1 }), Err(Misuse::NotReady));
}

/// A worker of servers talks to the servers only: there is nothing to say to other workers.
#[test]
fn a_node_knows_no_other_nodes_than_its_neighbours() {
    let recipe = Recipe::asynchronous().with_lambda(1.0);
    let neighbours = recipe.neighbours(Cluster { workers: 3, servers: 1 }, PeerId(0));
    let mut s = trace_of(recipe, 0, 3, |setup| Setup { neighbours, ..setup });
    for peer in [1, 2, 4].map(PeerId) {
        let misuse = s.machine.handle_input(s.now, Input::Connected { peer });
        assert_eq!(misuse, Err(Misuse::UnknownPeer { peer }));
    }
    let links = s.machine.status().links;
    assert_eq!(links.iter().map(|link| link.peer).collect::<Vec<_>>(), [PeerId(3)]);
    s.feed(Input::Connected { peer: PeerId(3) }).expect_transmit(3, Kind::Hello);
    s.expect_idle();
}

/// If a node is the neighbour of another one, that one is its neighbour.
#[test]
fn neighbours_are_neighbours_of_each_other() {
    for (recipe, servers) in [(Recipe::sync(), 0), (Recipe::sync(), 1), (Recipe::asynchronous(), 3)] {
        let cluster = Cluster { workers: 5, servers };
        let knows = |a, b| a != b && recipe.neighbours(cluster, PeerId(a)).contains(&b);
        let pairs = || (0..cluster.nodes()).flat_map(|a| (0..cluster.nodes()).map(move |b| (a, b)));
        assert!(pairs().all(|(a, b)| knows(a, b) == knows(b, a)), "{recipe}");
        let expected = if servers == 3 { 2 * 5 * 3 } else { cluster.nodes() * (cluster.nodes() - 1) };
        assert_eq!(pairs().filter(|(a, b)| knows(*a, *b)).count() as u32, expected, "{recipe}");
    }
}

/// Time enters through inputs and never runs backwards; a deadline that has fired is not given again.
#[test]
fn deadlines_fire_once() {
    let mut s = server(Recipe::ssp(0).with_lambda(1.0), 2);
    s.at(100).push(0, 1, 0, 0.0);
    let due = Instant::from_nanos(2_100_000_000);
    assert_eq!(s.until(), Some(due));
    s.at(50).feed(Input::Timeout).expect_idle();
    s.at(2100).feed(Input::Timeout);
    s.expect_event(Event::Stalled { on: PeerId(1), at: Clock(0), since: Instant::from_nanos(100_000_000) });
    s.expect_transmit(0, Kind::Awaits);
    assert_eq!(s.until(), None);
}
