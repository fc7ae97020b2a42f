//! The search for a launcher.

use super::vars::{Env, Vars, address, number};
use super::{LaunchEnv, LaunchEnvError, LaunchFlags, slurm};

/// The default port of rank 0.
pub(super) const PORT: u16 = 29510;

/// A launcher that sets variables with fixed names.
struct Launcher {
    source: &'static str,
    rank: &'static str,
    /// `None`: the launcher does not say how many processes there are.
    processes: Option<&'static str>,
    local_rank: &'static [&'static str],
}

const GRADWIRE: Launcher = Launcher {
    source: "gradwire",
    rank: "GRADWIRE_RANK",
    processes: Some("GRADWIRE_PROCESSES"),
    local_rank: &["GRADWIRE_LOCAL_RANK"],
};
const TORCHRUN: Launcher =
    Launcher { source: "torchrun", rank: "RANK", processes: Some("WORLD_SIZE"), local_rank: &["LOCAL_RANK"] };
/// Launchers of MPI and their relatives. No other program uses the names of their variables.
const MPI: [Launcher; 5] = [
    Launcher {
        source: "Open MPI",
        rank: "OMPI_COMM_WORLD_RANK",
        processes: Some("OMPI_COMM_WORLD_SIZE"),
        local_rank: &["OMPI_COMM_WORLD_LOCAL_RANK"],
    },
    Launcher {
        source: "MVAPICH",
        rank: "MV2_COMM_WORLD_RANK",
        processes: Some("MV2_COMM_WORLD_SIZE"),
        local_rank: &["MV2_COMM_WORLD_LOCAL_RANK"],
    },
    Launcher {
        source: "PMI",
        rank: "PMI_RANK",
        processes: Some("PMI_SIZE"),
        local_rank: &["MPI_LOCALRANKID", "PALS_LOCAL_RANKID", "PMI_LOCAL_RANK"],
    },
    Launcher {
        source: "LSF",
        rank: "JSM_NAMESPACE_RANK",
        processes: Some("JSM_NAMESPACE_SIZE"),
        local_rank: &["JSM_NAMESPACE_LOCAL_RANK"],
    },
    Launcher {
        source: "Flux",
        rank: "FLUX_TASK_RANK",
        processes: Some("FLUX_JOB_SIZE"),
        local_rank: &["FLUX_TASK_LOCAL_ID"],
    },
];
const PMIX: Launcher = Launcher { source: "PMIx", rank: "PMIX_RANK", processes: None, local_rank: &[] };
const KUBERNETES: Launcher = Launcher {
    source: "Kubernetes",
    rank: "JOB_COMPLETION_INDEX",
    processes: Some("WORLD_SIZE"),
    local_rank: &["LOCAL_RANK"],
};

/// A search in an environment.
pub(super) struct Finder<'a> {
    vars: Vars<'a>,
    flags: &'a LaunchFlags,
}

impl<'a> Finder<'a> {
    pub(super) fn new(env: Env<'a>, flags: &'a LaunchFlags) -> Self {
        Self { vars: Vars::new(env), flags }
    }

    pub(super) fn find(mut self) -> Result<LaunchEnv, LaunchEnvError> {
        let found = match (self.flags.rank, self.flags.processes) {
            (Some(rank), Some(processes)) => Some(LaunchEnv { rank, processes, source: "flags", ..LaunchEnv::alone() }),
            (rank, _) => match (self.launcher()?, rank, self.given_processes()?) {
                (None, Some(rank), Some((_, processes))) => {
                    Some(LaunchEnv { rank, processes, source: "flags", ..LaunchEnv::alone() })
                }
                (found, ..) => found,
            },
        };
        let Some(mut found) = found else {
            self.refuse_rest()?;
            return Ok(LaunchEnv { meet: self.flags.meet.clone(), notes: self.vars.notes, ..LaunchEnv::alone() });
        };
        if found.rank >= found.processes {
            let name = if self.flags.rank.is_some() { "--rank" } else { rank_of(found.source) };
            let expected = "less than the number of processes";
            return Err(LaunchEnvError::Value { name, expected, got: found.rank.to_string() });
        }
        found.meet = match self.flags.meet.clone().or_else(|| self.vars.text("GRADWIRE_MEET")) {
            Some(meet) => Some(meet),
            None if found.processes == 1 => None,
            None => self.meet(found.source)?,
        };
        Ok(LaunchEnv { notes: self.vars.notes, ..found })
    }

    /// The first launcher that has set its rank variable.
    fn launcher(&mut self) -> Result<Option<LaunchEnv>, LaunchEnvError> {
        if let Some(found) = self.read(&GRADWIRE)? {
            return Ok(Some(found));
        }
        if self.is_torch()
            && let Some(found) = self.read(&TORCHRUN)?
        {
            return Ok(Some(found));
        }
        for launcher in &MPI {
            if let Some(found) = self.read(launcher)? {
                // Slurm sets the variables of PMI for its own tasks, too, if it is asked to.
                let of_slurm = launcher.source == "PMI" && self.vars.text("SLURM_PROCID").is_some();
                let notes = self.vars.notes.len();
                let task = if of_slurm { slurm::read(&mut self.vars, None).ok().flatten() } else { None };
                self.vars.notes.truncate(notes);
                let same = |task: &LaunchEnv| (task.rank, task.processes) == (found.rank, found.processes);
                return Ok(Some(task.filter(same).unwrap_or(found)));
            }
        }
        let processes = self.given_processes()?.map(|(_, processes)| processes);
        if let Some(found) = slurm::read(&mut self.vars, processes)? {
            return self.checked(found, "SLURM_STEP_NUM_TASKS").map(Some);
        }
        for launcher in [&PMIX, &KUBERNETES] {
            if let Some(found) = self.read(launcher)? {
                return Ok(Some(found));
            }
        }
        self.stateful_set()
    }

    /// `RANK` and `WORLD_SIZE` are common words. Together with `MASTER_ADDR`, or as numbers that fit together, they
    /// were set by torchrun or by a launcher that does as it does.
    fn is_torch(&mut self) -> bool {
        let (Some(rank), size) = (self.vars.text("RANK"), self.vars.text("WORLD_SIZE")) else { return false };
        let (rank_number, size_number) = (self.vars.maybe_number("RANK"), self.vars.maybe_number("WORLD_SIZE"));
        let master = self.vars.text("MASTER_ADDR").is_some();
        let fits = size_number.is_some_and(|size| size > 1 && rank_number.is_some_and(|rank| rank < size));
        // One wrong value of three is a launcher's mistake. Two mean that the variables serve another purpose.
        let sure = fits || (master && (rank_number.is_some() || (size.is_some() && size_number.is_some())));
        if !sure {
            self.vars.notes.push(format!("RANK={rank} is ignored: no launcher's, without WORLD_SIZE and MASTER_ADDR"));
        }
        sure
    }

    /// Reads a launcher's variables. `None`: its rank is not set.
    fn read(&self, launcher: &Launcher) -> Result<Option<LaunchEnv>, LaunchEnvError> {
        let &Launcher { source, rank: name, processes, local_rank } = launcher;
        let Some(text) = self.vars.text(name) else { return Ok(None) };
        let rank = number(name, text)?;
        let of_launcher = match processes {
            Some(name) => self.vars.number(name)?.map(|processes| (name, processes)),
            None => None,
        };
        let processes = match (of_launcher, self.given_processes()?) {
            (Some((name, processes)), _) => {
                let found = LaunchEnv { processes, ..LaunchEnv::alone() };
                self.checked(found, name)?.processes
            }
            (None, Some((_, processes))) => processes,
            (None, None) => {
                let missing = processes.unwrap_or("GRADWIRE_PROCESSES");
                return Err(LaunchEnvError::Missing { set: (name, rank.to_string()), missing });
            }
        };
        let local_rank = local_rank.iter().find_map(|name| self.vars.maybe_number(name));
        let rank = self.flags.rank.unwrap_or(rank);
        Ok(Some(LaunchEnv { rank, processes, local_rank, source, ..LaunchEnv::alone() }))
    }

    /// Applies the rank of the flags, and compares the number of processes with the one that was given besides.
    fn checked(&self, found: LaunchEnv, name: &'static str) -> Result<LaunchEnv, LaunchEnvError> {
        if let Some(given) = self.given_processes()?.filter(|(_, processes)| *processes != found.processes) {
            return Err(LaunchEnvError::Processes { one: given, other: (name, found.processes) });
        }
        Ok(LaunchEnv { rank: self.flags.rank.unwrap_or(found.rank), ..found })
    }

    /// The number of processes that the user has given, with its source. It does not depend on the launcher.
    fn given_processes(&self) -> Result<Option<(&'static str, u32)>, LaunchEnvError> {
        if let Some(processes) = self.flags.processes {
            return Ok(Some(("--processes", processes)));
        }
        Ok(self.vars.number("GRADWIRE_PROCESSES")?.map(|processes| ("GRADWIRE_PROCESSES", processes)))
    }

    /// A pod of a StatefulSet: `HOSTNAME=train-2`, and the host of rank 0 is `train-0`, or `train-0.service`.
    fn stateful_set(&self) -> Result<Option<LaunchEnv>, LaunchEnvError> {
        let meet = self.flags.meet.clone();
        let zero = meet.or_else(|| self.vars.first(&["GRADWIRE_MEET", "MASTER_ADDR"]).map(|(_, value)| value));
        let (Some(zero), Some(own)) = (zero, self.vars.text("HOSTNAME")) else { return Ok(None) };
        let zero = zero.split(['.', ':']).next().unwrap_or_default();
        let ((Some(set), Some((own, rank))), true) =
            ((zero.strip_suffix("-0"), own.rsplit_once('-')), self.vars.text("KUBERNETES_SERVICE_HOST").is_some())
        else {
            return Ok(None);
        };
        let processes = match self.given_processes()? {
            Some((_, processes)) => Some(processes),
            None => self.vars.number("WORLD_SIZE")?,
        };
        let (Ok(rank), true, Some(processes)) = (rank.parse(), own == set, processes) else { return Ok(None) };
        let rank = self.flags.rank.unwrap_or(rank);
        Ok(Some(LaunchEnv { rank, processes, source: STATEFUL_SET, ..LaunchEnv::alone() }))
    }

    /// The address of rank 0, as the launcher gives it.
    fn meet(&mut self, source: &'static str) -> Result<Option<String>, LaunchEnvError> {
        let own_port = |vars: &mut Vars<'_>| vars.port("GRADWIRE_PORT");
        match source {
            "torchrun" | "Kubernetes" | STATEFUL_SET => {
                let Some(host) = self.vars.text("MASTER_ADDR") else { return Ok(None) };
                let port = match own_port(&mut self.vars)? {
                    Some(port) => port,
                    // torchrun's own store already listens on MASTER_PORT.
                    None if source == "torchrun" => {
                        self.vars.port("MASTER_PORT")?.and_then(|port| port.checked_add(1)).unwrap_or(PORT)
                    }
                    None => PORT,
                };
                address("MASTER_ADDR", &host, port).map(Some)
            }
            "Slurm" | "Open MPI" | "MVAPICH" | "PMI"
                if self.vars.text("SLURM_JOB_ID").is_some() || source == "Slurm" =>
            {
                let port = own_port(&mut self.vars)?;
                slurm::meet(&self.vars, source == "Slurm", port)
            }
            _ => Ok(None),
        }
    }

    /// No rank was found: refuses an environment or flags that tell of several processes.
    fn refuse_rest(&self) -> Result<(), LaunchEnvError> {
        if let Some(rank) = self.flags.rank {
            return Err(LaunchEnvError::Missing { set: ("--rank", rank.to_string()), missing: "--processes" });
        }
        if let Some((name, processes)) = self.given_processes()?.filter(|(name, n)| *n > 1 || *name == "--processes") {
            let missing = if name == "--processes" { "--rank" } else { "GRADWIRE_RANK" };
            return Err(LaunchEnvError::Missing { set: (name, processes.to_string()), missing });
        }
        let several = self.vars.maybe_number("WORLD_SIZE").filter(|processes| *processes > 1);
        match several.filter(|_| self.vars.text("MASTER_ADDR").is_some()) {
            Some(processes) => {
                Err(LaunchEnvError::Missing { set: ("WORLD_SIZE", processes.to_string()), missing: "RANK" })
            }
            None => Ok(()),
        }
    }
}

const STATEFUL_SET: &str = "Kubernetes (StatefulSet)";

/// The variable of the rank, for messages.
fn rank_of(source: &str) -> &'static str {
    let known = [&GRADWIRE, &TORCHRUN, &PMIX, &KUBERNETES].into_iter().chain(&MPI);
    let name = known.filter(|launcher| launcher.source == source).map(|launcher| launcher.rank).next();
    name.unwrap_or(if source == "Slurm" { "SLURM_PROCID" } else { "HOSTNAME" })
}
