//! TLS 1.3 records (RFC 8446 section 5) after the handshake, on buffers the caller owns.
//!
//! rustls does the handshake ([`Handshake`]); then its traffic keys move into a [`Sealer`] and an [`Opener`] and
//! rustls is gone. What that buys: records are sealed straight from where the bytes are into the send buffer, and
//! opened straight from the receive buffer to where the bytes belong (a FUSE request's payload), with no copy of
//! plaintext in between.
//!
//! ```text
//!  0     1        3         5
//! +-----+--------+---------+----------------------------------------------+
//! | 23  | 0x0303 | length  | AEAD( plaintext ‖ type u8 ‖ zeros ) ‖ tag 16 |
//! +-----+--------+---------+----------------------------------------------+
//!   nonce = iv XOR sequence number; additional data = the first five bytes
//! ```
//!
//! Absent on purpose: key updates and tickets. Neither side asks for them (tickets are switched off in [`crate::tls`],
//! and a link is replaced long before its keys wear out, see [`Sealer::exhausted`]), so a handshake message behind the
//! handshake is an error. Bytes of any kind give an error, never a panic; after an error a link is of no use.

use std::sync::Arc;

use aws_lc_rs::aead::{self, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::client::ClientConfig;
use rustls::server::ServerConfig;
use rustls::{ClientConnection, Connection, ConnectionTrafficSecrets, ServerConnection};
use zeroize::Zeroizing;

use crate::hello::EXPORTER_LABEL;
use crate::tls::Role;

/// Bytes before a record's ciphertext.
pub const RECORD_HEADER_BYTES: usize = 5;
/// Most plaintext bytes of one record.
pub const PLAIN_BYTES_MAX: usize = 1 << 14;
/// Most bytes of one record as it travels: RFC 8446 5.2 allows 256 bytes beyond the plaintext.
pub const RECORD_BYTES_MAX: usize = RECORD_HEADER_BYTES + PLAIN_BYTES_MAX + 256;
/// Bytes a full record of ours is longer than its plaintext: header, content type, tag.
pub const OVERHEAD_BYTES: usize = RECORD_HEADER_BYTES + 1 + TAG_BYTES;

/// Records one key may seal or open before its link is to be replaced. AES-GCM holds for 2^24.5 full records
/// (RFC 8446 5.5); half of the bound rustls uses leaves time to bring up the next link.
pub const RECORDS_PER_KEY: u64 = 1 << 23;
/// Beyond this many the key refuses to work.
const RECORDS_PER_KEY_MAX: u64 = 1 << 24;

const TAG_BYTES: usize = 16;
const TYPE_ALERT: u8 = 21;
const TYPE_HANDSHAKE: u8 = 22;
const TYPE_DATA: u8 = 23;
const CLOSE_NOTIFY: u8 = 0;
const FATAL: u8 = 2;

/// Why a record, or a handshake, was refused. `Closed` is the peer's orderly end, the rest ends the link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The peer said that it sends no more.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer gave up.
    #[error("the peer ended the connection with TLS alert {0}")]
    Alert(u8),
    /// Not TLS 1.3 application records.
    #[error("record of content type {0}: the peer does not speak TLS 1.3 here")]
    Type(u8),
    /// Longer than a record may be, or too short to hold a tag.
    #[error("record of {0} bytes: the peer does not speak TLS 1.3 here")]
    Length(usize),
    /// The tag is wrong: bytes were changed, lost or repeated on the way.
    #[error("record authentication failed: bytes were changed or lost on the way")]
    Tag,
    /// A handshake message, where none is to come.
    #[error("unexpected TLS handshake message after the handshake")]
    Handshake,
    /// The key was used as often as it may be.
    #[error("the connection's keys are used up; reconnect")]
    Exhausted,
    /// `open_into` was given less room than the record's plaintext and one byte.
    #[error("no room for the record's plaintext")]
    Room,
    /// rustls refused; the text is [`crate::tls::explain`]'s.
    #[error("{0}")]
    Tls(String),
}

/// One direction's key, nonce base and count.
struct Key {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    sequence: u64,
}

impl Key {
    fn new(sequence: u64, secrets: &ConnectionTrafficSecrets) -> Result<Self, RecordError> {
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&aead::AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&aead::AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&aead::CHACHA20_POLY1305, key, iv),
            _ => return Err(RecordError::Tls("TLS: unknown cipher suite".to_owned())),
        };
        let bad = || RecordError::Tls("TLS: traffic key of a wrong length".to_owned());
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| bad())?;
        let iv = iv.as_ref().try_into().map_err(|_| bad())?;
        Ok(Self { key: LessSafeKey::new(key), iv, sequence })
    }

    /// The nonce of the next record; the count goes up, so no nonce is used twice.
    fn nonce(&mut self) -> Result<Nonce, RecordError> {
        if self.sequence >= RECORDS_PER_KEY_MAX {
            return Err(RecordError::Exhausted);
        }
        let mut nonce = self.iv;
        // RFC 8446 5.3: the sequence number in network order, padded on the left.
        for (byte, number) in nonce[NONCE_LEN - 8..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= number;
        }
        self.sequence += 1;
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

fn header(ciphertext_bytes: usize) -> [u8; RECORD_HEADER_BYTES] {
    let length = u16::try_from(ciphertext_bytes).expect("callers cut records to their bound");
    let [high, low] = length.to_be_bytes();
    [TYPE_DATA, 3, 3, high, low]
}

/// Seals what one side sends.
pub struct Sealer(Key);

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("sequence", &self.0.sequence).finish_non_exhaustive()
    }
}

impl Sealer {
    /// From the keys of one direction, as rustls hands them out, and the number of the next record.
    ///
    /// # Errors
    /// `Tls` for a cipher suite or key this program does not know.
    pub fn new(sequence: u64, secrets: &ConnectionTrafficSecrets) -> Result<Self, RecordError> {
        Key::new(sequence, secrets).map(Self)
    }

    /// Appends records with the bytes of `parts`, one behind the other, to `out`. The first part starts a new
    /// record. A large payload is best sealed by a call of its own: its records then hold nothing else and the
    /// receiver opens them straight to their place.
    ///
    /// # Errors
    /// `Exhausted`; nothing useful is in `out` behind its former end then.
    pub fn seal(&mut self, parts: &[&[u8]], out: &mut Vec<u8>) -> Result<(), RecordError> {
        let mut left: usize = parts.iter().map(|part| part.len()).sum();
        out.reserve(left + left.div_ceil(PLAIN_BYTES_MAX) * OVERHEAD_BYTES);
        let mut cursor = Cursor { parts, offset: 0 };
        while left > 0 {
            let bytes = left.min(PLAIN_BYTES_MAX);
            self.seal_record(&mut cursor, bytes, TYPE_DATA, out)?;
            left -= bytes;
        }
        Ok(())
    }

    /// Appends the orderly end (`close_notify`).
    ///
    /// # Errors
    /// `Exhausted`.
    pub fn close(&mut self, out: &mut Vec<u8>) -> Result<(), RecordError> {
        let mut cursor = Cursor { parts: &[&[1, CLOSE_NOTIFY]], offset: 0 };
        self.seal_record(&mut cursor, 2, TYPE_ALERT, out)
    }

    /// Whether the link should be replaced by a new one now.
    #[must_use]
    pub fn exhausted(&self) -> bool {
        self.0.sequence >= RECORDS_PER_KEY
    }

    fn seal_record(
        &mut self,
        cursor: &mut Cursor<'_>,
        bytes: usize,
        kind: u8,
        out: &mut Vec<u8>,
    ) -> Result<(), RecordError> {
        let nonce = self.0.nonce()?;
        let header = header(bytes + 1 + TAG_BYTES);
        let start = out.len() + RECORD_HEADER_BYTES;
        out.extend_from_slice(&header);
        if let Some(plain) = cursor.take_whole(bytes) {
            out.resize(start + bytes + 1 + TAG_BYTES, 0);
            let (sealed, tail) = out[start..].split_at_mut(bytes);
            self.0
                .key
                .seal_out_of_place_scatter(nonce, Aad::from(header), plain, sealed, &[kind], tail)
                .map_err(|_| RecordError::Tag)
        } else {
            cursor.copy(bytes, out);
            out.push(kind);
            let tag = self
                .0
                .key
                .seal_in_place_separate_tag(nonce, Aad::from(header), &mut out[start..])
                .map_err(|_| RecordError::Tag)?;
            out.extend_from_slice(tag.as_ref());
            Ok(())
        }
    }
}

/// A position in a row of slices.
struct Cursor<'a> {
    parts: &'a [&'a [u8]],
    offset: usize,
}

impl<'a> Cursor<'a> {
    /// The next `bytes` bytes when one part holds them all.
    fn take_whole(&mut self, bytes: usize) -> Option<&'a [u8]> {
        while let [first, rest @ ..] = self.parts {
            if self.offset < first.len() {
                let found = first.get(self.offset..self.offset + bytes)?;
                self.offset += bytes;
                return Some(found);
            }
            self.parts = rest;
            self.offset = 0;
        }
        None
    }

    /// Appends the next `bytes` bytes, or as many as there are.
    fn copy(&mut self, mut bytes: usize, out: &mut Vec<u8>) {
        while let [first, rest @ ..] = self.parts {
            let found = &first[self.offset..];
            let part = &found[..found.len().min(bytes)];
            out.extend_from_slice(part);
            self.offset += part.len();
            bytes -= part.len();
            if bytes == 0 {
                return;
            }
            self.parts = rest;
            self.offset = 0;
        }
    }
}

/// Opens what one side receives. Records must come in order, each once.
pub struct Opener(Key);

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opener").field("sequence", &self.0.sequence).finish_non_exhaustive()
    }
}

impl Opener {
    /// From the keys of one direction, as rustls hands them out, and the number of the next record.
    ///
    /// # Errors
    /// `Tls` for a cipher suite or key this program does not know.
    pub fn new(sequence: u64, secrets: &ConnectionTrafficSecrets) -> Result<Self, RecordError> {
        Key::new(sequence, secrets).map(Self)
    }

    /// Bytes of the record that `bytes` begin with, header included; `None` while its header is incomplete.
    ///
    /// # Errors
    /// `Type`, `Length`: this is no record, and the link is of no use.
    pub fn record_len(bytes: &[u8]) -> Result<Option<usize>, RecordError> {
        let Some(header) = bytes.first_chunk::<RECORD_HEADER_BYTES>() else {
            return match bytes.first() {
                Some(&kind) if kind != TYPE_DATA => Err(RecordError::Type(kind)),
                _ => Ok(None),
            };
        };
        if header[0] != TYPE_DATA {
            return Err(RecordError::Type(header[0]));
        }
        let ciphertext = usize::from(u16::from_be_bytes([header[3], header[4]]));
        let record = RECORD_HEADER_BYTES + ciphertext;
        if ciphertext <= TAG_BYTES || record > RECORD_BYTES_MAX {
            return Err(RecordError::Length(record));
        }
        Ok(Some(record))
    }

    /// Most plaintext bytes in a record of `record_bytes` bytes; padding may make it fewer.
    #[must_use]
    pub fn plain_bytes_max(record_bytes: usize) -> usize {
        record_bytes.saturating_sub(OVERHEAD_BYTES)
    }

    /// Opens a whole record where it is; the plaintext is a part of `record`.
    ///
    /// # Errors
    /// Any but `Room` and `Tls`.
    pub fn open_in_place<'a>(&mut self, record: &'a mut [u8]) -> Result<&'a mut [u8], RecordError> {
        let header = check_whole(record)?;
        let nonce = self.0.nonce()?;
        let (body, tag) = record[RECORD_HEADER_BYTES..]
            .split_last_chunk_mut::<TAG_BYTES>()
            .ok_or(RecordError::Length(0))?;
        let opened = self.0.key.open_in_place_separate_tag(nonce, Aad::from(header), tag, body);
        let plain = opened.map_err(|_| RecordError::Tag)?;
        let bytes = strip(plain)?;
        Ok(&mut plain[..bytes])
    }

    /// Opens a whole record into `out`, which must have room for its plaintext **and one byte** (the content type;
    /// more when the peer pads): `record.len() - 21` bytes. Returns the bytes of plaintext; what lies behind them in
    /// `out`, up to that room, is overwritten.
    ///
    /// # Errors
    /// Any but `Tls`. After `Room` the record may still be opened another way.
    pub fn open_into(&mut self, record: &[u8], out: &mut [u8]) -> Result<usize, RecordError> {
        let header = check_whole(record)?;
        let (body, tag) =
            record[RECORD_HEADER_BYTES..].split_last_chunk::<TAG_BYTES>().ok_or(RecordError::Length(0))?;
        let out = out.get_mut(..body.len()).ok_or(RecordError::Room)?;
        let nonce = self.0.nonce()?;
        self.0
            .key
            .open_separate_gather(nonce, Aad::from(header), body, tag, out)
            .map_err(|_| RecordError::Tag)?;
        strip(out)
    }

    /// Whether the link should be replaced by a new one now.
    #[must_use]
    pub fn exhausted(&self) -> bool {
        self.0.sequence >= RECORDS_PER_KEY
    }
}

fn check_whole(record: &[u8]) -> Result<[u8; RECORD_HEADER_BYTES], RecordError> {
    match (Opener::record_len(record)?, record.first_chunk()) {
        (Some(bytes), Some(header)) if bytes == record.len() => Ok(*header),
        _ => Err(RecordError::Length(record.len())),
    }
}

/// Takes padding and content type off an opened record: the bytes of plaintext.
fn strip(opened: &[u8]) -> Result<usize, RecordError> {
    let Some(at) = opened.iter().rposition(|&byte| byte != 0) else {
        // RFC 8446 5.4: a record of zeros only has no content type.
        return Err(RecordError::Type(0));
    };
    match opened[at] {
        TYPE_DATA if at <= PLAIN_BYTES_MAX => Ok(at),
        TYPE_DATA => Err(RecordError::Length(at)),
        TYPE_ALERT => match opened[..at] {
            [_, CLOSE_NOTIFY] => Err(RecordError::Closed),
            [_, alert] => Err(RecordError::Alert(alert)),
            _ => Err(RecordError::Alert(FATAL)),
        },
        TYPE_HANDSHAKE => Err(RecordError::Handshake),
        other => Err(RecordError::Type(other)),
    }
}

/// A handshake in progress, without I/O: bytes in, bytes out.
///
/// rustls keeps bytes it was given and does not hand them back; so it is given whole records only, one by one, and
/// none beyond the end of the handshake. Bytes that came early (the client's hello frame right behind its Finished)
/// stay in the caller's buffer, still sealed, for the [`Opener`].
pub struct Handshake(Connection);

impl std::fmt::Debug for Handshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshake").field("done", &self.is_done()).finish_non_exhaustive()
    }
}

/// What a finished handshake leaves.
pub struct Secured {
    /// Seals what is sent.
    pub sealer: Sealer,
    /// Opens what is received.
    pub opener: Opener,
    /// 32 bytes both sides know and nobody else (`EXPORTER_LABEL`, no context): binds a proof to this link.
    pub exporter: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for Secured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secured").finish_non_exhaustive()
    }
}

impl Handshake {
    /// The connecting side, to a server of `role`.
    ///
    /// # Errors
    /// `Tls` when the configuration is unusable.
    pub fn client(config: Arc<ClientConfig>, role: Role) -> Result<Self, RecordError> {
        let connection = ClientConnection::new(config, role.server_name()).map_err(tls)?;
        Ok(Self(Connection::Client(connection)))
    }

    /// The accepting side.
    ///
    /// # Errors
    /// `Tls` when the configuration is unusable.
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, RecordError> {
        Ok(Self(Connection::Server(ServerConnection::new(config).map_err(tls)?)))
    }

    /// Appends what is to be sent now. Call it first on the client's side, after every `receive`, and also after a
    /// `receive` that failed: the alert tells the peer why.
    ///
    /// # Errors
    /// `Tls`.
    pub fn send(&mut self, out: &mut Vec<u8>) -> Result<(), RecordError> {
        while self.0.wants_write() {
            self.0.write_tls(out).map_err(|error| RecordError::Tls(error.to_string()))?;
        }
        Ok(())
    }

    /// Takes whole records from the front of `input` until the handshake is done; returns the bytes used. The rest is
    /// to be given again, with more behind it, or to the [`Opener`] when [`Handshake::is_done`].
    ///
    /// # Errors
    /// `Tls`, `Length`, `Closed`.
    pub fn receive(&mut self, input: &[u8]) -> Result<usize, RecordError> {
        let mut used = 0;
        while self.0.is_handshaking() {
            let rest = &input[used..];
            let Some(header) = rest.first_chunk::<RECORD_HEADER_BYTES>() else { break };
            let bytes = RECORD_HEADER_BYTES + usize::from(u16::from_be_bytes([header[3], header[4]]));
            if bytes > RECORD_BYTES_MAX {
                return Err(RecordError::Length(bytes));
            }
            let Some(mut record) = rest.get(..bytes) else { break };
            while !record.is_empty() {
                let taken =
                    self.0.read_tls(&mut record).map_err(|error| RecordError::Tls(error.to_string()))?;
                if taken == 0 {
                    return Err(RecordError::Closed);
                }
                self.0.process_new_packets().map_err(tls)?;
            }
            used += bytes;
        }
        Ok(used)
    }

    /// Whether both sides have finished. What `send` still gives out is to be sent before [`Handshake::finish`].
    #[must_use]
    pub fn is_done(&self) -> bool {
        !self.0.is_handshaking()
    }

    /// The protocol agreed on (`tls::ALPN_META`), once done.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.0.alpn_protocol()
    }

    /// Moves the keys out. Everything `send` had to say must have been taken.
    ///
    /// # Errors
    /// `Tls` when the handshake is not done, or bytes to send are left.
    pub fn finish(self) -> Result<Secured, RecordError> {
        let mut exporter = Zeroizing::new([0; 32]);
        self.0.export_keying_material(exporter.as_mut_slice(), EXPORTER_LABEL, None).map_err(tls)?;
        let (sealer, opener) = handover(self.0)?;
        Ok(Secured { sealer, opener, exporter })
    }
}

/// Takes the keys out of a connection whose handshake is done and whose bytes to send were all taken. rustls must not
/// have been given a byte behind the end of the handshake (see [`Handshake`], which sees to that): what it holds is lost.
///
/// # Errors
/// `Tls` when the handshake is not done, bytes to send are left, or plaintext was already received.
pub fn handover(mut connection: Connection) -> Result<(Sealer, Opener), RecordError> {
    let state = connection.process_new_packets().map_err(tls)?;
    if state.plaintext_bytes_to_read() > 0 {
        return Err(RecordError::Tls("TLS: bytes were read beyond the handshake".to_owned()));
    }
    let secrets = connection.dangerous_extract_secrets().map_err(tls)?;
    let sealer = Sealer::new(secrets.tx.0, &secrets.tx.1)?;
    Ok((sealer, Opener::new(secrets.rx.0, &secrets.rx.1)?))
}

fn tls(error: rustls::Error) -> RecordError {
    RecordError::Tls(crate::tls::explain(&error))
}
