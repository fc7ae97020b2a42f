//! Monitoring: nodes publish their status to a [`Board`], and monitors read it from there.
//!
//! - [`Builder::publish_to`](crate::Builder::publish_to) has a node publish a report ten times a second, and its
//!   events.
//! - [`Board::serve`] accepts monitors over TCP, for instance the program `dtop`. A program of your own can
//!   [`subscribe`] and read [`Frames`].
//! - [`Board::publish`] forwards the reports of this process to a board in another process, which [`Board::gather`]s
//!   them.
//! - [`Board::serve_metrics`] answers HTTP requests with OpenMetrics text. [`Board::tensorboard`] writes an event file.
//!   Before the process ends, [`Board::flush`] writes the last values.
//! - [`Board::announce`] leaves the address of a listener in a file, so that `dtop` finds the runs of this host.
//!   [`announced`] lists them.
//!
//! A monitor that connects late gets former reports of each node, fewer the older they are. When a node's part is over,
//! its last call waits for a moment (0.25 s at most) until connected monitors have its last report, since the process
//! may end next; so a monitor can tell a run that has ended from one that has died.
//!
//! Monitors cannot slow a node down. A thread per listener sends them copies. A monitor itself sends only its
//! rate of updates, and the proof of its key. A monitor to which nothing can be sent for [`PATIENCE`] is disconnected,
//! and at most [`MONITORS_MAX`] are served at a time: a further one takes the place of the monitor that is furthest
//! behind, or else of the one that came first.

mod announce;
mod board;
mod ending;
mod metrics;
mod network;
mod past;
mod readers;
mod serving;
mod tensorboard;

pub use announce::{Announced, Announcement, announced};
pub use board::Board;
pub use network::{Frames, MONITORS_MAX, MonitorKey, PATIENCE, RATE_MAX, SUBSCRIPTION, subscribe};

/// Clients that fuzzing feeds directly. Not a stable API: this module can change in any release.
#[doc(hidden)]
pub mod parts {
    pub use super::metrics::scrapers;
    pub use super::network::{boards, monitors, read_greeting};
    pub use super::serving::Feed;
}
