//! Certificates that a server presents, against the CA pin of a token (`wire::tls`): chains of real ones in any order, of
//! changed ones, and of any bytes.

use std::sync::OnceLock;
use std::time::Duration;

use flexfs_wire::tls::{Role, ca_pin, verifier};
use flexfs_wire::token::CaPin;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, SigningKey,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, UnixTime};

use crate::source::Source;

/// PKCS #8 of an Ed25519 key but for its 32 bytes (RFC 8410): the same certificates in every run.
const PKCS8_FRONT: [u8; 16] = [48, 46, 2, 1, 0, 48, 5, 6, 3, 43, 101, 112, 4, 34, 4, 32];
/// First second of 2030 and of 2031: when the certificates hold.
const FROM: u64 = 1_893_456_000;
const TO: u64 = 1_924_992_000;

/// Certificates by what they are.
struct Certificates {
    /// The one that the pin is of, and another cluster's.
    ours: CertificateDer<'static>,
    theirs: CertificateDer<'static>,
    /// Our CA's key and name in a certificate that somebody else signed.
    around: CertificateDer<'static>,
    /// Servers of our cluster.
    admin: CertificateDer<'static>,
    meta: CertificateDer<'static>,
    /// A server of the other cluster that claims to be meta, and one that our metadata server signed.
    foreign: CertificateDer<'static>,
    below: CertificateDer<'static>,
}

impl Certificates {
    fn get() -> &'static Self {
        static CERTIFICATES: OnceLock<Certificates> = OnceLock::new();
        CERTIFICATES.get_or_init(Self::make)
    }

    fn make() -> Self {
        let (ours, theirs) = (ca(1), ca(2));
        let middle = CertifiedIssuer::signed_by(params(&[Role::Meta]), key(4), &ours).expect("signed");
        let around = ca_params().signed_by(&key(1), &theirs).expect("signed");
        Self {
            ours: ours.der().clone(),
            theirs: theirs.der().clone(),
            around: around.der().clone(),
            admin: leaf(&ours, 3, Role::Admin),
            meta: middle.der().clone(),
            foreign: leaf(&theirs, 5, Role::Meta),
            below: leaf(&middle, 6, Role::Meta),
        }
    }

    fn all(&self) -> [&CertificateDer<'static>; 7] {
        [&self.ours, &self.theirs, &self.around, &self.admin, &self.meta, &self.foreign, &self.below]
    }

    fn pin(&self) -> CaPin {
        ca_pin(&self.ours).expect("a certificate")
    }

    fn of(&self, role: Role) -> &CertificateDer<'static> {
        match role {
            Role::Admin => &self.admin,
            Role::Meta => &self.meta,
        }
    }
}

/// A leaf, a chain behind it, a role and a time: accepted is our leaf of this role, whole, in its time, with our CA's key in
/// the chain, and nothing else.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    let known = Certificates::get();
    let role = if source.one_in(2) { Role::Admin } else { Role::Meta };
    let seconds = match source.below(4) {
        0 => source.long() >> 16,
        1 => TO + 1,
        _ => FROM + u64::from(source.word()) % (TO - FROM),
    };
    let leaf = certificate(&mut source, known);
    let chain: Vec<_> = (0..source.below(5)).map(|_| certificate(&mut source, known)).collect();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let verified =
        verifier(known.pin(), role).verify_server_cert(&leaf, &chain, &role.server_name(), &[], now).is_ok();
    let is_pinned = chain.iter().any(|cert| ca_pin(cert).is_ok_and(|pin| pin == known.pin()));
    let is_ours = leaf == *known.of(role) && (FROM..=TO).contains(&seconds);
    assert!(!verified || is_ours && is_pinned, "a server that is not ours");
    // A damaged certificate with our key in front may spoil a good chain, which is refused then.
    let is_first = chain.first().is_some_and(|cert| *cert == known.ours);
    assert!(verified || !(is_ours && is_first), "our server is refused");
}

/// One as it is, one with a few bytes changed or cut, or any bytes.
fn certificate(source: &mut Source<'_>, known: &Certificates) -> CertificateDer<'static> {
    let mut der = source.pick(&known.all()).as_ref().to_vec();
    match source.below(8) {
        0 => {
            for _ in 0..=source.below(3) {
                let place = usize::from(source.short()) % der.len().max(1);
                der[place] ^= source.byte();
            }
        }
        1 => der.truncate(usize::from(source.short())),
        2 => der.extend_from_slice(source.take(3)),
        3 => {
            let length = usize::from(source.short() % 512);
            der = source.take(length).to_vec();
        }
        4 => {
            let (place, length) = (usize::from(source.short()) % der.len(), source.below(16));
            let end = (place + length).min(der.len());
            drop(der.splice(place..end, source.take(length).iter().copied()));
        }
        _ => {}
    }
    der.into()
}

fn key(number: u8) -> KeyPair {
    let der = [&PKCS8_FRONT[..], &[number; 32]].concat();
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der), &rcgen::PKCS_ED25519)
        .expect("a key")
}

fn ca(number: u8) -> CertifiedIssuer<'static, KeyPair> {
    CertifiedIssuer::self_signed(ca_params(), key(number)).expect("signed")
}

fn ca_params() -> CertificateParams {
    let mut params = params(&[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn params(roles: &[Role]) -> CertificateParams {
    let names: Vec<String> = roles.iter().map(|role| role.name().to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("DNS names");
    params.not_before = rcgen::date_time_ymd(2030, 1, 1);
    params.not_after = rcgen::date_time_ymd(2031, 1, 1);
    params
}

fn leaf<S: SigningKey>(issuer: &CertifiedIssuer<'_, S>, number: u8, role: Role) -> CertificateDer<'static> {
    params(&[role]).signed_by(&key(number), issuer).expect("signed").der().clone()
}
