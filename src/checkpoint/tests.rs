use super::store::own_directory;
use super::*;

fn files(own: &Path) -> Vec<PathBuf> {
    store::files(&System, own)
}

fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("gradwire-checkpoint-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

fn run(name: &str) -> RunId {
    name.parse().unwrap()
}

fn of_run(name: &str, clock: u64) -> Checkpoint {
    Checkpoint { run: run(name), ..checkpoint(clock) }
}

fn checkpoint(clock: u64) -> Checkpoint {
    let vectors = vec![vec![1.0, -0.0, f32::MIN_POSITIVE, 3.5], vec![0.25; 4]];
    let saved = vec![vec![5, 6, 7], vec![], vec![8]];
    let (steps, contributions, written) = (10 * clock, 9 * clock, 1000 + clock);
    Checkpoint { run: run("r"), digest: 7, rank: 2, clock, steps, contributions, written, vectors, saved }
}

/// Version 3 of the format: other programs, and older builds, read these offsets.
#[test]
fn the_layout_of_a_file_is_fixed() {
    let bytes = checkpoint(3).emit();
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    assert_eq!(&bytes[..8], b"GRWCKPT\x03");
    // digest; rank and vectors; clock; steps; length; contributions; saved; written; lengths of the buffers
    let header = [8, 16, 24, 32, 40, 48, 56, 128, 136, 144, 152].map(number);
    assert_eq!(header, [7, 2 | 2 << 32, 3, 30, 4, 27, 3, 1003, 3, 0, 1]);
    assert_eq!(bytes[64..66], *b"r\0");
    assert_eq!(bytes[160..164], 1.0f32.to_le_bytes());
    assert_eq!(bytes[160 + 32..][..16], [5u32, 6, 7, 8].map(u32::to_le_bytes).concat());
    assert_eq!(bytes.len(), 160 + 32 + 16 + 32);
    assert_eq!(bytes[bytes.len() - 32..], checksum(&bytes[..bytes.len() - 32]));
    assert_eq!(Checkpoint::parse(&bytes), Ok(checkpoint(3)));
}

#[test]
fn the_newest_is_read_and_three_are_kept() {
    let directory = scratch("newest");
    (1..=5).for_each(|clock| drop(checkpoint(clock).write(&directory).unwrap()));
    assert_eq!(Checkpoint::newest(&directory, run("r"), 2).unwrap().0, checkpoint(5));
    assert_eq!(files(&own_directory(&directory, run("r"), 2)).len(), KEPT);
    assert!(matches!(Checkpoint::newest(&directory, run("r"), 1), Err(CheckpointError::None { .. })));
}

/// Every truncation and every flipped bit is detected, and the checkpoint before is read instead.
#[test]
fn a_damaged_file_is_passed_over() {
    let directory = scratch("damage");
    checkpoint(1).write(&directory).unwrap();
    let path = checkpoint(2).write(&directory).unwrap();
    let whole = fs::read(&path).unwrap();
    for len in 0..whole.len() {
        fs::write(&path, &whole[..len]).unwrap();
        assert!(Checkpoint::read(&path).is_err(), "{len}");
    }
    for bit in 0..whole.len() * 8 {
        let mut bad = whole.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &bad).unwrap();
        assert!(Checkpoint::read(&path).is_err(), "bit {bit}");
    }
    let (fallback, errors) = Checkpoint::newest(&directory, run("r"), 2).unwrap();
    assert_eq!((fallback, errors.len()), (checkpoint(1), 1));
}

/// The same for a file that is read in pieces: before its moment is offered, and when it is loaded.
#[test]
fn a_large_file_that_is_damaged_anywhere_is_not_offered() {
    const LARGE: usize = 400_000;
    let directory = scratch("large");
    let large = |clock| Checkpoint { vectors: vec![vec![0.5; LARGE]; 2], ..checkpoint(clock) };
    large(1).write(&directory).unwrap();
    let path = large(2).write(&directory).unwrap();
    let whole = fs::read(&path).unwrap();
    let identity = NodeIdentity { digest: 7, rank: PeerId(2) };
    let moments = || {
        let found = Candidates::find(&directory, Some(run("r")), identity, 2, LARGE, &NoticeCallback::default());
        found.unwrap().unwrap().moments().map(|(clock, _)| clock).collect::<Vec<_>>()
    };
    assert_eq!(moments(), [2, 1]);
    for at in [HEADER + 30, 1 << 20, whole.len() / 2, whole.len() - CHECKSUM - 1, whole.len() - 1] {
        let mut bad = whole.clone();
        bad[at] ^= 1;
        fs::write(&path, &bad).unwrap();
        assert_eq!((moments(), Checkpoint::read(&path).is_err()), (vec![1], true), "byte {at}");
    }
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn impossible_lengths_are_refused_before_allocation() {
    let directory = scratch("absurd");
    let path = checkpoint(1).write(&directory).unwrap();
    let whole = fs::read(&path).unwrap();
    for len in [u64::MAX, 1 << 63, 1 << 40] {
        let mut bad = whole.clone();
        for at in [40, 56, 136, 144] {
            bad[at..at + 8].copy_from_slice(&len.to_le_bytes());
            fs::write(&path, &bad).unwrap();
            let error = Checkpoint::read(&path).unwrap_err();
            assert!(matches!(error, CheckpointError::Damaged { what: Damage::Length { .. }, .. }), "{error}");
        }
    }
}

#[test]
fn only_regular_files_are_read() {
    let directory = scratch("kinds");
    let path = directory.join("rank-0").join("1.gwck");
    fs::create_dir_all(&path).unwrap();
    let error = Checkpoint::read(&path).unwrap_err().to_string();
    assert!(error.ends_with("expected a regular file, got another kind of file"), "{error}");
    let target = checkpoint(1).write(&directory).unwrap();
    let link = directory.join("link.gwck");
    std::os::unix::fs::symlink(target, &link).unwrap();
    assert!(Checkpoint::read(&link).is_err());
    let error = checkpoint(1).write(&PathBuf::from("/proc/nowhere")).unwrap_err().to_string();
    assert!(error.starts_with("checkpoint /proc/nowhere/r/rank-2/000000000001.gwck: "), "{error}");
}

fn find(directory: &Path, of: Option<&str>) -> Result<Option<Candidates>, CheckpointError> {
    let identity = NodeIdentity { digest: 7, rank: PeerId(2) };
    Candidates::find(directory, of.map(run), identity, 2, 4, &NoticeCallback::default())
}

#[test]
fn a_checkpoint_of_another_node_is_refused() {
    let directory = scratch("identity");
    checkpoint(1).write(&directory).unwrap();
    let find = |name, digest, rank, vectors, len| {
        let identity = NodeIdentity { digest, rank: PeerId(rank) };
        Candidates::find(&directory, Some(run(name)), identity, vectors, len, &NoticeCallback::default())
    };
    assert_eq!(find("r", 7, 2, 2, 4).unwrap().unwrap().load(1).unwrap().checkpoint, checkpoint(1));
    assert!(matches!(find("r", 8, 2, 2, 4), Err(CheckpointError::Contract { expected: 8, got: 7, .. })));
    assert!(matches!(find("r", 7, 2, 1, 4), Err(CheckpointError::Vectors { expected: 1, got: 2, .. })));
    assert!(matches!(find("r", 7, 2, 2, 5), Err(CheckpointError::Vectors { .. })));
    fs::rename(own_directory(&directory, run("r"), 2), own_directory(&directory, run("r"), 3)).unwrap();
    assert!(matches!(find("r", 7, 3, 2, 4), Err(CheckpointError::Rank { expected: 3, got: 2, .. })));
    fs::rename(directory.join("r"), directory.join("s")).unwrap();
    assert!(matches!(find("s", 7, 3, 2, 4), Err(CheckpointError::Run { .. })));
}

/// A new run beside an older and longer one keeps its own files, and touches no file of the other run.
#[test]
fn runs_do_not_touch_each_others_files() {
    let directory = scratch("runs");
    (100..=103).for_each(|clock| drop(of_run("old", clock).write(&directory).unwrap()));
    for clock in 1..=5 {
        let path = of_run("new", clock).write(&directory).unwrap();
        assert!(path.exists());
    }
    let clocks = |name| find(&directory, Some(name)).unwrap().unwrap().moments().map(|(c, _)| c).collect::<Vec<_>>();
    assert_eq!(clocks("old"), [103, 102, 101]);
    assert_eq!(clocks("new"), [5, 4, 3]);
    assert_eq!(clocks("never"), []);
}

/// Without a name, the run that was written last is taken, by any rank and at any clock.
#[test]
fn the_run_that_was_written_last_is_found() {
    let directory = scratch("last");
    assert_eq!(newest_run(&directory), None);
    assert!(find(&directory, None).unwrap().is_none());
    Checkpoint { written: 50, ..of_run("a", 90) }.write(&directory).unwrap();
    Checkpoint { written: 70, rank: 0, ..of_run("b", 3) }.write(&directory).unwrap();
    // This rank was suspended long before the other.
    Checkpoint { written: 10, ..of_run("b", 2) }.write(&directory).unwrap();
    Checkpoint { written: 60, ..of_run("c", 80) }.write(&directory).unwrap();
    fs::create_dir_all(directory.join("not a run").join("rank-0")).unwrap();
    assert_eq!(newest_run(&directory), Some((run("b"), vec![run("c"), run("a")])));
    assert_eq!(find(&directory, None).unwrap().unwrap().run, run("b"));
    assert!(has_run(&directory, run("c")) && !has_run(&directory, run("d")));
}

/// A notice names each damaged file and the checkpoint that is taken instead. Half-written files are gone after a
/// start.
#[test]
fn what_is_skipped_is_told_and_leftovers_are_removed() {
    let directory = scratch("told");
    (1..=3).for_each(|clock| drop(checkpoint(clock).write(&directory).unwrap()));
    let own = own_directory(&directory, run("r"), 2);
    let newest = own.join("000000000003.gwck");
    fs::write(&newest, b"short").unwrap();
    let part = own.join(".000000000004.77.part");
    fs::write(&part, b"half").unwrap();
    let told = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let into = std::sync::Arc::clone(&told);
    let notices = NoticeCallback::new(move |notice| into.lock().unwrap().push(notice.to_string()));
    let identity = NodeIdentity { digest: 7, rank: PeerId(2) };
    let found = Candidates::find(&directory, None, identity, 2, 4, &notices).unwrap().unwrap();
    assert_eq!(found.moments().collect::<Vec<_>>(), [(2, 18), (1, 9)]);
    assert!(!part.exists());
    let expected = format!("checkpoint {}: expected 168 bytes, got 5; the one of moment 2 is intact", newest.display());
    assert_eq!(*told.lock().unwrap(), [expected]);
}

/// Checkpoints of moments that the run has not kept are set aside, and removed when there are enough other ones.
#[test]
fn moments_after_the_one_that_was_resumed_are_set_aside() {
    let directory = scratch("aside");
    (1..=3).for_each(|clock| drop(checkpoint(clock).write(&directory).unwrap()));
    let found = find(&directory, None).unwrap().unwrap();
    found.go_on_from(1, true);
    let moments = || find(&directory, None).unwrap().unwrap().moments().map(|(clock, _)| clock).collect::<Vec<_>>();
    let stale = || fs::read_dir(own_directory(&directory, run("r"), 2)).unwrap().count() - moments().len();
    assert_eq!((moments(), stale()), (vec![1], 2));
    checkpoint(2).write(&directory).unwrap();
    assert_eq!((moments(), stale()), (vec![2, 1], 2));
    checkpoint(3).write(&directory).unwrap();
    assert_eq!((moments(), stale()), (vec![3, 2, 1], 0));
}

/// On a full file system, older checkpoints make room, but the newest one stays. Needs a small file system of its own.
#[test]
fn older_files_make_room_on_a_full_disk() {
    let directory = scratch("full");
    let mount = |args: &[&str]| std::process::Command::new("mount").args(args).status().is_ok_and(|it| it.success());
    let path = directory.to_str().unwrap();
    if !mount(&["-t", "tmpfs", "-o", "size=256k", "tmpfs", path]) {
        println!("skipped: no permission to mount a small file system");
        return;
    }
    let large = |clock| Checkpoint { vectors: vec![vec![0.5; 20_000]], ..checkpoint(clock) };
    let own = own_directory(&directory, run("r"), 2);
    let left = |clock: u64| {
        let result = large(clock).write(&directory).map_err(|error| error.to_string());
        (result.is_ok(), files(&own).len(), fs::read_dir(&own).unwrap().count())
    };
    // 80 kB each: three do not fit beside a fourth.
    let kept: Vec<_> = (1..=6).map(left).collect();
    let filler = directory.join("filler");
    let room = fs::write(&filler, vec![1; 300_000]).is_err();
    let squeezed = left(7);
    let _ = fs::remove_file(&filler);
    assert!(std::process::Command::new("umount").arg(path).status().unwrap().success());
    assert!(kept.iter().all(|(ok, files, all)| *ok && (1..=3).contains(files) && files == all), "{kept:?}");
    assert!(room && squeezed.1 >= 1 && squeezed.1 == squeezed.2, "{squeezed:?}");
}
