//! The facts of a training on which all processes must agree, as notes of the contract.

use gradwire::Builder;

use super::options::Options;
use super::task::Task;
use super::worker::digest;

impl Options {
    /// Adds to the contract the settings that each process takes from its own flags and files, and that all must choose
    /// alike. `initial`: the parameters of a new run. `every`: steps between checkpoints, if the run writes them at
    /// common rounds.
    pub fn agree(&self, builder: Builder, task: &dyn Task, initial: &[f32], every: Option<u64>) -> Builder {
        let hidden: Vec<String> = self.hidden.iter().map(usize::to_string).collect();
        let every = every.filter(|_| self.recipe.is_collective());
        builder
            .note("task", self.task.text())
            .note("hidden", hidden.join(","))
            .note("seed", self.seed)
            .note("epochs", self.epochs)
            .note("batch", self.batch)
            // Before the rate, because the default rate follows from the momentum.
            .note("momentum", self.momentum)
            .note("rate", self.rate)
            .note("decay", self.decay)
            .note("min-workers", self.min_workers.map_or_else(|| "default".to_string(), |least| least.to_string()))
            .note("checkpoint every", every.map_or_else(|| "never".to_string(), |every| every.to_string()))
            .note("data", format!("{} examples, digest {:016x}", task.examples(), task.digest()))
            .note("initial parameters", format!("{:016x}", digest(initial)))
    }
}
