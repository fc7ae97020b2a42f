//! Macros of the crate.

/// True if this node runs with a planted bug. Without `--cfg planted`, the constant `false`, so that the code of the
/// bug is compiled out.
macro_rules! planted {
    ($hub:expr, $bug:ident) => {{
        #[cfg(planted)]
        {
            $hub.setup.bug == Some(crate::planted::Bug::$bug)
        }
        #[cfg(not(planted))]
        {
            false
        }
    }};
}
