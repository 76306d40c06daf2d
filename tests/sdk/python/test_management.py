"""azure-mgmt-iothubprovisioningservices signs in with azure-identity and manages provisioning services."""

from importlib.metadata import version

import pytest
import requests
from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.identity import ClientSecretCredential
from azure.mgmt.iothubprovisioningservices import IotDpsClient
from azure.mgmt.iothubprovisioningservices.models import (
    CertificateProperties,
    CertificateResponse,
    IotDpsPropertiesDescription,
    IotDpsSkuInfo,
    IotHubDefinitionDescription,
    OperationInputs,
    ProvisioningServiceDescription,
    SharedAccessSignatureAuthorizationRuleAccessRightsDescription,
    TagsResource,
    VerificationCodeRequest,
)
from certificates import group_by_intermediate, make, make_chain
from provisioningserviceclient import ProvisioningServiceClient
from provisioningserviceclient.models import AttestationMechanism, IndividualEnrollment
from test_provisioning import assigned, by_certificate, by_key, service_of

MANAGEMENT = {
    "client": "azure-mgmt-iothubprovisioningservices",
    "version": version("azure-mgmt-iothubprovisioningservices"),
    "transport": "https",
    "credential": "client secret",
}
GROUP = "muster"


def management_of(muster, secret: str | None = None, kind: type = IotDpsClient):
    """A client of management, as the product's documentation has operators make it."""
    admin = muster.endpoints["admin"]
    credential = ClientSecretCredential(
        admin["tenantId"],
        admin["clientId"],
        secret or admin["clientSecret"],
        authority=admin["url"],
        disable_instance_discovery=True,
    )
    return kind(
        credential,
        admin["subscriptionId"],
        base_url=admin["url"],
        credential_scopes=[f"{admin['url']}/.default"],
    )


def described(**properties) -> ProvisioningServiceDescription:
    return ProvisioningServiceDescription(
        location="local",
        sku=IotDpsSkuInfo(name="S1", capacity=1),
        properties=IotDpsPropertiesDescription(**properties),
    )


@pytest.mark.shows(**MANAGEMENT, feature="CA certificates: upload, proof of possession, list, delete")
def test_a_ca_is_proved_and_admits_its_devices(muster, tmp_path):
    make_chain(muster, tmp_path, "cave-1")
    certificates = management_of(muster).dps_certificate
    uploaded = CertificateProperties(certificate=(tmp_path / "root.pem").read_bytes())
    made = certificates.create_or_update(GROUP, "dps", "root", CertificateResponse(properties=uploaded))
    assert (made.name, made.properties.is_verified) == ("root", False)
    same = {"etag": made.etag, "match_condition": MatchConditions.IfNotModified}
    asked = certificates.generate_verification_code("root", GROUP, "dps", **same)
    first = asked.properties.verification_code
    same["etag"] = asked.etag
    asked = certificates.generate_verification_code("root", GROUP, "dps", **same)
    code = asked.properties.verification_code
    assert code != first
    for name in [first, code]:
        make(muster, tmp_path, "verification", name, "--issuer", "root")
    same["etag"] = asked.etag

    def verify(name: str):
        proof = VerificationCodeRequest(certificate=(tmp_path / f"{name}.pem").read_text())
        return certificates.verify_certificate("root", GROUP, "dps", proof, **same)

    with pytest.raises(HttpResponseError, match="verification code"):
        verify(first)
    proved = verify(code)
    assert proved.properties.is_verified is True
    assert [listed.name for listed in certificates.list(GROUP, "dps").value] == ["root"]
    read = certificates.get("root", GROUP, "dps")
    assert (read.etag, read.properties.thumbprint) == (proved.etag, made.properties.thumbprint)
    service_of(muster).create_or_update(group_by_intermediate(tmp_path))
    assigned(muster, by_certificate(muster, "cave-1", tmp_path).register(), "cave-1")
    same["etag"] = made.etag
    with pytest.raises(HttpResponseError, match="412|etag|version"):
        certificates.delete(GROUP, "dps", "root", **same)
    same["etag"] = read.etag
    certificates.delete(GROUP, "dps", "root", **same)
    with pytest.raises(ResourceNotFoundError):
        certificates.get("root", GROUP, "dps")


@pytest.mark.shows(**MANAGEMENT, feature="provisioning services: create, read, list, tags, keys, name check, delete")
def test_a_provisioning_service_is_made_at_run_time_and_serves_devices_at_once(muster):
    resources = management_of(muster).iot_dps_resource
    wanted = OperationInputs(name="second")
    assert resources.check_provisioning_service_name_availability(wanted).name_available is True
    link = IotHubDefinitionDescription(connection_string=muster.hub["connectionString"], location="local")
    made = resources.begin_create_or_update(GROUP, "second", described(iot_hubs=[link])).result()
    assert made.properties.iot_hubs[0].name == muster.hub["hostName"]
    assert resources.check_provisioning_service_name_availability(wanted).name_available is False
    assert sorted(item.name for item in resources.list_by_subscription()) == ["dps", "second"]
    assert sorted(item.name for item in resources.list_by_resource_group(GROUP)) == ["dps", "second"]
    tagged = resources.begin_update(GROUP, "second", TagsResource(tags={"stage": "test"})).result()
    assert tagged.tags == {"stage": "test"}
    assert [sku.name for sku in resources.list_valid_skus("second", GROUP)] == ["S1"]

    owner = resources.list_keys_for_key_name("second", "provisioningserviceowner", GROUP)
    host = made.properties.service_operations_host_name
    connection = f"HostName={host};SharedAccessKeyName={owner.key_name};SharedAccessKey={owner.primary_key}"
    entry = IndividualEnrollment.create("dev-1", AttestationMechanism(type="symmetricKey"))
    service = ProvisioningServiceClient.create_from_connection_string(connection)
    key = service.create_or_update(entry).attestation.symmetric_key.primary_key
    assigned(muster, by_key(muster, "dev-1", key, id_scope=made.properties.id_scope).register(), "dev-1")

    resources.begin_delete("second", GROUP).result()
    with pytest.raises(ResourceNotFoundError):
        resources.get("second", GROUP)
    # The address is kept, and shows no certificate that is good for it: this client would try again for long.
    with pytest.raises(requests.exceptions.SSLError, match="not valid for"):
        requests.get(f"https://{host}/enrollments/dev-1?api-version=2021-10-01", timeout=10)


@pytest.mark.shows(**MANAGEMENT, feature="linked hubs and policies: put back with keys masked, keys kept")
def test_links_and_policies_survive_being_put_back(muster):
    resources = management_of(muster).iot_dps_resource
    muster.command("hub", "create", "hub2")
    read = resources.get("dps", GROUP)
    assert "****" in read.properties.iot_hubs[0].connection_string
    before = {policy.key_name: policy.primary_key for policy in resources.list_keys("dps", GROUP)}
    keys = muster.command("--show-keys", "policy", "list", "--hub", "hub2")
    key = next(policy for policy in keys if policy["keyName"] == "iothubowner")["primaryKey"]
    host = muster.command("hub", "show", "hub2")["properties"]["hostName"]
    read.properties.iot_hubs.append(
        IotHubDefinitionDescription(
            connection_string=f"HostName={host};SharedAccessKeyName=iothubowner;SharedAccessKey={key}",
            location="local",
            allocation_weight=5,
        )
    )
    changed = resources.begin_create_or_update(GROUP, "dps", read).result()
    assert [(link.name, link.allocation_weight) for link in changed.properties.iot_hubs] == [
        (muster.hub["hostName"], 1),
        (host, 5),
    ]
    assert {policy.key_name: policy.primary_key for policy in resources.list_keys("dps", GROUP)} == before
    changed.properties.authorization_policies = [
        *resources.list_keys("dps", GROUP),
        SharedAccessSignatureAuthorizationRuleAccessRightsDescription(key_name="reader", rights="EnrollmentRead"),
    ]
    resources.begin_create_or_update(GROUP, "dps", changed).result()
    after = {policy.key_name: policy.primary_key for policy in resources.list_keys("dps", GROUP)}
    assert after.pop("reader") and after == before


@pytest.mark.shows(**MANAGEMENT, feature="a wrong client secret gets no token")
def test_a_wrong_secret_gets_no_token(muster):
    with pytest.raises(Exception, match="refused|invalid_client|Authentication"):
        list(management_of(muster, "another secret").iot_dps_resource.list_by_subscription())
