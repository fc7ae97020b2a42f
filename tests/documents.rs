//! Numbers and lists in SECURITY.md and the guide agree with the code.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A document, with one space between words.
fn document(name: &str) -> String {
    read(name).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The value of a constant, as its source text says: a product, a shift, or a duration in seconds.
fn constant(file: &str, name: &str) -> u64 {
    let text = read(file);
    let (_, rest) = text.split_once(&format!("const {name}: ")).unwrap_or_else(|| panic!("no {name} in {file}"));
    let (_, value) = rest[..rest.find(';').unwrap()].split_once(" = ").unwrap();
    let value = value.strip_prefix("Duration::from_secs(").and_then(|it| it.strip_suffix(')')).unwrap_or(value);
    let number = |text: &str| {
        let result = text.trim().replace('_', "").parse::<u64>();
        result.unwrap_or_else(|_| panic!("{name} in {file}: expected a number, got {value:?}"))
    };
    match value.split_once("<<") {
        Some((left, right)) => number(left) << number(right),
        None => value.split('*').map(number).product(),
    }
}

fn plain(value: u64) -> String {
    value.to_string()
}

/// With a comma for thousands.
fn long(value: u64) -> String {
    if value < 1000 { plain(value) } else { format!("{},{:03}", long(value / 1000), value % 1000) }
}

fn kib(value: u64) -> String {
    assert_eq!(value % 1024, 0);
    plain(value / 1024)
}

fn exponent(value: u64) -> String {
    assert!(value.is_power_of_two());
    plain(value.ilog2().into())
}

/// A sentence with `#` in the place of a number, and the constant that it states: file, name, and form of the number.
type Row<'a> = (&'a str, &'a str, &'a str, fn(u64) -> String);

#[test]
fn numbers_are_those_of_the_code() {
    let stream = |file: &str| format!("transports/stream/src/{file}");
    let (streams, strangers, preamble, control) =
        (stream("streams.rs"), stream("strangers.rs"), stream("preamble.rs"), stream("control.rs"));
    let noise = "transports/tcp/src/noise.rs";
    let (network, serving) = ("src/monitor/network.rs", "src/monitor/serving.rs");
    let security: &[Row<'_>] = &[
        ("Records have at most # bytes", noise, "RECORD_MAX", long),
        ("session keys change every 2^# records", noise, "REKEY_EVERY", exponent),
        ("**Unauthenticated connections** are limited to #,", &strangers, "STRANGERS_MAX", plain),
        ("and each to # seconds and", &streams, "GREETING_MAX", plain),
        ("seconds and # bytes of greeting", &preamble, "PREAMBLE_LEN", plain),
        ("A monitor sends # bytes:", network, "SUBSCRIPTION", plain),
        ("(at most # updates a second)", network, "RATE_MAX", plain),
        ("At most # monitors are served", network, "MONITORS_MAX", plain),
        ("nothing can be sent for # s is disconnected", network, "PATIENCE", plain),
        ("at most # clients that have not proved anything", serving, "UNPROVEN_MAX", plain),
        ("and # s for a whole greeting or request", network, "PATIENCE", plain),
        ("request, which has at most # bytes.", "src/monitor/metrics.rs", "REQUEST_MAX", long),
        ("| greeting | # bytes,", &preamble, "PREAMBLE_LEN", plain),
        ("bytes, # s, ", &streams, "GREETING_MAX", plain),
        (" s, # at a time |", &strangers, "STRANGERS_MAX", plain),
        ("| control frame; list of addresses | # bytes;", "core/src/wire/header.rs", "HEADER_LEN", plain),
        ("bytes; # KiB |", &control, "BOOK_MAX", kib),
        ("| text of the contract | # KiB;", "core/src/wire/kind.rs", "CONTRACT_LEN_MAX", kib),
        ("printed up to # characters", "core/src/machine/contract.rs", "NOTE_MAX", plain),
        ("| messages waiting for one peer | # headers;", &streams, "QUEUE_MAX", long),
        (
            "| messages of a view that is not committed yet | # headers |",
            "core/src/machine/views/member.rs",
            "EARLY_MAX",
            long,
        ),
        ("for a place or a turn | # headers per peer", "core/src/machine/hub/mod.rs", "HELD_MAX", plain),
    ];
    let guide: &[Row<'_>] = &[("the run waits for `--dead-after` (# s)", &streams, "DEAD_AFTER", plain)];
    for (name, rows) in [("SECURITY.md", security), ("src/guide/broken.md", guide)] {
        let text = document(name);
        for (sentence, file, constant_name, form) in rows {
            let expected = sentence.replace('#', &form(constant(file, constant_name)));
            assert!(text.contains(&expected), "{name}: expected \"{expected}\", since {constant_name} in {file}");
        }
    }
}

/// All files of Rust below a directory, relative to the root.
fn sources(directory: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() && !["target", ".git"].iter().any(|name| path.ends_with(name)) {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// SECURITY.md names each file with unsafe code, and each package denies it elsewhere.
#[test]
fn unsafe_code_is_where_the_document_says() {
    let (text, root) = (document("SECURITY.md"), Path::new(env!("CARGO_MANIFEST_DIR")));
    let mut files = Vec::new();
    sources(root, &mut files);
    let is_unsafe = |line: &str| {
        let code = line.split("//").next().unwrap_or_default();
        ["{", "fn", "impl"].iter().any(|what| code.contains(&["unsafe", what].join(" ")))
    };
    let mut found = Vec::new();
    for file in files.iter().filter(|file| read(file).lines().any(is_unsafe)) {
        found.push(file.strip_prefix(root).unwrap().display().to_string());
    }
    found.sort();
    assert_eq!(
        found,
        [
            "examples/common/children/spawn.rs",
            "tests/allocation.rs",
            "transports/shm/src/attach.rs",
            "transports/shm/src/ring.rs"
        ]
    );
    for file in found {
        assert!(text.contains(&format!("`{file}`")), "SECURITY.md: expected `{file}`, which has unsafe code");
    }
    let workspace = read("Cargo.toml");
    assert!(workspace.contains("\nunsafe_code = \"deny\"\n"));
    let (_, members) = workspace.split_once("members = [").unwrap();
    let members = members[..members.find(']').unwrap()].split('"').skip(1).step_by(2);
    let mut count = 0;
    for member in members.chain(["."]) {
        let directories: Vec<PathBuf> = match member.strip_suffix("/*") {
            Some(parent) => std::fs::read_dir(root.join(parent)).unwrap().map(|entry| entry.unwrap().path()).collect(),
            None => vec![root.join(member)],
        };
        for manifest in directories.iter().map(|directory| directory.join("Cargo.toml")) {
            assert!(read(&manifest).contains("[lints]\nworkspace = true"), "{}", manifest.display());
            count += 1;
        }
    }
    assert!(count >= 10, "{count} packages");
}
