//! The receiving half of a link: leases of the shard's receive buffers in, frames and payload bytes out.
//!
//! What is copied: a record that lies whole in one lease is opened straight from there, to where its bytes belong when
//! they fill it (`poll_read`), else into `plain`, from which small frames are decoded where they lie. A record that straddles two
//! leases is put together in `carry` first (sealed bytes, one copy). The last record of a payload goes through
//! `plain`, for opening needs one byte of room behind the plaintext, which is not ours to write at the payload's end.

use std::io;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use flexfs_uring::Lease;
use flexfs_uring::socket::RecvStream;
use flexfs_wire::frame::{HEADER_BYTES, Header};
use flexfs_wire::record::{Opener, RECORD_HEADER_BYTES};

use super::error::LinkError;

/// Where received bytes come from; leases of the ring in life, vectors in tests.
pub trait Source {
    /// A received piece.
    type Piece: std::ops::Deref<Target = [u8]>;
    /// The next piece; `None` at the end of the stream.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Self::Piece>>>;
}

impl Source for RecvStream {
    type Piece = Lease;
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Lease>>> {
        self.poll_next(cx)
    }
}

/// Where the record at hand lies.
#[derive(Clone, Copy)]
enum At {
    Piece(usize),
    Carry(usize),
}

/// Where the body of the frame at hand lies.
#[derive(Clone, Copy, Debug, Default)]
enum Body {
    #[default]
    Nowhere,
    Plain(usize, usize),
    Frame,
}

/// See the module.
pub struct Rx<S: Source = RecvStream> {
    source: S,
    opener: Opener,
    piece: Option<S::Piece>,
    at: usize,
    /// Sealed bytes in front of those in `piece`.
    carry: Vec<u8>,
    plain: Vec<u8>,
    plain_at: usize,
    /// Header and body of a frame that came in pieces.
    frame: Vec<u8>,
    body: Body,
    /// Bytes received, sealed.
    pub received_bytes: u64,
    /// When the last of them came.
    pub received_at: Instant,
}

impl<S: Source> std::fmt::Debug for Rx<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rx").field("received_bytes", &self.received_bytes).finish_non_exhaustive()
    }
}

impl<S: Source> Rx<S> {
    /// `sealed` was received before, and then `plain` was opened from what came even earlier.
    pub fn new(source: S, opener: Opener, sealed: Vec<u8>, plain: Vec<u8>, now: Instant) -> Self {
        Self {
            source,
            opener,
            piece: None,
            at: 0,
            carry: sealed,
            plain,
            plain_at: 0,
            frame: Vec::new(),
            body: Body::Nowhere,
            received_bytes: 0,
            received_at: now,
        }
    }

    /// The next frame's header; its body is at [`Rx::body`] until the next call, its payload is to be read by
    /// [`Rx::poll_read`] before the next frame.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Header, LinkError>> {
        if matches!(self.body, Body::Frame) {
            self.frame.clear();
        }
        self.body = Body::Nowhere;
        loop {
            if self.frame.is_empty()
                && let Some(head) = self.plain[self.plain_at..].first_chunk::<HEADER_BYTES>()
            {
                let header = Header::decode(head)?;
                let start = self.plain_at + HEADER_BYTES;
                let end = start + header.body_bytes as usize;
                if end <= self.plain.len() {
                    self.plain_at = end;
                    self.body = Body::Plain(start, end);
                    return Poll::Ready(Ok(header));
                }
            }
            if self.gather(HEADER_BYTES)
                && let Some(head) = self.frame.first_chunk::<HEADER_BYTES>()
            {
                let header = Header::decode(head)?;
                if self.gather(HEADER_BYTES + header.body_bytes as usize) {
                    self.body = Body::Frame;
                    return Poll::Ready(Ok(header));
                }
            }
            ready!(self.poll_plain(cx))?;
        }
    }

    /// The body of the frame `poll_frame` gave last.
    pub fn body(&self) -> &[u8] {
        match self.body {
            Body::Nowhere => &[],
            Body::Plain(start, end) => self.plain.get(start..end).unwrap_or_default(),
            Body::Frame => self.frame.get(HEADER_BYTES..).unwrap_or_default(),
        }
    }

    /// Reads payload bytes; at least one unless `out` is empty. More of `out` than that may be overwritten.
    pub fn poll_read(&mut self, out: &mut [u8], cx: &mut Context<'_>) -> Poll<Result<usize, LinkError>> {
        // The body was decoded by now, and `plain` may be filled anew below.
        self.body = Body::Nowhere;
        self.frame.clear();
        loop {
            let rest = &self.plain[self.plain_at..];
            if out.is_empty() || !rest.is_empty() {
                let bytes = rest.len().min(out.len());
                out[..bytes].copy_from_slice(&rest[..bytes]);
                self.plain_at += bytes;
                return Poll::Ready(Ok(bytes));
            }
            let at = ready!(self.poll_record(cx))?;
            let (At::Piece(record) | At::Carry(record)) = at;
            if out.len() > Opener::plain_bytes_max(record) {
                let bytes = self.open(at, |opener, record| opener.open_into(record, out))?;
                if bytes > 0 {
                    return Poll::Ready(Ok(bytes));
                }
            } else {
                self.open_plain(at)?;
            }
        }
    }

    /// Whether the link is to be replaced.
    pub fn is_exhausted(&self) -> bool {
        self.opener.exhausted()
    }

    /// Fills `frame` up to `bytes` from `plain`; whether they are there.
    fn gather(&mut self, bytes: usize) -> bool {
        let wanted = bytes.saturating_sub(self.frame.len());
        let rest = &self.plain[self.plain_at..];
        let taken = &rest[..wanted.min(rest.len())];
        self.frame.extend_from_slice(taken);
        self.plain_at += taken.len();
        self.frame.len() >= bytes
    }

    /// Opens the next record into `plain`, all of which was used.
    fn poll_plain(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        let at = ready!(self.poll_record(cx))?;
        Poll::Ready(self.open_plain(at))
    }

    fn open_plain(&mut self, at: At) -> Result<(), LinkError> {
        let (At::Piece(record) | At::Carry(record)) = at;
        let mut plain = std::mem::take(&mut self.plain);
        plain.resize(Opener::plain_bytes_max(record) + 1, 0);
        let opened = self.open(at, |opener, record| opener.open_into(record, &mut plain));
        self.plain = plain;
        self.plain_at = 0;
        self.plain.truncate(*opened.as_ref().unwrap_or(&0));
        opened.map(|_| ())
    }

    /// Opens the record at hand and steps over it.
    fn open<T>(
        &mut self,
        at: At,
        open: impl FnOnce(&mut Opener, &[u8]) -> Result<T, flexfs_wire::record::RecordError>,
    ) -> Result<T, LinkError> {
        match at {
            At::Carry(bytes) => {
                let opened = open(&mut self.opener, &self.carry[..bytes]);
                self.carry.drain(..bytes);
                Ok(opened?)
            }
            At::Piece(bytes) => {
                let Some(piece) = &self.piece else { return Err(LinkError::Unexpected("no bytes")) };
                let opened = open(&mut self.opener, &piece[self.at..self.at + bytes]);
                self.at += bytes;
                if self.at >= piece.len() {
                    // Given back at once: the kernel may fill it again.
                    self.piece = None;
                }
                Ok(opened?)
            }
        }
    }

    /// Waits for a whole record.
    fn poll_record(&mut self, cx: &mut Context<'_>) -> Poll<Result<At, LinkError>> {
        loop {
            if !self.carry.is_empty() {
                let known = Opener::record_len(&self.carry)?;
                match known {
                    Some(bytes) if bytes <= self.carry.len() => return Poll::Ready(Ok(At::Carry(bytes))),
                    _ => {}
                }
                let wanted = known.unwrap_or(RECORD_HEADER_BYTES) - self.carry.len();
                if let Some(piece) = &self.piece {
                    let rest = &piece[self.at..];
                    let taken = &rest[..wanted.min(rest.len())];
                    self.carry.extend_from_slice(taken);
                    self.at += taken.len();
                    if self.at >= piece.len() {
                        self.piece = None;
                    }
                    continue;
                }
            } else if let Some(piece) = &self.piece {
                let rest = &piece[self.at..];
                match Opener::record_len(rest)? {
                    Some(bytes) if bytes <= rest.len() => return Poll::Ready(Ok(At::Piece(bytes))),
                    _ => {
                        self.carry.extend_from_slice(rest);
                        self.piece = None;
                    }
                }
                continue;
            }
            let Some(piece) = ready!(self.source.poll_piece(cx))? else {
                return Poll::Ready(Err(LinkError::Closed));
            };
            self.received_bytes += piece.len() as u64;
            self.received_at = flexfs_uring::clock::now();
            self.at = 0;
            self.piece = (!piece.is_empty()).then_some(piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;
    use std::task::Waker;

    use super::*;
    use crate::link::ledger::{Ledger, Pending};
    use crate::link::tx::Tx;
    use flexfs_wire::frame::Kind;
    use flexfs_wire::id::{BlockId, RequestId};
    use flexfs_wire::message::Request;
    use flexfs_wire::record::Sealer;
    use rustls::ConnectionTrafficSecrets;
    use rustls::crypto::cipher::{AeadKey, Iv};

    struct Pieces(VecDeque<Vec<u8>>);

    impl Source for Pieces {
        type Piece = Vec<u8>;
        fn poll_piece(&mut self, _: &mut Context<'_>) -> Poll<io::Result<Option<Vec<u8>>>> {
            Poll::Ready(Ok(self.0.pop_front()))
        }
    }

    fn secrets() -> ConnectionTrafficSecrets {
        ConnectionTrafficSecrets::Aes256Gcm { key: AeadKey::from([7; 32]), iv: Iv::new([9; 12]) }
    }

    /// Calls with bodies and payloads of these lengths, as `Tx` sends them.
    fn stream(lengths: &[(usize, usize)]) -> Vec<u8> {
        let mut tx = Tx::new(Sealer::new(0, &secrets()).unwrap());
        let mut ledger: Ledger<()> = Ledger::default();
        for (number, (body, payload)) in (1u64..).zip(lengths) {
            let byte = u8::try_from(number).unwrap();
            let payload = (*payload > 0).then(|| Arc::new(vec![byte; *payload]));
            let request = Request::PutBlock { block: BlockId(number) };
            ledger
                .handle_call(RequestId(number), Pending::new(&request, vec![byte; *body], payload, 0, None));
        }
        let mut sealed = Vec::new();
        loop {
            let mut out = Vec::new();
            tx.gather(&mut ledger, 1, &mut out).unwrap();
            if out.is_empty() {
                assert!(!tx.is_inside() && !ledger.has_queued());
                return sealed;
            }
            assert!(out.len() < 600 * 1024, "a turn is bounded");
            sealed.extend(out);
        }
    }

    fn receive(sealed: &[u8], early: usize, pieces: &[usize]) -> Vec<(u64, usize, usize)> {
        let (first, mut rest) = sealed.split_at(early);
        let mut cut = VecDeque::new();
        for piece in pieces.iter().cycle() {
            let (now, later) = rest.split_at((*piece).min(rest.len()));
            cut.push_back(now.to_vec());
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        let opener = Opener::new(0, &secrets()).unwrap();
        let mut rx = Rx::new(Pieces(cut), opener, first.to_vec(), Vec::new(), flexfs_uring::clock::now());
        let mut cx = Context::from_waker(Waker::noop());
        let mut found = Vec::new();
        loop {
            let header = match rx.poll_frame(&mut cx) {
                Poll::Ready(Ok(header)) => header,
                Poll::Ready(Err(LinkError::Closed)) => return found,
                other => panic!("{other:?}"),
            };
            assert_eq!((header.kind, header.mark), (Kind::Request, 1));
            let byte = u8::try_from(header.request.0).unwrap();
            assert!(rx.body().iter().all(|b| *b == byte));
            let body = rx.body().len();
            let mut payload = vec![0; header.payload_bytes as usize];
            let mut done = 0;
            while done < payload.len() {
                // In parts, as segments are read.
                let end = payload.len().min(done + 65_536);
                let Poll::Ready(bytes) = rx.poll_read(&mut payload[done..end], &mut cx) else { panic!() };
                done += bytes.unwrap();
            }
            assert!(payload.iter().all(|b| *b == byte));
            found.push((header.request.0, body, payload.len()));
        }
    }

    #[test]
    fn what_tx_sends_rx_receives_however_it_is_cut() {
        let lengths =
            [(20, 0), (0, 0), (40_000, 0), (30, 300_000), (5, 1), (9, 0), (16, 2_000_000), (3, 16_384)];
        let sealed = stream(&lengths);
        let wanted: Vec<_> = (1..).zip(lengths).map(|(id, (body, payload))| (id, body, payload)).collect();
        for (early, pieces) in [
            (0, &[usize::MAX][..]),
            (7, &[65_536]),
            (100, &[16_384]),
            (0, &[1, 5, 16_500]),
            (50_000, &[333, 70_000]),
        ] {
            assert_eq!(receive(&sealed, early, pieces), wanted, "{early} {pieces:?}");
        }
    }

    #[test]
    fn changed_bytes_end_the_link() {
        let mut sealed = stream(&[(20, 100_000)]);
        sealed[50_000] ^= 1;
        let opener = Opener::new(0, &secrets()).unwrap();
        let source = Pieces(VecDeque::from([sealed]));
        let mut rx = Rx::new(source, opener, Vec::new(), Vec::new(), flexfs_uring::clock::now());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(rx.poll_frame(&mut cx), Poll::Ready(Ok(_))));
        let mut payload = vec![0; 100_000];
        let mut done = 0;
        let error = loop {
            match rx.poll_read(&mut payload[done..], &mut cx) {
                Poll::Ready(Ok(bytes)) => done += bytes,
                Poll::Ready(Err(error)) => break error,
                Poll::Pending => panic!(),
            }
        };
        assert!(matches!(error, LinkError::Record(_)) && done < 50_000, "{error}");
    }
}
