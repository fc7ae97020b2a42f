//! Where the example programs are.

use std::path::{Path, PathBuf};

/// The path of an example program. Cargo builds the programs beside the directory of the tests, wherever its target
/// directory is, before it runs all tests of this package.
#[track_caller]
pub(crate) fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let target = test.parent().and_then(Path::parent).expect("target/debug/deps/test");
    let path = target.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(
        path.exists(),
        "{}: not built; `cargo test -p gradwire-examples` builds it, and so does `cargo build -p gradwire-examples \
         --examples`; with `--test NAME` alone cargo builds the test and no program",
        path.display()
    );
    path
}
