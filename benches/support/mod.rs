//! What the benches share: ratios out of criterion's estimates.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// The figures to reach, and what this run gave.
#[derive(Default)]
pub(crate) struct Ratios {
    table: String,
}

impl Ratios {
    /// Compares the medians of two benches of this run.
    pub(crate) fn compare(&mut self, name: &str, bench: &str, baseline: &str, limit: f64) {
        if let (Some(bench), Some(baseline)) = (median(bench), median(baseline)) {
            let ratio = bench / baseline;
            let detail = format!("{} / {}", pretty(bench), pretty(baseline));
            self.row(name, &format!("{ratio:.2}"), &format!("{limit}"), &detail);
        }
    }

    /// Compares times that were taken in pairs, the baseline's first, by the median of their ratios;
    /// does nothing if none were taken.
    pub(crate) fn of_pairs(&mut self, name: &str, pairs: &[[f64; 2]], limit: f64) {
        let medians = [
            median_of(pairs, |[baseline, time]| time / baseline),
            median_of(pairs, |[_, time]| *time),
            median_of(pairs, |[baseline, _]| *baseline),
        ];
        if let [Some(ratio), Some(time), Some(baseline)] = medians {
            let detail = format!("{} / {}", pretty(time), pretty(baseline));
            self.row(name, &format!("{ratio:.2}"), &limit.to_string(), &detail);
        }
    }

    /// Compares the median difference of times that were taken in pairs, the baseline's first, with a
    /// duration; does nothing if none were taken.
    pub(crate) fn added_by_pairs(&mut self, name: &str, pairs: &[[f64; 2]], limit: Duration) {
        let medians = [
            median_of(pairs, |[baseline, time]| time - baseline),
            median_of(pairs, |[_, time]| *time),
            median_of(pairs, |[baseline, _]| *baseline),
        ];
        if let [Some(added), Some(time), Some(baseline)] = medians {
            let detail = format!("{} - {}", pretty(time), pretty(baseline));
            self.row(name, &pretty(added), &format!("{limit:?}"), &detail);
        }
    }

    /// Compares the difference of two medians with a duration.
    pub(crate) fn difference(&mut self, name: &str, bench: &str, baseline: &str, limit: Duration) {
        if let (Some(bench), Some(baseline)) = (median(bench), median(baseline)) {
            let detail = format!("{} - {}", pretty(bench), pretty(baseline));
            self.row(
                name,
                &pretty(bench - baseline),
                &format!("{limit:?}"),
                &detail,
            );
        }
    }

    pub(crate) fn count(&mut self, name: &str, count: u64, limit: u64) {
        self.row(name, &count.to_string(), &limit.to_string(), "");
    }

    pub(crate) fn note(&mut self, name: &str, value: &str) {
        self.row(name, value, "", "");
    }

    #[expect(clippy::print_stdout, reason = "this is what the bench is for")]
    pub(crate) fn print(&self) {
        println!(
            "| figure | this run | to reach | from |\n|---|---|---|---|\n{}",
            self.table
        );
    }

    fn row(&mut self, name: &str, value: &str, limit: &str, detail: &str) {
        writeln!(self.table, "| {name} | {value} | {limit} | {detail} |").expect("a string grows");
    }
}

fn median_of(pairs: &[[f64; 2]], figure: fn(&[f64; 2]) -> f64) -> Option<f64> {
    let mut figures: Vec<f64> = pairs.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied()
}

/// Reads the median that criterion has estimated, in nanoseconds.
fn median(bench: &str) -> Option<f64> {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let path = target
        .join("criterion")
        .join(bench)
        .join("new/estimates.json");
    let text = fs::read_to_string(path).ok()?;
    let estimates: serde_json::Value = serde_json::from_str(&text).ok()?;
    estimates["median"]["point_estimate"].as_f64()
}

fn pretty(nanos: f64) -> String {
    match nanos {
        nanos if nanos.abs() < 1e3 => format!("{nanos:.0} ns"),
        nanos if nanos.abs() < 1e6 => format!("{:.2} µs", nanos / 1e3),
        nanos => format!("{:.2} ms", nanos / 1e6),
    }
}
