//! The messages of a process about faults of its surroundings: words that must appear, and words that would lead
//! astray.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod binary;
#[allow(dead_code, reason = "the tests of this file use a part of it")]
mod process;

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use process::{Ended, PATIENCE, Process, port, scratch};

/// Asserts the exit code of a process, the words in its output, and the words that are not.
#[track_caller]
fn says(ended: &Ended, code: i32, words: &[&str], not: &[&str]) {
    let said = ended.said.join("\n");
    assert_eq!(ended.code, Some(code), "{said}");
    words.iter().for_each(|word| assert!(said.contains(word), "expected {word:?} in: {said}"));
    not.iter().for_each(|word| assert!(!said.contains(word), "expected no {word:?} in: {said}"));
}

fn node(args: &str, env: &[(&str, &str)]) -> Process {
    Process::start_with("node", &format!("--json --recipe sync --epochs 1 --hidden 32 {args}"), env)
}

fn of_two(rank: u32, meet: u16, args: &str) -> Process {
    node(&format!("--rank {rank} --processes 2 --meet 127.0.0.1:{meet} {args}"), &[])
}

#[test]
fn a_port_in_use_is_named_with_who_has_it() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().port();
    let at = format!("127.0.0.1:{taken}");
    says(&of_two(0, taken, "").end(), 4, &[&at, "another program uses this port", "in use"], &["rank 0 of"]);
    // The reports of a monitor have the next port: it is the one that is named.
    let args = format!("--rank 0 --processes 2 --meet 127.0.0.1:{} --monitor 127.0.0.1:{}", port(), taken - 1);
    let ended = node(&args, &[]).end();
    if ended.said.iter().any(|line| line.contains("for the reports")) {
        says(&ended, 4, &[&format!("{at} for the reports of the other processes"), "in use"], &["for dtop:"]);
    } else {
        // The port before it was in use as well.
        says(&ended, 4, &[&format!("127.0.0.1:{} for dtop", taken - 1)], &[]);
    }
}

#[test]
fn a_second_rank_0_is_told_of_the_first() {
    let directory = scratch("second");
    let key = directory.join("key");
    Process::start("node", &format!("keygen {}", key.display())).end().succeeded();
    for args in [String::new(), format!("--key-file {}", key.display())] {
        let meet = port();
        let mut first = of_two(0, meet, &args);
        first.until("process 0 of 2");
        // Its port is open a moment later.
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", meet)).is_err() {
            assert!(begun.elapsed() < PATIENCE);
            std::thread::sleep(Duration::from_millis(10));
        }
        let ended = of_two(0, meet, &args).end();
        let who =
            if args.is_empty() { "rank 0 of a gradwire run listens there" } else { "may be rank 0 of another run" };
        says(&ended, 4, &[who, &format!("127.0.0.1:{meet}"), "in use"], &["another program"]);
        // The first one goes on.
        let second = of_two(1, meet, &args);
        first.end().succeeded();
        second.end().succeeded();
    }
}

/// Both sides name the difference, and end with the code for it.
#[test]
fn another_number_of_processes_is_named_by_both_sides() {
    let meet = port();
    let first = of_two(0, meet, "--deadline 5");
    let second = node(&format!("--rank 1 --processes 3 --meet 127.0.0.1:{meet}"), &[]).end();
    says(&second, 3, &["expected 2 nodes, got 3; use one number of workers and servers"], &["deadline"]);
    let words = ["a process that does not fit was refused: rank 1: expected 2 nodes, got 3"];
    says(&first.end(), 3, &words, &[]);
}

#[test]
fn clusters_have_names() {
    let meet = port();
    let first = of_two(0, meet, "--cluster digits --deadline 5");
    let second = of_two(1, meet, "--cluster letters").end();
    says(&second, 3, &["expected cluster \"digits\", got \"letters\""], &["digest"]);
    says(&first.end(), 4, &["expected cluster \"digits\", got \"letters\""], &["digest"]);
}

/// A health check connects and closes, twice a second: one line, and not one for each.
#[test]
fn a_health_check_is_told_once() {
    let meet = port();
    let mut first = of_two(0, meet, "");
    first.until("process 0 of 2");
    let (mut checks, begun) = (0, Instant::now());
    while checks < 30 {
        assert!(begun.elapsed() < PATIENCE);
        checks += usize::from(TcpStream::connect(("127.0.0.1", meet)).is_ok());
        std::thread::sleep(Duration::from_millis(10));
    }
    first.until("rejected a connection from 127.0.0.1:");
    let second = of_two(1, meet, "");
    second.end().succeeded();
    let said = first.end().succeeded().said;
    let lines = said.iter().filter(|line| line.contains("reject")).count();
    assert_eq!(lines, 1, "{said:#?}");
}

#[test]
fn a_wait_is_not_reported_by_the_process_itself() {
    let ended = of_two(0, port(), "--deadline 1").end();
    says(&ended, 4, &["waiting for peer 1"], &["reported by peer 0"]);
}

#[test]
fn a_key_that_others_can_read_is_refused_with_a_way_out() {
    let key = scratch("secret").join("key");
    Process::start("node", &format!("keygen {}", key.display())).end().succeeded();
    // As a Secret of Kubernetes is mounted.
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o440)).unwrap();
    let words = ["mode 0440", "GRADWIRE_KEY", "Kubernetes"];
    says(&node(&format!("--key-file {}", key.display()), &[]).end(), 5, &words, &[]);
    let text = std::fs::read_to_string(&key).unwrap();
    says(&node("", &[("GRADWIRE_KEY", &text)]).end(), 0, &[], &["WARNING"]);
}

/// Without a key, a node that is open to other hosts says so, even with `--quiet`.
#[test]
fn an_open_node_warns() {
    let args = "--rank 0 --processes 1 --meet 0.0.0.0:0";
    says(
        &node(&format!("{args} --insecure-open --quiet"), &[]).end(),
        0,
        &["WARNING: no key and --insecure-open"],
        &[],
    );
    says(&node(args, &[]).end(), 5, &["without a key lets anyone"], &["WARNING"]);
}

/// A process ignores variables that are not meant for it. An incomplete set of a launcher's variables is an error.
#[test]
fn environments_are_read_with_care() {
    let service = ("GRADWIRE_PORT", "tcp://10.96.0.10:29510");
    says(&node("", &[service]).end(), 0, &["(alone)"], &[]);
    says(&node("--rank 0 --processes 1", &[service, ("RANK", "")]).end(), 0, &["(flags)"], &[]);
    let indexed = [service, ("JOB_COMPLETION_INDEX", "0"), ("WORLD_SIZE", "1"), ("MASTER_ADDR", "127.0.0.1")];
    says(&node("", &indexed).end(), 0, &["(Kubernetes)"], &[]);
    let words = ["JOB_COMPLETION_INDEX is 2, but WORLD_SIZE is not set"];
    says(&node("", &[("JOB_COMPLETION_INDEX", "2")]).end(), 2, &words, &["first step done"]);
    let batch = [("ENVIRONMENT", "BATCH"), ("SLURM_JOB_ID", "7"), ("SLURM_NTASKS", "4"), ("SLURM_PROCID", "0")];
    says(&node("", &batch).end(), 2, &["SLURM_NTASKS is 4", "srun"], &["first step done"]);
    let shell = [("SLURM_JOB_ID", "7"), ("SLURM_NTASKS", "4")];
    says(&node("", &shell).end(), 0, &["the job has 4 tasks", "in no step of srun"], &[]);
}

/// Four tasks of `srun` within `salloc` train together. The first host of the step is this one.
#[test]
fn tasks_of_a_step_train_together() {
    let meet = port().to_string();
    let task = |rank: &str| {
        let env = [
            ("SLURM_JOB_NAME", "interactive"),
            ("SLURM_JOB_ID", "77"),
            ("SLURM_NTASKS", "4"),
            ("SLURM_STEP_ID", "0"),
            ("SLURM_STEP_NUM_TASKS", "4"),
            ("SLURM_STEP_NODELIST", "localhost"),
            ("SLURM_PROCID", rank),
            ("GRADWIRE_PORT", &meet),
        ];
        node("", &env)
    };
    let digests = ["0", "1", "2", "3"].map(task).map(|task| {
        let ended = task.end();
        says(&ended, 0, &["of 4 (Slurm)"], &["alone"]);
        ended.field("digest")
    });
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}

/// After `su`, XDG_RUNTIME_DIR names the directory of the former user.
#[test]
fn a_directory_of_another_user_is_left_out() {
    let directory = scratch("runtime");
    let runtime = directory.join("user");
    std::fs::create_dir(&runtime).unwrap();
    std::fs::set_permissions(&runtime, std::fs::Permissions::from_mode(0o700)).unwrap();
    if std::os::unix::fs::chown(&runtime, Some(12345), None).is_err() {
        println!("skipped: a_directory_of_another_user_is_left_out (only root can give a directory away)");
        return;
    }
    let temporary = directory.join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let env = [("XDG_RUNTIME_DIR", runtime.to_str().unwrap()), ("TMPDIR", temporary.to_str().unwrap())];
    let both = [0, 1].map(|rank| node(&format!("--rank {rank} --processes 2 --transport shm --cluster su"), &env));
    for process in both {
        let words = [temporary.to_str().unwrap(), "belongs to user 12345", "all processes need the same directory"];
        says(&process.end(), 0, &words, &[]);
    }
    assert!(std::fs::read_dir(&runtime).unwrap().next().is_none());
    let given = directory.join("given");
    let both = [0, 1].map(|rank| {
        let args = format!("--rank {rank} --processes 2 --transport shm --shm-directory {}", given.display());
        node(&args, &env)
    });
    both.into_iter().for_each(|process| says(&process.end(), 0, &[], &["12345"]));
}
