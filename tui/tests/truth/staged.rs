//! Four real runs: a slow rank, a thin network, a killed server, and a loss that diverges. The screen alone tells a newcomer
//! the fault, the node, and the remedy.

use std::sync::atomic::Ordering;
use std::thread;

use crate::run::{Processes, Run};
use crate::watch::{LONG, Watch};
use crate::{is_ok, thin};

/// Bytes per second of a thin link, and the parameters of a model of which a vector takes 0.2 s over it.
const THIN: f64 = 5e6;
const LARGE: usize = 250_000;

/// The words that the screens of both sizes show.
#[track_caller]
fn screens_say(address: &str, wait: f64, words: &[&str]) {
    let of = |size| Watch::screen(address, size, wait);
    // At the same time: the situations pass.
    let (narrow, wide) = thread::scope(|scope| {
        let narrow = scope.spawn(|| of((80, 24)));
        (narrow.join().unwrap(), of((200, 50)))
    });
    for screen in [narrow, wide] {
        for word in words {
            assert!(screen.contains(word), "{word}: not in {screen}");
        }
    }
}

/// A sentence with `#` for each number.
fn masked(text: &str) -> String {
    let mut masked = String::new();
    for c in text.chars() {
        match c {
            '0'..='9' if masked.ends_with('#') => {}
            '0'..='9' => masked.push('#'),
            c => masked.push(c),
        }
    }
    masked.replace("#.#", "#")
}

/// Waits until the diagnosis, with numbers masked, is this sentence.
#[track_caller]
fn diagnosed(dtop: &Watch, sentence: &str) {
    dtop.wait(LONG, sentence, |it| masked(it.text("diagnosis")) == sentence);
}

#[test]
fn a_slow_rank() {
    let run = Run::start("sync", &[20, 60, 20], 0);
    let dtop = Watch::new(&run.address);
    diagnosed(
        &dtop,
        "# % of what # equal workers could do; peer # computes # times the median and costs # %; look for other work at \
         host-#, or give it a smaller batch",
    );
    screens_say(&run.address, 3.0, &["peer 1 computes", "times the median", "look for other work at host-1"]);
    run.finish();
}

#[test]
fn a_thin_network() {
    let run = Run::over(thin::cluster(3, &[1, 2], THIN), "sync topology=tree", &[50, 50, 50], LARGE);
    let dtop = Watch::new(&run.address);
    diagnosed(
        &dtop,
        "# % of what # equal workers could do; # % of a step is sending over all links (# MB/s); topology=mesh with \
         codec=threshold at # % would make it # %",
    );
    let words = ["of a step is sending over all links", "topology=mesh with codec=threshold at 1 % would make it"];
    screens_say(&run.address, 4.0, &words);
    run.finish();
}

#[test]
fn a_thin_link() {
    let run = Run::over(thin::cluster(3, &[2], THIN), "sync topology=tree", &[50, 50, 50], LARGE);
    let dtop = Watch::new(&run.address);
    let between = "over the link between peers 0 and 2 (";
    dtop.wait(LONG, between, |it| it.text("diagnosis").contains(between));
    let words =
        ["of a step is sending over the link between peers 0 and 2", "look at the network of host-0 and host-2"];
    screens_say(&run.address, 4.0, &words);
    run.finish();
}

/// 32. A server process is killed: it is named, with those that wait for it. 33. After its restart the run goes on.
#[test]
fn a_killed_server() {
    let mut run = Processes::with_servers("async", 2, 1, 10);
    run.start_all("served");
    let dtop = Watch::new(&run.address);
    let steps = |it: &crate::json::Json| it.node(1).map_or(0.0, |node| node.number("steps"));
    dtop.wait(LONG, "healthy", |it| is_ok(it, 3.0) && steps(it) > 30.0);
    // 32. It is named, with those that wait for it.
    run.kill(2);
    diagnosed(
        &dtop,
        "peer # (server) at host-# is dead, stopped or cut off, peers # and # wait for it: restart it with the same \
         arguments; no worker can go on without it",
    );
    let words =
        ["STALLED", "peer 2 (server) at host-2 is dead", "peers 0 and 1 wait for it", "restart it with the same"];
    screens_say(&run.address, 1.0, &words);
    // 33. It is restarted, and the run goes on.
    run.start(2, "served");
    dtop.wait(LONG, "restarted server", |it| is_ok(it, 3.0) && it.number("examples_per_second") > 100.0);
}

#[test]
fn a_divergence() {
    let run = Run::start("sync", &[20, 20, 20], 0);
    let rate = |rate: u64| run.workers.iter().for_each(|worker| worker.rate.store(rate, Ordering::Relaxed));
    let dtop = Watch::new(&run.address);
    rate(30);
    let loss = |it: &crate::json::Json| !it.is_null("loss") && it.number("loss") < 0.15 && it.number("samples") > 12.0;
    dtop.wait(LONG, "learns", |it| is_ok(it, 3.0) && loss(it));
    // The data of one worker are broken: it is named, and not the rate.
    run.workers[1].broken.store(true, Ordering::Relaxed);
    diagnosed(
        &dtop,
        "the loss of peer # at host-# is not finite any more (since # s, # s ago), the losses of # others are: look at \
         its data, lower the learning rate, and begin again or resume a checkpoint",
    );
    screens_say(&run.address, 1.5, &["the loss of peer 1 at host-1 is not finite any more (since", "look at its data"]);
    run.workers[1].broken.store(false, Ordering::Relaxed);
    dtop.wait(LONG, "recovers", |it| !it.text("diagnosis").contains("the loss"));
    // The rate is too high.
    rate(208);
    dtop.wait(LONG, "grows", |it| {
        masked(it.text("diagnosis")).starts_with("the loss has grown from # to #")
            && it.text("diagnosis").ends_with("): lower the learning rate")
    });
    screens_say(&run.address, 1.5, &["the loss has grown from 0.1", "s ago", "lower the learning rate"]);
    dtop.wait(LONG, "is not finite", |it| {
        it.text("diagnosis").starts_with("the loss is not finite any more (since")
            || it.text("diagnosis").contains("others are: look at its data")
    });
    run.finish();
}
