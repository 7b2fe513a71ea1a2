//! Flights driven by hand, and by all schedules.

#[cfg(shuttle)]
mod schedules;
#[cfg(not(shuttle))]
mod steps;
