//! What processes saw, and whether they may have.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;

/// For so long a process may not have heard what another invalidated, in microseconds.
const LEASE: u64 = 2_000_000;

/// What one process saw or did; times in microseconds.
pub(crate) enum Event {
    Read(Read),
    Write(Write),
}

/// A response: its version is no older than it had to be when the request was made.
#[derive(Clone, Copy)]
pub(crate) struct Read {
    pub(crate) key: u64,
    pub(crate) version: u64,
    pub(crate) began: u64,
    pub(crate) hit: bool,
}

/// A change to a version, and the invalidation of the one before.
#[derive(Clone, Copy)]
pub(crate) struct Write {
    pub(crate) key: u64,
    pub(crate) version: u64,
    pub(crate) acknowledged: u64,
    /// Whether Redis had it then, and not only the process.
    pub(crate) applied: bool,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, key, version, time, flag) = match self {
            Self::Read(read) => ("R", read.key, read.version, read.began, read.hit),
            Self::Write(write) => (
                "W",
                write.key,
                write.version,
                write.acknowledged,
                write.applied,
            ),
        };
        write!(f, "{kind} {key} {version} {time} {flag}")
    }
}

impl Event {
    fn parse(line: &str) -> Self {
        let words: Vec<_> = line.split(' ').collect();
        let [kind, key, version, time, flag] = words[..] else {
            panic!("{line}")
        };
        let [key, version, time] = [key, version, time].map(|word| word.parse().unwrap());
        match kind {
            "R" => Self::Read(Read {
                key,
                version,
                began: time,
                hit: flag == "true",
            }),
            _ => Self::Write(Write {
                key,
                version,
                acknowledged: time,
                applied: flag == "true",
            }),
        }
    }
}

/// What all processes saw.
#[derive(Default)]
pub(crate) struct History {
    reads: Vec<(usize, Read)>,
    /// By key, each with the process that wrote, in the order of acknowledgement.
    writes: HashMap<u64, Vec<(usize, Write)>>,
}

/// What was found.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) responses: usize,
    pub(crate) hits: usize,
    pub(crate) applied: usize,
    queued: usize,
    pub(crate) violations: Vec<String>,
    /// For each invalidation in Redis and each other process, how long after it that process began
    /// to ask for the last time for what was then an old answer.
    delays: Vec<u64>,
}

impl History {
    pub(crate) fn read(logs: &[PathBuf]) -> Self {
        let mut history = Self::default();
        for (process, log) in logs.iter().enumerate() {
            for line in std::fs::read_to_string(log).unwrap().lines() {
                match Event::parse(line) {
                    Event::Read(read) => history.reads.push((process, read)),
                    Event::Write(write) => {
                        history
                            .writes
                            .entry(write.key)
                            .or_default()
                            .push((process, write));
                    }
                }
            }
        }
        for writes in history.writes.values_mut() {
            writes.sort_by_key(|(_, write)| write.acknowledged);
        }
        history
    }

    pub(crate) fn check(&self) -> Report {
        let mut report = Report::default();
        let mut delays: HashMap<(u64, u64, usize), u64> = HashMap::new();
        for (writer, write) in self.writes.values().flatten() {
            match write.applied {
                true => report.applied += 1,
                false => report.queued += 1,
            }
            let others = (0..crate::PROCESSES).filter(|other| write.applied && other != writer);
            delays.extend(others.map(|other| ((write.key, write.version, other), 0)));
        }
        for (reader, read) in &self.reads {
            report.responses += 1;
            report.hits += usize::from(read.hit);
            for (writer, write) in self.overlooked(read) {
                let late = read.began - write.acknowledged;
                if reader == writer || (write.applied && late > LEASE) {
                    report.violations.push(format!(
                        "{} of {} was served by {reader}, {late} us after {writer} had \
                         invalidated it for {} (applied: {})",
                        read.version, read.key, write.version, write.applied
                    ));
                } else if let Some(delay) = delays.get_mut(&(read.key, write.version, *reader)) {
                    *delay = late.max(*delay);
                }
            }
        }
        report.delays = delays.into_values().collect();
        report.delays.sort_unstable();
        report
    }

    /// Returns the invalidations that had been acknowledged when a version was asked for which is
    /// older than they are.
    fn overlooked(&self, read: &Read) -> impl Iterator<Item = &(usize, Write)> {
        let writes = self.writes.get(&read.key).map_or(&[][..], Vec::as_slice);
        let before = writes.partition_point(|(_, write)| write.acknowledged < read.began);
        let version = read.version;
        let newer = move |(_, write): &&(usize, Write)| write.version > version;
        writes[..before].iter().filter(newer)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |share: f64| {
            let last = self.delays.len().saturating_sub(1);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a place among the delays"
            )]
            let place = (last as f64 * share) as usize;
            self.delays.get(place).copied().unwrap_or_default()
        };
        writeln!(
            f,
            "responses checked: {}, of which hits: {}\ninvalidations applied: {}, queued: {}",
            self.responses, self.hits, self.applied, self.queued
        )?;
        writeln!(f, "violations: {}", self.violations.len())?;
        write!(
            f,
            "last old answer in another process, in us after an invalidation returned: \
             median {}, 90 % {}, 99 % {}, longest {}",
            at(0.5),
            at(0.9),
            at(0.99),
            at(1.0)
        )
    }
}
