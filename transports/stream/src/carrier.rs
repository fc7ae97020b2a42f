//! What a transport has to bring along.

use std::io::{self, IoSlice};

use gradwire_core::PeerId;
use mio::event::Source;

/// How bytes get from here to there.
pub trait Carrier: Send + 'static {
    /// Where others come in.
    type Listener: Source + Send;
    /// A connection.
    type Stream: Stream;

    /// Takes the next connection that has come in.
    ///
    /// # Errors
    /// `WouldBlock` when there is none.
    fn accept(&mut self, listener: &mut Self::Listener) -> io::Result<Self::Stream>;

    /// Begins to connect.
    ///
    /// # Errors
    /// When that cannot even be begun.
    fn dial(&mut self, address: &str) -> io::Result<Self::Stream>;

    /// Where a rank is to be found, if that is known beforehand.
    fn address(&self, rank: PeerId) -> Option<String>;

    /// Where this node is to be found, as far as it can tell: what is missing (the host) is what the others see.
    fn own_address(&self) -> String;

    /// Completes what a peer said of its own address by where it was seen.
    ///
    /// # Errors
    /// What it said, if it is no address.
    fn complete(&self, said: &str, seen: &Self::Stream) -> Result<String, String>;

    /// Is this an address that may be dialled?
    fn may_dial(&self, address: &str) -> bool;
}

/// One connection: a stream of bytes each way.
pub trait Stream: Send {
    /// What to wait for.
    fn source(&mut self) -> &mut dyn Source;

    /// Carries on what the carrier itself needs before bytes can travel; true when they can.
    ///
    /// # Errors
    /// When they never will. [`io::ErrorKind::PermissionDenied`]: the other side proved not to belong here.
    fn establish(&mut self) -> io::Result<bool>;

    /// Reads; `Ok(0)`: the other side has ended.
    ///
    /// # Errors
    /// `WouldBlock`: nothing to read.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize>;

    /// Writes what it can of the slices.
    ///
    /// # Errors
    /// `WouldBlock`: no room.
    fn write(&mut self, from: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Carries on with what has been written and not been sent; true when nothing is left.
    ///
    /// # Errors
    /// When the connection is broken.
    fn flush(&mut self) -> io::Result<bool> {
        Ok(true)
    }

    /// Ends the writing side.
    fn shutdown(&mut self);

    /// Do damaged bytes get noticed without a checksum of ours?
    fn protects(&self) -> bool;

    /// Is there something to read (if that is of use), or room to write? Cheap: asks no system.
    fn peek(&mut self, reads: bool, writes: bool) -> bool {
        let _ = (reads, writes);
        false
    }

    /// This node is about to sleep until [`source`](Self::source) is ready; true: better not, there is work.
    fn arm(&mut self, reads: bool, writes: bool) -> bool {
        let _ = (reads, writes);
        false
    }

    /// [`source`](Self::source) was ready.
    fn stirred(&mut self) {}

    /// Has the other side ended, with less than so many bytes left to read? Asked while nothing is read.
    fn is_over(&mut self, wanted: usize) -> bool {
        let _ = wanted;
        false
    }

    /// Where the other side is, for people to read.
    fn seen(&self) -> String;

    /// Whom to count connections by: the host that it comes from, unless that is this one.
    fn host(&self) -> Option<String> {
        None
    }
}
