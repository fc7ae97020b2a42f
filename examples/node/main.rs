//! One process of a run over TCP or shared memory. `node --help` tells what can be chosen.

use std::process::ExitCode;

use gradwire_examples::node;

fn main() -> ExitCode {
    gradwire_examples::end(node::main(std::env::args_os().collect()))
}
