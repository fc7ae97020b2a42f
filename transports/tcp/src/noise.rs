//! The encryption of a connection: the Noise handshake `NNpsk0`, then records. It does no IO itself; the caller passes
//! functions that read and write, so the same code serves the socket and the fuzzer.
//!
//! The handshake has two messages. After it, plain bytes are sealed (encrypted and authenticated) into records. Each
//! message and each record is preceded by its length (2 bytes, big-endian), and has at most 65,535 bytes. A record
//! that fails authentication ends the connection. Both sides change their keys after each 2^30 records.
//!
//! Source: The Noise Protocol Framework, revision 34: the pattern `NN`, its modifier `psk0`, and rekeying.

use std::io::{self, IoSlice};

use snow::{HandshakeState, TransportState};

use crate::key::Key;

const PATTERN: &str = "Noise_NNpsk0_25519_AESGCM_SHA256";
/// Mixed into the handshake: it fails between nodes with different versions of this protocol.
const PROLOGUE: &[u8] = b"gradwire tcp 1";
/// Length of a handshake message: an ephemeral key (32 bytes) and the tag of an empty payload.
const HANDSHAKE_LEN: usize = 48;
/// Length of the authentication tag at the end of each record.
const TAG: usize = 16;
/// Longest record, tag included: the limit of Noise.
const RECORD_MAX: usize = 65_535;
/// Most plain bytes in one record.
const PLAIN_MAX: usize = RECORD_MAX - TAG;
/// Bytes of records that are read by one call. More save system calls, and cost memory for each connection.
const READ_AHEAD: usize = BATCH * (2 + RECORD_MAX);
/// Records sealed by one call of `write`. More save system calls, and cost memory for each connection.
const BATCH: usize = 4;
/// Records between two changes of the key. It bounds the data under one key to 64 TiB.
#[cfg(not(test))]
const REKEY_EVERY: u64 = 1 << 30;
/// Tests have to reach it.
#[cfg(test)]
const REKEY_EVERY: u64 = 3;

/// One side of an encrypted connection.
pub struct Sealed {
    state: State,
    /// Records with their lengths: bytes `incoming_start..incoming_end` have been read and not been opened. During the
    /// handshake it holds one message.
    incoming: Vec<u8>,
    incoming_start: usize,
    incoming_end: usize,
    /// An opened record. Bytes `plain_start..plain_end` have not been passed on.
    plain: Vec<u8>,
    plain_start: usize,
    plain_end: usize,
    /// Sealed records, of which `out_done` bytes have been written.
    out: Vec<u8>,
    out_done: usize,
    /// The end of the sealed records in `out`. The memory behind it is kept: to fill it with zeros for each record would be
    /// a pass over all bytes.
    out_end: usize,
    /// Scratch space in which small slices are joined into one record.
    gathered: Vec<u8>,
    /// Records sealed since the handshake.
    sealed: u64,
    /// Records opened since the handshake.
    opened: u64,
    /// A handshake message of the peer was valid.
    proven: bool,
}

enum State {
    Handshake(Box<HandshakeState>),
    Open(Box<TransportState>),
    /// A record was invalid. No more are read or written.
    Broken,
}

/// The error for a handshake message, or record to send, that Noise rejects. A message that cannot be decrypted means
/// that the keys differ.
fn broken(error: snow::Error) -> io::Error {
    match error {
        snow::Error::Decrypt => {
            io::Error::new(io::ErrorKind::PermissionDenied, "the peer has a different key, or no key")
        }
        error => io::Error::new(io::ErrorKind::InvalidData, format!("encryption: {error}")),
    }
}

impl Sealed {
    /// Starts a handshake. `dials`: this side opened the connection, and sends the first message.
    ///
    /// # Errors
    /// When the system provides no random bytes.
    pub fn new(key: &Key, dials: bool) -> io::Result<Self> {
        let params = PATTERN.parse().map_err(broken)?;
        let builder =
            snow::Builder::new(params).prologue(PROLOGUE).map_err(broken)?.psk(0, key.bytes()).map_err(broken)?;
        let state = if dials { builder.build_initiator() } else { builder.build_responder() };
        let mut sealed = Self {
            state: State::Handshake(Box::new(state.map_err(broken)?)),
            incoming: vec![0; 2 + HANDSHAKE_LEN],
            incoming_start: 0,
            incoming_end: 0,
            plain: Vec::new(),
            plain_start: 0,
            plain_end: 0,
            out: Vec::new(),
            out_end: 0,
            out_done: 0,
            gathered: Vec::new(),
            sealed: 0,
            opened: 0,
            proven: false,
        };
        if dials {
            sealed.queue_handshake()?;
        }
        Ok(sealed)
    }

    /// Whether `first`, the first bytes from a peer, begin a handshake.
    pub(crate) fn is_greeting(first: &[u8]) -> bool {
        let expected = (HANDSHAKE_LEN as u16).to_be_bytes();
        first.first() == Some(&expected[0]) && first.get(1).is_none_or(|byte| *byte == expected[1])
    }

    /// Whether the peer has shown that it has the key.
    pub(crate) fn is_proven(&self) -> bool {
        self.proven
    }

    /// Queues this side's next handshake message.
    fn queue_handshake(&mut self) -> io::Result<()> {
        let State::Handshake(state) = &mut self.state else { return Ok(()) };
        let mut message = [0; HANDSHAKE_LEN];
        let n = state.write_message(&[], &mut message).map_err(broken)?;
        let record = room(&mut self.out, self.out_end, 2 + n);
        record[..2].copy_from_slice(&(n as u16).to_be_bytes());
        record[2..].copy_from_slice(&message[..n]);
        self.out_end += 2 + n;
        Ok(())
    }

    /// Continues the handshake. Returns true when it is done, and all of this side's messages have been written.
    ///
    /// # Errors
    /// `PermissionDenied` when the peer has a different key; `InvalidData` when it speaks another protocol; the errors
    /// of `read` and `write`.
    pub fn establish(
        &mut self,
        read: &mut impl FnMut(&mut [u8]) -> io::Result<usize>,
        write: &mut impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> io::Result<bool> {
        loop {
            let flushed = self.flush(write)?;
            let State::Handshake(state) = &mut self.state else { return Ok(flushed) };
            if state.is_handshake_finished() {
                // The buffers for records are allocated only now: a stranger without the key does not get them.
                let State::Handshake(state) = std::mem::replace(&mut self.state, State::Broken) else {
                    return Ok(false);
                };
                self.state = State::Open(Box::new(state.into_transport_mode().map_err(broken)?));
                // Nothing is lost: it had room for the message that has been read, and for no more.
                self.incoming = vec![0; READ_AHEAD];
                self.plain = vec![0; RECORD_MAX];
                continue;
            }
            if state.is_my_turn() {
                self.queue_handshake()?;
                continue;
            }
            let length = match self.read_record(read)? {
                Some(length) if length == HANDSHAKE_LEN => length,
                Some(length) => {
                    let text = format!("encryption: expected a handshake of {HANDSHAKE_LEN} bytes, got {length}");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
                None => return Ok(false),
            };
            let State::Handshake(state) = &mut self.state else { return Ok(false) };
            let mut payload = [0; HANDSHAKE_LEN];
            state.read_message(&self.incoming[2..2 + length], &mut payload).map_err(broken)?;
            (self.incoming_start, self.incoming_end) = (0, 0);
            self.proven = true;
        }
    }

    /// Reads until `incoming` begins with a complete record. Returns the record's length, and `None` when no more bytes are
    /// available.
    fn read_record(&mut self, read: &mut impl FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<Option<usize>> {
        loop {
            let unread = &self.incoming[self.incoming_start..self.incoming_end];
            if let Some(length) = unread.first_chunk().map(|bytes| usize::from(u16::from_be_bytes(*bytes))) {
                let complete = unread.len() >= length + 2;
                // A record without content is valid Noise, but an endless series of them would keep `read` in its loop,
                // and hold up all other connections.
                let most = if let State::Handshake(_) = self.state { HANDSHAKE_LEN } else { RECORD_MAX };
                if length > most || length <= TAG {
                    // The beginning of a preamble, which a node without a key sends instead of its handshake.
                    let is_plain = matches!(self.state, State::Handshake(_)) && unread.starts_with(b"GR");
                    self.state = State::Broken;
                    if is_plain {
                        return Err(broken(snow::Error::Decrypt));
                    }
                    let text = format!(
                        "encryption: expected a record of more than {TAG} and at most {most} bytes, got {length}"
                    );
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
                if complete {
                    return Ok(Some(length));
                }
            }
            let empty = unread.is_empty();
            // A record lies in one piece. So the beginning of one that may not fit behind it is moved, at most once for
            // each time that `incoming` has been filled.
            if empty || self.incoming.len() - self.incoming_start < self.incoming.len().min(2 + RECORD_MAX) {
                self.incoming.copy_within(self.incoming_start..self.incoming_end, 0);
                (self.incoming_start, self.incoming_end) = (0, self.incoming_end - self.incoming_start);
            }
            match read(&mut self.incoming[self.incoming_end..]) {
                Ok(0) if empty => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(0) => {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended inside a record"));
                }
                Ok(n) => self.incoming_end += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads plain bytes. `Ok(0)`: the peer has closed the connection, between two records.
    ///
    /// # Errors
    /// `WouldBlock` when no complete record is available. `InvalidData` when a record is invalid: the connection is
    /// broken from then on.
    pub fn read(
        &mut self,
        into: &mut [u8],
        read: &mut impl FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        while self.plain_start == self.plain_end {
            let length = match self.read_record(read) {
                Ok(Some(length)) => length,
                Ok(None) => return Err(io::ErrorKind::WouldBlock.into()),
                // An attacker on the network can cause this end as well. It is harmless: the machines treat each end
                // of a connection as a failure of the network.
                Err(error)
                    if error.kind() == io::ErrorKind::UnexpectedEof && self.incoming_start == self.incoming_end =>
                {
                    return Ok(0);
                }
                Err(error) => return Err(error),
            };
            let State::Open(state) = &mut self.state else { return Err(io::ErrorKind::NotConnected.into()) };
            let record = &self.incoming[self.incoming_start + 2..self.incoming_start + 2 + length];
            self.incoming_start += 2 + length;
            // Decrypting directly into the destination saves a copy. Noise needs room for the tag as well.
            let direct = into.len() >= length;
            let opened = state.read_message(record, if direct { into } else { &mut self.plain });
            let Ok(n) = opened else {
                self.state = State::Broken;
                let text = "encryption: a record was changed on its way";
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            };
            // Both sides count records, and so change the key at the same record.
            self.opened += 1;
            if self.opened.is_multiple_of(REKEY_EVERY) {
                state.rekey_incoming();
            }
            if direct {
                return Ok(n);
            }
            (self.plain_start, self.plain_end) = (0, n);
        }
        let n = into.len().min(self.plain_end - self.plain_start);
        into[..n].copy_from_slice(&self.plain[self.plain_start..self.plain_start + n]);
        self.plain_start += n;
        Ok(n)
    }

    /// Seals at most `BATCH` records and writes them as far as possible. Returns the number of plain bytes that were
    /// sealed. Sealed bytes that could not be written go out with the next call of this or of [`flush`](Self::flush).
    ///
    /// # Errors
    /// `WouldBlock` when records of an earlier call are still waiting; the errors of `write`.
    pub fn write(
        &mut self,
        from: &[IoSlice<'_>],
        write: &mut impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        // Sealing more now would let `out` grow without bound.
        if !self.flush(write)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut taken = 0;
        for _ in 0..BATCH {
            let n = self.seal(from, taken)?;
            if n == 0 {
                break;
            }
            taken += n;
        }
        self.flush(write)?;
        Ok(taken)
    }

    /// Seals one record, from the bytes after the first `skip` bytes of the slices. Returns how many plain bytes it
    /// contains, 0 if no bytes are left.
    fn seal(&mut self, from: &[IoSlice<'_>], mut skip: usize) -> io::Result<usize> {
        let State::Open(state) = &mut self.state else { return Err(io::ErrorKind::NotConnected.into()) };
        self.gathered.clear();
        let mut direct: &[u8] = &[];
        for slice in from {
            let start = skip.min(slice.len());
            skip -= start;
            let part = &slice[start..];
            // A slice that fills a record is sealed from where it is: large bodies are not copied.
            if self.gathered.is_empty() && part.len() >= PLAIN_MAX {
                direct = &part[..PLAIN_MAX];
                break;
            }
            let room = PLAIN_MAX - self.gathered.len();
            self.gathered.extend(&part[..part.len().min(room)]);
            if self.gathered.len() == PLAIN_MAX {
                break;
            }
        }
        let plain = if direct.is_empty() { &self.gathered } else { direct };
        if plain.is_empty() {
            return Ok(0);
        }
        let len = 2 + plain.len() + TAG;
        let record = room(&mut self.out, self.out_end, len);
        record[..2].copy_from_slice(&((plain.len() + TAG) as u16).to_be_bytes());
        state.write_message(plain, &mut record[2..]).map_err(broken)?;
        self.out_end += len;
        self.sealed += 1;
        if self.sealed.is_multiple_of(REKEY_EVERY) {
            state.rekey_outgoing();
        }
        Ok(plain.len())
    }

    /// Writes sealed records. Returns true when all of them have been written.
    ///
    /// # Errors
    /// The errors of `write`, except `WouldBlock`.
    pub fn flush(&mut self, write: &mut impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<bool> {
        while self.out_done < self.out_end {
            match write(&self.out[self.out_done..self.out_end]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.out_done += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        (self.out_done, self.out_end) = (0, 0);
        Ok(true)
    }
}

/// The `len` bytes of `out` from `start` on, which it grows to hold.
fn room(out: &mut Vec<u8>, start: usize, len: usize) -> &mut [u8] {
    if out.len() < start + len {
        out.resize(start + len, 0);
    }
    &mut out[start..start + len]
}
