//! The agreement of nodes that resume, input by input.

use super::*;
use crate::wire::Moments;

/// The rank of the server in runs of one worker.
const S: u32 = 1;

/// Worker 0 of one, with a checkpoint of moment 1, connected to the server.
fn gathering() -> Trace {
    let resume = Some(alloc::vec![Resumed { at: Clock(1), made: 1 }]);
    let mut w = trace_of(Recipe::asynchronous().with_lambda(1.0), 0, 1, |setup| Setup { resume, ..setup });
    w.feed(Input::Connected { peer: PeerId(S) }).expect_transmit(S, Kind::Moments);
    w.expect_idle();
    w
}

/// The server lacks the moment, and the parameters have not changed since: it gets them. After a step, it would begin
/// with the parameters of another moment.
#[test]
fn parameters_of_a_moment_are_given_until_the_first_step() {
    let mut w = gathering();
    w.tell(S, Message::Moments(Moments::new([])));
    w.expect_signal(Signal::Resume { at: Clock(1), own: true }).feed(Input::Resumed).expect_signal(Signal::Restore);
    w.feed(Input::Resumed).expect_transmit(S, Kind::Hello);
    w.expect_idle();
    let fetch = |view| Message::FetchParameters { view: Sequence(view) };
    let given = Message::Parameters { view: Sequence(1), round: Clock(1), vector: 0, riders: None };
    w.tell(S, fetch(2)).expect_idle().tell(S, fetch(1));
    assert_eq!(w.expect_transmit(S, Kind::State), given);
    w.expect_idle().disconnect(S).feed(Input::Connected { peer: PeerId(S) }).expect_transmit(S, Kind::Hello);
    w.tell(S, fetch(1)).expect_transmit(S, Kind::State);
    let (rank, incarnation, digest) = (PeerId(S), Incarnation(1), w.setup.contract.digest());
    let hello = Hello { rank, incarnation, digest, has_parameters: false, resumed_at: Clock(1), run: 0 };
    w.tell(S, Message::Hello(hello)).expect_idle();
    w.send(S, Message::Params(reply(Occasion::Welcome { lead: 0 }, 0, 0, 0)), 1.0);
    w.expect_signal(Signal::Joined { clock: Clock(0) }).step(0.5).expect_transmit(S, Kind::Push);
    w.disconnect(S).feed(Input::Connected { peer: PeerId(S) }).expect_transmit(S, Kind::Hello);
    w.tell(S, fetch(1)).expect_idle();
}

/// The machine compares the text behind a hello of another contract, so the text must not be dropped before. That of
/// the same contract is read once.
#[test]
fn the_text_behind_a_hello_is_kept_for_the_machine_if_contracts_differ() {
    for change in [0, 1] {
        let mut w = gathering();
        let (rank, incarnation, digest) = (PeerId(S), Incarnation(1), w.setup.contract.digest() ^ change);
        let hello = Hello { rank, incarnation, digest, has_parameters: true, resumed_at: Clock(0), run: 0 };
        let header = Header::new(digest as u32, rank, incarnation, 8, Message::Hello(hello));
        w.feed(Input::Header { peer: rank, header });
        let (op, into) = w.take_receive(S).unwrap();
        assert_eq!(into.is_some(), change == 1);
        w.feed(Input::Completed { op, result: KernelResult::Nothing });
        assert!(w.take_receive(S).is_none());
    }
}
