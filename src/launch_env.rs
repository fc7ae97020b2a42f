//! [`LaunchEnv`]: the rank and the number of processes that a launcher has left in the environment.

use std::fmt;

/// The rank of this process, the number of processes, and the address at which they meet, as a launcher has set them in
/// the environment variables.
///
/// [`detect`](Self::detect) reads the variables of the launchers in this order, and stops at the first one whose rank
/// and number of processes are set:
///
/// | launcher | rank, processes, local rank | address of rank 0 |
/// |---|---|---|
/// | gradwire's `launch` | `GRADWIRE_RANK`, `GRADWIRE_PROCESSES`, `GRADWIRE_LOCAL_RANK` | `GRADWIRE_MEET` |
/// | torchrun | `RANK`, `WORLD_SIZE`, `LOCAL_RANK` | `MASTER_ADDR`, and the port after `MASTER_PORT` |
/// | Open MPI | `OMPI_COMM_WORLD_RANK`, `…_SIZE`, `…_LOCAL_RANK` | |
/// | PMI (MPICH, Intel MPI) | `PMI_RANK`, `PMI_SIZE`, `MPI_LOCALRANKID` | |
/// | Slurm | `SLURM_PROCID`, `SLURM_NTASKS`, `SLURM_LOCALID` | the first host of `SLURM_JOB_NODELIST` |
/// | Kubernetes (indexed job) | `JOB_COMPLETION_INDEX`, `WORLD_SIZE`, `LOCAL_RANK` | `MASTER_ADDR` |
///
/// `GRADWIRE_PORT` overrides the port of rank 0, except in `GRADWIRE_MEET`. Without it, a launcher that names no port
/// gets 29510; in Slurm the last four digits of the job's number are added, so that two jobs on one host differ.
///
/// ```
/// use gradwire::LaunchEnv;
///
/// // One process alone, unless a launcher says otherwise.
/// let alone = LaunchEnv { rank: 0, processes: 1, local_rank: None, meet: None, source: "alone" };
/// let env = LaunchEnv::detect()?.unwrap_or(alone);
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
    /// The address at which rank 0 listens (`HOST:PORT`), if the launcher sets one.
    pub meet: Option<String>,
    /// The name of the launcher, for messages.
    pub source: &'static str,
}

/// An environment variable of a launcher has a value that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchEnvError {
    /// The name of the variable.
    pub name: &'static str,
    /// The values that are allowed, in words.
    pub expected: &'static str,
    /// The value of the variable.
    pub got: String,
}

impl fmt::Display for LaunchEnvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: expected {}, got \"{}\"", self.name, self.expected, self.got)
    }
}

impl std::error::Error for LaunchEnvError {}

/// The default port of rank 0.
const PORT: u16 = 29510;

/// The value of an environment variable, if it is set.
type Env<'a> = &'a dyn Fn(&'static str) -> Option<String>;

/// The variables of a launcher.
struct Variables {
    rank: &'static str,
    processes: &'static str,
    local_rank: &'static str,
    source: &'static str,
}

const GRADWIRE: Variables = Variables {
    rank: "GRADWIRE_RANK",
    processes: "GRADWIRE_PROCESSES",
    local_rank: "GRADWIRE_LOCAL_RANK",
    source: "gradwire",
};
const TORCHRUN: Variables =
    Variables { rank: "RANK", processes: "WORLD_SIZE", local_rank: "LOCAL_RANK", source: "torchrun" };
const OPEN_MPI: Variables = Variables {
    rank: "OMPI_COMM_WORLD_RANK",
    processes: "OMPI_COMM_WORLD_SIZE",
    local_rank: "OMPI_COMM_WORLD_LOCAL_RANK",
    source: "Open MPI",
};
const PMI: Variables =
    Variables { rank: "PMI_RANK", processes: "PMI_SIZE", local_rank: "MPI_LOCALRANKID", source: "PMI" };
const SLURM: Variables =
    Variables { rank: "SLURM_PROCID", processes: "SLURM_NTASKS", local_rank: "SLURM_LOCALID", source: "Slurm" };
const KUBERNETES: Variables =
    Variables { rank: "JOB_COMPLETION_INDEX", processes: "WORLD_SIZE", local_rank: "LOCAL_RANK", source: "Kubernetes" };

impl LaunchEnv {
    /// Reads the environment of this process. `None`: no launcher has set its variables.
    ///
    /// # Errors
    /// If a variable of the first launcher that is found has no number, or the rank is not below the number of
    /// processes.
    pub fn detect() -> Result<Option<Self>, LaunchEnvError> {
        Self::detect_in(&|name| std::env::var(name).ok())
    }

    fn detect_in(env: Env<'_>) -> Result<Option<Self>, LaunchEnvError> {
        let own_port = port(env, "GRADWIRE_PORT")?;
        if let Some(found) = Self::read(env, &GRADWIRE)? {
            return Ok(Some(Self { meet: env("GRADWIRE_MEET"), ..found }));
        }
        // `RANK` and `WORLD_SIZE` alone are too common to mean torchrun.
        if let Some(host) = env("MASTER_ADDR")
            && let Some(found) = Self::read(env, &TORCHRUN)?
        {
            // torchrun's own store already listens on MASTER_PORT.
            let next = port(env, "MASTER_PORT")?.and_then(|port| port.checked_add(1));
            return Ok(Some(Self { meet: Some(address(&host, own_port.or(next).unwrap_or(PORT))), ..found }));
        }
        for variables in [&OPEN_MPI, &PMI] {
            if let Some(found) = Self::read(env, variables)? {
                return Ok(Some(found));
            }
        }
        // An interactive shell of an allocation has the variables too, and is no rank of a run.
        let interactive = env("SLURM_JOB_NAME").is_some_and(|name| name == "bash" || name == "interactive");
        if !interactive && let Some(found) = Self::read(env, &SLURM)? {
            let job = number(env, "SLURM_JOB_ID")?.unwrap_or(0);
            let port = own_port.unwrap_or(PORT + (job % 10_000) as u16);
            let host = env("SLURM_JOB_NODELIST").and_then(|list| first_host(&list));
            return Ok(Some(Self { meet: host.map(|host| address(&host, port)), ..found }));
        }
        if let Some(found) = Self::read(env, &KUBERNETES)? {
            let meet = env("MASTER_ADDR").map(|host| address(&host, own_port.unwrap_or(PORT)));
            return Ok(Some(Self { meet, ..found }));
        }
        Ok(None)
    }

    /// Reads a launcher's variables. `None`: the rank or the number of processes is not set.
    fn read(env: Env<'_>, variables: &Variables) -> Result<Option<Self>, LaunchEnvError> {
        let Variables { rank: name, processes, local_rank, source } = *variables;
        let (Some(rank), Some(processes)) = (number(env, name)?, number(env, processes)?) else { return Ok(None) };
        if rank >= processes {
            let expected = "less than the number of processes";
            return Err(LaunchEnvError { name, expected, got: rank.to_string() });
        }
        Ok(Some(Self { rank, processes, local_rank: number(env, local_rank)?, meet: None, source }))
    }
}

fn number(env: Env<'_>, name: &'static str) -> Result<Option<u32>, LaunchEnvError> {
    let Some(text) = env(name) else { return Ok(None) };
    match text.trim().parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(LaunchEnvError { name, expected: "a whole number", got: text }),
    }
}

/// A number that is no port counts as not set.
fn port(env: Env<'_>, name: &'static str) -> Result<Option<u16>, LaunchEnvError> {
    Ok(number(env, name)?.and_then(|port| u16::try_from(port).ok()))
}

/// `HOST:PORT`. An IPv6 address needs brackets, since it has colons of its own.
fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The first host of a Slurm list such as `node[001-004,7],other`.
fn first_host(list: &str) -> Option<String> {
    let (prefix, rest) = match list.split_once('[') {
        // The first entry has no brackets: these belong to a later one.
        Some((prefix, _)) if prefix.contains(',') => return prefix.split(',').next().map(str::to_string),
        Some(parts) => parts,
        None => return list.split(',').next().filter(|host| !host.is_empty()).map(str::to_string),
    };
    let (inside, after) = rest.split_once(']')?;
    let number = inside.split([',', '-']).next()?;
    let suffix = after.split(',').next().unwrap_or("");
    Some(format!("{prefix}{number}{suffix}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(vars: &[(&'static str, &str)]) -> Result<Option<LaunchEnv>, LaunchEnvError> {
        LaunchEnv::detect_in(&|name| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string()))
    }

    #[test]
    fn launchers_are_recognised_in_order() {
        let torchrun =
            [("RANK", "1"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "1"), ("MASTER_ADDR", "h"), ("MASTER_PORT", "29500")];
        let found = detect(&torchrun).unwrap().unwrap();
        assert_eq!((found.rank, found.processes, found.source), (1, 4, "torchrun"));
        // MASTER_PORT itself belongs to torchrun's store.
        assert_eq!(found.meet.as_deref(), Some("h:29501"));
        let own = [("GRADWIRE_RANK", "0"), ("GRADWIRE_PROCESSES", "2"), ("GRADWIRE_MEET", "m:1")];
        let both: Vec<_> = torchrun.into_iter().chain(own).collect();
        assert_eq!(detect(&both).unwrap().unwrap().source, "gradwire");
        let ompi = [("OMPI_COMM_WORLD_RANK", "2"), ("OMPI_COMM_WORLD_SIZE", "3"), ("OMPI_COMM_WORLD_LOCAL_RANK", "0")];
        assert_eq!(detect(&ompi).unwrap().unwrap().local_rank, Some(0));
        let slurm = [
            ("SLURM_PROCID", "3"),
            ("SLURM_NTASKS", "8"),
            ("SLURM_JOB_NODELIST", "node[001-004,7]"),
            ("SLURM_JOB_ID", "12345"),
        ];
        assert_eq!(detect(&slurm).unwrap().unwrap().meet.as_deref(), Some("node001:31855"));
        let shell: Vec<_> = slurm.into_iter().chain([("SLURM_JOB_NAME", "bash")]).collect();
        assert_eq!(detect(&shell), Ok(None));
        let kubernetes = [("JOB_COMPLETION_INDEX", "1"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "job-0.svc")];
        assert_eq!(detect(&kubernetes).unwrap().unwrap().meet.as_deref(), Some("job-0.svc:29510"));
        assert_eq!(detect(&[]), Ok(None));
    }

    #[test]
    fn an_error_names_the_variable() {
        let error = detect(&[("RANK", "x"), ("WORLD_SIZE", "4"), ("MASTER_ADDR", "h")]).unwrap_err();
        assert_eq!(error.to_string(), "RANK: expected a whole number, got \"x\"");
        let error = detect(&[("PMI_RANK", "4"), ("PMI_SIZE", "4")]).unwrap_err();
        assert_eq!(error.to_string(), "PMI_RANK: expected less than the number of processes, got \"4\"");
    }

    #[test]
    fn the_first_host_of_a_slurm_list_is_found() {
        for (list, first) in
            [("n1", "n1"), ("n1,n2", "n1"), ("gpu[3,5-7]", "gpu3"), ("a,b[1-2]", "a"), ("r[01-02]-ib,c", "r01-ib")]
        {
            assert_eq!(first_host(list).as_deref(), Some(first), "{list}");
        }
        assert_eq!(first_host(""), None);
        assert_eq!(first_host("x[1"), None);
    }
}
