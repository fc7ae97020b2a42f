//! The cipher, without IO of its own: it is given something to read from and to write to.
//!
//! Noise `NNpsk0`: two messages, and then records of at most 64 KiB, each with its length before it. One that does not
//! open ends the connection. The keys are changed after every 2^30 records.

use std::io::{self, IoSlice};

use snow::{HandshakeState, TransportState};

use crate::key::Key;

const PATTERN: &str = "Noise_NNpsk0_25519_AESGCM_SHA256";
/// What both sides must mean by all of this.
const PROLOGUE: &[u8] = b"gradwire tcp 1";
/// Longest message of a handshake: an ephemeral key and a tag, with nothing inside.
const HANDSHAKE_LEN: usize = 48;
const TAG: usize = 16;
const RECORD_MAX: usize = 65_535;
/// What fits in one record.
const PLAIN_MAX: usize = RECORD_MAX - TAG;
/// Records sealed before any is sent: memory per connection, and bytes per write.
const BATCH: usize = 4;
const REKEY: u64 = 1 << 30;

/// One side of an encrypted connection.
pub struct Sealed {
    state: State,
    /// Bytes that have come and are not a whole record.
    coming: Vec<u8>,
    /// What of them is there.
    there: usize,
    /// The opened record that is being read.
    plain: Vec<u8>,
    plain_from: usize,
    plain_to: usize,
    /// Sealed records on their way out.
    out: Vec<u8>,
    out_done: usize,
    /// Small pieces are gathered here before they are sealed.
    gathered: Vec<u8>,
    sealed: u64,
    opened: u64,
}

enum State {
    Handshake(Box<HandshakeState>),
    Open(Box<TransportState>),
    /// It has failed.
    Broken,
}

fn broken(error: snow::Error) -> io::Error {
    match error {
        snow::Error::Decrypt => io::Error::new(io::ErrorKind::PermissionDenied, "it has another key, or none"),
        error => io::Error::new(io::ErrorKind::InvalidData, format!("encryption: {error}")),
    }
}

impl Sealed {
    /// The side that dials, or the one that is dialled.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn new(key: &Key, dials: bool) -> io::Result<Self> {
        let params = PATTERN.parse().map_err(broken)?;
        let builder =
            snow::Builder::new(params).prologue(PROLOGUE).map_err(broken)?.psk(0, key.bytes()).map_err(broken)?;
        let state = if dials { builder.build_initiator() } else { builder.build_responder() };
        let mut sealed = Self {
            state: State::Handshake(Box::new(state.map_err(broken)?)),
            coming: vec![0; 2 + HANDSHAKE_LEN],
            there: 0,
            plain: Vec::new(),
            plain_from: 0,
            plain_to: 0,
            out: Vec::new(),
            out_done: 0,
            gathered: Vec::new(),
            sealed: 0,
            opened: 0,
        };
        if dials {
            sealed.say()?;
        }
        Ok(sealed)
    }

    /// Queues this side's message of the handshake.
    fn say(&mut self) -> io::Result<()> {
        let State::Handshake(state) = &mut self.state else { return Ok(()) };
        let mut message = [0; HANDSHAKE_LEN];
        let n = state.write_message(&[], &mut message).map_err(broken)?;
        self.out.extend((n as u16).to_be_bytes());
        self.out.extend(&message[..n]);
        Ok(())
    }

    /// Carries the handshake on; true when it is over.
    ///
    /// # Errors
    /// When the other side has another key, or speaks otherwise.
    pub fn establish(
        &mut self,
        read: &mut impl FnMut(&mut [u8]) -> io::Result<usize>,
        write: &mut impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> io::Result<bool> {
        loop {
            let flushed = self.flush(write)?;
            let State::Handshake(state) = &mut self.state else { return Ok(flushed) };
            if state.is_handshake_finished() {
                let State::Handshake(state) = std::mem::replace(&mut self.state, State::Broken) else {
                    return Ok(false);
                };
                self.state = State::Open(Box::new(state.into_transport_mode().map_err(broken)?));
                self.coming = vec![0; 2 + RECORD_MAX];
                self.plain = vec![0; RECORD_MAX];
                continue;
            }
            if state.is_my_turn() {
                self.say()?;
                continue;
            }
            let length = match self.record(read)? {
                Some(length) if length == HANDSHAKE_LEN => length,
                Some(length) => {
                    let text = format!("expected a handshake of {HANDSHAKE_LEN} bytes, got one of {length}");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
                None => return Ok(false),
            };
            let State::Handshake(state) = &mut self.state else { return Ok(false) };
            let mut nothing = [0; HANDSHAKE_LEN];
            state.read_message(&self.coming[2..2 + length], &mut nothing).map_err(broken)?;
            self.there = 0;
        }
    }

    /// The length of the next record, when all of it is there.
    fn record(&mut self, read: &mut impl FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<Option<usize>> {
        loop {
            let length = (self.there >= 2).then(|| usize::from(u16::from_be_bytes([self.coming[0], self.coming[1]])));
            if let Some(length) = length {
                // One without content would keep us reading without getting anywhere.
                if length + 2 > self.coming.len() || length <= TAG {
                    self.state = State::Broken;
                    let text = format!(
                        "expected a record of more than {TAG} and at most {} bytes, got one of {length}",
                        self.coming.len() - 2
                    );
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
                if self.there >= length + 2 {
                    return Ok(Some(length));
                }
            }
            let end = length.map_or(2, |length| length + 2);
            match read(&mut self.coming[self.there..end]) {
                Ok(0) if self.there == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(0) => {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended in the middle of a record"));
                }
                Ok(n) => self.there += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads what the other side wrote; `Ok(0)`: it has ended, between two records.
    ///
    /// # Errors
    /// `WouldBlock`; and for good, when a record does not open.
    pub fn read(
        &mut self,
        into: &mut [u8],
        read: &mut impl FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        while self.plain_from == self.plain_to {
            let length = match self.record(read) {
                Ok(Some(length)) => length,
                Ok(None) => return Err(io::ErrorKind::WouldBlock.into()),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && self.there == 0 => return Ok(0),
                Err(error) => return Err(error),
            };
            let State::Open(state) = &mut self.state else { return Err(io::ErrorKind::NotConnected.into()) };
            let record = &self.coming[2..2 + length];
            self.there = 0;
            // Straight into its place, where there is room for the tag as well.
            let direct = into.len() >= length;
            let opened = state.read_message(record, if direct { into } else { &mut self.plain });
            let Ok(n) = opened else {
                self.state = State::Broken;
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a record was changed on its way"));
            };
            self.opened += 1;
            if self.opened.is_multiple_of(REKEY) {
                state.rekey_incoming();
            }
            if direct {
                return Ok(n);
            }
            (self.plain_from, self.plain_to) = (0, n);
        }
        let n = into.len().min(self.plain_to - self.plain_from);
        into[..n].copy_from_slice(&self.plain[self.plain_from..self.plain_from + n]);
        self.plain_from += n;
        Ok(n)
    }

    /// Seals what there is room for, and writes what it can of that.
    ///
    /// # Errors
    /// `WouldBlock`: no room.
    pub fn write(
        &mut self,
        from: &[IoSlice<'_>],
        write: &mut impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
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

    /// Seals one record of what comes after the first `skip` bytes.
    fn seal(&mut self, from: &[IoSlice<'_>], mut skip: usize) -> io::Result<usize> {
        let State::Open(state) = &mut self.state else { return Err(io::ErrorKind::NotConnected.into()) };
        self.gathered.clear();
        let mut direct: &[u8] = &[];
        for slice in from {
            let start = skip.min(slice.len());
            skip -= start;
            let part = &slice[start..];
            // A whole record from one slice needs no copy.
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
        let start = self.out.len();
        self.out.extend(((plain.len() + TAG) as u16).to_be_bytes());
        self.out.resize(start + 2 + plain.len() + TAG, 0);
        state.write_message(plain, &mut self.out[start + 2..]).map_err(broken)?;
        self.sealed += 1;
        if self.sealed.is_multiple_of(REKEY) {
            state.rekey_outgoing();
        }
        Ok(plain.len())
    }

    /// Writes sealed records; true when all are out.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn flush(&mut self, write: &mut impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<bool> {
        while self.out_done < self.out.len() {
            match write(&self.out[self.out_done..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.out_done += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.out_done = 0;
        Ok(true)
    }
}
