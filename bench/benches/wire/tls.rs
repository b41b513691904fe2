//! The TLS handshake with both sides in memory, and records by size and cipher.
//!
//! The one provider that is configured is aws-lc; of its ciphers AES-256-GCM is what mount and meta agree on, the other
//! two are what another TLS 1.3 peer may choose.

use std::sync::Arc;

use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use flexfs_wire::record::{Handshake, Opener, PLAIN_BYTES_MAX, RECORD_HEADER_BYTES, Sealer};
use flexfs_wire::tls::{ALPN_META, Role};
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
use rustls::{
    ClientConfig, ClientConnection, Connection, ConnectionTrafficSecrets, RootCertStore, ServerConnection,
    SupportedCipherSuite,
};

use crate::keys::{self, Cluster};

/// Records sealed or opened in one go: the keys of one link do not last for a whole measurement.
const RECORDS: usize = 64;
const SIZES: [usize; 5] = [64, 512, 2_048, 8_192, PLAIN_BYTES_MAX];
const SUITES: [(&str, SupportedCipherSuite); 3] = [
    ("aes128gcm", cipher_suite::TLS13_AES_128_GCM_SHA256),
    ("aes256gcm", cipher_suite::TLS13_AES_256_GCM_SHA384),
    ("chacha20poly1305", cipher_suite::TLS13_CHACHA20_POLY1305_SHA256),
];

pub(crate) fn benches(c: &mut Criterion) {
    let cluster = keys::cluster();
    c.bench_function("tls/handshake-mount-meta", |b| b.iter(|| handshake(&cluster)));
    for (name, suite) in SUITES {
        let secrets = secrets(&cluster, suite);
        let mut group = c.benchmark_group(format!("record/{name}"));
        for bytes in SIZES {
            records(&mut group, &secrets, bytes);
        }
        group.finish();
    }
}

/// Keys of one direction of a link with the cipher mount and meta agree on.
pub(crate) fn default_secrets() -> ConnectionTrafficSecrets {
    secrets(&keys::cluster(), cipher_suite::TLS13_AES_256_GCM_SHA384)
}

/// A whole handshake as `link` and `net` run it, up to the record layers.
fn handshake(cluster: &Cluster) {
    let mut client = Handshake::client(Arc::clone(&cluster.client), Role::Meta).unwrap();
    let mut server = Handshake::server(Arc::clone(&cluster.server)).unwrap();
    let (mut up, mut down) = (Vec::new(), Vec::new());
    while !client.is_done() || !server.is_done() {
        client.send(&mut up).unwrap();
        let used = server.receive(&up).unwrap();
        up.drain(..used);
        server.send(&mut down).unwrap();
        let used = client.receive(&down).unwrap();
        down.drain(..used);
    }
    let (client, server) = (client.finish().unwrap(), server.finish().unwrap());
    assert_eq!(client.exporter, server.exporter);
}

/// What a client sends with after a handshake that agreed on `suite`.
fn secrets(cluster: &Cluster, suite: SupportedCipherSuite) -> ConnectionTrafficSecrets {
    let mut roots = RootCertStore::empty();
    roots.add(cluster.ca.clone()).unwrap();
    let mut provider = default_provider();
    provider.cipher_suites = vec![suite];
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_META.to_vec()];
    config.enable_secret_extraction = true;
    let client = ClientConnection::new(Arc::new(config), Role::Meta.server_name()).unwrap();
    let mut client = Connection::from(client);
    let mut server = Connection::from(ServerConnection::new(Arc::clone(&cluster.server)).unwrap());
    while client.is_handshaking() || server.is_handshaking() {
        pass(&mut client, &mut server);
        pass(&mut server, &mut client);
    }
    client.dangerous_extract_secrets().unwrap().tx.1
}

fn pass(from: &mut Connection, to: &mut Connection) {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        to.read_tls(&mut rest).unwrap();
        to.process_new_packets().unwrap();
    }
}

fn records(group: &mut BenchmarkGroup<'_, WallTime>, secrets: &ConnectionTrafficSecrets, bytes: usize) {
    let plain = vec![7; bytes];
    let seal = |mut sealer: Sealer, mut out: Vec<u8>| {
        for _ in 0..RECORDS {
            sealer.seal(&[&plain], &mut out).unwrap();
        }
        out
    };
    let sealed = seal(Sealer::new(0, secrets).unwrap(), Vec::new());
    let length = Opener::record_len(&sealed).unwrap().unwrap();
    assert!(length > bytes + RECORD_HEADER_BYTES && length * RECORDS == sealed.len());
    group.throughput(Throughput::Bytes((bytes * RECORDS) as u64));
    group.bench_function(format!("seal-64x{bytes}"), |b| {
        b.iter_batched(
            || (Sealer::new(0, secrets).unwrap(), Vec::with_capacity(sealed.len())),
            |(sealer, out)| seal(sealer, out),
            BatchSize::SmallInput,
        );
    });
    group.bench_function(format!("open-in-place-64x{bytes}"), |b| {
        b.iter_batched(
            || (Opener::new(0, secrets).unwrap(), sealed.clone()),
            |(mut opener, mut sealed)| {
                for record in sealed.chunks_mut(length) {
                    assert_eq!(opener.open_in_place(record).unwrap().len(), bytes);
                }
                sealed
            },
            BatchSize::SmallInput,
        );
    });
    group.bench_function(format!("open-into-64x{bytes}"), |b| {
        b.iter_batched(
            || (Opener::new(0, secrets).unwrap(), vec![0; bytes + 1]),
            |(mut opener, mut out)| {
                for record in sealed.chunks(length) {
                    assert_eq!(opener.open_into(record, &mut out).unwrap(), bytes);
                }
                out
            },
            BatchSize::SmallInput,
        );
    });
}
