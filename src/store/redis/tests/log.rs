//! What an operator gets to see.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::subscriber::{DefaultGuard, NoSubscriber, set_default};
use tracing::{Dispatch, Level};

/// What has been logged.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Begins to log what this thread does.
    pub(super) fn begin(&self) -> (Dispatch, DefaultGuard) {
        // Where there is one subscriber alone, an event that another thread comes to first, which has
        // none, is taken for one that nobody wants.
        let another = Dispatch::new(NoSubscriber::new());
        let writer = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(Level::INFO)
            .with_writer(move || writer.clone())
            .finish();
        (another, set_default(subscriber))
    }

    /// Returns how often a text is in it.
    pub(super) fn count(&self, text: &str) -> usize {
        String::from_utf8_lossy(&self.0.lock())
            .matches(text)
            .count()
    }
}

impl io::Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
