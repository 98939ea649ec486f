//! Watches ssh's pipes: notes the time of each byte as a sign of life, and checks what the server
//! sends before the client library reads it.
//!
//! The library reserves memory for any length or count that a packet claims, subtracts from lengths
//! unchecked, and drops the connection over a name that is not UTF-8. So a packet that claims more
//! than it can hold ends the connection here, and such a name arrives with `?` in it, which is in
//! no key. The library's writing task does not always notice that its reading task ended; so once
//! nothing more can arrive, nothing more is sent.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::packet::{HEAD_BYTES, Head, cleaned};

const READ_BYTES: usize = 32 << 10;

/// The state that both pipes of a connection share.
#[derive(Debug)]
pub(super) struct Wire {
    began: Instant,
    /// Time of the last byte, in milliseconds since `began`.
    moved: AtomicU64,
    /// What is wrong with the server's packets. Unset: nothing so far.
    fault: OnceLock<&'static str>,
    /// Whether the server's side of the connection has ended.
    is_over: AtomicBool,
}

impl Wire {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            moved: AtomicU64::new(0),
            fault: OnceLock::new(),
            is_over: AtomicBool::new(false),
        }
    }

    /// Returns the time at which a byte moved last.
    pub(super) fn moved(&self) -> Instant {
        self.began + Duration::from_millis(self.moved.load(Ordering::Relaxed))
    }

    /// Returns what is wrong with the server's packets, if anything is.
    pub(super) fn fault(&self) -> Option<&'static str> {
        self.fault.get().copied()
    }

    /// Notes that a byte moved now.
    fn moves(&self) {
        let millis = self.began.elapsed().as_millis();
        let millis = u64::try_from(millis).unwrap_or(u64::MAX);
        self.moved.store(millis, Ordering::Relaxed);
    }
}

/// The pipe to the server.
#[derive(Debug)]
pub(super) struct Outgoing<W> {
    inner: W,
    wire: Arc<Wire>,
}

impl<W> Outgoing<W> {
    pub(super) fn new(inner: W, wire: Arc<Wire>) -> Self {
        Self { inner, wire }
    }

    fn noted(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(1..)) = written {
            self.wire.moves();
        }
        written
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Outgoing<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.noted(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.noted(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.wire.is_over.load(Ordering::SeqCst) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

/// The pipe from the server.
#[derive(Debug)]
pub(super) struct Incoming<R> {
    inner: R,
    wire: Arc<Wire>,
    buffer: Box<[u8]>,
    /// Bytes that were read; those from `checked` on are not checked yet.
    raw: Vec<u8>,
    checked: usize,
    /// Bytes that were checked; those from `passed` on are not passed on yet.
    good: Vec<u8>,
    passed: usize,
    /// Number of bytes of the current packet that pass without a check.
    unseen: usize,
    is_first: bool,
}

impl<R> Incoming<R> {
    pub(super) fn new(inner: R, wire: Arc<Wire>) -> Self {
        Self {
            inner,
            wire,
            buffer: vec![0; READ_BYTES].into(),
            raw: Vec::new(),
            checked: 0,
            good: Vec::new(),
            passed: 0,
            unseen: 0,
            is_first: true,
        }
    }

    /// Checks `raw` and moves what may pass to `good`.
    fn check(&mut self) -> Result<(), &'static str> {
        self.good.drain(..self.passed);
        self.passed = 0;
        loop {
            let rest = &self.raw[self.checked..];
            let unseen = rest.len().min(self.unseen);
            if unseen > 0 {
                self.good.extend_from_slice(&rest[..unseen]);
                self.checked += unseen;
                self.unseen -= unseen;
                continue;
            }
            let needed = if self.is_first { 4 } else { HEAD_BYTES };
            if rest.len() < needed {
                break;
            }
            let head = Head::read(rest, self.is_first)?;
            if head.has_texts {
                let Some(packet) = rest.get(..head.bytes) else {
                    break;
                };
                self.good.extend_from_slice(&cleaned(packet)?);
                self.checked += head.bytes;
            } else {
                self.unseen = head.bytes;
            }
            self.is_first = false;
        }
        self.raw.drain(..self.checked);
        self.checked = 0;
        Ok(())
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Incoming<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = ready!(self.poll_good(context, buffer));
        if read.is_err() || buffer.filled().len() == before {
            self.wire.is_over.store(true, Ordering::SeqCst);
        }
        Poll::Ready(read)
    }
}

impl<R: AsyncRead + Unpin> Incoming<R> {
    /// Reads checked bytes into `buffer`.
    fn poll_good(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let good = &self.good[self.passed..];
            if !good.is_empty() {
                let length = good.len().min(buffer.remaining());
                buffer.put_slice(&good[..length]);
                self.passed += length;
                return Poll::Ready(Ok(()));
            }
            if self.raw.is_empty() && (1..=self.unseen).contains(&buffer.remaining()) {
                // The middle of an object passes without a copy.
                let before = buffer.filled().len();
                ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
                let length = buffer.filled().len() - before;
                self.unseen -= length;
                if length > 0 {
                    self.wire.moves();
                }
                return Poll::Ready(Ok(()));
            }
            let mut piece = ReadBuf::new(&mut self.buffer);
            ready!(Pin::new(&mut self.inner).poll_read(context, &mut piece))?;
            if piece.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.wire.moves();
            self.raw.extend_from_slice(piece.filled());
            if let Err(fault) = self.check() {
                let fault = self.wire.fault.get_or_init(|| fault);
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, *fault)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::super::packet::tests::{data, hello, names};
    use super::*;

    fn read(sent: &[u8], at_once: usize) -> (Vec<u8>, Option<&'static str>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let wire = Arc::new(Wire::new());
        let mut incoming = Incoming::new(sent, Arc::clone(&wire));
        let mut got = Vec::new();
        runtime.block_on(async {
            let mut buffer = vec![0; at_once];
            while let Ok(length @ 1..) = incoming.read(&mut buffer).await {
                got.extend_from_slice(&buffer[..length]);
            }
        });
        (got, wire.fault())
    }

    #[test]
    fn sound_packets_pass_unchanged() {
        let sent = [
            hello(),
            data(&[7; 100_000]),
            names(&[b"x", b"y"]),
            data(b""),
        ]
        .concat();
        for at_once in [1, 9, 4096, 1 << 20] {
            let (got, fault) = read(&sent, at_once);
            assert_eq!(fault, None);
            assert!(got == sent, "{at_once}");
        }
    }

    #[test]
    fn a_name_that_is_not_utf_8_is_cleaned() {
        let sent = [hello(), names(&["ü".as_bytes(), b"caf\xe9"])].concat();
        let expected = [hello(), names(&["ü".as_bytes(), b"caf?"])].concat();
        let (got, fault) = read(&sent, 4096);
        assert_eq!(fault, None);
        assert!(got[..] == expected[..]);
    }

    #[test]
    fn false_claims_end_the_connection() {
        let sound = [hello(), data(b"x")].concat();
        let cases: [(&[u8], &str); 4] = [
            (b"Welcome to this server!\n", "no sftp"),
            (&[0, 0, 0, 2, 101, 0, 0, 0, 0, 0, 0, 0, 0], "short"),
            (&[0x7f, 0, 0, 0, 103, 0, 0, 0, 0, 0, 0, 0, 0], "long"),
            (&[0, 0, 0, 9, 104, 0, 0, 0, 0, 0xff, 0, 0, 0], "names"),
        ];
        for (number, (sent, says)) in cases.into_iter().enumerate() {
            let before = if number == 0 { &[][..] } else { &sound[..] };
            let (got, fault) = read(&[before, sent].concat(), 4096);
            assert!(got.len() <= before.len());
            assert!(fault.unwrap().contains(says), "{fault:?}");
        }
    }
}
