//! The code that the example programs share. It is no API: items are public so that the programs can reach them.

#![allow(missing_docs, reason = "the programs in this package are the only readers")]

pub mod children;
pub mod data;
pub mod executor;
pub mod model;
pub mod node;
pub mod options;
pub mod tensors;
pub mod worker;

use std::io::Write;
use std::process::ExitCode;

/// Ends a program: with what went wrong in one line, if anything did.
pub fn end(result: Result<(), (u8, String)>) -> ExitCode {
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
