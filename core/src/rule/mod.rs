//! Rules: pure decisions, one file each. A machine asks, and acts.
//!
//! Two axes live here as code: *merge* (what becomes of a contribution, [`Merging`]) and *pace* (when a worker may
//! go on, [`pace`]); *period* and *staleness* are numbers that both use. What a rule needs to know comes in as
//! arguments; what it decides comes out as a value. To add a merge rule, write its file in `merge/` and
//! name it in [`merging`].

mod merge;
pub(crate) mod pace;
pub(crate) mod period;
pub(crate) mod staleness;

pub(crate) use merge::{Merging, Verdict, merging};
