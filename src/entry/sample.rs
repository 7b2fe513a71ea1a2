use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};

use super::said::Said;
use super::{StoredResponse, Tagged, Variant};
use crate::clock::Clock;
use crate::epoch::Stamp;
use crate::key::{KeySpec, Namespace, PrimaryKey};
use crate::semantics::age::Exchange;
use crate::semantics::freshness::{Reading, Terms};
use crate::semantics::targeted::Binding;

impl StoredResponse {
    /// Makes a stored response of one exchange, to test stores with: in the default namespace,
    /// by the response's own `Cache-Control` and `Vary`, received now, under no epochs.
    ///
    /// # Panics
    ///
    /// If the request has no key, because it is neither a GET nor a HEAD for instance.
    pub fn sample<T>(request: &Request<T>, response: Response<Bytes>, clock: &Clock) -> Self {
        let (head, body) = response.into_parts();
        let key = PrimaryKey::new(
            &Namespace::default(),
            &KeySpec::default(),
            request.method(),
            request.uri(),
            request.headers(),
        );
        let exchange = Exchange {
            response_time: clock.wall().into(),
            delay: Duration::ZERO,
        };
        Self {
            key: key.expect("the request has a key"),
            variant: Variant::of(&head.headers, request.headers(), true),
            status: head.status,
            terms: Terms::of(
                head.status,
                &head.headers,
                &Binding::of(&head.headers, &[]),
                exchange,
                Reading::default(),
            ),
            fields: head.headers,
            body,
            trailers: None,
            tagged: Tagged::ByOrigin,
            received: clock.now(),
            stamp: Stamp::default(),
            said: Said::default(),
        }
    }
}
