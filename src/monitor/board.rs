//! [`Board`]: the last report of each node, and the last notes.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use gradwire_core::telemetry::{Frame, NODES_MAX, Note, NoteKind, Present, Report, Run, Stage};
use gradwire_core::{Instant as Moment, RunId};

use super::announce::Announcement;
use super::ending::Ending;
use super::past::Past;
use super::readers::Readers;

/// Notes that are kept for monitors that connect later. When another one comes, the oldest is dropped.
const NOTES_MAX: usize = 1024;

/// A note of another process that comes again within so many nanoseconds is the same note: that process has connected
/// again, and its clock is read with this error.
const SAME_NOTE: u64 = 200_000_000;
/// A node of another process that has not reported for so many nanoseconds is not waited for at the end.
const SILENT: u64 = 1_000_000_000;

/// A registry of node status: the last report of each node, some of its former ones, the last 1,024 notes, and the
/// description of the run. Nodes publish to it, monitors read from it. A clone refers to the same board.
///
/// ```
/// use gradwire::monitor::{Board, Frames, subscribe};
/// use gradwire::telemetry::{Frame, Run};
/// use gradwire::{Cluster, Layout, Mem, Recipe, Session};
///
/// let recipe = Recipe::sync();
/// let board = Board::new(Run { recipe: recipe.to_string(), workers: 1, servers: 0, parameters: 2, name: None });
/// let address = board.serve("127.0.0.1:0", None, false)?; // `dtop` could connect here
///
/// let builder = Session::builder(Layout::flat(2), recipe, Cluster { workers: 1, servers: 0 });
/// let mut params = vec![0.0; 2];
/// let mut session = builder.publish_to(board, "my-laptop").join(Mem::cluster(1).remove(0), &mut params)?;
/// session.step(&mut params, &[0.1, 0.2], 32)?;
/// session.finish(&mut params)?;
///
/// let (mut stream, mut frames) = (subscribe(&address.to_string(), 10, None)?, Frames::default());
/// let report = loop {
///     // Former reports of the node come first.
///     if let Frame::Report(report) = frames.next(&mut stream)?
///         && report.stage.is_over()
///     {
///         break report;
///     }
/// };
/// assert_eq!((report.host.as_str(), report.times.steps, report.progress.examples), ("my-laptop", 1, 32));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Board(Arc<Shared>);

struct Shared {
    /// Time 0 of the board.
    origin: Instant,
    /// The same, in nanoseconds since 1970: it tells this board from others.
    start: u64,
    contents: Mutex<Contents>,
    /// The outputs that write the last reports when the run ends.
    ending: Ending,
    /// The announcement of this board's listener, while the board exists.
    announcement: Mutex<Option<Announcement>>,
    readers: Arc<Readers>,
}

#[derive(Default)]
struct Contents {
    run: Option<Run>,
    /// The last report of each rank, with its number.
    reports: BTreeMap<u32, (u64, Report)>,
    /// Former reports of each rank.
    past: BTreeMap<u32, Past>,
    notes: VecDeque<(u64, Note)>,
    /// The run of the board: from its description, or from the first node of this process that knows its run.
    name: Option<RunId>,
    /// The run of the last refused report.
    refused: Option<RunId>,
    /// The number of the last report or note. A reader asks for everything after a number.
    number: u64,
}

impl Default for Board {
    fn default() -> Self {
        // A reader starts with 0 and gets the run's description then, so the board itself starts with 1.
        let contents = Contents { number: 1, ..Contents::default() };
        let start = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        Self(Arc::new(Shared {
            origin: Instant::now(),
            start,
            contents: Mutex::new(contents),
            ending: Ending::default(),
            announcement: Mutex::new(None),
            readers: Arc::default(),
        }))
    }
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Board({} nodes)", self.lock().reports.len())
    }
}

impl Board {
    /// Keeps an announcement for as long as the board exists.
    pub(crate) fn keep(&self, announcement: Announcement) {
        *self.0.announcement.lock().unwrap_or_else(PoisonError::into_inner) = Some(announcement);
    }

    /// An empty board for this run.
    pub fn new(run: Run) -> Self {
        let board = Self::default();
        let mut contents = board.lock();
        contents.name = run.name;
        contents.run = Some(run);
        drop(contents);
        board
    }

    /// A node of this process belongs to this run. From now on, reports of other runs are refused.
    pub(crate) fn set_run(&self, run: RunId) {
        let mut contents = self.lock();
        let name = *contents.name.get_or_insert(run);
        if let Some(description) = &mut contents.run {
            description.name = Some(name);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        // A thread that panics while it holds the lock leaves whole reports and notes behind.
        self.0.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The board's time: since the board was made.
    pub fn now(&self) -> Moment {
        Moment::from_nanos(self.0.origin.elapsed().as_nanos() as u64)
    }

    /// Replaces the last report of a node. The times in the report have the origin of the node's clock, and `report.at`
    /// is its present; they are converted to the board's time. Ignored for a new rank if the board has 1,088 nodes.
    /// Also ignored, with a note, for a node of another run.
    pub fn report(&self, report: Report) {
        self.take_report(report, 0);
    }

    /// As [`report`](Self::report), of a report that was made so many nanoseconds ago.
    pub(super) fn take_report(&self, mut report: Report, age: u64) {
        let then = report.at;
        let now = Moment::from_nanos(self.now().as_nanos().saturating_sub(age));
        let convert = |at: Moment| {
            let ago = then.as_nanos().saturating_sub(at.as_nanos());
            Moment::from_nanos(now.as_nanos().saturating_sub(ago))
        };
        // The clocks of two processes have different origins, but a node's ages are the same everywhere.
        report.at = now;
        if let Some(waiting) = &mut report.status.waiting {
            waiting.since = convert(waiting.since);
        }
        for link in &mut report.status.links {
            link.last_heard = link.last_heard.map(convert);
        }
        let mut contents = self.lock();
        let rank = report.status.me.0;
        if let (Some(run), Some(ours)) = (report.run, contents.name)
            && run != ours
        {
            // One note per run: such a node goes on reporting.
            if contents.refused.replace(run) != Some(run) {
                drop(contents);
                let (rank, number) = (report.status.me, run.tag());
                self.note(Note { at: now, rank, kind: NoteKind::OtherRun, peer: rank, number });
            }
            return;
        }
        // Reports can come from the network, so their number is bounded.
        if contents.reports.len() >= NODES_MAX && !contents.reports.contains_key(&rank) {
            return;
        }
        // The ages of reports of other processes are not exact, but their order is.
        if let Some((_, former)) = contents.reports.get(&rank) {
            report.at = report.at.max(former.at);
        }
        contents.number += 1;
        let (number, nodes) = (contents.number, contents.nodes());
        if let Some((_, former)) = contents.reports.insert(rank, (number, report)) {
            contents.past.entry(rank).or_default().take(former, nodes);
        }
    }

    /// Adds a note, at the present of the board's time.
    pub fn note(&self, note: Note) {
        self.add_note(Note { at: self.now(), ..note });
    }

    /// Adds a note of another process, of so many nanoseconds ago, unless it is there already.
    pub(super) fn take_note(&self, note: Note, age: u64) {
        let at = Moment::from_nanos(self.now().as_nanos().saturating_sub(age));
        let is_same = |other: &Note| {
            other.at.as_nanos().abs_diff(at.as_nanos()) < SAME_NOTE && Note { at, ..*other } == Note { at, ..note }
        };
        if !self.lock().notes.iter().any(|(_, other)| is_same(other)) {
            self.add_note(Note { at, ..note });
        }
    }

    fn add_note(&self, note: Note) {
        let mut contents = self.lock();
        if contents.notes.len() == NOTES_MAX {
            contents.notes.pop_front();
        }
        contents.number += 1;
        let number = contents.number;
        contents.notes.push_back((number, note));
    }

    /// Appends the board's present to `log`, and the frames of all reports and notes after number `since`. If `since` is
    /// 0, the run's description and former reports of all nodes precede them, and the present follows. Returns the number to continue with.
    /// Copies the reports.
    pub fn since(&self, since: u64, log: &mut Vec<u8>) -> u64 {
        let contents = self.lock();
        let present = |at| Frame::Present(Present { at, start: self.0.start });
        let mut past: Vec<Report> = Vec::new();
        if since == 0 {
            past.extend(contents.past.values().flat_map(Past::reports).cloned());
            past.sort_by_key(|report| report.at);
        }
        // Time goes on from the first former report to the present, which follows all of them.
        let now = self.now();
        present(past.first().map_or(now, |first| first.at)).emit(log);
        if since == 0 {
            contents.run.iter().for_each(|run| Frame::Run(run.clone()).emit(log));
        }
        let reports = contents.reports.values().filter(|(number, _)| *number > since);
        let reports: Vec<Report> = reports.map(|(_, report)| report.clone()).collect();
        let notes = contents.notes.iter().filter(|(number, _)| *number > since);
        let notes: Vec<Note> = notes.map(|(_, note)| *note).collect();
        let number = contents.number;
        // Encoding takes longer than copying, and nodes that publish wait for the lock.
        drop(contents);
        past.into_iter().chain(reports).for_each(|report| Frame::Report(report).emit(log));
        notes.into_iter().for_each(|note| Frame::Note(note).emit(log));
        if since == 0 {
            present(now).emit(log);
        }
        number
    }

    /// The outputs that write the last reports when the run ends.
    pub(super) fn ending(&self) -> &Ending {
        &self.0.ending
    }

    /// The description of the run, if it is known.
    pub(super) fn run(&self) -> Option<Run> {
        self.lock().run.clone()
    }

    /// The number of nodes of the run; the most that a board takes, if it does not know the run.
    pub(super) fn nodes(&self) -> usize {
        self.lock().nodes()
    }

    /// The number of the last report or note.
    pub(super) fn number(&self) -> u64 {
        self.lock().number
    }

    pub(super) fn readers(&self) -> &Arc<Readers> {
        &self.0.readers
    }

    /// Whether the run has ended, and the last report of a node that was heard lately is still to come.
    pub(super) fn awaits_reports(&self) -> bool {
        let now = self.now().as_nanos();
        let reports = &self.lock().reports;
        let awaited = |report: &Report| !report.stage.is_over() && now.saturating_sub(report.at.as_nanos()) < SILENT;
        reports.values().any(|(_, report)| report.stage == Stage::Finished)
            && reports.values().any(|(_, report)| awaited(report))
    }

    /// Whether a node of the run has never reported.
    pub(super) fn lacks_reports(&self) -> bool {
        let contents = self.lock();
        contents.run.is_some() && contents.reports.len() < contents.nodes()
    }

    /// A copy of the last report of each node, in order of rank.
    pub(super) fn reports(&self) -> Vec<Report> {
        self.lock().reports.values().map(|(_, report)| report.clone()).collect()
    }
}

impl Contents {
    fn nodes(&self) -> usize {
        let nodes = |run: &Run| (run.workers as usize).saturating_add(run.servers as usize).clamp(1, NODES_MAX);
        self.run.as_ref().map_or(NODES_MAX, nodes)
    }
}
