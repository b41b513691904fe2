//! TLS as mount and meta configure it, both sides in memory.

use std::sync::Arc;

use flexfs_wire::tls::{self, ALPN_META, Role};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ServerConfig};

/// A cluster's CA with the configurations of a client and of a metadata server.
pub(crate) struct Cluster {
    pub(crate) ca: CertificateDer<'static>,
    pub(crate) client: Arc<ClientConfig>,
    pub(crate) server: Arc<ServerConfig>,
}

pub(crate) fn cluster() -> Cluster {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![Role::Meta.name().to_owned()]).unwrap();
    let leaf = params.signed_by(&key, &ca).unwrap().der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let ca = ca.der().clone();
    let server = tls::server_config(vec![leaf, ca.clone()], key, ALPN_META).unwrap();
    let client = tls::client_config(tls::ca_pin(&ca).unwrap(), Role::Meta, ALPN_META);
    Cluster { ca, client, server }
}
