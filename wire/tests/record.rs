//! Our record layer against plain rustls on the other side, both ways round; hostile bytes.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a failed step is a failed test")]

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use flexfs_wire::record::{Handshake, Opener, PLAIN_BYTES_MAX, RecordError, Secured};
use flexfs_wire::tls::{self, ALPN_META, Role};
use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use rustls::crypto::aws_lc_rs::cipher_suite;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, SupportedCipherSuite};

const SUITES: [SupportedCipherSuite; 3] = [
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
];

fn configs(suite: Option<SupportedCipherSuite>) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![Role::Meta.name().to_owned()]).unwrap();
    let leaf = params.signed_by(&key, &ca).unwrap().der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let server = tls::server_config(vec![leaf, ca.der().clone()], key, ALPN_META).unwrap();
    let mut client = tls::client_config(tls::ca_pin(ca.der()).unwrap(), Role::Meta, ALPN_META);
    if let Some(suite) = suite {
        let mut provider = client.crypto_provider().as_ref().clone();
        provider.cipher_suites = vec![suite];
        let old = Arc::make_mut(&mut client);
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AcceptAll))
            .with_no_client_auth();
        config.alpn_protocols = old.alpn_protocols.clone();
        config.enable_secret_extraction = true;
        client = Arc::new(config);
    }
    (client, server)
}

/// Only here: the suites under test need a provider of their own, and `tls::client_config` takes none.
#[derive(Debug)]
struct AcceptAll;

impl rustls::client::danger::ServerCertVerifier for AcceptAll {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2".to_owned()))
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Both sides ours, bytes handed over `step` at a time.
fn both(step: usize) -> (Secured, Secured) {
    let (client, server) = configs(None);
    let mut client = Handshake::client(client, Role::Meta).unwrap();
    let mut server = Handshake::server(server).unwrap();
    let (mut up, mut down) = (Vec::new(), Vec::new());
    for _ in 0..10 {
        client.send(&mut up).unwrap();
        feed(&mut server, &mut up, step);
        server.send(&mut down).unwrap();
        feed(&mut client, &mut down, step);
    }
    assert!(client.is_done() && server.is_done());
    assert_eq!(client.alpn(), Some(ALPN_META));
    (client.finish().unwrap(), server.finish().unwrap())
}

fn feed(handshake: &mut Handshake, bytes: &mut Vec<u8>, step: usize) {
    let mut seen = Vec::new();
    for chunk in bytes.chunks(step) {
        seen.extend_from_slice(chunk);
        let used = handshake.receive(&seen).unwrap();
        seen.drain(..used);
    }
    *bytes = seen;
}

fn open_all(opener: &mut Opener, mut bytes: &[u8]) -> Result<Vec<u8>, RecordError> {
    let mut plain = Vec::new();
    while let Some(length) = Opener::record_len(bytes)? {
        let mut record = bytes[..length].to_vec();
        plain.extend_from_slice(opener.open_in_place(&mut record)?);
        bytes = &bytes[length..];
    }
    assert!(bytes.is_empty());
    Ok(plain)
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..=250u8).cycle().take(bytes).collect()
}

#[test]
fn ours_with_ours_in_pieces_of_any_size() {
    for step in [1, 7, 1000, 100_000] {
        let (mut client, mut server) = both(step);
        assert_eq!(*client.exporter, *server.exporter);
        assert_eq!(format!("{client:?}"), "Secured { .. }", "what both sides know is nobody else's to see");
        let data = pattern(50_000);
        let mut wire = Vec::new();
        client.sealer.seal(&[&data[..10], &[], &data[10..30_000], &data[30_000..]], &mut wire).unwrap();
        assert_eq!(open_all(&mut server.opener, &wire).unwrap(), data);
        wire.clear();
        server.sealer.seal(&[&data], &mut wire).unwrap();
        server.sealer.close(&mut wire).unwrap();
        assert_eq!(open_all(&mut client.opener, &wire), Err(RecordError::Closed));
    }
}

#[test]
fn open_into_goes_straight_to_its_place() {
    let (mut client, mut server) = both(100_000);
    let data = pattern(PLAIN_BYTES_MAX * 2 + 100);
    let mut wire = Vec::new();
    client.sealer.seal(&[&data], &mut wire).unwrap();
    let mut out = vec![0; data.len() + 1];
    let (mut at, mut rest) = (0, wire.as_slice());
    while let Some(length) = Opener::record_len(rest).unwrap() {
        let plain = Opener::plain_bytes_max(length);
        assert_eq!(
            server.opener.open_into(&rest[..length], &mut out[at..at + plain]),
            Err(RecordError::Room)
        );
        at += server.opener.open_into(&rest[..length], &mut out[at..]).unwrap();
        rest = &rest[length..];
    }
    assert_eq!(out[..at], data);
}

#[test]
fn our_server_with_a_rustls_client() {
    for suite in SUITES {
        let (client, server) = configs(Some(suite));
        let mut client = ClientConnection::new(client, Role::Meta.server_name()).unwrap();
        let mut server = Handshake::server(server).unwrap();
        // The client's first data travels with its Finished: it must survive the hand-over.
        client.writer().write_all(b"early").unwrap();
        let (mut up, mut down) = (Vec::new(), Vec::new());
        while !server.is_done() {
            while client.wants_write() {
                client.write_tls(&mut up).unwrap();
            }
            let used = server.receive(&up).unwrap();
            up.drain(..used);
            server.send(&mut down).unwrap();
            let mut input = down.as_slice();
            while !input.is_empty() {
                client.read_tls(&mut input).unwrap();
                client.process_new_packets().unwrap();
            }
            down.clear();
        }
        let mut server = server.finish().unwrap();
        let data = pattern(60_000);
        client.set_buffer_limit(None);
        client.writer().write_all(&data).unwrap();
        while client.wants_write() {
            client.write_tls(&mut up).unwrap();
        }
        let plain = open_all(&mut server.opener, &up).unwrap();
        assert_eq!((&plain[..5], &plain[5..]), (b"early".as_slice(), data.as_slice()));
        server.sealer.seal(&[&data[..3], &data[3..]], &mut down).unwrap();
        server.sealer.close(&mut down).unwrap();
        let (mut input, mut plain) = (down.as_slice(), Vec::new());
        while !input.is_empty() {
            client.read_tls(&mut input).unwrap();
            client.process_new_packets().unwrap();
            let mut chunk = [0; 4096];
            while let Ok(bytes @ 1..) = client.reader().read(&mut chunk) {
                plain.extend_from_slice(&chunk[..bytes]);
            }
        }
        assert_eq!(plain, data);
    }
}

#[test]
fn our_client_with_a_rustls_server() {
    for suite in SUITES {
        let (client, server) = configs(Some(suite));
        let mut client = Handshake::client(client, Role::Meta).unwrap();
        let mut server = ServerConnection::new(server).unwrap();
        let (mut up, mut down) = (Vec::new(), Vec::new());
        for _ in 0..4 {
            client.send(&mut up).unwrap();
            let mut input = up.as_slice();
            while !input.is_empty() {
                server.read_tls(&mut input).unwrap();
                server.process_new_packets().unwrap();
            }
            up.clear();
            while server.wants_write() {
                server.write_tls(&mut down).unwrap();
            }
            let used = client.receive(&down).unwrap();
            down.drain(..used);
        }
        let mut client = client.finish().unwrap();
        let mut exporter = [0; 32];
        server.export_keying_material(&mut exporter, flexfs_wire::hello::EXPORTER_LABEL, None).unwrap();
        assert_eq!(exporter, *client.exporter);
        client.sealer.seal(&[b"ping"], &mut up).unwrap();
        let mut input = up.as_slice();
        server.read_tls(&mut input).unwrap();
        server.process_new_packets().unwrap();
        let mut plain = [0; 4];
        server.reader().read_exact(&mut plain).unwrap();
        assert_eq!(&plain, b"ping");
        server.writer().write_all(b"pong").unwrap();
        while server.wants_write() {
            server.write_tls(&mut down).unwrap();
        }
        assert_eq!(open_all(&mut client.opener, &down).unwrap(), b"pong");
    }
}

#[test]
fn changed_repeated_and_foreign_records_are_refused() {
    let (mut client, mut server) = both(100_000);
    let mut wire = Vec::new();
    client.sealer.seal(&[b"hello"], &mut wire).unwrap();
    let mut changed = wire.clone();
    changed[8] ^= 1;
    assert_eq!(open_all(&mut server.opener, &changed), Err(RecordError::Tag));
    let (mut client, mut server) = both(100_000);
    wire.clear();
    client.sealer.seal(&[b"hello"], &mut wire).unwrap();
    let twice = [wire.clone(), wire].concat();
    assert_eq!(open_all(&mut server.opener, &twice), Err(RecordError::Tag));
    assert_eq!(Opener::record_len(b"GET / HTTP"), Err(RecordError::Type(b'G')));
    assert_eq!(Opener::record_len(&[23, 3, 3, 255, 255]), Err(RecordError::Length(65_540)));
    assert_eq!(Opener::record_len(&[23, 3, 3, 0, 16]), Err(RecordError::Length(21)));
    assert_eq!(Opener::record_len(&[23, 3]), Ok(None));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), typed: bool) {
        let mut bytes = bytes;
        if typed && bytes.len() > 30 {
            let length = u16::try_from(bytes.len() - 5).unwrap();
            bytes[..3].copy_from_slice(&[23, 3, 3]);
            bytes[3..5].copy_from_slice(&length.to_be_bytes());
        }
        let (mut client, mut server) = both(100_000);
        prop_assert!(server.opener.open_in_place(&mut bytes.clone()).is_err());
        prop_assert!(client.opener.open_into(&bytes, &mut [0; 1000]).is_err());
        let (_, config) = configs(None);
        let _ = Handshake::server(config).unwrap().receive(&bytes);
    }
}
