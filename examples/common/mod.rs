//! The code that the example programs share: options, data, model, the training loop, and the program `node`.

pub(crate) mod data;
pub(crate) mod executor;
pub(crate) mod model;
pub(crate) mod node;
pub(crate) mod options;
pub(crate) mod tensors;
pub(crate) mod worker;

use std::io::Write;
use std::process::ExitCode;

/// Ends a program: prints the message of an error in one line, and returns its exit code.
pub(crate) fn end(result: Result<(), (u8, String)>) -> ExitCode {
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
