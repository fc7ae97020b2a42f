//! Environments as launchers set them, cut to the variables that matter or mislead, with the place that they mean.

use super::find::Finder;
use super::hosts::first_host;
use super::{LaunchEnv, LaunchEnvError, LaunchFlags};

/// `NAME=value` pairs, separated by white space. A value in quotes can be empty or have spaces.
fn vars(text: &str) -> Vec<(String, String)> {
    let mut vars = Vec::new();
    let mut rest = text.trim();
    while let Some((name, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap(),
            None => after.split_once(char::is_whitespace).unwrap_or((after, "")),
        };
        vars.push((name.to_string(), value.to_string()));
        rest = after.trim_start();
    }
    vars
}

fn find(text: &str, flags: &LaunchFlags) -> Result<LaunchEnv, LaunchEnvError> {
    let vars = vars(text);
    let env = |name: &'static str| vars.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    Finder::new(&env, flags).find()
}

/// The place as text: `SOURCE RANK/PROCESSES LOCAL MEET`, with a dash for an unknown value; or `error: …`, or `alone`.
fn place(text: &str, flags: &LaunchFlags) -> String {
    match find(text, flags) {
        Err(error) => format!("error: {error}"),
        Ok(found) if found.source == "alone" => "alone".to_string(),
        Ok(LaunchEnv { rank, processes, local_rank, meet, source, .. }) => {
            let local = local_rank.map_or_else(|| "-".to_string(), |rank| rank.to_string());
            format!("{source} {rank}/{processes} {local} {}", meet.as_deref().unwrap_or("-"))
        }
    }
}

/// A name, the environment, and the place; an error is given by its beginning.
type Row = (&'static str, &'static str, &'static str);

const JOB: &str = "SLURM_JOB_ID=12345 SLURM_JOBID=12345 SLURM_JOB_NODELIST=node[001-004,7] SLURM_NODELIST=node[001-004,7] \
                   SLURM_JOB_NUM_NODES=5 SLURM_NNODES=5";

/// Each row is in the job [`JOB`].
const SLURM: &[Row] = &[
    (
        "srun in a batch script, first task",
        "ENVIRONMENT=BATCH SLURM_JOB_NAME=train SLURM_NTASKS=8 SLURM_NPROCS=8 SLURM_PROCID=0 SLURM_LOCALID=0 \
         SLURM_STEP_ID=0 SLURM_STEPID=0 SLURM_STEP_NUM_TASKS=8 SLURM_STEP_NODELIST=node[001-004]",
        "Slurm 0/8 0 node001:31855",
    ),
    (
        "the last task, second step",
        "ENVIRONMENT=BATCH SLURM_NTASKS=8 SLURM_PROCID=7 SLURM_LOCALID=1 SLURM_STEP_ID=1 SLURM_STEP_NUM_TASKS=8 \
         SLURM_STEP_NODELIST=node[001-004]",
        "Slurm 7/8 1 node001:31956",
    ),
    (
        "a step on part of the job, where srun left the number of the job",
        "ENVIRONMENT=BATCH SLURM_NTASKS=8 SLURM_PROCID=1 SLURM_LOCALID=0 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=2 \
         SLURM_STEP_NODELIST=node[003-004]",
        "Slurm 1/2 0 node003:31855",
    ),
    (
        "srun within salloc",
        "SLURM_JOB_NAME=interactive SLURM_NTASKS=4 SLURM_PROCID=2 SLURM_LOCALID=0 SLURM_STEP_ID=0 \
         SLURM_STEP_NUM_TASKS=4 SLURM_STEP_NODELIST=node[001-004]",
        "Slurm 2/4 0 node001:31855",
    ),
    (
        "srun within salloc, first task",
        "SLURM_JOB_NAME=interactive SLURM_NTASKS=4 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_STEP_ID=3 \
         SLURM_STEP_NUM_TASKS=4 SLURM_STEP_NODELIST=node[001-004]",
        "Slurm 0/4 0 node001:32158",
    ),
    (
        "srun within a shell of srun --pty",
        "SLURM_JOB_NAME=bash SLURM_PTY_PORT=40001 SLURM_NTASKS=4 SLURM_PROCID=3 SLURM_STEP_ID=1 SLURM_STEP_NUM_TASKS=4 \
         SLURM_STEP_NODELIST=node7",
        "Slurm 3/4 - node7:31956",
    ),
    (
        "a shell of srun --pty",
        "SLURM_JOB_NAME=bash SLURM_PTY_PORT=40001 SLURM_NTASKS=1 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_STEP_ID=0 \
         SLURM_STEP_NUM_TASKS=1 SLURM_STEP_NODELIST=node001",
        "Slurm 0/1 0 -",
    ),
    ("a shell of salloc on the login host", "SLURM_JOB_NAME=interactive SLURM_NTASKS=4 SLURM_NPROCS=4", "alone"),
    (
        "a shell of salloc on the first host",
        "SLURM_JOB_NAME=interactive SLURM_NTASKS=4 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_STEP_ID=4294967290 \
         SLURM_STEPID=4294967290",
        "alone",
    ),
    ("the same, of a version that writes -6", "SLURM_NTASKS=4 SLURM_PROCID=0 SLURM_STEP_ID=-6", "alone"),
    (
        "a number of a step that no Slurm writes",
        "SLURM_NTASKS=4 SLURM_PROCID=0 SLURM_STEP_ID=-9223372036854775808 SLURM_STEP_NUM_TASKS=4",
        "Slurm 0/4 - node001:31855",
    ),
    (
        "another one",
        "SLURM_NTASKS=4 SLURM_PROCID=0 SLURM_STEP_ID=9223372036854775807 SLURM_STEP_NUM_TASKS=4",
        "Slurm 0/4 - node001:31855",
    ),
    ("a shell with a rank of its own", "SLURM_JOB_NAME=bash SLURM_NTASKS=4 SLURM_PROCID=0", "alone"),
    (
        "a batch script with 8 tasks that starts the program itself",
        "ENVIRONMENT=BATCH SLURM_JOB_NAME=train SLURM_NTASKS=8 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0",
        "error: SLURM_NTASKS is 8, but this process belongs to no step of srun: expected \"srun PROGRAM\"",
    ),
    (
        "the same, with the number of the batch step",
        "SLURM_NTASKS=8 SLURM_PROCID=0 SLURM_STEP_ID=4294967291",
        "error: SLURM_NTASKS is 8, but this process belongs to no step",
    ),
    (
        "the same, with nodes and no number of tasks",
        "ENVIRONMENT=BATCH SLURM_PROCID=0 SLURM_LOCALID=0",
        "error: SLURM_NTASKS is 5, but this process belongs to no step",
    ),
    ("a batch script with one task", "ENVIRONMENT=BATCH SLURM_NTASKS=1 SLURM_PROCID=0 SLURM_LOCALID=0", "alone"),
    ("an old version without variables of steps", "SLURM_NPROCS=8 SLURM_PROCID=3", "Slurm 3/8 - node001:31855"),
    ("few variables, first task", "SLURM_NTASKS=8 SLURM_PROCID=0", "Slurm 0/8 - node001:31855"),
    (
        "an array job",
        "ENVIRONMENT=BATCH SLURM_ARRAY_JOB_ID=12340 SLURM_ARRAY_TASK_ID=5 SLURM_ARRAY_TASK_COUNT=10 SLURM_NTASKS=2 \
         SLURM_PROCID=1 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=2 SLURM_STEP_NODELIST=node7",
        "Slurm 1/2 - node7:31855",
    ),
    (
        "both components of a heterogeneous job: the rank counts through, the step's variables are the component's",
        "SLURM_HET_SIZE=2 SLURM_JOB_NODELIST=gpu[1-2],cpu[1-4] SLURM_NTASKS=6 SLURM_PROCID=4 SLURM_LOCALID=0 \
         SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=4 SLURM_STEP_NODELIST=cpu[1-4]",
        "Slurm 4/6 0 gpu1:31855",
    ),
    (
        "one component of a heterogeneous job",
        "SLURM_HET_SIZE=2 SLURM_NTASKS=4 SLURM_PROCID=3 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=4 \
         SLURM_STEP_NODELIST=cpu[1-4]",
        "Slurm 3/4 - cpu1:31855",
    ),
    (
        "pmi2",
        "PMI_RANK=2 PMI_SIZE=4 PMI_FD=9 PMI_JOBID=12345.0 SLURM_NTASKS=4 SLURM_PROCID=2 SLURM_LOCALID=1 SLURM_STEP_ID=0 \
         SLURM_STEP_NUM_TASKS=4 SLURM_STEP_NODELIST=node[003-004]",
        "Slurm 2/4 1 node003:31855",
    ),
    (
        "pmix",
        "PMIX_RANK=2 PMIX_NAMESPACE=slurm.pmix.12345.0 SLURM_NTASKS=4 SLURM_PROCID=2 SLURM_STEP_ID=0 \
         SLURM_STEP_NUM_TASKS=4 SLURM_STEP_NODELIST=node7",
        "Slurm 2/4 - node7:31855",
    ),
    (
        "mpirun of Open MPI in the batch script",
        "ENVIRONMENT=BATCH SLURM_NTASKS=4 SLURM_PROCID=0 OMPI_COMM_WORLD_RANK=2 OMPI_COMM_WORLD_SIZE=4 \
         OMPI_COMM_WORLD_LOCAL_RANK=0 PMIX_RANK=2",
        "Open MPI 2/4 0 node001:31855",
    ),
    (
        "mpiexec of MPICH, whose daemons srun has started",
        "PMI_RANK=5 PMI_SIZE=8 MPI_LOCALRANKID=1 SLURM_PROCID=1 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=2 SLURM_NTASKS=2 \
         SLURM_STEP_NODELIST=node[001-002]",
        "PMI 5/8 1 node001:31855",
    ),
    (
        "srun torchrun",
        "RANK=3 WORLD_SIZE=8 LOCAL_RANK=3 MASTER_ADDR=node001 MASTER_PORT=29400 SLURM_PROCID=0 SLURM_NTASKS=2 \
         SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=2 SLURM_STEP_NODELIST=node[001-002]",
        "torchrun 3/8 3 node001:29401",
    ),
    (
        "a batch script that exports MASTER_ADDR for srun",
        "MASTER_ADDR=node001 MASTER_PORT=29500 WORLD_SIZE=4 SLURM_PROCID=1 SLURM_NTASKS=4 SLURM_STEP_ID=0 \
         SLURM_STEP_NUM_TASKS=4 SLURM_STEP_NODELIST=node[001-004]",
        "Slurm 1/4 - node001:31855",
    ),
    (
        "a port of the user",
        "GRADWIRE_PORT=4000 SLURM_PROCID=1 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=4 SLURM_STEP_NODELIST=n-[1-4]-ib",
        "Slurm 1/4 - n-1-ib:4000",
    ),
    (
        "a broken list",
        "SLURM_PROCID=1 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=4 SLURM_STEP_NODELIST=node[1",
        "error: SLURM_STEP_NODELIST: expected a list of hosts, such as node[01-04],other, got \"node[1\"",
    ),
    (
        "launch in a batch script",
        "ENVIRONMENT=BATCH SLURM_NTASKS=4 SLURM_PROCID=0 GRADWIRE_RANK=1 GRADWIRE_PROCESSES=4 GRADWIRE_LOCAL_RANK=1 \
         GRADWIRE_MEET=127.0.0.1:4000",
        "gradwire 1/4 1 127.0.0.1:4000",
    ),
    (
        "a rank that is no number",
        "SLURM_PROCID=x SLURM_NTASKS=4 SLURM_STEP_ID=0",
        "error: SLURM_PROCID: expected a whole",
    ),
];

const OTHERS: &[Row] = &[
    ("ssh", "HOME=/root SHELL=/bin/bash SSH_CONNECTION=\"10.0.0.9 5022 10.0.0.1 22\" HOSTNAME=node-1", "alone"),
    ("nothing", "", "alone"),
    ("launch", "GRADWIRE_RANK=0 GRADWIRE_PROCESSES=2 GRADWIRE_MEET=m:1", "gradwire 0/2 - m:1"),
    (
        "half of launch",
        "GRADWIRE_RANK=0",
        "error: GRADWIRE_RANK is 0, but GRADWIRE_PROCESSES is not set: expected both",
    ),
    ("the other half", "GRADWIRE_PROCESSES=4", "error: GRADWIRE_PROCESSES is 4, but GRADWIRE_RANK is not set"),
    ("one process", "GRADWIRE_PROCESSES=1", "alone"),
    (
        "no number",
        "GRADWIRE_RANK=one GRADWIRE_PROCESSES=2",
        "error: GRADWIRE_RANK: expected a whole number, got \"one\"",
    ),
    ("empty values", "GRADWIRE_RANK=\"\" RANK=\"\" WORLD_SIZE=\"\" SLURM_PROCID=\" \" PMI_RANK=\"\"", "alone"),
    ("white space", "RANK=\" 1 \" WORLD_SIZE=\"2 \" MASTER_ADDR=\" h \"", "torchrun 1/2 - h:29510"),
    // Kubernetes
    (
        "a service called gradwire",
        "GRADWIRE_PORT=tcp://10.96.0.10:29510 GRADWIRE_SERVICE_HOST=10.96.0.10 GRADWIRE_SERVICE_PORT=29510 \
         GRADWIRE_PORT_29510_TCP=tcp://10.96.0.10:29510 GRADWIRE_PORT_29510_TCP_PORT=29510 KUBERNETES_PORT=tcp://10.96.0.1:443",
        "alone",
    ),
    (
        "the same in an indexed job",
        "GRADWIRE_PORT=tcp://10.96.0.10:29510 JOB_COMPLETION_INDEX=1 WORLD_SIZE=2 MASTER_ADDR=gradwire",
        "Kubernetes 1/2 - gradwire:29510",
    ),
    (
        "a service called master",
        "MASTER_PORT=tcp://10.96.0.11:29500 MASTER_SERVICE_HOST=10.96.0.11 RANK=1 WORLD_SIZE=2 MASTER_ADDR=master",
        "torchrun 1/2 - master:29510",
    ),
    (
        "an indexed job that names itself",
        "JOB_COMPLETION_INDEX=1 HOSTNAME=job-1 WORLD_SIZE=2 MASTER_ADDR=job-0.svc",
        "Kubernetes 1/2 - job-0.svc:29510",
    ),
    (
        "an indexed job with our variables",
        "JOB_COMPLETION_INDEX=3 GRADWIRE_PROCESSES=4 GRADWIRE_MEET=job-0.svc:4000",
        "Kubernetes 3/4 - job-0.svc:4000",
    ),
    (
        "an indexed job without a number",
        "JOB_COMPLETION_INDEX=3 HOSTNAME=job-3",
        "error: JOB_COMPLETION_INDEX is 3, but WORLD_SIZE is not set: expected both, or --rank and --processes",
    ),
    (
        "a StatefulSet",
        "HOSTNAME=train-2 KUBERNETES_SERVICE_HOST=10.96.0.1 WORLD_SIZE=4 MASTER_ADDR=train-0.train.ns.svc.cluster.local",
        "Kubernetes (StatefulSet) 2/4 - train-0.train.ns.svc.cluster.local:29510",
    ),
    (
        "a StatefulSet with our variables",
        "HOSTNAME=my-train-0 KUBERNETES_SERVICE_HOST=10.96.0.1 GRADWIRE_PROCESSES=3 GRADWIRE_MEET=my-train-0.t:4000 \
         GRADWIRE_PORT=tcp://10.96.0.10:29510",
        "Kubernetes (StatefulSet) 0/3 - my-train-0.t:4000",
    ),
    (
        "a pod of a deployment",
        "HOSTNAME=train-6d4cf56db6-x7k2p KUBERNETES_SERVICE_HOST=10.96.0.1 WORLD_SIZE=4 MASTER_ADDR=train-0.train",
        "error: WORLD_SIZE is 4, but RANK is not set",
    ),
    ("a pod alone", "HOSTNAME=train-2 KUBERNETES_SERVICE_HOST=10.96.0.1 KUBERNETES_PORT=tcp://10.96.0.1:443", "alone"),
    (
        "PyTorchJob, master",
        "PYTHONUNBUFFERED=0 MASTER_PORT=23456 MASTER_ADDR=job-master-0 WORLD_SIZE=3 RANK=0 PET_NNODES=3 HOSTNAME=job-master-0",
        "torchrun 0/3 - job-master-0:23457",
    ),
    (
        "PyTorchJob, worker 1, with service links",
        "JOB_MASTER_0_PORT=tcp://10.96.3.3:23456 JOB_MASTER_0_SERVICE_HOST=10.96.3.3 MASTER_PORT=23456 \
         MASTER_ADDR=job-master-0 WORLD_SIZE=3 RANK=2 HOSTNAME=job-worker-1",
        "torchrun 2/3 - job-master-0:23457",
    ),
    // torchrun
    (
        "torchrun, static",
        "RANK=1 LOCAL_RANK=1 GROUP_RANK=0 ROLE_RANK=1 LOCAL_WORLD_SIZE=4 WORLD_SIZE=4 MASTER_ADDR=127.0.0.1 \
         MASTER_PORT=29500 TORCHELASTIC_RUN_ID=none TORCHELASTIC_USE_AGENT_STORE=True",
        "torchrun 1/4 1 127.0.0.1:29501",
    ),
    (
        "torchrun, rendezvous, second host",
        "RANK=5 LOCAL_RANK=1 GROUP_RANK=1 LOCAL_WORLD_SIZE=4 WORLD_SIZE=8 MASTER_ADDR=host1.example MASTER_PORT=41243 \
         TORCHELASTIC_RUN_ID=77",
        "torchrun 5/8 1 host1.example:41244",
    ),
    (
        "torchrun, elastic, after a restart with fewer",
        "RANK=0 LOCAL_RANK=0 WORLD_SIZE=6 MASTER_ADDR=host2 MASTER_PORT=51000 TORCHELASTIC_RESTART_COUNT=2 \
         TORCHELASTIC_MAX_RESTARTS=3",
        "torchrun 0/6 0 host2:51001",
    ),
    ("torchrun, IPv6", "RANK=1 WORLD_SIZE=2 MASTER_ADDR=fd00::1 MASTER_PORT=29500", "torchrun 1/2 - [fd00::1]:29501"),
    (
        "IPv6 with brackets",
        "RANK=1 WORLD_SIZE=2 MASTER_ADDR=[fd00::1] MASTER_PORT=29500",
        "torchrun 1/2 - [fd00::1]:29501",
    ),
    ("link-local", "RANK=1 WORLD_SIZE=2 MASTER_ADDR=fe80::1%eth0 MASTER_PORT=9", "torchrun 1/2 - [fe80::1%eth0]:10"),
    ("the last port", "RANK=1 WORLD_SIZE=2 MASTER_ADDR=h MASTER_PORT=65535", "torchrun 1/2 - h:29510"),
    ("a port of ours", "RANK=1 WORLD_SIZE=2 MASTER_ADDR=h MASTER_PORT=1 GRADWIRE_PORT=2", "torchrun 1/2 - h:2"),
    ("an address of ours", "RANK=1 WORLD_SIZE=2 MASTER_ADDR=h MASTER_PORT=x GRADWIRE_MEET=i:1", "torchrun 1/2 - i:1"),
    (
        "a port that is none",
        "RANK=1 WORLD_SIZE=2 MASTER_ADDR=h MASTER_PORT=x",
        "error: MASTER_PORT: expected a port, 1 to",
    ),
    (
        "our port, none",
        "RANK=1 WORLD_SIZE=2 MASTER_ADDR=h GRADWIRE_PORT=70000",
        "error: GRADWIRE_PORT: expected a port, 1 to",
    ),
    ("an address with a port", "RANK=1 WORLD_SIZE=2 MASTER_ADDR=h:1", "error: MASTER_ADDR: expected a host name or an"),
    ("a wrong rank", "RANK=x WORLD_SIZE=4 MASTER_ADDR=h", "error: RANK: expected a whole number, got \"x\""),
    ("a rank that is too high", "RANK=4 WORLD_SIZE=4 MASTER_ADDR=h", "error: RANK: expected less than the number of"),
    ("no number of processes", "RANK=1 MASTER_ADDR=h", "error: RANK is 1, but WORLD_SIZE is not set"),
    ("no rank", "WORLD_SIZE=4 MASTER_ADDR=h", "error: WORLD_SIZE is 4, but RANK is not set"),
    ("an empty rank", "RANK=\"\" WORLD_SIZE=4 MASTER_ADDR=h", "error: WORLD_SIZE is 4, but RANK is not set"),
    ("another RANK", "RANK=sergeant", "alone"),
    ("another RANK, with a number", "RANK=3", "alone"),
    ("by hand, without an address", "RANK=3 WORLD_SIZE=4", "torchrun 3/4 - -"),
    (
        "two numbers",
        "RANK=1 WORLD_SIZE=4 MASTER_ADDR=h GRADWIRE_PROCESSES=3",
        "error: number of processes: expected one number, got 3",
    ),
    // MPI and its relatives
    (
        "Open MPI 4",
        "OMPI_COMM_WORLD_RANK=2 OMPI_COMM_WORLD_SIZE=3 OMPI_COMM_WORLD_LOCAL_RANK=0 OMPI_MCA_ess_base_jobid=1234 \
         PMIX_RANK=2 PMIX_NAMESPACE=1234",
        "Open MPI 2/3 0 -",
    ),
    (
        "Open MPI 5",
        "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK=1 PMIX_RANK=1 \
         PMIX_NAMESPACE=prterun-host-77@1 PRTE_LAUNCHED=1 GRADWIRE_MEET=a:1",
        "Open MPI 1/2 1 a:1",
    ),
    (
        "prterun",
        "PMIX_RANK=1 PMIX_NAMESPACE=prterun-host-77@1",
        "error: PMIX_RANK is 1, but GRADWIRE_PROCESSES is not set",
    ),
    ("prterun, with a number", "PMIX_RANK=1 GRADWIRE_PROCESSES=2 GRADWIRE_MEET=a:1", "PMIx 1/2 - a:1"),
    (
        "MPICH",
        "PMI_RANK=1 PMI_SIZE=2 MPI_LOCALRANKID=1 MPI_LOCALNRANKS=2 PMI_PORT=host:4000 HYDI_CONTROL_FD=9",
        "PMI 1/2 1 -",
    ),
    ("Intel MPI", "PMI_RANK=0 PMI_SIZE=2 MPI_LOCALRANKID=0 I_MPI_MPIRUN=mpirun", "PMI 0/2 0 -"),
    (
        "PALS",
        "PMI_RANK=3 PMI_SIZE=4 PALS_RANKID=3 PALS_LOCAL_RANKID=1 PBS_JOBID=1.pbs PBS_NODEFILE=/var/x",
        "PMI 3/4 1 -",
    ),
    (
        "MVAPICH",
        "MV2_COMM_WORLD_RANK=1 MV2_COMM_WORLD_SIZE=2 MV2_COMM_WORLD_LOCAL_RANK=0 PMI_RANK=1 PMI_SIZE=2",
        "MVAPICH 1/2 0 -",
    ),
    (
        "a rank out of range",
        "PMI_RANK=4 PMI_SIZE=4",
        "error: PMI_RANK: expected less than the number of processes, got \"4\"",
    ),
    ("half of PMI", "PMI_RANK=1", "error: PMI_RANK is 1, but PMI_SIZE is not set"),
    (
        "jsrun",
        "LSB_JOBID=88 LSB_HOSTS=\"batch1 h1 h1 h2 h2\" LSB_MCPU_HOSTS=\"batch1 1 h1 2 h2 2\" JSM_NAMESPACE_RANK=3 \
         JSM_NAMESPACE_SIZE=4 JSM_NAMESPACE_LOCAL_RANK=1 GRADWIRE_MEET=h1:29510",
        "LSF 3/4 1 h1:29510",
    ),
    ("LSF without jsrun", "LSB_JOBID=88 LSB_HOSTS=\"h1 h1\" LSB_DJOB_NUMPROC=2 LS_JOBPID=1", "alone"),
    ("Flux", "FLUX_TASK_RANK=1 FLUX_JOB_SIZE=2 FLUX_TASK_LOCAL_ID=1 FLUX_JOB_ID=f2", "Flux 1/2 1 -"),
    ("SGE, an array task", "JOB_ID=99 SGE_TASK_ID=4 NSLOTS=8 NHOSTS=2 PE_HOSTFILE=/var/x QUEUE=all.q", "alone"),
    ("PBS, without MPI", "PBS_JOBID=1.pbs PBS_NODEFILE=/var/x PBS_NP=8 PBS_TASKNUM=1 PBS_NODENUM=0", "alone"),
    ("SGE with Open MPI", "JOB_ID=99 NSLOTS=8 OMPI_COMM_WORLD_RANK=7 OMPI_COMM_WORLD_SIZE=8", "Open MPI 7/8 - -"),
];

#[track_caller]
fn check(name: &str, text: &str, expected: &str) {
    let found = place(text, &LaunchFlags::default());
    let fits = if expected.starts_with("error") { found.starts_with(expected) } else { found == expected };
    assert!(fits, "{name}: expected {expected:?}, got {found:?}\nwith {text}");
}

#[test]
fn environments_of_launchers_mean_their_places() {
    for (name, text, expected) in SLURM {
        // The row first: it replaces variables of the job.
        check(name, &format!("{text} {JOB}"), expected);
    }
    for (name, text, expected) in OTHERS {
        check(name, text, expected);
    }
    assert!(SLURM.len() + OTHERS.len() > 80);
}

fn flags(rank: impl Into<Option<u32>>, processes: impl Into<Option<u32>>, meet: &str) -> LaunchFlags {
    let meet = (!meet.is_empty()).then(|| meet.to_string());
    LaunchFlags { rank: rank.into(), processes: processes.into(), meet }
}

/// With all flags, no variable can do harm. Each flag replaces its variable.
#[test]
fn flags_go_before_the_environment() {
    let harmful = "GRADWIRE_RANK=x GRADWIRE_PROCESSES=y GRADWIRE_PORT=z RANK=x WORLD_SIZE=y MASTER_ADDR=a:b:c PMI_RANK=x \
                   SLURM_PROCID=x SLURM_STEP_NODELIST=[ JOB_COMPLETION_INDEX=x";
    assert_eq!(place(harmful, &flags(1, 2, "h:1")), "flags 1/2 - h:1");
    assert_eq!(place("", &flags(1, 2, "")), "flags 1/2 - -");
    assert_eq!(place("GRADWIRE_MEET=m:1", &flags(1, 2, "")), "flags 1/2 - m:1");
    let torchrun = "RANK=1 WORLD_SIZE=4 MASTER_ADDR=h MASTER_PORT=x";
    assert_eq!(place(torchrun, &flags(None, None, "h:1")), "torchrun 1/4 - h:1");
    assert_eq!(place(torchrun, &flags(3, None, "h:1")), "torchrun 3/4 - h:1");
    let error = place(torchrun, &flags(None, 8, "h:1"));
    assert!(
        error.starts_with("error: number of processes: expected one number, got 8 (--processes) and 4 (WORLD_SIZE)")
    );
    assert_eq!(place("PMIX_RANK=1", &flags(None, 2, "h:1")), "PMIx 1/2 - h:1");
    assert_eq!(place("GRADWIRE_PROCESSES=4", &flags(1, None, "h:1")), "flags 1/4 - h:1");
    for (one, error) in [
        (flags(1, None, "h:1"), "error: --rank is 1, but --processes is not set: expected both"),
        (flags(None, 4, "h:1"), "error: --processes is 4, but --rank is not set: expected both"),
    ] {
        assert!(place("", &one).starts_with(error), "{}", place("", &one));
    }
    let batch = "ENVIRONMENT=BATCH SLURM_JOB_ID=1 SLURM_NTASKS=4 SLURM_PROCID=0";
    assert_eq!(place(batch, &flags(0, 1, "")), "flags 0/1 - -");
}

/// A note names each ignored variable that would have mattered, and no other.
#[test]
fn ignored_variables_are_told() {
    let notes = |text: &str| find(text, &LaunchFlags::default()).unwrap().notes;
    let service = "GRADWIRE_PORT=tcp://10.96.0.10:29510";
    let told = notes(&format!("{service} JOB_COMPLETION_INDEX=1 WORLD_SIZE=2 MASTER_ADDR=h"));
    assert_eq!(told, [format!("{service} is ignored: Kubernetes sets it for a service of that name")]);
    assert_eq!(notes(service), [""; 0]);
    assert_eq!(notes("RANK=sergeant").len(), 1);
    let shell = notes("SLURM_JOB_ID=1 SLURM_NTASKS=4");
    assert_eq!(
        shell,
        ["Slurm: the job has 4 tasks, but this process is in a shell of the job and in no step of srun: \
                        it is alone"]
    );
    assert_eq!(notes("SLURM_JOB_ID=1 SLURM_NTASKS=4 RANK=1 WORLD_SIZE=2 MASTER_ADDR=h"), [""; 0]);
}

#[test]
fn lists_of_hosts_are_read_by_their_grammar() {
    for (list, first) in [
        ("n1", "n1"),
        ("n1,n2", "n1"),
        ("gpu[3,5-7]", "gpu3"),
        ("a,b[1-2]", "a"),
        ("r[01-02]-ib,c", "r01-ib"),
        ("node[001-004,7],login", "node001"),
        ("[1-3]node", "1node"),
        ("rack[2-3]slot[04,06-07]", "rack2slot04"),
        ("rack[2,4]slot[1-2]-ib.example.org,other[1]", "rack2slot1-ib.example.org"),
        ("a-b[10]", "a-b10"),
        ("x[1-2][3-4]", "x13"),
        ("x1,x[2-4],y[05-06]z", "x1"),
    ] {
        assert_eq!(first_host(list).as_deref(), Some(first), "{list}");
    }
    for list in [
        "", ",", "a,", ",a", "a,,b", "x[1", "x1]", "x[]", "x[1-]", "x[-1]", "x[1,]", "x[a]", "x[2-1]", "x[[1]]",
        "x[1]]", "a b", "a,x[1", "x[1-2-3]", "x[1],,",
    ] {
        assert_eq!(first_host(list), None, "{list}");
    }
}
