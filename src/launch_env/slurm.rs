//! Slurm. A job has *steps*, each started by `srun`, and each step has tasks. A process of a step has the variables of
//! its job as well, and they describe the job: `SLURM_NTASKS` of a job with 8 tasks is 8 for a step of 2, unless `srun`
//! has replaced it. So the variables of the step go first. A batch script, and a shell of `salloc`, have the job's
//! variables only; they run once, with any number of tasks.
//!
//! A step of a *heterogeneous* job can have several components. `SLURM_PROCID` and `SLURM_NTASKS` count through all of
//! them, while `SLURM_STEP_NUM_TASKS` and `SLURM_STEP_NODELIST` describe one component.

use super::hosts::first_host;
use super::vars::{Vars, address, number};
use super::{LaunchEnv, LaunchEnvError};

/// The default port of rank 0 of a step of a job.
const PORT: u16 = super::find::PORT;
/// The lowest special step number: steps that `srun` did not start, such as batch scripts and interactive shells.
const NO_STEP_MIN: i64 = 0xffff_fff0;
const INTERACTIVE_STEP: i64 = 0xffff_fffa;

/// Where this process is in a Slurm job.
enum Place {
    /// Outside of a job, or in a shell.
    None,
    /// In the batch script.
    Batch,
    /// A task of a step.
    Task,
}

/// The place of this process in a step, without the address of rank 0. `None`: the process is not a task.
///
/// # Errors
/// If it is the batch script of a job with several tasks, or variables make no sense.
pub(super) fn read(vars: &mut Vars<'_>, processes: Option<u32>) -> Result<Option<LaunchEnv>, LaunchEnvError> {
    match place(vars) {
        Place::None => {
            if let Some(tasks) = job_tasks(vars).filter(|tasks| *tasks > 1 && vars.text("SLURM_JOB_ID").is_some()) {
                let text = "but this process is in a shell of the job and in no step of srun: it is alone";
                vars.notes.push(format!("Slurm: the job has {tasks} tasks, {text}"));
            }
            Ok(None)
        }
        Place::Batch => match job_tasks(vars).unwrap_or(1) {
            tasks @ 2.. if processes.is_none() => Err(LaunchEnvError::BatchScript { tasks }),
            _ => Ok(None),
        },
        Place::Task => {
            let Some(rank) = vars.number("SLURM_PROCID")? else { return Ok(None) };
            let Some(processes) = tasks(vars)?.or(processes) else {
                let set = ("SLURM_PROCID", rank.to_string());
                return Err(LaunchEnvError::Missing { set, missing: "SLURM_NTASKS" });
            };
            let local_rank = vars.maybe_number("SLURM_LOCALID");
            Ok(Some(LaunchEnv { rank, processes, local_rank, source: "Slurm", ..LaunchEnv::alone() }))
        }
    }
}

/// The address of rank 0: the first host of the step, or, for programs that another launcher has started, of the job.
pub(super) fn meet(vars: &Vars<'_>, of_step: bool, port: Option<u16>) -> Result<Option<String>, LaunchEnvError> {
    let lists: &[&str] = if of_step && !is_heterogeneous(vars) {
        &["SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"]
    } else {
        &["SLURM_JOB_NODELIST", "SLURM_NODELIST", "SLURM_JOB_NODELIST_HET_GROUP_0", "SLURM_STEP_NODELIST"]
    };
    let Some((name, list)) = vars.first(lists) else { return Ok(None) };
    let expected = "a list of hosts, such as node[01-04],other";
    let host = first_host(&list).ok_or(LaunchEnvError::Value { name, expected, got: list })?;
    let port = match port {
        Some(port) => port,
        None => {
            let job = vars.first(&["SLURM_JOB_ID", "SLURM_JOBID"]);
            let job = job.map(|(name, job)| number(name, job)).transpose()?.unwrap_or(0);
            let step = if of_step { step(vars).unwrap_or(0) } else { 0 };
            PORT + ((i64::from(job) + 101 * step) % 10_000) as u16
        }
    };
    address(name, &host, port).map(Some)
}

fn place(vars: &Vars<'_>) -> Place {
    let Some(rank) = vars.text("SLURM_PROCID") else { return Place::None };
    let step = step_number(vars);
    let of_step = ["SLURM_STEP_NUM_TASKS", "SLURM_STEP_NODELIST"].iter().any(|name| vars.text(name).is_some());
    match step {
        Some(INTERACTIVE_STEP) => Place::None,
        Some(NO_STEP_MIN..) => Place::Batch,
        Some(_) => Place::Task,
        None if of_step || rank != "0" => Place::Task,
        None if vars.text("ENVIRONMENT").as_deref() == Some("BATCH") => Place::Batch,
        // Shells of some sites have the variables of a task, too.
        None if vars.text("SLURM_JOB_NAME").is_some_and(|name| name == "bash" || name == "interactive") => Place::None,
        None => Place::Task,
    }
}

/// `SLURM_STEP_ID`. Some versions write the special numbers as negative ones.
fn step_number(vars: &Vars<'_>) -> Option<i64> {
    let (_, text) = vars.first(&["SLURM_STEP_ID", "SLURM_STEPID"])?;
    let number: i64 = text.parse().ok()?;
    let number = if number < 0 { number.checked_add(1 << 32)? } else { number };
    Some(number).filter(|number| u32::try_from(*number).is_ok())
}

/// The number of the step.
fn step(vars: &Vars<'_>) -> Option<i64> {
    step_number(vars).filter(|number| *number < NO_STEP_MIN)
}

/// The number of tasks of the step.
fn tasks(vars: &Vars<'_>) -> Result<Option<u32>, LaunchEnvError> {
    let all = match vars.number("SLURM_NTASKS")? {
        None => vars.number("SLURM_NPROCS")?,
        all => all,
    };
    let of_step = vars.number("SLURM_STEP_NUM_TASKS")?;
    Ok(if is_heterogeneous(vars) { all.max(of_step) } else { of_step.or(all) })
}

/// The number of tasks of the job: without `--ntasks`, one on each node.
fn job_tasks(vars: &Vars<'_>) -> Option<u32> {
    ["SLURM_NTASKS", "SLURM_NPROCS", "SLURM_JOB_NUM_NODES", "SLURM_NNODES"]
        .iter()
        .find_map(|name| vars.maybe_number(name))
}

/// Whether the step may have several components.
fn is_heterogeneous(vars: &Vars<'_>) -> bool {
    ["SLURM_HET_SIZE", "SLURM_PACK_SIZE"].iter().any(|name| vars.maybe_number(name).is_some_and(|size| size > 1))
        && vars.maybe_number("SLURM_NTASKS") > vars.maybe_number("SLURM_STEP_NUM_TASKS")
}
