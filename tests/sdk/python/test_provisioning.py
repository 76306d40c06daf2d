"""azure-iot-device registers at Muster, with enrollments made by azure-iothub-provisioningserviceclient."""

import base64
import hashlib
import hmac
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

import pytest
from azure.iot.device import ProvisioningDeviceClient, X509
from azure.iot.device.exceptions import ClientError
from certificates import make
from provisioningserviceclient import ProvisioningServiceClient
from provisioningserviceclient.models import (
    AttestationMechanism,
    EnrollmentGroup,
    IndividualEnrollment,
    X509Attestation,
    X509Certificates,
    X509CertificateWithInfo,
)

DEVICE = {"client": "azure-iot-device", "version": version("azure-iot-device")}
SERVICE = {
    "client": "azure-iothub-provisioningserviceclient",
    "version": version("azure-iothub-provisioningserviceclient"),
}
TRANSPORTS = ["mqtt", "mqtt-ws"]
OTHER_KEY = base64.b64encode(b"another key of thirty-two bytes!").decode()


def service_of(muster) -> ProvisioningServiceClient:
    return ProvisioningServiceClient.create_from_connection_string(muster.provisioning["connectionString"])


def by_key(muster, registration_id: str, key: str, transport: str = "mqtt", id_scope: str | None = None):
    return ProvisioningDeviceClient.create_from_symmetric_key(
        provisioning_host=muster.provisioning["deviceEndpoint"],
        registration_id=registration_id,
        id_scope=id_scope or muster.provisioning["idScope"],
        symmetric_key=key,
        server_verification_cert=muster.authority,
        websockets=transport == "mqtt-ws",
    )


def by_certificate(muster, registration_id: str, folder, transport: str = "mqtt", file: str | None = None):
    base = file or registration_id
    return ProvisioningDeviceClient.create_from_x509_certificate(
        provisioning_host=muster.provisioning["deviceEndpoint"],
        registration_id=registration_id,
        id_scope=muster.provisioning["idScope"],
        x509=X509(cert_file=str(folder / f"{base}.chain.pem"), key_file=str(folder / f"{base}.key.pem")),
        server_verification_cert=muster.authority,
        websockets=transport == "mqtt-ws",
    )


def by_client_certificate(pem: str) -> AttestationMechanism:
    certificates = X509Certificates(primary=X509CertificateWithInfo(certificate=pem))
    return AttestationMechanism(type="x509", x509=X509Attestation(client_certificates=certificates))


def derived(group_key: str, registration_id: str) -> str:
    digest = hmac.new(base64.b64decode(group_key), registration_id.encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode()


def assigned(muster, result, device_id: str):
    assert result.status == "assigned"
    assert result.registration_state.assigned_hub == muster.hub["hostName"]
    assert result.registration_state.device_id == device_id
    assert result.registration_state.sub_status == "initialAssignment"


def all_assigned(muster, clients: dict):
    """Registers devices at the same time, by their names: every client waits 2 s before it asks again."""
    with ThreadPoolExecutor(len(clients)) as registering:
        results = registering.map(lambda client: client.register(), clients.values())
        for name, result in zip(clients, results, strict=True):
            assigned(muster, result, name)


@pytest.mark.shows(**DEVICE, credential="symmetric key", feature="provision, individual enrollment")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_device_registers_with_its_own_key(muster, transport):
    def keys(name: str):
        entry = IndividualEnrollment.create(name, AttestationMechanism(type="symmetricKey"))
        return service_of(muster).create_or_update(entry).attestation.symmetric_key

    primary = by_key(muster, "dev-1", keys("dev-1").primary_key, transport)
    secondary = by_key(muster, "dev-2", keys("dev-2").secondary_key, transport)
    all_assigned(muster, {"dev-1": primary, "dev-2": secondary})


@pytest.mark.shows(**DEVICE, credential="symmetric key", feature="provision, enrollment group")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_devices_register_with_keys_derived_from_their_group(muster, transport):
    group = EnrollmentGroup.create("caves", AttestationMechanism(type="symmetricKey"))
    key = service_of(muster).create_or_update(group).attestation.symmetric_key.primary_key
    names = ["cave-1", "cave-2"]
    all_assigned(muster, {name: by_key(muster, name, derived(key, name), transport) for name in names})
    records = muster.command("registration", "list", "--group", "caves")
    assert sorted(record["registrationId"] for record in records) == names
    assert muster.command("registration", "show", "cave-1")["assignedHub"] == muster.hub["hostName"]
    muster.command("registration", "delete", "cave-1")
    assert [record["registrationId"] for record in muster.command("registration", "list", "--group", "caves")] == ["cave-2"]


@pytest.mark.shows(**DEVICE, credential="X.509", feature="provision, individual enrollment, self-signed")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_device_registers_with_a_self_signed_certificate(muster, tmp_path, transport):
    make(muster, tmp_path, "device", "dev-x")
    pem = (tmp_path / "dev-x.pem").read_text()
    entry = IndividualEnrollment.create("dev-x", by_client_certificate(pem))
    service_of(muster).create_or_update(entry)
    assigned(muster, by_certificate(muster, "dev-x", tmp_path, transport).register(), "dev-x")


def refusal(client) -> str:
    """What the application of a device is told that must not be admitted."""
    with pytest.raises(ClientError) as refused:
        client.register()
    return str(refused.value.__cause__)


def refused_by_key(muster, case: str, transport: str) -> str:
    entry = IndividualEnrollment.create("dev-1", AttestationMechanism(type="symmetricKey"))
    entry.provisioning_status = "disabled" if case == "disabled entry" else "enabled"
    made = service_of(muster).create_or_update(entry)
    key = made.attestation.symmetric_key.primary_key if case == "disabled entry" else OTHER_KEY
    told = refusal(by_key(muster, "dev-2" if case == "unknown device" else "dev-1", key, transport))
    service_of(muster).delete(made)
    return told


def refused_by_certificate(muster, folder, case: str, transport: str) -> str:
    make(muster, folder, "device", "dev-x", "--force", "--days", "-1" if case == "expired certificate" else "30")
    enrolled = (folder / "dev-x.pem").read_text()
    if case == "other certificate":
        make(muster, folder, "device", "dev-x", "--force")
    made = service_of(muster).create_or_update(IndividualEnrollment.create("dev-x", by_client_certificate(enrolled)))
    told = refusal(by_certificate(muster, "dev-x", folder, transport))
    service_of(muster).delete(made)
    return told


BY_KEY = ["wrong key", "unknown device", "disabled entry"]
BY_CERTIFICATE = ["expired certificate", "other certificate"]


@pytest.mark.shows(**DEVICE, credential="any", feature="refusals cannot be told apart")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_every_refused_credential_gets_the_same_answer(muster, tmp_path, transport):
    told = {case: refused_by_key(muster, case, transport) for case in BY_KEY}
    told |= {case: refused_by_certificate(muster, tmp_path, case, transport) for case in BY_CERTIFICATE}
    assert "401" in told["wrong key"], told
    assert set(told.values()) == {told["wrong key"]}, told


@pytest.mark.shows(**DEVICE, transport="mqtt", credential="symmetric key", feature="unknown ID scope is not found")
def test_an_unknown_id_scope_is_not_found(muster):
    with pytest.raises(ClientError) as refused:
        by_key(muster, "dev-1", OTHER_KEY, id_scope="0ne00000000").register()
    assert "404" in str(refused.value.__cause__), refused.value.__cause__


@pytest.mark.shows(**SERVICE, transport="https", credential="policy", feature="enrollments: create, read, update, query, delete")
def test_enrollments_live_through_the_service_client(muster):
    service = service_of(muster)
    made = service.create_or_update(IndividualEnrollment.create("dev-1", AttestationMechanism(type="symmetricKey")))
    read = service.get_individual_enrollment("dev-1")
    assert read.registration_id == "dev-1" and read.etag == made.etag
    read.provisioning_status = "disabled"
    changed = service.create_or_update(read)
    assert changed.provisioning_status == "disabled" and changed.etag != made.etag
    assert changed.attestation.symmetric_key.primary_key == made.attestation.symmetric_key.primary_key
    pages = service.create_individual_enrollment_query(_query())
    assert [entry.registration_id for entry in next(pages)] == ["dev-1"]
    service.delete_individual_enrollment_by_param("dev-1")
    with pytest.raises(Exception, match="404|Not Found"):
        service.get_individual_enrollment("dev-1")


def _query():
    from provisioningserviceclient import QuerySpecification

    return QuerySpecification("SELECT *")


@pytest.mark.shows(**DEVICE, transport="mqtt", credential="symmetric key", feature="provision again after a server restart")
def test_what_was_acknowledged_survives_a_restart(muster):
    entry = IndividualEnrollment.create("dev-1", AttestationMechanism(type="symmetricKey"))
    key = service_of(muster).create_or_update(entry).attestation.symmetric_key.primary_key
    assigned(muster, by_key(muster, "dev-1", key).register(), "dev-1")
    muster.restart()
    assert service_of(muster).get_individual_enrollment("dev-1").registration_state.status == "assigned"
    assert by_key(muster, "dev-1", key).register().status == "assigned"
