//! The device on which the nodes of this process compute.

use std::io::Write as _;

use gradwire::Builder;
use gradwire_gpu::{Context, Gpu};

use super::options::exit;

/// A device that is open. Threads of one process share it.
#[derive(Clone, Debug)]
pub(crate) enum Executor {
    Cpu,
    Gpu(Context),
}

impl Executor {
    /// `cpu`, `gpu`, or `auto`: a GPU if there is one. Both `gpu` and `auto` print their choice.
    pub(crate) fn from_name(name: &str) -> Result<Self, (u8, String)> {
        let opened = match name {
            "gpu" | "auto" => Context::open(),
            _ => return Ok(Self::Cpu),
        };
        match opened {
            Ok(context) => {
                let _ = writeln!(std::io::stderr(), "executor: {}", context.name());
                Ok(Self::Gpu(context))
            }
            Err(error) if name == "auto" => {
                let _ = writeln!(std::io::stderr(), "executor: WARNING: using the CPU: {error}");
                Ok(Self::Cpu)
            }
            Err(error) => Err((exit::RUN, format!("--executor gpu: {error}"))),
        }
    }

    /// Lets a node compute on this device.
    pub(crate) fn on(&self, builder: Builder) -> Builder {
        match self {
            Self::Cpu => builder,
            Self::Gpu(context) => {
                let context = context.clone();
                builder.executor(move || Box::new(Gpu::new(context.clone())))
            }
        }
    }
}
