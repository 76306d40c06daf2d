//! Paths from a leaf upwards, one issuer at a time, nearest first, to an anchor that the caller recognises.
//!
//! An anchor is whatever the caller says: a root that was never sent, an intermediate, the leaf itself. Every step holds
//! the issuer to RFC 5280, section 6.1: its signature, dates, basic constraints, path length, key usage, and no critical
//! extension that is not understood. Each certificate is entered at most once, and signatures are counted, so that the
//! work grows with the number of certificates and not with the number of paths. Nothing here knows whom to trust.

use std::collections::VecDeque;
use std::fmt;

use super::{BasicConstraints, Certificate, InvalidCertificate};
use crate::clock::UnixTime;

/// The certificates of one TLS handshake: the leaf, whose key the peer holds, then what it sent along, in any order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresentedChain(Box<[Certificate]>);

/// Why certificates are not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidChain {
    /// There is none.
    #[error("no certificate was presented")]
    Empty,
    /// More than [`PresentedChain::CERTIFICATES_MAX`].
    #[error("more than {} certificates were presented", PresentedChain::CERTIFICATES_MAX)]
    TooMany,
    /// More than [`PresentedChain::BYTES_MAX`] together.
    #[error("the presented certificates are longer than {} bytes together", PresentedChain::BYTES_MAX)]
    TooLong,
    /// One cannot be read.
    #[error("presented certificate {index} cannot be read: {reason}")]
    Certificate {
        /// Which; the leaf is 0.
        index: usize,
        /// Why.
        reason: InvalidCertificate,
    },
}

impl PresentedChain {
    /// Most certificates of a handshake that are looked at (`rules.md` 27).
    pub const CERTIFICATES_MAX: usize = 10;
    /// Most bytes of them together.
    pub const BYTES_MAX: usize = 64 * 1_024;

    /// Reads the certificates of a handshake, leaf first.
    pub fn from_der<D: AsRef<[u8]>>(encoded: &[D]) -> Result<Self, InvalidChain> {
        if encoded.is_empty() {
            return Err(InvalidChain::Empty);
        }
        if encoded.len() > Self::CERTIFICATES_MAX {
            return Err(InvalidChain::TooMany);
        }
        if encoded.iter().map(|der| der.as_ref().len()).sum::<usize>() > Self::BYTES_MAX {
            return Err(InvalidChain::TooLong);
        }
        let read = |(index, der): (usize, &D)| {
            Certificate::from_der(der.as_ref()).map_err(|reason| InvalidChain::Certificate { index, reason })
        };
        encoded.iter().enumerate().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// The certificate whose key the peer holds.
    pub fn leaf(&self) -> &Certificate {
        self.0.first().expect("a presented chain is never empty")
    }

    /// All of them, leaf first.
    pub fn certificates(&self) -> &[Certificate] {
        &self.0
    }
}

/// A path that holds: the leaf first, each signed by the next, the anchor last. The leaf may be its own anchor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain(Vec<Certificate>);

impl Chain {
    /// From leaf to anchor.
    pub fn certificates(&self) -> &[Certificate] {
        &self.0
    }

    /// Where it ends.
    pub fn anchor(&self) -> &Certificate {
        self.0.last().expect("a chain holds at least its leaf")
    }
}

/// Why no path led to an anchor: the gravest thing that stood in the way, and how far it was walked before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainFailure {
    /// The certificates that hold, leaf first, up to the one below `certificate`; empty if the leaf itself fails.
    pub walked: Vec<Certificate>,
    /// The certificate that is at fault, or that has no acceptable issuer.
    pub certificate: Certificate,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a certificate on a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// Its time has passed.
    Expired,
    /// Its time is yet to come.
    Early,
    /// It signed others and is no authority by its basic constraints.
    NotAnAuthority,
    /// It signed others and its key usage forbids that.
    KeyUsage,
    /// More authorities stand below it than it allows.
    PathLength {
        /// How many it allows.
        limit: u32,
    },
    /// It signed others and holds a critical extension that is not understood.
    CriticalExtension,
    /// It has the issuer's name, and its key is not one that may issue.
    IssuerKey,
    /// It has the issuer's name, and did not make the signature.
    Signature,
    /// Nothing that was presented or is known has its issuer's name.
    IssuerUnknown,
    /// It is its own issuer and no anchor.
    NotAnchored,
    /// The path is longer than [`PresentedChain::CERTIFICATES_MAX`], or finding it takes more than
    /// [`Walk::SIGNATURES_MAX`] signatures.
    TooLong,
}

/// Says it of "the certificate".
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired => f.write_str("has expired"),
            Self::Early => f.write_str("is not valid yet"),
            Self::NotAnAuthority => f.write_str("signed another one and is no CA by its basic constraints"),
            Self::KeyUsage => f.write_str("signed another one, which its key usage forbids"),
            Self::PathLength { limit } => write!(f, "allows {limit} CA certificates below it, and there are more"),
            Self::CriticalExtension => f.write_str("holds a critical extension that is not understood here"),
            Self::IssuerKey => f.write_str("has a key that may not sign: RSA 2048 to 4096, P-256, P-384 and P-521 may"),
            Self::Signature => f.write_str("has the issuer's name and did not make the signature"),
            Self::IssuerUnknown => f.write_str("was issued by somebody unknown"),
            Self::NotAnchored => f.write_str("is its own issuer, and nothing that is enrolled"),
            Self::TooLong => f.write_str("stands at the end of too long a path, or of too many"),
        }
    }
}

impl Fault {
    /// How much the fault says: where several certificates stand in the way, the one closest to being accepted is named.
    const fn weight(self) -> u8 {
        match self {
            Self::Expired | Self::Early | Self::NotAnAuthority | Self::KeyUsage => 4,
            Self::PathLength { .. } | Self::CriticalExtension => 4,
            Self::TooLong => 3,
            Self::IssuerKey | Self::Signature => 2,
            Self::NotAnchored | Self::IssuerUnknown => 1,
        }
    }
}

/// Finds the shortest path from the presented leaf to a certificate that `is_anchor` recognises, over what was presented
/// and what is known besides.
pub fn build_chain(
    presented: &PresentedChain,
    known: &[Certificate],
    is_anchor: impl Fn(&Certificate) -> bool,
    now: UnixTime,
) -> Result<Chain, ChainFailure> {
    let web = Web::new(presented, known, now);
    let mut walk = web.walk();
    while let Some(path) = walk.next_path() {
        if is_anchor(web.last(&path)) {
            return Ok(web.chain(&path));
        }
    }
    Err(walk.into_failure())
}

/// What paths are made of: the presented certificates and known ones, each once.
#[derive(Debug)]
pub struct Web {
    certificates: Vec<Certificate>,
    now: UnixTime,
}

/// A path through a [`Web`] that holds, as places in it, leaf first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path(Vec<usize>);

impl Web {
    /// Gathers the certificates; the presented leaf is where paths begin.
    pub fn new<'a>(
        presented: &PresentedChain,
        known: impl IntoIterator<Item = &'a Certificate>,
        now: UnixTime,
    ) -> Self {
        let mut certificates = presented.0.to_vec();
        let mut seen: std::collections::HashSet<[u8; 32]> = certificates.iter().map(|one| *one.sha256()).collect();
        certificates.extend(known.into_iter().filter(|one| seen.insert(*one.sha256())).cloned());
        Self { certificates, now }
    }

    /// Begins at the leaf.
    pub fn walk(&self) -> Walk<'_> {
        let mut walk = Walk::empty(self);
        match self.fault_of_dates(0) {
            None => walk.enter(Path(vec![0])),
            Some(fault) => walk.note(&[], 0, fault),
        }
        walk
    }

    /// Goes on from where `path` ends.
    pub fn walk_from(&self, path: &Path) -> Walk<'_> {
        let mut walk = Walk::empty(self);
        walk.entered.extend_from_slice(&path.0);
        walk.enter(path.clone());
        walk
    }

    /// The certificate a path ends at.
    pub fn last(&self, path: &Path) -> &Certificate {
        self.at(*path.0.last().expect("a path holds at least its leaf"))
    }

    /// The certificates of a path.
    pub fn chain(&self, path: &Path) -> Chain {
        Chain(path.0.iter().map(|&place| self.at(place).clone()).collect())
    }

    fn at(&self, place: usize) -> &Certificate {
        self.certificates.get(place).expect("places are of this web")
    }

    fn fault_of_dates(&self, place: usize) -> Option<Fault> {
        let certificate = self.at(place);
        if certificate.is_expired(self.now) {
            Some(Fault::Expired)
        } else if certificate.is_early(self.now) {
            Some(Fault::Early)
        } else {
            None
        }
    }

    /// What forbids the certificate at `place` to stand above `path` (RFC 5280, sections 6.1.3 and 6.1.4).
    fn fault_of_issuer(&self, place: usize, path: &Path) -> Option<Fault> {
        let issuer = self.at(place);
        if let Some(fault) = self.fault_of_dates(place) {
            return Some(fault);
        }
        let BasicConstraints::Authority { path_length } = issuer.basic_constraints() else {
            return Some(Fault::NotAnAuthority);
        };
        if issuer.may_sign_certificates() == Some(false) {
            return Some(Fault::KeyUsage);
        }
        if issuer.has_unhandled_critical_extension() {
            return Some(Fault::CriticalExtension);
        }
        // The leaf does not count, nor do authorities that only hand over to themselves.
        let below = path.0.iter().skip(1).filter(|&&place| !self.at(place).is_self_issued()).count();
        match path_length {
            Some(limit) if below > limit as usize => Some(Fault::PathLength { limit }),
            _ => None,
        }
    }
}

/// A walk through a [`Web`], shortest paths first.
#[derive(Debug)]
pub struct Walk<'a> {
    web: &'a Web,
    queue: VecDeque<Path>,
    given: Option<Path>,
    entered: Vec<usize>,
    signatures: usize,
    failure: Option<ChainFailure>,
}

impl<'a> Walk<'a> {
    /// Most signatures verified in one walk.
    pub const SIGNATURES_MAX: usize = 32;

    fn empty(web: &'a Web) -> Self {
        Self { web, queue: VecDeque::new(), given: None, entered: Vec::new(), signatures: 0, failure: None }
    }

    /// The next nearest path that holds, the one to the starting place first. Certificates above it are looked at only
    /// when the walk is asked to go on.
    pub fn next_path(&mut self) -> Option<Path> {
        if let Some(path) = self.given.take() {
            self.expand(&path);
        }
        let path = self.queue.pop_front()?;
        self.given = Some(path.clone());
        Some(path)
    }

    /// Walks to the end, and tells what stood in the way of going further.
    pub fn into_failure(mut self) -> ChainFailure {
        while self.next_path().is_some() {}
        self.failure.expect("a walk ends where something stands in the way")
    }

    fn enter(&mut self, path: Path) {
        if let Some(&place) = path.0.last() {
            self.entered.push(place);
        }
        self.queue.push_back(path);
    }

    fn expand(&mut self, path: &Path) {
        let web = self.web;
        let last = web.last(path);
        let named = |&place: &usize| web.at(place).raw_subject() == last.raw_issuer() && web.at(place) != last;
        let candidates: Vec<usize> = (0..web.certificates.len()).filter(named).collect();
        let Some((&top, below)) = path.0.split_last() else { return };
        if candidates.is_empty() {
            let fault = if last.is_self_issued() { Fault::NotAnchored } else { Fault::IssuerUnknown };
            return self.note(below, top, fault);
        }
        if path.0.len() >= PresentedChain::CERTIFICATES_MAX {
            return self.note(below, top, Fault::TooLong);
        }
        for place in candidates {
            if self.entered.contains(&place) {
                continue;
            }
            if self.signatures >= Self::SIGNATURES_MAX {
                return self.note(below, top, Fault::TooLong);
            }
            match self.judge(place, path) {
                None => {
                    let mut longer = path.clone();
                    longer.0.push(place);
                    self.enter(longer);
                }
                Some(fault) => self.note(&path.0, place, fault),
            }
        }
        // Everything above was entered before, or fails for the reason noted; a circle ends here too.
        if self.queue.is_empty() && self.failure.is_none() {
            self.note(below, top, Fault::NotAnchored);
        }
    }

    fn judge(&mut self, place: usize, path: &Path) -> Option<Fault> {
        let issuer = self.web.at(place);
        if !issuer.public_key().may_issue() {
            return Some(Fault::IssuerKey);
        }
        self.signatures += 1;
        if !self.web.last(path).is_signed_by(issuer) {
            return Some(Fault::Signature);
        }
        self.web.fault_of_issuer(place, path)
    }

    fn note(&mut self, walked: &[usize], place: usize, fault: Fault) {
        let present = self.failure.as_ref().map_or(0, |failure| failure.fault.weight());
        let further = self.failure.as_ref().is_none_or(|failure| walked.len() > failure.walked.len());
        if fault.weight() > present || (fault.weight() == present && further) {
            let walked = walked.iter().map(|&place| self.web.at(place).clone()).collect();
            self.failure = Some(ChainFailure { walked, certificate: self.web.at(place).clone(), fault });
        }
    }
}

#[cfg(test)]
mod tests;
