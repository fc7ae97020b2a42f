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

/// What was meant for a connection that broke does not go out on the next one, which begins with a hello.
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
