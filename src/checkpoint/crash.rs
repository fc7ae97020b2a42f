//! Durability: checkpoints on a model of the disk, which can lose unsynchronised changes at a crash.
//!
//! The model keeps two states apart: the state that a program sees, and the state on the disk. At a crash, each name
//! that has been added, removed or renamed since its directory was synchronised is there or not, in any combination. Of
//! each piece that has been written since its file was synchronised, all, a part or nothing is there, in any
//! combination. A renaming takes place as a whole or not at all.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard};

use super::disk::{Disk, DiskFile};
use super::*;

/// A file, by its number.
type Inode = usize;

/// The state that the program sees, and the changes that have yet to reach the disk.
#[derive(Clone, Debug, Default)]
struct State {
    files: Vec<Contents>,
    /// By path; the parent of a directory is another one.
    directories: BTreeMap<PathBuf, Directory>,
    /// Bytes that files may take, if the disk is small.
    room: Option<usize>,
    /// No directory can be synchronised.
    unsyncable: bool,
}

#[derive(Clone, Debug, Default)]
struct Contents {
    /// The bytes on the disk.
    synced: Vec<u8>,
    /// Pieces that were written after the last synchronisation.
    pieces: Vec<Vec<u8>>,
}

#[derive(Clone, Debug, Default)]
struct Directory {
    /// The entries on the disk.
    synced: BTreeMap<PathBuf, Entry>,
    seen: BTreeMap<PathBuf, Entry>,
    /// Changes after the last synchronisation.
    changes: Vec<Change>,
}

#[derive(Copy, Clone, Debug, PartialEq)]
enum Entry {
    File(Inode),
    Directory,
}

#[derive(Clone, Debug)]
enum Change {
    Add(PathBuf, Entry),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf, Entry),
}

impl Directory {
    fn apply(entries: &mut BTreeMap<PathBuf, Entry>, change: &Change) {
        match change {
            Change::Add(path, entry) => drop(entries.insert(path.clone(), *entry)),
            Change::Remove(path) => drop(entries.remove(path)),
            Change::Rename(from, to, entry) => {
                entries.remove(from);
                entries.insert(to.clone(), *entry);
            }
        }
    }

    fn change(&mut self, change: Change) {
        Self::apply(&mut self.seen, &change);
        self.changes.push(change);
    }
}

/// The disk. Keeps its state after each operation.
#[derive(Debug)]
struct Model {
    now: Mutex<State>,
    history: Mutex<Vec<State>>,
    /// The operation that fails, counted from 0, and how.
    fault: Mutex<Option<(usize, io::ErrorKind)>>,
}

impl Model {
    /// An empty disk with the root `/`. It lives as long as the tests.
    fn new() -> &'static Self {
        let root = (PathBuf::from("/"), Directory::default());
        let state = State { directories: BTreeMap::from([root]), ..State::default() };
        Box::leak(Box::new(Self { now: Mutex::new(state), history: Mutex::default(), fault: Mutex::default() }))
    }

    fn now(&self) -> MutexGuard<'_, State> {
        self.now.lock().unwrap()
    }

    fn operations(&self) -> usize {
        self.history.lock().unwrap().len()
    }

    /// Runs an operation, which fails if the planned fault has its number.
    fn run<R>(&self, operation: impl FnOnce(&mut State) -> io::Result<R>) -> io::Result<R> {
        let number = self.operations();
        let mut state = self.now();
        let fault = self.fault.lock().unwrap().filter(|(at, _)| *at == number);
        let result = fault.map_or_else(|| operation(&mut state), |(_, kind)| Err(kind.into()));
        self.history.lock().unwrap().push(state.clone());
        result
    }
}

impl State {
    fn parent(&mut self, path: &Path) -> io::Result<&mut Directory> {
        self.directories.get_mut(path.parent().unwrap()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn used(&self) -> usize {
        let named = self.directories.values().flat_map(|directory| directory.seen.values());
        let len = |entry: &Entry| match entry {
            Entry::File(inode) => self.files[*inode].seen().len(),
            Entry::Directory => 0,
        };
        named.map(len).sum()
    }
}

impl Contents {
    fn seen(&self) -> Vec<u8> {
        [&self.synced[..], &self.pieces.concat()].concat()
    }
}

impl Disk for &'static Model {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.run(|state| {
            state.parent(path)?.change(Change::Add(path.to_path_buf(), Entry::Directory));
            state.directories.insert(path.to_path_buf(), Directory::default());
            Ok(())
        })
    }

    fn is_directory(&self, path: &Path) -> bool {
        self.now().directories.contains_key(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.run(|state| {
            let inode = state.files.len();
            let parent = state.parent(path)?;
            if parent.seen.contains_key(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            parent.change(Change::Add(path.to_path_buf(), Entry::File(inode)));
            state.files.push(Contents::default());
            Ok(Box::new(Open(self, inode)) as Box<dyn DiskFile>)
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.run(|state| {
            let parent = state.parent(from)?;
            let entry = *parent.seen.get(from).ok_or(io::ErrorKind::NotFound)?;
            parent.change(Change::Rename(from.to_path_buf(), to.to_path_buf(), entry));
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.run(|state| {
            let parent = state.parent(path)?;
            parent.seen.get(path).ok_or(io::ErrorKind::NotFound)?;
            parent.change(Change::Remove(path.to_path_buf()));
            Ok(())
        })
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.run(|state| {
            if state.unsyncable {
                return Err(io::ErrorKind::Other.into());
            }
            let directory = state.directories.get_mut(path).ok_or(io::ErrorKind::NotFound)?;
            directory.synced = directory.seen.clone();
            directory.changes.clear();
            Ok(())
        })
    }

    fn list(&self, directory: &Path) -> Vec<PathBuf> {
        self.now().directories.get(directory).map(|found| found.seen.keys().cloned().collect()).unwrap_or_default()
    }
}

struct Open(&'static Model, Inode);

impl Write for Open {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.run(|state| {
            if state.room.is_some_and(|room| state.used() + bytes.len() > room) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.files[self.1].pieces.push(bytes.to_vec());
            Ok(bytes.len())
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for Open {
    fn sync(&mut self) -> io::Result<()> {
        self.0.run(|state| {
            let file = &mut state.files[self.1];
            file.synced = file.seen();
            file.pieces.clear();
            Ok(())
        })
    }
}

/// A generator of the crashes' outcomes.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) as usize % limit
    }
}

impl State {
    /// The files after a crash, one of the possible outcomes. A directory that is lost takes its files along.
    fn crash(&self, random: &mut Random) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        // Half of the outcomes keep or lose all changes of names, since these outcomes are the likely ones.
        let share = [0, 1, 1, 2][random.below(4)];
        let survives = |random: &mut Random| [false, random.below(2) == 1, true][share];
        let mut open = vec![PathBuf::from("/")];
        while let Some(path) = open.pop() {
            let directory = &self.directories[&path];
            let mut entries = directory.synced.clone();
            for change in directory.changes.iter().filter(|_| survives(random)) {
                Directory::apply(&mut entries, change);
            }
            for (path, entry) in entries {
                match entry {
                    Entry::Directory => open.push(path),
                    Entry::File(inode) => drop(files.insert(path, self.files[inode].crash(random))),
                }
            }
        }
        files
    }
}

impl Contents {
    fn crash(&self, random: &mut Random) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        for piece in &self.pieces {
            let kept = [0, piece.len(), random.below(piece.len() + 1)][random.below(3)];
            bytes.extend(&piece[..kept]);
            // The length can be on the disk before the contents.
            bytes.resize(bytes.len() + piece.len() - kept, 0);
        }
        // The end of the file can be missing, too.
        if !self.pieces.is_empty() && random.below(2) == 0 {
            bytes.truncate(random.below(bytes.len() + 1));
        }
        bytes
    }
}

const ROOT: &str = "/data/checkpoints";

fn checkpoint(clock: u64) -> Checkpoint {
    Checkpoint {
        run: "r".parse().unwrap(),
        digest: 7,
        rank: 2,
        clock,
        steps: clock,
        contributions: clock,
        written: clock,
        vectors: vec![vec![clock as f32; 9], vec![0.5; 9]],
        saved: vec![vec![clock as u32; 5]],
    }
}

fn store(disk: &'static Model) -> Store {
    Store::new(Path::new(ROOT), checkpoint(0).run, 2, NoticeCallback::default()).on(Box::leak(Box::new(disk)))
}

/// The clock of the newest intact checkpoint among `files`.
fn newest(files: &BTreeMap<PathBuf, Vec<u8>>) -> Option<u64> {
    let intact = |(path, bytes): (&PathBuf, &Vec<u8>)| {
        path.extension().filter(|extension| *extension == "gwck")?;
        let read = Checkpoint::parse(bytes).ok()?;
        // A loaded checkpoint equals the written one, and its name has its clock.
        assert_eq!((&read, store::clock_of(path)), (&checkpoint(read.clock), Some(read.clock)));
        Some(read.clock)
    };
    files.iter().filter_map(intact).max()
}

/// Crashes after every operation, each with many outcomes. `done`: number of operations after which the checkpoint of
/// this clock was reported as written.
fn check_crashes(model: &Model, done: &[(usize, u64)]) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for (number, state) in model.history.lock().unwrap().iter().enumerate() {
        let expected = done.iter().filter(|(operations, _)| *operations <= number + 1).map(|(_, clock)| *clock).max();
        for _ in 0..200 {
            let files = state.crash(&mut random);
            let got = newest(&files);
            assert!(got >= expected, "crash after operation {number}: expected {expected:?}, got {got:?}: {files:?}");
        }
    }
}

#[test]
fn after_a_crash_at_any_moment_the_newest_checkpoint_is_the_last_that_was_written_or_a_newer_one() {
    let model = Model::new();
    let mut done = Vec::new();
    for clock in 1..=6 {
        store(model).write(&checkpoint(clock)).unwrap();
        done.push((model.operations(), clock));
    }
    assert_eq!(store(model).files().len(), KEPT);
    check_crashes(model, &done);
    // The same moment again, after resuming from an earlier one.
    store(model).go_on_from(4);
    let operations = model.operations();
    for clock in [5, 5, 6] {
        store(model).write(&checkpoint(clock)).unwrap();
    }
    let mut random = Random(77);
    for state in &model.history.lock().unwrap()[operations..] {
        assert!((0..200).all(|_| newest(&state.crash(&mut random)) >= Some(4)));
    }
}

/// A moment that the run has not kept does not come back with a crash.
#[test]
fn checkpoints_that_were_set_aside_stay_aside() {
    let model = Model::new();
    (1..=3).for_each(|clock| drop(store(model).write(&checkpoint(clock)).unwrap()));
    store(model).go_on_from(1);
    let mut random = Random(5);
    assert!((0..200).all(|_| newest(&model.now().crash(&mut random)) == Some(1)));
}

/// The directories of the node are there, but their names are not on the disk: an earlier process has crashed
/// before it had waited for them.
#[test]
fn directories_of_an_earlier_process_are_made_durable() {
    let model = Model::new();
    let own = store::own_directory(Path::new(ROOT), checkpoint(0).run, 2);
    for path in ["/data", ROOT] {
        model.create_directory(Path::new(path)).unwrap();
        model.sync_directory(Path::new(path).parent().unwrap()).unwrap();
    }
    for path in [own.parent().unwrap(), &own] {
        model.create_directory(path).unwrap();
    }
    store(model).write(&checkpoint(1)).unwrap();
    let mut random = Random(9);
    assert!((0..200).all(|_| newest(&model.now().crash(&mut random)) == Some(1)));
}

/// Each operation fails once, in each way. The error is reported, older checkpoints are intact, nothing is left behind,
/// and the next checkpoint is written.
#[test]
fn a_failed_operation_is_reported_and_harms_nothing() {
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other, io::ErrorKind::PermissionDenied] {
        for fault in 0.. {
            let model = Model::new();
            (1..=3).for_each(|clock| drop(store(model).write(&checkpoint(clock)).unwrap()));
            let before = model.operations();
            *model.fault.lock().unwrap() = Some((before + fault, kind));
            let told = Arc::new(Mutex::new(0));
            let count = Arc::clone(&told);
            let notices = NoticeCallback::new(move |_| *count.lock().unwrap() += 1);
            let store = Store::new(Path::new(ROOT), checkpoint(0).run, 2, notices).on(Box::leak(Box::new(model)));
            let result = store.write(&checkpoint(4));
            let failed = model.operations() > before + fault;
            let names = model.list(&store::own_directory(Path::new(ROOT), checkpoint(0).run, 2));
            let parts = names.iter().filter(|path| path.extension().is_some_and(|extension| extension == "part"));
            assert_eq!(parts.count(), 0, "{kind:?} at {fault}");
            let mut random = Random(3);
            let expected = if result.is_ok() && *told.lock().unwrap() == 0 { 4 } else { 3 };
            let durable = (0..200).all(|_| newest(&model.now().crash(&mut random)) >= Some(expected));
            assert!(durable, "{kind:?} at {fault}: {result:?}");
            store.write(&checkpoint(5)).unwrap();
            assert!((0..200).all(|_| newest(&model.now().crash(&mut random)) == Some(5)), "{kind:?} at {fault}");
            if !failed {
                assert!(fault > 10, "only {fault} operations");
                break;
            }
        }
    }
}

/// On a full disk, older checkpoints make room, but never the newest.
#[test]
fn a_crash_on_a_full_disk_keeps_the_newest_checkpoint() {
    let model = Model::new();
    let len = checkpoint(1).emit().len();
    for room in [1, 2, 3, 4] {
        model.now().room = Some(room * len + len / 2);
        let mut done = Vec::new();
        for clock in 1..=5 {
            let clock = 10 * room as u64 + clock;
            let result = store(model).write(&checkpoint(clock));
            assert_eq!(result.is_ok(), room > 1 || clock == 11, "{room} {clock}: {result:?}");
            if result.is_ok() {
                done.push((model.operations(), clock));
            }
        }
        check_crashes(model, &done);
    }
}

/// While no directory can be synchronised, a crash can undo all checkpoints since. So the [`KEPT`] checkpoints before
/// stay beside [`KEPT`] new ones.
#[test]
fn what_a_crash_may_bring_back_is_not_removed() {
    let model = Model::new();
    let kept = KEPT as u64;
    (1..=kept).for_each(|clock| drop(store(model).write(&checkpoint(clock)).unwrap()));
    model.now().unsyncable = true;
    let mut random = Random(11);
    for clock in kept + 1..=2 * kept {
        store(model).write(&checkpoint(clock)).unwrap();
        assert!((0..1000).all(|_| newest(&model.now().crash(&mut random)) >= Some(kept)), "after {clock}");
    }
    // Not everything: the disk would fill up.
    (1..=kept).for_each(|more| drop(store(model).write(&checkpoint(2 * kept + more)).unwrap()));
    assert_eq!(store(model).files().len(), 2 * KEPT);
}
