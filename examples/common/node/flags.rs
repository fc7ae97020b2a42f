//! The flags of the program `node`, and the settings that follow from flags, the environment and a configuration file.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use gradwire::tcp::{Address, Key, KeyError};
use gradwire::{LaunchEnv, LaunchEnvError, LaunchFlags};
use toml::de::{DeTable, DeValue};

use super::Failure;
use crate::options::{self, Options, exit, value};
use crate::recipes;

/// Most processes of a run.
const PROCESSES_MAX: u32 = 1024;

/// The command line of a process.
pub fn command() -> Command {
    let command = Command::new("node")
        .about("One process of a run: learns a task together with other processes.")
        // A later flag overrides an earlier one, so that flags on the command line override a configuration file.
        .args_override_self(true)
        .subcommand_negates_reqs(true)
        .subcommand(
            Command::new("keygen")
                .about("Write a new key to a file that only its owner can read; copy it to every machine.")
                .arg(
                    Arg::new("file")
                        .required(true)
                        .help("The file, which must not exist")
                        .value_parser(value_parser!(PathBuf)),
                ),
        )
        .after_help(format!(
            "Rank, number of processes and the address of rank 0 come from flags, or from a launcher's environment:\n\
             GRADWIRE_RANK, GRADWIRE_PROCESSES, GRADWIRE_MEET; torchrun; Open MPI; PMI; Slurm; Kubernetes.\n\n{}\n\n\
             Example, in four terminals:\n  \
             node --rank 0 --processes 4 --meet 127.0.0.1:29510 --recipe ssp\n  \
             node --rank 1 --processes 4 --meet 127.0.0.1:29510 --recipe ssp      and so on\n\n\
             Between machines, with the same key on all of them:\n  \
             node keygen cluster.key\n  \
             node --key-file cluster.key --meet HOST:29510 ...",
            recipes::help()
        ));
    let command = process_flags(command.next_help_heading("Process"));
    let command = network_flags(command.next_help_heading("Network"));
    let command = checkpoint_flags(command.next_help_heading("Checkpoints"));
    options::training(command)
}

fn process_flags(command: Command) -> Command {
    command
        .arg(
            value("rank", "N", "Rank of this process, from 0; needs --processes")
                .allow_negative_numbers(true)
                .value_parser(value_parser!(u32)),
        )
        .arg(
            value("processes", "N", "Number of processes; needs --rank")
                .value_parser(value_parser!(u32).range(1..=i64::from(PROCESSES_MAX))),
        )
        .arg(
            Arg::new("apart")
                .long("apart")
                .action(ArgAction::SetTrue)
                .help("Servers are processes of their own, with the last ranks [default: threads of rank 0]"),
        )
        .arg(value(
            "cluster",
            "NAME",
            "Name of the cluster; processes with another name are refused [default: the job, or gradwire]",
        ))
        .arg(
            value("config", "FILE", "TOML file with flags as keys; flags on the command line override it")
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(
            value("grace", "SECONDS", "Time from SIGTERM to the end of the process, at the latest [default: 1.5]")
                .value_parser(value_parser!(f64)),
        )
        .arg(
            Arg::new("quiet").long("quiet").action(ArgAction::SetTrue).help("Print no events of peers and connections"),
        )
        .arg(Arg::new("progress").long("progress").action(ArgAction::SetTrue).hide(true))
}

fn network_flags(command: Command) -> Command {
    command
        .arg(
            value("transport", "NAME", "tcp, or shm: shared memory of one host")
                .default_value("tcp")
                .value_parser(["tcp", "shm"])
                .hide_possible_values(true),
        )
        .arg(value("meet", "HOST:PORT", "Address of rank 0 (tcp)"))
        .arg(value(
            "listen",
            "HOST:PORT",
            "Address to listen at (tcp) [default: all of this machine, or loopback if --meet is; at rank 0 the port of \
             --meet, else any]",
        ))
        .arg(value(
            "advertise",
            "HOST:PORT",
            "Address at which peers reach this process, if not where its connections come from; port 0: that of --listen \
             (tcp)",
        ))
        .arg(
            value("shm-directory", "DIR", "Directory of the sockets (shm) [default: in $XDG_RUNTIME_DIR, else in /tmp]")
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(
            value("server-port", "PORT", "Port of the first server beside rank 0, others follow (tcp) [default: any]")
                .value_parser(value_parser!(u16).range(1..)),
        )
        .arg(
            value("key-file", "FILE", "Key of the cluster, made by keygen (tcp) [default: $GRADWIRE_KEY_FILE]")
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(
            Arg::new("insecure-open")
                .long("insecure-open")
                .action(ArgAction::SetTrue)
                .help("Listen beyond loopback without a key: any host that can connect can take part"),
        )
        .arg(
            value("dead-after", "SECONDS", "Silence after which a peer is given up, 0.1 to 86400; sets all timeouts")
                .default_value("5")
                .value_parser(value_parser!(f64)),
        )
        .arg(
            value(
                "spin",
                "MICROS",
                "Time to poll before sleeping [default: 50, or 0 with more processes than processors]",
            )
            .value_parser(value_parser!(u64)),
        )
}

fn checkpoint_flags(command: Command) -> Command {
    command
        .arg(
            value(
                "checkpoint",
                "DIR",
                "Directory for checkpoints, also written on SIGTERM (servers and meshes: when all processes get it)",
            )
            .value_parser(value_parser!(PathBuf)),
        )
        .arg(
            value("every", "N", "Steps between two checkpoints (tree, ring)")
                .default_value("100")
                .value_parser(value_parser!(u64).range(1..)),
        )
        .arg(
            Arg::new("resume")
                .long("resume")
                .action(ArgAction::SetTrue)
                .requires("checkpoint")
                .help("Go on from the newest checkpoint, if there is one; set it for every process"),
        )
}

/// The arguments, with the arguments of a TOML file before them, so that the command line overrides the file.
pub(super) fn with_config(path: &Path, args: Vec<OsString>) -> Result<Vec<OsString>, Failure> {
    let failed = |what: String| (exit::USAGE, format!("--config {}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let table = DeTable::parse(&text).map_err(|error| failed(error.message().to_string()))?.into_inner();
    let mut all: Vec<OsString> = args.iter().take(1).cloned().collect();
    for (key, value) in table {
        let key = key.into_inner();
        match value.into_inner() {
            // `false` is the default of every flag.
            DeValue::Boolean(false) => {}
            DeValue::Boolean(true) => all.push(format!("--{key}").into()),
            DeValue::String(text) => all.push(format!("--{key}={text}").into()),
            DeValue::Integer(number) => all.push(format!("--{key}={number}").into()),
            DeValue::Float(number) => all.push(format!("--{key}={}", number.as_str()).into()),
            other => {
                return Err(failed(format!("{key}: expected text, a number, true or false, got {}", other.type_str())));
            }
        }
    }
    all.extend(args.into_iter().skip(1));
    Ok(all)
}

/// Rank, number of processes and the address of rank 0: from flags, else from a launcher, else one process alone.
pub(super) fn launch_env(matches: &ArgMatches) -> Result<LaunchEnv, Failure> {
    let usage = |text: String| (exit::USAGE, text);
    let number = |name: &str| matches.get_one::<u32>(name).copied();
    let meet = matches.get_one::<String>("meet").cloned();
    let flags = LaunchFlags { rank: number("rank"), processes: number("processes"), meet };
    if let (Some(rank), Some(processes)) = (flags.rank, flags.processes)
        && rank >= processes
    {
        return Err(usage(format!("--rank: expected less than {processes}, got {rank}")));
    }
    let env = LaunchEnv::with_flags(&flags).map_err(|error| match error {
        LaunchEnvError::Missing { set: ("--rank" | "--processes", _), .. } => {
            usage("expected --rank and --processes together, got one of them".to_string())
        }
        error => usage(error.to_string()),
    })?;
    if env.processes > PROCESSES_MAX {
        return Err(usage(format!(
            "processes: expected at most {PROCESSES_MAX}, got {} ({})",
            env.processes, env.source
        )));
    }
    if let Some(meet) = &env.meet {
        let name = if flags.meet.is_some() { "--meet" } else { "address of rank 0" };
        let failed =
            |error: &dyn std::fmt::Display| usage(format!("{name}: expected HOST:PORT, got \"{meet}\" ({error})"));
        let address = meet.parse::<Address>().map_err(|error| failed(&error))?;
        if address.port() == 0 && env.rank > 0 {
            return Err(failed(&"no process listens at port 0"));
        }
    }
    let alone = (env.processes == 1).then(|| "127.0.0.1:0".to_string());
    Ok(LaunchEnv { meet: env.meet.or(alone), ..env })
}

/// The name of the cluster. Processes of different jobs do not meet, even if they resume from the same run. In shared
/// memory, where a name stands for an address, processes of different runs do not meet either.
pub(super) fn cluster(matches: &ArgMatches, options: &Options) -> String {
    let shm = matches.get_one::<String>("transport").is_some_and(|name| name == "shm");
    let named = matches.get_one::<String>("cluster").cloned();
    let default = options.job.or_else(|| options.run.filter(|_| shm));
    named.or_else(|| default.map(|name| name.to_string())).unwrap_or_else(|| "gradwire".to_string())
}

/// The key of the cluster, from a file or from the environment. There is no flag for the key itself: all users of a
/// host can read the arguments of a process.
pub(super) fn key(matches: &ArgMatches) -> Result<Option<Key>, Failure> {
    let path = matches.get_one::<PathBuf>("key-file").cloned();
    let variable = "GRADWIRE_KEY_FILE";
    let file = || std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from);
    let named = |name: &'static str| move |error: KeyError| (exit::AUTH, format!("{name}: {error}"));
    if let Some(path) = path {
        return Key::from_file(&path).map(Some).map_err(named("--key-file"));
    }
    if let Some(path) = file() {
        return Key::from_file(&path).map(Some).map_err(named(variable));
    }
    let text = std::env::var("GRADWIRE_KEY").ok().filter(|text| !text.trim().is_empty());
    text.map(|text| Key::parse(&text)).transpose().map_err(named("GRADWIRE_KEY"))
}
