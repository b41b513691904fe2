//! Clients that do not play by the rules: each is refused, named in the log, and the server goes on.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use flexfs_wire::frame::{self, Header, Kind};
use flexfs_wire::hello::{Hello, Reason, Welcome};
use flexfs_wire::id::{RequestId, SessionId};
use flexfs_wire::message::Request;
use flexfs_wire::settings::Flags;

use crate::client::cluster::{Cluster, within};
use crate::client::{Link, open_hello};

fn plain(cluster: &Cluster) -> TcpStream {
    let socket = TcpStream::connect(cluster.addr).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

/// Reads to the end; how long it took.
fn closed(mut socket: TcpStream) -> Duration {
    let start = Instant::now();
    let mut rest = Vec::new();
    let _ = socket.read_to_end(&mut rest);
    assert!(rest.len() < 200, "{} bytes for a stranger", rest.len());
    start.elapsed()
}

fn logged(cluster: &Cluster, text: &str) {
    within(Duration::from_secs(10), || cluster.log().contains(text).then_some(()));
}

#[test]
fn plaintext_and_garbage_are_closed_and_named() {
    let cluster = Cluster::start();
    let mut socket = plain(&cluster);
    socket.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    assert!(closed(socket) < Duration::from_secs(3));
    logged(&cluster, "clear text (\"GET / HTTP/1.1\")");
    let mut seed = 1u64;
    for first in [0x16u8, 0x16, 0x16, 0, 0xff, 0x17] {
        let mut bytes = vec![first, 3, 1, 0, 200];
        bytes.extend((0..200).map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed.to_be_bytes()[0]
        }));
        let mut socket = plain(&cluster);
        let _ = socket.write_all(&bytes);
        assert!(closed(socket) < Duration::from_secs(7));
    }
    logged(&cluster, "TLS handshake failed");
    // A record that never ends, and more bytes than a hello has.
    let mut socket = plain(&cluster);
    let _ = socket.write_all(&[0x16, 3, 1, 0x40, 0]);
    let _ = socket.write_all(&[1; 5000]);
    assert!(closed(socket) < Duration::from_secs(7));
    cluster.open();
}

#[test]
fn slow_and_silent_clients_are_cut_off() {
    let cluster = Cluster::start();
    let start = Instant::now();
    let silent: Vec<TcpStream> = (0..50).map(|_| plain(&cluster)).collect();
    let mut drip = plain(&cluster);
    let mut alive = true;
    for byte in [0x16u8, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0, 0, 0, 0, 0] {
        alive = alive && drip.write_all(&[byte]).is_ok();
        std::thread::sleep(Duration::from_millis(400));
    }
    for socket in silent {
        closed(socket);
    }
    closed(drip);
    assert!(start.elapsed() < Duration::from_secs(9), "{:?}", start.elapsed());
    logged(&cluster, "no hello within 5000 ms");
    // TLS, and then nothing.
    let mut link = Link::connect(cluster.addr, cluster.pin).unwrap();
    let start = Instant::now();
    assert!(link.read().is_err());
    assert!(start.elapsed() < Duration::from_secs(8));
    cluster.open();
}

#[test]
fn hellos_that_are_none_are_refused() {
    let cluster = Cluster::start();
    let refused = |bytes: &[u8]| {
        let mut link = Link::connect(cluster.addr, cluster.pin).unwrap();
        link.send_raw(bytes).unwrap();
        let frame = link.read().unwrap();
        match frame::decode(Kind::Welcome, &frame.body).unwrap() {
            Welcome::Refused(refused) => refused.reason,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(&[7; 100]), Reason::Protocol);
    let mut request = Vec::new();
    frame::encode(Header::new(Kind::Request, RequestId(1)), &1u8, 0, &mut request).unwrap();
    assert_eq!(refused(&request), Reason::Protocol);
    let mut long = Header::new(Kind::Hello, RequestId(0));
    long.body_bytes = 100_000;
    assert_eq!(refused(&long.encode()), Reason::Protocol);
    let mut trailing = Vec::new();
    frame::encode(Header::new(Kind::Hello, RequestId(0)), &(9u8, 9u8), 0, &mut trailing).unwrap();
    assert_eq!(refused(&trailing), Reason::Protocol);
    let mut link = Link::connect(cluster.addr, cluster.pin).unwrap();
    let future = Hello::Attach { versions: (90, 99), session: SessionId(1), proof: [0; 32] };
    let welcome = link.hello(&future);
    assert!(matches!(welcome, Welcome::Refused(refused) if refused.reason == Reason::Version));
}

#[test]
fn a_session_that_sends_garbage_loses_its_link_only() {
    let cluster = Cluster::start();
    let mut session = cluster.open();
    let file = session.make(session.root(), "f", 0o100_600);
    session.link.send_raw(&[0xaa; 64]).unwrap();
    session.link.wait_closed();
    let (link, welcome) = session.another(false);
    assert!(matches!(welcome, Welcome::Attached { .. }), "{welcome:?}");
    session.link = link;
    session.get(Request::GetAttr { node: file.node });
    // A replay when there is nothing to recover.
    let (id, replay) = session.log.first().unwrap().clone();
    session.link.send(Header::new(Kind::Replay, id), &replay, &[]);
    session.link.wait_closed();
    // A payload where none belongs.
    let (mut link, _) = session.another(false);
    let call = replay.call;
    link.request_call(5000, &call, &[1, 2, 3]);
    link.wait_closed();
    assert!(
        session.another(false).1
            != Welcome::Refused(flexfs_wire::hello::Refused { reason: Reason::Busy, text: String::new() })
    );
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody() {
    let cluster = Cluster::start();
    let mut session = cluster.open();
    let root = session.root();
    for number in 0..200 {
        session.make(root, &format!("{number:0200}"), 0o100_600);
    }
    let (mut deaf, _) = session.another(false);
    let list = Request::ReadDir { node: root, cookie: 0, bytes_max: 1 << 20, plus: true };
    for id in 10_000..11_000 {
        deaf.request(id, list.clone(), &[]);
    }
    let start = Instant::now();
    let mut other = cluster.open();
    for _ in 0..100 {
        assert!(other.lookup("none").is_err());
    }
    assert!(start.elapsed() < Duration::from_secs(10));
    // It begins to read at last, and gets everything.
    for id in 10_000..11_000 {
        assert!(deaf.answer(id).0.result.is_ok());
    }
}

#[test]
fn the_first_frame_may_come_in_pieces() {
    let cluster = Cluster::start();
    let mut bytes = Vec::new();
    let hello = open_hello(&cluster.token, "main", Flags::default());
    frame::encode(Header::new(Kind::Hello, RequestId(0)), &hello, 0, &mut bytes).unwrap();
    let mut link = Link::connect(cluster.addr, cluster.pin).unwrap();
    for piece in bytes.chunks(50) {
        link.send_raw(piece).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    let frame = link.read().unwrap();
    let welcome = frame::decode(Kind::Welcome, &frame.body).unwrap();
    assert!(matches!(welcome, Welcome::Granted(_)));
    let wrong = open_hello(&cluster.token, "other", Flags::default());
    let mut link = Link::connect(cluster.addr, cluster.pin).unwrap();
    let welcome = link.hello(&wrong);
    assert!(matches!(welcome, Welcome::Refused(refused) if refused.reason == Reason::Volume));
}

/// A hello of TLS 1.2, as an old client sends it, with that service's ALPN or another.
fn old_hello() -> Vec<u8> {
    let mut extensions = Vec::new();
    let name = b"meta.flexfs.internal";
    let mut add = |kind: u16, body: &[u8]| {
        extensions.extend(kind.to_be_bytes());
        extensions.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        extensions.extend(body);
    };
    let length = u16::try_from(name.len()).unwrap();
    add(0, &[&(length + 3).to_be_bytes()[..], &[0], &length.to_be_bytes(), name].concat());
    add(10, &[0, 4, 0, 29, 0, 23]);
    add(11, &[1, 0]);
    add(13, &[0, 4, 4, 3, 8, 4]);
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 4, 0xc0, 0x2b, 0xc0, 0x2f, 1, 0]);
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    let length = u16::try_from(body.len()).unwrap();
    let mut hello = vec![22, 3, 1];
    hello.extend((length + 4).to_be_bytes());
    hello.extend([1, 0]);
    hello.extend(length.to_be_bytes());
    hello.extend(body);
    hello
}

#[test]
fn older_tls_is_refused_by_both_servers() {
    let cluster = Cluster::start();
    for addr in [cluster.addr, cluster.admin_addr()] {
        let mut socket = TcpStream::connect(addr).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket.write_all(&old_hello()).unwrap();
        let mut said = Vec::new();
        let _ = socket.read_to_end(&mut said);
        assert_eq!(said, [21, 3, 3, 0, 2, 2, 70], "alert protocol_version and nothing else");
    }
    logged(&cluster, "TLS handshake failed");
    cluster.open();
}

/// Neither the pin of another cluster nor a server of another kind is taken for the one that is meant.
#[test]
fn clients_refuse_servers_that_are_not_theirs() {
    use flexfs_wire::tls::{self, ALPN_META, ALPN_REST, Role};
    use rustls::ClientConnection;
    let cluster = Cluster::start();
    let connect = |addr, pin, role: Role, alpn| {
        let mut socket = TcpStream::connect(addr).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut connection =
            ClientConnection::new(tls::client_config(pin, role, alpn), role.server_name()).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut socket).map_err(|error| tls::explain(&error))?;
        }
        Ok::<(), String>(())
    };
    let (meta, admin, pin) = (cluster.addr, cluster.admin_addr(), cluster.pin);
    let foreign = flexfs_wire::token::CaPin([7; 16]);
    for (addr, pin, role, alpn, expected) in [
        (meta, foreign, Role::Meta, ALPN_META, "CA pin mismatch"),
        (admin, foreign, Role::Admin, ALPN_REST, "CA pin mismatch"),
        (admin, pin, Role::Meta, ALPN_REST, "not valid for meta.flexfs.internal"),
        (meta, pin, Role::Admin, ALPN_META, "not valid for admin.flexfs.internal"),
        (meta, pin, Role::Meta, ALPN_REST, "NoApplicationProtocol"),
        (admin, pin, Role::Admin, ALPN_META, "NoApplicationProtocol"),
        (meta, pin, Role::Meta, b"flexfs/0", "NoApplicationProtocol"),
    ] {
        let error = connect(addr, pin, role, alpn).unwrap_err();
        assert!(error.contains(expected), "{error}, not {expected}");
    }
    connect(meta, pin, Role::Meta, ALPN_META).unwrap();
    connect(admin, pin, Role::Admin, ALPN_REST).unwrap();
}

/// A man in the middle cannot talk the ends down either: what the hello offers is under TLS. A client that offers less is old.
#[test]
fn older_protocols_are_refused() {
    use flexfs_wire::hello::Open;
    use flexfs_wire::limits::PROTOCOL_VERSION;
    let cluster = Cluster::start();
    let Hello::Open(open) = open_hello(&cluster.token, "main", Flags::default()) else { panic!() };
    for versions in [(0, 0), (1, 1), (PROTOCOL_VERSION + 1, u16::MAX), (PROTOCOL_VERSION, 0), (u16::MAX, 0)] {
        let mut link = Link::connect(cluster.addr, cluster.pin).unwrap();
        let welcome = link.hello(&Hello::Open(Open { versions, ..open.clone() }));
        let Welcome::Refused(refused) = welcome else { panic!("{versions:?}: {welcome:?}") };
        assert!(refused.reason == Reason::Version && refused.text.contains("update the older one"));
    }
}
