//! Cross-memory attach: reads the memory of another process of the same user, with `process_vm_readv` of Linux.
//!
//! The system decides whether a process may read another one (`PTRACE_MODE_ATTACH_REALCREDS` in ptrace(2)): Yama, other
//! namespaces, and filters of system calls can forbid it. So a right is probed, and never assumed.
//!
//! A process number can come to name another process. So each read also reads the peer's *beacon*, two random words in
//! the peer's memory. A process without them at this address is not the peer.
#![allow(
    unsafe_code,
    reason = "a system call that the standard library and rustix lack; each block says why it is sound"
)]

use std::ffi::{c_int, c_ulong, c_void};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// Two random words in the memory of this process.
#[derive(Debug)]
pub(crate) struct Beacon(Box<[AtomicU64; 2]>);

impl Beacon {
    pub(crate) fn new() -> Self {
        // The keys of the standard library's hash maps are random.
        let draw = || AtomicU64::new(RandomState::new().build_hasher().finish());
        Self(Box::new([draw(), draw()]))
    }

    pub(crate) fn address(&self) -> u64 {
        (&raw const *self.0).addr() as u64
    }

    pub(crate) fn words(&self) -> [u64; 2] {
        [0, 1].map(|word| self.0[word].load(Ordering::Relaxed))
    }
}

impl Drop for Beacon {
    /// The words would remain in the freed memory, and look like a beacon.
    fn drop(&mut self) {
        self.0.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }
}

/// The memory of another process that this process may read.
#[derive(Debug)]
pub(crate) struct Memory {
    process: i32,
    /// Address and words of the beacon there.
    beacon: (u64, [u64; 2]),
}

impl Memory {
    /// The memory of `process`, as this process numbers it, with a beacon of these words at `address`.
    ///
    /// # Errors
    /// When this process may not read it, or another process has the number.
    pub(crate) fn probe(process: i32, address: u64, words: [u64; 2]) -> io::Result<Self> {
        let memory = Self { process, beacon: (address, words) };
        memory.read(address, &mut [0; 8])?;
        Ok(memory)
    }

    /// Reads the bytes from `address` on. After an error, `into` holds arbitrary bytes.
    ///
    /// # Errors
    /// When not all of these bytes can be read, or another process has come to have the number.
    pub(crate) fn read(&self, address: u64, into: &mut [u8]) -> io::Result<()> {
        let process = self.process;
        let len = into.len();
        let mut words = [0u64; 2];
        let expected = len + size_of_val(&words);
        let local = [Piece::of(into), Piece { start: (&raw mut words).cast(), len: size_of_val(&words) }];
        // The beacon comes last: it shows that the bytes before it were of the peer.
        let remote = [Piece::at(address, len)?, Piece::at(self.beacon.0, size_of_val(&words))?];
        // SAFETY: the kernel writes to the pieces in `local` only. They are `into` and `words`, which are borrowed
        // mutably, and integers of any value are valid in both. It reads the pieces in `remote` in the other process,
        // and reports an address that is not mapped there. Both lists live until the call returns.
        let n = unsafe { process_vm_readv(process, local.as_ptr(), 2, remote.as_ptr(), 2, 0) };
        if n < 0 {
            let error = io::Error::last_os_error();
            let text =
                format!("memory of process {process}: expected {len} bytes at {address:#x}, got an error ({error})");
            return Err(io::Error::new(error.kind(), text));
        }
        if n as usize != expected {
            let text = format!("memory of process {process}: expected {expected} bytes, its beacon included, got {n}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        if words != self.beacon.1 {
            let text = format!("memory of process {process}: expected the beacon of the peer, got another process");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(())
    }
}

/// The process at the other end of a Unix socket.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Its number, as this process sees it. 0 if it does not, because the peer is in another process namespace.
    pub(crate) process: i32,
    pub(crate) user: u32,
}

impl Peer {
    /// The process at the other end of `socket`. rustix has this call too, but takes a process number of 0 for an error.
    ///
    /// # Errors
    /// When `socket` is no Unix socket.
    pub(crate) fn of(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let mut found = Credentials { process: 0, user: 0, group: 0 };
        let mut len = size_of::<Credentials>() as u32;
        // SAFETY: the kernel writes at most `len` bytes to `found`, where integers of any value are valid, and a word to
        // `len`. Both live until the call returns. `socket` is open as long as it is borrowed.
        let result = unsafe {
            let found = (&raw mut found).cast();
            getsockopt(socket.as_raw_fd(), SOL_SOCKET, SO_PEERCRED, found, &raw mut len)
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { process: found.process, user: found.user })
    }
}

/// `struct iovec`.
#[repr(C)]
struct Piece {
    start: *mut c_void,
    len: usize,
}

impl Piece {
    fn of(bytes: &mut [u8]) -> Self {
        Self { start: bytes.as_mut_ptr().cast(), len: bytes.len() }
    }

    /// A piece of the memory of another process. It is no pointer in this one.
    fn at(address: u64, len: usize) -> io::Result<Self> {
        let address = usize::try_from(address).map_err(|_| {
            let text = format!("memory: expected an address of {} bits, got {address:#x}", usize::BITS);
            io::Error::new(io::ErrorKind::InvalidData, text)
        })?;
        Ok(Self { start: std::ptr::without_provenance_mut(address), len })
    }
}

/// `struct ucred`.
#[repr(C)]
struct Credentials {
    process: i32,
    user: u32,
    group: u32,
}

/// From `asm/socket.h`, which differs between processors.
const SOL_SOCKET: c_int =
    if cfg!(any(target_arch = "mips", target_arch = "mips64", target_arch = "sparc64")) { 0xffff } else { 1 };
const SO_PEERCRED: c_int = if cfg!(any(target_arch = "mips", target_arch = "mips64")) {
    18
} else if cfg!(any(target_arch = "powerpc", target_arch = "powerpc64")) {
    21
} else if cfg!(target_arch = "sparc64") {
    0x40
} else {
    17
};

unsafe extern "C" {
    fn process_vm_readv(
        process: c_int,
        local: *const Piece,
        local_count: c_ulong,
        remote: *const Piece,
        remote_count: c_ulong,
        flags: c_ulong,
    ) -> isize;

    fn getsockopt(socket: c_int, level: c_int, name: c_int, value: *mut c_void, len: *mut u32) -> c_int;
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn own() -> i32 {
        std::process::id() as i32
    }

    /// The address of a word of this process.
    fn address<T>(of: &T) -> u64 {
        (&raw const *of).addr() as u64
    }

    #[test]
    fn memory_is_read_where_the_beacon_is() {
        let (beacon, bytes) = (Beacon::new(), [1u8, 2, 3, 4]);
        let memory = Memory::probe(own(), beacon.address(), beacon.words()).unwrap();
        let mut into = [0; 3];
        memory.read(address(&bytes) + 1, &mut into).unwrap();
        assert_eq!(into, [2, 3, 4]);
        assert_ne!(beacon.words(), Beacon::new().words());
    }

    /// Another process has come to have the number, or the peer has closed the connection.
    #[test]
    fn memory_without_the_beacon_is_refused() {
        let (beacon, bytes) = (Beacon::new(), [9u8; 4]);
        let other = [beacon.words()[0], beacon.words()[1] ^ 1];
        let error = Memory::probe(own(), beacon.address(), other).unwrap_err();
        assert!(error.to_string().ends_with("expected the beacon of the peer, got another process"), "{error}");
        let memory = Memory::probe(own(), beacon.address(), beacon.words()).unwrap();
        beacon.0[0].store(0, Ordering::Relaxed);
        assert!(memory.read(address(&bytes), &mut [0; 4]).is_err());
    }

    #[test]
    fn the_process_at_the_other_end_of_a_socket_is_known() {
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let user = rustix::process::getuid().as_raw();
        assert_eq!(Peer::of(socket.as_fd()).unwrap(), Peer { process: own(), user });
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert!(Peer::of(file.as_fd()).is_err());
    }

    #[test]
    fn errors_name_the_process_and_what_was_expected() {
        let beacon = Beacon::new();
        let memory = Memory::probe(own(), beacon.address(), beacon.words()).unwrap();
        let expected = format!("memory of process {}: expected 64 bytes at 0x10, got an error", own());
        let error = memory.read(16, &mut [0; 64]).unwrap_err().to_string();
        assert!(error.starts_with(&expected), "{error}");
        assert!(memory.read(u64::MAX, &mut [0; 64]).is_err());
        // No process has the number 0: the peer is in another namespace.
        assert!(Memory::probe(0, beacon.address(), beacon.words()).is_err());
    }

    /// Bytes that end behind the mapped memory are not read in part.
    #[test]
    fn a_range_that_is_mapped_in_part_is_refused() {
        let page = 4096;
        let map = memmap2::MmapMut::map_anon(4 * page).unwrap();
        let start = map.as_ptr().addr() as u64;
        let beacon = Beacon::new();
        let memory = Memory::probe(own(), beacon.address(), beacon.words()).unwrap();
        let mut into = vec![0; 4 * page];
        memory.read(start, &mut into).unwrap();
        // Nothing is mapped at the first page of the address space.
        assert!(memory.read(0, &mut into).is_err());
        assert!(memory.read(u64::MAX - 4096, &mut into).is_err());
    }
}
