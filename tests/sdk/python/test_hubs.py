"""azure-mgmt-iothub makes hubs, shows their keys and health, proves their CAs and tries their routes; blocking and awaited."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.core.rest import HttpRequest
from azure.iot.hub import IoTHubRegistryManager
from azure.mgmt.iothub import models
from azure.mgmt.iothub.aio import IotHubClient
from azure.mgmt.iothub.models import (
    CertificateDescription,
    CertificateProperties,
    CertificateVerificationDescription,
    EventHubConsumerGroupBodyDescription,
    EventHubConsumerGroupName,
    ExportDevicesRequest,
    ImportDevicesRequest,
    IotHubDescription,
    IotHubSkuInfo,
    OperationInputs,
    RouteProperties,
    RoutingMessage,
    TagsResource,
)
from certificates import make, make_chain
from test_hub import connect_by_certificate
from test_hub_resource import ENDED, GROUP, MANAGEMENT, hubs_of
from test_operators import KEY, OTHER_KEY, registry_of
from test_resources import awaited_management_of
from test_transfers import WITHIN_S, container_of, put_lines
from test_uploads import uploading  # noqa: F401

RESOURCE = "/subscriptions/{}/resourceGroups/muster/providers/Microsoft.Devices/IotHubs/hub"
VERSION = "2023-06-30"
WANTED = IotHubDescription(location="local", sku=IotHubSkuInfo(name="S1", capacity=1))
AUDIT = EventHubConsumerGroupBodyDescription(properties=EventHubConsumerGroupName(name="audit"))
MESSAGE = RoutingMessage(body='{"temperature": 30}', app_properties={"level": "high"})
ALL = models.TestAllRoutesInput(routing_source="DeviceMessages", message=MESSAGE)


def one(condition: str) -> models.TestRouteInput:
    """A route that the message of these tests may take or not."""
    route = RouteProperties(
        name="tried", source="DeviceMessages", condition=condition, endpoint_names=["events"], is_enabled=True
    )
    return models.TestRouteInput(message=MESSAGE, route=route)


def ca(folder) -> CertificateDescription:
    return CertificateDescription(properties=CertificateProperties(certificate=(folder / "root.pem").read_text()))


def plain(muster) -> HttpRequest:
    path = RESOURCE.format(muster.endpoints["admin"]["subscriptionId"])
    return HttpRequest("GET", path, params={"api-version": VERSION})


@pytest.mark.shows(**MANAGEMENT, feature="hubs: create, read, list, tags, keys, name check, health, delete")
def test_a_hub_is_made_at_run_time_and_serves_at_once(muster):
    client = hubs_of(muster)
    hubs = client.iot_hub_resource
    assert hubs.check_name_availability(OperationInputs(name="second")).name_available is True
    made = hubs.begin_create_or_update(GROUP, "second", WANTED).result()
    assert hubs.check_name_availability(OperationInputs(name="second")).name_available is False
    assert sorted(hub.name for hub in hubs.list_by_subscription()) == ["hub", "second"]
    assert sorted(hub.name for hub in hubs.list_by_resource_group(GROUP)) == ["hub", "second"]
    tagged = hubs.begin_update(GROUP, "second", TagsResource(tags={"stage": "test"})).result()
    assert hubs.get(GROUP, "second").tags == tagged.tags == {"stage": "test"}
    assert "S1" in [one.sku.name for one in hubs.get_valid_skus(GROUP, "second")]
    assert [(one.endpoint_id, one.health_status) for one in hubs.get_endpoint_health(GROUP, "second")] == [
        ("events", "healthy")
    ]
    owner = hubs.get_keys_for_key_name(GROUP, "second", "iothubowner")
    assert owner.primary_key in [policy.primary_key for policy in hubs.list_keys(GROUP, "second")]
    connection = f"HostName={made.properties.host_name};SharedAccessKeyName=iothubowner;SharedAccessKey={owner.primary_key}"
    registry = IoTHubRegistryManager.from_connection_string(connection)
    assert registry.create_device_with_sas("dev-1", KEY, OTHER_KEY, "enabled").device_id == "dev-1"
    hubs.begin_delete(GROUP, "second").result()
    with pytest.raises(ResourceNotFoundError):
        hubs.get(GROUP, "second")
    answer = client.send_request(plain(muster))
    assert (answer.status_code, answer.json()["name"]) == (200, "hub")
    client.close()


@pytest.mark.shows(**MANAGEMENT, feature="a hub's CA certificates: upload, proof of possession, list, delete")
def test_a_ca_is_proved_and_admits_devices_of_the_hub(muster, tmp_path):
    make_chain(muster, tmp_path, "cave-1")
    certificates = hubs_of(muster).certificates
    made = certificates.create_or_update(GROUP, "hub", "root", ca(tmp_path))
    assert (made.name, made.properties.is_verified) == ("root", False)
    same = {"etag": made.etag, "match_condition": MatchConditions.IfNotModified}
    asked = certificates.generate_verification_code(GROUP, "hub", "root", **same)
    code = asked.properties.verification_code
    make(muster, tmp_path, "verification", code, "--issuer", "root")
    proof = CertificateVerificationDescription(certificate=(tmp_path / f"{code}.pem").read_text())
    with pytest.raises(HttpResponseError, match="412|etag|version"):
        certificates.verify(GROUP, "hub", "root", proof, **same)
    same["etag"] = asked.etag
    assert certificates.verify(GROUP, "hub", "root", proof, **same).properties.is_verified is True
    assert [listed.name for listed in certificates.list_by_iot_hub(GROUP, "hub").value] == ["root"]
    registry_of(muster).create_device_with_certificate_authority("cave-1", "enabled")
    connect_by_certificate(muster, "cave-1", tmp_path).shutdown()
    same["etag"] = certificates.get(GROUP, "hub", "root").etag
    certificates.delete(GROUP, "hub", "root", **same)
    with pytest.raises(ResourceNotFoundError):
        certificates.get(GROUP, "hub", "root")


@pytest.mark.shows(**MANAGEMENT, feature="consumer groups; a message tried on one route and on all")
def test_consumer_groups_are_made_and_routes_are_tried(muster):
    hubs = hubs_of(muster).iot_hub_resource
    place = (GROUP, "hub", "events")
    assert hubs.create_event_hub_consumer_group(*place, "audit", AUDIT).name == "audit"
    assert hubs.get_event_hub_consumer_group(*place, "audit").name == "audit"
    assert [group.name for group in hubs.list_event_hub_consumer_groups(*place)] == ["$Default", "audit"]
    hubs.delete_event_hub_consumer_group(*place, "audit")
    assert [group.name for group in hubs.list_event_hub_consumer_groups(*place)] == ["$Default"]
    for condition, result in [("level = 'high'", "true"), ("level = 'low'", "false"), ("level = = 1", "undefined")]:
        tried = hubs.test_route("hub", GROUP, one(condition))
        assert tried.result == result
        assert bool(tried.details.compilation_errors) == (result == "undefined")
    for name, level in [("loud", "high"), ("quiet", "low")]:
        options = ["--source", "DeviceMessages", "--endpoint", "events", "--condition", f"level = '{level}'"]
        muster.command("route", "create", name, "--hub", "hub", *options)
    assert [route.properties.name for route in hubs.test_all_routes("hub", GROUP, ALL).routes] == ["loud"]


async def live(hubs):
    """A hub comes, is looked at in every way, and goes."""
    assert (await hubs.check_name_availability(OperationInputs(name="second"))).name_available is True
    made = await (await hubs.begin_create_or_update(GROUP, "second", WANTED)).result()
    assert (await hubs.get(GROUP, "second")).properties.host_name == made.properties.host_name
    assert sorted([hub.name async for hub in hubs.list_by_subscription()]) == ["hub", "second"]
    assert sorted([hub.name async for hub in hubs.list_by_resource_group(GROUP)]) == ["hub", "second"]
    tagged = await (await hubs.begin_update(GROUP, "second", TagsResource(tags={"stage": "test"}))).result()
    assert tagged.tags == {"stage": "test"}
    assert "S1" in [one.sku.name async for one in hubs.get_valid_skus(GROUP, "second")]
    assert ["healthy"] == [one.health_status async for one in hubs.get_endpoint_health(GROUP, "second")]
    policies = [policy async for policy in hubs.list_keys(GROUP, "second")]
    owner = await hubs.get_keys_for_key_name(GROUP, "second", "iothubowner")
    assert owner.primary_key in [policy.primary_key for policy in policies]
    place = (GROUP, "second", "events")
    assert (await hubs.create_event_hub_consumer_group(*place, "audit", AUDIT)).name == "audit"
    assert (await hubs.get_event_hub_consumer_group(*place, "audit")).name == "audit"
    await hubs.delete_event_hub_consumer_group(*place, "audit")
    assert ["$Default"] == [group.name async for group in hubs.list_event_hub_consumer_groups(*place)]
    assert (await hubs.test_route("second", GROUP, one("level = 'high'"))).result == "true"
    assert (await hubs.test_all_routes("second", GROUP, ALL)).routes == []
    await (await hubs.begin_delete(GROUP, "second")).result()
    with pytest.raises(ResourceNotFoundError):
        await hubs.get(GROUP, "second")


async def prove(muster, certificates, folder):
    """A CA certificate is uploaded, proved, listed and deleted."""
    made = await certificates.create_or_update(GROUP, "hub", "root", ca(folder))
    same = {"etag": made.etag, "match_condition": MatchConditions.IfNotModified}
    asked = await certificates.generate_verification_code(GROUP, "hub", "root", **same)
    code = asked.properties.verification_code
    make(muster, folder, "verification", code, "--issuer", "root")
    proof = CertificateVerificationDescription(certificate=(folder / f"{code}.pem").read_text())
    same["etag"] = asked.etag
    assert (await certificates.verify(GROUP, "hub", "root", proof, **same)).properties.is_verified is True
    same["etag"] = (await certificates.get(GROUP, "hub", "root")).etag
    assert [listed.etag for listed in (await certificates.list_by_iot_hub(GROUP, "hub")).value] == [same["etag"]]
    await certificates.delete(GROUP, "hub", "root", **same)
    assert (await certificates.list_by_iot_hub(GROUP, "hub")).value == []


async def transfer(muster, hubs):
    """Identities are imported, and exported again; nobody tells of the end, so that it is asked for."""
    uri = container_of(muster)
    put_lines(uri, [{"id": "dev-1", "importMode": "create"}])
    imported = ImportDevicesRequest(input_blob_container_uri=uri, output_blob_container_uri=uri)
    exported = ExportDevicesRequest(export_blob_container_uri=uri, exclude_keys=True)
    for begin, wanted in [(hubs.import_devices, imported), (hubs.export_devices, exported)]:
        job = await begin(GROUP, "hub", wanted)
        while job.status not in ENDED:
            job = await hubs.get_job(GROUP, "hub", job.job_id)
        assert job.status == "completed"
    assert [job.type async for job in hubs.list_jobs(GROUP, "hub")] == ["import", "export"]


@pytest.mark.shows(**MANAGEMENT, feature="awaited: hubs, CA certificates, import and export")
def test_hubs_and_their_certificates_are_managed_while_others_are_awaited(uploading, tmp_path):
    make(uploading, tmp_path, "root", "root")

    async def run():
        async with AsyncExitStack() as stack:
            client = await awaited_management_of(uploading, stack, IotHubClient)
            hubs = client.iot_hub_resource
            async with asyncio.timeout(WITHIN_S):
                await asyncio.gather(
                    live(hubs), prove(uploading, client.certificates, tmp_path), transfer(uploading, hubs)
                )
            answer = await client.send_request(plain(uploading))
            assert (answer.status_code, answer.json()["name"]) == (200, "hub")

    asyncio.run(run())
    assert registry_of(uploading).get_device("dev-1").device_id == "dev-1"
