//! Small macros.

/// Does this node run with the planted bug? Always false, and nothing at run time, unless compiled with
/// `--cfg planted`.
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
