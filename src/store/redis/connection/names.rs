//! The names of what is to be read.

use redis::{Cmd, ToRedisArgs};

/// Names to be read by one command, which transfers less and costs the server less than a command
/// for each.
#[derive(Debug)]
pub(crate) struct Names {
    command: Cmd,
    count: usize,
}

impl Names {
    /// Makes room for so many names.
    pub(crate) fn with_capacity(count: usize) -> Self {
        const COMMAND: &str = "MGET";
        const USUAL_NAME: usize = 64;
        let mut command = Cmd::with_capacity(
            count.saturating_add(1),
            count
                .saturating_mul(USUAL_NAME)
                .saturating_add(COMMAND.len()),
        );
        command.arg(COMMAND);
        Self { command, count: 0 }
    }

    pub(crate) fn push(&mut self, name: &impl ToRedisArgs) {
        self.command.arg(name);
        self.count = self.count.saturating_add(1);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn command(&self) -> &Cmd {
        &self.command
    }

    /// Returns the command, to be sent among others.
    pub(crate) fn into_command(self) -> Cmd {
        self.command
    }
}
