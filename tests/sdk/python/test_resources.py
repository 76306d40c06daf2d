"""azure-mgmt-iothubprovisioningservices in its awaited form, and requests that a client sends as they are written."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.core.pipeline.transport import AsyncioRequestsTransport
from azure.core.rest import HttpRequest
from azure.identity.aio import ClientSecretCredential
from azure.mgmt.iothubprovisioningservices.aio import IotDpsClient
from azure.mgmt.iothubprovisioningservices.models import (
    CertificateProperties,
    CertificateResponse,
    OperationInputs,
    TagsResource,
    VerificationCodeRequest,
)
from certificates import make
from test_management import GROUP, MANAGEMENT, described, management_of

RESOURCE = "/subscriptions/{}/resourceGroups/muster/providers/Microsoft.Devices/provisioningServices/dps"
VERSION = "2026-11-01"


async def awaited_management_of(muster, stack: AsyncExitStack, kind: type = IotDpsClient):
    """A client of an awaited form, on the transport that trusts what the blocking one trusts."""
    admin = muster.endpoints["admin"]
    credential = ClientSecretCredential(
        admin["tenantId"],
        admin["clientId"],
        admin["clientSecret"],
        authority=admin["url"],
        disable_instance_discovery=True,
        transport=AsyncioRequestsTransport(),
    )
    client = kind(
        await stack.enter_async_context(credential),
        admin["subscriptionId"],
        base_url=admin["url"],
        credential_scopes=[f"{admin['url']}/.default"],
        transport=AsyncioRequestsTransport(),
    )
    stack.push_async_callback(client.close)
    return client


async def live(muster, resources):
    """A provisioning service comes, is looked at in every way, and goes."""
    wanted = OperationInputs(name="second")
    assert (await resources.check_provisioning_service_name_availability(wanted)).name_available is True
    made = await (await resources.begin_create_or_update(GROUP, "second", described())).result()
    assert (await resources.get("second", GROUP)).properties.id_scope == made.properties.id_scope
    assert sorted([item.name async for item in resources.list_by_subscription()]) == ["dps", "second"]
    assert sorted([item.name async for item in resources.list_by_resource_group(GROUP)]) == ["dps", "second"]
    tagged = await (await resources.begin_update(GROUP, "second", TagsResource(tags={"stage": "test"}))).result()
    assert tagged.tags == {"stage": "test"}
    assert [sku.name async for sku in resources.list_valid_skus("second", GROUP)] == ["S1"]
    policies = [policy async for policy in resources.list_keys("second", GROUP)]
    owner = await resources.list_keys_for_key_name("second", "provisioningserviceowner", GROUP)
    assert owner.primary_key in [policy.primary_key for policy in policies]
    await (await resources.begin_delete("second", GROUP)).result()
    with pytest.raises(ResourceNotFoundError):
        await resources.get("second", GROUP)


async def prove(muster, certificates, folder):
    """A CA certificate is uploaded, proved, listed and deleted."""
    uploaded = CertificateProperties(certificate=(folder / "root.pem").read_bytes())
    made = await certificates.create_or_update(GROUP, "dps", "root", CertificateResponse(properties=uploaded))
    same = {"etag": made.etag, "match_condition": MatchConditions.IfNotModified}
    asked = await certificates.generate_verification_code("root", GROUP, "dps", **same)
    code = asked.properties.verification_code
    make(muster, folder, "verification", code, "--issuer", "root")
    proof = VerificationCodeRequest(certificate=(folder / f"{code}.pem").read_text())
    same["etag"] = asked.etag
    assert (await certificates.verify_certificate("root", GROUP, "dps", proof, **same)).properties.is_verified is True
    read = await certificates.get("root", GROUP, "dps")
    assert [listed.etag for listed in (await certificates.list(GROUP, "dps")).value] == [read.etag]
    with pytest.raises(HttpResponseError, match="412|etag|version"):
        await certificates.delete(GROUP, "dps", "root", **same)
    same["etag"] = read.etag
    await certificates.delete(GROUP, "dps", "root", **same)
    assert (await certificates.list(GROUP, "dps")).value == []


def plain(muster) -> HttpRequest:
    path = RESOURCE.format(muster.endpoints["admin"]["subscriptionId"])
    return HttpRequest("GET", path, params={"api-version": VERSION})


@pytest.mark.shows(**MANAGEMENT, feature="awaited: provisioning services and CA certificates")
def test_resources_and_certificates_are_managed_while_others_are_awaited(muster, tmp_path):
    make(muster, tmp_path, "root", "root")

    async def run():
        async with AsyncExitStack() as stack:
            client = await awaited_management_of(muster, stack)
            await asyncio.gather(
                live(muster, client.iot_dps_resource), prove(muster, client.dps_certificate, tmp_path)
            )
            answer = await client.send_request(plain(muster))
            assert (answer.status_code, answer.json()["name"]) == (200, "dps")

    asyncio.run(run())


@pytest.mark.shows(**MANAGEMENT, feature="a request as it is written")
def test_a_request_is_sent_as_it_is_written(muster):
    client = management_of(muster)
    answer = client.send_request(plain(muster))
    assert (answer.status_code, answer.json()["name"]) == (200, "dps")
    client.close()
