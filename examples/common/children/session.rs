//! The processes that belong to a child: its session, and all processes that have its mark in their environment.
//!
//! A child starts in a session of its own. A process that it starts stays in there, or leaves it as daemons and some
//! pools of workers do, and takes the environment along. A process that is to outlive the run has to remove [`MARK`]
//! from its environment.

use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// Sends a signal once to each process of these sessions.
pub(super) fn signal(leaders: &[Pid], signal: Signal) {
    for leader in leaders {
        let _ = kill_process_group(*leader, signal);
    }
    // Shells with job control and `timeout` give their commands other process groups.
    let others = find(|member, _| leaders.contains(&member.session) && member.group != member.session);
    for member in others {
        let _ = kill_process(member.id, signal);
    }
}

/// The environment variable with the mark of a launch.
pub(super) const MARK: &str = "GRADWIRE_LAUNCH";

/// The mark of a launch, or of one of its ranks. It begins with the mark of the launch around it, if there is one.
#[derive(Clone, Debug)]
pub(super) struct Mark(String);

impl Mark {
    /// A mark that no other launch has.
    pub(super) fn new() -> Self {
        let around = std::env::var(MARK).unwrap_or_default();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(format!("{around}{}-{}/", std::process::id(), now.as_nanos()))
    }

    /// As it was passed on to this process.
    pub(super) fn from_text(text: String) -> Self {
        Self(text)
    }

    pub(super) fn of_rank(&self, rank: u32) -> Self {
        Self(format!("{}{rank}/", self.0))
    }

    pub(super) fn text(&self) -> &str {
        &self.0
    }

    /// True if this environment has this mark, or one that begins with it.
    fn is_in(&self, environment: &[u8]) -> bool {
        let mut variables = environment.split(|byte| *byte == 0);
        variables.any(|variable| {
            let value = variable.strip_prefix(MARK.as_bytes()).and_then(|rest| rest.strip_prefix(b"="));
            value.is_some_and(|value| value.starts_with(self.0.as_bytes()))
        })
    }
}

/// Kills all processes of these sessions or with this mark, also processes that are started meanwhile.
pub(super) fn kill(leaders: &[Pid], mark: &Mark) {
    // A process in a system call that cannot be interrupted ends later.
    for _ in 0..200 {
        for leader in leaders {
            let _ = kill_process_group(*leader, Signal::KILL);
        }
        let members = find(|member, directory| {
            leaders.contains(&member.session)
                || std::fs::read(directory.join("environ")).is_ok_and(|text| mark.is_in(&text))
        });
        if members.is_empty() {
            return;
        }
        for member in members {
            let _ = kill_process(member.id, Signal::KILL);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// A running process.
#[derive(Debug)]
struct Member {
    id: Pid,
    group: Pid,
    session: Pid,
}

/// The running processes that fulfil a condition, which also gets their directories. Empty where there is no `/proc`.
fn find(wanted: impl Fn(&Member, &Path) -> bool) -> Vec<Member> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let members = entries.filter_map(|entry| {
        let id: i32 = entry.file_name().to_str()?.parse().ok()?;
        let member = parse(id, &std::fs::read_to_string(entry.path().join("stat")).ok()?)?;
        wanted(&member, &entry.path()).then_some(member)
    });
    members.collect()
}

/// Reads `/proc/ID/stat`. `None` for a zombie.
fn parse(id: i32, stat: &str) -> Option<Member> {
    // The name of the program is in parentheses, and may contain spaces and parentheses.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    let mut ids = fields.skip(1).map(|field| field.parse().ok().and_then(Pid::from_raw));
    Some(Member { id: Pid::from_raw(id)?, group: ids.next()??, session: ids.next()?? })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn the_fields_of_a_process_are_read() {
        let member = parse(12, "12 (a b) c) S 7 34 56 0 -1 4194304").unwrap();
        let raw = |pid: Pid| pid.as_raw_nonzero().get();
        assert_eq!((raw(member.id), raw(member.group), raw(member.session)), (12, 34, 56));
        assert!(parse(12, "12 (x) Z 7 34 56 0").is_none());
        assert!(parse(12, "12 (x) S 7").is_none());
        // Kernel threads have no session.
        assert!(parse(2, "2 (kthreadd) S 0 0 0 0").is_none());
    }
    #[test]
    fn marks_are_found_by_rank_and_launch() {
        let mark = Mark::from_text("1-2/".to_string());
        let (third, inner) = (mark.of_rank(3), "A=1-2/\0GRADWIRE_LAUNCH=1-2/3/7-8/0/\0");
        assert!(mark.is_in(inner.as_bytes()) && third.is_in(inner.as_bytes()));
        assert!(!mark.of_rank(33).is_in(inner.as_bytes()) && !mark.of_rank(0).is_in(inner.as_bytes()));
        assert!(!mark.is_in(b"A=1-2/\0GRADWIRE_LAUNCH2=1-2/\0GRADWIRE_LAUNCH=01-2/"));
        assert!(Mark::new().text() != Mark::new().text());
    }
}
