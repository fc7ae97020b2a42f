//! Publishing a run to monitors with one setting: rank 0 serves them, and the other processes report to it.

use std::net::ToSocketAddrs;

use gradwire_core::PeerId;
use gradwire_core::telemetry::Run;

use crate::error::Error;
use crate::monitor::Board;

/// The address of monitors, and the key that they need.
#[derive(Clone)]
pub(crate) struct Publication {
    pub(crate) address: String,
    pub(crate) key: Option<[u8; 32]>,
}

impl std::fmt::Debug for Publication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Publication({})", self.address)
    }
}

impl Publication {
    /// The board that the node of this rank publishes to.
    pub(crate) fn open(&self, rank: PeerId, nodes: u32, run: Run) -> Result<Board, Error> {
        let failed = |error| Error::Monitor { address: self.address.clone(), error };
        let invalid = |text: &str| failed(std::io::Error::new(std::io::ErrorKind::InvalidInput, text.to_string()));
        let expected = "expected HOST:PORT with a port from 1 to 65534: the next port takes the reports of the others";
        let (host, port) = self.address.rsplit_once(':').ok_or_else(|| invalid(expected))?;
        let port: u16 =
            port.parse().ok().filter(|port| (1..u16::MAX).contains(port)).ok_or_else(|| invalid(expected))?;
        let reports = format!("{host}:{}", port + 1);
        let board = Board::new(run);
        if rank == PeerId(0) {
            let at = board.serve(self.address.as_str(), self.key, false).map_err(failed)?;
            // Without the announcement, dtop finds the run by its address only.
            if let Ok(announcement) = board.announce(at, self.key.is_some()) {
                board.keep(announcement);
            }
            if nodes > 1 {
                board.gather(reports.as_str(), self.key, false).map_err(failed)?;
            }
        } else {
            // A name that is not known is an error here; later it would be a monitor without this node.
            reports.to_socket_addrs().map_err(failed)?;
            board.publish(reports, self.key).map_err(failed)?;
        }
        Ok(board)
    }
}

/// The display name of this machine.
pub(crate) fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "localhost".to_string() } else { name.trim().to_string() }
}
