//! [`Notice`]: events of checkpoints that are no failures.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use gradwire_core::RunId;

use super::CheckpointError;

/// Something that an application may want to tell its user about checkpoints. The run goes on.
#[derive(Debug)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named by the text of each variant")]
pub enum Notice {
    /// A file was passed over. `instead`: the clock of the newest intact checkpoint, if there is one.
    Skipped { error: CheckpointError, instead: Option<u64> },
    /// No run was named, and the directory has several. The one that was written last was taken.
    RunChosen { directory: PathBuf, run: RunId, others: Vec<RunId> },
    /// There is nothing to resume from: the node begins a new run, or takes the parameters of its peers.
    Nothing { directory: PathBuf },
    /// The node goes on from its checkpoint of this moment.
    Resumed { run: RunId, clock: u64 },
    /// The run goes on from a moment of which this node has no checkpoint. The node takes the parameters of its peers,
    /// and the contents of its residual are not sent.
    WithoutOwn { run: RunId, clock: u64 },
    /// Checkpoints of later moments than the one from which the run goes on were set aside. They are removed when there
    /// are enough newer ones.
    SetAside { files: Vec<PathBuf>, clock: u64 },
    /// The checkpoint is written, but its directory could not be synchronised: a power failure can undo the renaming.
    Unsynced { path: PathBuf, error: io::Error },
    /// The disk was full. These older checkpoints of this node were removed to make room.
    MadeRoom { files: Vec<PathBuf> },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Skipped { error, instead: Some(clock) } => write!(f, "{error}; the one of moment {clock} is intact"),
            Self::Skipped { error, instead: None } => write!(f, "{error}; there is no older one"),
            Self::RunChosen { directory, run, others } => {
                write!(f, "resuming run {run}, which was written last in {}; other runs there:", directory.display())?;
                others.iter().take(5).try_for_each(|run| write!(f, " {run}"))?;
                if others.len() > 5 { write!(f, " and {} more", others.len() - 5) } else { Ok(()) }
            }
            Self::Nothing { directory } => {
                write!(f, "no checkpoint of this node in {}: starting without one", directory.display())
            }
            Self::Resumed { run, clock } => {
                write!(f, "run {run} goes on from this node's checkpoint of moment {clock}")
            }
            Self::WithoutOwn { run, clock } => write!(
                f,
                "run {run} goes on from moment {clock}, of which this node has no checkpoint: it takes the parameters of \
                 its peers; its residual starts empty"
            ),
            Self::SetAside { files, clock } => {
                write!(f, "the run goes on from moment {clock}; set aside {} later checkpoints", files.len())
            }
            Self::Unsynced { path, error } => write!(
                f,
                "checkpoint {}: written, but its directory could not be synchronised: {error}",
                path.display()
            ),
            Self::MadeRoom { files } => {
                write!(f, "the disk is full: removed {} older checkpoints of this node", files.len())
            }
        }
    }
}

/// The application's function for notices.
#[derive(Clone, Default)]
pub(crate) struct NoticeCallback(Option<Arc<CallbackFn>>);

type CallbackFn = dyn Fn(&Notice) + Send + Sync;

impl NoticeCallback {
    pub(crate) fn new(callback: impl Fn(&Notice) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(callback)))
    }

    pub(crate) fn call(&self, notice: &Notice) {
        if let Some(callback) = &self.0 {
            callback(notice);
        }
    }
}

impl fmt::Debug for NoticeCallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NoticeCallback")
    }
}
