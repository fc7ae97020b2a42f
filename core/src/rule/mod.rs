//! Rules: the pure decisions that follow from a recipe. Machines ask a rule and act on its answer.
//!
//! A rule gets all that it depends on as arguments and returns a value; it touches no vector and sends nothing. There
//! are six kinds:
//! - [`merge`]: how a contribution is merged (trait [`Merging`], one file per rule);
//! - [`pace`]: when a worker may go on;
//! - [`grace`]: how long a round that does not wait for all waits for more;
//! - [`period`]: after which local step a worker synchronises;
//! - [`weigh`]: the weight of a contribution in a mean;
//! - `staleness`: the factor on a late update, as the method [`Staleness::scale`](crate::recipe::Staleness::scale).
//!
//! A new merge rule is a file in `merge/` and an arm of [`merging`].

pub(crate) mod grace;
mod merge;
pub(crate) mod pace;
pub(crate) mod period;
mod staleness;
pub(crate) mod thin;
pub(crate) mod weigh;

pub(crate) use merge::{Merged, Merging, Verdict, merging, own_scale};
