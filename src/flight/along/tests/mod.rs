//! Bodies read along: step by step, by tasks, and by all schedules.

#[cfg_attr(shuttle, expect(dead_code, reason = "the schedules need less of it"))]
mod origin;
#[cfg(shuttle)]
mod schedules;
#[cfg(not(shuttle))]
mod steps;
#[cfg(not(shuttle))]
mod tasks;
