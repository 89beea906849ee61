//! One connection to a receiver.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use super::tls;

/// Counts the open connections, so that not all of the process's file descriptors end up as idle
/// connections: the pool itself has a limit per host only.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    open: Arc<AtomicUsize>,
    kept_max: usize,
}

impl Connections {
    pub(super) fn new(kept_max: usize) -> Self {
        Self { open: Arc::default(), kept_max }
    }

    pub(super) fn add(&self, io: Io) -> OpenConnection {
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        OpenConnection {
            marker: Marker::new(io.is_http2()),
            io,
            use_once: before >= self.kept_max,
            open: Arc::clone(&self.open),
        }
    }
}

/// Identifies a connection, and knows what it speaks and whether its receiver has begun to answer.
#[derive(Debug, Clone)]
pub(super) struct Marker(Arc<Marked>);

#[derive(Debug)]
struct Marked {
    is_http2: bool,
    has_heard: AtomicBool,
}

impl Marker {
    fn new(is_http2: bool) -> Self {
        Self(Arc::new(Marked { is_http2, has_heard: AtomicBool::new(false) }))
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether attempts share the connection, each with a stream of its own (RFC 9113).
    pub(super) fn is_http2(&self) -> bool {
        self.0.is_http2
    }

    /// Whether a byte has come in since one last went out.
    pub(super) fn has_heard(&self) -> bool {
        self.0.has_heard.load(Ordering::Relaxed)
    }

    fn note(&self, has_heard: bool) {
        self.0.has_heard.store(has_heard, Ordering::Relaxed);
    }
}

/// An open connection, with TLS or without.
pub(super) struct OpenConnection {
    io: Io,
    marker: Marker,
    use_once: bool,
    open: Arc<AtomicUsize>,
}

pub(super) enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Io {
    /// Whether the receiver chose HTTP/2 in the handshake (RFC 7301). Without TLS there is none.
    fn is_http2(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(io) => io.get_ref().1.alpn_protocol() == Some(tls::HTTP_2),
        }
    }
}

impl OpenConnection {
    pub(super) fn marker(&self) -> &Marker {
        &self.marker
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connection for OpenConnection {
    fn connected(&self) -> Connected {
        let mut connected = Connected::new().extra(self.marker.clone());
        if self.marker.is_http2() {
            connected = connected.negotiated_h2();
        }
        if self.use_once {
            connected.poison();
        }
        connected
    }
}

impl AsyncRead for OpenConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let poll = match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Io::Tls(io) => Pin::new(io).poll_read(cx, buf),
        };
        if buf.filled().len() > before {
            self.marker.note(true);
        }
        poll
    }
}

impl AsyncWrite for OpenConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.marker.note(false);
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Io::Tls(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_flush(cx),
            Io::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Io::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.marker.note(false);
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Io::Tls(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(io) => io.is_write_vectored(),
            Io::Tls(io) => io.is_write_vectored(),
        }
    }
}
