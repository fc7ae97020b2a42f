//! What dtop says about real runs: runs of several processes that are stopped, continued, killed, restarted and ended,
//! and runs of threads with local steps, slow workers, thresholds and servers. The numbered comments are situations.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod json;
mod run;
mod staged;
mod thin;
mod watch;

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use json::Json;
use run::{BATCH, Processes, Run, StepMs};
use watch::{LONG, SOON, Watch, close};

/// The largest error of a rate.
const EXACT: f64 = 0.05;
const SECOND: Duration = Duration::from_secs(1);

/// Not a test: the program of the processes of a run.
#[test]
fn node_of_a_run() {
    run::node();
}

fn is_ok(object: &Json, live: f64) -> bool {
    object.health() == "ok" && object.number("live") == live
}

/// Compares 30 objects with what workers say of the same steps: the step time of each, and the examples per second of all.
#[track_caller]
fn rates_are_those_of_the_run(dtop: &Watch, workers: u32, said: impl Fn(usize, (usize, usize)) -> StepMs) {
    let (mut of_steps, mut of_rates) = (Vec::new(), Vec::new());
    for _ in 0..30 {
        let object = dtop.next();
        let mut rate = 0.0;
        for rank in 0..workers {
            let node = object.node(rank).unwrap();
            let Some(steps) = node.rate_steps() else { panic!("{object:?}") };
            let (shown, StepMs { said, least, most }) = (node.number("step_ms"), said(rank as usize, steps));
            let possible = (1.0 - EXACT) * least..=(1.0 + EXACT) * most;
            assert!(possible.contains(&shown), "step time: dtop shows {shown}, the run says {least} to {most}");
            of_steps.push((shown / said - 1.0).abs());
            rate += f64::from(BATCH) * 1e3 / said;
        }
        of_rates.push((object.number("examples_per_second") / rate - 1.0).abs());
    }
    // Few are off: a worker that does not get a processor right after its step notices the end of the step late; and a step
    // that takes more than twice as long as those before lowers the rate while it lasts.
    for mut errors in [of_steps, of_rates] {
        errors.sort_by(f64::total_cmp);
        assert!(errors[errors.len() / 2] <= EXACT, "{errors:?}");
    }
}

/// The reason names a peer.
fn names(object: &Json, peer: &str) -> bool {
    object.text("reason").contains(peer)
}

/// Three processes in a synchronous mean.
#[test]
fn processes_that_stop_die_and_come_back() {
    let mut run = Processes::new("sync", 3);
    run.start_all("morning");
    let dtop = Watch::new(&run.address);
    // 1. Healthy.
    let object = dtop.wait(LONG, "healthy", |it| is_ok(it, 3.0) && it.node(2).unwrap().number("steps") > 30.0);
    assert_eq!((object.text("run"), object.number("restarts")), ("morning", 0.0));
    // 2. Step time and examples per second are those of the run, over the same steps by its own clocks.
    rates_are_those_of_the_run(&dtop, 3, |rank, steps| run.step_ms(rank, steps));
    // 3. A stopped worker: not green after 2 s, and it is named.
    run.signal(2, "-STOP");
    let object = dtop.wait(SOON, "stopped", |it| it.health() != "ok");
    assert!(names(&object, "peer 2"), "{object:?}");
    // 4. It is shown as silent, and in no count.
    dtop.wait(SOON, "silent", |it| matches!(it.state(2), "SILENT" | "GIVEN UP") && it.number("live") == 2.0);
    // 5. It is continued.
    run.signal(2, "-CONT");
    dtop.wait(LONG, "continued", |it| is_ok(it, 3.0) && it.state(2) == "ok");
    // 6. A killed worker is named.
    run.kill(2);
    let object = dtop.wait(SOON, "killed", |it| it.health() != "ok");
    assert!(names(&object, "peer 2"), "{object:?}");
    // 7. When its peers have given it up, they go on: no stall.
    let object =
        dtop.wait(LONG, "given up", |it| it.state(2) == "GIVEN UP" && it.number("examples_per_second") > 100.0);
    assert!(object.health() == "DEGRADED" && names(&object, "peer 2"), "{object:?}");
    dtop.keeps(3 * SECOND, "no stall of a node that was given up", |it| it.health() == "DEGRADED");
    // 8. Its last rate is in no sum.
    let object = dtop.next();
    let sum: f64 = [0, 1].map(|rank| object.node(rank).unwrap().number("examples_per_second")).iter().sum();
    close("sum of the live nodes", object.number("examples_per_second"), sum, 1e-6);
    // 9. It is restarted.
    run.start(2, "morning");
    run.begins(2);
    dtop.wait(SOON, "restarted worker", |it| is_ok(it, 3.0) && it.state(2) == "ok");
    assert_eq!(dtop.next().number("restarts"), 0.0);
}

/// The process that serves the monitors.
#[test]
fn a_source_that_stops_dies_and_is_replaced() {
    let mut run = Processes::new("sync", 2);
    run.start_all("morning");
    let dtop = Watch::new(&run.address);
    dtop.wait(LONG, "healthy", |it| is_ok(it, 2.0) && it.node(0).unwrap().number("steps") > 50.0);
    // 10. A stopped source is lost.
    run.signal(0, "-STOP");
    dtop.wait(SOON, "stopped source", |it| it.health() == "LOST" && names(it, "has sent nothing"));
    // 11. None of its figures is shown as today's.
    let object = dtop.wait(SOON, "no sums", |it| it.number("live") == 0.0);
    assert_eq!(object.number("examples_per_second"), 0.0);
    // 12. It is continued.
    run.signal(0, "-CONT");
    dtop.wait(LONG, "continued source", |it| is_ok(it, 2.0));
    // 13. A killed source is lost, and is not a run that has ended.
    run.kill(0);
    let object = dtop.wait(SOON, "killed source", |it| it.health() == "LOST");
    assert!(names(&object, "the source is gone"), "{object:?}");
    // 14. Rank 0 is restarted in the same run: a new picture, with a mark.
    run.start(0, "morning");
    run.begins(0);
    let object = dtop.wait(SOON, "restarted rank 0", |it| is_ok(it, 2.0) && it.state(0) == "ok");
    assert_eq!(object.number("restarts"), 1.0);
    let steps = object.node(0).unwrap().number("steps");
    assert!(steps < run.steps(1) as f64, "{object:?}");
    // 15. All are killed, and another run takes the address: right as soon as it runs.
    run.kill(1);
    run.kill(0);
    dtop.wait(SOON, "all killed", |it| it.health() == "LOST");
    run.start_all("evening");
    (0..2).for_each(|rank| run.begins(rank));
    let object = dtop.wait(SOON, "another run", |it| it.health() == "ok" && it.text("run") == "evening");
    assert!(object.number("restarts") == 2.0 && object.number("at") < 30.0, "{object:?}");
    dtop.wait(SOON, "both nodes", |it| is_ok(it, 2.0));
    dtop.keeps(2 * SECOND, "the new run is not suspected", |it| it.health() == "ok");
    // 16. It ends well: every monitor hears so, with a summary, and it stays so.
    let other = Watch::new(&run.address);
    other.wait(LONG, "second monitor", |it| is_ok(it, 2.0));
    run.finish();
    for dtop in [&dtop, &other] {
        let object = dtop.wait(SOON, "ended", |it| it.health() == "ended");
        assert!(names(&object, "2 workers") && names(&object, "loss 0.5"), "{object:?}");
        dtop.keeps(2 * SECOND, "stays ended", |it| it.health() == "ended");
    }
    let object = dtop.next();
    assert_eq!((object.state(0), object.state(1), object.number("examples_per_second")), ("finished", "finished", 0.0));
}

/// The exit codes of `--once`.
#[test]
fn once_says_lost_by_its_exit_code() {
    let mut run = Processes::new("sync", 2);
    run.start_all("codes");
    let dtop = Watch::new(&run.address);
    dtop.wait(LONG, "healthy", |it| is_ok(it, 2.0));
    // 17. Healthy, and then stopped while dtop collects.
    let (code, object) = dtop.once(1.0);
    assert_eq!((code, object.health()), (0, "ok"), "{object:?}");
    let signal = thread::scope(|scope| {
        let once = scope.spawn(|| dtop.once(5.0));
        thread::sleep(SECOND);
        run.signal(0, "-STOP");
        once.join().unwrap()
    });
    assert_eq!((signal.0, signal.1.health()), (5, "LOST"), "{:?}", signal.1);
    run.signal(0, "-CONT");
}

/// Ten local steps per synchronisation.
#[test]
fn local_steps_count_when_they_happen() {
    let run = Run::start("local-sparse", &[20, 20], 0);
    let dtop = Watch::new(&run.address);
    dtop.wait(LONG, "healthy", |it| is_ok(it, 2.0) && it.node(0).unwrap().number("step_ms") > 0.0);
    // 18. The time of a step, and not that of a period. 19. Examples per second.
    rates_are_those_of_the_run(&dtop, 2, |rank, steps| run.step_ms(rank, steps));
    // 20. Steps within a period count: several counts between two synchronisations.
    let counts: Vec<f64> = (0..20).map(|_| dtop.next().node(0).unwrap().number("steps")).collect();
    let distinct = counts.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!(distinct >= 12, "{counts:?}");
    run.finish();
}

/// A worker that computes three times as long as the others.
#[test]
fn a_slow_worker_is_found_and_its_peers_wait() {
    let run = Run::start("sync", &[20, 60, 20], 0);
    let dtop = Watch::new(&run.address);
    // 21. The clocks are equal, but it is named by its computing time.
    let object = dtop.wait(LONG, "straggler", |it| !it.is_null("straggler") && is_ok(it, 3.0));
    assert_eq!(object.get("straggler").number("rank"), 1.0, "{object:?}");
    let times = dtop.median(SECOND, |it| match it.get("straggler") {
        Json::Null => 0.0,
        straggler => straggler.number("times_median"),
    });
    assert!((2.3..=3.3).contains(&times), "{times}");
    // 22. Its peers wait for two thirds of the time, and it does not.
    let wait = dtop.median(SECOND, |it| it.node(0).unwrap().number("wait_share"));
    assert!((0.5..=0.75).contains(&wait), "{wait}");
    let wait = dtop.median(SECOND, |it| it.node(1).unwrap().number("wait_share"));
    assert!(wait < 0.2, "{wait}");
    dtop.wait(SOON, "diagnosis of a straggler", |it| {
        it.text("diagnosis").contains("of what 3 equal workers could do; peer 1 computes")
    });
    // 23. An accuracy that was not told is absent, and one that is told is there.
    let object = dtop.next();
    assert!(object.is_null("accuracy") && object.is_null("loss"), "{object:?}");
    run.workers[0].accuracy.store(75, Ordering::Relaxed);
    dtop.wait(LONG, "accuracy", |it| !it.is_null("accuracy") && it.number("accuracy") == 0.75);
    // 24. A long step: the wait for it counts while it lasts, and a step as long as the ones before is no stall.
    run.workers[1].pace.store(2600, Ordering::Relaxed);
    dtop.wait(LONG, "waits under way", |it| it.node(0).unwrap().number("wait_share") > 0.95);
    // The first of these steps is far longer than the ones before.
    let step = |it: &Json| it.node(1).unwrap().number("step_ms") > 2000.0;
    dtop.wait(LONG, "long steps", |it| step(it) && it.health() == "ok");
    dtop.keeps(3 * SECOND, "slow, but not stalled", |it| it.health() == "ok");
    run.workers[1].pace.store(1, Ordering::Relaxed);
    run.finish();
}

/// A worker hangs: it neither steps nor leaves.
#[test]
fn a_hanging_worker_is_a_stall() {
    let run = Run::start("sync", &[10, 10], 0);
    let dtop = Watch::new(&run.address);
    dtop.wait(LONG, "healthy", |it| is_ok(it, 2.0) && it.node(0).unwrap().number("step_ms") > 0.0);
    // 25. Its peer waits all the time, and it is named.
    run.workers[1].pace.store(6000, Ordering::Relaxed);
    let object = dtop.wait(LONG, "stalled", |it| it.health() == "STALLED");
    assert!(names(&object, "for peer 1") && object.number("live") == 2.0, "{object:?}");
    assert!(object.node(0).unwrap().number("wait_share") > 0.9, "{object:?}");
    // 26. The rate of its steps falls while it hangs.
    dtop.wait(LONG, "no rate", |it| it.number("examples_per_second") < 300.0);
    run.workers[1].pace.store(1, Ordering::Relaxed);
    dtop.wait(LONG, "goes on", |it| is_ok(it, 2.0));
    run.finish();
}

/// A mesh with thresholds.
#[test]
fn a_mesh_that_a_worker_leaves_and_that_ends() {
    let run = Run::start("mesh tau=0.015625", &[10, 10, 10], 0);
    let dtop = Watch::new(&run.address);
    dtop.wait(LONG, "healthy", |it| is_ok(it, 3.0) && it.node(0).unwrap().number("density") > 0.0);
    // 27. A monitor that comes late has the past.
    thread::sleep(3 * SECOND);
    let late = Watch::new(&run.address);
    let object = late.wait(LONG, "late monitor", |it| it.health() == "ok");
    assert!(object.number("samples") >= 3.0, "{object:?}");
    // 28. A worker leaves: the run is healthy without it.
    run.workers[2].leave.store(true, Ordering::Relaxed);
    dtop.wait(LONG, "left", |it| it.state(2) == "left" && is_ok(it, 2.0));
    dtop.keeps(3 * SECOND, "healthy without it", |it| is_ok(it, 2.0));
    let rate = dtop.next();
    let sum: f64 = [0, 1].map(|rank| rate.node(rank).unwrap().number("examples_per_second")).iter().sum();
    close("sum without it", rate.number("examples_per_second"), sum, 1e-6);
    // 29. After the end, the density is that of the run and not of the last messages.
    let density = dtop.median(SECOND, |it| it.node(0).unwrap().number("density"));
    run.finish();
    let object = dtop.wait(LONG, "ended", |it| it.health() == "ended");
    close("density", object.node(0).unwrap().number("density"), density, 0.5);
}

/// Workers of a server. One of them dies.
#[test]
fn a_server_is_busy_and_a_dropped_worker_has_failed() {
    let run = Run::start("async", &[10, 10], 1);
    let dtop = Watch::new(&run.address);
    // 30. The server works, and has no steps.
    let object = dtop.wait(LONG, "busy", |it| is_ok(it, 3.0) && it.node(2).unwrap().number("busy_share") > 0.0);
    let server = object.node(2).unwrap();
    assert_eq!((server.text("role"), server.number("steps"), server.number("wait_share")), ("server", 0.0, 0.0));
    // 31. A worker that ends without leaving has failed: the run has not ended well.
    run.workers[1].drop.store(true, Ordering::Relaxed);
    let object = dtop.wait(LONG, "failed", |it| it.health() == "DEGRADED");
    assert!(names(&object, "peer 1") && object.state(1) == "FAILED", "{object:?}");
    assert_eq!(object.number("live"), 2.0);
    run.finish();
    dtop.wait(LONG, "ended", |it| it.health() == "ended");
}

/// One dies, and comes back.
#[test]
fn a_process_of_a_mesh_with_thresholds_is_killed() {
    let mut run = Processes::new("mesh tau=0.000244140625", 3);
    run.start_all("meshed");
    let dtop = Watch::new(&run.address);
    dtop.wait(LONG, "healthy", |it| is_ok(it, 3.0) && it.node(2).unwrap().number("steps") > 30.0);
    // 34. It is named, its peers go on without a stall, and their rates are those of the run.
    run.kill(2);
    let object = dtop.wait(SOON, "killed", |it| it.health() != "ok");
    assert!(names(&object, "peer 2") && object.number("live") == 2.0, "{object:?}");
    let object = dtop.wait(LONG, "given up", |it| it.state(2) == "GIVEN UP");
    let text = object.text("diagnosis");
    assert!(text.contains("peer 2 at host-2 is dead") && text.contains("the run has 2 of 3 workers"), "{text}");
    dtop.keeps(SECOND, "no stall", |it| it.health() == "DEGRADED" && it.number("live") == 2.0);
    rates_are_those_of_the_run(&dtop, 2, |rank, steps| run.step_ms(rank, steps));
    // 35. It comes back.
    run.start(2, "meshed");
    run.begins(2);
    dtop.wait(SOON, "back", |it| is_ok(it, 3.0) && it.state(2) == "ok");
}

/// A long run, of which the board keeps ever fewer former reports.
#[test]
fn a_late_monitor_of_a_thinned_past_shows_the_present() {
    // So many nodes that the board thins their past after 8 s.
    let run = Run::start("async", &[400; 120], 1);
    thread::sleep(10 * SECOND);
    // Twice as fast from now on: a rate of the past would be wrong.
    run.workers.iter().for_each(|worker| worker.pace.store(200, Ordering::Relaxed));
    thread::sleep(2 * SECOND);
    // 36. A late monitor shows the rates of the present, and curves from the start.
    let late = Watch::new(&run.address);
    late.wait(LONG, "all nodes", |it| is_ok(it, 121.0) && it.number("samples") >= 5.0);
    late.wait(SOON, "right rates", |it| {
        let shown = it.node(60).unwrap();
        shown.rate_steps().is_some_and(|steps| {
            let said = run.step_ms(60, steps).said;
            said < 300.0 && (shown.number("step_ms") / said - 1.0).abs() <= EXACT
        })
    });
    run.finish();
}
