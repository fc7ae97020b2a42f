//! One process of a run over TCP or shared memory. `node --help` tells what can be chosen.

#[path = "../common/mod.rs"]
mod common;

use std::process::ExitCode;

fn main() -> ExitCode {
    common::end(common::node::main(std::env::args_os().collect()))
}
