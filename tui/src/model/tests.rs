//! Models of frames that were made up: rates, restarts, and bounds. `tests/truth.rs` has real runs.

use super::*;
use crate::sample::SAMPLES_MAX;
use gradwire_core::status::{Counters, Histogram, LinkStatus, Role};
use gradwire_core::telemetry::{Progress, Times};
use gradwire_core::{Clock, Incarnation, Status};

/// A worker's report `at` seconds after the start: a step takes 6 ms to compute and 4 ms of waiting.
pub(crate) fn report(rank: u32, at: f64, steps: u64) -> Report {
    let link = LinkStatus {
        peer: PeerId(rank + 1),
        bytes_out: steps * 1000,
        bytes_in: steps * 500,
        messages_out: steps,
        messages_in: steps,
        last_heard: None,
        response_ns: 1_500_000,
        arriving_ns: 0,
    };
    let status = Status {
        me: PeerId(rank),
        role: Role::Worker,
        clock: Clock(steps),
        waiting: None,
        counters: Counters { dense_bytes: steps * 10_000, ..Counters::default() },
        staleness: Histogram::default(),
        workers: Vec::new(),
        links: vec![link],
        residual_norm: 0.5,
        residual_updates: 0.25,
        rest: None,
        density: 0.01,
        tau: 0.001,
        clipped: 0.0,
        forgotten: 0.0,
        times: Times::default(),
        operations: 1,
        updates: 0,
        view: 0,
        members: 0,
    };
    let times = Times {
        elapsed: (at * 1e9) as u64,
        steps,
        stepped: (at * 1e9) as u64,
        stepped_compute: steps * 6_000_000,
        compute: steps * 6_000_000,
        wait: steps * 4_000_000,
        ..Times::default()
    };
    let progress = Progress { loss: 1.0, accuracy: 0.5, examples: steps * 16 };
    Report {
        at: Instant::from_nanos((at * 1e9) as u64),
        host: "a\u{1b}[2Jb".into(),
        run: None,
        incarnation: Incarnation(1),
        stage: Stage::Active,
        status,
        times,
        progress,
    }
}

#[test]
fn rates_are_differences_between_reports() {
    let mut model = Model::default();
    // Ten steps of 10 ms between two reports.
    for k in 0..30 {
        model.take(Frame::Report(report(0, 0.1 * f64::from(k), 10 * k as u64)));
    }
    let node = &model.nodes[&0];
    assert!((node.now.examples - 1600.0).abs() < 1.0, "{:?}", node.now);
    assert!((node.now.step - 10.0).abs() < 0.1 && (node.now.wait - 0.4).abs() < 0.01, "{:?}", node.now);
    assert!((node.now.ratio - 0.1).abs() < 1e-9 && node.host == "a[2Jb");
}

/// A run of two nodes is followed by another one. Its board begins at time 0 again.
#[test]
fn a_restarted_run_does_not_look_silent() {
    let silent = |model: &Model| model.nodes.values().filter(|node| model.silence(node) >= SILENT_AFTER).count();
    let of_run = |name: Option<&str>| Run { name: name.map(|name| name.parse().unwrap()), ..Run::default() };
    // With and without a name; in another run, and in the same one, in which the first process was restarted.
    for names in [[None, None], [Some("one"), Some("two")], [Some("one"), Some("one")]] {
        let [one, two] = names.map(of_run);
        let mut model = Model::default();
        let by = |run: &Run, rank, at, steps| Frame::Report(Report { run: run.name, ..report(rank, at, steps) });
        let present = |at, start| Frame::Present(Present { at: Instant::from_nanos(at), start });
        model.take(present(0, 7));
        model.take(Frame::Run(one.clone()));
        for rank in 0..3 {
            model.take(by(&one, rank, 100.0, 1000));
        }
        let lost = Note { at: model.now, rank: PeerId(0), kind: NoteKind::PeerLost, peer: PeerId(2), number: 0 };
        model.take(Frame::Note(lost));
        model.take(present(0, 8));
        model.take(Frame::Run(two.clone()));
        for rank in 0..2 {
            model.take(by(&two, rank, 0.1, 1));
        }
        assert_eq!((silent(&model), model.nodes.len(), model.notes.len()), (0, 2, 1), "{names:?}");
        let same_run = names[0].is_some() && names[0] == names[1];
        assert_eq!((model.notes[0].kind, model.notes[0].number), (NoteKind::AnotherLog, u64::from(same_run)));
        // A node of the new run that falls silent is seen at once, and not when the run is as old as the former.
        model.take(by(&two, 0, 3.0, 30));
        assert_eq!(silent(&model), 1, "{names:?}");
    }
    // The name can be known later than the description.
    let mut model = Model::default();
    let by = |name: &str, rank, at| Report { run: Some(name.parse().unwrap()), ..report(rank, at, 9) };
    model.take(Frame::Run(of_run(None)));
    model.take(Frame::Report(by("one", 0, 5.0)));
    model.take(Frame::Report(by("one", 1, 5.0)));
    model.take(Frame::Run(of_run(None)));
    model.take(Frame::Report(by("two", 0, 7.0)));
    assert_eq!(model.nodes.len(), 1);
}

/// A connection that breaks and is made again brings the same notes once more.
#[test]
fn notes_are_not_doubled_by_a_new_connection() {
    let mut model = Model::default();
    let note = Note { at: Instant::from_nanos(0), rank: PeerId(0), kind: NoteKind::Joined, peer: PeerId(0), number: 0 };
    for _ in 0..2 {
        model.take(Frame::Run(Run::default()));
        model.take(Frame::Report(report(0, 1.0, 1)));
        model.take(Frame::Note(note));
    }
    assert_eq!((model.notes.len(), model.nodes.len()), (1, 1));
}

/// A process that comes back counts from 0 again: no rate is measured across that.
#[test]
fn a_new_incarnation_is_another_process() {
    let mut model = Model::default();
    model.take(Frame::Report(report(0, 1.0, 10)));
    // It has taken more steps since than the former process had.
    let again = Report { incarnation: Incarnation(2), ..report(0, 2.0, 5000) };
    model.take(Frame::Report(again));
    assert_eq!(model.nodes[&0].now.examples, 0.0);
}

/// Histories and nodes stay within their bounds, also when times and counters run back.
#[test]
fn histories_and_nodes_are_bounded() {
    let mut model = Model::default();
    for k in 0..100_000u64 {
        let at = if k % 997 == 0 { 1.0 } else { k as f64 };
        model.take(Frame::Report(report(0, at, if k % 1009 == 0 { 0 } else { k })));
    }
    let node = &model.nodes[&0];
    let samples = node.history.iter().count();
    assert!(samples <= SAMPLES_MAX && samples > SAMPLES_MAX / 4);
    assert!(model.history.iter().count() <= SAMPLES_MAX);
    for rank in 0..3000 {
        model.take(Frame::Report(report(rank, 1.0, 1)));
    }
    assert_eq!(model.nodes.len(), NODES_MAX);
}

/// A rate is measured from the end of a step to the end of another one, also if reports come in the middle of steps.
#[test]
fn rates_are_of_whole_steps() {
    let mut model = Model::default();
    // Steps of 300 ms, of which 200 ms are computing. Reports come every 100 ms, and a little late.
    for k in 1..40u64 {
        let (at, steps) = (k as f64 * 0.1 + 0.03, k / 3);
        let times =
            Times { steps, stepped: steps * 300_000_000, stepped_compute: steps * 200_000_000, ..Times::default() };
        let elapsed = (at * 1e9) as u64;
        model.take(Frame::Report(Report { times: Times { elapsed, ..times }, ..report(0, at, steps) }));
    }
    let now = model.nodes[&0].now;
    assert!((now.step - 300.0).abs() < 1e-6 && (now.compute - 200.0).abs() < 1e-6, "{now:?}");
    assert!((now.examples - 16.0 / 0.3).abs() < 1e-6, "{now:?}");
}

/// Nodes that are silent or have left are in no sum, and a sum comes back with its node.
#[test]
fn only_live_nodes_are_summed() {
    let mut model = Model::default();
    let take = |model: &mut Model, ranks: std::ops::Range<u32>, from: u32, to: u32| {
        for k in from..to {
            ranks
                .clone()
                .for_each(|rank| model.take(Frame::Report(report(rank, 0.1 * f64::from(k), 10 * u64::from(k)))));
        }
    };
    take(&mut model, 0..3, 0, 30);
    assert!((model.total(|node| node.now.examples) - 4800.0).abs() < 1.0);
    take(&mut model, 0..2, 30, 60);
    assert!((model.total(|node| node.now.examples) - 3200.0).abs() < 1.0 && model.live().count() == 2);
    model.take(Frame::Report(Report { stage: Stage::Left, ..report(1, 6.0, 600) }));
    assert!((model.total(|node| node.now.examples) - 1600.0).abs() < 1.0 && model.has_left(1));
    // Without frames, this program's clock goes on.
    model.pass(2.0);
    assert_eq!((model.total(|node| node.now.examples), model.live().count()), (0.0, 0));
    take(&mut model, 0..1, 81, 90);
    assert!(model.total(|node| node.now.examples) > 100.0);
}

/// The straggler computes longer than other workers; the clocks of a synchronous run are equal.
#[test]
fn the_straggler_is_found_by_its_computing_time() {
    let mut model = Model::default();
    model.take(Frame::Run(Run { workers: 4, ..Run::default() }));
    for k in 0..30u64 {
        for rank in 0..4 {
            let mut report = report(rank, 0.1 * k as f64, 10 * k);
            if rank == 2 {
                (report.times.stepped_compute, report.times.wait) = (10 * k * 9_900_000, 10 * k * 100_000);
            }
            model.take(Frame::Report(report));
        }
    }
    let (rank, times) = model.straggler().unwrap();
    assert!(rank == 2 && (times - 1.65).abs() < 0.01, "{rank} {times}");
}

/// A value that was not told is absent, in the model and in JSON.
#[test]
fn an_accuracy_that_was_not_told_is_absent() {
    let mut model = Model::default();
    for k in 0..30 {
        let report = report(0, 0.1 * f64::from(k), 10 * k as u64);
        let progress = Progress { accuracy: f32::NAN, ..report.progress };
        model.take(Frame::Report(Report { progress, ..report }));
    }
    assert!(model.history.iter().last().unwrap().accuracy.is_nan());
    assert!(crate::json::object(&model).contains("\"accuracy\":null"));
}

/// Former reports of a board have no single links. The first report with links is no rate: its counts are of the whole run.
#[test]
fn links_have_no_rate_across_the_past_of_a_board() {
    let mut model = Model::default();
    let mut former = report(0, 100.0, 10_000);
    former.status.links[0].peer = PeerId(0);
    model.take(Frame::Report(former));
    for tenth in 1..=20u32 {
        let at = 100.0 + f64::from(tenth) / 10.0;
        model.take(Frame::Report(report(0, at, (at * 100.0) as u64)));
        let rate = model.nodes[&0].link_rates.get(&1).copied().unwrap_or(0.0);
        assert!(rate < 110_000.0, "{at}: {rate}");
    }
    assert!((model.nodes[&0].link_rates[&1] - 100_000.0).abs() < 5_000.0, "{:?}", model.nodes[&0].link_rates);
}
