//! [`Causes`]: limits the notices of rejected strangers to one for each cause, followed by counts at growing intervals.
//! Strangers can come at any rate, and a health check that connects and closes may come for as long as the run lasts.

use std::time::{Duration, Instant};

use crate::notice::{Notice, Refusal};

/// Causes that are told apart. Strangers choose the rank in [`Cause::Refused`], so their number needs a bound.
const CAUSES_MAX: usize = 32;
/// Time between the first two notices of one cause. It doubles with each further notice, up to the longest.
const PAUSE_MIN: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(3600);

/// Why a stranger was rejected.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// It closed the connection before the greeting was complete.
    HungUp,
    /// It did not complete the greeting in time.
    Slow,
    /// It had to make room for newer connections.
    Crowded,
    /// It speaks another protocol.
    Foreign,
    /// It has another key, or only one of both sides has one.
    Key,
    /// It has another version of the protocol.
    Version,
    /// It was refused by this code, as this rank.
    Refused { code: u8, rank: u32 },
    /// Another cause, or one for which the table has no room.
    Other,
}

#[derive(Debug, Default)]
pub(crate) struct Causes {
    list: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    cause: Cause,
    /// When the next notice may be given.
    due: Instant,
    /// Time from the next notice to the one after it.
    pause: Duration,
    /// Rejections since the last notice, and address and reason of the first of them.
    count: u64,
    address: String,
    reason: String,
    refusal: Option<Refusal>,
}

/// A rejected stranger.
#[derive(Debug, Default)]
pub(crate) struct Rejected {
    pub(crate) address: String,
    pub(crate) reason: String,
    /// This node's answer to its preamble.
    pub(crate) refusal: Option<Refusal>,
}

impl Causes {
    /// Counts a rejected stranger. Returns the notice if one is due. `describe` returns address and reason.
    pub(crate) fn count(&mut self, cause: Cause, now: Instant, describe: impl FnOnce() -> Rejected) -> Option<Notice> {
        let entry = match self.list.iter().position(|entry| entry.cause == cause) {
            Some(index) => &mut self.list[index],
            // The last place is for all causes that come later.
            None if self.list.len() + 1 >= CAUSES_MAX && cause != Cause::Other => {
                return self.count(Cause::Other, now, describe);
            }
            None => {
                let Rejected { address, reason, refusal } = Rejected::default();
                self.list.push(Entry { cause, due: now, pause: PAUSE_MIN, count: 0, address, reason, refusal });
                self.list.last_mut()?
            }
        };
        if entry.count == 0 {
            Rejected { address: entry.address, reason: entry.reason, refusal: entry.refusal } = describe();
            if now > entry.due + entry.pause {
                // The cause had gone away.
                entry.pause = PAUSE_MIN;
            }
        }
        entry.count += 1;
        entry.take_due(now)
    }

    /// The next notice that is due.
    pub(crate) fn next_due(&mut self, now: Instant) -> Option<Notice> {
        self.list.iter_mut().find_map(|entry| entry.take_due(now))
    }
}

impl Entry {
    fn take_due(&mut self, now: Instant) -> Option<Notice> {
        if self.count == 0 || now < self.due {
            return None;
        }
        (self.due, self.pause) = (now + self.pause, PAUSE_MAX.min(self.pause * 2));
        let (count, address, reason) = (std::mem::take(&mut self.count), self.address.clone(), self.reason.clone());
        Some(Notice::TurnedAway { address, reason, refusal: self.refusal, count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn describe() -> Rejected {
        Rejected { address: "10.0.0.1:9".to_string(), reason: "reason".to_string(), refusal: None }
    }

    fn told(notice: Option<Notice>) -> Option<u64> {
        notice.map(|notice| match notice {
            Notice::TurnedAway { count, .. } => count,
            other => panic!("{other}"),
        })
    }

    /// A health check every two seconds: 43,200 connections in a day.
    #[test]
    fn a_cause_is_told_once_and_then_with_counts_at_growing_intervals() {
        let (mut causes, begun) = (Causes::default(), Instant::now());
        let mut notices = Vec::new();
        for second in (0..86_400).step_by(2) {
            let now = begun + Duration::from_secs(second);
            notices.extend(told(causes.count(Cause::HungUp, now, describe)).map(|count| (second, count)));
            assert_eq!(causes.next_due(now), None);
        }
        assert_eq!(notices[..4], [(0, 1), (60, 30), (180, 60), (420, 120)]);
        assert!(notices.len() < 35, "{notices:?}");
        // After a long pause the same cause is news again.
        let now = begun + Duration::from_secs(200_000);
        assert!(causes.next_due(now).is_some());
        let now = now + Duration::from_secs(20_000);
        assert_eq!(told(causes.count(Cause::HungUp, now, describe)), Some(1));
        assert_eq!(told(causes.count(Cause::HungUp, now + PAUSE_MIN / 2, describe)), None);
        assert_eq!(told(causes.next_due(now + PAUSE_MIN)), Some(1));
    }

    #[test]
    fn causes_do_not_hide_each_other_and_their_number_is_bounded() {
        let (mut causes, now) = (Causes::default(), Instant::now());
        assert_eq!(told(causes.count(Cause::HungUp, now, describe)), Some(1));
        assert_eq!(told(causes.count(Cause::Key, now, describe)), Some(1));
        let refused = |rank| Cause::Refused { code: 4, rank };
        let told = (0..1000).filter(|rank| causes.count(refused(*rank), now, describe).is_some()).count();
        assert_eq!((told, causes.list.len()), (CAUSES_MAX - 2, CAUSES_MAX));
    }
}
