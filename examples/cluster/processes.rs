//! Runs the cluster as processes of this machine: one process per worker, all with this program. Servers are threads of
//! rank 0.

use std::ffi::OsString;
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use gradwire::status::Rest;
use gradwire::telemetry::Times;
use gradwire_examples::children::{self, Children, End, Exit, Line, Plan};
use gradwire_examples::options::{Options, exit};
use gradwire_examples::outcome::{Ending, Outcome};

/// The environment variable of processes that are workers.
pub(crate) const CHILD: &str = "GRADWIRE_CLUSTER_CHILD";

/// How the lines begin in which a process says where its monitors find it.
const ADDRESSES: [&str; 4] =
    ["watch with: ", "reports of the other processes at ", "metrics at ", "events for TensorBoard "];

/// Runs the training to its end. Prints the epochs of rank 0. Returns the result, and the number of the signal that has
/// ended the run early.
///
/// # Errors
/// The exit code and the first message of a process that failed. After a signal: that no result of rank 0 has come.
pub(crate) fn run(options: &Options, args: Vec<OsString>) -> Result<(Outcome, Option<i32>), (u8, String)> {
    let failed = |error: std::io::Error| (exit::RUN, format!("cluster: {error}"));
    let program = std::env::current_exe().map_err(failed)?.into_os_string();
    let workers = options.cluster.workers;
    // A name of its own, so that two runs on one machine do not use the same shared memory.
    let cluster = format!("--cluster=cluster-{}", std::process::id());
    // On one host, servers beside each worker share no link: all bytes pass through the same processors.
    let servers = format!("--servers={}", options.cluster.servers);
    let has_servers = args.iter().any(|arg| arg.to_string_lossy().starts_with("--servers"));
    let servers = (options.recipe.needs_servers() && !has_servers).then(|| servers.into());
    let args = children::with_ports(node_args(args).collect()).into_iter().chain(servers).chain([
        cluster.into(),
        "--json".into(),
        "--progress".into(),
        "--quiet".into(),
    ]);
    let env = Some((CHILD, "1"));
    let plan = Plan { program, args: args.collect(), count: workers, restarts: 0, keep_going: false, env };
    let results: Arc<Mutex<Vec<String>>> = Arc::default();
    let (said, json) = (Arc::clone(&results), options.json);
    let end = Children::start(plan).map_err(failed)?.wait(move |Line { rank, stderr, bytes }| {
        // The message of the process that has failed first is part of the error.
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if stderr {
            if rank == 0 && ADDRESSES.iter().any(|start| text.starts_with(start)) {
                let _ = writeln!(std::io::stderr(), "{text}");
            }
            return;
        }
        if text.starts_with('{') {
            said.lock().unwrap_or_else(PoisonError::into_inner).push(text);
        } else if rank == 0 && !json {
            let _ = writeln!(std::io::stdout(), "{text}");
        }
    });
    let signal = match end {
        End::Success => None,
        End::Failed(failure) => return Err((failure.exit.code(), format!("cluster: {failure}"))),
        End::Stopped(signal) => Some(signal),
    };
    let lines = std::mem::take(&mut *results.lock().unwrap_or_else(PoisonError::into_inner));
    let has_result = |rank: u32| lines.iter().any(|line| field(line, "rank") == Some(rank.to_string().as_str()));
    if let Some(signal) = signal {
        // The result of rank 0 has the model. Another process may have ended before it could tell its part.
        return match has_result(0) {
            true => Ok((outcome(options, &lines, workers), Some(signal))),
            false => {
                let text = format!("cluster: stopped by {} before a result of process 0", children::name(signal));
                Err((Exit::Signal(signal).code(), text))
            }
        };
    }
    if let Some(rank) = (0..workers).find(|rank| !has_result(*rank)) {
        return Err((exit::RUN, format!("cluster: expected a JSON result from process {rank}, got none")));
    }
    Ok((outcome(options, &lines, workers), None))
}

/// The arguments of this program, without the flag `--workers`, which `node` does not have.
fn node_args(args: Vec<OsString>) -> impl Iterator<Item = OsString> {
    let mut skip = false;
    args.into_iter().skip(1).filter(move |arg| {
        let text = arg.to_string_lossy();
        let own = text == "--workers" || text.starts_with("--workers=");
        !std::mem::replace(&mut skip, text == "--workers") && !own
    })
}

/// The result of the cluster, from the JSON objects of all nodes.
fn outcome(options: &Options, lines: &[String], workers: u32) -> Outcome {
    let number = |line: &str, name: &str| match field(line, name) {
        // A number that JSON does not have.
        Some("null") => f64::NAN,
        text => text.and_then(|text| text.parse().ok()).unwrap_or(0.0),
    };
    let sum = |name: &str| lines.iter().map(|line| number(line, name)).sum::<f64>();
    let max = |name: &str| lines.iter().map(|line| number(line, name)).fold(0.0, f64::max);
    let worker = |line: &&String| number(line, "rank") < f64::from(workers);
    let first = lines.iter().find(|line| number(line, "rank") == 0.0);
    let of_first = |name: &str| first.map_or(0.0, |line| number(line, name));
    let digest = |line: &String| field(line, "digest").and_then(|text| u64::from_str_radix(text, 16).ok()).unwrap_or(0);
    let rest = first.is_some_and(|line| line.contains("\"rest\":{"));
    let rest = rest.then(|| Rest {
        norm: of_first("norm"),
        updates: of_first("updates"),
        messages: of_first("messages") as u32,
        kept: of_first("kept"),
    });
    for line in lines {
        hints(line).for_each(|text| options.hints.report(text, options.json));
    }
    Outcome {
        accuracy: of_first("accuracy"),
        loss: of_first("loss"),
        ending: Ending {
            before: (of_first("accuracy_before_end"), of_first("loss_before_end")),
            residual_updates: of_first("residual_updates"),
            rest,
            kept: sum("kept_in_all"),
        },
        hints: options.hints.clone(),
        digests: lines.iter().filter(worker).map(digest).collect(),
        steps: sum("steps") as u64,
        examples: sum("examples") as u64,
        seconds: max("seconds"),
        sent: sum("bytes_sent") as u64,
        dense: sum("bytes_dense") as u64,
        staleness_mean: sum("staleness_sum") / sum("staleness_count").max(1.0),
        staleness_max: max("staleness_max") as u64,
        density: of_first("density"),
        tau: of_first("tau"),
        residual_norm: of_first("residual_norm"),
        clipped: of_first("clipped"),
        forgotten: of_first("forgotten"),
        merged: sum("merged") as u64,
        applied: sum("applied") as u64,
        late: sum("late") as u64,
        deferred: sum("deferred") as u64,
        times: (0..workers).map(|rank| times(lines, rank)).collect(),
        curve: first.map_or_else(|| "[]".to_string(), |line| curve(line)),
        skipped: ["skipped_pushes", "skipped_fetches"].map(|name| sum(name) as u64),
    }
}

/// The value of a number in a JSON object; 0 if there is none.
fn number_of(line: &str, name: &str) -> f64 {
    field(line, name).and_then(|text| text.parse().ok()).unwrap_or(0.0)
}

/// Where the time of a worker has gone, from its JSON object.
fn times(lines: &[String], rank: u32) -> Times {
    let line = lines.iter().find(|line| number_of(line, "rank") == f64::from(rank));
    let nanos = |name: &str| line.map_or(0, |line| (number_of(line, name) * 1e9) as u64);
    let [compute, wait, encode] = ["computed", "waited", "encoded"].map(nanos);
    let [decode, apply] = ["decoded", "applied_in"].map(nanos);
    let steps = line.map_or(0, |line| number_of(line, "steps") as u64);
    Times { steps, compute, wait, encode, decode, apply, ..Times::default() }
}

/// The array `curve` at the end of a JSON object.
fn curve(line: &str) -> String {
    let array = line.split_once("\"curve\":").and_then(|(_, rest)| rest.split_once(']'));
    array.map_or_else(|| "[]".to_string(), |(array, _)| format!("{array}]"))
}

/// The texts of the field `hints` in a JSON object.
fn hints(line: &str) -> impl Iterator<Item = &str> {
    let list = line.split_once("\"hints\":[").and_then(|(_, rest)| rest.split_once(']')).map_or("", |(list, _)| list);
    // Every second piece is between two texts.
    list.split('"').skip(1).step_by(2)
}

/// The value of a number or of a text without commas in a JSON object. Names are unique within an object.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(&format!("\"{name}\":"))?;
    let end = rest.find([',', '}'])?;
    Some(rest[..end].trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_hints_are_found() {
        let line = "{\"rank\":0,\"residual_norm\":2,\"rest\":{\"norm\":1.5,\"kept\":0.5},\"hints\":[\"a, b\",\"c\"]}";
        assert_eq!((field(line, "norm"), field(line, "kept"), field(line, "none")), (Some("1.5"), Some("0.5"), None));
        assert_eq!(hints(line).collect::<Vec<_>>(), ["a, b", "c"]);
        assert_eq!(hints("{\"hints\":[]}").count(), 0);
    }
}
