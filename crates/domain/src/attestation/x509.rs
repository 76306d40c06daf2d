//! Attestation by certificate: the enrolled leaf itself, or a chain to an enrolled authority (`contract/dps-device.md 7`).
//!
//! A chain counts only if it also reaches a CA certificate whose possession was proved, at the enrolled certificate,
//! below or above it (`rules.md` 5; the manual, "DPS device chain requirements").

use std::collections::HashMap;

use super::{Candidates, Claim, Credential, Match, Rejection, seal};
use crate::certificate::chain::{Path, Web};
use crate::certificate::{Certificate, ChainFailure, Fault, PresentedChain};
use crate::decision::{ChainLink, Finding, LinkVerdict, OutsideText, Trace};
use crate::enrollment::{Attestation, Enrollment, Slots, X509Attestation};
use crate::ids::CertificateName;
use crate::resource::CaCertificate;

pub(super) fn individual(
    claim: Claim<'_>,
    chain: &PresentedChain,
    attestation: &X509Attestation,
    authorities: &[CaCertificate],
    trace: &mut Trace,
) -> Result<Credential, Rejection> {
    match attestation {
        X509Attestation::Client(slots) | X509Attestation::Signing(slots) => by_leaf(claim, chain, slots, trace),
        X509Attestation::References(names) => by_reference(claim, chain, names, authorities, trace),
    }
}

fn by_leaf(
    claim: Claim<'_>,
    chain: &PresentedChain,
    slots: &Slots<Certificate>,
    trace: &mut Trace,
) -> Result<Credential, Rejection> {
    let leaf = chain.leaf();
    trace.chain = vec![leaf_link(claim, leaf)];
    check_common_name(claim, leaf)?;
    if !slots.iter().any(|enrolled| enrolled == leaf) {
        return Err(Rejection::OtherCertificate);
    }
    check_dates(claim, leaf)?;
    let other = slots.iter().find(|enrolled| *enrolled != leaf).cloned();
    Ok(Credential::X509 { leaf: leaf.clone(), other, signer: None })
}

fn by_reference(
    claim: Claim<'_>,
    chain: &PresentedChain,
    names: &Slots<CertificateName>,
    authorities: &[CaCertificate],
    trace: &mut Trace,
) -> Result<Credential, Rejection> {
    trace.chain = vec![leaf_link(claim, chain.leaf())];
    check_common_name(claim, chain.leaf())?;
    let web = Web::new(chain, authorities.iter().map(|authority| &authority.certificate), claim.now);
    let mut walk = web.walk();
    while let Some(path) = walk.next_path() {
        let last = web.last(&path);
        let is_named = |one: &&CaCertificate| one.certificate == *last && names.iter().any(|name| *name == one.name);
        let Some(authority) = authorities.iter().find(is_named) else { continue };
        trace.chain = links(&web, &path, authorities);
        if !authority.verified {
            return Err(Rejection::UnverifiedCa { subject: OutsideText::new(last.subject()) });
        }
        return Ok(Credential::X509 { leaf: chain.leaf().clone(), other: None, signer: Some(last.clone()) });
    }
    let failure = walk.into_failure();
    trace.chain = failed_links(&failure, authorities);
    let missing = names.iter().find(|name| !authorities.iter().any(|authority| authority.name == **name));
    Err(missing
        .map_or_else(|| Rejection::of_chain(&failure, claim.now), |name| Rejection::MissingCa { name: name.clone() }))
}

/// A certificate that a group holds, or refers to by the name of a CA certificate.
struct Holding<'a> {
    group: &'a Enrollment,
    certificate: &'a Certificate,
    by_reference: bool,
}

/// Finds the nearest group on the way up from the leaf.
///
/// A disabled group stops the device if any certificate with the group's key stands on the way, so that a renewed
/// certificate does not lead round it; an enabled one admits only over the very certificate it holds.
pub(super) fn groups<'a>(
    claim: Claim<'_>,
    chain: &PresentedChain,
    candidates: Candidates<'a>,
    trace: &mut Trace,
) -> Result<Match<'a>, Rejection> {
    let Candidates { x509_groups, authorities, .. } = candidates;
    let holdings = holdings(x509_groups, authorities);
    let known = authorities.iter().map(|authority| &authority.certificate);
    let web = Web::new(chain, known.chain(holdings.iter().map(|holding| holding.certificate)), claim.now);
    let mut walk = web.walk();
    while let Some(path) = walk.next_path() {
        let last = web.last(&path);
        let has_key = |one: &Certificate| one.subject_key_hash() == last.subject_key_hash();
        let is_disabled = |one: &&Holding<'_>| has_key(one.certificate) && !one.group.terms.is_enabled();
        let exact = || holdings.iter().find(|one| one.certificate == last);
        let Some(holding) = holdings.iter().find(is_disabled).or_else(exact) else { continue };

        let verified = to_verified(&web, &path, holding.by_reference, authorities);
        let way = verified.as_ref().unwrap_or(&path);
        trace.chain = links(&web, way, authorities);
        consider_others(web.chain(way).certificates(), x509_groups, &holdings, holding.group, trace);
        let outcome = match verified {
            Some(_) => check_common_name(claim, chain.leaf()),
            None => Err(Rejection::UnverifiedCa { subject: OutsideText::new(last.subject()) }),
        };
        let credential = Credential::X509 { leaf: chain.leaf().clone(), other: None, signer: Some(last.clone()) };
        let result = outcome.and_then(|()| seal(claim, holding.group, credential));
        return Ok(Match { entry: holding.group, result });
    }
    let failure = walk.into_failure();
    trace.chain = failed_links(&failure, authorities);
    for group in x509_groups {
        trace.consider(&group.name, Finding::NotOnPath);
    }
    Err(Rejection::of_chain(&failure, claim.now))
}

fn holdings<'a>(groups: &'a [Enrollment], authorities: &'a [CaCertificate]) -> Vec<Holding<'a>> {
    let mut holdings = Vec::new();
    for group in groups {
        match &group.attestation {
            Attestation::X509(X509Attestation::Signing(slots)) => {
                holdings.extend(slots.iter().map(|certificate| Holding { group, certificate, by_reference: false }));
            }
            Attestation::X509(X509Attestation::References(names)) => {
                let named = authorities.iter().filter(|one| names.iter().any(|name| *name == one.name));
                holdings.extend(named.map(|one| Holding { group, certificate: &one.certificate, by_reference: true }));
            }
            _ => {}
        }
    }
    holdings
}

/// The CA certificates that a chain may lead over: those that bear the name of one of its elements, or of an issuer, and
/// the issuers of these in turn. No group that holds or names another can admit the device.
pub fn reachable<'a>(chain: &PresentedChain, authorities: &'a [CaCertificate]) -> Vec<&'a CaCertificate> {
    let mut by_name: HashMap<&[u8], Vec<&CaCertificate>> = HashMap::new();
    for authority in authorities {
        by_name.entry(authority.certificate.raw_subject()).or_default().push(authority);
    }
    let presented = chain.certificates().iter();
    let mut names: Vec<&[u8]> = presented.flat_map(|one| [one.raw_subject(), one.raw_issuer()]).collect();
    let mut near = Vec::new();
    while let Some(name) = names.pop() {
        // Each name is gone once it has been followed.
        for authority in by_name.remove(name).unwrap_or_default() {
            names.push(authority.certificate.raw_issuer());
            near.push(authority);
        }
    }
    near
}

/// The path, made longer where it must be to reach a CA certificate whose possession was proved; `None` if it cannot.
/// One that a group refers to by name must itself be such a certificate.
fn to_verified(web: &Web, path: &Path, by_reference: bool, authorities: &[CaCertificate]) -> Option<Path> {
    if by_reference {
        return is_verified(web.last(path), authorities).then(|| path.clone());
    }
    if web.chain(path).certificates().iter().any(|one| is_verified(one, authorities)) {
        return Some(path.clone());
    }
    let mut walk = web.walk_from(path);
    while let Some(longer) = walk.next_path() {
        if is_verified(web.last(&longer), authorities) {
            return Some(longer);
        }
    }
    None
}

fn is_verified(certificate: &Certificate, authorities: &[CaCertificate]) -> bool {
    authorities.iter().any(|one| one.verified && one.certificate == *certificate)
}

/// Notes every group but the one that decides.
fn consider_others(
    way: &[Certificate],
    groups: &[Enrollment],
    holdings: &[Holding<'_>],
    decides: &Enrollment,
    trace: &mut Trace,
) {
    for group in groups.iter().filter(|group| group.name != decides.name) {
        let mut own = holdings.iter().filter(|holding| holding.group.name == group.name);
        let is_on_way = own.any(|holding| way.contains(holding.certificate));
        trace.consider(&group.name, if is_on_way { Finding::Outranked } else { Finding::NotOnPath });
    }
}

fn check_common_name(claim: Claim<'_>, leaf: &Certificate) -> Result<(), Rejection> {
    match leaf.common_name() {
        Some(name) if name.eq_ignore_ascii_case(claim.registration_id.as_str()) => Ok(()),
        found => Err(Rejection::CommonName { found: found.map(OutsideText::new) }),
    }
}

fn check_dates(claim: Claim<'_>, leaf: &Certificate) -> Result<(), Rejection> {
    let subject = || OutsideText::new(leaf.subject());
    let now = claim.now;
    if leaf.is_expired(now) {
        return Err(Rejection::CertificateDates { subject: subject(), bound: leaf.not_after(), expired: true, now });
    }
    if leaf.is_early(now) {
        return Err(Rejection::CertificateDates { subject: subject(), bound: leaf.not_before(), expired: false, now });
    }
    Ok(())
}

/// A leaf that was looked at by itself: only its dates are known to hold or not.
fn leaf_link(claim: Claim<'_>, leaf: &Certificate) -> ChainLink {
    let verdict = match (leaf.is_expired(claim.now), leaf.is_early(claim.now)) {
        (true, _) => LinkVerdict::Fails(Fault::Expired),
        (false, true) => LinkVerdict::Fails(Fault::Early),
        (false, false) => LinkVerdict::Holds,
    };
    ChainLink::new(leaf, verdict)
}

fn link(certificate: &Certificate, authorities: &[CaCertificate]) -> ChainLink {
    let verdict = if is_verified(certificate, authorities) { LinkVerdict::Verified } else { LinkVerdict::Holds };
    ChainLink::new(certificate, verdict)
}

fn links(web: &Web, path: &Path, authorities: &[CaCertificate]) -> Vec<ChainLink> {
    web.chain(path).certificates().iter().map(|certificate| link(certificate, authorities)).collect()
}

fn failed_links(failure: &ChainFailure, authorities: &[CaCertificate]) -> Vec<ChainLink> {
    let mut links: Vec<ChainLink> = failure.walked.iter().map(|certificate| link(certificate, authorities)).collect();
    links.push(ChainLink::new(&failure.certificate, LinkVerdict::Fails(failure.fault)));
    links
}
