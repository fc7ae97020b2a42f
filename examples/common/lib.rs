//! The code that the example programs share: options, tasks, the training loop, and the program `node`.

#![allow(missing_docs, reason = "the programs in this package are the only readers")]

mod agreement;
pub mod bad;
pub mod children;
pub mod cli;
pub mod data;
pub mod executor;
pub mod hints;
pub mod node;
pub mod options;
pub mod outcome;
pub mod paths;
pub mod recipes;
pub mod stop;
pub mod task;
pub mod tensors;
pub mod threads;
pub mod units;
pub mod worker;

use std::io::Write;
use std::process::ExitCode;

/// Ends a program: prints the message of an error in one line, and returns its exit code.
pub fn end(result: Result<(), (u8, String)>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The text of `--help`.
        Err((0, text)) => {
            let _ = write!(std::io::stdout(), "{text}");
            ExitCode::SUCCESS
        }
        Err((code, text)) => {
            let _ = writeln!(std::io::stderr(), "{}", text.trim_end());
            ExitCode::from(code)
        }
    }
}
