//! The sending half of a link: calls of one turn become one buffer and one send.
//!
//! What is copied: headers and bodies of small frames into one plaintext buffer, which is sealed as few records. A
//! payload is sealed straight from the caller's buffer, in records of its own, so that the server can open them straight
//! to their place; a large one over several turns, so that sealing (about 0.25 ms per MiB) never holds the shard for
//! longer than that.

use std::sync::Arc;

use flexfs_wire::frame::{Header, Kind};
use flexfs_wire::id::RequestId;
use flexfs_wire::record::{RecordError, Sealer};

use super::error::LinkError;
use super::ledger::Ledger;

/// Plaintext after which a buffer is full: small enough to keep turns short, large enough for the socket to be busy.
const TURN_BYTES: usize = 512 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Tx {
    sealer: Sealer,
    /// Frames that are gathered and not sealed.
    plain: Vec<u8>,
    /// A payload that was sealed in part, and how far.
    rest: Option<(Arc<Vec<u8>>, usize)>,
}

impl Tx {
    /// Nothing gathered.
    pub(crate) fn new(sealer: Sealer) -> Self {
        Self { sealer, plain: Vec::new(), rest: None }
    }

    /// Appends the next records to `out`, which stays empty when there is nothing to send.
    ///
    /// # Errors
    /// The keys are used up.
    pub(crate) fn gather<W>(
        &mut self,
        ledger: &mut Ledger<W>,
        mark: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), LinkError> {
        let mut left = TURN_BYTES;
        loop {
            if let Some((payload, done)) = self.rest.take() {
                let end = payload.len().min(done + left);
                self.sealer.seal(&[&payload[done..end]], out)?;
                left -= end - done;
                if end < payload.len() {
                    self.rest = Some((payload, end));
                    return Ok(());
                }
            }
            while self.rest.is_none()
                && self.plain.len() < left
                && let Some((id, call)) = ledger.poll_send()
            {
                push_request(
                    id,
                    mark,
                    &call.body,
                    call.payload.as_ref().map_or(0, |p| p.len()),
                    &mut self.plain,
                )?;
                self.rest =
                    call.payload.clone().filter(|payload| !payload.is_empty()).map(|payload| (payload, 0));
            }
            left = left.saturating_sub(self.plain.len());
            self.seal_plain(out)?;
            if self.rest.is_none() || left == 0 {
                return Ok(());
            }
        }
    }

    /// Appends frames that were made elsewhere.
    ///
    /// # Errors
    /// The keys are used up.
    pub(crate) fn seal_frames(&mut self, frames: &[u8], out: &mut Vec<u8>) -> Result<(), RecordError> {
        self.sealer.seal(&[frames], out)
    }

    /// Appends the orderly end.
    ///
    /// # Errors
    /// The keys are used up.
    pub(crate) fn close(&mut self, out: &mut Vec<u8>) -> Result<(), RecordError> {
        self.sealer.close(out)
    }

    /// Whether a frame was sent in part.
    pub(crate) fn is_inside(&self) -> bool {
        self.rest.is_some()
    }

    /// Whether the link is to be replaced.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.sealer.exhausted()
    }

    fn seal_plain(&mut self, out: &mut Vec<u8>) -> Result<(), RecordError> {
        if !self.plain.is_empty() {
            self.sealer.seal(&[&self.plain], out)?;
            self.plain.clear();
        }
        Ok(())
    }
}

/// Appends the header and the encoded body of a request.
///
/// # Errors
/// Lengths beyond 4 GiB; bodies and payloads were bounded when they were made.
fn push_request(
    id: RequestId,
    mark: u64,
    body: &[u8],
    payload_bytes: usize,
    out: &mut Vec<u8>,
) -> Result<(), LinkError> {
    let too_long = |_| LinkError::Unexpected("a frame is too long");
    let mut header = Header::new(Kind::Request, id);
    header.mark = mark;
    header.body_bytes = u32::try_from(body.len()).map_err(too_long)?;
    header.payload_bytes = u32::try_from(payload_bytes).map_err(too_long)?;
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(body);
    Ok(())
}
