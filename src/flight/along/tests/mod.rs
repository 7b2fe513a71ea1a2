//! Bodies read along: step by step, by tasks, and by all schedules.

mod origin;
#[cfg(shuttle)]
mod schedules;
#[cfg(not(shuttle))]
mod steps;
#[cfg(not(shuttle))]
mod tasks;
