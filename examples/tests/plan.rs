//! The example program `plan`: its answers, its tables, and errors for bad input.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod binary;
// For their tests. With `test = true`, Cargo would build the tests of the program in place of the program.
#[path = "../plan/links.rs"]
#[allow(dead_code, reason = "only the tests are run here")]
mod links;
#[path = "../plan/measure.rs"]
#[allow(dead_code, reason = "only the tests are run here")]
mod measure;

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use binary::binary;

const CASE: [&str; 8] = ["--params", "14600000", "--step", "120ms", "--link", "1gbit", "--workers", "2,4,8,16"];

fn plan(args: &[&str]) -> Output {
    Command::new(binary("plan")).args(args).output().unwrap()
}

fn text(args: &[&str]) -> String {
    let output = plan(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The names of the rows of the table for so many workers, from the fastest on.
fn ranking(text: &str, workers: &str) -> Vec<String> {
    let rows = text.lines().skip_while(|line| !line.starts_with(workers)).skip(1).take_while(|line| !line.is_empty());
    rows.map(|row| row.chars().take(25).collect::<String>().trim().to_string()).collect()
}

#[test]
fn the_answer_is_a_ranking_a_verdict_and_the_break_even() {
    let text = text(&CASE);
    for workers in ["2 workers", "4 workers", "8 workers", "16 workers"] {
        let ranking = ranking(&text, workers);
        assert_eq!(ranking.len(), 13, "{ranking:?}");
        let place = |name: &str| ranking.iter().position(|row| row == name).unwrap();
        // A thin link: fewer bytes are faster, also than dense ones through a server beside each worker.
        assert!(place("local-bf16") < place("averaging") && place("ring-int8") < place("ring-bf16"), "{ranking:?}");
        assert!(place("ring-bf16") < place("sync") && place("sync") < place("sync topology=tree"), "{ranking:?}");
        assert!(place("ring-bf16") < place("hardsync"), "{ranking:?}");
    }
    // One server is the slowest choice.
    let one = self::text(&[&CASE[..], &["--servers", "1"]].concat());
    for workers in ["2 workers", "4 workers", "8 workers", "16 workers"] {
        let ranking = ranking(&one, workers);
        assert!(["hardsync", "async"].contains(&ranking[12].as_str()), "{ranking:?}");
    }
    for words in ["\nVerdict\n", "is first", "the ranking turns at", "As fast as one worker", "twice the bandwidth"] {
        assert!(text.contains(words), "{words}:\n{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 80 && !line.ends_with(' ')), "{text}");
    assert!(!text.contains('\x1b'));
}

#[test]
fn do_not_distribute_is_an_answer_with_the_number_that_decides() {
    let text =
        text(&["--params", "14.6M", "--step", "10ms", "--link", "100mbit", "--recipe", "sync", "--recipe", "async"]);
    assert!(text.contains("Do not distribute"), "{text}");
    let row = text.lines().find(|line| line.starts_with("  sync ")).unwrap();
    assert!(row.contains("Gbit/s on"), "{text}");
}

#[test]
fn measured_penalties_turn_the_ranking() {
    let args = |penalty| ["--recipe", "averaging", "--recipe", "ring-int8", "--penalty", penalty];
    let case = |penalty| text(&[&CASE[..6], &["--workers", "4"], &args(penalty)].concat());
    let turns: f64 = {
        let text = case("averaging=1");
        let row = text.lines().find(|line| line.starts_with("ring-int8")).unwrap();
        row.split_whitespace().nth(7).unwrap().trim_end_matches('x').parse().unwrap()
    };
    assert!(turns > 1.1, "{turns}");
    let before = format!("averaging={}", turns - 0.02);
    let after = format!("averaging={}", turns + 0.02);
    assert_eq!(ranking(&case(&before), "4 workers")[0], "averaging");
    assert_eq!(ranking(&case(&after), "4 workers")[0], "ring-int8");
    assert!(case(&after).contains("speed-up*"));
}

#[test]
fn unequal_machines_name_the_slowest_and_epochs_have_a_time() {
    let args = "--params 50k --step 0.58s,0.75s,1.51s,3.33s --link 100mbit --recipe sync --recipe averaging";
    let mut args: Vec<&str> = args.split_whitespace().collect();
    args.extend(["--recipe", "averaging period=20s", "--examples", "60000", "--batch", "16"]);
    let text = text(&args);
    assert!(
        text.contains("rank 3") && text.contains("46 % of the time") && text.contains("all as fast as the fastest")
    );
    assert!(text.lines().any(|line| line.starts_with("4 workers") && line.ends_with("epoch")), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80 && !line.ends_with(' ')), "{text}");
}

#[test]
fn json_has_the_numbers_of_the_table() {
    let json = text(&[&CASE[..], &["--json"]].concat());
    assert!(json.starts_with("{\"parameters\":14600000,") && json.trim_end().ends_with('}'), "{json}");
    assert_eq!(json.matches("\"workers\":16,\"rows\"").count(), 1);
    assert_eq!(json.matches("\"turns_at\":").count(), 4 * 12);
    for name in
        ["\"verdict\":\"distribute\"", "\"break_even\":[", "\"sensitivity\":[", "\"waits_for\":", "\"exact\":true"]
    {
        assert!(json.contains(name), "{name}");
    }
    assert_eq!(json.matches(['{', '[']).count(), json.matches(['}', ']']).count());
}

#[test]
fn a_recipe_that_does_not_fit_is_a_row() {
    let text =
        text(&[&CASE[..6], &["--workers", "2,8", "--recipe", "softsync updates=4", "--recipe", "sync"]].concat());
    let row = text.lines().find(|line| line.contains("does not fit")).unwrap();
    assert!(row.starts_with("softsync updates=4"), "{text}");
    assert_eq!(text.matches("does not fit").count(), 1, "{text}");
}

#[test]
fn help_teaches() {
    let help = text(&["--help"]).split_whitespace().collect::<Vec<_>>().join(" ");
    for words in ["turns at", "--penalty", "honest break-even", "Examples:", "headers take 6 %"] {
        assert!(help.contains(words), "{words}");
    }
}

/// Each error is one line on stderr that names the flag, with exit code 2.
#[test]
fn bad_input_is_one_clear_line() {
    let with = |flag: &'static str, value: &'static str| {
        let mut args = CASE.to_vec();
        match args.iter().position(|arg| *arg == flag) {
            Some(at) => args[at + 1] = value,
            None => args.extend([flag, value]),
        }
        args
    };
    let without = |flag: &str| {
        let at = CASE.iter().position(|arg| *arg == flag).unwrap();
        [&CASE[..at], &CASE[at + 2..]].concat()
    };
    let cases = [
        (with("--params", "0"), "--params: expected a whole number from 1"),
        (with("--params", "many"), "got \"many\""),
        (with("--step", "0s"), "--step: expected a time above 0"),
        (with("--step", "-5ms"), "got \"-5ms\""),
        (with("--step", "NaNs"), "got \"NaNs\""),
        (with("--step", "120"), "with its unit"),
        (with("--step", "1s,2s,3s"), "--step: expected as many times as workers"),
        (with("--link", "0bit"), "--link: expected a rate above 0"),
        (with("--link", "1"), "as in 1gbit"),
        (with("--latency", "-1ms"), "--latency: expected"),
        (with("--workers", "0"), "--workers: expected numbers from 1 to 4096"),
        (with("--workers", "2,x"), "got \"x\""),
        (with("--spread", "-1"), "--spread: expected"),
        (with("--spread", "nan"), "--spread: expected"),
        (with("--density", "0"), "--density: expected"),
        (with("--recipe", "avaraging"), "averaging"),
        (with("--recipe", "sync priod=3"), "--recipe: \"priod\" is not a setting"),
        (with("--recipe", ""), "--recipe: expected the name"),
        (with("--recipe", "sync period=64ex"), "--batch: expected"),
        (with("--recipe", "softsync updates=99"), "99"),
        (with("--penalty", "averaging"), "--penalty: expected RECIPE=X"),
        (with("--penalty", "averaging=0"), "a number X above 0"),
        (with("--penalty", "avaraging=2"), "averaging"),
        (with("--examples", "100"), "--examples: expected --batch"),
        (with("--servers", "0"), "--servers: expected at least 1"),
        (with("--measured", "/nowhere/costs.json"), "--measured /nowhere/costs.json: "),
        (without("--params"), "--params: expected"),
        (without("--step"), "--step: expected"),
        (without("--link"), "--link: expected"),
        (with("--nonsense", "1"), "--nonsense"),
    ];
    for (args, words) in cases {
        let output = plan(&args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
        assert!(error.contains(words), "{args:?}: expected {words:?}, got {error}");
        assert!(output.stdout.is_empty());
        if words != "--nonsense" {
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}

/// One process answers; another measures the link to it, and prints a file from which the link is known.
#[test]
fn a_measured_link_takes_the_place_of_the_flags() {
    let mut answers =
        Command::new(binary("plan")).args(["--answer", "127.0.0.1:0"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(answers.stderr.as_mut().unwrap()).read_line(&mut said).unwrap();
    let at = said.strip_prefix("plan: answering at ").unwrap().split(';').next().unwrap();
    let measured = plan(&["--measure", "--params", "100k", "--to", at]);
    answers.kill().unwrap();
    answers.wait().unwrap();
    let told = String::from_utf8(measured.stderr).unwrap();
    assert!(
        measured.status.success() && told.contains("us one way") && told.contains("0.40 MB in one message"),
        "{told}"
    );
    let path = std::env::temp_dir().join(format!("gradwire-plan-{}.json", std::process::id()));
    std::fs::write(&path, &measured.stdout).unwrap();
    let case = ["--params", "100k", "--step", "50ms", "--workers", "2", "--json", "--measured", path.to_str().unwrap()];
    // Loopback is faster than any network.
    let (own, slower) = (text(&case), text(&[&case[..], &["--link", "1mbit", "--latency", "1s"]].concat()));
    assert!(own.contains("\"latency\":") && !own.contains("\"latency\":1e0"), "{own}");
    assert!(slower.contains("\"latency\":1e0") && slower.contains("\"up\":117500"), "{slower}");
    std::fs::remove_file(path).unwrap();

    let gone = plan(&["--measure", "--params", "1k", "--to", at]);
    let told = String::from_utf8(gone.stderr).unwrap();
    assert!(gone.status.code() == Some(4) && told.contains(&format!("--to {at}: ")), "{:?}: {told}", gone.status);
}

/// The machines themselves, beside their closed forms.
#[test]
fn the_best_recipes_are_simulated() {
    let case = ["--params", "100k", "--step", "50ms", "--link", "1gbit", "--workers", "4", "--simulate"];
    let recipes = ["--recipe", "sync topology=ring", "--recipe", "mesh", "--recipe", "ssp"];
    let shown = text(&[&case[..], &recipes[..]].concat());
    let (_, table) = shown.split_once("4 workers, simulated").unwrap();
    assert!(
        table.contains("ssp                       not simulated: the simulator has no servers beside workers"),
        "{table}"
    );
    let json = text(&[&case[..], &recipes[..], &["--json", "--server-hosts", "own"]].concat());
    let (_, simulated) = json.split_once("\"simulated\":[").unwrap();
    let rows: Vec<&str> = simulated.split("{\"recipe\":").skip(1).collect();
    assert_eq!(rows.len(), 3, "{simulated}");
    for row in rows {
        let number = |name: &str| -> f64 {
            let (_, rest) = row.split_once(&format!("\"{name}\":")).unwrap();
            rest.split([',', '}']).next().unwrap().parse().unwrap()
        };
        let (step, forecast) = (number("step"), number("forecast"));
        assert!((forecast / step - 1.0).abs() < 0.1, "{row}");
    }
}
