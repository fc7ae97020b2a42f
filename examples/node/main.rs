//! The program `node`: one process of a run over TCP or shared memory. See `node --help`, and `common/node.rs`.

#[path = "../common/mod.rs"]
mod common;

use std::process::ExitCode;

fn main() -> ExitCode {
    common::end(common::node::main(std::env::args_os().collect()))
}
