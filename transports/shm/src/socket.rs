//! [`Sockets`], the carrier of the shared-memory transport, and [`Pair`], one connection: a Unix socket and the rings
//! that go with it. The socket passes the segment at the beginning. After that it is the doorbell, over which a byte
//! wakes the other process, and it shows when the other process has ended.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gradwire_core::PeerId;
use gradwire_stream::{Carrier, Stream};
use mio::event::Source;
use mio::net::{UnixListener, UnixStream};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};

use crate::ShmError;
use crate::attach::Peer;
use crate::ring::{End, Segment};

/// Longest path of a socket in bytes: `sockaddr_un` has 108, with a zero at the end.
const PATH_MAX: usize = 107;

/// The carrier of the shared-memory transport.
pub struct Sockets {
    /// The directory with the socket of each node, named by its rank.
    directory: PathBuf,
    rank: u32,
    ring_len: usize,
    /// Long bodies are read from the memory of their sender, where the system permits it.
    attach: bool,
}

/// One connection: a pair of rings, and the socket that goes with it.
pub struct Pair {
    stream: UnixStream,
    /// This side's end of the rings. `None` on the accepting side until the segment has come.
    end: Option<End>,
    /// The file of the segment, on the dialling side, until it has been passed.
    passing: Option<OwnedFd>,
    /// As in [`Sockets`].
    attach: bool,
    /// The address of the peer, for notices.
    seen: String,
    /// The socket may have bytes to read, or its end.
    stirred: bool,
    /// The other process has closed the socket or has ended. Bytes can remain in the ring.
    ended: bool,
}

impl Sockets {
    pub(crate) fn new(directory: PathBuf, rank: u32, ring_len: usize, attach: bool) -> Self {
        Self { directory, rank, ring_len, attach }
    }

    /// The directory of the sockets.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The path of a node's socket.
    fn path(&self, rank: u32) -> PathBuf {
        self.directory.join(rank.to_string())
    }
}

/// The directories for a cluster that does not name one, see [`Builder::directory`](crate::Builder::directory). Later
/// ones are for when the former cannot be used.
pub(crate) fn default_directories(cluster: &str) -> Vec<PathBuf> {
    let mut name: String = cluster.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).take(32).collect();
    if name != cluster {
        // Names that are shortened or changed, such as the names of jobs, stay different.
        // FNV-1a.
        let hash = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        name += &format!("-{:08x}", cluster.bytes().fold(0x811c_9dc5, hash));
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|runtime| Path::new(runtime).is_absolute());
    let runtime = runtime.map(|runtime| Path::new(&runtime).join(format!("gradwire-{name}")));
    let own = format!("gradwire-{}-{name}", rustix::process::getuid().as_raw());
    let temporary = [std::env::temp_dir(), PathBuf::from("/tmp")].map(|directory| directory.join(&own));
    let mut all: Vec<_> = runtime.into_iter().chain(temporary).collect();
    all.dedup();
    all
}

/// Listens in the first of these directories that can be used. Returns the listener, its directory and path, and why
/// the former directories were left out.
///
/// # Errors
/// As for [`listen`], for the last directory.
pub(crate) fn listen_in(
    directories: Vec<PathBuf>,
    rank: u32,
) -> Result<(UnixListener, PathBuf, PathBuf, Vec<ShmError>), ShmError> {
    let mut skipped = Vec::new();
    let count = directories.len();
    for (index, directory) in directories.into_iter().enumerate() {
        let usable = if count > 1 { check_parent(&directory) } else { Ok(()) };
        match usable.and_then(|()| listen(&directory, rank)) {
            Ok((listener, path)) => return Ok((listener, directory, path, skipped)),
            // Another process has the rank: in another directory, the nodes of a run would not find each other.
            Err(error @ (ShmError::Directory { .. } | ShmError::Shared { .. } | ShmError::Path { .. }))
                if index + 1 < count =>
            {
                skipped.push(error);
            }
            Err(error) => return Err(error),
        }
    }
    let error = io::ErrorKind::NotFound.into();
    Err(ShmError::Directory { path: PathBuf::new(), error })
}

/// Refuses a default directory in one that does not exist, or that belongs to another user. After `su`, the environment
/// can still name the directory of the former user, where root could even create files.
fn check_parent(directory: &Path) -> Result<(), ShmError> {
    let Some(parent) = directory.parent() else { return Ok(()) };
    let failed = |error| ShmError::Directory { path: parent.to_path_buf(), error };
    let metadata = std::fs::metadata(parent).map_err(failed)?;
    let (owner, ours) = (metadata.uid(), rustix::process::getuid().as_raw());
    // Directories for temporary files are for all users: they are writable and sticky.
    let shared = metadata.mode() & 0o1002 == 0o1002;
    if shared || owner == ours || owner == 0 {
        return Ok(());
    }
    let text = format!("it belongs to user {owner}, and this process to user {ours}");
    Err(failed(io::Error::new(io::ErrorKind::PermissionDenied, text)))
}

/// Listens at this rank's socket in a directory, which is created if necessary. Returns the listener and its path.
///
/// # Errors
/// When other users can enter the directory, a running process has this rank, or the system refuses.
fn listen(directory: &Path, rank: u32) -> Result<(UnixListener, PathBuf), ShmError> {
    let failed = |error| ShmError::Directory { path: directory.to_path_buf(), error };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    // Links are not followed: the owner of a link could point it elsewhere after this check.
    let metadata = std::fs::symlink_metadata(directory).map_err(failed)?;
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    if !metadata.is_dir() || owner != rustix::process::getuid().as_raw() || mode & 0o077 != 0 {
        return Err(ShmError::Shared { path: directory.to_path_buf(), owner, mode });
    }
    let path = directory.join(rank.to_string());
    let got = path.as_os_str().len();
    if got > PATH_MAX {
        return Err(ShmError::Path { path, limit: PATH_MAX, got });
    }
    let listener = match UnixListener::bind(&path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            // The socket is in use if a process answers, else a process that has ended left it behind.
            if std::os::unix::net::UnixStream::connect(&path).is_ok() {
                return Err(ShmError::Taken { path });
            }
            std::fs::remove_file(&path).and_then(|()| UnixListener::bind(&path))
        }
        result => result,
    };
    listener.map(|listener| (listener, path.clone())).map_err(|error| ShmError::Listen { path, error })
}

impl Drop for Sockets {
    fn drop(&mut self) {
        // This fails if the directory has been removed already.
        let _ = std::fs::remove_file(self.path(self.rank));
    }
}

impl Carrier for Sockets {
    type Listener = UnixListener;
    type Stream = Pair;

    fn accept(&mut self, listener: &mut UnixListener) -> io::Result<Pair> {
        let (stream, _) = listener.accept()?;
        let seen = match stream.peer_addr().ok().and_then(|address| address.as_pathname().map(Path::to_path_buf)) {
            Some(path) => path.display().to_string(),
            None => "another process of this host".to_string(),
        };
        let attach = self.attach;
        Ok(Pair { stream, end: None, passing: None, attach, seen, stirred: true, ended: false })
    }

    fn dial(&mut self, address: &str) -> io::Result<Pair> {
        let stream = UnixStream::connect(address)?;
        let (segment, file) = Segment::create(self.ring_len)?;
        let (end, passing) = (Some(End::new(Arc::new(segment), true)), Some(file));
        let (attach, seen) = (self.attach, address.to_string());
        Ok(Pair { stream, end, passing, attach, seen, stirred: true, ended: false })
    }

    fn address(&self, rank: PeerId) -> Option<String> {
        Some(self.path(rank.0).display().to_string())
    }

    fn own_address(&self) -> String {
        String::new()
    }

    // All addresses follow from the directory, so the next two are not needed, and peers cannot name other paths.

    fn complete(&self, announced: &str, _: &Pair) -> Result<String, String> {
        Err(announced.to_string())
    }

    fn may_dial(&self, _: &str) -> bool {
        false
    }
}

impl Pair {
    /// Accepting side: receives and maps the segment of `process`. Returns false until it has come.
    fn take_segment(&mut self, process: i32) -> io::Result<bool> {
        let mut byte = [0; 1];
        // Room for more files than expected, so that too many are reported rather than cut off.
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let message = rustix::net::recvmsg(
            self.stream.as_fd(),
            &mut [IoSliceMut::new(&mut byte)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        );
        let message = match message.map_err(io::Error::from) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            result => result?,
        };
        if message.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let files = ancillary.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(files) => files.collect(),
            _ => Vec::new(),
        });
        let files: Vec<OwnedFd> = files.collect();
        let [file] = files.as_slice() else {
            let text = format!("segment: expected one file, got {}", files.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        };
        let end = self.end.insert(End::new(Arc::new(Segment::map(file)?), false));
        if self.attach {
            end.share_memory(process);
        }
        Ok(true)
    }

    /// Dialling side: sends the file of the segment to `process`. Returns false until it has been sent.
    fn pass_segment(&mut self, process: i32) -> io::Result<bool> {
        let Some(file) = &self.passing else { return Ok(true) };
        if let Some(end) = self.end.as_mut().filter(|_| std::mem::take(&mut self.attach)) {
            end.share_memory(process);
        }
        let files = [file.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&files));
        // A file must accompany at least one byte of data.
        let sent =
            rustix::net::sendmsg(self.stream.as_fd(), &[IoSlice::new(&[1])], &mut ancillary, SendFlags::NOSIGNAL);
        match sent.map_err(io::Error::from) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            result => result?,
        };
        self.passing = None;
        Ok(true)
    }

    /// Wakes the other process.
    fn ring_doorbell(&mut self) -> io::Result<()> {
        match self.stream.write(&[1]) {
            // The socket is full of bytes that the peer has not read, so it will wake up anyway.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            // The peer has ended. That is no error yet: bytes that it wrote before are still to be read.
            Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                self.ended = true;
                Ok(())
            }
            result => result.map(drop),
        }
    }

    /// Reads all bytes of the doorbell, and notes whether the other process has ended. The poll is edge-triggered:
    /// bytes left in the socket would hide the next ones.
    fn drain_doorbell(&mut self) -> io::Result<()> {
        let mut bytes = [0; 64];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => {
                    self.ended = true;
                    return Ok(());
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    self.ended = true;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn not_connected() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

impl Stream for Pair {
    fn source(&mut self) -> &mut dyn Source {
        &mut self.stream
    }

    fn establish(&mut self) -> io::Result<bool> {
        // The permissions of the directory exclude other users already. This also holds if they were changed since.
        let peer = Peer::of(self.stream.as_fd())?;
        let ours = rustix::process::getuid().as_raw();
        if peer.user != ours {
            let text = format!("expected a process of user {ours}, got user {}", peer.user);
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        if self.end.is_some() { self.pass_segment(peer.process) } else { self.take_segment(peer.process) }
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let end = self.end.as_mut().ok_or_else(not_connected)?;
        let result = end.read(into);
        if result.is_err() {
            // The memory of a process that has ended cannot be read. Its end is no error of the process.
            self.drain_doorbell()?;
            if self.ended {
                return Ok(0);
            }
        }
        let (mut n, mut wake) = result?;
        if n == 0 && std::mem::take(&mut self.stirred) {
            self.drain_doorbell()?;
            // Once more: the peer may have written after the first read and before it ended. Without this, the last
            // bytes of a process would be lost.
            (n, wake) = self.end.as_mut().ok_or_else(not_connected)?.read(into)?;
        }
        if wake && !self.ended {
            self.ring_doorbell()?;
        }
        match n {
            0 if into.is_empty() || self.ended => Ok(0),
            0 => Err(io::ErrorKind::WouldBlock.into()),
            n => Ok(n),
        }
    }

    fn write(&mut self, from: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.ended {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let (n, wake) = self.end.as_mut().ok_or_else(not_connected)?.write(from)?;
        if wake {
            self.ring_doorbell()?;
        }
        if n == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(n) }
    }

    fn unread(&mut self) -> io::Result<u64> {
        self.end.as_mut().map_or(Ok(0), End::unread)
    }

    fn obstacle(&self) -> Option<String> {
        let obstacle = self.end.as_ref()?.obstacle()?;
        Some(format!("long bodies from it are copied twice, because its memory cannot be read: {obstacle}"))
    }

    fn shutdown(&mut self) {
        // This fails only if the connection is closed already.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Memory does not damage bytes, so no checksums are needed.
    fn protects(&self) -> bool {
        true
    }

    fn peek(&mut self, reads: bool, writes: bool) -> bool {
        self.end.as_ref().is_some_and(|end| end.has_work(reads, writes))
    }

    fn can_peek(&self) -> bool {
        self.end.is_some()
    }

    fn arm(&mut self, reads: bool, writes: bool) -> bool {
        // After the sleep, the first read that finds the ring empty must look at the doorbell.
        self.stirred = true;
        self.end.as_ref().is_some_and(|end| end.arm(reads, writes))
    }

    fn stirred(&mut self) {
        self.stirred = true;
    }

    fn is_over(&mut self, wanted: usize) -> bool {
        if std::mem::take(&mut self.stirred) {
            self.ended |= self.drain_doorbell().is_err();
        }
        self.ended && self.end.as_mut().is_none_or(|end| end.readable().map_or(true, |n| n < wanted))
    }

    fn seen(&self) -> String {
        self.seen.clone()
    }

    fn descriptor(&self) -> Option<u64> {
        u64::try_from(self.stream.as_raw_fd()).ok()
    }
}
