"""Certificates as operators make them: by `muster ca`, or by OpenSSL, and uploaded with proof of possession."""

import subprocess
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from provisioningserviceclient.models import (
    AttestationMechanism,
    EnrollmentGroup,
    X509Attestation,
    X509CAReferences,
    X509Certificates,
    X509CertificateWithInfo,
)

OPENSSL_S = 60
CA_EXTENSIONS = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,digitalSignature,cRLSign,keyCertSign"]
DEVICE_EXTENSIONS = [
    "basicConstraints=CA:FALSE",
    "keyUsage=critical,nonRepudiation,digitalSignature,keyEncipherment",
    "extendedKeyUsage=clientAuth",
]


def make(muster, folder: Path, *arguments: str):
    """Runs `muster ca`."""
    done = subprocess.run(
        [muster.binary, "ca", *arguments, "--out", str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def thumbprint(pem: bytes) -> str:
    """As identities at a hub name a certificate: SHA-1, in capitals."""
    return x509.load_pem_x509_certificate(pem).fingerprint(hashes.SHA1()).hex().upper()


def make_chain(muster, folder: Path, *devices: str):
    """A root, an intermediate below it, and certificates of devices below that."""
    make(muster, folder, "root", "root")
    make(muster, folder, "intermediate", "intermediate", "--issuer", "root")
    for device in devices:
        make(muster, folder, "device", device, "--issuer", "intermediate")


def make_with_openssl(folder: Path, name: str, issuer: str | None, extensions: list[str]):
    """NAME.pem and NAME.key.pem, and NAME.chain.pem up to the root."""
    command = ["openssl", "req", "-x509", "-new", "-nodes", "-newkey", "rsa:2048", "-sha256", "-days", "30"]
    command += ["-subj", f"/CN={name}", "-keyout", f"{name}.key.pem", "-out", f"{name}.pem"]
    if issuer is not None:
        command += ["-CA", f"{issuer}.pem", "-CAkey", f"{issuer}.key.pem"]
    for extension in extensions:
        command += ["-addext", extension]
    # The machine's own configuration would add extensions of its own.
    (folder / "openssl.cnf").write_text("[req]\ndistinguished_name=dn\n[dn]\n")
    command += ["-config", "openssl.cnf"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=OPENSSL_S, check=False)
    assert done.returncode == 0, done.stderr
    above = "" if issuer is None else (folder / f"{issuer}.chain.pem").read_text()
    (folder / f"{name}.chain.pem").write_text((folder / f"{name}.pem").read_text() + above)


def prove(muster, folder: Path, name: str = "root", owner: tuple[str, str] = ("--dps", "dps")):
    """Uploads a CA certificate to the provisioning service, or to a hub, and proves that its key is held."""
    muster.command("certificate", "create", name, *owner, "--path", str(folder / f"{name}.pem"))
    asked = muster.command("certificate", "generate-verification-code", name, *owner)
    code = asked["properties"]["verificationCode"]
    make(muster, folder, "verification", code, "--issuer", name)
    path = str(folder / f"{code}.pem")
    proved = muster.command("certificate", "verify", name, *owner, "--path", path)
    assert proved["properties"]["isVerified"] is True


def by_signing_certificate(pem: str) -> AttestationMechanism:
    """Admits devices whose chain goes through the certificate."""
    certificates = X509Certificates(primary=X509CertificateWithInfo(certificate=pem))
    return AttestationMechanism(type="x509", x509=X509Attestation(signing_certificates=certificates))


def by_ca_reference(primary: str) -> AttestationMechanism:
    """Admits devices whose chain goes through an uploaded CA certificate."""
    references = X509CAReferences(primary=primary)
    return AttestationMechanism(type="x509", x509=X509Attestation(ca_references=references))


def group_by_intermediate(folder: Path, name: str = "caves") -> EnrollmentGroup:
    """An enrollment group of all devices below the intermediate certificate."""
    return EnrollmentGroup.create(name, by_signing_certificate((folder / "intermediate.pem").read_text()))
