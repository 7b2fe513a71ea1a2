//! A histogram of latencies in powers of two.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::snapshot::Latency;

/// From under 1 µs up to 2^30 µs (some 18 minutes) and over.
const BUCKETS: usize = 32;

/// Counts durations by the power of two of their microseconds.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    total_nanos: AtomicU64,
}

impl Histogram {
    pub(super) fn record(&self, took: Duration) {
        let bucket = (u64::BITS - micros(took).leading_zeros()) as usize;
        if let Some(count) = self.buckets.get(bucket.min(BUCKETS - 1)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.total_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> Latency {
        Latency {
            buckets: self
                .buckets
                .each_ref()
                .map(|count| count.load(Ordering::Relaxed))
                .to_vec(),
            total: Duration::from_nanos(self.total_nanos.load(Ordering::Relaxed)),
        }
    }
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_upper_bound_of_its_bucket() {
        let histogram = Histogram::default();
        for _ in 0..99 {
            histogram.record(Duration::from_micros(3));
        }
        histogram.record(Duration::from_millis(5));
        let latency = histogram.snapshot();
        assert_eq!(latency.count(), 100);
        assert_eq!(latency.quantile(0.5), Duration::from_micros(4));
        assert_eq!(latency.quantile(0.999), Duration::from_micros(8192));
        assert_eq!(latency.mean(), Duration::from_nanos(52_970));
    }

    #[test]
    fn extremes_fall_into_the_outer_buckets() {
        let histogram = Histogram::default();
        histogram.record(Duration::ZERO);
        histogram.record(Duration::MAX);
        let latency = histogram.snapshot();
        assert_eq!((latency.buckets[0], latency.buckets[BUCKETS - 1]), (1, 1));
    }

    #[test]
    fn nothing_recorded_has_no_quantile_to_speak_of() {
        assert_eq!(
            Histogram::default().snapshot().quantile(0.99),
            Duration::ZERO
        );
        assert_eq!(Histogram::default().snapshot().mean(), Duration::ZERO);
    }
}
