//! The name that the environment gives to a run or a job; see [`LaunchEnv`].

use gradwire_core::{RunId, RunIdError};

use crate::launch_env::LaunchEnv;

/// The value of an environment variable, if it is set.
type Env<'a> = &'a dyn Fn(&'static str) -> Option<String>;

impl LaunchEnv {
    /// The run that the user has named in `GRADWIRE_RUN`, for [`Builder::run`](crate::Builder::run).
    ///
    /// # Errors
    /// If the value is not a valid name of a run.
    pub fn run() -> Result<Option<RunId>, RunIdError> {
        run_in(&|name| std::env::var(name).ok())
    }

    /// The name that a launcher has given to the job that this process belongs to, for
    /// [`Builder::job`](crate::Builder::job):
    ///
    /// | launcher | variables |
    /// |---|---|
    /// | gradwire's `launch` | `GRADWIRE_JOB` |
    /// | Slurm | `SLURM_JOB_ID`, `SLURM_STEP_ID` if the process belongs to a step |
    /// | torchrun | `TORCHELASTIC_RUN_ID`, unless it is `none` |
    /// | Open MPI, PMIx | `PMIX_NAMESPACE`, `OMPI_MCA_ess_base_jobid` |
    /// | LSF | `LSB_JOBID`, `LSB_JOBINDEX` |
    ///
    /// All processes of a job have the same name, and no other job has it. A job that is started again to go on with a
    /// run has another name, so the job names a run only if there is nothing to resume from.
    pub fn job() -> Option<RunId> {
        job_in(&|name| std::env::var(name).ok())
    }
}

fn run_in(env: Env<'_>) -> Result<Option<RunId>, RunIdError> {
    env("GRADWIRE_RUN").filter(|text| !text.is_empty()).map(|text| text.parse()).transpose()
}

fn job_in(env: Env<'_>) -> Option<RunId> {
    let set = |name| env(name).filter(|text| !text.trim().is_empty());
    let named = |launcher: &str, parts: &[Option<String>]| {
        let text = parts.iter().flatten().map(|part| part.trim()).collect::<Vec<_>>().join(".");
        RunId::from_text(&format!("{launcher}-{text}"))
    };
    if let Some(job) = set("GRADWIRE_JOB") {
        return RunId::from_text(&job);
    }
    // Before Slurm: a launcher that was started by a step has a job of its own within it.
    if let Some(id) = set("TORCHELASTIC_RUN_ID").filter(|id| id != "none") {
        return named("torchrun", &[Some(id)]);
    }
    // MPI: two `mpirun` in one allocation are two jobs.
    for name in ["PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid"] {
        // Slurm's own PMIx names its steps, too; its variables are clearer.
        if let Some(id) = set(name).filter(|id| !id.starts_with("slurm.pmix")) {
            return named("mpi", &[Some(id)]);
        }
    }
    if let Some(job) = set("SLURM_JOB_ID") {
        return named("slurm", &[Some(job), set("SLURM_STEP_ID")]);
    }
    if let Some(job) = set("LSB_JOBID") {
        return named("lsf", &[Some(job), set("LSB_JOBINDEX").filter(|index| index != "0")]);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env<'a>(vars: &'a [(&'a str, &'a str)]) -> impl Fn(&'static str) -> Option<String> + 'a {
        |name| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string())
    }

    #[test]
    fn a_launcher_names_its_jobs() {
        for (vars, job) in [
            (&[("SLURM_JOB_ID", "4711"), ("SLURM_STEP_ID", "0")][..], Some("slurm-4711.0")),
            (&[("SLURM_JOB_ID", "4711")], Some("slurm-4711")),
            (&[("TORCHELASTIC_RUN_ID", "none"), ("SLURM_JOB_ID", "1")], Some("slurm-1")),
            (&[("TORCHELASTIC_RUN_ID", "6c3f-77"), ("SLURM_JOB_ID", "1")], Some("torchrun-6c3f-77")),
            (&[("PMIX_NAMESPACE", "prterun-node1-99@1")], Some("mpi-prterun-node1-99_1")),
            (
                &[("PMIX_NAMESPACE", "slurm.pmix.12.0"), ("SLURM_JOB_ID", "12"), ("SLURM_STEP_ID", "0")],
                Some("slurm-12.0"),
            ),
            (&[("OMPI_MCA_ess_base_jobid", "1234567")], Some("mpi-1234567")),
            (&[("LSB_JOBID", "88"), ("LSB_JOBINDEX", "0")], Some("lsf-88")),
            (&[("LSB_JOBID", "88"), ("LSB_JOBINDEX", "3")], Some("lsf-88.3")),
            (&[("GRADWIRE_JOB", "launch-1"), ("SLURM_JOB_ID", "1")], Some("launch-1")),
            (&[("SLURM_JOB_ID", "")], None),
            (&[], None),
        ] {
            assert_eq!(job_in(&env(vars)).map(|job| job.to_string()).as_deref(), job, "{vars:?}");
        }
    }

    #[test]
    fn the_users_name_must_be_one() {
        assert_eq!(run_in(&env(&[("GRADWIRE_RUN", "a b")])), Err(RunIdError::Character { got: ' ' }));
        assert_eq!(run_in(&env(&[("GRADWIRE_RUN", "")])), Ok(None));
        assert_eq!(run_in(&env(&[("GRADWIRE_RUN", "mine")])), Ok(RunId::from_text("mine")));
    }
}
