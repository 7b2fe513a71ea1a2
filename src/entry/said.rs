//! What a hit says of itself, for the next one to say again.

use std::sync::Arc;

use http::HeaderValue;
use parking_lot::Mutex;

use crate::semantics::cache_status::Signature;

/// What the latest hit said of itself. Those that come in the same second say the same, and share
/// what is written once.
#[derive(Default)]
pub(crate) struct Said(Mutex<Option<(Arc<Signature>, Moment, Words)>>);

/// All that the words depend on, but for the response and the cache that speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// In seconds.
    pub(crate) age: u64,
    /// The seconds of freshness that remain; negative once stale.
    pub(crate) ttl: i64,
    pub(crate) detail: Option<&'static str>,
}

/// The values of the fields that a hit adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Words {
    pub(crate) age: HeaderValue,
    /// None where the cache says nothing.
    pub(crate) cache_status: Option<HeaderValue>,
}

impl Said {
    /// Returns what this cache says at this moment; `put` puts it into words if nobody has.
    ///
    /// Never waits: who finds another one busy here finds his own words.
    pub(crate) fn at(
        &self,
        cache: &Arc<Signature>,
        moment: Moment,
        put: impl FnOnce() -> Words,
    ) -> Words {
        let mut held = self.0.try_lock();
        if let Some(Some((by, then, words))) = held.as_deref()
            && *then == moment
            && Arc::ptr_eq(by, cache)
        {
            return words.clone();
        }
        let words = put();
        if let Some(held) = &mut held {
            **held = Some((Arc::clone(cache), moment, words.clone()));
        }
        words
    }
}

/// What was said of one response says nothing of another.
impl Clone for Said {
    fn clone(&self) -> Self {
        Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::semantics::cache_status::CacheName;

    fn signature(name: &str) -> Signature {
        Signature {
            name: CacheName::new(name),
            ..Signature::default()
        }
    }

    #[test]
    fn what_is_said_twice_in_a_second_is_written_once() {
        let said = Said::default();
        let [one, other] = ["one", "other"].map(|name| Arc::new(signature(name)));
        let first = Moment {
            age: 1,
            ttl: 59,
            detail: None,
        };
        let mut written = Vec::new();
        for (cache, moment) in [
            (&one, first),
            (&one, first),
            (&one, Moment { age: 2, ..first }),
            (&one, Moment { ttl: 58, ..first }),
            (
                &one,
                Moment {
                    detail: Some("memory"),
                    ..first
                },
            ),
            (&other, first),
            (&other, first),
        ] {
            let mut is_new = false;
            let number = HeaderValue::from(written.len());
            let words = said.at(cache, moment, || {
                is_new = true;
                Words {
                    age: number.clone(),
                    cache_status: None,
                }
            });
            assert_eq!(words.age == number, is_new);
            written.push(is_new);
        }
        assert_eq!(written, [true, false, true, true, true, true, false]);
    }

    #[test]
    fn who_finds_another_one_busy_finds_his_own_words() {
        let said = Said::default();
        let _busy = said.0.lock();
        let moment = Moment {
            age: 0,
            ttl: 0,
            detail: None,
        };
        let cache = Arc::new(signature("c"));
        let words = said.at(&cache, moment, || Words {
            age: HeaderValue::from(7),
            cache_status: None,
        });
        assert_eq!(words.age, "7");
    }
}
