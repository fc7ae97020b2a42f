//! The cluster as processes: this program again, once per worker; servers are threads of the first.

use std::ffi::OsString;
use std::io::Write as _;

use gradwire_examples::children::{Children, Said};
use gradwire_examples::node;
use gradwire_examples::options::{Options, exit};

use crate::report::Outcome;

/// Says that this is one of the processes.
pub(crate) const CHILD: &str = "GRADWIRE_CLUSTER_CHILD";

/// Trains until all have ended; shows what the first says of its epochs, and whatever goes wrong.
pub(crate) fn run(options: &Options, args: Vec<OsString>) -> Result<Outcome, (u8, String)> {
    let failed = |error: std::io::Error| (exit::RUN, format!("cluster: {error}"));
    let program = std::env::current_exe().map_err(failed)?.into_os_string();
    let stop = node::stop_on_signals().map_err(failed)?;
    let workers = options.cluster.workers;
    let mut lines = Vec::new();
    let mut complaints = Vec::new();
    // A name of its own, so that runs beside each other do not meet in shared memory.
    let cluster = format!("--cluster=cluster-{}", std::process::id());
    let args = node_args(args).chain([cluster.into(), "--json".into(), "--progress".into(), "--quiet".into()]);
    let children = Children::start(program, args.collect(), workers, 0, Some((CHILD, "1"))).map_err(failed)?;
    let codes = children.wait(&stop, |said| match said {
        Said::Out(_, line) if line.starts_with('{') => lines.push(line),
        Said::Out(0, line) if !options.json => drop(writeln!(std::io::stdout(), "{line}")),
        Said::Out(..) => {}
        Said::Err(rank, line) => {
            if complaints.is_empty() || !line.starts_with("ended: ") {
                complaints.push(format!("process {rank}: {line}"));
            }
        }
    });
    if stop.load(std::sync::atomic::Ordering::Relaxed) {
        return Err((130, "cluster: stopped".to_string()));
    }
    if let Some(code) = codes.iter().find(|code| **code != 0) {
        let code = u8::try_from(*code).unwrap_or(exit::RUN);
        return Err((code, complaints.into_iter().next().unwrap_or_else(|| "cluster: a process failed".to_string())));
    }
    let told = |rank: u32| lines.iter().any(|line| field(line, "rank") == Some(rank.to_string().as_str()));
    if let Some(rank) = (0..workers).find(|rank| !told(*rank)) {
        return Err((exit::RUN, format!("cluster: process {rank} ended without saying how its training went")));
    }
    Ok(outcome(&lines, workers))
}

/// The arguments without those that only this program has.
fn node_args(args: Vec<OsString>) -> impl Iterator<Item = OsString> {
    let mut skip = false;
    args.into_iter().skip(1).filter(move |arg| {
        let text = arg.to_string_lossy();
        let own = text == "--workers" || text.starts_with("--workers=");
        !std::mem::replace(&mut skip, text == "--workers") && !own
    })
}

fn outcome(lines: &[String], workers: u32) -> Outcome {
    let number = |line: &str, name: &str| field(line, name).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    let sum = |name: &str| lines.iter().map(|line| number(line, name)).sum::<f64>();
    let most = |name: &str| lines.iter().map(|line| number(line, name)).fold(0.0, f64::max);
    let worker = |line: &&String| number(line, "rank") < f64::from(workers);
    let first = lines.iter().find(|line| number(line, "rank") == 0.0);
    let of_first = |name: &str| first.map_or(0.0, |line| number(line, name));
    let digest = |line: &String| field(line, "digest").and_then(|text| u64::from_str_radix(text, 16).ok()).unwrap_or(0);
    Outcome {
        accuracy: of_first("accuracy"),
        loss: of_first("loss"),
        digests: lines.iter().filter(worker).map(digest).collect(),
        steps: sum("steps") as u64,
        examples: sum("examples") as u64,
        seconds: most("seconds"),
        sent: sum("bytes_sent") as u64,
        dense: sum("bytes_dense") as u64,
        staleness_mean: sum("staleness_sum") / sum("staleness_count").max(1.0),
        staleness_max: most("staleness_max") as u64,
        density: of_first("density"),
        tau: of_first("tau"),
        residual_norm: of_first("residual_norm"),
        clipped: of_first("clipped"),
        merged: sum("merged") as u64,
    }
}

/// A field of an object that this program's own processes have written.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(&format!("\"{name}\":"))?;
    let end = rest.find([',', '}'])?;
    Some(rest[..end].trim_matches('"'))
}
