//! Requests whose content is part of their key, and is read before the store is asked.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Request};
use http_body::{Body as _, Frame};
use tokio::task::yield_now;

use super::admit::announced_length;
use super::ahead::Ahead;
use super::request::{Facts, Passage};
use super::respond::Content;
use super::tasks::within;
use super::{Engine, Exchange};
use crate::flight::along::{BoxError, Source};
use crate::key::{ContentKind, PrimaryKey};
use crate::reason::Bypass;
use crate::rules::Match;
use crate::semantics::grpc;

/// How long a request's content may take to arrive; the handler waits with the cache.
const LONGEST_READ: Duration = Duration::from_secs(5);

/// How long a gRPC call may pause before its message, and before its end. Clients send a single
/// message and the end at once; the messages of a stream must not wait here.
const LONGEST_PAUSE: Duration = Duration::from_millis(40);

/// A request whose content is part of its key.
#[derive(Debug)]
pub(crate) struct Reading {
    engine: Arc<Engine>,
    kind: ContentKind,
    facts: Facts,
}

impl Reading {
    pub(super) fn new(engine: &Arc<Engine>, kind: ContentKind, facts: Facts) -> Self {
        Self {
            engine: Arc::clone(engine),
            kind,
            facts,
        }
    }

    /// Lets the request pass by unread.
    pub(crate) fn unread<B>(&self, request: &Request<B>) -> Passage {
        if self.facts.is_grpc_unary() {
            self.engine.unread.call_once(|| {
                tracing::warn!(
                    "a rule with `grpc_unary` is of no use to a layer that is not `keyed_by_content`"
                );
            });
        }
        let matched = self.engine.options.rules.find(request.uri().path());
        self.engine
            .pass(request, matched.as_ref(), Bypass::ContentUnread)
    }

    /// Reads the content and takes the request up, or lets it pass by if the content cannot be part
    /// of a key. The handler is given the request that this returns: no byte of it is lost.
    ///
    /// Dropped in the middle, it leaves nothing behind.
    pub(crate) async fn read(
        self,
        request: Request<Source>,
    ) -> (Request<Content>, Result<Box<Exchange>, Passage>) {
        let (head, body) = request.into_parts();
        let announced = announced_length(&head.headers);
        let mut content = Arriving::new(body);
        let read = content.read(self.kind, announced, self.engine.options.max_content);
        let (body, content) = match read.await {
            Ok(content) => (content.clone().into(), Ok(content)),
            Err(reason) => (content.into_rest(), Err(reason)),
        };
        let request = Request::from_parts(head, body);
        let matched = self.engine.options.rules.find(request.uri().path());
        let exchange = content
            .and_then(|content| self.take_up(&request, matched.as_ref(), &content))
            .map_err(|reason| self.engine.pass(&request, matched.as_ref(), reason));
        (request, exchange)
    }

    fn take_up(
        &self,
        request: &Request<Content>,
        matched: Option<&Match<'_, '_>>,
        content: &[u8],
    ) -> Result<Box<Exchange>, Bypass> {
        let engine = &self.engine;
        let route = matched.map(|matched| &**matched.route);
        let mut key = PrimaryKey::with_content(
            &engine.options.namespace,
            engine.key_spec(route),
            self.kind,
            request.uri(),
            request.headers(),
            content,
        )?;
        let exact = engine.searches.widen(&mut key);
        let (facts, now) = (self.facts.clone(), engine.options.clock.now());
        let found = engine.glance(&key, request.headers(), route);
        let mut exchange = Exchange::new(engine, request, matched, facts, key, now, found);
        exchange.exact = exact;
        // To the law that is what a call is that its rule calls safe.
        exchange.method = Method::QUERY;
        Ok(Box::new(exchange))
    }
}

/// The content of a request as far as it has come.
struct Arriving {
    data: BytesMut,
    /// What came behind the data, if it was not simply the end.
    last: Option<Result<Frame<Bytes>, BoxError>>,
    rest: Source,
}

impl Arriving {
    fn new(body: Source) -> Self {
        Self {
            data: BytesMut::new(),
            last: None,
            rest: body,
        }
    }

    /// Returns the whole content, if it is at most so long, as long as announced, and in time.
    async fn read(
        &mut self,
        kind: ContentKind,
        announced: Option<u64>,
        most: u64,
    ) -> Result<Bytes, Bypass> {
        if announced.unwrap_or_default() > most {
            return Err(Bypass::ContentTooLarge);
        }
        let read = within(LONGEST_READ, self.read_data(kind, most)).await;
        read.ok_or(Bypass::ContentTimeout)??;
        if announced.is_some_and(|announced| announced != self.length()) {
            return Err(Bypass::ContentIncomplete);
        }
        Ok(std::mem::take(&mut self.data).freeze())
    }

    async fn read_data(&mut self, kind: ContentKind, most: u64) -> Result<(), Bypass> {
        while !self.rest.is_end_stream() {
            let frame = match self.next_frame(kind).await? {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    self.last = Some(Err(error));
                    return Err(Bypass::ContentIncomplete);
                }
                None => break,
            };
            match frame.into_data() {
                // There may be no end of these, and all of them ready.
                Ok(data) if data.is_empty() => yield_now().await,
                Ok(data) => self.data.extend_from_slice(&data),
                Err(trailers) => {
                    self.last = Some(Ok(trailers));
                    return Err(Bypass::RequestTrailers);
                }
            }
            let length = self.length();
            match self.expected(kind) {
                Some(expected) if length > expected => return Err(Bypass::Grpc),
                expected if expected.unwrap_or(length) > most => {
                    return Err(Bypass::ContentTooLarge);
                }
                _ => {}
            }
        }
        let whole = kind == ContentKind::Query || grpc::is_one_message(&self.data);
        whole.then_some(()).ok_or(Bypass::Grpc)
    }

    async fn next_frame(
        &mut self,
        kind: ContentKind,
    ) -> Result<Option<Result<Frame<Bytes>, BoxError>>, Bypass> {
        let expected = self.expected(kind).unwrap_or_default();
        let may_pause = kind == ContentKind::Query || self.length() != expected;
        let frame = poll_fn(|cx| self.rest.as_mut().poll_frame(cx));
        match may_pause {
            true => Ok(frame.await),
            false => within(LONGEST_PAUSE, frame).await.ok_or(Bypass::Grpc),
        }
    }

    /// Returns how long the content must be, by its own word.
    fn expected(&self, kind: ContentKind) -> Option<u64> {
        match kind {
            ContentKind::Query => None,
            ContentKind::GrpcUnary => grpc::message_end(&self.data),
        }
    }

    fn length(&self) -> u64 {
        u64::try_from(self.data.len()).unwrap_or(u64::MAX)
    }

    /// Returns the content as it came, what has been read before the rest.
    fn into_rest(self) -> Content {
        let read = (!self.data.is_empty()).then(|| self.data.freeze());
        let mut ahead = Ahead::new(read, self.rest);
        self.last.into_iter().for_each(|frame| ahead.push(frame));
        Content::arriving(Box::pin(ahead))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream::{self, StreamExt};
    use http::HeaderMap;
    use http_body_util::StreamBody;
    use proptest::prelude::*;
    use tokio::time::{Instant, timeout};

    use super::*;

    type Frames = Vec<Result<Frame<Bytes>, BoxError>>;

    const UNARY: ContentKind = ContentKind::GrpcUnary;

    fn arriving(frames: Frames) -> Arriving {
        Arriving::new(Box::pin(StreamBody::new(stream::iter(frames))))
    }

    /// Content that does not end.
    fn hanging(pieces: &[&'static [u8]]) -> Arriving {
        let frames = stream::iter(data(pieces)).chain(stream::pending());
        Arriving::new(Box::pin(StreamBody::new(frames)))
    }

    fn data(pieces: &[&'static [u8]]) -> Frames {
        let pieces = pieces.iter().copied().map(Bytes::from_static);
        pieces.map(|piece| Ok(Frame::data(piece))).collect()
    }

    /// Reads content to its end: the data, and what came behind it.
    async fn drain(mut content: Content) -> (Vec<u8>, Option<&'static str>) {
        let mut read = Vec::new();
        loop {
            match poll_fn(|cx| content.poll_frame(cx)).await {
                None => return (read, None),
                Some(Err(_)) => return (read, Some("error")),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => read.extend_from_slice(&data),
                    Err(_) => return (read, Some("trailers")),
                },
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_pauses_where_no_unary_call_does_is_taken_for_a_stream() {
        let message: &[u8] = b"\0\0\0\0\x01x";
        for (pieces, reason, waited) in [
            (&[][..], Bypass::Grpc, LONGEST_PAUSE),
            (&[message], Bypass::Grpc, LONGEST_PAUSE),
            (&[message, b""], Bypass::Grpc, LONGEST_PAUSE),
            (&[message, message], Bypass::Grpc, Duration::ZERO),
            (&[b"\0\0", b"\0"], Bypass::ContentTimeout, LONGEST_READ),
            (&[b"\0\0\0\0\x02x"], Bypass::ContentTimeout, LONGEST_READ),
            (&[b"\0\0\0\0\x7f"], Bypass::ContentTooLarge, Duration::ZERO),
        ] {
            let began = Instant::now();
            let read = hanging(pieces).read(UNARY, None, 100).await;
            assert_eq!(read, Err(reason), "{pieces:?}");
            // Timers are as exact as milliseconds.
            let late = began.elapsed().saturating_sub(waited);
            assert!(
                began.elapsed() >= waited && late < LONGEST_PAUSE,
                "{pieces:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_read_in_vain_comes_before_the_rest() {
        let mut content = hanging(&[b"on", b"", b"e"]);
        let read = content.read(ContentKind::Query, None, 100).await;
        assert_eq!(read, Err(Bypass::ContentTimeout));
        let mut content = content.into_rest();
        let frame = poll_fn(|cx| content.poll_frame(cx)).await;
        assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), "one");
        let next = timeout(LONGEST_READ, poll_fn(|cx| content.poll_frame(cx)));
        assert!(next.await.is_err(), "it goes on as it did");
    }

    fn frames() -> impl Strategy<Value = (Vec<Vec<u8>>, Option<&'static str>)> {
        let pieces = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..10), 0..10);
        (
            pieces,
            prop_oneof![Just(None), Just(Some("error")), Just(Some("trailers"))],
        )
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_however_content_is_framed((pieces, last) in frames(), most in 0..60_u64) {
            let whole = pieces.concat();
            let pieces = pieces.into_iter().map(|piece| Ok(Frame::data(piece.into())));
            let last_frame = last.map(|last| match last {
                "error" => Err("error".into()),
                _ => Ok(Frame::trailers(HeaderMap::new())),
            });
            let mut content = arriving(pieces.chain(last_frame).collect());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let (read, rest) = runtime.unwrap().block_on(async {
                let read = content.read(ContentKind::Query, None, most).await;
                (read, drain(content.into_rest()).await)
            });
            match read {
                Ok(content) => {
                    prop_assert!(last.is_none() && whole.len() as u64 <= most);
                    prop_assert_eq!(content, whole);
                }
                Err(_) => {
                    prop_assert!(last.is_some() || whole.len() as u64 > most);
                    prop_assert_eq!(rest, (whole, last));
                }
            }
        }
    }
}
