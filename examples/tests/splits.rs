//! Processes on machines whose network splits and heals: no process ends, and all end with the same parameters.
//!
//! Each case is a run of four machines with one cut: a topology, the machines that are cut off, the directions in which
//! packets disappear, and how long. A part of the cases runs by default; `GRADWIRE_CUTS` sets how many (all of them: 90)
//! and `GRADWIRE_CUT` the first one. Needs root; without it the test says that it is skipped. `tests/splits.rs` of the
//! package gradwire does the same with simulated networks, in much greater numbers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod binary;
#[allow(dead_code, reason = "the tests of this file use a part of it")]
mod machines;
#[allow(dead_code, reason = "the tests of this file use a part of it")]
mod process;

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use machines::{Family, Machines};
use process::{Ended, Process};

const MACHINES: usize = 4;
const DEAD_AFTER: Duration = Duration::from_secs(1);
/// Steps per second of each worker, in a run that is left alone.
const PACE: u32 = 25;
/// About 17 s, most of which lie after the cut: a worker that comes back after the run has ended is too late.
const EPOCHS: u32 = 18;
/// Cases that run at the same time. Their processes mostly sleep.
const ABREAST: usize = 6;

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Kind {
    Tree,
    Ring,
    Mesh,
    /// Each step waits for all workers. The server is a thread of rank 0.
    SyncServer,
    /// The server is on a machine of its own.
    AsyncServer,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Tree, Self::Ring, Self::Mesh, Self::SyncServer, Self::AsyncServer];

    fn flags(self) -> &'static str {
        match self {
            Self::Tree => "--recipe sync",
            Self::Ring => "--recipe sync --topology ring",
            Self::Mesh => "--recipe mesh",
            Self::SyncServer => "--recipe hardsync",
            Self::AsyncServer => "--recipe async --apart",
        }
    }

    fn workers(self) -> usize {
        if self == Self::AsyncServer { MACHINES - 1 } else { MACHINES }
    }

    /// The process of the coordinator or the server.
    fn host(self) -> usize {
        if self == Self::AsyncServer { MACHINES - 1 } else { 0 }
    }

    fn has_views(self) -> bool {
        matches!(self, Self::Tree | Self::Ring | Self::Mesh)
    }
}

/// The directions in which packets disappear, as seen from the machines that are cut off.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Silent {
    Both,
    In,
    Out,
}

/// One case: a run of four machines, and one cut.
#[derive(Copy, Clone, Debug)]
struct Cut {
    number: usize,
    kind: Kind,
    /// The machines that are cut off from the other machines.
    side: &'static [usize],
    silent: Silent,
    lasts: Duration,
    family: Family,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, kind, side, silent, lasts, family } = self;
        write!(f, "cut {number}: {kind:?}, {side:?} cut off ({silent:?}) for {lasts:?}, {family:?}")
    }
}

/// All cases, the kinds and directions in turn, so that the first few are a fair choice.
fn cuts() -> Vec<Cut> {
    let sides: [&[usize]; 3] = [&[0], &[2], &[0, 1]];
    let lengths = [DEAD_AFTER * 3, DEAD_AFTER * 7 / 10];
    let count = Kind::ALL.len() * 3 * sides.len() * lengths.len();
    let cut = |number: usize| {
        // A step that has no divisor in common with the count visits all.
        let at = number * 7 % count;
        let (kind, at) = (Kind::ALL[at % 5], at / 5);
        let (silent, at) = ([Silent::Both, Silent::In, Silent::Out][at % 3], at / 3);
        let (side, at) = (sides[at % 3], at / 3);
        // Where the server is the last machine, it takes the place of rank 0.
        let side = match (kind, side) {
            (Kind::AsyncServer, [0]) => &[MACHINES - 1],
            (_, side) => side,
        };
        let family = [Family::V4, Family::V6][number % 2];
        Cut { number, kind, side, silent, lasts: lengths[at], family }
    };
    (0..count).map(cut).collect()
}

impl Cut {
    /// Runs the case. `Err`: how many processes ended with an error, and a description of the failure. `None`: skipped.
    fn run(&self) -> Option<Result<(), (usize, String)>> {
        let machines = Machines::new("processes_survive_cuts", MACHINES, self.family)?;
        let meet = if self.family == Family::V6 { format!("[{}]", machines.v6(0)) } else { machines.v4(0) };
        let args = |rank: usize| {
            format!(
                "--rank {rank} --processes {MACHINES} --meet {meet}:29510 --insecure-open --json {} --hidden 32 \
                 --pace {PACE} --epochs {EPOCHS} --dead-after {} --deadline 30",
                self.kind.flags(),
                DEAD_AFTER.as_secs_f64(),
            )
        };
        let mut all: Vec<Process> = (0..MACHINES).map(|rank| machines.start(rank, "node", &args(rank))).collect();
        all[..self.kind.workers()].iter_mut().for_each(Process::begins);
        std::thread::sleep(Duration::from_millis(300));
        let (out, back) = (self.silent != Silent::In, self.silent != Silent::Out);
        machines.part(self.side, out, back);
        std::thread::sleep(self.lasts);
        machines.heal();
        let ended: Vec<Ended> = all.into_iter().map(Process::end).collect();
        let failed = ended.iter().filter(|it| it.code != Some(0)).count();
        let said = ended.iter().enumerate().flat_map(|(i, it)| it.said.iter().map(move |line| format!("[{i}] {line}")));
        let said = said.collect::<Vec<_>>().join("\n");
        if std::env::var_os("GRADWIRE_LOG").is_some() {
            println!("{self}\n{said}");
        }
        Some(self.check(&ended).map_err(|what| (failed, format!("{self}: {what}\n{said}"))))
    }

    fn check(&self, ended: &[Ended]) -> Result<(), String> {
        let codes: Vec<_> = ended.iter().map(|it| it.code).collect();
        if codes.iter().any(|code| *code != Some(0)) {
            return Err(format!("expected exit codes 0, got {codes:?}"));
        }
        self.check_results(ended)?;
        if self.lasts <= DEAD_AFTER {
            // A busy machine may make a short cut longer.
            return Ok(());
        }
        self.check_loss(ended)?;
        if self.kind.has_views() { self.check_views(ended) } else { Ok(()) }
    }

    /// All workers have taken all of their steps, and have the same parameters.
    fn check_results(&self, ended: &[Ended]) -> Result<(), String> {
        let workers = 0..self.kind.workers();
        let of = |name: &str| workers.clone().map(|rank| result(&ended[rank], rank, name)).collect::<Vec<_>>();
        for name in ["digest", "steps"] {
            let values = of(name);
            if values.iter().any(|value| *value != values[0]) {
                return Err(format!("expected equal {name}, got {values:?}"));
            }
        }
        // A server that was not killed has applied each contribution once. A synchronous one drops late contributions.
        if self.kind == Kind::AsyncServer {
            let steps: usize = of("steps").iter().map(|steps| steps.parse::<usize>().unwrap()).sum();
            let applied = result(&ended[self.kind.host()], self.kind.host(), "staleness_count");
            if applied != steps.to_string() {
                return Err(format!("expected {steps} contributions in the parameters, got {applied}"));
            }
        }
        Ok(())
    }

    /// The process with the coordinator or the server has given up each worker on the other side: the cut was a cut.
    fn check_loss(&self, ended: &[Ended]) -> Result<(), String> {
        let said = &ended[self.kind.host()].said;
        for peer in (0..self.kind.workers()).filter(|peer| !self.is_with_host(*peer)) {
            let text = format!("peer {peer} was unreachable for too long");
            if !said.iter().any(|line| line.contains(&text)) {
                return Err(format!("expected \"{text}\" of the process with the coordinator or the server"));
            }
        }
        Ok(())
    }

    /// The part with at least half of the workers and with the coordinator has gone on, a smaller one with the
    /// coordinator has not, and all workers have gone on together in the end.
    fn check_views(&self, ended: &[Ended]) -> Result<(), String> {
        let company = (0..MACHINES).filter(|rank| self.is_with_host(*rank)).count();
        let goes_on = 2 * company >= MACHINES;
        for (rank, ended) in ended.iter().enumerate() {
            let views: Vec<usize> = ended.said.iter().filter_map(|line| members(line)).collect();
            // Views of the coordinator during the cut. On the other side there are no views, and views after the cut
            // can have any number of workers: they come back one after the other.
            let wrong = self.is_with_host(rank) && views.contains(&company) != goes_on;
            if wrong || views.last() != Some(&MACHINES) {
                return Err(format!(
                    "rank {rank}: views of {views:?} workers, {company} with the coordinator in the cut"
                ));
            }
        }
        Ok(())
    }

    fn is_with_host(&self, machine: usize) -> bool {
        self.side.contains(&machine) == self.side.contains(&self.kind.host())
    }
}

/// The number of workers in a line about a view.
fn members(line: &str) -> Option<usize> {
    let (text, _) = line.split_once(" workers go on together")?;
    text.rsplit(' ').next()?.parse().ok()
}

/// A field of the result of a node.
fn result(ended: &Ended, rank: usize, name: &str) -> String {
    let line = ended.said.iter().find(|line| line.starts_with(&format!("{{\"rank\":{rank},"))).unwrap();
    let (_, rest) = line.split_once(&format!("\"{name}\":")).unwrap();
    rest[..rest.find([',', '}']).unwrap()].trim_matches('"').to_string()
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn processes_survive_cuts() {
    let (first, count) = (number("GRADWIRE_CUT", 0), number("GRADWIRE_CUTS", 6));
    let cuts: Vec<Cut> = cuts().into_iter().skip(first).take(count).collect();
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(cut) = cuts.get(next.fetch_add(1, Ordering::Relaxed)) {
            let Some(result) = cut.run() else { return };
            println!("{cut}: {}", if result.is_ok() { "ok" } else { "failed" });
            failures.lock().unwrap().extend(result.err());
        }
    };
    std::thread::scope(|scope| (0..ABREAST.min(cuts.len())).for_each(|_| drop(scope.spawn(work))));
    let failures = failures.into_inner().unwrap();
    let nodes: usize = failures.iter().map(|(nodes, _)| nodes).sum();
    println!("{} cuts: {} failed, {nodes} nodes ended with an error", cuts.len(), failures.len());
    let texts: Vec<_> = failures.iter().map(|(_, text)| text.as_str()).collect();
    assert!(texts.is_empty(), "{} of {} cuts failed\n{}", texts.len(), cuts.len(), texts.join("\n\n"));
}
