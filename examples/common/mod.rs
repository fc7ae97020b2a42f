//! What the example binaries share.

pub(crate) mod data;
pub(crate) mod executor;
pub(crate) mod model;
pub(crate) mod node;
pub(crate) mod options;
pub(crate) mod tensors;
pub(crate) mod worker;

use std::io::Write;
use std::process::ExitCode;

/// Ends a program: with what went wrong in one line, if anything did.
pub(crate) fn end(result: Result<(), (u8, String)>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // `--help` is no error.
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
