//! The example program `cluster`: accuracy under each recipe, options, and errors for bad input.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod binary;

use std::process::{Command, Output};

use binary::binary;

const RECIPES: [&str; 15] = [
    "averaging",
    "sync",
    "async",
    "softsync",
    "ssp",
    "mesh",
    "ring-bf16",
    "ring-int8",
    "sparse",
    "local-bf16",
    "local-sparse",
    "dl4j",
    "downpour",
    "rudra",
    "dl4j-sharing",
];

fn cluster(args: &str) -> Output {
    Command::new(binary("cluster")).args(args.split_whitespace()).output().unwrap()
}

fn field(json: &str, name: &str) -> f64 {
    let at = json.find(&format!("\"{name}\":")).unwrap_or_else(|| panic!("{name} in {json}"));
    let rest = &json[at + name.len() + 3..];
    rest[..rest.find([',', '}']).unwrap()].parse().unwrap_or_else(|_| panic!("{name} is a number in {json}"))
}

fn train(args: &str) -> String {
    let output = cluster(&format!("--json {args}"));
    assert!(output.status.success(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// With each recipe, four workers reach 95 % accuracy, and at most two points less than one worker on the same
/// examples. Where staleness depends on the speed of threads, the accuracy does too, by 0.6 points (standard deviation of
/// 180 runs of `softsync`): then it is the mean of three runs.
#[test]
fn every_recipe_learns_the_digits() {
    let alone = field(&train("--workers 1 --recipe sync"), "accuracy");
    assert!(alone >= 0.95);
    for recipe in RECIPES {
        let json = train(&format!("--recipe {recipe}"));
        let mut runs = vec![field(&json, "accuracy")];
        if field(&json, "staleness_mean") > 0.0 {
            runs.extend([(); 2].map(|()| field(&train(&format!("--recipe {recipe}")), "accuracy")));
        }
        let accuracy = runs.iter().sum::<f64>() / runs.len() as f64;
        assert!(accuracy >= 0.95 && accuracy > alone - 0.02, "{recipe}: {accuracy}, alone {alone}");
        assert!(json.starts_with(&format!("{{\"recipe\":\"{recipe}\",")) && json.trim_end().ends_with('}'));
        for name in ["workers", "loss", "steps", "seconds", "examples_per_second", "bytes_sent", "bytes_dense"] {
            assert!(field(&json, name) > 0.0, "{name}");
        }
        assert!(field(&json, "staleness_mean") >= 0.0);
    }
}

#[test]
fn recipes_learn_generated_tasks() {
    for recipe in ["averaging", "hardsync", "mesh"] {
        let json = train(&format!("--task sequence --recipe {recipe} --epochs 8"));
        assert!(json.contains("\"task\":\"sequence\"") && field(&json, "accuracy") > 0.9, "{recipe}: {json}");
    }
    let json = train("--task mixture --recipe hardsync --epochs 2");
    assert!(json.contains("\"task\":\"mixture\"") && field(&json, "accuracy") > 0.9, "{json}");
    refused("--task mixture --data .", 2, "--data: expected --task digits");
    refused("--task sequence --hidden 20,10", 2, "--hidden: expected one size with --task sequence, got 2");
    refused("--task sequence --data .", 2, "--data: expected --task digits");
    refused("--task sums", 2, "invalid value 'sums'");
}

/// The default rate is that of one worker, times the number of workers, at most 4, and divided by the gain.
#[test]
fn the_default_rate_follows_the_recipe() {
    for (args, rate) in [
        ("--workers 1 --recipe sync", "0.1"),
        ("--recipe sync", "0.4"),
        ("--recipe averaging", "0.2"),
        ("--recipe async --lambda 1 --workers 2", "0.1"),
        ("--recipe sync --momentum 0.75", "0.1"),
        ("--recipe mesh --momentum-correction 0.75 --task sequence", "0.2"),
    ] {
        let text = String::from_utf8(cluster(&format!("{args} --epochs 1")).stdout).unwrap();
        assert!(text.contains(&format!("learning rate {rate},")), "{args}: {text}");
    }
}

/// Hints that follow from the recipe are printed once, and are in the JSON object, also of a run between processes.
#[test]
fn hints_are_given_once() {
    let dense_pull = "servers answer sparse updates with dense parameters";
    for transport in ["mem", "shm"] {
        let args = format!("--recipe hardsync --codec topk --density 0.01 --epochs 1 --transport {transport}");
        let text = cluster(&args);
        let said = String::from_utf8(text.stderr).unwrap();
        assert_eq!(said.matches(dense_pull).count(), 1, "{said}");
        assert!(said.contains("hint: at a density of 1.00 %, most elements"), "{said}");
        assert!(String::from_utf8(text.stdout).unwrap().contains("hint            at a density of 1.00 %"));
        let json = train(&args);
        assert_eq!(json.matches(dense_pull).count(), 1, "{json}");
    }
    assert!(train("--recipe sync --epochs 1").contains("\"hints\":[],\"curve\":["));
}

/// The model before the end is in the output, as it is after it.
#[test]
fn the_end_is_visible() {
    for transport in ["mem", "shm"] {
        let args = format!("--recipe mesh --density 0.01 --epochs 4 --transport {transport}");
        let json = train(&args);
        assert!(field(&json, "accuracy_before_end") > 0.5 && field(&json, "loss_before_end") < 1.5, "{json}");
        assert!(json.contains("\"residual_updates\":") && json.contains("\"rest\":"), "{json}");
        let text = String::from_utf8(cluster(&args).stdout).unwrap();
        assert!(text.lines().any(|line| line.starts_with("before the end  ")), "{text}");
    }
    // A dense synchronous run ends with the parameters of its last round.
    let text = String::from_utf8(cluster("--recipe sync --epochs 1").stdout).unwrap();
    assert!(!text.contains("before the end"), "{text}");
}

#[test]
fn the_bench_of_learning_prints_its_tables() {
    let run = |args: &str| {
        let output = Command::new(binary("learning")).args(args.split_whitespace()).output().unwrap();
        assert!(output.status.success(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let small = "--task digits --seeds 2 --epochs 1 --workers 2";
    let codecs = run(&format!("{small} --table codecs --filter int8"));
    assert_eq!((codecs.matches("| ring | int8 |").count(), codecs.matches('%').count()), (1, 10), "{codecs}");
    let ends = run(&format!("{small} --table ends --filter sign --json"));
    assert_eq!(ends.lines().filter(|line| line.contains("\"failed\":null")).count(), 9, "{ends}");
    assert_eq!(run(&format!("{small} --table presets --filter petuum")).lines().count(), 3);
    // A run that fails is a row.
    let failed = run(&format!("{small} --table presets --filter petuum --limit 0"));
    assert!(failed.contains("| digits | petuum | failed: "), "{failed}");
}

/// The arithmetic of a run may be done by a GPU: it learns, and synchronous results are the same to the bit.
#[cfg(feature = "gpu")]
#[test]
fn a_gpu_gives_the_same_parameters() {
    // Not what follows: the curve has the seconds of each epoch.
    let digest = |json: &str| json.split("\"digest\":\"").nth(1).unwrap().split('"').next().unwrap().to_string();
    let first = cluster("--json --recipe sync --epochs 2 --executor gpu");
    if first.status.code() == Some(4) && std::env::var_os("GRADWIRE_REQUIRE_GPU").is_none() {
        let said = String::from_utf8_lossy(&first.stderr).to_string();
        let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("skipped: {said}").as_bytes());
        return;
    }
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    assert_eq!(digest(&String::from_utf8(first.stdout).unwrap()), digest(&train("--recipe sync --epochs 2")));
    for recipe in ["averaging --optimizer average --momentum 0.5", "hardsync --codec int8 --pull bf16"] {
        let of = |executor: &str| digest(&train(&format!("--recipe {recipe} --epochs 2 --executor {executor}")));
        assert_eq!(of("gpu"), of("cpu"), "{recipe}");
    }
    let accuracy = field(&train("--recipe mesh --executor gpu --workers 2"), "accuracy");
    assert!(accuracy >= 0.95, "{accuracy}");
}

/// Without an adapter, `--executor gpu` fails with the name that was searched for, and `auto` warns and uses the CPU.
/// A build without the feature refuses a GPU, and prints the command that builds with the feature.
#[cfg(not(feature = "gpu"))]
#[test]
fn a_missing_feature_is_named() {
    let command = "cargo run --release --features gpu --example cluster -- --executor gpu";
    refused("--executor gpu", 4, "--executor gpu: this program was built without its feature gpu");
    refused("--executor gpu", 4, command);
    let instead = cluster("--recipe sync --epochs 1 --json --executor auto");
    let said = String::from_utf8_lossy(&instead.stderr).to_string();
    assert!(instead.status.success() && said.contains("executor: WARNING: using the CPU: this program"), "{said}");
    assert!(said.contains(command), "{said}");
}

/// A missing adapter is an error that names the wanted adapter, or a warning and the processor in its place; never
/// zeros.
#[cfg(feature = "gpu")]
#[test]
fn a_missing_adapter_is_an_error_or_a_warning() {
    let with = |executor: &str| {
        let mut command = Command::new(binary("cluster"));
        let args = ["--recipe", "sync", "--epochs", "1", "--json", "--executor", executor];
        command.args(args).env("WGPU_ADAPTER_NAME", "no such adapter").output().unwrap()
    };
    let refused = with("gpu");
    let said = String::from_utf8_lossy(&refused.stderr).to_string();
    assert_eq!(refused.status.code(), Some(4), "{said}");
    assert!(said.contains("expected an adapter whose name contains \"no such adapter\""), "{said}");
    let instead = with("auto");
    let said = String::from_utf8_lossy(&instead.stderr).to_string();
    assert!(instead.status.success() && said.contains("executor: WARNING: using the CPU: gpu: expected"), "{said}");
}

#[test]
fn synchronous_runs_repeat_bit_for_bit() {
    for recipe in ["sync", "averaging", "hardsync"] {
        let digest = |seed: u32| {
            let json = train(&format!("--recipe {recipe} --epochs 2 --seed {seed}"));
            json[json.find("\"digest\"").unwrap()..][..27].to_string()
        };
        assert_eq!(digest(3), digest(3), "{recipe}");
        assert_ne!(digest(3), digest(4), "{recipe}");
    }
}

/// Over every transport: with the tapes of a run, another one ends with its digest. A run with another seed is refused.
#[test]
fn runs_without_rounds_are_run_again_from_their_tapes() {
    let directory = std::env::temp_dir().join(format!("gradwire-cluster-tapes-{}", std::process::id()));
    let tapes = directory.display();
    for (recipe, transport) in
        [("async", "mem"), ("mesh", "mem"), ("mesh", "tcp"), ("ssp --bound 2", "shm"), ("downpour", "tcp")]
    {
        let args = format!("--recipe {recipe} --transport {transport} --workers 3 --epochs 1");
        let digest = |flag: &str| {
            let json = train(&format!("{args} {flag} {tapes}"));
            json[json.find("\"digest\"").unwrap()..][..27].to_string()
        };
        assert_eq!(digest("--record-tape"), digest("--follow-tape"), "{recipe} over {transport}");
        refused(&format!("--json {args} --seed 2 --follow-tape {tapes}"), 4, "belongs to another run");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}

#[test]
fn a_run_prints_a_table_of_epochs() {
    let output = cluster("--recipe mesh --epochs 3");
    let text = String::from_utf8(output.stdout).unwrap();
    for word in [
        "epoch",
        "test acc",
        "train loss",
        "test loss",
        "staleness",
        "of dense",
        "left",
        "waited",
        "examples/s",
        "parameters",
    ] {
        assert!(text.contains(word), "{word} in {text}");
    }
    assert!(text.lines().any(|line| line.trim_start().starts_with("3 ")), "{text}");
    let table = text.lines().skip_while(|line| !line.starts_with("epoch ")).take(4);
    table.for_each(|line| assert!(line.chars().count() <= 80, "{line}"));
}

/// One object is enough to plot a run, and to repeat it.
#[test]
fn json_has_what_a_plot_and_a_repetition_need() {
    for transport in ["mem", "tcp"] {
        let json = train(&format!("--recipe sync --epochs 2 --workers 2 --seed 7 --transport {transport}"));
        for part in
            ["\"version\":\"", "\"seed\":7,", "\"batch\":16,", "\"rate\":", "\"epochs\":2,", "\"hidden\":[256, 128]"]
        {
            assert!(json.contains(part), "{part} in {json}");
        }
        assert_eq!(json.matches("\"waited\":").count(), 2, "{json}");
        assert_eq!(json.matches("\"train_loss\":").count(), 2, "{json}");
        assert!(json.trim_end().ends_with("}]}"), "{json}");
    }
}

/// `-h` is short, `--help` explains; both fit 80 columns, and name every value.
#[test]
fn help_fits_the_terminal() {
    let of = |flag: &str| String::from_utf8(cluster(flag).stdout).unwrap();
    let (short, long) = (of("-h"), of("--help"));
    assert!(short.lines().count() * 2 < long.lines().count(), "{short}");
    for text in [&short, &long] {
        text.lines().for_each(|line| assert!(line.chars().count() <= 80, "{line}"));
    }
    for part in ["<HOST:PORT>", "<SECONDS>", "<FILE>"] {
        assert!(short.contains(part), "{part}");
    }
    assert!(long.contains("--pull-density <X>") && !short.contains("--pull-density") && !long.contains("<VALUE>\n\n"));
    assert!(of("--version").starts_with("cluster "), "{}", of("--version"));
}

/// A file or directory that cannot be used is found before the training, and named with its flag and the reason.
#[test]
fn paths_are_tried_first() {
    for (flag, expected) in [
        ("--record-tape /proc/nothing", "a directory in which files can be created, got /proc/nothing ("),
        ("--follow-tape /nowhere", "a directory with tapes, got /nowhere (No such file"),
    ] {
        let name = flag.split(' ').next().unwrap();
        // Processes would be started later than the check.
        for transport in ["mem", "tcp"] {
            let args = format!("--recipe async --transport {transport} {flag}");
            refused(&args, 6, &format!("{name}: expected {expected}"));
        }
    }
    refused("--init /nowhere/x", 6, "--init /nowhere/x: No such file");
    refused("--tensorboard /proc/nothing", 4, "--tensorboard /proc/nothing: ");
    refused(
        "--epochs 1 --export /proc/nothing",
        6,
        "--export: expected a file that can be written, got /proc/nothing (",
    );
    refused("--epochs 1 --export /tmp", 6, "--export: expected a file that can be written, got /tmp (");
}

/// Keys of another codec are answered with the ones that the recipe has.
#[test]
fn settings_of_another_codec_are_answered_with_those_of_this_one() {
    refused("--recipe sparse --tau 0.5", 2, "it requires codec=threshold (codec=topk has scope, density, values)");
    refused("--recipe sparse --dens 0.5", 2, "(a similar argument exists: '--density')");
}

#[test]
fn recipe_options_appear_in_the_recipe_that_runs() {
    let json = train("--recipe ssp --bound 1 --slow-rank 2:3 --epochs 1 --shards 3 --servers 2");
    assert!(json.contains("pace=stale bound=1") && json.contains("shards=3"));
    assert!(train("--recipe averaging --optimizer average --momentum 0.5 --epochs 1").contains("optimizer=average"));
    assert!(train("--recipe mesh --relay 2 --epochs 1").contains("relay=2"));
    let args = "--recipe mesh --end spread --end-messages 7 --clip-norm 2.5 --lambda 0.5/n --epochs 1";
    let json = train(args);
    assert!(["end=spread messages=7", "clip_norm=2.5", "lambda=0.5/n"].iter().all(|words| json.contains(words)));
    let args = "--recipe hardsync --codec topk --pull threshold --pull-control band --pull-clip 9 --epochs 1";
    assert!(train(args).contains("pull_clip=9 pull_control=band"));
    let args = "--recipe averaging --optimizer keep --payload updates --topology servers --recipe-pace stale --merge sum --bound 1";
    assert!(train(&format!("{args} --staleness poly --power 0.25 --epochs 1")).contains("poly power=0.25"));
}

/// A run with each codec option learns and sends less than dense messages; a mesh ends with equal replicas.
#[test]
fn codecs_save_bytes_and_keep_replicas_equal() {
    for (args, most) in [
        ("--recipe mesh --density 0.01 --warmup 20 --ramp 40", 0.1),
        ("--recipe mesh --byte-budget 2000 --scope tensor", 0.05),
        ("--recipe mesh --control band --clip 0.9", 0.2),
        ("--recipe mesh --density 0.02 --starters 1 --head-start 30", 0.1),
        ("--recipe mesh --density 0.01 --relay 2 --decay 0.9", 0.1),
        ("--recipe sparse --density 0.03 --scope chunk --values two-means --residual-decay 0.95", 0.05),
        ("--recipe async --codec int8", 0.7),
        ("--recipe async --codec sign --pull bf16", 0.5),
        ("--recipe ring-int8", 0.4),
        ("--recipe sparse", 0.05),
        ("--recipe hardsync --codec bf16 --pull f16", 0.6),
        ("--recipe async --codec topk --density 0.02 --pull threshold --pull-density 0.05", 0.3),
    ] {
        let json = train(&format!("{args} --epochs 8"));
        let share = field(&json, "bytes_sent") / field(&json, "bytes_dense");
        assert!(share < most, "{args}: {share} of dense");
        assert!(field(&json, "accuracy") > 0.9, "{args}: {json}");
        assert_eq!(field(&json, "clipped") > 0.0, args.contains("clip"), "{args}: {json}");
        assert_eq!(field(&json, "forgotten") > 0.0, args.contains("residual-decay"), "{args}: {json}");
        assert!(!args.contains("mesh") || json.contains("\"replicas_equal\":true"), "{args}: {json}");
    }
}

#[track_caller]
fn refused(args: &str, code: i32, expected: &str) {
    let output = cluster(args);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{args}: {text}");
    assert!(text.contains(expected), "{args}: expected {expected:?} in {text:?}");
    assert!(output.stdout.is_empty(), "{args}");
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn bad_arguments_are_refused_by_name() {
    refused("--workers 0", 2, "0 is not in 1..=1024");
    refused("--workers abc", 2, "invalid value 'abc'");
    refused("--recipe asinc", 2, "(did you mean \"async\"?)");
    refused("--recip sync", 2, "'--recipe'");
    refused("--recipe averaging --period 0", 3, "period: expected at least 1, got 0");
    refused(
        "--recipe averaging --period 0s",
        3,
        "period: expected more than 0 s (period=1 synchronises at every step), got 0",
    );
    refused(
        "--recipe averaging --period 20m",
        2,
        "period: expected steps, a time as in 20s, examples as in 4096ex, or stages",
    );
    refused("--recipe ssp --period 20s", 3, "a period in seconds requires pace=synchronous or asynchronous: ");
    refused("--recipe ssp --bound -1", 2, "bound: expected a whole number, 0 or more, got \"-1\"");
    refused("--recipe softsync --updates 9", 3, "updates: expected at most the number of workers (4), got 9");
    refused("--recipe mesh --tau 0", 3, "tau: expected a power of two from 2^-110 to 2^110, got 0");
    refused("--recipe mesh --tau NaN", 3, "tau: expected a power of two from 2^-110 to 2^110, got NaN");
    refused("--recipe mesh --tau -0.5", 3, "tau: expected a power of two from 2^-110 to 2^110, got -0.5");
    refused("--recipe mesh --density 2", 3, "density: expected above 0 and at most 1, got 2");
    refused("--recipe mesh --byte-budget 3", 3, "budget: expected at least 64 bytes, got 3");
    refused("--recipe mesh --codec int8", 3, "topology=mesh pace=asynchronous requires codec=threshold");
    refused("--recipe sync --codec topk", 3, "topology=tree requires a codec other than threshold or topk");
    refused("--recipe sync --end send", 3, "end=send or spread requires a codec other than f32");
    refused("--recipe mesh --end never", 2, "--end: end: expected keep, send or spread, got \"never\"");
    refused(
        "--recipe mesh --end-messages 3",
        2,
        "\"messages\" is not a setting of this recipe, it requires end=spread",
    );
    refused("--recipe mesh --lambda 1/4", 2, "lambda: expected a number, or a number over n as in 1/n, got \"1/4\"");
    refused("--recipe mesh --clip-norm -1", 3, "clip_norm: expected a finite norm, 0 or more, got -1");
    refused("--recipe async --codec zip", 2, "expected f32, bf16, f16, int8, sign, threshold or topk, got \"zip\"");
    refused("--recipe mesh --decay 0", 2, "--decay: expected above 0 and at most 1, got 0");
    refused("--recipe mesh --tau 0.3", 3, "(the nearest below is 0.25)");
    refused("--recipe sync --bound 2", 2, "\"bound\" is not a setting of this recipe, it requires pace=stale");
    refused("--recipe mesh --servers 1", 3, "servers: expected 0 server nodes with this topology, got 1");
    refused("--recipe sync --servers 2", 3, "servers: expected 0 server nodes, or 1 for the coordinator, got 2");
    refused("--recipe async --servers 0", 3, "servers: expected at least 1 server node, got 0");
    refused("--slow-rank 9:2", 2, "expected R:FACTOR with R below 4");
    refused("--bad-rank 1:loud", 2, "expected R:flip, R:scale or R:random with R below 4");
    refused("--bad-rank 4:flip", 2, "expected R:flip, R:scale or R:random with R below 4");
    refused("--recipe hardsync --merge trimmed-mean --trim 2", 3, "trim: 2 requires at least 5 workers, got 4: ");
    refused("--recipe sync --merge median", 3, "merge=median requires topology=servers: ");
    refused("--recipe sync --merge medain", 2, "(did you mean \"median\"?)");
    refused("--rate 0", 2, "--rate: expected a finite number above 0, got 0");
    refused("--hidden 12,x", 2, "--hidden: expected sizes");
    refused("--epochs abc", 2, "invalid value 'abc' for '--epochs <N>': expected a whole number, 0 or more");
    refused("--epochs 0", 2, "invalid value '0' for '--epochs <N>': expected at least 1");
    refused("--seed -1", 2, "expected a whole number, 0 or more");
    refused("--rate abc", 2, "invalid value 'abc' for '--rate <RATE>': expected a number");
    refused("--recipe=", 2, "--recipe: expected the name of a recipe, got nothing");
    refused("--min-workers 9", 3, "--min-workers: expected at most the number of workers (4), got 9");
    refused("--export /nowhere/x", 6, "--export: expected a file that can be written, got /nowhere/x (");
    for wrong in ["abc", "127.0.0.1", "127.0.0.1:abc", "127.0.0.1:65536"] {
        let expected = format!("expected HOST:PORT, got \"{wrong}\"");
        refused(&format!("--monitor {wrong}"), 2, &format!("--monitor: {expected}"));
        refused(&format!("--metrics {wrong}"), 2, &format!("--metrics: {expected}"));
    }
}

#[test]
fn a_bad_data_file_is_refused_by_name() {
    let dir = std::env::temp_dir().join(format!("gradwire-data-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let images = |count: u32, pixels: usize| {
        let mut bytes = [0x0803u32, count, 2, 2].map(u32::to_be_bytes).concat();
        bytes.resize(bytes.len() + pixels, 7);
        bytes
    };
    let labels = |count: u32, label: u8| {
        let mut bytes = [0x0801u32, count].map(u32::to_be_bytes).concat();
        bytes.resize(bytes.len() + count as usize, label);
        bytes
    };
    let write = |images: &[u8], labels: &[u8]| {
        std::fs::write(dir.join("train-images-idx3-ubyte"), images).unwrap();
        std::fs::write(dir.join("train-labels-idx1-ubyte"), labels).unwrap();
    };
    let args = format!("--data {}", dir.display());
    refused(&format!("--data {}/none", dir.display()), 6, "No such file or directory");
    refused(
        &args,
        6,
        "expected files with names such as train-images-idx3-ubyte and train-labels-idx1-ubyte, found no",
    );
    write(&images(60, 239), &labels(60, 1));
    refused(&args, 6, "train-images-idx3-ubyte: expected 256 bytes, got 255");
    write(&[0x12, 0x34], &labels(60, 1));
    refused(&args, 6, "expected 16 bytes, got 2");
    write(&labels(60, 1), &labels(60, 1));
    refused(&args, 6, "expected an IDX file with magic 0x00000803, got 0x00000801");
    write(&images(60, 240), &labels(61, 1));
    refused(&args, 6, "expected as many labels as images (60), got 61");
    write(&images(60, 240), &labels(60, 10));
    refused(&args, 6, "train-labels-idx1-ubyte: expected at least 2 different labels, got only 10");
    write(&[0x1f, 0x8b, 8, 0], &labels(60, 1));
    refused(&args, 6, "train-images-idx3-ubyte is compressed: gunzip it");
    write(&images(u32::MAX, 240), &labels(60, 1));
    refused(&args, 6, "got 256");
    std::fs::remove_dir_all(&dir).unwrap();
}

/// The number of classes follows the labels: letters have 1 to 26.
#[test]
fn letters_are_learned() {
    let dir = std::env::temp_dir().join(format!("gradwire-letters-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let label = |i: u32| (i % 26 + 1) as u8;
    // A column of the image for each letter.
    let pixels = (0..520u32).flat_map(|i| (0..26).map(move |column| 255 * u8::from(column + 1 == label(i))));
    let images = [0x0803u32, 520, 2, 13].into_iter().flat_map(u32::to_be_bytes).chain(pixels);
    let labels = [0x0801u32, 520].into_iter().flat_map(u32::to_be_bytes).chain((0..520).map(label));
    std::fs::write(dir.join("emnist-letters-train-images.idx3-ubyte"), images.collect::<Vec<_>>()).unwrap();
    std::fs::write(dir.join("emnist-letters-train-labels.idx1-ubyte"), labels.collect::<Vec<_>>()).unwrap();
    let args = format!("--data {} --hidden 32 --recipe sync --epochs 40 --workers 2", dir.display());
    assert_eq!(field(&train(&args), "accuracy"), 1.0);
    let text = String::from_utf8(cluster(&args).stdout).unwrap();
    assert!(text.contains(", 26 classes (labels 1 to 26), from "), "{text}");
    std::fs::remove_dir_all(&dir).unwrap();
}
