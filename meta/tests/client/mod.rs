//! A client of a metadata server: blocking, on plain rustls. That it works at all shows that the server's own record
//! layer is plain TLS 1.3.

pub(crate) mod cluster;
pub(crate) mod witness;

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use flexfs_wire::errno::Errno;
use flexfs_wire::frame::{self, HEADER_BYTES, Header, Kind};
use flexfs_wire::hello::{self, EXPORTER_LABEL, Granted, Hello, Open, Reason, Welcome};
use flexfs_wire::id::{Commit, Epoch, Ino, RequestId, SessionId};
use flexfs_wire::lease::Recall;
use flexfs_wire::limits::PROTOCOL_VERSIONS;
use flexfs_wire::message::{
    Answer, Call, Caller, Entry, Inline, Make, Notice, Recovery, Replay, Reply, Request, Write,
};
use flexfs_wire::name::Name;
use flexfs_wire::seal::Node;
use flexfs_wire::settings::Flags;
use flexfs_wire::tls::{self, ALPN_META, Role};
use flexfs_wire::token::CaPin;
use rustix::net::{self, AddressFamily, SocketType};
use rustls::{ClientConnection, StreamOwned};

/// Longest wait for anything the server says.
const PATIENCE: Duration = Duration::from_secs(40);

/// One link, and what was read from it and not asked for yet.
pub(crate) struct Link {
    stream: StreamOwned<ClientConnection, TcpStream>,
    pub(crate) exporter: [u8; 32],
    answers: HashMap<u64, (Answer, Vec<u8>)>,
    pub(crate) notices: Vec<Notice>,
    /// Highest mark seen.
    pub(crate) durable: Commit,
    /// `mark` of requests sent.
    pub(crate) finished: u64,
}

/// A frame's parts.
pub(crate) struct Frame {
    pub(crate) header: Header,
    pub(crate) body: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

impl Link {
    /// TCP and TLS, verified against the pin.
    pub(crate) fn connect(addr: SocketAddr, pin: CaPin) -> io::Result<Self> {
        Self::secure(TcpStream::connect(addr)?, pin)
    }

    /// The same from another address of this machine.
    pub(crate) fn connect_from(from: Ipv4Addr, addr: SocketAddr, pin: CaPin) -> io::Result<Self> {
        let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
        net::bind(&socket, &SocketAddr::from((from, 0)))?;
        net::connect(&socket, &addr)?;
        Self::secure(TcpStream::from(socket), pin)
    }

    fn secure(socket: TcpStream, pin: CaPin) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let config = tls::client_config(pin, Role::Meta, ALPN_META);
        let connection = ClientConnection::new(config, Role::Meta.server_name()).unwrap();
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        let exporter = stream.conn.export_keying_material([0; 32], EXPORTER_LABEL, None).unwrap();
        Ok(Self {
            stream,
            exporter,
            answers: HashMap::new(),
            notices: Vec::new(),
            durable: Commit(0),
            finished: 0,
        })
    }

    /// Says hello, waits for the welcome.
    pub(crate) fn hello(&mut self, hello: &Hello) -> Welcome {
        self.send(Header::new(Kind::Hello, RequestId(0)), hello, &[]);
        let frame = self.read().unwrap();
        assert_eq!(frame.header.kind, Kind::Welcome);
        frame::decode(Kind::Welcome, &frame.body).unwrap()
    }

    /// Sends a frame.
    pub(crate) fn send<T: serde::Serialize>(&mut self, header: Header, body: &T, payload: &[u8]) {
        let mut out = Vec::new();
        frame::encode(header, body, payload.len(), &mut out).unwrap();
        out.extend_from_slice(payload);
        self.send_raw(&out).unwrap();
    }

    /// Sends plaintext bytes as they are.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// The next frame.
    pub(crate) fn read(&mut self) -> io::Result<Frame> {
        let mut head = [0; HEADER_BYTES];
        self.stream.read_exact(&mut head)?;
        let header = Header::decode(&head).map_err(io::Error::other)?;
        let mut body = vec![0; header.body_bytes as usize];
        self.stream.read_exact(&mut body)?;
        let mut payload = vec![0; header.payload_bytes as usize];
        self.stream.read_exact(&mut payload)?;
        assert!(header.mark >= self.durable.0 || header.kind == Kind::Welcome, "marks go up");
        if header.kind != Kind::Welcome {
            self.durable = Commit(header.mark);
        }
        Ok(Frame { header, body, payload })
    }

    /// Reads one frame and files it.
    pub(crate) fn pump(&mut self) -> io::Result<()> {
        let frame = self.read()?;
        match frame.header.kind {
            Kind::Reply => {
                let answer = frame::decode(Kind::Reply, &frame.body).unwrap();
                self.answers.insert(frame.header.request.0, (answer, frame.payload));
            }
            Kind::Notice => self.notices.push(frame::decode(Kind::Notice, &frame.body).unwrap()),
            other => panic!("{other:?} from a server"),
        }
        Ok(())
    }

    /// Sends a request as root.
    pub(crate) fn request(&mut self, id: u64, request: Request, payload: &[u8]) {
        let call = Call::new(Caller { uid: 0, gid: 0 }, request);
        self.request_call(id, &call, payload);
    }

    /// Sends a call.
    pub(crate) fn request_call(&mut self, id: u64, call: &Call, payload: &[u8]) {
        let mut header = Header::new(Kind::Request, RequestId(id));
        header.mark = self.finished;
        self.send(header, call, payload);
    }

    /// Waits for the answer to a request.
    pub(crate) fn answer(&mut self, id: u64) -> (Answer, Vec<u8>) {
        self.try_answer(id).unwrap()
    }

    /// The same, where the link may break.
    pub(crate) fn try_answer(&mut self, id: u64) -> io::Result<(Answer, Vec<u8>)> {
        loop {
            if let Some(answer) = self.answers.remove(&id) {
                return Ok(answer);
            }
            self.pump()?;
        }
    }

    /// The answer to a request, if it has been read.
    pub(crate) fn answered(&mut self, id: u64) -> Option<Answer> {
        self.answers.remove(&id).map(|(answer, _)| answer)
    }

    /// How long it waits until the server takes what is sent.
    pub(crate) fn is_patient(&mut self, wait: Duration) {
        self.stream.sock.set_write_timeout(Some(wait)).unwrap();
    }

    /// Whether nothing comes within `wait`.
    pub(crate) fn is_silent(&mut self, wait: Duration) -> bool {
        self.stream.sock.set_read_timeout(Some(wait)).unwrap();
        let result = self.pump();
        self.stream.sock.set_read_timeout(Some(PATIENCE)).unwrap();
        match result {
            Ok(()) => false,
            Err(error) => matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
        }
    }

    /// Reads until a commit is durable.
    pub(crate) fn wait_durable(&mut self, commit: Commit) {
        while self.durable < commit {
            self.pump().unwrap();
        }
    }

    /// Reads until the server closes.
    pub(crate) fn wait_closed(&mut self) {
        while self.pump().is_ok() {}
    }
}

/// A session with its first link.
pub(crate) struct Session {
    pub(crate) link: Link,
    pub(crate) granted: Granted,
    addr: SocketAddr,
    pin: CaPin,
    next: u64,
    inos: std::ops::Range<u64>,
    /// Calls that may have to be replayed: commit, time, id, call.
    pub(crate) log: Vec<(RequestId, Replay)>,
}

/// What `Open` says in these tests.
pub(crate) fn open_hello(token: &str, volume: &str, flags: Flags) -> Hello {
    Hello::Open(Open {
        versions: PROTOCOL_VERSIONS,
        token: token.to_owned(),
        volume: volume.to_owned(),
        client: "test:/mnt".to_owned(),
        flags,
    })
}

impl Session {
    /// Opens a session; a refusal comes back.
    pub(crate) fn try_open(
        addr: SocketAddr,
        pin: CaPin,
        token: &str,
        flags: Flags,
    ) -> Result<Self, (Reason, String)> {
        let mut link = Link::connect(addr, pin).map_err(|e| (Reason::Server, e.to_string()))?;
        match link.hello(&open_hello(token, "main", flags)) {
            Welcome::Granted(granted) => {
                Ok(Self { link, granted: *granted, addr, pin, next: 1, inos: 0..0, log: Vec::new() })
            }
            Welcome::Refused(refused) => Err((refused.reason, refused.text)),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn root(&self) -> Node {
        self.granted.root
    }

    pub(crate) fn id(&self) -> SessionId {
        self.granted.session
    }

    /// A request number that was not used.
    pub(crate) fn number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    /// A call and its answer; mutations are kept for a replay.
    pub(crate) fn call(&mut self, request: Request) -> Answer {
        self.call_with(request, &[]).0
    }

    /// The same with payloads.
    pub(crate) fn call_with(&mut self, request: Request, payload: &[u8]) -> (Answer, Vec<u8>) {
        let id = self.number();
        let call = Call::new(Caller { uid: 0, gid: 0 }, request);
        self.link.request_call(id, &call, payload);
        let (answer, payload) = self.link.answer(id);
        self.give_back(&call.request, &answer);
        if answer.commit.0 != 0 {
            let replay = Replay { commit: answer.commit, at: answer.at, call };
            self.log.push((RequestId(id), replay));
        }
        (answer, payload)
    }

    /// This client reads nothing while others are called, and so cannot answer recalls: it keeps no lease.
    fn give_back(&mut self, request: &Request, answer: &Answer) {
        let mut inos: Vec<Ino> = request.nodes().into_iter().flatten().map(|node| node.ino).collect();
        match &answer.result {
            Ok(Reply::Entry(entry)) => inos.push(entry.attr.ino),
            Ok(Reply::Entries { entries, .. }) => inos.extend(entries.iter().map(|entry| entry.ino)),
            _ => {}
        }
        if !inos.is_empty() {
            let id = self.number();
            let call = Call::new(Caller { uid: 0, gid: 0 }, Request::GiveBack { inos });
            self.link.request_call(id, &call, &[]);
            // The link may be at its end, on purpose.
            drop(self.link.try_answer(id));
        }
    }

    /// A call that succeeds.
    pub(crate) fn get(&mut self, request: Request) -> Reply {
        let shown = format!("{request:?}");
        self.call(request).result.unwrap_or_else(|errno| panic!("{shown}: {errno}"))
    }

    /// A call that fails.
    pub(crate) fn fail(&mut self, request: Request) -> Errno {
        self.call(request).result.unwrap_err()
    }

    pub(crate) fn ino(&mut self) -> Ino {
        if self.inos.is_empty() {
            let Reply::Inodes { range, .. } = self.get(Request::GrantInodes { count: 100 }) else { panic!() };
            self.inos = range.start..range.start + range.count;
        }
        Ino(self.inos.next().unwrap())
    }

    /// A request that makes a file or directory.
    pub(crate) fn make_request(&mut self, parent: Node, name: &str, mode: u32) -> Request {
        let make = Make { ino: self.ino(), mode, umask: 0, rdev: 0, target: Vec::new(), open: false };
        Request::Make { parent, name: Some(Name::new(name.as_bytes()).unwrap()), make }
    }

    pub(crate) fn make(&mut self, parent: Node, name: &str, mode: u32) -> Entry {
        let request = self.make_request(parent, name, mode);
        let Reply::Entry(entry) = self.get(request) else { panic!() };
        entry
    }

    pub(crate) fn lookup(&mut self, name: &str) -> Result<Entry, Errno> {
        let request = Request::Lookup { parent: self.root(), name: Name::new(name.as_bytes()).unwrap() };
        match self.call(request).result? {
            Reply::Entry(entry) => Ok(entry),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn write_inline(&mut self, node: Node, bytes: &[u8]) -> Answer {
        let inline = Some(Inline { offset: 0, bytes: bytes.to_vec() });
        self.call(Request::Write { node, write: Write { inline, ..Write::default() } })
    }

    pub(crate) fn read_inline(&mut self, node: Node) -> Vec<u8> {
        let Reply::Layout(layout) = self.get(Request::ReadLayout { node, start: 0, end: u64::MAX }) else {
            panic!()
        };
        layout.inline
    }

    /// What claims this session on a link.
    pub(crate) fn claim(&self, link: &Link, resume: bool) -> Hello {
        let session = self.id();
        let proof = hello::prove(&self.granted.resume_key, session, &link.exporter);
        if resume {
            Hello::Resume { versions: PROTOCOL_VERSIONS, session, proof }
        } else {
            Hello::Attach { versions: PROTOCOL_VERSIONS, session, proof }
        }
    }

    /// A link that is attached from another address of this machine.
    pub(crate) fn attach_from(&self, from: Ipv4Addr) -> Welcome {
        let mut link = Link::connect_from(from, self.addr, self.pin).unwrap();
        let hello = self.claim(&link, false);
        link.hello(&hello)
    }

    /// Another link, attached or resumed. A server that has as many strangers at once as it takes closes the door; clients knock again.
    pub(crate) fn another(&self, resume: bool) -> (Link, Welcome) {
        let mut link = cluster::within(Duration::from_secs(30), || Link::connect(self.addr, self.pin).ok());
        let hello = self.claim(&link, resume);
        let welcome = link.hello(&hello);
        (link, welcome)
    }

    /// Comes back after a restart: replays what is not durable, ends the replay, waits for the doors.
    pub(crate) fn recover(&mut self, opens: Vec<(Node, u32)>) -> usize {
        let (replayed, epoch) = self.come_back(opens);
        self.get(Request::DropLeases { epoch });
        replayed
    }

    /// The same, without a word about what it still caches.
    pub(crate) fn come_back(&mut self, opens: Vec<(Node, u32)>) -> (usize, Epoch) {
        let (link, welcome) = self.another(true);
        let Welcome::Recovering { durable, epoch } = welcome else { panic!("{welcome:?}") };
        assert!(epoch > self.granted.epoch);
        self.link = link;
        let replays: Vec<_> =
            self.log.iter().filter(|(_, replay)| replay.commit > durable).cloned().collect();
        for (id, replay) in &replays {
            self.link.send(Header::new(Kind::Replay, *id), replay, &[]);
        }
        let id = self.number();
        let recovery = Recovery { opens, locks: Vec::new(), exclusive: Vec::new() };
        self.link.send(Header::new(Kind::Recovery, RequestId(id)), &recovery, &[]);
        assert_eq!(self.link.answer(id).0.result, Ok(Reply::Done));
        (replays.len(), epoch)
    }

    /// Sends a call and does not wait; what its answer grants is kept.
    pub(crate) fn begin(&mut self, request: Request) -> u64 {
        let id = self.number();
        self.link.request(id, request, &[]);
        id
    }

    /// Recalls that have come.
    pub(crate) fn recalls(&mut self) -> Vec<Recall> {
        let notices = self.link.notices.drain(..);
        let recalls = notices.filter_map(|notice| match notice {
            Notice::Recall { recalls } => Some(recalls),
            _ => None,
        });
        recalls.flatten().collect()
    }

    /// Waits for recalls, and says that all was done.
    pub(crate) fn obey(&mut self) -> Vec<Recall> {
        let mut recalls = self.recalls();
        while recalls.is_empty() {
            self.link.pump().unwrap();
            recalls = self.recalls();
        }
        let ids = recalls.iter().map(|recall| recall.id).collect();
        self.get(Request::Recalled { ids });
        recalls
    }
}
