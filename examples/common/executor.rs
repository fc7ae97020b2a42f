//! The device on which the nodes of this process compute.

use std::io::Write as _;

use gradwire::Builder;

use super::options::exit;

/// A device that is open. Threads of one process share it.
#[cfg(feature = "gpu")]
type Device = gradwire::gpu::Context;
/// No device can be open in a build without the feature.
#[cfg(not(feature = "gpu"))]
type Device = std::convert::Infallible;

#[derive(Clone, Debug)]
pub enum Executor {
    Cpu,
    Gpu(Device),
}

impl Executor {
    /// `cpu`, `gpu`, or `auto`: a GPU if there is one. Both `gpu` and `auto` print their choice.
    pub fn from_name(name: &str) -> Result<Self, (u8, String)> {
        let opened = match name {
            "gpu" | "auto" => open(),
            _ => return Ok(Self::Cpu),
        };
        match opened {
            Ok((device, said)) => {
                let _ = writeln!(std::io::stderr(), "executor: {said}");
                Ok(Self::Gpu(device))
            }
            Err(error) if name == "auto" => {
                let _ = writeln!(std::io::stderr(), "executor: WARNING: using the CPU: {error}");
                Ok(Self::Cpu)
            }
            Err(error) => Err((exit::RUN, format!("--executor gpu: {error}"))),
        }
    }

    /// Lets a node compute on this device.
    pub fn on(&self, builder: Builder) -> Builder {
        match self {
            Self::Cpu => builder,
            #[cfg(feature = "gpu")]
            Self::Gpu(device) => {
                let device = device.clone();
                builder.executor(move || Box::new(gradwire::gpu::Gpu::new(device.clone())))
            }
            #[cfg(not(feature = "gpu"))]
            Self::Gpu(device) => match *device {},
        }
    }
}

/// The first adapter, and its name.
#[cfg(feature = "gpu")]
fn open() -> Result<(Device, String), String> {
    let device = Device::open().map_err(|error| error.to_string())?;
    let name = device.name().to_string();
    Ok((device, name))
}

#[cfg(not(feature = "gpu"))]
fn open() -> Result<(Device, String), String> {
    let text = "this program was built without its feature gpu; a build with it: \
                cargo run --release --features gpu --example cluster -- --executor gpu";
    Err(text.to_string())
}
