"""azure-iot-device in both its forms, blocking and awaited, as a device and as a module, by every credential."""

import asyncio
import base64
import hashlib
import hmac
import inspect
import time
from urllib.parse import quote_plus

import pytest
from azure.iot import device as blocking
from azure.iot.device import aio
from azure.iot.hub.models import Twin, TwinProperties
from certificates import make, thumbprint
from provisioningserviceclient.models import AttestationMechanism, IndividualEnrollment
from test_hub import DEVICE
from test_operators import KEY, OTHER_KEY, registry_of
from test_provisioning import assigned, by_client_certificate, service_of

EVERY_CREDENTIAL = {**DEVICE, "transport": "mqtt", "credential": "connection string, symmetric key, token, X.509"}
FORMS = {"blocking": blocking, "awaited": aio}
TOKEN_S = 3600
WITHIN_S = 20


async def done(answer):
    """What a call of either form came to."""
    return await answer if inspect.isawaitable(answer) else answer


def token(resource: str, key: str, lives_s: int = TOKEN_S) -> str:
    """A shared access signature, as a device's maker would hand it out."""
    until = int(time.time()) + lives_s
    signed = hmac.new(base64.b64decode(key), f"{quote_plus(resource)}\n{until}".encode(), hashlib.sha256).digest()
    return f"SharedAccessSignature sr={quote_plus(resource)}&sig={quote_plus(base64.b64encode(signed))}&se={until}"


def receive(client):
    """Waits for a change of desired properties without keeping the loop."""
    if isinstance(client, (aio.IoTHubDeviceClient, aio.IoTHubModuleClient)):
        return asyncio.ensure_future(client.receive_twin_desired_properties_patch())
    return asyncio.ensure_future(asyncio.to_thread(client.receive_twin_desired_properties_patch, timeout=WITHIN_S))


async def change_until_received(client, change) -> dict:
    """Changes desired properties until the client, which does not tell when it has subscribed, receives a change."""
    received = receive(client)
    async with asyncio.timeout(WITHIN_S):
        while not received.done():
            await asyncio.to_thread(change)
            await asyncio.wait({received}, timeout=0.1)
        return received.result()


async def live(client, change):
    """All that devices and modules do alike."""
    await done(client.connect())
    assert client.connected
    await done(client.send_message("25.1"))
    await done(client.patch_twin_reported_properties({"temperature": 25.1, "nested": {"a": [1]}}))
    twin = await done(client.get_twin())
    assert twin["reported"] == {"temperature": 25.1, "nested": {"a": [1]}, "$version": 2}
    received = await change_until_received(client, change)
    assert (received["on"], received["$version"] > twin["desired"]["$version"]) == (True, True)
    await done(client.disconnect())
    assert not client.connected
    await done(client.connect())
    await done(client.shutdown())


async def sign_in(client):
    """A connection is made, and its twin is answered."""
    await done(client.connect())
    twin = await done(client.get_twin())
    assert twin["reported"]["temperature"] == 25.1
    await done(client.shutdown())


async def sign_in_again(client, fresh: str):
    """A connection is made again with another signature."""
    await done(client.connect())
    connected = asyncio.Event()
    loop = asyncio.get_running_loop()
    client.on_connection_state_change = lambda: client.connected and loop.call_soon_threadsafe(connected.set)
    await done(client.update_sastoken(fresh))
    await asyncio.wait_for(connected.wait(), WITHIN_S)
    await sign_in(client)


def certificate_of(folder, name: str):
    return blocking.X509(cert_file=str(folder / f"{name}.chain.pem"), key_file=str(folder / f"{name}.key.pem"))


@pytest.mark.shows(**EVERY_CREDENTIAL, feature="devices: all calls, blocking and awaited")
@pytest.mark.parametrize("form", FORMS)
def test_a_device_lives_by_every_credential(muster, tmp_path, form):
    client = FORMS[form].IoTHubDeviceClient
    registry, host = registry_of(muster), muster.hub["hostName"]
    trust = {"server_verification_cert": muster.authority}
    registry.create_device_with_sas("dev-1", KEY, OTHER_KEY, "enabled")
    make(muster, tmp_path, "device", "dev-x")
    thumb = thumbprint((tmp_path / "dev-x.pem").read_bytes())

    def change():
        registry.update_twin("dev-1", Twin(properties=TwinProperties(desired={"on": True})))

    async def run():
        text = f"HostName={host};DeviceId=dev-1;SharedAccessKey={KEY}"
        await live(client.create_from_connection_string(text, **trust), change)
        by_key = {"hostname": host, "device_id": "dev-1", **trust}
        await sign_in(client.create_from_symmetric_key(symmetric_key=OTHER_KEY, **by_key))
        signed = client.create_from_sastoken(token(f"{host}/devices/dev-1", KEY), **trust)
        await sign_in_again(signed, token(f"{host}/devices/dev-1", OTHER_KEY))
        registry.update_device_with_x509("dev-1", "*", thumb, thumb, "enabled")
        await sign_in(client.create_from_x509_certificate(certificate_of(tmp_path, "dev-x"), host, "dev-1", **trust))

    asyncio.run(run())


@pytest.mark.shows(**EVERY_CREDENTIAL, feature="modules: all calls, blocking and awaited")
@pytest.mark.parametrize("form", FORMS)
def test_a_module_lives_by_every_credential(muster, tmp_path, form):
    client = FORMS[form].IoTHubModuleClient
    registry, host = registry_of(muster), muster.hub["hostName"]
    trust = {"server_verification_cert": muster.authority}
    registry.create_device_with_sas("dev-1", OTHER_KEY, OTHER_KEY, "enabled")
    registry.create_module_with_sas("dev-1", "mod-1", "", KEY, OTHER_KEY)
    make(muster, tmp_path, "device", "dev-x")
    thumb = thumbprint((tmp_path / "dev-x.pem").read_bytes())

    def change():
        registry.update_module_twin("dev-1", "mod-1", Twin(properties=TwinProperties(desired={"on": True})))

    async def run():
        text = f"HostName={host};DeviceId=dev-1;ModuleId=mod-1;SharedAccessKey={KEY}"
        await live(client.create_from_connection_string(text, **trust), change)
        resource = f"{host}/devices/dev-1/modules/mod-1"
        signed = client.create_from_sastoken(token(resource, KEY), **trust)
        await sign_in_again(signed, token(resource, OTHER_KEY))
        registry.update_module_with_x509("dev-1", "mod-1", "", "*", thumb, thumb)
        pair = certificate_of(tmp_path, "dev-x")
        shown = client.create_from_x509_certificate(pair, host, "dev-1", "mod-1", **trust)
        await done(shown.send_message_to_output("25.1", "above"))
        await sign_in(shown)

    asyncio.run(run())
    assert registry.get_twin("dev-1").properties.reported["$version"] == 1, "the device's own twin is another"


@pytest.mark.shows(**DEVICE, transport="mqtt", credential="symmetric key, X.509", feature="provision, awaited")
def test_devices_register_while_others_are_awaited(muster, tmp_path):
    service = service_of(muster)
    entry = service.create_or_update(IndividualEnrollment.create("dev-1", AttestationMechanism(type="symmetricKey")))
    make(muster, tmp_path, "device", "dev-x")
    pem = (tmp_path / "dev-x.pem").read_text()
    service.create_or_update(IndividualEnrollment.create("dev-x", by_client_certificate(pem)))
    where = {
        "provisioning_host": muster.provisioning["deviceEndpoint"],
        "id_scope": muster.provisioning["idScope"],
        "server_verification_cert": muster.authority,
    }
    client = aio.ProvisioningDeviceClient
    key = entry.attestation.symmetric_key.primary_key
    by_key = client.create_from_symmetric_key(registration_id="dev-1", symmetric_key=key, **where)
    pair = certificate_of(tmp_path, "dev-x")
    by_certificate = client.create_from_x509_certificate(registration_id="dev-x", x509=pair, **where)

    async def run():
        return await asyncio.gather(by_key.register(), by_certificate.register())

    for result, name in zip(asyncio.run(run()), ["dev-1", "dev-x"], strict=True):
        assigned(muster, result, name)
