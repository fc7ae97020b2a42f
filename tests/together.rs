//! Nodes that resume agree on one moment, for every combination of their checkpoints.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use gradwire::{Cluster, Layout, Mem, Recipe, RunId, RunState, Session};

const LEN: usize = 24;
const WORKERS: u32 = 3;
const MOMENTS: u64 = 3;

fn run() -> RunId {
    "together".parse().unwrap()
}

fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("gradwire-together-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    path
}

/// A pseudo-random multiple of 2^-10.
fn update(rank: u32, step: u64, i: usize) -> f32 {
    let mixed = (u64::from(rank) * 31 + step * 7 + i as u64 * 13).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58;
    mixed as f32 / 1024.0 - 24.0 / 1024.0
}

fn updates(rank: u32, step: u64) -> Vec<f32> {
    (0..LEN).map(|i| update(rank, step, i)).collect()
}

/// The part of a run that one process of each worker takes.
#[derive(Copy, Clone)]
enum Leg {
    /// Rounds up to this one, with a checkpoint after each.
    Rounds { until: u64 },
    /// Two steps, and then a suspension.
    Suspend,
    /// Two steps to the end.
    Finish,
}

/// Resumes in `directory`, and returns each worker's final parameters.
fn resume(recipe: Recipe, directory: &Path, leg: Leg) -> Vec<Vec<f32>> {
    let cluster = Cluster { workers: WORKERS, servers: u32::from(recipe.needs_servers()) };
    let (mut threads, mut servers) = (Vec::new(), Vec::new());
    for (rank, transport) in (0..).zip(Mem::cluster(cluster.nodes())) {
        let builder = Session::builder(Layout::flat(LEN), recipe, cluster).run(run()).deadline(Duration::from_secs(60));
        let directory = directory.to_path_buf();
        if rank >= WORKERS {
            servers.push(thread::spawn(move || {
                let mut server = builder.resume_serving(&directory, transport, &[0.0; LEN]).unwrap();
                let mut params = vec![0.0; LEN];
                assert_eq!(server.wait(&mut params, Duration::from_secs(60)).unwrap(), RunState::Ended);
                if let Leg::Suspend = leg {
                    assert!(server.checkpoint(&directory, &params).unwrap());
                }
            }));
            continue;
        }
        threads.push(thread::spawn(move || {
            let mut params = vec![0.0; LEN];
            let mut session = builder.resume(&directory, transport, &mut params, &mut []).unwrap();
            match leg {
                Leg::Rounds { until } => {
                    // The round says which batch is next, also to a worker that has no checkpoint.
                    let mut round = session.status().unwrap().clock.0;
                    while round < until {
                        session.step(&mut params, &updates(rank, round), 1 + rank).unwrap();
                        round = session.status().unwrap().clock.0;
                        session.checkpoint(&directory, &params, &[]).unwrap();
                    }
                    session.finish(&mut params).unwrap();
                }
                Leg::Suspend | Leg::Finish => {
                    for step in session.steps()..session.steps() + 2 {
                        session.step(&mut params, &updates(rank, step), 8).unwrap();
                    }
                    match leg {
                        Leg::Suspend => session.suspend(&directory, &mut params, &[]).unwrap(),
                        _ => session.finish(&mut params).unwrap(),
                    };
                }
            }
            params
        }));
    }
    let params = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    servers.into_iter().for_each(|thread| thread.join().unwrap());
    params
}

fn file(directory: &Path, rank: u32, moment: u64) -> PathBuf {
    directory.join("together").join(format!("rank-{rank}")).join(format!("{moment:012}.gwck"))
}

/// Copies the files of a subset: bit `rank * MOMENTS + moment - 1` says whether a rank has a moment.
fn copy(from: &Path, to: &Path, nodes: u32, subset: u32) {
    let _ = std::fs::remove_dir_all(to);
    for rank in 0..nodes {
        for moment in 1..=MOMENTS {
            if subset >> (u64::from(rank) * MOMENTS + moment - 1) & 1 == 1 {
                let path = file(to, rank, moment);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::copy(file(from, rank, moment), path).unwrap();
            }
        }
    }
}

/// The newest moment that all nodes have.
fn common(nodes: u32, subset: u32) -> Option<u64> {
    let has = |rank: u32, moment: u64| subset >> (u64::from(rank) * MOMENTS + moment - 1) & 1 == 1;
    (1..=MOMENTS).rev().find(|moment| (0..nodes).all(|rank| has(rank, *moment)))
}

/// All subsets of the files of three ranks at three moments: the run goes on, all ranks end with the same parameters,
/// and with the same bits as a run without interruption.
#[test]
fn collectives_go_on_from_every_subset_of_checkpoints() {
    for text in ["sync", "sync topology=ring", "diloco period=1"] {
        let Ok(recipe) = text.parse::<Recipe>() else { panic!("{text}") };
        let (whole, some) = (scratch("rounds"), scratch("rounds-some"));
        let expected = resume(recipe, &scratch("rounds-undisturbed"), Leg::Rounds { until: 5 });
        resume(recipe, &whole, Leg::Rounds { until: MOMENTS });
        for subset in 0..1 << (WORKERS as u64 * MOMENTS) {
            copy(&whole, &some, WORKERS, subset);
            let got = resume(recipe, &some, Leg::Rounds { until: 5 });
            assert!(got == expected, "{text}: subset {subset:09b}");
        }
    }
}

/// A schedule of periods goes by local steps. A resumed run is at the step of its moment.
#[test]
fn a_schedule_of_periods_goes_on() {
    for text in ["averaging period=1,3@2", "sync period=1,3@2", "fedadam period=1,3@2"] {
        let recipe: Recipe = text.parse().unwrap();
        let (whole, some) = (scratch("schedule"), scratch("schedule-some"));
        let expected = resume(recipe, &scratch("schedule-undisturbed"), Leg::Rounds { until: 5 });
        resume(recipe, &whole, Leg::Rounds { until: MOMENTS });
        for moment in 0..MOMENTS {
            copy(&whole, &some, WORKERS, (0..WORKERS).map(|rank| 1 << (u64::from(rank) * MOMENTS + moment)).sum());
            assert!(resume(recipe, &some, Leg::Rounds { until: 5 }) == expected, "{text}: moment {}", moment + 1);
        }
    }
}

/// As above, with a codec that keeps residuals: the same bits wherever a moment is common, else equal parameters.
#[test]
fn residuals_are_those_of_the_common_moment() {
    let recipe: Recipe = "ring-bf16".parse().unwrap();
    let (whole, some) = (scratch("residuals"), scratch("residuals-some"));
    let expected = resume(recipe, &scratch("residuals-undisturbed"), Leg::Rounds { until: 5 });
    resume(recipe, &whole, Leg::Rounds { until: MOMENTS });
    for subset in 0..1 << (WORKERS as u64 * MOMENTS) {
        copy(&whole, &some, WORKERS, subset);
        let got = resume(recipe, &some, Leg::Rounds { until: 5 });
        assert!(got.iter().all(|params| *params == got[0]), "subset {subset:09b}");
        if common(WORKERS, subset).is_some() {
            assert!(got == expected, "subset {subset:09b}");
        }
    }
}

/// Runs of servers and meshes, which are suspended: all subsets of the workers' files, with and without the server's
/// files.
#[test]
fn suspended_runs_go_on_from_every_subset_of_checkpoints() {
    for text in ["async lambda=1", "strom tau=0.03125 lambda=1 end=send", "strom tau=0.03125 lambda=1 end=send relay=1"]
    {
        let recipe: Recipe = text.parse().unwrap();
        let nodes = WORKERS + u32::from(recipe.needs_servers());
        let (whole, some) = (scratch("suspended"), scratch("suspended-some"));
        let mut ends = Vec::new();
        for moment in 0..MOMENTS {
            let undisturbed = scratch("suspended-undisturbed");
            if moment > 0 {
                copy(
                    &whole,
                    &undisturbed,
                    nodes,
                    (0..nodes).map(|rank| 1 << (u64::from(rank) * MOMENTS + moment - 1)).sum(),
                );
            }
            ends.push(resume(recipe, &undisturbed, Leg::Finish));
            resume(recipe, &whole, Leg::Suspend);
        }
        let all: u32 = (0..nodes).map(|rank| 1 << (u64::from(rank) * MOMENTS + MOMENTS - 1)).sum();
        copy(&whole, &some, nodes, all);
        ends.push(resume(recipe, &some, Leg::Finish));
        let servers = if nodes > WORKERS { vec![0b000, 0b110] } else { vec![0] };
        for subset in 0..1 << (WORKERS as u64 * MOMENTS) {
            for server in &servers {
                let subset = subset | server << (u64::from(WORKERS) * MOMENTS);
                copy(&whole, &some, nodes, subset);
                let got = resume(recipe, &some, Leg::Finish);
                assert!(got.iter().all(|params| *params == got[0]), "{text}: subset {subset:012b}");
                if let Some(moment) = common(nodes, subset) {
                    assert!(got == ends[moment as usize], "{text}: subset {subset:012b}");
                }
            }
        }
    }
}
