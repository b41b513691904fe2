//! Telling a service manager that a server serves (sd_notify(3)): a datagram of text to the socket that `NOTIFY_SOCKET` names.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Tells the service manager that started this process, if one did and wants to hear it, that requests are served from now on.
/// One that does not hear it would end the process by itself after a while.
/// So it is logged when that cannot be told.
pub fn tell_ready() {
    if let Some(name) = std::env::var_os("NOTIFY_SOCKET")
        && let Err(error) = tell(&name, b"READY=1")
    {
        tracing::warn!(%error, "the service manager could not be told that this server is ready (NOTIFY_SOCKET)");
    }
}

fn tell(name: &OsStr, text: &[u8]) -> io::Result<()> {
    let address = match name.as_bytes().split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    UnixDatagram::unbound()?.send_to_addr(text, &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_heard_by_path_and_by_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("flexfs-notify-{}", std::process::id());
        let by_name = SocketAddr::from_abstract_name(&name).unwrap();
        for (socket, address) in [
            (UnixDatagram::bind(&path).unwrap(), path.as_os_str().to_owned()),
            (UnixDatagram::bind_addr(&by_name).unwrap(), format!("@{name}").into()),
        ] {
            tell(&address, b"READY=1").unwrap();
            let mut heard = [0; 16];
            let count = socket.recv(&mut heard).unwrap();
            assert_eq!(&heard[..count], b"READY=1");
        }
        assert!(tell(folder.path().join("nobody").as_os_str(), b"READY=1").is_err());
    }
}
