//! The first link of a session, made with blocking calls before there are shards. Its socket moves to the first shard.

use std::io::{ErrorKind, Read, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use flexfs_wire::frame::{self, HEADER_BYTES, Header, Kind};
use flexfs_wire::hello::{Granted, Welcome};
use flexfs_wire::id::RequestId;
use flexfs_wire::record::{Handshake, Opener, RecordError, Sealer};
use flexfs_wire::tls::Role;

use super::error::LinkError;
use super::session::Target;

/// Time to reach the server.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Time for any answer of the setup path. The server may have to ask admin, and delays refusals.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;

/// A link between `setup` and the first shard.
#[derive(Debug)]
pub(crate) struct First {
    pub(crate) socket: TcpStream,
    pub(crate) sealer: Sealer,
    pub(crate) opener: Opener,
    /// Received and not opened.
    pub(crate) sealed: Vec<u8>,
    /// Opened and not used.
    pub(crate) plain: Vec<u8>,
}

/// Opens a session.
///
/// # Errors
/// [`LinkError`]; its text is for the person.
pub(crate) fn open(target: &Target) -> Result<(Box<Granted>, First), LinkError> {
    let mut socket = connect(&target.meta_addr)?;
    let mut handshake = Handshake::client(target.tls.clone(), Role::Meta)?;
    let mut sealed = Vec::new();
    loop {
        let mut out = Vec::new();
        handshake.send(&mut out)?;
        socket.write_all(&out)?;
        if handshake.is_done() {
            break;
        }
        receive(&mut socket, &mut sealed)?;
        let used = handshake.receive(&sealed);
        if used.is_err() {
            // The alert tells the server why; the cause below matters more than whether it got there.
            let _ = handshake.send(&mut out).map(|()| socket.write_all(&out));
        }
        sealed.drain(..used?);
    }
    let secured = handshake.finish()?;
    let mut first =
        First { socket, sealer: secured.sealer, opener: secured.opener, sealed, plain: Vec::new() };
    let mut hello = Vec::new();
    frame::encode(Header::new(Kind::Hello, RequestId(0)), &target.open(), 0, &mut hello)?;
    let mut out = Vec::new();
    first.sealer.seal(&[&hello], &mut out)?;
    zeroize::Zeroize::zeroize(&mut hello);
    first.socket.write_all(&out)?;
    match first.welcome()? {
        Welcome::Granted(granted) => Ok((granted, first)),
        Welcome::Refused(refused) => Err(LinkError::Refused(refused)),
        Welcome::Attached { .. } | Welcome::Recovering { .. } => {
            Err(LinkError::Unexpected("a welcome that answers another hello"))
        }
    }
}

impl First {
    fn welcome(&mut self) -> Result<Welcome, LinkError> {
        loop {
            if let Some(head) = self.plain.first_chunk::<HEADER_BYTES>() {
                let header = Header::decode(head)?;
                if header.kind != Kind::Welcome || header.payload_bytes != 0 {
                    return Err(LinkError::Unexpected("no welcome"));
                }
                let end = HEADER_BYTES + header.rest_bytes();
                if let Some(body) = self.plain.get(HEADER_BYTES..end) {
                    let welcome = frame::decode(Kind::Welcome, body)?;
                    self.plain.drain(..end);
                    return Ok(welcome);
                }
            }
            // One record, then a look at what it brought: behind a refusal comes the end of the connection, and must not
            // hide it.
            if let Some(bytes) = Opener::record_len(&self.sealed)?
                && let Some(record) = self.sealed.get_mut(..bytes)
            {
                self.plain.extend_from_slice(self.opener.open_in_place(record).map_err(closed)?);
                self.sealed.drain(..bytes);
            } else {
                receive(&mut self.socket, &mut self.sealed)?;
            }
        }
    }
}

fn closed(error: RecordError) -> LinkError {
    match error {
        RecordError::Closed => LinkError::Closed,
        error => LinkError::Record(error),
    }
}

fn connect(address: &str) -> Result<TcpStream, LinkError> {
    let mut last = None;
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_MAX) {
            Ok(socket) => {
                socket.set_nodelay(true)?;
                socket.set_read_timeout(Some(ANSWER_MAX))?;
                socket.set_write_timeout(Some(ANSWER_MAX))?;
                return Ok(socket);
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| ErrorKind::AddrNotAvailable.into()).into())
}

fn receive(socket: &mut impl Read, sealed: &mut Vec<u8>) -> Result<(), LinkError> {
    let start = sealed.len();
    sealed.resize(start + READ_BYTES, 0);
    // A read with a time-out is never restarted by the kernel, whatever the signal's handler says.
    let received = loop {
        match socket.read(&mut sealed[start..]) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            received => break received,
        }
    };
    sealed.truncate(start + *received.as_ref().unwrap_or(&0));
    match received {
        Ok(0) => Err(LinkError::Closed),
        Ok(_) => Ok(()),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Err(LinkError::Silent(u64::try_from(ANSWER_MAX.as_millis()).unwrap_or(u64::MAX)))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_does_not_end_the_setup() {
        struct Signalled(u32);
        impl Read for Signalled {
            fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
                self.0 += 1;
                if self.0 < 3 {
                    return Err(ErrorKind::Interrupted.into());
                }
                out[..5].copy_from_slice(b"hello");
                Ok(5)
            }
        }
        let mut sealed = b"before ".to_vec();
        receive(&mut Signalled(0), &mut sealed).unwrap();
        assert_eq!(sealed, b"before hello");
    }
}
