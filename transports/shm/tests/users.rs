//! Other users of the host: they cannot enter the directory of the sockets, and if they could, they would be refused.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use gradwire_core::Pool;
use gradwire_shm::{Builder, Notice, ShmError};

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// A user that no process of this host belongs to.
const OTHER: u32 = 54321;

fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("gradwire-users-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    path
}

fn permit(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_directory_is_for_its_user_only() {
    let directory = scratch("own");
    drop(Builder::new(0, 2).directory(&directory).open().unwrap());
    assert_eq!(std::fs::metadata(&directory).unwrap().permissions().mode() & 0o7777, 0o700);
    let link = scratch("link");
    symlink(&directory, &link).unwrap();
    assert!(matches!(Builder::new(0, 2).directory(&link).open(), Err(ShmError::Shared { .. })));
    for shared in [0o701, 0o710, 0o755, 0o1777] {
        permit(&directory, shared);
        let result = Builder::new(0, 2).directory(&directory).open();
        assert!(matches!(result, Err(ShmError::Shared { mode, .. }) if mode == shared), "{shared:o}: {result:?}");
    }
    std::fs::remove_file(link).unwrap();
    std::fs::remove_dir_all(directory).unwrap();
}

/// The permissions are changed after the start, so that a process of another user can connect.
#[test]
fn a_process_of_another_user_is_refused() {
    const NAME: &str = "a_process_of_another_user_is_refused";
    if let Some(socket) = std::env::var_os("GRADWIRE_TEST_SOCKET") {
        let mut stream = UnixStream::connect(socket).unwrap();
        // It is closed without a word.
        assert_eq!(stream.read(&mut [0; 8]).unwrap_or(0), 0);
        return;
    }
    let directory = scratch("other");
    // The other user may not be able to reach the program where it was built.
    let (program, nodes) = (directory.join("program"), directory.join("nodes"));
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let (sender, notices) = channel();
    let builder = Builder::new(0, 2).directory(&nodes).notices(move |notice| drop(sender.send(notice)));
    let mut node = builder.open().unwrap();
    let socket = nodes.join("0");
    [&directory, &program, &nodes, &socket].iter().for_each(|path| permit(path, 0o777));
    let mut command = Command::new(&program);
    command.args([NAME, "--exact"]).env("GRADWIRE_TEST_SOCKET", &socket).uid(OTHER).gid(OTHER);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            println!("skipped: {NAME} (only root can start a process of another user: {error})");
            return;
        }
    };
    let (begun, mut pool) = (Instant::now(), Pool::new([0]));
    let reason = loop {
        assert!(begun.elapsed() < PATIENCE, "the process was not refused");
        assert_eq!(node.poll(&mut pool, Some(Duration::from_millis(5))).unwrap(), None);
        if let Ok(Notice::TurnedAway { reason, .. }) = notices.try_recv() {
            break reason;
        }
    };
    assert!(reason.starts_with("expected a process of user ") && reason.ends_with(&format!(", got user {OTHER}")));
    assert!(child.wait().unwrap().success());
    drop(node);
    std::fs::remove_dir_all(directory).unwrap();
}
