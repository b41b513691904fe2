//! Plaintext into frames, without I/O. Small frames are handed out where they lie; payloads are collected in a buffer
//! of their own, into which the record layer may open records directly.

use flexfs_wire::block::STORED_BYTES_MAX;
use flexfs_wire::frame::{FrameError, HEADER_BYTES, Header, Kind};
use flexfs_wire::limits::REQUEST_BODY_BYTES_MAX;
use flexfs_wire::record::OVERHEAD_BYTES;

use crate::payload::Payload;

/// What the assembler has for its owner.
#[derive(Debug)]
pub enum Event<'a> {
    /// A whole frame.
    Frame {
        /// Its header.
        header: Header,
        /// Its body, to be decoded now.
        body: &'a [u8],
        /// Its payload, empty for most kinds.
        payload: Payload,
    },
    /// A payload of so many bytes follows: find room for it, then call [`Assembler::room`].
    Room(usize),
    /// All input is used up.
    More,
}

/// Why the link must end.
#[derive(Debug, thiserror::Error)]
pub enum InboundError {
    /// No frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A payload where none may be.
    #[error("a frame of kind {0:?} carries {1} payload bytes")]
    Payload(Kind, u32),
}

#[derive(Debug)]
enum State {
    /// Header and body are being collected.
    Small,
    /// Room for the payload was asked for.
    Waiting(Header),
    /// The payload is being collected.
    Payload { header: Header, payload: Payload, filled: usize },
}

/// Collects frames.
#[derive(Debug)]
pub struct Assembler {
    state: State,
    /// Header and body of a frame that came in pieces.
    small: Vec<u8>,
    /// `small` was handed out and is to be cleared.
    spent: bool,
}

impl Assembler {
    /// Nothing collected.
    #[expect(
        clippy::new_without_default,
        reason = "made for each link, never part of something that has defaults"
    )]
    pub fn new() -> Self {
        Self { state: State::Small, small: Vec::new(), spent: false }
    }

    /// Whether a frame has begun and not ended.
    pub fn is_inside(&self) -> bool {
        !matches!(self.state, State::Small) || (!self.spent && !self.small.is_empty())
    }

    /// Payload bytes still to come of the frame at hand.
    pub fn payload_left(&self) -> usize {
        match &self.state {
            State::Small => 0,
            State::Waiting(header) => header.payload_bytes as usize,
            State::Payload { header, filled, .. } => header.payload_bytes as usize - filled,
        }
    }

    /// Room was found for the payload asked for; `spare` is a buffer that nobody needs, of any size.
    pub fn room(&mut self, spare: Vec<u8>) {
        if let State::Waiting(header) = self.state {
            // One byte more: the record layer wants it for the content type.
            let payload = Payload::of(header.payload_bytes as usize, 1, spare);
            self.state = State::Payload { header, payload, filled: 0 };
        }
    }

    /// Where a record of `record_bytes` bytes may be opened directly, if it holds payload only.
    pub fn target(&mut self, record_bytes: usize) -> Option<&mut [u8]> {
        let plain_max = record_bytes.checked_sub(OVERHEAD_BYTES)?;
        match &mut self.state {
            State::Payload { header, payload, filled }
                if plain_max > 0 && plain_max <= header.payload_bytes as usize - *filled =>
            {
                payload.part_mut(*filled..*filled + plain_max + 1)
            }
            _ => None,
        }
    }

    /// So many bytes were opened into [`Assembler::target`].
    pub fn filled(&mut self, bytes: usize) {
        if let State::Payload { header, filled, .. } = &mut self.state {
            *filled = (*filled + bytes).min(header.payload_bytes as usize);
        }
    }

    /// The next event; takes what it uses from the front of `plain`.
    ///
    /// # Errors
    /// [`InboundError`]: the link is of no use.
    pub fn next<'a, 'p: 'a>(&'a mut self, plain: &mut &'p [u8]) -> Result<Event<'a>, InboundError> {
        if self.spent {
            self.small.clear();
            self.spent = false;
        }
        match &mut self.state {
            State::Small => {}
            State::Waiting(header) => return Ok(Event::Room(header.payload_bytes as usize)),
            State::Payload { header, payload, filled } => {
                let left = header.payload_bytes as usize - *filled;
                let (taken, rest) = plain.split_at(left.min(plain.len()));
                if let Some(room) = payload.part_mut(*filled..*filled + taken.len()) {
                    room.copy_from_slice(taken);
                }
                *filled += taken.len();
                *plain = rest;
                if *filled < header.payload_bytes as usize {
                    return Ok(Event::More);
                }
                let header = *header;
                let payload = std::mem::take(payload);
                self.state = State::Small;
                self.spent = true;
                return Ok(Event::Frame { header, body: &self.small[HEADER_BYTES..], payload });
            }
        }
        if self.small.is_empty()
            && let Some(head) = plain.first_chunk::<HEADER_BYTES>()
        {
            let header = check(Header::decode(head)?)?;
            let end = HEADER_BYTES + header.body_bytes as usize;
            if header.payload_bytes == 0
                && let Some(body) = plain.get(HEADER_BYTES..end)
            {
                *plain = &plain[end..];
                return Ok(Event::Frame { header, body, payload: Payload::default() });
            }
        }
        self.collect(plain)
    }

    /// Collects header and body piece by piece.
    fn collect<'a>(&'a mut self, plain: &mut &[u8]) -> Result<Event<'a>, InboundError> {
        if !self.fill(HEADER_BYTES, plain) {
            return Ok(Event::More);
        }
        let head = self.small.first_chunk::<HEADER_BYTES>().expect("filled to that length above");
        let header = check(Header::decode(head)?)?;
        if !self.fill(HEADER_BYTES + header.body_bytes as usize, plain) {
            return Ok(Event::More);
        }
        if header.payload_bytes > 0 {
            self.state = State::Waiting(header);
            return Ok(Event::Room(header.payload_bytes as usize));
        }
        self.spent = true;
        Ok(Event::Frame { header, body: &self.small[HEADER_BYTES..], payload: Payload::default() })
    }

    /// Fills `small` up to `bytes`; whether they are there.
    fn fill(&mut self, bytes: usize, plain: &mut &[u8]) -> bool {
        let wanted = bytes.saturating_sub(self.small.len());
        let (taken, rest) = plain.split_at(wanted.min(plain.len()));
        self.small.extend_from_slice(taken);
        *plain = rest;
        self.small.len() >= bytes
    }
}

/// Only a request carries a payload, and no more than a block has. Calls have short bodies: many of them may wait.
fn check(header: Header) -> Result<Header, InboundError> {
    let is_call = matches!(header.kind, Kind::Request | Kind::Replay);
    if is_call && header.body_bytes as usize > REQUEST_BODY_BYTES_MAX {
        return Err(FrameError::TooLarge(header.body_bytes.into()).into());
    }
    let allowed = match header.kind {
        Kind::Request => STORED_BYTES_MAX,
        Kind::Hello | Kind::Welcome | Kind::Reply | Kind::Notice | Kind::Replay | Kind::Recovery => 0,
    };
    if header.payload_bytes as usize > allowed {
        return Err(InboundError::Payload(header.kind, header.payload_bytes));
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flexfs_wire::frame;
    use flexfs_wire::id::RequestId;

    fn stream() -> Vec<u8> {
        let mut out = Vec::new();
        for (request, payload) in [(1u8, 0usize), (2, 70_000), (3, 0), (4, 1), (5, 0)] {
            let header = Header::new(Kind::Request, RequestId(request.into()));
            frame::encode(header, &vec![request; 300], payload, &mut out).unwrap();
            out.extend(std::iter::repeat_n(request, payload));
        }
        out
    }

    fn collect(pieces: &[usize]) -> Vec<(u64, usize, usize)> {
        let bytes = stream();
        let mut rest = bytes.as_slice();
        let mut assembler = Assembler::new();
        let mut found = Vec::new();
        for piece in pieces.iter().cycle() {
            let (mut plain, later) = rest.split_at((*piece).min(rest.len()));
            rest = later;
            loop {
                match assembler.next(&mut plain).unwrap() {
                    Event::More => break,
                    Event::Room(_) => assembler.room(Vec::new()),
                    Event::Frame { header, body, payload } => {
                        assert!(payload.iter().all(|&b| u64::from(b) == header.request.0));
                        found.push((header.request.0, body.len(), payload.len()));
                    }
                }
                if plain.is_empty() && !matches!(assembler.state, State::Waiting(_)) {
                    break;
                }
            }
            if rest.is_empty() {
                assert!(!assembler.is_inside());
                return found;
            }
        }
        found
    }

    #[test]
    fn any_cut_gives_the_same_frames() {
        let whole = collect(&[usize::MAX]);
        assert_eq!(whole.iter().map(|f| f.2).collect::<Vec<_>>(), [0, 70_000, 0, 1, 0]);
        for pieces in [&[1][..], &[31], &[32], &[33], &[7, 16_384], &[16_384], &[334, 5]] {
            assert_eq!(collect(pieces), whole, "{pieces:?}");
        }
    }

    #[test]
    fn payload_records_have_a_place() {
        let mut out = Vec::new();
        frame::encode(Header::new(Kind::Request, RequestId(1)), &0u8, 20_000, &mut out).unwrap();
        let mut assembler = Assembler::new();
        let mut plain = out.as_slice();
        assert!(matches!(assembler.next(&mut plain).unwrap(), Event::Room(20_000)));
        assembler.room(Vec::new());
        assert_eq!(assembler.target(16_384 + OVERHEAD_BYTES).unwrap().len(), 16_385);
        assembler.filled(16_384);
        assert!(assembler.target(16_384 + OVERHEAD_BYTES).is_none(), "it holds the next frame too");
        assert_eq!(assembler.target(3_616 + OVERHEAD_BYTES).unwrap().len(), 3_617);
        assembler.filled(3_616);
        let mut nothing: &[u8] = &[];
        assert!(matches!(assembler.next(&mut nothing).unwrap(), Event::Frame { .. }));
    }

    #[test]
    fn calls_are_short() {
        for (kind, fits) in [(Kind::Request, false), (Kind::Replay, false), (Kind::Recovery, true)] {
            let mut header = Header::new(kind, RequestId(1));
            header.body_bytes = u32::try_from(REQUEST_BODY_BYTES_MAX).unwrap();
            assert!(Assembler::new().next(&mut header.encode().as_slice()).is_ok());
            header.body_bytes += 1;
            assert_eq!(Assembler::new().next(&mut header.encode().as_slice()).is_ok(), fits, "{kind:?}");
        }
    }

    #[test]
    fn payloads_belong_to_requests() {
        let mut header = Header::new(Kind::Replay, RequestId(1));
        header.payload_bytes = 1;
        let bytes = header.encode();
        let mut assembler = Assembler::new();
        assert!(assembler.next(&mut bytes.as_slice()).is_err());
    }
}
