//! Runs every target over the seeds in `corpus/` and over random mutations of its seeds.
//!
//! `GRADWIRE_FUZZ` sets the number of mutations per target (default 20,000); `GRADWIRE_FUZZ_TARGET` selects one target.

use super::*;

/// Changes the input at one to four random places: cuts, inserts, replaces, repeats or flips bits.
fn mutate(data: &mut Vec<u8>, next: &mut impl FnMut() -> u64) {
    for _ in 0..=next() % 4 {
        let at = next() as usize % data.len().max(1);
        match next() % 6 {
            0 => data.truncate(at),
            1 => data.insert(at.min(data.len()), next() as u8),
            2 if !data.is_empty() => data[at] = [0, 1, 0x7f, 0x80, 0xff][next() as usize % 5],
            3 if !data.is_empty() => {
                let piece = data[at..(at + 4).min(data.len())].to_vec();
                data.extend(piece);
            }
            _ if !data.is_empty() => data[at] ^= 1 << (next() % 8),
            _ => data.push(next() as u8),
        }
    }
}

/// All inputs in `corpus/`, which contains the seeds for `cargo fuzz`. `GRADWIRE_WRITE_CORPUS=1` writes the seeds
/// there.
#[test]
fn targets_hold_for_the_committed_corpus() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target, seeds) in targets() {
        let dir = root.join(name);
        if std::env::var_os("GRADWIRE_WRITE_CORPUS").is_some() {
            std::fs::create_dir_all(&dir).unwrap();
            for (i, seed) in seeds().iter().enumerate() {
                std::fs::write(dir.join(format!("seed-{i}")), seed).unwrap();
            }
        }
        let files: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(
            files.len() >= seeds().len(),
            "{name}: expected at least as many inputs in {} as the target has seeds",
            dir.display()
        );
        // A decoder that expects another length refuses an old seed before it reads it. Times in reports have no fixed
        // length.
        for (i, seed) in seeds().iter().enumerate().filter(|_| *name != "telemetry") {
            let len = std::fs::metadata(dir.join(format!("seed-{i}"))).map_or(0, |file| file.len());
            assert_eq!(len, seed.len() as u64, "{name}: seed {i} is out of date: run with GRADWIRE_WRITE_CORPUS=1");
        }
        files.iter().for_each(|file| target(&std::fs::read(file).unwrap()));
    }
}

#[test]
fn targets_hold_for_mutations_of_the_seeds() {
    let runs: u64 = std::env::var("GRADWIRE_FUZZ").ok().and_then(|runs| runs.parse().ok()).unwrap_or(20_000);
    let only = std::env::var("GRADWIRE_FUZZ_TARGET").ok();
    for (name, target, seeds) in targets().filter(|(name, ..)| only.as_deref().is_none_or(|only| only == *name)) {
        let seeds = seeds();
        let mut state = 0x2545_f491_4f6c_dd1du64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state >> 11
        };
        for _ in 0..runs {
            let mut data = seeds[next() as usize % seeds.len()].clone();
            mutate(&mut data, &mut next);
            target(&data);
        }
        println!("{name}: {runs} runs");
    }
}

/// `cargo fuzz` can run every target, and SECURITY.md says how many there are.
#[test]
fn targets_are_programs_and_are_counted() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let manifest = read("Cargo.toml");
    for (name, ..) in targets() {
        assert!(manifest.contains(&format!("name = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"\n")), "{name}");
        assert!(read(&format!("fuzz_targets/{name}.rs")).contains(&format!("run(\"{name}\", data)")), "{name}");
    }
    let count = targets().count();
    assert_eq!(manifest.matches("[[bin]]").count(), count);
    assert!(read("../SECURITY.md").contains(&format!("**Fuzzing**: {count} targets")), "expected {count} targets");
}
