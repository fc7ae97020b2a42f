//! The interface between [`Streams`](crate::Streams) and a transport: [`Carrier`] opens connections, [`Stream`] is one
//! connection. No call of either blocks.

use std::io::{self, IoSlice};
use std::time::Duration;

use gradwire_core::PeerId;
use mio::event::Source;

use crate::strangers::Host;

/// Opens connections: accepts, dials, and knows which addresses are valid.
pub trait Carrier: Send + 'static {
    /// Accepts incoming connections.
    type Listener: Source + Send;
    /// One connection, incoming or outgoing.
    type Stream: Stream;

    /// Accepts the next incoming connection.
    ///
    /// # Errors
    /// `WouldBlock` when no connection is pending. Any other error is taken as temporary, and accepting is retried.
    fn accept(&mut self, listener: &mut Self::Listener) -> io::Result<Self::Stream>;

    /// Starts to connect to `address`. [`Stream::establish`] completes the connection.
    ///
    /// # Errors
    /// When the attempt cannot be started, for example because the address is invalid. Dialling is retried later.
    /// `WouldBlock`: the address is being looked up. It is retried soon.
    fn dial(&mut self, address: &str) -> io::Result<Self::Stream>;

    /// The address of `rank`, if it is known from the configuration. `None`: the address comes from the peer itself or
    /// from rank 0.
    fn address(&self, rank: PeerId) -> Option<String>;

    /// The address that this node announces in its preamble. A wildcard host (`0.0.0.0`) is allowed: the receiver
    /// replaces it, see [`complete`](Self::complete).
    fn own_address(&self) -> String;

    /// Turns the address that a peer announced into one that can be dialled. A wildcard host is replaced by the host
    /// that the connection `stream` comes from.
    ///
    /// # Errors
    /// Returns `announced` if it is not a valid address.
    fn complete(&self, announced: &str, stream: &Self::Stream) -> Result<String, String>;

    /// Turns an address from rank 0's address book into one for this node. `stream` is the connection to rank 0, which
    /// may have heard of an address that is good on its own host only. The default is for carriers without such
    /// addresses.
    fn localize(&self, address: &str, stream: &Self::Stream) -> String {
        let _ = stream;
        address.to_string()
    }

    /// Whether an address from rank 0's address book is valid and may be dialled.
    fn may_dial(&self, address: &str) -> bool;
}

/// One connection: an ordered stream of bytes in each direction.
pub trait Stream: Send {
    /// The event source that becomes ready when bytes or room for bytes may have arrived.
    fn source(&mut self) -> &mut dyn Source;

    /// Continues the carrier's own handshake. Returns true once bytes can be read and written.
    ///
    /// # Errors
    /// When the handshake has failed for good. [`io::ErrorKind::PermissionDenied`]: the peer failed authentication.
    /// [`io::ErrorKind::InvalidData`]: it speaks another protocol.
    fn establish(&mut self) -> io::Result<bool>;

    /// Reads into `into` and returns the number of bytes. `Ok(0)`: the peer has closed the connection.
    ///
    /// # Errors
    /// `WouldBlock` when no bytes are available; any other error means that the connection is broken.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize>;

    /// Writes a prefix of the concatenated slices and returns its length in bytes. Bytes may remain buffered in the
    /// carrier until [`flush`](Self::flush), and long slices may be read by the peer later, see [`unread`](Self::unread).
    ///
    /// # Errors
    /// `WouldBlock` when there is no room; any other error means that the connection is broken.
    fn write(&mut self, from: &[IoSlice<'_>]) -> io::Result<usize>;

    /// The number of bytes, of those that [`write`](Self::write) has accepted last, that must stay in memory as they are:
    /// the peer reads some of them from there. The obligation ends when the stream is dropped. The default is for carriers
    /// that copy all bytes.
    ///
    /// # Errors
    /// When the connection is broken.
    fn unread(&mut self) -> io::Result<u64> {
        Ok(0)
    }

    /// Sends bytes that [`write`](Self::write) has buffered. Returns true when no bytes remain. The default is for
    /// carriers that buffer nothing.
    ///
    /// # Errors
    /// When the connection is broken.
    fn flush(&mut self) -> io::Result<bool> {
        Ok(true)
    }

    /// How long this connection may take to be established, if that is less than the limit for a greeting.
    fn patience(&self) -> Option<Duration> {
        None
    }

    /// Called when the greeting is complete: the peer is the one that was looked for.
    fn greeted(&mut self) {}

    /// Closes the sending direction. The peer can still read all bytes that were sent before.
    fn shutdown(&mut self);

    /// Whether the carrier itself detects or excludes damaged bytes. If false, each body is followed by a checksum.
    fn protects(&self) -> bool;

    /// Non-blocking readiness check that makes no system call: true if bytes can be read (considered only with
    /// `reads`) or there is room to write (only with `writes`). The default, false, is for carriers that must ask the
    /// kernel.
    fn peek(&mut self, reads: bool, writes: bool) -> bool {
        let _ = (reads, writes);
        false
    }

    /// Whether [`peek`](Self::peek) sees work at once, so that the kernel need be asked only now and then. The default,
    /// false, is for carriers that must ask the kernel.
    fn can_peek(&self) -> bool {
        false
    }

    /// Called just before the node sleeps until [`source`](Self::source) is ready. Returns true if there is work in a
    /// direction of interest already, so that the node must not sleep.
    fn arm(&mut self, reads: bool, writes: bool) -> bool {
        let _ = (reads, writes);
        false
    }

    /// Called after [`source`](Self::source) was reported ready.
    fn stirred(&mut self) {}

    /// True if the peer has closed the connection and fewer than `wanted` bytes are left to read. Called while the
    /// reader is paused at a held body. The default is for carriers that notice the end only when they read.
    fn is_over(&mut self, wanted: usize) -> bool {
        let _ = wanted;
        false
    }

    /// Why this connection is slower than it could be, for a notice. Asked for when the greeting is complete.
    fn obstacle(&self) -> Option<String> {
        None
    }

    /// The address of the peer, for notices.
    fn seen(&self) -> String;

    /// The remote host, by which strangers are counted. The default is for carriers that connect one host only.
    fn host(&self) -> Host {
        Host::default()
    }

    /// The number of the file descriptor, where the system gives each new descriptor the lowest free number: it shows how
    /// many are in use. `None`: unknown.
    fn descriptor(&self) -> Option<u64> {
        None
    }

    /// Whether the peer has shown that it has the key, although the handshake may not be complete.
    fn is_proven(&self) -> bool {
        false
    }

    /// Whether `first`, the first bytes from a peer that should have sent a preamble, begin a handshake of this carrier
    /// with a key: this node has no key.
    fn is_keyed(first: &[u8]) -> bool
    where
        Self: Sized,
    {
        let _ = first;
        false
    }

    /// Sends `refusal` as it is, without the cipher, to a peer with another key, and closes the sending direction.
    /// Failures are ignored: the connection is closed next.
    fn refuse(&mut self, refusal: &[u8]) {
        let _ = refusal;
    }
}
