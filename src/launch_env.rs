//! [`LaunchEnv`]: the rank and the number of processes that a launcher has left in the environment.
//!
//! `find` looks for a launcher, `slurm` knows which of Slurm's variables belong to this process, `hosts` reads lists of
//! hosts, and `vars` reads single variables.

mod find;
mod hosts;
mod slurm;
#[cfg(test)]
mod tests;
mod vars;

use std::fmt;

use find::Finder;

/// The rank of this process, the number of processes, and the address at which they meet, as a launcher has set them in
/// the environment variables.
///
/// [`detect`](Self::detect) looks for the rank variables of the launchers in this order, and takes the first one that
/// is set. An empty value counts as not set.
///
/// | launcher | rank, processes, local rank | address of rank 0 |
/// |---|---|---|
/// | gradwire's `launch` | `GRADWIRE_RANK`, `GRADWIRE_PROCESSES`, `GRADWIRE_LOCAL_RANK` | `GRADWIRE_MEET` |
/// | torchrun, PyTorchJob | `RANK`, `WORLD_SIZE`, `LOCAL_RANK` | `MASTER_ADDR`, and the port after `MASTER_PORT` |
/// | Open MPI | `OMPI_COMM_WORLD_RANK`, `…_SIZE`, `…_LOCAL_RANK` | in a Slurm job: its first host |
/// | MVAPICH | `MV2_COMM_WORLD_RANK`, `…_SIZE`, `…_LOCAL_RANK` | in a Slurm job: its first host |
/// | PMI (MPICH, Intel MPI, PALS) | `PMI_RANK`, `PMI_SIZE`, `MPI_LOCALRANKID` | in a Slurm job: its first host |
/// | LSF (`jsrun`) | `JSM_NAMESPACE_RANK`, `…_SIZE`, `…_LOCAL_RANK` | |
/// | Flux | `FLUX_TASK_RANK`, `FLUX_JOB_SIZE`, `FLUX_TASK_LOCAL_ID` | |
/// | Slurm (`srun`) | `SLURM_PROCID`, `SLURM_STEP_NUM_TASKS`, `SLURM_LOCALID` | the first host of `SLURM_STEP_NODELIST` |
/// | PMIx | `PMIX_RANK`, `GRADWIRE_PROCESSES` | |
/// | Kubernetes (indexed job) | `JOB_COMPLETION_INDEX`, `WORLD_SIZE` | `MASTER_ADDR` |
/// | Kubernetes (StatefulSet) | the number in `HOSTNAME`, `WORLD_SIZE` | `MASTER_ADDR`, if its host has number 0 |
///
/// `GRADWIRE_PROCESSES` and `GRADWIRE_MEET` give the values that a launcher leaves out. `GRADWIRE_PORT` is the port of
/// rank 0 with an address of the launcher. Without it, a launcher that names no port gets 29510; in Slurm, the last
/// four digits of the job's number plus 101 times the step's number are added, so that jobs and steps on one host
/// differ. A value `tcp://…` of a port is no port: Kubernetes sets it for a service of that name. It is ignored, with a
/// note.
///
/// A rank variable without the number of processes is an error, not a process alone, and so is a batch script of Slurm
/// with several tasks, which runs once: several processes must not train alone by mistake.
///
/// ```
/// use gradwire::LaunchEnv;
///
/// // One process alone, unless a launcher says otherwise.
/// let env = LaunchEnv::detect()?.unwrap_or_else(LaunchEnv::alone);
/// assert!(env.rank < env.processes);
/// let meet = env.meet.unwrap_or_else(|| "127.0.0.1:29510".to_string());
/// println!("rank {} of {} ({}), meeting at {meet}", env.rank, env.processes, env.source);
/// # Ok::<(), gradwire::LaunchEnvError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchEnv {
    /// The rank of this process, below `processes`.
    pub rank: u32,
    /// The number of processes of the run.
    pub processes: u32,
    /// The rank among the processes on this host, if the launcher sets one. It can choose a GPU, for instance.
    pub local_rank: Option<u32>,
    /// The address of rank 0 (`HOST:PORT`), if the launcher sets one.
    pub meet: Option<String>,
    /// The name of the launcher, for messages.
    pub source: &'static str,
    /// Lines for the log: variables that were ignored, and why.
    pub notes: Vec<String>,
}

/// Values of an application's own flags. They go before the environment, see [`LaunchEnv::with_flags`].
///
/// ```
/// use gradwire::{LaunchEnv, LaunchFlags};
///
/// let flags = LaunchFlags { rank: Some(1), processes: Some(4), meet: Some("10.0.0.1:29510".into()) };
/// let env = LaunchEnv::with_flags(&flags)?;
/// assert_eq!((env.rank, env.processes, env.meet.as_deref()), (1, 4, Some("10.0.0.1:29510")));
/// # Ok::<(), gradwire::LaunchEnvError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaunchFlags {
    /// The rank of this process.
    pub rank: Option<u32>,
    /// The number of processes.
    pub processes: Option<u32>,
    /// The address of rank 0 (`HOST:PORT`).
    pub meet: Option<String>,
}

/// The environment does not say where this process belongs.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LaunchEnvError {
    /// A variable has a value that makes no sense.
    Value {
        /// The name of the variable.
        name: &'static str,
        /// The values that are allowed, in words.
        expected: &'static str,
        /// The value of the variable.
        got: String,
    },
    /// The variable `set` says that there are several processes, but `missing` is not set.
    Missing {
        /// The name and the value of the variable.
        set: (&'static str, String),
        /// The name of the variable or flag that is not set.
        missing: &'static str,
    },
    /// Two sources give different numbers of processes.
    Processes {
        /// The name of a variable, or `--processes`, and its value.
        one: (&'static str, u32),
        /// The name of the other one and its value.
        other: (&'static str, u32),
    },
    /// This is the batch script of a Slurm job with several tasks, which runs once, and not a task.
    BatchScript {
        /// The number of tasks.
        tasks: u32,
    },
}

impl LaunchEnv {
    /// One process without a launcher.
    pub fn alone() -> Self {
        Self { rank: 0, processes: 1, local_rank: None, meet: None, source: "alone", notes: Vec::new() }
    }

    /// Reads the environment of this process. `None`: no launcher has set its variables.
    ///
    /// # Errors
    /// If the variables of the launcher are incomplete or make no sense, see [`LaunchEnvError`].
    pub fn detect() -> Result<Option<Self>, LaunchEnvError> {
        Self::with_flags(&LaunchFlags::default()).map(|found| (found.source != ALONE).then_some(found))
    }

    /// As [`detect`](Self::detect), for a program with flags of its own. Looks only for the values that the flags do
    /// not give, and reads only the variables that this takes. Without flags and without a launcher:
    /// [`alone`](Self::alone).
    ///
    /// # Errors
    /// As for [`detect`](Self::detect), and if the flags give only one of rank and number of processes, and the
    /// environment does not give the other.
    pub fn with_flags(flags: &LaunchFlags) -> Result<Self, LaunchEnvError> {
        Finder::new(&|name| std::env::var(name).ok(), flags).find()
    }
}

/// The source of [`LaunchEnv::alone`].
const ALONE: &str = "alone";

impl fmt::Display for LaunchEnvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value { name, expected, got } => write!(f, "{name}: expected {expected}, got \"{got}\""),
            Self::Missing { set: (name, value), missing } => write!(
                f,
                "{name} is {value}, but {missing} is not set: expected both, or --rank and --processes (alone: --rank 0 \
                 --processes 1)"
            ),
            Self::Processes { one: (one, a), other: (other, b) } => {
                write!(f, "number of processes: expected one number, got {a} ({one}) and {b} ({other})")
            }
            Self::BatchScript { tasks } => write!(
                f,
                "SLURM_NTASKS is {tasks}, but this process belongs to no step of srun: expected \"srun PROGRAM\" in the \
                 batch script, or --rank and --processes (alone: --rank 0 --processes 1)"
            ),
        }
    }
}

// A program that returns this error from `main` prints it by `Debug`.
impl fmt::Debug for LaunchEnvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for LaunchEnvError {}
