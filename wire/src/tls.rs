//! TLS of the whole system: version 1.3 only, one private CA per cluster, servers verified by role.
//!
//! A server proves its role (`admin.flexfs.internal`, `meta.flexfs.internal`), not its host: addresses change,
//! the CA signs roles. The CA is known by the pin every token carries, so there is no first connection on trust
//! and nothing to switch off. Servers present their leaf and the CA certificate; a CA's own expiry is not
//! looked at, as for any trust anchor.
//!
//! Session tickets are off: links are few and long-lived, and a resumed session would skip the certificate.
//! Traffic keys may be taken out after the handshake (`dangerous_extract_secrets`): mount and meta run their own
//! record layer on io_uring.

use std::error::Error as StdError;
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs as provider};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, ServerName, SignatureVerificationAlgorithm, UnixTime,
};
use rustls::server::{ResolvesServerCert, ServerConfig};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use webpki::{EndEntityCert, KeyUsage};

use crate::token::CaPin;

/// ALPN of the links between mount and meta.
pub const ALPN_META: &[u8] = b"flexfs/1";
/// ALPN of every REST service.
pub const ALPN_REST: &[u8] = b"http/1.1";

/// What a server proves to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The admin server.
    Admin,
    /// A metadata server.
    Meta,
}

impl Role {
    /// The DNS name (subject alternative name, and SNI) that stands for the role.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin.flexfs.internal",
            Self::Meta => "meta.flexfs.internal",
        }
    }

    /// The role's name as rustls takes it.
    #[must_use]
    pub fn server_name(self) -> ServerName<'static> {
        ServerName::try_from(self.name()).expect("role names are DNS names")
    }
}

/// Why a configuration could not be made.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate that cannot be read.
    #[error("the CA certificate cannot be read: {0}")]
    Ca(webpki::Error),
    /// Certificate and key do not go together, or rustls takes no such key.
    #[error("certificate and key: {0}")]
    Identity(Error),
}

/// The pin of a CA: SHA-256 of its `SubjectPublicKeyInfo` (DER), first 16 bytes.
///
/// # Errors
/// [`TlsError::Ca`] when this is no X.509 certificate.
pub fn ca_pin(ca: &CertificateDer<'_>) -> Result<CaPin, TlsError> {
    let anchor = webpki::anchor_from_trusted_cert(ca).map_err(TlsError::Ca)?;
    let hash = digest::digest(&digest::SHA256, webpki::spki_for_anchor(&anchor).as_ref());
    let first = hash.as_ref().first_chunk::<16>().expect("SHA-256 has 32 bytes");
    Ok(CaPin(*first))
}

/// Client side: accepts only a server of `role` whose chain holds the CA that `pin` names.
#[must_use]
pub fn client_config(pin: CaPin, role: Role, alpn: &[u8]) -> Arc<ClientConfig> {
    client(Anchor::Pin(pin), role, alpn)
}

/// Client side with the CA at hand: accepts only a server of `role` signed by `ca`.
///
/// # Errors
/// [`TlsError::Ca`] when `ca` is no X.509 certificate.
pub fn client_config_with_ca(
    ca: CertificateDer<'static>,
    role: Role,
    alpn: &[u8],
) -> Result<Arc<ClientConfig>, TlsError> {
    webpki::anchor_from_trusted_cert(&ca).map_err(TlsError::Ca)?;
    Ok(client(Anchor::Ca(ca), role, alpn))
}

/// What [`client_config`] looks at certificates with, for fuzzing without a handshake.
#[must_use]
pub fn verifier(pin: CaPin, role: Role) -> Arc<dyn ServerCertVerifier> {
    role_verifier(Anchor::Pin(pin), role, &provider::default_provider())
}

/// Server side: `chain` is the leaf followed by the cluster CA's certificate.
///
/// # Errors
/// [`TlsError::Identity`] when the key is not the leaf's.
pub fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    alpn: &[u8],
) -> Result<Arc<ServerConfig>, TlsError> {
    let config = ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider knows TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(TlsError::Identity)?;
    Ok(server(config, alpn))
}

/// Server side with certificates chosen per connection (renewal without a restart, more than one name).
#[must_use]
pub fn server_config_with(resolver: Arc<dyn ResolvesServerCert>, alpn: &[u8]) -> Arc<ServerConfig> {
    let config = ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider knows TLS 1.3")
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    server(config, alpn)
}

/// One line for a failed TLS connection: finds the TLS error below `error` and says what it means for an
/// operator; other errors come back in their own words.
#[must_use]
pub fn explain(error: &(dyn StdError + 'static)) -> String {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(tls) = error.downcast_ref::<Error>() {
            return explain_tls(tls);
        }
        // An io::Error hands out the source of what it wraps; the wrapped error itself is behind `get_ref`.
        cause = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    error.to_string()
}

fn client(anchor: Anchor, role: Role, alpn: &[u8]) -> Arc<ClientConfig> {
    let provider = Arc::new(provider::default_provider());
    let verifier = role_verifier(anchor, role, &provider);
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider knows TLS 1.3")
        // rustls calls every verifier but its own dangerous; this one verifies more, never less.
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_secret_extraction = true;
    Arc::new(config)
}

fn server(mut config: ServerConfig, alpn: &[u8]) -> Arc<ServerConfig> {
    config.alpn_protocols = vec![alpn.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.enable_secret_extraction = true;
    Arc::new(config)
}

fn role_verifier(anchor: Anchor, role: Role, provider: &CryptoProvider) -> Arc<dyn ServerCertVerifier> {
    Arc::new(RoleVerifier { anchor, role, algorithms: provider.signature_verification_algorithms })
}

fn explain_tls(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(cause))) => cause.to_string(),
        Error::InvalidCertificate(cause) => format!("the server's certificate was refused: {cause}"),
        Error::InvalidMessage(_) => {
            "the peer does not speak TLS (wrong port, or a proxy in between?)".to_owned()
        }
        Error::AlertReceived(alert) => format!("the peer refused the TLS connection: {alert:?}"),
        other => format!("TLS: {other}"),
    }
}

/// What trust is rooted in.
#[derive(Debug)]
enum Anchor {
    /// The CA is to be found in the presented chain and known by its key.
    Pin(CaPin),
    /// The CA is at hand.
    Ca(CertificateDer<'static>),
}

/// Verifies a server for one role against one CA. The name asked for in the connection plays no part.
#[derive(Debug)]
struct RoleVerifier {
    anchor: Anchor,
    role: Role,
    algorithms: WebPkiSupportedAlgorithms,
}

/// The presented chain lacks the CA the token names: another cluster, or somebody in between.
#[derive(Debug, thiserror::Error)]
#[error("certificate chain is not from the cluster this token belongs to (CA pin mismatch)")]
struct PinMismatch;

/// The pinned CA was presented, but did not sign the leaf.
#[derive(Debug, thiserror::Error)]
#[error("the server's certificate was not signed by the cluster's CA ({0})")]
struct NotSigned(webpki::Error);

/// The certificate is another role's.
#[derive(Debug, thiserror::Error)]
#[error("the server's certificate is not valid for {0}: this address belongs to another service")]
struct WrongRole(&'static str);

/// Outside its time.
#[derive(Debug, thiserror::Error)]
#[error("the server's certificate {0}")]
struct WrongTime(&'static str);

fn refuse(cause: impl StdError + Send + Sync + 'static) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(cause))))
}

impl RoleVerifier {
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let ca = match &self.anchor {
            Anchor::Ca(ca) => ca,
            // The certificate around the pinned key may be forged; the signature on the leaf cannot be.
            Anchor::Pin(pin) => rest
                .iter()
                .find(|cert| ca_pin(cert).is_ok_and(|found| found == *pin))
                .ok_or_else(|| refuse(PinMismatch))?,
        };
        let anchor = webpki::anchor_from_trusted_cert(ca).map_err(|error| refuse(NotSigned(error)))?;
        let bad = || Error::InvalidCertificate(CertificateError::BadEncoding);
        let leaf = EndEntityCert::try_from(leaf).map_err(|_| bad())?;
        let algorithms: &[&dyn SignatureVerificationAlgorithm] = self.algorithms.all;
        leaf.verify_for_usage(algorithms, &[anchor], rest, now, KeyUsage::server_auth(), None, None)
            .map_err(|error| match error {
                webpki::Error::CertExpired { .. } => {
                    refuse(WrongTime("has expired; renew it (and check both clocks)"))
                }
                webpki::Error::CertNotValidYet { .. } => {
                    refuse(WrongTime("is not valid yet: check the clocks of both machines"))
                }
                error => refuse(NotSigned(error)),
            })?;
        leaf.verify_is_valid_for_subject_name(&self.role.server_name())
            .map_err(|_| refuse(WrongRole(self.role.name())))
    }
}

impl ServerCertVerifier for RoleVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(leaf, rest, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
