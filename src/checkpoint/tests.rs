use super::*;

fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("gradwire-checkpoint-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

fn checkpoint(clock: u64) -> Checkpoint {
    let vectors = vec![vec![1.0, -0.0, f32::MIN_POSITIVE, 3.5], vec![0.25; 4]];
    let saved = vec![vec![5, 6, 7], vec![], vec![8]];
    Checkpoint { digest: 7, rank: 2, clock, steps: 10 * clock, contributions: 9 * clock, vectors, saved }
}

/// Version 2 of the format: other programs, and older builds, read these offsets.
#[test]
fn the_layout_of_a_file_is_fixed() {
    let bytes = checkpoint(3).emit();
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    assert_eq!(&bytes[..8], b"GRWCKPT\x02");
    // digest; rank and vectors; clock; steps; length; contributions; saved; their lengths
    let header = [8, 16, 24, 32, 40, 48, 56, 64, 72, 80].map(number);
    assert_eq!(header, [7, 2 | 2 << 32, 3, 30, 4, 27, 3, 3, 0, 1]);
    assert_eq!(bytes[88..92], 1.0f32.to_le_bytes());
    assert_eq!(bytes[88 + 32..][..16], [5u32, 6, 7, 8].map(u32::to_le_bytes).concat());
    assert_eq!(bytes.len(), 88 + 32 + 16 + 32);
    assert_eq!(bytes[bytes.len() - 32..], checksum(&bytes[..bytes.len() - 32]));
    assert_eq!(Checkpoint::parse(&bytes), Ok(checkpoint(3)));
}

#[test]
fn the_newest_is_read_and_three_are_kept() {
    let directory = scratch("newest");
    (1..=5).for_each(|clock| drop(checkpoint(clock).write(&directory).unwrap()));
    assert_eq!(Checkpoint::newest(&directory, 2).unwrap().0, checkpoint(5));
    assert_eq!(files(&own_directory(&directory, 2)).len(), KEPT);
    assert!(matches!(Checkpoint::newest(&directory, 1), Err(CheckpointError::None { .. })));
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
    let (fallback, errors) = Checkpoint::newest(&directory, 2).unwrap();
    assert_eq!((fallback, errors.len()), (checkpoint(1), 1));
}

#[test]
fn impossible_lengths_are_refused_before_allocation() {
    let directory = scratch("absurd");
    let path = checkpoint(1).write(&directory).unwrap();
    let whole = fs::read(&path).unwrap();
    for len in [u64::MAX, 1 << 63, 1 << 40] {
        let mut bad = whole.clone();
        for at in [40, 56, 64, 72] {
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
    assert!(error.starts_with("checkpoint /proc/nowhere/rank-2/000000000001.gwck: "), "{error}");
}

#[test]
fn a_checkpoint_of_another_node_is_refused() {
    let directory = scratch("identity");
    checkpoint(1).write(&directory).unwrap();
    let load = |digest, rank, vectors, len| {
        LoadedCheckpoint::load(&directory, NodeIdentity { digest, rank: PeerId(rank) }, vectors, len)
    };
    assert_eq!(load(7, 2, 2, 4).unwrap().checkpoint, checkpoint(1));
    assert!(matches!(load(8, 2, 2, 4), Err(CheckpointError::Contract { expected: 8, got: 7, .. })));
    assert!(matches!(load(7, 2, 1, 4), Err(CheckpointError::Vectors { expected: 1, got: 2, .. })));
    assert!(matches!(load(7, 2, 2, 5), Err(CheckpointError::Vectors { .. })));
    fs::rename(own_directory(&directory, 2), own_directory(&directory, 3)).unwrap();
    assert!(matches!(load(7, 3, 2, 4), Err(CheckpointError::Rank { expected: 3, got: 2, .. })));
}
