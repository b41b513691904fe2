//! A metadata server of a few hundred lines: one session, a log of mutations in place of a namespace, and every way to
//! misbehave that the tests ask for.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flexfs_wire::attr::{Attr, S_IFDIR};
use flexfs_wire::block::Index;
use flexfs_wire::errno::Errno;
use flexfs_wire::frame::{self, HEADER_BYTES, Header, Kind};
use flexfs_wire::hello::{Granted, Hello, Reason, Refused, Welcome, prove};
use flexfs_wire::id::{BlockId, Commit, Epoch, Ino, Range, RequestId, SessionId};
use flexfs_wire::message::{Answer, Call, Notice, Recovery, Replay, Reply, Request};
use flexfs_wire::record::{Handshake, Opener, Sealer};
use flexfs_wire::seal::Node;
use flexfs_wire::settings::{Compression, Flags, VolumeSettings};
use flexfs_wire::time::Time;
use flexfs_wire::tls::{self, ALPN_META, Role};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, ServerConfig};

/// What the server knows. `kill` forgets what is not durable.
pub(crate) struct World {
    /// Mutations in the order they hold, with their commits.
    pub(crate) log: Vec<(u64, u64)>,
    pub(crate) seq: u64,
    /// The last mark a client sent.
    pub(crate) mark: u64,
    pub(crate) durable: u64,
    dedup: HashMap<u64, Answer>,
    pub(crate) blocks: BTreeMap<u64, Vec<u8>>,
    pub(crate) opens: HashMap<u64, u32>,
    granted: u64,
    session: u64,
    known: bool,
    epoch: u64,
    recovering: bool,
    replays: BTreeMap<(u64, u64), Replay>,
    pub(crate) down: bool,
    /// Takes requests and answers none.
    pub(crate) mute: bool,
    /// Sends notices while it is mute, as over a connection that is dead in one direction.
    pub(crate) notifies: bool,
    /// Breaks the connection in the middle of so many payloads.
    pub(crate) break_payloads: u32,
    pub(crate) recoveries: u32,
    pub(crate) problems: Vec<String>,
    waits: Vec<RequestId>,
    sockets: Vec<TcpStream>,
}

pub(crate) struct Server {
    pub(crate) world: Arc<Mutex<World>>,
    pub(crate) addr: String,
    pub(crate) client: Arc<ClientConfig>,
}

const KEY: [u8; 32] = [5; 32];

impl Server {
    pub(crate) fn start() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![Role::Meta.name().to_owned()]).unwrap();
        let leaf = params.signed_by(&key, &ca).unwrap().der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = tls::server_config(vec![leaf, ca.der().clone()], key, ALPN_META).unwrap();
        let client = tls::client_config(tls::ca_pin(ca.der()).unwrap(), Role::Meta, ALPN_META);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let world = Arc::new(Mutex::new(World {
            log: Vec::new(),
            seq: 0,
            mark: 0,
            durable: 0,
            dedup: HashMap::new(),
            blocks: BTreeMap::new(),
            opens: HashMap::new(),
            granted: 1000,
            session: 0,
            known: false,
            epoch: 1,
            recovering: false,
            replays: BTreeMap::new(),
            down: false,
            mute: false,
            notifies: false,
            break_payloads: 0,
            recoveries: 0,
            problems: Vec::new(),
            waits: Vec::new(),
            sockets: Vec::new(),
        }));
        let shared = Arc::clone(&world);
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let (socket, world, config) = (socket.unwrap(), Arc::clone(&shared), Arc::clone(&config));
                std::thread::spawn(move || Link::serve(socket, world, config));
            }
        });
        Self { world, addr, client }
    }

    /// The server dies: everything above `durable` is gone, and everything in memory.
    pub(crate) fn kill(&self) {
        let mut world = self.world.lock().unwrap();
        let durable = world.durable;
        world.log.retain(|(_, commit)| *commit <= durable);
        world.dedup.retain(|_, answer| answer.commit.0 > 0 && answer.commit.0 <= durable);
        world.seq = durable;
        world.opens.clear();
        world.waits.clear();
        world.replays.clear();
        world.epoch += 1;
        world.recovering = world.known;
        world.down = true;
        world.drop_links();
    }

    /// The session's lease runs out.
    pub(crate) fn forget_session(&self) {
        let mut world = self.world.lock().unwrap();
        world.known = false;
        world.recovering = false;
        world.opens.clear();
        world.drop_links();
    }

    pub(crate) fn set_down(&self, down: bool) {
        let mut world = self.world.lock().unwrap();
        world.down = down;
        if down {
            world.drop_links();
        }
    }

    pub(crate) fn revoke(&self) {
        self.world.lock().unwrap().known = false;
    }
}

impl World {
    fn drop_links(&mut self) {
        for socket in self.sockets.drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn welcome(&mut self, hello: &Hello, exporter: &[u8; 32]) -> Welcome {
        let refuse = |reason, text: &str| Welcome::Refused(Refused { reason, text: text.to_owned() });
        let (epoch, durable) = (Epoch(self.epoch), Commit(self.durable));
        match hello {
            Hello::Open(open) if open.token == "bad" => refuse(Reason::TokenUnknown, "this token is unknown"),
            Hello::Open(_) => {
                self.session += 1;
                self.known = true;
                Welcome::Granted(Box::new(self.grant(epoch, durable)))
            }
            Hello::Attach { session, proof, .. } | Hello::Resume { session, proof, .. } => {
                let resume = matches!(hello, Hello::Resume { .. });
                if !self.known || session.0 != self.session || *proof != prove(&KEY, *session, exporter) {
                    refuse(Reason::SessionUnknown, "no such session")
                } else if self.recovering && !resume {
                    refuse(Reason::MustRecover, "come with resume")
                } else if self.recovering {
                    self.replays.clear();
                    Welcome::Recovering { epoch, durable }
                } else {
                    Welcome::Attached { epoch, durable }
                }
            }
        }
    }

    fn grant(&self, epoch: Epoch, durable: Commit) -> Granted {
        Granted {
            version: 1,
            session: SessionId(self.session),
            resume_key: KEY,
            epoch,
            root: Node { ino: Ino::ROOT, seal: 1 },
            attr: Attr::new(Ino::ROOT, S_IFDIR | 0o755, Time::default()),
            settings: VolumeSettings {
                id: "id".to_owned(),
                name: "volume".to_owned(),
                block_size: 1 << 22,
                compression: Compression::None,
                max_blocks: 0,
                max_inodes: 0,
                retention: 0,
                flags: Flags::default(),
                encrypted: false,
            },
            flags: Flags::default(),
            lease_ms: 10_000,
            durable,
        }
    }

    /// `None`: no answer (now).
    fn apply(&mut self, id: RequestId, call: &Call, payload: Vec<u8>) -> Option<(Answer, Vec<u8>)> {
        let plain = |result| Some((Answer { commit: Commit(0), at: Time::default(), result }, Vec::new()));
        if call.request.is_once()
            && let Some(answer) = self.dedup.get(&id.0)
        {
            return Some((answer.clone(), Vec::new()));
        }
        match &call.request {
            Request::GrantInodes { count } => {
                let range = Range { start: self.granted, count: *count };
                self.granted += count;
                let seals = (range.start..self.granted).flat_map(u64::to_le_bytes).collect();
                plain(Ok(Reply::Inodes { range, seals }))
            }
            Request::GrantBlocks { count } => {
                let start = self.granted;
                self.granted += count;
                plain(Ok(Reply::Granted(Range { start, count: *count })))
            }
            Request::Sync { up_to } if up_to.0 > self.seq => None,
            Request::Sync { up_to } => {
                self.durable = self.durable.max(up_to.0);
                plain(Ok(Reply::Done))
            }
            Request::PutBlock { block } => {
                self.blocks.entry(block.0).or_insert(payload);
                plain(Ok(Reply::Done))
            }
            Request::ReadBlock { block, first, count, .. } => Some(self.read_block(*block, *first, *count)),
            Request::Lock { wait: true, .. } => {
                self.waits.push(id);
                None
            }
            Request::Open { node, .. } => {
                *self.opens.entry(node.ino.0).or_default() += 1;
                let answer = Answer { commit: Commit(0), at: Time::default(), result: Ok(Reply::Done) };
                self.dedup.insert(id.0, answer.clone());
                Some((answer, Vec::new()))
            }
            Request::Close { node, count } => {
                let open = self.opens.entry(node.ino.0).or_default();
                match open.checked_sub(*count) {
                    Some(left) => *open = left,
                    None => self.problems.push(format!("close of {} that is not open", node.ino)),
                }
                let answer = Answer { commit: Commit(0), at: Time::default(), result: Ok(Reply::Done) };
                self.dedup.insert(id.0, answer.clone());
                Some((answer, Vec::new()))
            }
            request if request.is_mutation() => {
                if self.log.iter().any(|(old, _)| *old == id.0) {
                    self.problems.push(format!("{id} applied twice"));
                }
                self.seq += 1;
                self.log.push((id.0, self.seq));
                let answer =
                    Answer { commit: Commit(self.seq), at: Time::default(), result: Ok(Reply::Done) };
                self.dedup.insert(id.0, answer.clone());
                Some((answer, Vec::new()))
            }
            _ => plain(Ok(Reply::Done)),
        }
    }

    fn read_block(&self, block: BlockId, first: u32, count: u32) -> (Answer, Vec<u8>) {
        let answer = |result| Answer { commit: Commit(0), at: Time::default(), result };
        let Some(bytes) = self.blocks.get(&block.0) else { return (answer(Err(Errno::ENOENT)), Vec::new()) };
        let index = Index::parse(bytes).unwrap();
        let segments = index.select(first, count).unwrap().to_vec();
        let range = index.stored_range(first, count).unwrap();
        (answer(Ok(Reply::Segments(segments))), bytes[range].to_vec())
    }

    fn recover(&mut self, recovery: &Recovery) {
        self.opens = recovery.opens.iter().map(|(node, count)| (node.ino.0, *count)).collect();
        for ((_, id), replay) in std::mem::take(&mut self.replays) {
            if self.dedup.contains_key(&id) {
                // It had become durable without the client knowing.
                continue;
            }
            let _ = self.apply(RequestId(id), &replay.call, Vec::new());
        }
        self.durable = self.seq;
        self.recovering = false;
        self.recoveries += 1;
    }
}

struct Link {
    socket: TcpStream,
    sealer: Sealer,
    opener: Opener,
    sealed: Vec<u8>,
    plain: Vec<u8>,
    world: Arc<Mutex<World>>,
}

impl Link {
    fn serve(mut socket: TcpStream, world: Arc<Mutex<World>>, config: Arc<ServerConfig>) -> Option<()> {
        {
            let mut world = world.lock().unwrap();
            if world.down {
                return None;
            }
            world.sockets.push(socket.try_clone().unwrap());
        }
        let mut handshake = Handshake::server(config).unwrap();
        let mut sealed = Vec::new();
        loop {
            let mut out = Vec::new();
            handshake.send(&mut out).ok()?;
            socket.write_all(&out).ok()?;
            if handshake.is_done() {
                break;
            }
            fill(&mut socket, &mut sealed)?;
            let used = handshake.receive(&sealed).ok()?;
            sealed.drain(..used);
        }
        let secured = handshake.finish().unwrap();
        let mut link =
            Self { socket, sealer: secured.sealer, opener: secured.opener, sealed, plain: Vec::new(), world };
        let (_, body, _) = link.frame()?;
        let hello: Hello = frame::decode(Kind::Hello, &body).unwrap();
        let welcome = link.world.lock().unwrap().welcome(&hello, &secured.exporter);
        link.send(Header::new(Kind::Welcome, RequestId(0)), &welcome, &[])?;
        if matches!(welcome, Welcome::Refused(_)) {
            return None;
        }
        while let Some((header, body, payload)) = link.frame() {
            link.handle(&header, &body, payload)?;
        }
        None
    }

    fn handle(&mut self, header: &Header, body: &[u8], payload: Vec<u8>) -> Option<()> {
        match header.kind {
            Kind::Replay => {
                let replay = frame::decode(Kind::Replay, body).unwrap();
                let replay: Replay = replay;
                let key = (replay.commit.0, header.request.0);
                self.world.lock().unwrap().replays.insert(key, replay);
                Some(())
            }
            Kind::Recovery => {
                let recovery: Recovery = frame::decode(Kind::Recovery, body).unwrap();
                self.world.lock().unwrap().recover(&recovery);
                let answer = Answer { commit: Commit(0), at: Time::default(), result: Ok(Reply::Done) };
                self.reply(header.request, &answer, &[])
            }
            Kind::Request => {
                let call: Call = frame::decode(Kind::Request, body).unwrap();
                self.world.lock().unwrap().mark = header.mark;
                self.request(header.request, &call, payload)
            }
            _ => panic!("{header:?}"),
        }
    }

    fn request(&mut self, id: RequestId, call: &Call, payload: Vec<u8>) -> Option<()> {
        let mut world = self.world.lock().unwrap();
        if world.down {
            return None;
        }
        if world.mute {
            let notifies = world.notifies;
            drop(world);
            while notifies && self.world.lock().unwrap().mute {
                self.send(Header::new(Kind::Notice, RequestId(0)), &Notice::Durable, &[])?;
                std::thread::sleep(Duration::from_millis(300));
            }
            // What it did not read it reads now.
            return if notifies { self.request(id, call, payload) } else { Some(()) };
        }
        if !world.known {
            drop(world);
            let notice = Notice::Revoked { text: "the token was deleted".to_owned() };
            return self.send(Header::new(Kind::Notice, RequestId(0)), &notice, &[]);
        }
        if let Request::CancelWait { request } = call.request {
            let waited = world.waits.contains(&request);
            world.waits.retain(|wait| *wait != request);
            drop(world);
            if waited {
                let result = Err(Errno::EINTR);
                self.reply(request, &Answer { commit: Commit(0), at: Time::default(), result }, &[])?;
            }
            let result = Ok(Reply::Done);
            return self.reply(id, &Answer { commit: Commit(0), at: Time::default(), result }, &[]);
        }
        let answered = world.apply(id, call, payload);
        let breaks = world.break_payloads > 0 && answered.as_ref().is_some_and(|(_, p)| !p.is_empty());
        if breaks {
            world.break_payloads -= 1;
        }
        drop(world);
        let Some((answer, payload)) = answered else { return Some(()) };
        if id.0.is_multiple_of(7) {
            std::thread::sleep(Duration::from_micros(300));
        }
        if breaks {
            let mut frames = Vec::new();
            let mut header = Header::new(Kind::Reply, id);
            header.mark = 0;
            frame::encode(header, &answer, payload.len(), &mut frames).unwrap();
            frames.extend_from_slice(&payload[..payload.len() / 2]);
            let mut out = Vec::new();
            self.sealer.seal(&[&frames], &mut out).unwrap();
            self.socket.write_all(&out).ok()?;
            let _ = self.socket.shutdown(Shutdown::Both);
            return None;
        }
        self.reply(id, &answer, &payload)
    }

    fn reply(&mut self, id: RequestId, answer: &Answer, payload: &[u8]) -> Option<()> {
        self.send(Header::new(Kind::Reply, id), answer, payload)
    }

    fn send<T: serde::Serialize>(&mut self, mut header: Header, body: &T, payload: &[u8]) -> Option<()> {
        header.mark = self.world.lock().unwrap().durable;
        let mut frames = Vec::new();
        frame::encode(header, body, payload.len(), &mut frames).unwrap();
        let mut out = Vec::new();
        self.sealer.seal(&[&frames], &mut out).unwrap();
        self.sealer.seal(&[payload], &mut out).unwrap();
        self.socket.write_all(&out).ok()
    }

    fn frame(&mut self) -> Option<(Header, Vec<u8>, Vec<u8>)> {
        loop {
            if let Some(head) = self.plain.first_chunk::<HEADER_BYTES>() {
                let header = Header::decode(head).unwrap();
                let body = HEADER_BYTES + header.body_bytes as usize;
                let end = HEADER_BYTES + header.rest_bytes();
                if self.plain.len() >= end {
                    let frame: Vec<u8> = self.plain.drain(..end).collect();
                    return Some((header, frame[HEADER_BYTES..body].to_vec(), frame[body..].to_vec()));
                }
            }
            while let Some(bytes) = Opener::record_len(&self.sealed).ok()?
                && let Some(record) = self.sealed.get_mut(..bytes)
            {
                self.plain.extend_from_slice(self.opener.open_in_place(record).ok()?);
                self.sealed.drain(..bytes);
            }
            let complete = self.plain.first_chunk::<HEADER_BYTES>().is_some_and(|head| {
                self.plain.len() >= HEADER_BYTES + Header::decode(head).unwrap().rest_bytes()
            });
            if !complete {
                fill(&mut self.socket, &mut self.sealed)?;
            }
        }
    }
}

fn fill(socket: &mut TcpStream, sealed: &mut Vec<u8>) -> Option<()> {
    let mut buffer = [0; 65_536];
    match socket.read(&mut buffer) {
        Ok(bytes @ 1..) => {
            sealed.extend_from_slice(&buffer[..bytes]);
            Some(())
        }
        _ => None,
    }
}
