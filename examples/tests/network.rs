//! Runs on several machines, which are network namespaces: names and addresses of all kinds, and networks that split.
//! Needs root; without it each test says that it is skipped.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod binary;
#[allow(dead_code, reason = "the tests of this file use a part of it")]
mod machines;
#[allow(dead_code, reason = "the tests of this file use a part of it")]
mod process;

use machines::{Family, Machines, ROUTER};
use process::Process;

/// The helper itself: traffic crosses the router until a direction is cut, and again after it is mended.
#[test]
fn machines_reach_each_other_until_they_are_cut_off() {
    let Some(machines) = Machines::new("machines_reach_each_other_until_they_are_cut_off", 2, Family::Dual) else {
        return;
    };
    machines.limit(0, "100mbit");
    for address in [machines.v4(0), format!("[{}]", machines.v6(0))] {
        let args = |rank| {
            format!(
                "--rank {rank} --processes 2 --meet {address}:29510 --insecure-open --json --recipe sync --pace 100 \
                 --epochs 2 --dead-after 2 --min-workers 2"
            )
        };
        let mut both: Vec<Process> = (0..2).map(|rank| machines.start(rank, "node", &args(rank as u32))).collect();
        both.iter_mut().for_each(Process::begins);
        machines.cut(1, 0);
        // Rank 0 no longer hears rank 1, and disconnects it.
        both[0].until("peer 1 is disconnected");
        machines.heal();
        both[0].until("peer 1 is connected");
        drop(both);
    }
}

/// The port of rank 0, on machines that have all their ports free.
const PORT: u16 = 29510;

/// How rank 0's own host resolves its name. The other hosts know its addresses.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum OwnName {
    Right,
    /// As Debian writes it.
    Loopback,
    /// An address that this host does not have: the address of a service or of a router, or an outdated one.
    Foreign,
}

/// Makes the name `head` known: to the machines from 1 on as addresses of machine 0, and to machine 0 as `own` says.
fn name_head(machines: &Machines, family: Family, own: OwnName) {
    let line = |v4: String, v6: String| match family {
        Family::V4 => format!("{v4} head\n"),
        Family::V6 => format!("{v6} head\n"),
        Family::Dual => format!("{v6} head\n{v4} head\n"),
    };
    let right = line(machines.v4(0), machines.v6(0));
    let at_head = match own {
        OwnName::Right => right.clone(),
        OwnName::Loopback => "127.0.1.1 head\n".to_string(),
        OwnName::Foreign => line("192.0.2.7".to_string(), "2001:db8::7".to_string()),
    };
    machines.set_hosts(0, &format!("127.0.0.1 localhost\n::1 localhost\n{at_head}"));
    (1..3).for_each(|machine| machines.set_hosts(machine, &format!("127.0.0.1 localhost\n::1 localhost\n{right}")));
}

/// Runs of three machines meet by name, however rank 0's host resolves its own name.
#[track_caller]
fn runs_meet_by_name(test: &str, family: Family) {
    let Some(machines) = Machines::new(test, 3, family) else { return };
    let key = process::scratch(&format!("{test}-key")).join("key");
    Process::start("node", &format!("keygen {}", key.display())).end().succeeded();
    for own in [OwnName::Right, OwnName::Loopback, OwnName::Foreign] {
        name_head(&machines, family, own);
        for recipe in ["sync", "sync --topology ring", "mesh", "async --servers 2 --shards 2 --server-port 29600"] {
            let start = |rank: usize, more: &str| {
                let args = format!(
                    "--rank {rank} --processes 3 --meet head:{PORT} --key-file {} --json --epochs 1 --hidden 32 --recipe \
                     {recipe} {more}",
                    key.display()
                );
                machines.start(rank, "node", &args)
            };
            let context = format!("{family:?}, own name {own:?}, {recipe}");
            let listen = if own == OwnName::Loopback {
                let mut zero = start(0, "");
                zero.until(&format!(
                    "listens on 127.0.1.1:{PORT}: here, all addresses of head are of this machine only"
                ));
                if family == Family::V6 { "--listen [::]:29510" } else { "--listen 0.0.0.0:29510" }
            } else {
                ""
            };
            let nodes = [(0, start(0, listen)), (1, start(1, "")), (2, start(2, ""))];
            let digests = nodes.map(|(rank, node)| {
                let ended = node.end();
                assert_eq!(ended.code, Some(0), "{context}: {:#?}", ended.said);
                // Servers have no digest: theirs are the last objects of rank 0.
                let own = ended.said.iter().find(|line| line.starts_with(&format!("{{\"rank\":{rank},")));
                let (_, digest) = own.unwrap().split_once("\"digest\":\"").unwrap();
                digest[..16].to_string()
            });
            assert!(digests.iter().all(|digest| *digest == digests[0]), "{context}: {digests:?}");
        }
    }
}

#[test]
fn runs_meet_by_name_over_ipv4() {
    runs_meet_by_name("runs_meet_by_name_over_ipv4", Family::V4);
}

#[test]
fn runs_meet_by_name_over_ipv6() {
    runs_meet_by_name("runs_meet_by_name_over_ipv6", Family::V6);
}

#[test]
fn runs_meet_by_name_over_both_families() {
    runs_meet_by_name("runs_meet_by_name_over_both_families", Family::Dual);
}

/// One of the addresses of a name gets no answer: the other one is tried.
#[test]
fn an_address_without_an_answer_is_passed_over() {
    let Some(machines) = Machines::new("an_address_without_an_answer_is_passed_over", 2, Family::Dual) else { return };
    for (dead, good) in [("10.77.0.99".to_string(), machines.v6(0)), ("fd77:0::99".to_string(), machines.v4(0))] {
        (0..2).for_each(|machine| machines.set_hosts(machine, &format!("{dead} head\n{good} head\n")));
        let args = |rank| {
            format!(
                "--rank {rank} --processes 2 --meet head:{PORT} --insecure-open --json --recipe sync --epochs 1 --hidden 32"
            )
        };
        let nodes = [0, 1].map(|rank| machines.start(rank, "node", &args(rank)));
        nodes.into_iter().for_each(|node| drop(node.end().succeeded()));
    }
}

/// Link-local addresses: each host has its own number for the interface.
#[test]
fn runs_meet_at_link_local_addresses() {
    let Some(machines) = Machines::new("runs_meet_at_link_local_addresses", 1, Family::V6) else { return };
    let args = |rank: u32, interface: &str| {
        format!(
            "--rank {rank} --processes 2 --meet [fe80::1%{interface}]:{PORT} --insecure-open --json --recipe sync --epochs 1 \
             --hidden 32"
        )
    };
    // The router has this address on its interface to machine 0.
    let zero = machines.start(ROUTER, "node", &args(0, "m0"));
    let one = machines.start(0, "node", &args(1, "eth0"));
    zero.end().succeeded();
    one.end().succeeded();
}

/// The commands of the README for two machines, as they are written there, with a name that becomes known late and an
/// IPv6 address.
#[test]
fn the_recipe_for_two_machines_works_as_written() {
    let Some(machines) = Machines::new("the_recipe_for_two_machines_works_as_written", 2, Family::V6) else { return };
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let (_, section) = readme.split_once("### Two machines\n").unwrap();
    let (_, block) = section.split_once("```sh\n").unwrap();
    let lines: Vec<_> = block.split_once("```").unwrap().0.lines().filter(|line| line.starts_with("node ")).collect();
    let [keygen, first, second] = lines[..] else { panic!("{lines:#?}") };
    // Each machine has the program in its path, and a directory of its own.
    let directories = [0, 1].map(|machine| process::scratch(&format!("readme-{machine}")));
    let path = format!("{}:/usr/bin:/bin", binary::binary("node").parent().unwrap().display());
    let run = |machine: usize, line: &str| {
        let mut command = machines.command(machine, "sh");
        command.args(["-c", &format!("exec {line}")]).current_dir(&directories[machine]).env("PATH", &path);
        Process::spawn(command)
    };
    run(0, keygen).end().succeeded();
    std::fs::copy(directories[0].join("cluster.key"), directories[1].join("cluster.key")).unwrap();
    let (zero, mut one) = (run(0, first), run(1, second));
    one.until("peer 0 (first:29510) is unreachable");
    (0..2).for_each(|machine| machines.set_hosts(machine, &format!("{} first\n", machines.v6(0))));
    let ended = zero.end().succeeded();
    assert!(ended.said.iter().any(|line| line.starts_with("parameters      digest ")), "{:#?}", ended.said);
    one.end().succeeded();
}
