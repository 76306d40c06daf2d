"""What `muster` writes to the disk: its data folder, and the certificates it makes."""

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.hazmat.primitives.serialization.pkcs12 import load_pkcs12
from cryptography.x509 import load_pem_x509_certificates

from certificates import make


def test_no_private_key_lies_open_in_the_data_folder(muster):
    files = [path for path in muster.folder.rglob("*") if path.is_file()]
    assert len(files) > 4
    for path in files:
        assert b"PRIVATE KEY" not in path.read_bytes(), path
        # What clients must trust may be read by everybody; nothing else.
        assert path.stat().st_mode & 0o077 == 0 or path.name == "ca.pem", path


def test_a_device_certificate_is_written_under_a_password_too(muster, tmp_path):
    make(muster, tmp_path, "root", "root")
    make(muster, tmp_path, "device", "dev-1", "--issuer", "root", "--password", "cheese")
    kept = load_pkcs12((tmp_path / "dev-1.pfx").read_bytes(), b"cheese")
    chain = [kept.cert.certificate, *(issuer.certificate for issuer in kept.additional_certs)]
    assert chain == load_pem_x509_certificates((tmp_path / "dev-1.chain.pem").read_bytes())
    pem = load_pem_private_key((tmp_path / "dev-1.key.pem").read_bytes(), None)
    form = (Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    assert kept.key.private_bytes(*form) == pem.private_bytes(*form)
    assert (tmp_path / "dev-1.pfx").stat().st_mode & 0o077 == 0
