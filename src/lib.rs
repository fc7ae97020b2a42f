//! facade
pub use gradwire_core as core;
