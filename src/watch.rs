//! The application's callback for events.

use std::fmt;
use std::sync::Arc;

use gradwire_core::Event;

/// The function that an application gave to [`Builder::on_event`](crate::Builder::on_event), if any.
#[derive(Clone, Default)]
pub(crate) struct EventCallback(Option<Arc<dyn Fn(Event) + Send + Sync>>);

impl EventCallback {
    pub(crate) fn new(callback: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(callback)))
    }

    /// On the thread that drives the machine.
    pub(crate) fn call(&self, event: Event) {
        if let Some(callback) = &self.0 {
            callback(event);
        }
    }
}

impl fmt::Debug for EventCallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventCallback({})", if self.0.is_some() { "set" } else { "none" })
    }
}
