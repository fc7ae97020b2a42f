//! [`Board::announce`]: a file per listener, by which monitors find the runs of this host.
//!
//! The file lies in a directory that only its user can read. A process keeps its file locked (`flock`) for as long as it
//! lives, and the system ends the lock with the process. So a file without a lock is stale, however the process has
//! ended, and a reader removes it. Neither process numbers nor ports can be mistaken for those of another process.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use gradwire_core::telemetry::printable;
use rustix::fs::{FlockOperation, flock};

use super::board::Board;

/// The first line of a file. Files of other versions are ignored.
const VERSION: &str = "gradwire monitor 1";
/// Bytes that are read of a file.
const FILE_MAX: u64 = 4096;
/// Files that are listed. A host has far fewer runs.
const FILES_MAX: usize = 256;
/// The age at which an empty file without a lock is stale. A younger one may be about to be locked.
const EMPTY_AFTER: Duration = Duration::from_secs(60);

/// A run of this host that has announced the address of its monitors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// The address for monitors. A listener at all addresses is announced by its loopback address.
    pub address: SocketAddr,
    /// Whether monitors need a key.
    pub has_key: bool,
    /// The number of the process.
    pub process: u32,
    /// The text of the run's recipe, without control characters. Empty if it is not known.
    pub recipe: String,
}

/// Announces a listener for as long as the value exists. Dropping it removes the file.
#[derive(Debug)]
#[must_use = "the announcement ends when this value is dropped"]
pub struct Announcement {
    path: PathBuf,
    /// Holds the lock.
    _file: File,
}

impl Drop for Announcement {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Board {
    /// Announces that this board serves monitors at `address`, the result of [`serve`](Self::serve), to the programs of
    /// this user on this host. `has_key`: monitors need a key.
    ///
    /// The file is in `$XDG_RUNTIME_DIR/gradwire-monitors`, or `gradwire-UID-monitors` in the directory for temporary
    /// files if the variable is not set.
    ///
    /// ```
    /// use gradwire::monitor::{Board, announced};
    /// use gradwire::telemetry::Run;
    ///
    /// let run = Run { recipe: "sync".into(), workers: 1, servers: 0, parameters: 2, name: None };
    /// let board = Board::new(run);
    /// let address = board.serve("127.0.0.1:0", None, false)?;
    /// let announcement = board.announce(address, false)?; // until it is dropped
    /// assert!(announced()?.iter().any(|run| run.address == address));
    /// drop(announcement);
    /// assert!(announced()?.iter().all(|run| run.address != address));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the directory or the file cannot be created, or the directory belongs to another user.
    pub fn announce(&self, address: SocketAddr, has_key: bool) -> io::Result<Announcement> {
        let recipe = self.run().map_or_else(String::new, |run| printable(&run.recipe, 1000));
        announce_in(&directory(), address, has_key, &recipe)
    }
}

/// The runs of this host and user that have announced a listener, in order of their addresses. Removes stale files.
///
/// # Errors
/// If the directory exists and cannot be read, or belongs to another user.
pub fn announced() -> io::Result<Vec<Announced>> {
    announced_in(&directory())
}

fn directory() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let own = || std::env::temp_dir().join(format!("gradwire-{}-monitors", rustix::process::getuid().as_raw()));
    runtime.map_or_else(own, |runtime| runtime.join("gradwire-monitors"))
}

/// Refuses a directory that others can write to: they could name an address of theirs.
fn check(directory: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(directory)?;
    let (owner, ours) = (metadata.uid(), rustix::process::getuid().as_raw());
    if !metadata.is_dir() || owner != ours || metadata.mode() & 0o022 != 0 {
        let text = format!(
            "{}: expected a directory of user {ours} that only this user can write to, got mode {:04o} of user {owner}",
            directory.display(),
            metadata.mode() & 0o7777
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(())
}

fn announce_in(directory: &Path, address: SocketAddr, has_key: bool, recipe: &str) -> io::Result<Announcement> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    check(directory)?;
    let mut reachable = address;
    if address.ip().is_unspecified() {
        reachable.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    let (process, port) = (std::process::id(), address.port());
    // A process with the same number may have left a file with this name.
    let paths = (0..FILES_MAX).map(|n| directory.join(format!("{process}-{port}-{n}")));
    for path in paths {
        let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(error),
        };
        // Before the first byte: a reader removes no file that is empty and new.
        flock(&file, FlockOperation::LockExclusive)?;
        let key = if has_key { "yes" } else { "no" };
        write!(file, "{VERSION}\naddress {reachable}\nkey {key}\nprocess {process}\nrecipe {recipe}\n")?;
        return Ok(Announcement { path, _file: file });
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{}: too many files", directory.display())))
}

fn announced_in(directory: &Path) -> io::Result<Vec<Announced>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    check(directory)?;
    let entries = entries.flatten().take(FILES_MAX);
    let mut all: Vec<Announced> = entries.filter_map(|entry| live(&entry.path()).ok().flatten()).collect();
    all.sort_by_key(|announced| announced.address);
    Ok(all)
}

/// The contents of a file, if its process lives. Removes the file of one that does not.
fn live(path: &Path) -> io::Result<Option<Announced>> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Ok(None);
    }
    let file = File::open(path)?;
    let mut text = String::new();
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => {
            (&file).take(FILE_MAX).read_to_string(&mut text)?;
            let metadata = file.metadata()?;
            let is_new = metadata.modified()?.elapsed().is_ok_and(|age| age < EMPTY_AFTER);
            if !(text.is_empty() && is_new) {
                fs::remove_file(path)?;
            }
            return Ok(None);
        }
        Err(rustix::io::Errno::WOULDBLOCK) => {}
        Err(error) => return Err(error.into()),
    }
    (&file).take(FILE_MAX).read_to_string(&mut text)?;
    Ok(parse(&text))
}

fn parse(text: &str) -> Option<Announced> {
    let mut lines = text.lines();
    if lines.next() != Some(VERSION) {
        return None;
    }
    let of = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    Some(Announced {
        address: of("address")?.parse().ok()?,
        has_key: of("key")? == "yes",
        process: of("process")?.parse().ok()?,
        recipe: printable(of("recipe").unwrap_or(""), 1000),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temporary(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("gradwire-announce-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn an_announcement_lasts_as_long_as_its_value() {
        let directory = temporary("lasts");
        assert_eq!(announced_in(&directory).unwrap(), []);
        let one = announce_in(&directory, "127.0.0.1:7700".parse().unwrap(), false, "sync").unwrap();
        let two = announce_in(&directory, "0.0.0.0:7701".parse().unwrap(), true, "").unwrap();
        let found = announced_in(&directory).unwrap();
        let expected = [("127.0.0.1:7700", false, "sync"), ("127.0.0.1:7701", true, "")];
        let expected = expected.map(|(address, has_key, recipe)| Announced {
            address: address.parse().unwrap(),
            has_key,
            process: std::process::id(),
            recipe: recipe.into(),
        });
        assert_eq!(found, expected);
        drop(one);
        assert_eq!(announced_in(&directory).unwrap(), expected[1..]);
        drop(two);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
        fs::remove_dir_all(directory).unwrap();
    }

    /// A file without a lock is that of a process that was killed. An empty one may be about to be locked.
    #[test]
    fn stale_files_are_ignored_and_removed() {
        let directory = temporary("stale");
        let kept = announce_in(&directory, "127.0.0.1:7700".parse().unwrap(), false, "sync").unwrap();
        fs::copy(&kept.path, directory.join("1-7700-0")).unwrap();
        fs::write(directory.join("2-7702-0"), "").unwrap();
        fs::write(directory.join("3-7703-0"), "garbage \u{1b}[2J").unwrap();
        assert_eq!(announced_in(&directory).unwrap().len(), 1);
        let mut names: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(names.contains(&"2-7702-0".into()), "{names:?}");
        drop(kept);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_directory_of_others_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let directory = temporary("open");
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
        let error = announce_in(&directory, "127.0.0.1:7700".parse().unwrap(), false, "").unwrap_err().to_string();
        assert!(error.contains("got mode 0777"), "{error}");
        assert!(announced_in(&directory).is_err());
        fs::remove_dir_all(directory).unwrap();
    }
}
