//! Interim responses for HTTP/1.1 clients (RFC 9110 §15.2).
//!
//! hyper's client reports the 1xx responses that it receives, but hyper's server cannot send any.
//! So each accepted connection is wrapped: [`Interims`] queues those of the exchange that is under
//! way, and [`InterimIo`] writes them where no other response has begun and not ended.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BytesMut};
use http::{HeaderMap, Request, StatusCode, Version};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::proxy::strip_connection_fields;

/// An origin that sends interim responses faster than the client reads loses some.
const MAX_QUEUED: usize = 64 << 10;

/// The interim responses of one connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interims(Arc<Mutex<Line>>);

#[derive(Debug, Default)]
struct Line {
    /// Changes when an exchange begins and when it ends.
    exchange: u64,
    /// Whether hyper has nothing left to write of what it had before the last flush.
    settled: bool,
    queued: BytesMut,
    /// Wakes the connection, so that it flushes.
    connection: Option<Waker>,
}

impl Interims {
    /// Wraps the connection whose interim responses these are.
    pub(crate) fn wrap(&self, io: TcpStream) -> InterimIo {
        InterimIo {
            io,
            line: Arc::clone(&self.0),
        }
    }

    /// Begins an exchange, unless the client cannot be sent interim responses.
    ///
    /// The hook put into the request works until the guard is dropped. A request that lives on,
    /// such as one that renews what was served stale, then reports to nobody.
    pub(crate) fn begin<B>(&self, request: &mut Request<B>) -> Option<Exchange> {
        if request.version() != Version::HTTP_11 {
            return None;
        }
        let exchange = self.0.lock().next_exchange();
        let line = Arc::clone(&self.0);
        hyper::ext::on_informational(request, move |response| {
            // hyper's server sends 100 by itself, when the content is asked for.
            if response.status() != StatusCode::CONTINUE {
                line.lock()
                    .queue(exchange, &head(response.status(), response.headers()));
            }
        });
        Some(Exchange(Arc::clone(&self.0)))
    }
}

/// An exchange whose final response has not begun.
#[derive(Debug)]
pub(crate) struct Exchange(Arc<Mutex<Line>>);

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut line = self.0.lock();
        line.next_exchange();
        if !line.settled {
            // The final response joins what hyper has still to write: there is no place between.
            line.queued.clear();
        }
    }
}

impl Line {
    fn next_exchange(&mut self) -> u64 {
        self.exchange = self.exchange.wrapping_add(1);
        self.exchange
    }

    fn queue(&mut self, exchange: u64, head: &[u8]) {
        if self.exchange == exchange && self.queued.len().saturating_add(head.len()) <= MAX_QUEUED {
            self.queued.extend_from_slice(head);
            if let Some(connection) = self.connection.take() {
                connection.wake();
            }
        }
    }

    fn poll_write(&mut self, io: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.queued.has_remaining() {
            let written = ready!(Pin::new(&mut *io).poll_write(cx, &self.queued))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.queued.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

fn head(status: StatusCode, fields: &HeaderMap) -> Vec<u8> {
    let mut fields = fields.clone();
    strip_connection_fields(&mut fields);
    let reason = status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).into_bytes();
    for (name, value) in &fields {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// A connection on which interim responses are written between hyper's messages.
///
/// hyper flushes the connection only when it has nothing left to write, and hands out a request
/// only when it has encoded all of the response before. So what is queued while an exchange is
/// under way may be written at any flush, and before anything that hyper writes first after one:
/// that is the final response of this exchange, or its 100 (Continue).
#[derive(Debug)]
pub(crate) struct InterimIo {
    io: TcpStream,
    line: Arc<Mutex<Line>>,
}

impl InterimIo {
    fn poll_write_with(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let mut line = self.line.lock();
        if line.settled {
            ready!(line.poll_write(&mut self.io, cx))?;
        }
        let written = ready!(write(Pin::new(&mut self.io), cx))?;
        line.settled = false;
        Poll::Ready(Ok(written))
    }
}

impl AsyncWrite for InterimIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, |io, cx| io.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, |io, cx| io.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let mut line = this.line.lock();
        line.settled = true;
        line.connection = Some(cx.waker().clone());
        ready!(line.poll_write(&mut this.io, cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl AsyncRead for InterimIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}
