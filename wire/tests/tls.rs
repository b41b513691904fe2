//! Handshakes in memory against certificates made on the spot: what must pass passes, and each refusal
//! names its cause.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a failed step is a failed test")]

use std::sync::Arc;

use flexfs_wire::tls::{self, ALPN_META, ALPN_REST, Role};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

type Ca = CertifiedIssuer<'static, KeyPair>;

fn ca() -> Ca {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn leaf(ca: &Ca, names: &[&str], years: (i32, i32)) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
    params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
    let key = KeyPair::generate().unwrap();
    let cert = params.signed_by(&key, ca).unwrap();
    (cert.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
}

const NOW: (i32, i32) = (2000, 2100);

fn server(ca: &Ca, names: &[&str], years: (i32, i32), alpn: &[u8]) -> Arc<ServerConfig> {
    let (cert, key) = leaf(ca, names, years);
    tls::server_config(vec![cert, ca.der().clone()], key, alpn).unwrap()
}

/// Runs a handshake in memory; the client's error explained, or the negotiated ALPN.
fn check(
    client: Arc<ClientConfig>,
    role: Role,
    server: Arc<ServerConfig>,
) -> Result<Option<Vec<u8>>, String> {
    let mut client = ClientConnection::new(client, role.server_name()).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    for _ in 0..10 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut input = wire.as_slice();
        while !input.is_empty() {
            server.read_tls(&mut input).unwrap();
            server.process_new_packets().map_err(|error| format!("server: {error}"))?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut input = wire.as_slice();
        while !input.is_empty() {
            client.read_tls(&mut input).unwrap();
            client.process_new_packets().map_err(|error| tls::explain(&std::io::Error::other(error)))?;
        }
        if !client.is_handshaking() && !server.is_handshaking() {
            assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
            let alpn = client.alpn_protocol().map(<[u8]>::to_vec);
            client.dangerous_extract_secrets().unwrap();
            server.dangerous_extract_secrets().unwrap();
            return Ok(alpn);
        }
    }
    panic!("handshake did not end");
}

#[test]
fn right_pin_and_role_pass() {
    let ca = ca();
    let pin = tls::ca_pin(ca.der()).unwrap();
    let server = server(&ca, &[Role::Meta.name(), "localhost"], NOW, ALPN_META);
    let alpn = check(tls::client_config(pin, Role::Meta, ALPN_META), Role::Meta, server.clone()).unwrap();
    assert_eq!(alpn.as_deref(), Some(ALPN_META));
    let with_ca = tls::client_config_with_ca(ca.der().clone(), Role::Meta, ALPN_META).unwrap();
    assert!(check(with_ca, Role::Meta, server).is_ok());
}

#[test]
fn another_cluster_is_refused() {
    let (ours, theirs) = (ca(), ca());
    let pin = tls::ca_pin(ours.der()).unwrap();
    let expected = "certificate chain is not from the cluster this token belongs to (CA pin mismatch)";
    let server1 = server(&theirs, &[Role::Admin.name()], NOW, ALPN_REST);
    let error =
        check(tls::client_config(pin, Role::Admin, ALPN_REST), Role::Admin, server1.clone()).unwrap_err();
    assert_eq!(error, expected);
    let with_ca = tls::client_config_with_ca(ours.der().clone(), Role::Admin, ALPN_REST).unwrap();
    let error = check(with_ca, Role::Admin, server1).unwrap_err();
    assert!(error.contains("not signed by the cluster's CA"), "{error}");
}

#[test]
fn the_right_ca_beside_a_foreign_leaf_is_refused() {
    let (ours, theirs) = (ca(), ca());
    let pin = tls::ca_pin(ours.der()).unwrap();
    let (cert, key) = leaf(&theirs, &[Role::Admin.name()], NOW);
    let chain = vec![cert, theirs.der().clone(), ours.der().clone()];
    let server = tls::server_config(chain, key, ALPN_REST).unwrap();
    let error = check(tls::client_config(pin, Role::Admin, ALPN_REST), Role::Admin, server).unwrap_err();
    assert!(error.contains("not signed by the cluster's CA"), "{error}");
}

#[test]
fn a_leaf_cannot_sign() {
    // A metadata server's own key must not make an admin certificate: its certificate is no CA.
    let ca = ca();
    let pin = tls::ca_pin(ca.der()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![Role::Meta.name().to_owned()]).unwrap();
    let middle = CertifiedIssuer::signed_by(params, key, &ca).unwrap();
    let (cert, key) = leaf(&middle, &[Role::Admin.name()], NOW);
    let chain = vec![cert, middle.der().clone(), ca.der().clone()];
    let server = tls::server_config(chain, key, ALPN_REST).unwrap();
    let error = check(tls::client_config(pin, Role::Admin, ALPN_REST), Role::Admin, server).unwrap_err();
    assert!(error.contains("not signed by the cluster's CA"), "{error}");
}

#[test]
fn another_role_is_refused() {
    let ca = ca();
    let pin = tls::ca_pin(ca.der()).unwrap();
    let server = server(&ca, &[Role::Meta.name(), "localhost"], NOW, ALPN_REST);
    let error = check(tls::client_config(pin, Role::Admin, ALPN_REST), Role::Admin, server).unwrap_err();
    assert!(error.contains("not valid for admin.flexfs.internal"), "{error}");
}

#[test]
fn times_are_kept() {
    let ca = ca();
    let pin = tls::ca_pin(ca.der()).unwrap();
    for (years, expected) in [((2000, 2001), "has expired"), ((2090, 2100), "is not valid yet")] {
        let server = server(&ca, &[Role::Admin.name()], years, ALPN_REST);
        let error = check(tls::client_config(pin, Role::Admin, ALPN_REST), Role::Admin, server).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn services_do_not_mix() {
    let ca = ca();
    let pin = tls::ca_pin(ca.der()).unwrap();
    let server = server(&ca, &[Role::Meta.name()], NOW, ALPN_META);
    let error = check(tls::client_config(pin, Role::Meta, ALPN_REST), Role::Meta, server).unwrap_err();
    assert!(error.contains("protocol"), "{error}");
}

#[test]
fn pins_are_of_the_key() {
    // The same key in a renewed certificate keeps its pin; tokens outlive a CA certificate.
    let key = KeyPair::generate().unwrap();
    let first = CertificateParams::default().self_signed(&key).unwrap();
    let again = CertificateParams::new(vec!["x".to_owned()]).unwrap().self_signed(&key).unwrap();
    assert_ne!(first.der(), again.der());
    assert_eq!(tls::ca_pin(first.der()).unwrap(), tls::ca_pin(again.der()).unwrap());
    assert!(tls::ca_pin(&CertificateDer::from(vec![1, 2, 3])).is_err());
}
