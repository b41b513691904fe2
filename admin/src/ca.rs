//! The cluster's CA: one key under `--dbFolder`, made by `init` (P-256) or the operator's. Signs servers for their roles.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use flexfs_wire::creds::check_mode;
use flexfs_wire::tls::{self, Role};
use flexfs_wire::token::CaPin;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use zeroize::Zeroizing;

/// File of the CA's certificate.
const CERT_FILE: &str = "ca.pem";
/// File of the CA's key.
const KEY_FILE: &str = "ca.key";

const DAY: Duration = Duration::from_secs(86_400);
/// Life of the CA's certificate. Tokens pin its key, not its dates, so this only has to be long.
const CA_LIFE: Duration = Duration::from_secs(86_400 * 365 * 30);
/// Life of a server's certificate, when none is chosen: admin may be away for the last third of it.
pub(crate) const LEAF_LIFE: Duration = Duration::from_secs(86_400 * 30);
/// Certificates begin so long ago, for clocks that are behind; short-lived ones by their life at most.
const SKEW: Duration = Duration::from_secs(3600);

/// The CA, ready to sign.
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    cert: CertificateDer<'static>,
    /// The same in PEM.
    cert_pem: String,
    pin: CaPin,
    /// Life of what is signed.
    leaf_life: Duration,
}

/// A leaf, the CA's certificate, and the leaf's key.
pub(crate) struct Identity {
    /// Leaf first.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// Of the leaf.
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Ca {
    /// Makes a new CA and writes it into `folder`, both files 0600.
    pub(crate) fn create(folder: &Path, now: SystemTime) -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "flexfs cluster CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = (now - DAY).into();
        params.not_after = (now + CA_LIFE).into();
        let cert = params.self_signed(&key)?;
        write_private(&folder.join(KEY_FILE), &Zeroizing::new(key.serialize_pem()))?;
        write_private(&folder.join(CERT_FILE), &cert.pem())?;
        Self::assemble(cert.der().clone(), cert.pem(), key)
    }

    /// Takes over a CA of the operator's and keeps a copy in `folder`, both files 0600.
    ///
    /// # Errors
    /// Others may read the key, it is not the certificate's, or that is no CA's.
    pub(crate) fn adopt(
        folder: &Path,
        cert_file: &Path,
        key_file: &Path,
        now: SystemTime,
    ) -> anyhow::Result<Self> {
        check_private(key_file)?;
        let text = std::fs::read_to_string(cert_file)
            .with_context(|| format!("read {} (--caCert)", cert_file.display()))?;
        let cert_pem = first_certificate(&text)
            .with_context(|| format!("{} (--caCert) holds no certificate in PEM", cert_file.display()))?;
        let cert = CertificateDer::from_pem_slice(cert_pem.as_bytes())
            .with_context(|| format!("{} (--caCert) cannot be read", cert_file.display()))?;
        let key_pem = std::fs::read_to_string(key_file)
            .map(Zeroizing::new)
            .with_context(|| format!("read {} (--caKey)", key_file.display()))?;
        let key = KeyPair::from_pem(&key_pem).with_context(|| {
            format!(
                "{0} (--caKey) holds no key in PKCS #8; `openssl pkcs8 -topk8 -nocrypt -in {0}` makes one",
                key_file.display()
            )
        })?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&cert)
            .with_context(|| format!("{} (--caCert) cannot be read", cert_file.display()))?;
        anyhow::ensure!(
            parsed.is_ca() && parsed.key_usage()?.is_none_or(|usage| usage.value.key_cert_sign()),
            "{} (--caCert) is not the certificate of a CA: it may not sign others",
            cert_file.display()
        );
        let key_pem = Zeroizing::new(key.serialize_pem());
        let ca = Self::assemble(cert, cert_pem, key)?;
        // As clients will look at what it signs.
        let shown = ca.admin_identity(IpAddr::from([127, 0, 0, 1]), now)?;
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH)?;
        tls::verifier(ca.pin, Role::Admin)
            .verify_server_cert(
                &shown.chain[0],
                &shown.chain[1..],
                &Role::Admin.server_name(),
                &[],
                UnixTime::since_unix_epoch(seconds),
            )
            .map_err(|error| anyhow::anyhow!(tls::explain(&error)))
            .with_context(|| {
                format!(
                    "{} (--caKey) is not the key of {} (--caCert)",
                    key_file.display(),
                    cert_file.display()
                )
            })?;
        write_private(&folder.join(KEY_FILE), &key_pem)?;
        write_private(&folder.join(CERT_FILE), &ca.cert_pem)?;
        Ok(ca)
    }

    /// Reads the CA that `init` made.
    pub(crate) fn load(folder: &Path) -> anyhow::Result<Self> {
        let (cert_file, key_file) = (folder.join(CERT_FILE), folder.join(KEY_FILE));
        check_private(&key_file)?;
        let read = |path: &Path| {
            std::fs::read_to_string(path)
                .map(Zeroizing::new)
                .with_context(|| format!("read {}", path.display()))
        };
        let cert_pem = read(&cert_file)?.to_string();
        let cert = CertificateDer::from_pem_slice(cert_pem.as_bytes())
            .with_context(|| format!("{} holds no certificate", cert_file.display()))?;
        let key = KeyPair::from_pem(&read(&key_file)?)
            .with_context(|| format!("{} holds no private key", key_file.display()))?;
        Self::assemble(cert, cert_pem, key)
    }

    fn assemble(cert: CertificateDer<'static>, cert_pem: String, key: KeyPair) -> anyhow::Result<Self> {
        let pin = tls::ca_pin(&cert)?;
        let issuer = Issuer::from_ca_cert_der(&cert, key)?;
        Ok(Self { issuer, cert, cert_pem, pin, leaf_life: LEAF_LIFE })
    }

    /// The same, signing for `life`.
    pub(crate) fn with_life(self, life: Duration) -> Self {
        Self { leaf_life: life, ..self }
    }

    /// Life of what it signs.
    pub(crate) fn leaf_life(&self) -> Duration {
        self.leaf_life
    }

    /// The pin that tokens of this cluster carry.
    pub(crate) fn pin(&self) -> CaPin {
        self.pin
    }

    /// A new key and certificate for admin itself: its role, `localhost`, and the address it is bound to.
    pub(crate) fn admin_identity(&self, bound: IpAddr, now: SystemTime) -> anyhow::Result<Identity> {
        let key = KeyPair::generate()?;
        let mut names = vec![SanType::DnsName("localhost".try_into()?)];
        if !bound.is_unspecified() {
            names.push(SanType::IpAddress(bound));
        }
        let leaf = self.leaf(Role::Admin, names, &key, now)?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        Ok(Identity { chain: vec![leaf.der().clone(), self.cert.clone()], key })
    }

    /// Signs a metadata server's key for its role, and for its own name `<id>.meta.flexfs.internal`. Answers PEM.
    pub(crate) fn sign_meta(
        &self,
        csr: &str,
        meta_store: &str,
        now: SystemTime,
    ) -> Result<String, rcgen::Error> {
        // Parsing checks the signature: whoever asks holds the key.
        let csr = CertificateSigningRequestParams::from_pem(csr)?;
        let own = format!("{meta_store}.{}", Role::Meta.name());
        let names = vec![SanType::DnsName(own.try_into()?)];
        let leaf = self.leaf(Role::Meta, names, &csr.public_key, now)?;
        Ok(leaf.pem() + &self.cert_pem)
    }

    fn leaf(
        &self,
        role: Role,
        mut names: Vec<SanType>,
        key: &impl PublicKeyData,
        now: SystemTime,
    ) -> Result<Certificate, rcgen::Error> {
        let mut params = CertificateParams::default();
        names.insert(0, SanType::DnsName(role.name().try_into()?));
        params.subject_alt_names = names;
        params.distinguished_name.push(DnType::CommonName, role.name());
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = (now - SKEW.min(self.leaf_life)).into();
        params.not_after = (now + self.leaf_life).into();
        params.signed_by(key, &self.issuer)
    }
}

/// The first of the certificates in a PEM file, with the lines around it.
fn first_certificate(text: &str) -> Option<String> {
    const END: &str = "-----END CERTIFICATE-----";
    let start = text.find("-----BEGIN CERTIFICATE-----")?;
    let end = start + text[start..].find(END)? + END.len();
    Some(format!("{}\n", &text[start..end]))
}

/// Refuses a key that others may read: who has it is any server of the cluster.
pub(crate) fn check_private(path: &Path) -> anyhow::Result<()> {
    let mode = path.metadata().with_context(|| format!("read {}", path.display()))?.permissions().mode();
    check_mode(&path.to_string_lossy(), mode)?;
    Ok(())
}

/// Writes a file that only its owner may read, synced.
fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file: File =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flexfs_wire::tls::{ALPN_META, ALPN_REST};

    #[test]
    fn made_once_loaded_again() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::UNIX_EPOCH + DAY * 20_000;
        let made = Ca::create(dir.path(), now).unwrap();
        let ca = Ca::load(dir.path()).unwrap();
        assert_eq!(made.pin(), ca.pin());
        let id = ca.admin_identity("127.0.0.1".parse().unwrap(), now).unwrap();
        assert_eq!(tls::ca_pin(&id.chain[1]).unwrap(), ca.pin());
        tls::server_config(id.chain, id.key, ALPN_REST).unwrap();
        let key = dir.path().join(KEY_FILE);
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = format!("{:#}", Ca::load(dir.path()).err().unwrap());
        assert!(error.contains(&format!("chmod 600 {}", key.display())), "{error}");
    }

    #[test]
    fn an_operators_ca_is_taken_over_when_it_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::UNIX_EPOCH + DAY * 20_000;
        let (cert_file, key_file) = (dir.path().join("issuing.pem"), dir.path().join("issuing.key"));
        let put = |cert: &str, key: &KeyPair| {
            std::fs::write(&cert_file, cert).unwrap();
            write_private(&key_file, &key.serialize_pem()).unwrap();
        };
        let adopt = || Ca::adopt(dir.path(), &cert_file, &key_file, now);
        let refused = || format!("{:#}", adopt().err().unwrap());
        let issuer = |is_ca| {
            let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, "Issuing CA 7");
            params.is_ca = is_ca;
            (params.self_signed(&key).unwrap().pem(), key)
        };
        let (cert, key) = issuer(IsCa::Ca(BasicConstraints::Unconstrained));
        let (server, server_key) = issuer(IsCa::ExplicitNoCa);
        put(&server, &server_key);
        assert!(refused().contains("not the certificate of a CA"), "{}", refused());
        put(&cert, &server_key);
        assert!(refused().contains("is not the key of"), "{}", refused());
        put("nothing", &key);
        assert!(refused().contains("holds no certificate"), "{}", refused());
        assert!(!dir.path().join(KEY_FILE).exists(), "what is refused leaves nothing");
        // With the certificates of those above it, as such files have.
        put(&format!("subject: Issuing CA 7\n{cert}{server}"), &key);
        let made = adopt().unwrap();
        let ca = Ca::load(dir.path()).unwrap();
        assert_eq!(ca.pin(), made.pin());
        let shown = ca.admin_identity("127.0.0.1".parse().unwrap(), now).unwrap();
        tls::server_config(shown.chain, shown.key, ALPN_REST).unwrap();
        std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(refused().contains("chmod"), "{}", refused());
    }

    #[test]
    fn requests_are_signed_for_the_role_only() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::UNIX_EPOCH + DAY * 20_000;
        let ca = Ca::create(dir.path(), now).unwrap();
        let key = KeyPair::generate().unwrap();
        // The names a server asks for play no part: it must not become admin.
        let wish = CertificateParams::new(vec![Role::Admin.name().to_owned()]).unwrap();
        let csr = wish.serialize_request(&key).unwrap().pem().unwrap();
        let chain = ca.sign_meta(&csr, "0b5e0000-0000-4000-8000-000000000000", now).unwrap();
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>().unwrap();
        assert_eq!(chain.len(), 2);
        let der: &[u8] = &chain[0];
        let holds = |name: &str| der.windows(name.len()).any(|window| window == name.as_bytes());
        assert!(holds(Role::Meta.name()) && !holds(Role::Admin.name()));
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        tls::server_config(chain, key, ALPN_META).unwrap();
        assert!(ca.sign_meta("garbage", "x", now).is_err());
    }
}
