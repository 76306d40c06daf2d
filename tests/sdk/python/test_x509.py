"""azure-iot-device with certificates that a CA signed: chains through an intermediate, and by reference."""

import threading
from importlib.metadata import version

import pytest
from azure.iot.device.exceptions import ClientError
from azure.iot.hub import IoTHubRegistryManager
from certificates import (
    CA_EXTENSIONS,
    DEVICE_EXTENSIONS,
    by_ca_reference,
    group_by_intermediate,
    make,
    make_chain,
    make_with_openssl,
    prove,
)
from provisioningserviceclient.models import EnrollmentGroup, IndividualEnrollment
from test_hub import connect as connect_by_key
from test_hub import connect_by_certificate as connect
from test_provisioning import all_assigned, assigned, by_certificate, by_client_certificate, service_of

DEVICE = {"client": "azure-iot-device", "version": version("azure-iot-device"), "credential": "X.509"}
TRANSPORTS = ["mqtt", "mqtt-ws"]
KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
CUT_OFF_S = 1


@pytest.mark.shows(**DEVICE, feature="provision and connect, enrollment group through an intermediate")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_devices_below_an_intermediate_are_admitted_by_their_group(muster, tmp_path, transport):
    make_chain(muster, tmp_path, "cave-1", "cave-2")
    prove(muster, tmp_path)
    service_of(muster).create_or_update(group_by_intermediate(tmp_path))
    names = ["cave-1", "cave-2"]
    all_assigned(muster, {name: by_certificate(muster, name, tmp_path, transport) for name in names})
    client = connect(muster, "cave-1", tmp_path, transport)
    client.send_message("25.1")
    client.shutdown()


@pytest.mark.shows(**DEVICE, transport="mqtt", feature="provision, CA reference, group and individual")
def test_entries_refer_to_an_uploaded_ca(muster, tmp_path):
    make_chain(muster, tmp_path, "cave-1", "cave-2")
    prove(muster, tmp_path)
    service = service_of(muster)
    service.create_or_update(EnrollmentGroup.create("caves", by_ca_reference("root")))
    service.create_or_update(IndividualEnrollment.create("cave-2", by_ca_reference("root")))
    all_assigned(muster, {name: by_certificate(muster, name, tmp_path) for name in ["cave-1", "cave-2"]})
    assert muster.command("why", "cave-1")["by"] == "enrollment group caves"
    assert muster.command("why", "cave-2")["by"] == "enrollment cave-2"


@pytest.mark.shows(**DEVICE, transport="mqtt", feature="a CA that was not proved, or was deleted, admits nobody")
def test_only_a_proved_ca_admits_and_only_while_it_is_there(muster, tmp_path):
    make_chain(muster, tmp_path, "cave-1")
    root = str(tmp_path / "root.pem")
    muster.command("certificate", "create", "root", "--dps", "dps", "--path", root)
    service_of(muster).create_or_update(group_by_intermediate(tmp_path))
    device = by_certificate(muster, "cave-1", tmp_path)
    with pytest.raises(ClientError):
        device.register()
    assert muster.command("why", "cave-1")["cause"] == "unverified-ca"
    muster.command("certificate", "delete", "root", "--dps", "dps")
    prove(muster, tmp_path)
    assigned(muster, by_certificate(muster, "cave-1", tmp_path).register(), "cave-1")
    muster.command("certificate", "delete", "root", "--dps", "dps")
    with pytest.raises(ClientError):
        by_certificate(muster, "cave-1", tmp_path).register()


@pytest.mark.shows(**DEVICE, transport="mqtt", feature="certificates made by OpenSSL: chain, and self-signed for 30 days")
def test_certificates_made_by_openssl_work_equally(muster, tmp_path):
    make_with_openssl(tmp_path, "root", None, CA_EXTENSIONS)
    make_with_openssl(tmp_path, "intermediate", "root", CA_EXTENSIONS)
    make_with_openssl(tmp_path, "device-01", "intermediate", DEVICE_EXTENSIONS)
    make_with_openssl(tmp_path, "my-x509-device", None, ["extendedKeyUsage=clientAuth"])
    muster.command("certificate", "create", "root", "--dps", "dps", "--path", str(tmp_path / "root.pem"))
    asked = muster.command("certificate", "generate-verification-code", "root", "--dps", "dps")
    code = asked["properties"]["verificationCode"]
    make_with_openssl(tmp_path, code, "root", DEVICE_EXTENSIONS)
    muster.command("certificate", "verify", "root", "--dps", "dps", "--path", str(tmp_path / f"{code}.pem"))
    service = service_of(muster)
    service.create_or_update(group_by_intermediate(tmp_path))
    pem = (tmp_path / "my-x509-device.pem").read_text()
    service.create_or_update(IndividualEnrollment.create("my-x509-device", by_client_certificate(pem)))
    names = ["device-01", "my-x509-device"]
    all_assigned(muster, {name: by_certificate(muster, name, tmp_path) for name in names})
    for name in names:
        connect(muster, name, tmp_path).shutdown()


@pytest.mark.shows(**DEVICE, transport="mqtt", feature="primary and secondary signing certificate of a group")
def test_a_group_admits_by_its_primary_and_its_secondary_certificate(muster, tmp_path):
    make_chain(muster, tmp_path, "cave-1")
    make(muster, tmp_path, "intermediate", "second", "--issuer", "root")
    make(muster, tmp_path, "device", "cave-2", "--issuer", "second")
    prove(muster, tmp_path)
    group = group_by_intermediate(tmp_path)
    certificates = group.attestation.x509.signing_certificates
    certificates.secondary = type(certificates.primary)(certificate=(tmp_path / "second.pem").read_text())
    service_of(muster).create_or_update(group)
    all_assigned(muster, {name: by_certificate(muster, name, tmp_path) for name in ["cave-1", "cave-2"]})


@pytest.mark.shows(**DEVICE, transport="mqtt", feature="connect by a CA of the hub; cut off when the CA goes")
@pytest.mark.parametrize("case", ["deleted", "replaced"])
def test_a_device_is_cut_off_when_the_ca_that_admitted_it_goes(muster, tmp_path, case):
    make_chain(muster, tmp_path, "cave-1")
    prove(muster, tmp_path, owner=("--hub", "hub"))
    make(muster, tmp_path, "root", "other")
    prove(muster, tmp_path, "other", owner=("--hub", "hub"))
    registry = IoTHubRegistryManager.from_connection_string(muster.hub["connectionString"])
    registry.create_device_with_certificate_authority("cave-1", "enabled")
    registry.create_device_with_sas("cave-2", KEY, KEY, "enabled")
    by_key = connect_by_key(muster, "cave-2", KEY)
    client = connect(muster, "cave-1", tmp_path)
    muster.command("certificate", "delete", "other", "--hub", "hub")
    client.send_message("25.1")
    assert client.connected, "another CA went"
    cut = threading.Event()
    client.on_connection_state_change = lambda: None if client.connected else cut.set()
    if case == "deleted":
        muster.command("certificate", "delete", "root", "--hub", "hub")
    else:
        muster.command("certificate", "create", "root", "--hub", "hub", "--path", str(tmp_path / "other.pem"))
    assert cut.wait(CUT_OFF_S), muster.log
    assert muster.log.wait_for("a connection was refused")
    client.shutdown()
    assert by_key.connected, "a device that has a key of its own stays"
    by_key.shutdown()
