//! The example program `compare`: its tables, its results file, Ctrl-C, and errors for bad input.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod binary;
// For their tests. With `test = true`, Cargo would build the tests of the program in place of the program.
#[path = "../compare/faults.rs"]
#[allow(dead_code, reason = "only the tests are run here")]
mod faults;
#[path = "../compare/rules.rs"]
#[allow(dead_code, reason = "only the tests are run here")]
mod rules;
#[path = "../compare/watch.rs"]
#[allow(dead_code, reason = "only the tests are run here")]
mod watch;

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use binary::binary;

/// A comparison that takes about a second.
const CASE: [&str; 12] = [
    "--recipes",
    "sync,averaging",
    "--hidden",
    "8,8",
    "--workers",
    "4",
    "--examples",
    "800",
    "--seeds",
    "2",
    "--tune",
    "2",
];

fn compare(args: &[&str]) -> Output {
    // Unless told otherwise, it writes a page where it runs.
    Command::new(binary("compare")).args(args).current_dir(std::env::temp_dir()).output().unwrap()
}

#[track_caller]
fn text(args: &[&str]) -> String {
    let output = compare(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The case with another value of a flag, or one more flag.
fn with<'a>(flag: &'a str, value: &'a str) -> Vec<&'a str> {
    let mut args = CASE.to_vec();
    match args.iter().position(|arg| *arg == flag) {
        Some(at) => args[at + 1] = value,
        None => args.extend([flag, value]),
    }
    args
}

/// A file for this process and test.
fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("gradwire-compare-{}-{name}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

/// All that is printed after the command.
fn answer(text: &str) -> &str {
    &text[text.find("\ndigits (").unwrap_or_else(|| panic!("{text}"))..]
}

#[test]
fn the_answer_has_tables_charts_and_a_verdict_with_its_conditions() {
    let text = text(&CASE);
    assert!(text.starts_with("compare --recipes sync,averaging --hidden 8,8"), "{text}");
    for row in ["one worker ", "large batch", "sync ", "averaging "] {
        assert!(text.lines().filter(|line| line.starts_with(row)).count() >= 3, "{row}:\n{text}");
    }
    for words in [
        "T/4    T/2      T     2T    E/4    E/2      E",
        "step p50        p90   test loss  test accuracy",
        "\nspeed: examples per second",
        "\nattainable loss: ",
        "\nloss for wall-clock: ",
        "\nloss for examples: ",
        "none shown",
        "\nVerdict\nThis holds for digits (hidden 8,8) with",
    ] {
        assert!(text.contains(words), "{words}:\n{text}");
    }
    // The verdict is broken into lines.
    let words: Vec<&str> = text.split_whitespace().collect();
    for sentence in [
        "4 workers with 4 examples a step; steps of 20.0 ms, 25.0 ms, 40.0 ms and 80.0 ms; links of 940 Mbit/s and 200µs",
        "2 seeds are too few to show a difference",
        "Other workers, speeds, links, tasks or budgets can rank the rules differently.",
    ] {
        assert!(words.join(" ").contains(sentence), "{sentence}:\n{text}");
    }
    assert!(text.contains('▅') && !text.contains('\x1b'), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80 && !line.ends_with(' ')), "{text}");
    assert_eq!(text, self::text(&CASE), "equal commands have equal answers");
}

/// The widest tables: long names, a tuned number, a fault, and a target that is never reached.
#[test]
fn wide_tables_fit_80_columns() {
    let args = ["--recipes", "averaging period=2..20 optimizer=keep,hardsync codec={f32,int8}", "--tune", "2"];
    let more = ["--seeds", "1", "--hidden", "8,8", "--workers", "4", "--examples", "2k", "--target", "1e-9"];
    let text = text(&[&args[..], &more, &["--fault", "crash:1@50ms"]].concat());
    for words in ["tuned: period=", "never", "reaches loss 1.0e-9", "at 50ms, node 1 is killed"] {
        assert!(text.contains(words), "{words}:\n{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 80 && !line.ends_with(' ')), "{text}");
}

/// A rule on four workers is through its examples before one worker has the target, here the loss of its end.
#[test]
fn a_loss_after_the_end_is_that_of_the_end() {
    let target =
        "--recipes averaging --hidden 8,8 --workers 4 --speeds 20ms --examples 800 --seeds 1 --tune 1 --target 1.4";
    let text = text(&target.split(' ').collect::<Vec<_>>());
    let curves = text.split("loss at ").nth(1).unwrap();
    let row = curves.lines().find(|line| line.starts_with("averaging")).unwrap();
    let cells: Vec<&str> = row.split_whitespace().skip(1).take(7).collect();
    assert_eq!(cells[3], "=E", "{text}");
    assert!(cells[..1].iter().chain(&cells[4..]).all(|cell| cell.parse::<f64>().is_ok()), "{text}");
}

#[test]
fn runs_that_diverge_are_rows() {
    let text = text(&[&CASE[..], &["--rates", "1e30..1e30", "--tune-seeds", "1"]].concat());
    assert_eq!(text.matches("2 of 2 runs failed; diverged: ").count(), 4, "{text}");
    assert!(text.contains("Runs failed or diverged: one worker (2 of 2), large batch (2 of 2)"), "{text}");
    assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80 && !line.ends_with(' ')), "{text}");
}

#[test]
fn json_has_a_line_per_fact() {
    let json = text(&[&CASE[..], &["--json"]].concat());
    let of = |kind: &str| json.lines().filter(|line| line.starts_with(&format!("{{\"type\":\"{kind}\""))).count();
    let counts = ["conditions", "row", "run", "winner", "pareto", "verdict"].map(of);
    assert_eq!(counts, [1, 4, 8, 4, 1, 1], "{json}");
    assert_eq!(counts.iter().sum::<usize>(), json.lines().count());
    for line in json.lines() {
        assert!(line.ends_with('}') && line.matches(['{', '[']).count() == line.matches(['}', ']']).count(), "{line}");
    }
    for words in [
        "\"seconds to the target\":",
        "\"curve\":{\"columns\":",
        "\"step time p90\":",
        "\"test loss\":",
        "\"test_accuracy\":",
        "\"trials\":[{\"rate\":",
        "\"shown\":false",
    ] {
        assert!(json.contains(words), "{words}:\n{json}");
    }
    assert!(!json.contains("NaN") && !json.contains("inf"), "{json}");
}

/// Runs that are in the file are not repeated, whatever was cut off its end.
#[test]
fn results_are_kept_and_a_cut_line_is_dropped() {
    let path = scratch("kept");
    let args = with("--results", path.to_str().unwrap());
    let (first, fresh) = (text(&args), text(&CASE));
    assert_eq!(answer(&first), answer(&fresh));
    let written = std::fs::read_to_string(&path).unwrap();
    assert_eq!(written.lines().count(), 1 + 4 * 2 + 4 * 2, "{written}");
    assert_eq!(text(&args), first);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), written, "nothing was run again");

    std::fs::write(&path, &written[..written.len() - 5]).unwrap();
    let output = compare(&args);
    let note = String::from_utf8(output.stderr).unwrap();
    assert!(note.contains("its last line was cut") && note.lines().count() == 1, "{note}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), first);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), written, "the run was added again");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn ctrl_c_ends_and_the_same_command_goes_on() {
    let path = scratch("interrupted");
    let mut args = with("--results", path.to_str().unwrap());
    args.extend(["--threads", "1"]);
    let examples = args.iter().position(|arg| *arg == "800").unwrap();
    args[examples] = "4k";
    let mut child = Command::new(binary("compare"))
        .args(&args)
        .current_dir(std::env::temp_dir())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while std::fs::read_to_string(&path).map_or(0, |text| text.lines().count()) < 3 {
        assert!(begun.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(128 + 2), "{error}");
    assert!(error.contains("of 16 runs: the same command goes on from") && error.lines().count() == 1, "{error}");
    let kept = std::fs::read_to_string(&path).unwrap();
    assert!(kept.lines().count() < 17 && kept.ends_with('\n'), "{kept}");

    let resumed = text(&args);
    assert!(std::fs::read_to_string(&path).unwrap().starts_with(&kept));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(text(&args), resumed, "a comparison without a stop");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_page_is_written() {
    let path = scratch("page.html");
    let text = text(&with("--out", path.to_str().unwrap()));
    assert!(text.contains("The page with plots is") && text.contains(path.to_str().unwrap()), "{text}");
    let page = std::fs::read_to_string(&path).unwrap();
    assert!(page.to_lowercase().starts_with("<!doctype html>") && page.contains("averaging"), "{page}");
    std::fs::remove_file(path).unwrap();
}

/// Images of the user's own take the place of those in the program, and are named.
#[test]
fn images_of_the_user_are_compared() {
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/data");
    let text = text(&with("--data", data));
    assert!(text.contains("data, digest "), "{text}");
}

/// Without flags for the output, there is a page as well.
#[test]
fn a_comparison_has_a_page() {
    let directory = scratch("page");
    std::fs::create_dir(&directory).unwrap();
    let output = Command::new(binary("compare")).args(CASE).current_dir(&directory).output().unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().contains("compare.html"));
    assert!(std::fs::read_to_string(directory.join("compare.html")).unwrap().contains("</svg>"));
    std::fs::remove_dir_all(directory).unwrap();
}

/// With two seeds no difference is shown, so that all repetitions agree.
#[test]
fn repetitions_print_which_winners_stay() {
    let (args, results) = (with("--repeat", "3"), scratch("repeat"));
    let text = text(&[&args[..], &["--results", results.to_str().unwrap()]].concat());
    for criterion in ["speed", "attainable loss", "loss for wall-clock", "loss for examples"] {
        let line = format!("\n{criterion}: 3 of 3 repetitions agree, stable\n");
        assert!(text.contains(&line), "{line}:\n{text}");
    }
    assert!(text.contains("the winner of most") && !text.contains("page with plots"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80 && !line.ends_with(' ')), "{text}");
    let runs = std::fs::read_to_string(&results).unwrap().lines().count() - 1;
    assert_eq!(runs, 3 * 4 * (2 + 2), "repetitions have seeds of their own");
    std::fs::remove_file(&results).unwrap();

    let json = self::text(&[&args[..], &["--json"]].concat());
    let lines: Vec<&str> = json.lines().filter(|line| line.starts_with("{\"type\":\"stability\"")).collect();
    assert_eq!((lines.len(), json.matches("{\"type\":\"conditions\"").count()), (4, 3));
    assert!(lines[0].contains("\"agreeing\":3,\"repetitions\":3,\"stable\":true,\"answers\":[{\"winner\":"), "{json}");
}

/// Threads whose steps are mostly sleep, and the simulator with the same times. With `sync`, all take the time of the
/// slowest; with `async`, none waits.
#[test]
fn a_calibration_has_both_runs_and_the_error() {
    let flags = ["--hidden", "8,8", "--workers", "4", "--examples", "800", "--speeds", "5ms,20ms"];
    let text = text(&[&["--calibrate", "averaging period=5"][..], &flags].concat());
    for words in
        ["\nthreads ", "\nsimulator ", "\nerror of the simulator ", ": 4 workers with 4 examples a step, for 400 ms."]
    {
        assert!(text.contains(words), "{words}:\n{text}");
    }
    for (recipe, from, to) in [("sync", 0.4, 0.75), ("async", 0.85, 1.001)] {
        let json = self::text(&[&["--calibrate", recipe, "--json"][..], &flags].concat());
        let number = |of: &str| {
            let at = json.find(of).unwrap() + of.len();
            json[at..].split([',', '}']).next().unwrap().parse::<f64>().unwrap()
        };
        let threads = number("\"threads\":{\"examples per second\":");
        let simulator = number("\"simulator\":{\"examples per second\":");
        assert!((number("\"error\":") - (simulator / threads - 1.0)).abs() < 1e-9, "{json}");
        let busy = json[json.find("\"simulator\"").unwrap()..].split("\"busy\":").nth(1).unwrap();
        let busy: f64 = busy.split('}').next().unwrap().parse().unwrap();
        assert!((from..to).contains(&busy), "{recipe}: {json}");
    }
}

#[test]
fn help_teaches() {
    let help = text(&["--help"]).split_whitespace().collect::<Vec<_>>().join(" ");
    for words in ["How it compares", "same --tune learning rates", "to target", "Examples:", "headers take 6 %"] {
        assert!(help.contains(words), "{words}");
    }
}

/// Each error is one line on stderr, with the exit code of its kind.
#[test]
fn bad_input_is_one_clear_line() {
    let (other, foreign, damaged) = (scratch("version"), scratch("foreign"), scratch("damaged"));
    std::fs::write(&other, "gradwire-compare 99\n").unwrap();
    std::fs::write(&foreign, "my notes\n").unwrap();
    std::fs::write(&damaged, "gradwire-compare 2\nx\n").unwrap();
    let cases = [
        (2, with("--recipes", "avaraging"), "averaging"),
        (2, with("--recipes", "sync,avaraging period={10,30}"), "got \"avaraging\" (did you mean \"averaging\"?)"),
        (2, with("--recipes", "averaging priod={10,30}"), "\"priod\" is not a setting"),
        (2, with("--recipes", "sync,sync"), "\"sync\" is there twice"),
        (2, with("--recipes", ""), "--recipes: expected the name of a recipe"),
        (3, with("--recipes", "softsync updates=99"), "softsync updates=99: "),
        (2, with("--task", "letters"), "letters"),
        (2, with("--hidden", "x"), "--hidden: expected sizes"),
        (2, with("--workers", "0"), "--workers: expected at least 2, got \"0\""),
        (2, with("--workers", "1"), "--workers: expected at least 2"),
        (2, with("--workers", "5000"), "workers: expected from 2 to 4096, got 5000"),
        (2, with("--batch", "0"), "--batch: expected at least 1"),
        (2, with("--servers", "0"), "--servers: expected at least 1"),
        (2, with("--speeds", "0ms"), "--speeds: expected times above 0"),
        (2, with("--speeds", "20ms,"), "--speeds: expected times above 0"),
        (2, with("--speeds", "20"), "with their units"),
        (2, with("--jitter", "1"), "--jitter: expected a number from 0 to below 1"),
        (2, with("--jitter", "nan"), "--jitter: expected"),
        (2, with("--link", "0bit"), "--link: expected a rate of at least 1 bit/s"),
        (2, with("--link", "nan gbit"), "--link: expected"),
        (2, with("--latency", "-1ms"), "--latency: expected"),
        (2, with("--fault", "crash:1"), "--fault: expected crash:RANK@TIME"),
        (3, with("--fault", "crash:77@1s"), "a fault of node 77"),
        (2, with("--examples", "0"), "--examples: expected a whole number from 1"),
        (2, with("--examples", "15"), "examples: expected at least 16, a step of all workers, got 15"),
        (2, with("--seeds", "0"), "seeds: expected from 1 to 1000, got 0"),
        (2, with("--repeat", "0"), "--repeat: expected from 1 to 1000, got \"0\""),
        (2, [&with("--repeat", "2")[..], &["--out", "x.html"]].concat(), "--out: expected no --repeat"),
        (2, with("--calibrate", "avaraging"), "--calibrate: "),
        (2, [&with("--calibrate", "sync")[..], &["--servers", "0"]].concat(), "--servers: expected at least 1"),
        (2, with("--tune", "0"), "points of the tuning: expected from 1 to 1000, got 0"),
        (2, with("--tune-examples", "NaN"), "--tune-examples: expected"),
        (2, with("--rates", "1..0.1"), "--rates: expected two rates above 0"),
        (2, with("--rates", "NaN..1"), "--rates: expected two rates above 0"),
        (2, with("--target", "NaN"), "--target: expected a finite loss, got \"NaN\""),
        (6, with("--results", other.to_str().unwrap()), "expected results in version 2 of the format, got version 99"),
        (6, with("--results", foreign.to_str().unwrap()), "expected results of a comparison, got something else"),
        (6, with("--results", damaged.to_str().unwrap()), "line 2: expected the results of a run"),
        (6, with("--results", "/nowhere/runs.txt"), "--results /nowhere/runs.txt: "),
        (6, with("--out", "/nowhere/page.html"), "--out /nowhere/page.html: "),
        (6, with("--data", "/nowhere"), "/nowhere: expected a directory with images and labels"),
        (2, [&with("--data", ".")[..], &["--task", "mixture"]].concat(), "--data: expected --task digits"),
    ];
    for (code, args, words) in cases {
        let output = compare(&args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
        assert!(error.contains(words), "{args:?}: expected {words:?}, got {error}");
        assert!(output.stdout.is_empty());
        if !args.contains(&"letters") {
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
    assert_eq!(std::fs::read_to_string(&foreign).unwrap(), "my notes\n", "a foreign file is not touched");
    [other, foreign, damaged].iter().for_each(|path| std::fs::remove_file(path).unwrap());
}
