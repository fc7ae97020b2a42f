//! [`Pending`]: the call of the application that a signal of the machine will answer.

use std::sync::Arc;

use gradwire_core::Storage;

use crate::mailbox::DeviceCopy;
use crate::pages;

/// A call that waits for a signal of the machine. A session makes one call at a time, so there is at most one.
#[derive(Debug)]
pub(crate) enum Pending {
    None,
    /// Waits for `Joined`. `spare`: a buffer that the application will fill with its first contribution; empty if the
    /// application gets the machine's.
    Join {
        spare: Arc<Storage>,
        state: Vec<Arc<Storage>>,
    },
    /// Waits for `Ready`. `spare` and `state`: the buffers that the contribution and the application's state replaced.
    /// No `spare`: the application has it already, since it gives its contribution range by range.
    Step {
        spare: Option<Arc<Storage>>,
        state: Vec<Arc<Storage>>,
    },
    /// Waits for `Ready`. `take` then copies the parameters on the device.
    StepThrough {
        take: DeviceCopy,
    },
    /// Waits for `Left`. With `stay`, each `Ready` before it ends another round.
    Leave {
        stay: bool,
        keep: bool,
        state: Vec<Arc<Storage>>,
    },
    /// A server or a coordinator: waits for `Finished`.
    Serve,
}

impl Pending {
    /// At the start of a node with vectors of `len` floats, `carried` of which are the application's. Workers join without a
    /// request, and servers are not asked for their end. `lends`: the application gets the machine's buffer for its
    /// contributions.
    pub(crate) fn at_start(is_worker: bool, len: usize, carried: u32, lends: bool) -> Self {
        if is_worker {
            let zeroed = || Arc::new(pages::zeroed(len * 4));
            let spare = if lends { Arc::default() } else { zeroed() };
            Self::Join { spare, state: (0..carried).map(|_| zeroed()).collect() }
        } else {
            Self::Serve
        }
    }

    /// Takes the pending call if the signal answers it, as `is_answered` tells. Otherwise leaves it and returns `None`.
    pub(crate) fn take_if(&mut self, is_answered: impl FnOnce(&Self) -> bool) -> Self {
        if is_answered(self) { std::mem::replace(self, Self::None) } else { Self::None }
    }

    /// Whether the end of this node's part leaves buffers for a checkpoint.
    pub(crate) fn keeps(&self) -> bool {
        // A server cannot tell whether its workers suspend or finish, so it always keeps them.
        matches!(self, Self::Leave { keep: true, .. } | Self::Serve)
    }
}
