//! The sentences of the diagnosis, for models that were made up.

use gradwire_core::status::{LinkStatus, Role, Waiting};
use gradwire_core::telemetry::{Frame, Run};
use gradwire_core::{Clock, Instant};

use super::*;

/// A worker's time per second: computing, coding, sending and waiting, in hundredths, and its milliseconds per step.
pub(crate) type Shape = (u64, u64, u64, u64, f64);

/// A run whose workers have these shapes, over some seconds. `more` changes reports.
pub(crate) fn run(
    shapes: &[Shape],
    servers: u32,
    recipe: &str,
    more: impl Fn(u32, f64, &mut gradwire_core::telemetry::Report) -> bool,
) -> Model {
    let mut model = Model::default();
    let workers = shapes.len() as u32;
    model.take(Frame::Run(Run { recipe: recipe.into(), workers, servers, parameters: 1000, name: None }));
    for tick in 0..80 {
        let now = f64::from(tick) / 4.0;
        for rank in 0..workers + servers {
            let shape = shapes.get(rank as usize).copied();
            let (compute, coding, sending, waiting, step) = shape.unwrap_or((0, 10, 0, 0, 0.0));
            let steps = if step > 0.0 { (1e3 * now / step) as u64 } else { 0 };
            let mut report = crate::model::tests::report(rank, now, steps);
            let times = &mut report.times;
            let of = |hundredths: u64| (now * 1e7) as u64 * hundredths;
            (times.compute, times.encode, times.wire) = (of(compute), of(coding), of(sending));
            times.wait = of(coding + sending + waiting);
            times.stepped_compute = of(compute);
            report.host = format!("host-{rank}");
            report.progress.loss = (2.0 / (1.0 + now)) as f32;
            if rank >= workers {
                report.status.role = Role::Server;
                (report.times.steps, report.times.wait, report.progress.loss) = (0, 0, f32::NAN);
            }
            if more(rank, now, &mut report) {
                model.take(Frame::Report(report));
            }
        }
    }
    model
}

pub(crate) const EQUAL: Shape = (96, 1, 2, 1, 20.0);

pub(crate) fn waits(report: &mut gradwire_core::telemetry::Report, on: u32, since: f64) {
    let (on, reported_by, since) = (PeerId(on), report.status.me, Instant::from_nanos((since * 1e9) as u64));
    report.status.waiting = Some(Waiting { on, at: Clock(7), clock: Clock(8), since, reported_by });
}

/// A slow rank, a thin network, a killed server, and a loss that grows. The screen names the fault, the node and the remedy.
pub(crate) fn staged() -> [(&'static str, Model); 4] {
    let slow = run(&[(32, 1, 1, 66, 60.0), (98, 1, 1, 0, 60.0), (32, 1, 1, 66, 60.0)], 0, "sync", |_, _, _| true);
    let thin = run(&[(28, 1, 50, 21, 70.0); 4], 0, "sync", |_, _, _| true);
    let killed = run(&[EQUAL; 4], 1, "ssp bound=3", |rank, now, report| {
        if rank < 4 && now > 15.0 {
            waits(report, 4, 15.0);
        }
        rank < 4 || now <= 15.0
    });
    let diverged = run(&[EQUAL; 4], 0, "sync", |_, now, report| {
        report.progress.loss = (if now < 10.0 { 2.0 - now / 8.0 } else { 0.75 + 0.2 * (now - 10.0) }) as f32;
        true
    });
    [("slow", slow), ("thin", thin), ("killed", killed), ("diverged", diverged)]
}

fn says(model: &Model) -> String {
    Diagnosis::of(model).text
}

#[test]
fn the_staged_situations_have_their_sentences() {
    let [slow, thin, killed, diverged] = staged().map(|(_, model)| Diagnosis::of(&model));
    assert_eq!(
        slow.text,
        "32 % of what 3 equal workers could do; peer 1 computes 3.1 times the median and costs 66 %; look for other work \
         at host-1, or give it a smaller batch"
    );
    assert_eq!(
        thin.text,
        "28 % of what 4 equal workers could do; 50 % of a step is sending; topology=mesh with \
         codec=threshold at 1 % would make it 1 %"
    );
    assert_eq!(
        killed.text,
        "peer 4 (server) at host-4 is dead, stopped or cut off, peers 0, 1, 2 and 1 more wait for it: restart it with the \
         same arguments; no worker can go on without it"
    );
    assert_eq!(
        diverged.text,
        "the loss has grown from 0.750 to 2.650 (since 10.0 s, 9.8 s ago): lower the learning rate"
    );
    assert_eq!(
        [slow.grade, thin.grade, killed.grade, diverged.grade],
        [Grade::Slow, Grade::Slow, Grade::Bad, Grade::Bad]
    );
}

#[test]
fn a_run_at_its_speed_is_good_and_costs_are_named() {
    let good = Diagnosis::of(&run(&[(99, 0, 0, 1, 20.0); 4], 0, "sync", |_, _, _| true));
    assert_eq!((good.text.as_str(), good.grade), ("99 % of what 4 equal workers could do", Grade::Good));
    let model = run(&[(80, 18, 1, 1, 20.0); 2], 0, "sync", |_, _, _| true);
    assert!(says(&model).contains("18 % of a step is encoding, decoding and applying; a cheaper codec"));
    // One thin link, of a recipe whose workers do not wait for each other.
    let model = run(&[EQUAL, EQUAL, (20, 0, 70, 10, 96.0)], 0, "async", |_, _, _| true);
    assert!(
        says(&model)
            .contains("peer 2 is sending for 70 % of the time, the median is 2 %; look at the network of host-2")
    );
    // A straggler in such a recipe costs its own time only.
    let model = run(&[EQUAL, EQUAL, EQUAL, (97, 1, 1, 1, 59.0)], 0, "async", |_, _, _| true);
    assert!(says(&model).starts_with("80 % of what 4"), "{}", says(&model));
    assert!(says(&model).contains("peer 3 computes 3.0 times the median and costs 17 %"), "{}", says(&model));
    // Two stragglers.
    let model = run(&[EQUAL, EQUAL, EQUAL, (97, 1, 1, 1, 59.0), (97, 1, 1, 1, 59.0)], 0, "async", |_, _, _| true);
    assert!(says(&model).contains("and 1 more compute up to 3.0 times"), "{}", says(&model));
    // A recipe with a codec.
    let model = run(&[(28, 1, 50, 21, 70.0); 4], 0, "ring-int8", |_, _, _| true);
    assert!(says(&model).contains("50 % of a step is sending; topology=mesh"), "{}", says(&model));
    // Waits that no transmission explains, and a recipe that is sparse already.
    let model = run(&[(28, 1, 10, 61, 70.0); 4], 0, "mesh", |_, _, _| true);
    assert!(says(&model).contains("71 % of a step is waiting for the network; a sparser codec or a longer period"));
    // A busy server.
    let model = run(&[(50, 0, 5, 45, 40.0); 4], 1, "async", |rank, _, report| {
        report.times.encode = if rank == 4 { report.times.elapsed / 10 * 9 } else { report.times.encode };
        true
    });
    assert!(says(&model).contains("peer 4, a server, is busy 90 % of the time; more servers"), "{}", says(&model));
}

#[test]
fn a_lost_node_a_hanging_one_and_a_lost_source_say_what_to_do() {
    let model = run(&[EQUAL; 4], 0, "mesh", |rank, now, _| rank != 2 || now < 15.0);
    assert_eq!(
        says(&model),
        "peer 2 at host-2 is dead, stopped or cut off: restart it with the same arguments; without it the run has 3 of 4 \
         workers"
    );
    let model = run(&[EQUAL; 3], 0, "sync", |rank, now, report| {
        if rank != 1 && now > 5.0 {
            waits(report, 1, 5.0);
        }
        if rank == 1 && now > 5.0 {
            report.times.stepped = 5_000_000_000;
        }
        true
    });
    assert!(
        says(&model).starts_with("peers 0 and 2 wait for peer 1 at host-1, which reports but does not go on"),
        "{}",
        says(&model)
    );
    let mut model = run(&[EQUAL; 3], 0, "sync", |_, _, _| true);
    model.pass(5.0);
    assert!(says(&model).starts_with("look at the process that serves this monitor"), "{}", says(&model));
}

#[test]
fn a_loss_that_is_no_number_is_named_and_a_loss_that_was_not_told_is_not() {
    for broken in [f32::INFINITY, f32::NAN] {
        let model = run(&[EQUAL; 2], 0, "sync", |rank, now, report| {
            report.progress.loss = if rank == 1 && now > 10.0 { broken } else { report.progress.loss };
            true
        });
        assert!(
            says(&model).starts_with("the loss of peer 1 at host-1 is not finite any more (since 10.0 s, 9.8 s ago), the losses of 1 others are: look at its data"), "{}", says(&model)
        );
    }
    // All of them, one before the others.
    let model = run(&[EQUAL; 3], 0, "sync", |rank, now, report| {
        let from = if rank == 2 { 10.0 } else { 14.0 };
        report.progress.loss = if now > from { f32::INFINITY } else { report.progress.loss };
        true
    });
    assert!(
        says(&model).starts_with("the loss is not finite any more (since 10.0 s, 9.8 s ago, first of peer 2 at host-2): lower the learning rate"), "{}", says(&model)
    );
    // It grows at a minority.
    let model = run(&[EQUAL; 3], 0, "sync", |rank, now, report| {
        if rank == 1 && now > 10.0 {
            report.progress.loss = (10.0 * (now - 9.9)) as f32;
        }
        true
    });
    assert!(
        says(&model).contains("that of peer 1 at host-1 and not of 2 others: look at its data"),
        "{}",
        says(&model)
    );
    // It was never told, or a report has the accuracy only.
    for unknown_from in [0.0, 18.0] {
        let model = run(&[EQUAL; 2], 0, "sync", |_, now, report| {
            report.progress.loss = if now >= unknown_from { f32::NAN } else { report.progress.loss };
            true
        });
        assert!(says(&model).starts_with("96 %"), "{}", says(&model));
    }
    let mut model = run(&[EQUAL; 2], 0, "sync", |_, _, _| true);
    let (at, rank, peer) = (model.now, PeerId(0), PeerId(1));
    model.take(Frame::Note(Note { at, rank, kind: NoteKind::Rejected, peer, number: 5 }));
    assert!(says(&model).starts_with("peer 1 at host-1 sends updates that are not finite"), "{}", says(&model));
}

#[test]
fn before_the_first_step_the_missing_workers_are_named() {
    assert_eq!(says(&Model::default()), "no node has reported yet");
    let model = run(&[(0, 0, 0, 0, 0.0); 3], 0, "sync", |rank, _, _| rank == 0);
    assert_eq!(says(&model), "2 of 3 workers have not reported, peer 1 first");
}

/// A run that has died says what came before: a server without which no worker could go on, or a loss.
#[test]
fn a_lost_source_says_what_came_before() {
    let mut model = run(&[EQUAL; 2], 1, "async", |_, _, _| true);
    let (at, rank, peer) = (model.now, PeerId(0), PeerId(2));
    model.take(Frame::Note(Note { at, rank, kind: NoteKind::Cut, peer, number: 0 }));
    model.pass(5.0);
    assert_eq!(
        says(&model),
        "before that, peer 2 (server) at host-2 was lost, and nodes could not go on without it: start all nodes again"
    );
    let mut model = run(&[EQUAL; 2], 0, "sync", |_, now, report| {
        report.progress.loss = if now > 15.0 { f32::INFINITY } else { 0.5 };
        true
    });
    model.pass(5.0);
    assert!(says(&model).starts_with("before that, the loss is not finite any more (since 15.0 s"), "{}", says(&model));
}

/// The link whose bodies take longest to arrive is named, with the waits of all workers of a round.
#[test]
fn a_thin_link_is_named_by_its_ends_and_a_thin_node_by_its_links() {
    // A tree of three: bodies of 1 MB take 0.25 s each way over the thin links.
    let says_for = |thin: &dyn Fn(u32, u32) -> bool| {
        let model = run(&[(28, 1, 0, 71, 700.0); 3], 0, "sync topology=tree", |rank, now, report| {
            let links = (0..3).filter(|peer| *peer != rank && (rank == 0 || *peer == 0));
            let link = |peer: u32| LinkStatus {
                peer: PeerId(peer),
                bytes_in: (now * 1e6) as u64,
                arriving_ns: (now * 1e9 * if thin(rank, peer) { 0.3 } else { 0.03 }) as u64,
                ..report.status.links[0]
            };
            report.status.links = links.map(link).collect();
            report.status.role = Role::Collective;
            true
        });
        says(&model)
    };
    let between = |a: u32, b: u32| move |x: u32, y: u32| (x, y) == (a, b) || (y, x) == (a, b);
    let text = says_for(&between(0, 2));
    assert!(
        text.contains("30 % of a step is sending over the link between peers 0 and 2 (3.3 MB/s), 41 % other"),
        "{text}"
    );
    assert!(text.contains("; look at the network of host-0 and host-2; or topology=mesh"), "{text}");
    let text = says_for(&|_, _| true);
    assert!(text.contains("30 % of a step is sending over all links (3.3 MB/s), 41 % other waits"), "{text}");
}
