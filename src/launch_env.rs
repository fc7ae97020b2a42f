//! Where a process finds its rank, the number of processes, and where they meet: what launchers leave in the
//! environment.

use std::fmt;

/// A process's place among those that a launcher has started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchEnv {
    /// Its number.
    pub rank: u32,
    /// How many there are.
    pub processes: u32,
    /// Its number among those on this host, if that is told.
    pub local_rank: Option<u32>,
    /// Where rank 0 listens (`HOST:PORT`), if that is told.
    pub meet: Option<String>,
    /// Who said so.
    pub source: &'static str,
}

/// What a launcher has left in the environment makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchEnvError {
    /// The variable.
    pub name: &'static str,
    /// What it should be.
    pub expected: &'static str,
    /// What it is.
    pub got: String,
}

impl fmt::Display for LaunchEnvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: expected {}, got \"{}\"", self.name, self.expected, self.got)
    }
}

impl std::error::Error for LaunchEnvError {}

const NUMBER: &str = "a whole number";
const PORT: u16 = 29510;

impl LaunchEnv {
    /// Asks the environment, in this order: gradwire's own variables, torchrun, Open MPI, PMI, Slurm, Kubernetes. None
    /// of them: `None`.
    ///
    /// # Errors
    /// When the first that is there makes no sense.
    pub fn detect() -> Result<Option<Self>, LaunchEnvError> {
        Self::detect_in(&|name| std::env::var(name).ok())
    }

    fn detect_in(env: &dyn Fn(&'static str) -> Option<String>) -> Result<Option<Self>, LaunchEnvError> {
        let number = |name: &'static str| match env(name) {
            None => Ok(None),
            Some(text) => match text.trim().parse::<u32>() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(LaunchEnvError { name, expected: NUMBER, got: text }),
            },
        };
        let pair = |rank, processes, local, source| -> Result<Option<Self>, LaunchEnvError> {
            let (Some(rank_is), Some(count)) = (number(rank)?, number(processes)?) else { return Ok(None) };
            if rank_is >= count {
                return Err(LaunchEnvError {
                    name: rank,
                    expected: "less than the number of processes",
                    got: rank_is.to_string(),
                });
            }
            let local_rank = number(local)?;
            Ok(Some(Self { rank: rank_is, processes: count, local_rank, meet: None, source }))
        };
        let own_port = number("GRADWIRE_PORT")?.and_then(|port| u16::try_from(port).ok());
        if let Some(place) = pair("GRADWIRE_RANK", "GRADWIRE_PROCESSES", "GRADWIRE_LOCAL_RANK", "gradwire")? {
            return Ok(Some(Self { meet: env("GRADWIRE_MEET"), ..place }));
        }
        if let (Some(host), Some(place)) = (env("MASTER_ADDR"), pair("RANK", "WORLD_SIZE", "LOCAL_RANK", "torchrun")?) {
            // Its own store listens at MASTER_PORT already.
            let port = number("MASTER_PORT")?.and_then(|port| u16::try_from(port + 1).ok());
            let port = own_port.or(port).unwrap_or(PORT);
            return Ok(Some(Self { meet: Some(join(&host, port)), ..place }));
        }
        let ompi = ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK");
        if let Some(place) = pair(ompi.0, ompi.1, ompi.2, "Open MPI")? {
            return Ok(Some(place));
        }
        if let Some(place) = pair("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "PMI")? {
            return Ok(Some(place));
        }
        // The variables are there in an interactive shell of an allocation, too.
        let interactive = env("SLURM_JOB_NAME").is_some_and(|name| name == "bash" || name == "interactive");
        if !interactive && let Some(place) = pair("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "Slurm")? {
            let job = number("SLURM_JOB_ID")?.unwrap_or(0);
            let port = own_port.unwrap_or(PORT + (job % 10_000) as u16);
            let host = env("SLURM_JOB_NODELIST").and_then(|list| first_host(&list));
            return Ok(Some(Self { meet: host.map(|host| join(&host, port)), ..place }));
        }
        if let Some(place) = pair("JOB_COMPLETION_INDEX", "WORLD_SIZE", "LOCAL_RANK", "Kubernetes")? {
            let meet = env("MASTER_ADDR").map(|host| join(&host, own_port.unwrap_or(PORT)));
            return Ok(Some(Self { meet, ..place }));
        }
        Ok(None)
    }
}

fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The first host of a Slurm list such as `node[001-004,7],other`.
fn first_host(list: &str) -> Option<String> {
    let (prefix, rest) = match list.split_once('[') {
        // A list whose first entry has no brackets.
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
    fn launchers_are_known_in_their_order() {
        let torchrun =
            [("RANK", "1"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "1"), ("MASTER_ADDR", "h"), ("MASTER_PORT", "29500")];
        let place = detect(&torchrun).unwrap().unwrap();
        assert_eq!((place.rank, place.processes, place.source), (1, 4, "torchrun"));
        // The port that it names is taken by its own store.
        assert_eq!(place.meet.as_deref(), Some("h:29501"));
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
    fn nonsense_is_named() {
        let error = detect(&[("RANK", "x"), ("WORLD_SIZE", "4"), ("MASTER_ADDR", "h")]).unwrap_err();
        assert_eq!(error.to_string(), "RANK: expected a whole number, got \"x\"");
        let error = detect(&[("PMI_RANK", "4"), ("PMI_SIZE", "4")]).unwrap_err();
        assert_eq!(error.to_string(), "PMI_RANK: expected less than the number of processes, got \"4\"");
    }

    #[test]
    fn lists_of_hosts_are_read() {
        for (list, first) in
            [("n1", "n1"), ("n1,n2", "n1"), ("gpu[3,5-7]", "gpu3"), ("a,b[1-2]", "a"), ("r[01-02]-ib,c", "r01-ib")]
        {
            assert_eq!(first_host(list).as_deref(), Some(first), "{list}");
        }
        assert_eq!(first_host(""), None);
        assert_eq!(first_host("x[1"), None);
    }
}
