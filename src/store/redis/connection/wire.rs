//! What goes over a connection: commands one way, replies the other.
//!
//! The client library has all of this too. But a hit waits for it, and there each value of a reply
//! is copied to memory of its own, made by one thread and given back by another; beside raw `GET`s
//! that costs a fifth of a hit. Here a reply is one piece of memory, and what a hit needs is sliced
//! out of it. Everything else is the library's: the login, the commands, and the reading of all
//! replies but those to `MGET`.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use redis::aio::AsyncPushSender as _;
use redis::{Cmd, Pipeline, PushInfo, RedisResult, Value};
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::sync::{Semaphore, oneshot};

use super::frame::{self, Frame};
use crate::store::redis::control::Listener;

/// So many questions are under way at most, and so many pieces of memory full of them; the next
/// ones wait, until their deadlines.
const IN_FLIGHT: usize = 1024;
/// Short commands share a piece of memory up to this size.
const PIECE: usize = 16 << 10;
/// The room for short replies.
const ROOM: usize = 16 << 10;
/// What a server only says that it will send takes no more memory than this, and no more is kept
/// for what it may send next.
const MOST_AHEAD: usize = 1 << 20;
/// A longer reply is not copied out of where it was received, if that is nearly all there is.
const SHORT: usize = 8 << 10;

/// Sends commands over a connection, and waits for their replies.
///
/// What is dropped in the middle may or may not be carried out; its replies are skipped.
#[derive(Clone)]
pub(super) struct Wire(Arc<Shared>);

struct Shared {
    outbox: Mutex<Outbox>,
    /// Given to who asks, taken back with the last reply.
    room: Semaphore,
}

/// What has been handed over to be sent.
#[derive(Default)]
struct Outbox {
    pieces: VecDeque<Vec<u8>>,
    askers: VecDeque<Asker>,
    /// Wakes who sends, where that waits for something to be sent.
    sender: Option<Waker>,
    is_closed: bool,
}

/// Who waits for replies.
struct Asker {
    wanted: usize,
    /// How much of the room is taken.
    share: usize,
    replies: Raw,
    answer: oneshot::Sender<Raw>,
}

/// Replies as they were received.
type Raw = SmallVec<[Bytes; 1]>;

impl Wire {
    /// Sends a command, and returns its reply as it is on the wire.
    ///
    /// # Errors
    ///
    /// When the connection ends.
    pub(super) async fn ask_raw(&self, command: &Cmd) -> io::Result<Bytes> {
        let pack = |pieces: &mut VecDeque<Vec<u8>>| {
            if pieces.back().is_none_or(|piece| piece.len() >= PIECE) {
                pieces.push_back(Vec::new());
            }
            if let Some(piece) = pieces.back_mut() {
                command.write_packed_command(piece);
            }
        };
        let replies = self.post(1, 1, pack).await?;
        replies.into_iter().next().ok_or_else(hung_up)
    }

    /// Sends a command, and returns its reply; a refusal is an error.
    ///
    /// # Errors
    ///
    /// When the connection ends.
    pub(super) async fn ask(&self, command: &Cmd) -> RedisResult<Value> {
        value(&self.ask_raw(command).await?)?.extract_error()
    }

    /// Sends commands in one piece, and returns their replies; refusals are among them.
    ///
    /// # Errors
    ///
    /// When the connection ends.
    pub(super) async fn send(&self, commands: &Pipeline) -> RedisResult<Vec<Value>> {
        // Bodies are copied before the lock is taken.
        let piece = commands.get_packed_pipeline();
        let share = piece.len().div_ceil(PIECE).min(IN_FLIGHT);
        let post = self.post(commands.len(), share, |pieces| pieces.push_back(piece));
        let replies = post.await?;
        replies.iter().map(|reply| value(reply)).collect()
    }

    async fn post(
        &self,
        wanted: usize,
        share: usize,
        pack: impl FnOnce(&mut VecDeque<Vec<u8>>),
    ) -> io::Result<Raw> {
        let Shared { outbox, room } = &*self.0;
        let permits = u32::try_from(share).unwrap_or(u32::MAX);
        let taken = room.acquire_many(permits).await;
        taken.map_err(|_| hung_up())?.forget();
        let (answer, received) = oneshot::channel();
        let sender = {
            let mut outbox = outbox.lock();
            if outbox.is_closed {
                return Err(hung_up());
            }
            pack(&mut outbox.pieces);
            outbox.askers.push_back(Asker {
                wanted,
                share,
                replies: Raw::new(),
                answer,
            });
            outbox.sender.take()
        };
        if let Some(sender) = sender {
            sender.wake();
        }
        received.await.map_err(|_| hung_up())
    }
}

/// Reads a reply.
pub(super) fn value(reply: &[u8]) -> RedisResult<Value> {
    redis::parse_redis_value(reply)
}

/// The end of a connection that moves what is on it.
pub(super) struct Carrier<S> {
    shared: Arc<Shared>,
    stream: S,
    /// Hears what the server says of its own accord.
    listener: Option<Listener>,
    sending: VecDeque<Vec<u8>>,
    /// How much of the first piece has been sent.
    sent: usize,
    is_flushed: bool,
    askers: VecDeque<Asker>,
    received: BytesMut,
    /// The size of the memory that it is in.
    room: usize,
    /// How long the next reply may be.
    expected: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Carrier<S> {
    /// Takes over a connection on which nothing is under way.
    pub(super) fn new(stream: S, listener: Option<Listener>) -> (Wire, Self) {
        let shared = Arc::new(Shared {
            outbox: Mutex::default(),
            room: Semaphore::new(IN_FLIGHT),
        });
        let carrier = Self {
            shared: Arc::clone(&shared),
            stream,
            listener,
            sending: VecDeque::new(),
            sent: 0,
            is_flushed: true,
            askers: VecDeque::new(),
            received: BytesMut::new(),
            room: 0,
            expected: ROOM,
        };
        (Wire(shared), carrier)
    }

    /// Moves commands and replies until the connection ends.
    pub(super) async fn run(mut self) {
        let ended = poll_fn(|cx| self.poll(cx)).await;
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection to redis has ended");
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What cannot be written must not keep replies from being read, nor the other way round; and
        // what was said before the connection broke is heard.
        let sending = self.poll_send(cx);
        match self.poll_receive(cx) {
            Poll::Pending => sending,
            received => received,
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while let Some(piece) = self.sending.front() {
                let unsent = piece.get(self.sent..).unwrap_or_default();
                if unsent.is_empty() {
                    self.sending.pop_front();
                    self.sent = 0;
                    continue;
                }
                let written = ready!(Pin::new(&mut self.stream).poll_write(cx, unsent))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.sent = self.sent.saturating_add(written);
                self.is_flushed = false;
            }
            if !self.is_flushed {
                ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
                self.is_flushed = true;
            }
            let mut outbox = self.shared.outbox.lock();
            if outbox.pieces.is_empty() {
                outbox.sender = Some(cx.waker().clone());
                return Poll::Pending;
            }
            std::mem::swap(&mut self.sending, &mut outbox.pieces);
            self.askers.append(&mut outbox.askers);
        }
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while let Some(reply) = self.next_reply()? {
                self.hand_out(reply)?;
            }
            let reading = pin!(self.stream.read_buf(&mut self.received));
            if ready!(reading.poll(cx))? == 0 {
                return Poll::Ready(Err(hung_up()));
            }
        }
    }

    /// Takes the next reply out of what was received, if all of it is there.
    fn next_reply(&mut self) -> io::Result<Option<Bytes>> {
        let whole = match self.received.is_empty() {
            true => Frame::Part(0),
            false => frame::measure(&self.received)?,
        };
        Ok(match whole {
            Frame::Whole(length) => Some(self.take(length)),
            Frame::Part(length) => {
                self.make_room(length);
                None
            }
        })
    }

    /// Takes a reply of so many bytes. Whoever keeps a slice of it keeps about as much, not all that
    /// was received with it.
    fn take(&mut self, length: usize) -> Bytes {
        if length > SHORT && length >= self.room / 2 {
            self.expected = length.min(MOST_AHEAD);
            return self.received.split_to(length).freeze();
        }
        self.expected = ROOM;
        let reply = self.received.get(..length).unwrap_or_default();
        let reply = Bytes::copy_from_slice(reply);
        self.received.advance(length);
        reply
    }

    /// Makes room for the rest of a reply of at least so many bytes, or for another one.
    fn make_room(&mut self, length: usize) {
        if self.received.is_empty() && self.room > MOST_AHEAD {
            self.received = BytesMut::new();
        }
        let missing = match self.received.len() {
            0 => self.expected,
            // Exactly so much: what comes behind it would have to be moved.
            received if length > SHORT => length.saturating_sub(received).min(MOST_AHEAD),
            _ => ROOM,
        };
        let before = self.received.capacity();
        self.received.reserve(missing);
        if self.received.capacity() > before {
            self.room = self.received.capacity();
        }
    }

    fn hand_out(&mut self, reply: Bytes) -> io::Result<()> {
        if reply.first() == Some(&b'>') {
            return self.tell(&reply);
        }
        let unasked = || io::Error::new(io::ErrorKind::InvalidData, "nobody asked for this reply");
        let asker = self.askers.front_mut().ok_or_else(unasked)?;
        asker.replies.push(reply);
        if asker.replies.len() == asker.wanted
            && let Some(Asker {
                share,
                replies,
                answer,
                ..
            }) = self.askers.pop_front()
        {
            self.shared.room.add_permits(share);
            // Who asked may have gone away.
            let _ = answer.send(replies);
        }
        Ok(())
    }

    /// Passes on what the server said of its own accord. If that cannot be read, nothing that it
    /// said before can be believed any more.
    fn tell(&self, message: &[u8]) -> io::Result<()> {
        if let (Some(listener), Value::Push { kind, data }) =
            (&self.listener, value(message).map_err(io::Error::other)?)
        {
            // It is never closed.
            let _ = listener.send(PushInfo { kind, data });
        }
        Ok(())
    }
}

impl<S> Drop for Carrier<S> {
    fn drop(&mut self) {
        let mut outbox = self.shared.outbox.lock();
        outbox.is_closed = true;
        let left = std::mem::take(&mut outbox.askers);
        outbox.pieces.clear();
        drop(outbox);
        self.shared.room.close();
        drop(left);
    }
}

fn hung_up() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

#[cfg(test)]
mod tests {
    use futures_util::future::{FutureExt as _, join_all};
    use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::spawn;

    use super::*;

    /// A wire, and its other end.
    fn wire(room: usize) -> (Wire, DuplexStream) {
        let (near, far) = duplex(room);
        let (wire, carrier) = Carrier::new(near, None);
        spawn(carrier.run());
        (wire, far)
    }

    fn echo(text: &str) -> Cmd {
        redis::cmd("ECHO").arg(text).take()
    }

    /// Answers so many `ECHO`s with what they say.
    async fn answer(far: &mut DuplexStream, count: usize) {
        let mut received = BytesMut::new();
        for _ in 0..count {
            let length = loop {
                match frame::measure(&received).unwrap() {
                    Frame::Whole(length) if length > 0 => break length,
                    _ => assert_ne!(far.read_buf(&mut received).await.unwrap(), 0),
                }
            };
            let command = received.split_to(length);
            let (_, text) = frame::string(frame::list(&command).unwrap()).unwrap();
            far.write_all(text).await.unwrap();
        }
    }

    fn text_of(reply: &Bytes) -> String {
        let (text, _) = frame::string(reply).unwrap();
        String::from_utf8(text.unwrap().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn everyone_gets_the_reply_to_what_he_asked_however_it_is_cut() {
        for room in [1, 7, 100, 1 << 16] {
            let (wire, mut far) = wire(room);
            let texts: Vec<String> = (0..40)
                .map(|place| {
                    let length = if place % 5 == 0 { 3 * SHORT } else { 100 };
                    format!("{place:-<length$}")
                })
                .collect();
            let asking = texts.iter().map(|text| async {
                let reply = wire.ask_raw(&echo(text)).await.unwrap();
                assert_eq!(text_of(&reply), *text);
            });
            tokio::join!(join_all(asking), answer(&mut far, texts.len()));
        }
    }

    #[tokio::test]
    async fn commands_sent_together_are_answered_together() {
        let (wire, mut far) = wire(64);
        let mut commands = Pipeline::new();
        for text in ["a", "b", "c"] {
            commands.add_command(echo(text));
        }
        let (alone, together, ()) = tokio::join!(
            async { wire.ask(&echo("before")).await },
            wire.send(&commands),
            answer(&mut far, 4)
        );
        assert_eq!(alone.unwrap(), Value::BulkString(b"before".to_vec()));
        let strings = ["a", "b", "c"].map(|text| Value::BulkString(text.into()));
        assert_eq!(together.unwrap(), strings);
    }

    #[tokio::test]
    async fn the_reply_for_who_has_gone_is_nobody_elses() {
        let (wire, mut far) = wire(1 << 16);
        let (gone, stays) = (echo("gone"), echo("stays"));
        {
            let mut gone = pin!(wire.ask_raw(&gone));
            let polled = poll_fn(|cx| Poll::Ready(gone.as_mut().poll(cx).is_pending())).await;
            assert!(polled);
        }
        let (reply, ()) = tokio::join!(wire.ask_raw(&stays), answer(&mut far, 2));
        assert_eq!(text_of(&reply.unwrap()), "stays");
    }

    #[tokio::test]
    async fn who_comes_when_too_many_are_under_way_waits() {
        let (wire, mut far) = wire(1 << 20);
        let asking = (0..3 * IN_FLIGHT).map(|place| {
            let wire = wire.clone();
            async move { text_of(&wire.ask_raw(&echo(&place.to_string())).await.unwrap()) }
        });
        let (replies, ()) = tokio::join!(join_all(asking), answer(&mut far, 3 * IN_FLIGHT));
        assert_eq!(replies.last().unwrap(), &(3 * IN_FLIGHT - 1).to_string());
        assert_eq!(wire.0.room.available_permits(), IN_FLIGHT);
    }

    #[tokio::test]
    async fn what_cannot_be_sent_takes_little_memory_even_if_who_sent_it_has_gone() {
        let (near, _far) = duplex(1);
        let (wire, _carrier) = Carrier::new(near, None);
        let mut long = Pipeline::new();
        long.add_command(echo(&"x".repeat(1 << 20)));
        for _ in 0..40 {
            assert!(wire.send(&long).now_or_never().is_none());
        }
        let waiting = wire.0.outbox.lock();
        let held: usize = waiting.pieces.iter().map(Vec::len).sum();
        assert!(held <= IN_FLIGHT * PIECE, "{held}");
        assert_eq!(waiting.askers.len(), 15);
    }

    #[tokio::test]
    async fn a_connection_that_ends_fails_who_waits_and_who_comes_later() {
        for (farewell, answered) in [
            ("", 0),
            ("$3\r\nab", 0),
            ("+OK\r\n$3\r\nab", 1),
            ("HTTP/1.1 400 Bad Request\r\n", 0),
            ("+OK\r\n+OK\r\n", 2),
        ] {
            let (wire, mut far) = wire(1 << 10);
            let question = echo("a");
            let asked = [wire.ask_raw(&question), wire.ask_raw(&question)];
            let ending = async {
                far.write_all(farewell.as_bytes()).await.unwrap();
                drop(far);
            };
            let (replies, ()) = tokio::join!(join_all(asked), ending);
            let replies = replies.iter().filter(|reply| reply.is_ok());
            assert_eq!(replies.count(), answered, "{farewell:?}");
            assert!(wire.ask_raw(&question).await.is_err(), "{farewell:?}");
        }
    }

    #[tokio::test]
    async fn a_reply_that_nobody_asked_for_ends_the_connection() {
        let (near, mut far) = duplex(1 << 10);
        let (wire, carrier) = Carrier::new(near, None);
        far.write_all(b"+OK\r\n").await.unwrap();
        carrier.run().await;
        assert!(wire.ask_raw(&echo("a")).await.is_err());
    }

    #[tokio::test]
    async fn news_that_cannot_be_read_end_the_connection() {
        let (near, mut far) = duplex(1 << 10);
        let (wire, carrier) = Carrier::new(near, None);
        far.write_all(b">2\r\n$10\r\ninvalidate\r\n:x\r\n")
            .await
            .unwrap();
        carrier.run().await;
        assert!(wire.ask_raw(&echo("a")).await.is_err());
    }

    #[tokio::test]
    async fn memory_for_a_very_long_reply_is_given_back() {
        let (near, mut far) = duplex(1 << 16);
        let (wire, mut carrier) = Carrier::new(near, None);
        let text = "x".repeat(8 * MOST_AHEAD);
        let question = echo(&text);
        let mut asking = pin!(async {
            let reply = tokio::join!(wire.ask_raw(&question), answer(&mut far, 1)).0;
            assert_eq!(text_of(&reply.unwrap()).len(), text.len());
        });
        poll_fn(|cx| {
            assert!(carrier.poll(cx).is_pending());
            asking.as_mut().poll(cx)
        })
        .await;
        assert!(carrier.room <= MOST_AHEAD, "{}", carrier.room);
    }

    #[test]
    fn a_reply_is_copied_out_of_memory_that_is_mostly_that_of_others() {
        let (near, _far) = duplex(1);
        let (_, mut carrier) = Carrier::new(near, None);
        for (room, length, is_copied) in [
            (ROOM, 100, true),
            (ROOM, SHORT + 1, false),
            (MOST_AHEAD, 2 * SHORT, true),
            (MOST_AHEAD, MOST_AHEAD - 1, false),
        ] {
            carrier.received = BytesMut::zeroed(room);
            carrier.room = room;
            let reply = carrier.take(length);
            assert_eq!(reply.len(), length);
            assert_eq!(
                reply.try_into_mut().is_ok(),
                is_copied,
                "{length} of {room}"
            );
        }
    }
}
