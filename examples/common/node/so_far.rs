//! [`SoFar`]: the state of a training, for the summary after a signal.

use std::path::PathBuf;

use crate::children::name;
use crate::units::bytes;

/// The state of a training, for the summary after a signal.
#[derive(Clone, Debug, Default)]
pub(super) struct SoFar {
    pub(super) rank: u32,
    /// The directory of checkpoints.
    pub(super) checkpoints: Option<PathBuf>,
    /// Whether a checkpoint was written after the signal.
    pub(super) saved: bool,
    pub(super) steps: u64,
    /// The mean training loss of the last pass over the data.
    pub(super) loss: Option<f64>,
    /// The accuracy on the test data after the last whole pass, 0 to 1, at rank 0.
    pub(super) accuracy: Option<f64>,
    /// Bytes that the worker has sent.
    pub(super) sent: u64,
}

impl SoFar {
    /// The summary of a training that this signal has ended early.
    pub(super) fn ended_early(&self, signal: i32) -> String {
        let Self { rank, ref checkpoints, saved, steps, loss, accuracy, sent } = *self;
        let loss = loss.map_or_else(String::new, |loss| format!(", train loss {loss:.3}"));
        let accuracy = accuracy.map_or_else(String::new, |share| format!(", test accuracy {:.1} %", 100.0 * share));
        let kept = match checkpoints.as_ref().map(|directory| directory.display()) {
            None => "no checkpoint was kept (--checkpoint DIR)".to_string(),
            Some(directory) if saved => format!("the checkpoint is in {directory}: go on with --resume"),
            Some(directory) => format!("the last checkpoint before the signal, if there is one, is in {directory}"),
        };
        let (name, sent, plural) = (name(signal), bytes(sent as f64), if steps == 1 { "" } else { "s" });
        format!("node {rank}: ended early by {name} after {steps} step{plural}{loss}{accuracy}, {sent} sent; {kept}")
    }
}
