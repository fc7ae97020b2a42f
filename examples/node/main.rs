//! The program `node`: one process of a run over TCP or shared memory. See `node --help`, and `common/node.rs`.

use std::process::ExitCode;

use gradwire_examples::node;

fn main() -> ExitCode {
    gradwire_examples::end(node::main(std::env::args_os().collect()))
}
