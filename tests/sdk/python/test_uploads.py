"""azure-iot-device uploads files by azure-storage-blob, and back-end programs hear of them."""

import base64
import hashlib
import hmac
import os
import signal
import time
from urllib.parse import quote

import pytest
import requests
from azure.core import MatchConditions
from azure.core.exceptions import (
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.iot.device import X509, IoTHubDeviceClient
from azure.iot.device.exceptions import ClientError
from azure.storage.blob import BlobBlock, BlobClient, ContentSettings
from certificates import make, thumbprint
from test_operators import KEY, registry_of

DEVICE = {"client": "azure-iot-device", "version": "2.14.0", "transport": "https", "credential": "symmetric key"}
STORAGE = {**DEVICE, "client": "azure-storage-blob", "version": "12.31.1"}
CONTAINER = "uploads"
BIG = os.urandom(9 * 1024 * 1024 + 17)
DONE = (True, 200, "done")


@pytest.fixture
def uploading(muster):
    """A server whose hub takes files and tells of them."""
    name = muster.hub["name"]
    muster.command("hub", "update", name, "--upload-container", CONTAINER, "--upload-notifications", "true")
    return muster


def device_of(muster, name: str = "dev-1") -> IoTHubDeviceClient:
    """A device by its key; it opens no connection for uploads."""
    registry = registry_of(muster)
    registry.create_device_with_sas(name, KEY, KEY, "enabled")
    return client_of(muster, name)


def client_of(muster, name: str) -> IoTHubDeviceClient:
    text = f"HostName={muster.hub['hostName']};DeviceId={name};SharedAccessKey={KEY}"
    return IoTHubDeviceClient.create_from_connection_string(text, server_verification_cert=muster.authority)


def address(place: dict) -> str:
    """The address that the client's documentation has its users put together."""
    return f"https://{place['hostName']}/{place['containerName']}/{place['blobName']}{place['sasToken']}"


def blob_of(place: dict, **options) -> BlobClient:
    return BlobClient.from_blob_url(address(place), retry_total=0, **options)


def names(muster) -> list:
    return [file["name"] for file in muster.command("file", "list")]


def fetched(muster, name: str, tmp_path) -> bytes:
    """A file as an operator fetches it."""
    done = muster.run("file", "get", name, "--out", str(tmp_path / "fetched"))
    assert done.returncode == 0, done.stderr
    return (tmp_path / "fetched").read_bytes()


def service_token(muster) -> str:
    """A signature of the hub's owner."""
    parts = dict(part.split("=", 1) for part in muster.hub["connectionString"].split(";"))
    until = int(time.time()) + 3_600
    key = base64.b64decode(parts["SharedAccessKey"])
    signature = base64.b64encode(hmac.digest(key, f"{parts['HostName']}\n{until}".encode(), "sha256"))
    policy = parts["SharedAccessKeyName"]
    return f"SharedAccessSignature sr={parts['HostName']}&sig={quote(signature, '')}&se={until}&skn={policy}"


def pieces(muster) -> list:
    return sorted(os.listdir(muster.folder / "files"))


@pytest.mark.shows(**DEVICE, feature="file upload: whole, notified")
def test_a_device_uploads_a_file_and_the_back_end_hears_of_it(uploading, tmp_path):
    device = device_of(uploading)
    place = device.get_storage_info_for_blob("logs/a b ü.txt")
    assert (place["blobName"], place["containerName"]) == ("dev-1/logs/a b ü.txt", CONTAINER)
    written = blob_of(place).upload_blob(b"hello", content_settings=ContentSettings(content_type="text/plain"))
    assert written["etag"]
    assert uploading.command("file", "notifications") == []
    device.notify_blob_upload_status(place["correlationId"], *DONE)
    (told,) = uploading.command("file", "notifications")
    assert (told["deviceId"], told["blobName"], told["blobSizeInBytes"]) == ("dev-1", "dev-1/logs/a b ü.txt", 5)
    assert told["blobUri"] == f"https://{uploading.hub['hostName']}/{CONTAINER}/dev-1/logs/a%20b%20%C3%BC.txt"
    assert uploading.command("file", "notifications") == []
    (file,) = uploading.command("file", "list")
    assert (file["name"], file["bytes"], file["contentType"]) == ("dev-1/logs/a b ü.txt", 5, "text/plain")
    assert fetched(uploading, file["name"], tmp_path) == b"hello"
    device.shutdown()


@pytest.mark.shows(**STORAGE, feature="upload in blocks, read whole and in part, properties")
def test_a_large_file_goes_in_blocks_and_is_read_in_parts(uploading, tmp_path):
    device = device_of(uploading)
    place = device.get_storage_info_for_blob("big.bin")
    blob = blob_of(place, max_block_size=1024 * 1024, max_single_put_size=1024 * 1024, max_chunk_get_size=1024 * 1024)
    blob.upload_blob(BIG, max_concurrency=4)
    properties = blob.get_blob_properties()
    assert (properties.size, properties.blob_type) == (len(BIG), "BlockBlob")
    assert blob.download_blob(max_concurrency=4).readall() == BIG
    assert blob.download_blob(offset=1_000_000, length=77).readall() == BIG[1_000_000:1_000_077]
    uploading.restart()
    assert blob_of(place).download_blob().readall() == BIG
    client_of(uploading, "dev-1").notify_blob_upload_status(place["correlationId"], *DONE)
    assert fetched(uploading, place["blobName"], tmp_path) == BIG
    (told,) = uploading.command("file", "notifications")
    assert told["blobSizeInBytes"] == len(BIG)
    device.shutdown()


@pytest.mark.shows(**STORAGE, feature="blocks by hand, conditions")
def test_blocks_are_staged_and_committed_by_hand(uploading):
    device = device_of(uploading)
    blob = blob_of(device.get_storage_info_for_blob("parts"))
    blob.stage_block("b1", b"one")
    blob.stage_block("b2", b"two")
    committed, waiting = blob.get_block_list("all")
    assert (committed, [(block.id, block.size) for block in waiting]) == ([], [("b1", 3), ("b2", 3)])
    with pytest.raises(HttpResponseError) as refused:
        blob.commit_block_list([BlobBlock("b1"), BlobBlock("b3")])
    assert (refused.value.status_code, refused.value.error_code) == (400, "InvalidBlockList")
    assert not blob.exists()
    blob.commit_block_list([BlobBlock("b2"), BlobBlock("b1"), BlobBlock("b2")])
    assert blob.download_blob().readall() == b"twoonetwo"
    with pytest.raises(ResourceExistsError):
        blob.upload_blob(b"new")
    blob.upload_blob(b"new", overwrite=True)
    assert blob.download_blob().readall() == b"new"
    blob.upload_blob(b"", overwrite=True)
    assert blob.download_blob().readall() == b""
    assert len(pieces(uploading)) == 1
    device.shutdown()


@pytest.mark.shows(**STORAGE, feature="a file that is written anew while it is read in parts")
def test_a_file_is_not_read_half_old_and_half_new(uploading):
    device = device_of(uploading)
    parts = {"max_single_get_size": 1024 * 1024, "max_chunk_get_size": 1024 * 1024}
    blob = blob_of(device.get_storage_info_for_blob("changing"), **parts)
    blob.upload_blob(BIG)
    reader = blob.download_blob()
    etag = blob.upload_blob(BIG[::-1], overwrite=True)["etag"]
    with pytest.raises(ResourceModifiedError):
        reader.readall()
    unchanged = {"etag": etag, "match_condition": MatchConditions.IfNotModified}
    assert blob.download_blob(**unchanged).readall() == BIG[::-1]
    # A condition of writing that is not served is told, and not passed over.
    with pytest.raises(HttpResponseError) as refused:
        blob.upload_blob(b"", overwrite=True, **unchanged)
    assert refused.value.error_code == "UnsupportedHeader"
    assert blob.get_blob_properties().size == len(BIG)
    device.shutdown()


def md5(content: bytes) -> bytes:
    return hashlib.md5(content, usedforsecurity=False).digest()


@pytest.mark.shows(**STORAGE, feature="checksums of bodies, blocks, files and parts")
def test_content_is_held_against_its_checksum(uploading):
    device = device_of(uploading)
    place = device.get_storage_info_for_blob("sums")
    sizes = {"max_block_size": 1024 * 1024, "max_single_put_size": 1024 * 1024}
    blob = blob_of(place, **sizes)
    written = blob.upload_blob(b"hello", validate_content=True)
    assert written["content_md5"] == md5(b"hello")
    assert blob.get_blob_properties().content_settings.content_md5 == md5(b"hello")
    assert blob.download_blob(validate_content=True).readall() == b"hello"

    said = ContentSettings(content_md5=bytearray(md5(BIG)))
    blob.upload_blob(BIG, overwrite=True, validate_content=True, content_settings=said)
    assert blob.get_blob_properties().content_settings.content_md5 == md5(BIG)
    assert blob.download_blob(validate_content=True, max_concurrency=2).readall() == BIG
    blob.upload_blob(BIG, overwrite=True)
    assert blob.get_blob_properties().content_settings.content_md5 is None, "nobody said what blocks add up to"

    def part(last: int) -> requests.Response:
        headers = {"x-ms-range": f"bytes=1-{last}", "x-ms-range-get-content-md5": "true"}
        return requests.get(address(place), headers=headers, timeout=20)

    assert part(9).headers["Content-MD5"] == base64.b64encode(md5(BIG[1:10])).decode()
    assert (part(4 * 1024 * 1024).status_code, part(4 * 1024 * 1024 + 1).status_code) == (206, 400)
    device.shutdown()


@pytest.mark.shows(**STORAGE, feature="checksums that are not those of what was sent")
def test_content_that_was_damaged_is_refused_and_leaves_nothing(uploading):
    device = device_of(uploading)
    place = device.get_storage_info_for_blob("sums")
    wrong = ContentSettings(content_md5=bytearray(md5(b"other")))
    with pytest.raises(HttpResponseError) as refused:
        blob_of(place).upload_blob(b"hello", content_settings=wrong)
    assert (refused.value.status_code, refused.value.error_code) == (400, "Md5Mismatch")

    def put(query: str, body: bytes, **headers: str) -> tuple:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = requests.put(address(place) + query, data=body, headers=named, timeout=20)
        return answer.status_code, answer.headers.get("x-ms-error-code")

    other = base64.b64encode(md5(b"other")).decode()
    block, blocks = "&comp=block&blockid=YjE%3D", "&comp=blocklist"
    assert put(block, b"hello", content_md5=other) == (400, "Md5Mismatch")
    assert put(block, b"hello", content_md5="?") == (400, "InvalidMd5")
    assert put(block, b"hello", content_md5=other, x_ms_content_crc64="AAAAAAAAAAA=") == (400, "InvalidHeaderValue")
    assert put(block, b"hello", x_ms_content_crc64="AAAAAAAAAAA=") == (400, "Crc64Mismatch")
    assert pieces(uploading) == []
    assert put(block, b"hello") == (201, None)
    listed = b"<BlockList><Latest>YjE=</Latest></BlockList>"
    assert put(blocks, listed, content_md5=other) == (400, "Md5Mismatch")
    assert names(uploading) == []
    assert put(blocks, listed, content_md5=base64.b64encode(md5(listed)).decode()) == (201, None)
    assert blob_of(place).download_blob().readall() == b"hello"
    device.shutdown()


@pytest.mark.shows(**STORAGE, feature="signatures that are not good")
def test_a_signature_is_good_for_one_file_one_upload_and_no_removal(uploading):
    device, other = device_of(uploading), device_of(uploading, "dev-2")
    place = device.get_storage_info_for_blob("mine")
    theirs = other.get_storage_info_for_blob("theirs")
    blob = blob_of(place)
    blob.upload_blob(b"mine")

    def refused(place: dict, status: int = 403, code: str = "AuthenticationFailed", verb: str = "PUT"):
        answer = requests.request(verb, address(place), data=b"x", headers={"x-ms-blob-type": "BlockBlob"}, timeout=20)
        assert (answer.status_code, answer.headers["x-ms-error-code"]) == (status, code), answer.text

    token = place["sasToken"]
    refused({**theirs, "sasToken": token})
    refused({**place, "containerName": "another"})
    refused({**place, "sasToken": token.replace("se=20", "se=21")})
    refused({**place, "sasToken": token.replace("sp=rw", "sp=r")})
    refused({**place, "sasToken": token.replace("sig=", "sig=x")})
    refused({**place, "sasToken": token.replace("si=", "si=x")})
    refused({**place, "blobName": "dev-1/mine/more"})
    refused({**place, "blobName": "dev-1/..%2F..%2Fmuster.db"}, 400, "InvalidUri")
    refused(place, 403, "AuthorizationPermissionMismatch", "DELETE")
    refused(place, 405, "UnsupportedHttpVerb", "POST")
    with pytest.raises(ClientError):
        other.notify_blob_upload_status(place["correlationId"], *DONE)
    device.notify_blob_upload_status(place["correlationId"], *DONE)
    refused(place)
    assert blob.download_blob().readall() == b"mine"
    with pytest.raises(ResourceNotFoundError):
        blob_of(theirs).download_blob()
    assert names(uploading) == ["dev-1/mine"]
    device.shutdown()
    other.shutdown()


@pytest.mark.shows(**DEVICE, feature="file upload: refused names, too many at once, failed uploads")
def test_names_and_numbers_of_uploads_are_bounded(uploading):
    device = device_of(uploading)
    for name in ["../dev-2/x", "a/../../x", "a//b", "/etc/passwd", "a\\b", "a\nb", "x" * 1100]:
        with pytest.raises(ClientError):
            device.get_storage_info_for_blob(name)
    places = [device.get_storage_info_for_blob(f"f{number}") for number in range(10)]
    with pytest.raises(ClientError):
        device.get_storage_info_for_blob("one more")
    blob_of(places[0]).stage_block("b1", b"half")
    assert len(pieces(uploading)) == 1
    device.notify_blob_upload_status(places[0]["correlationId"], False, 500, "failed")
    assert (pieces(uploading), names(uploading), uploading.command("file", "notifications")) == ([], [], [])
    with pytest.raises(ClientError):
        device.notify_blob_upload_status(places[0]["correlationId"], *DONE)
    device.get_storage_info_for_blob("one more")
    device.shutdown()


def test_a_hub_takes_no_files_before_it_has_a_container(muster):
    device = device_of(muster)
    with pytest.raises(ClientError):
        device.get_storage_info_for_blob("a")
    done = muster.run("hub", "update", muster.hub["name"], "--upload-container", "Not a container")
    assert done.returncode == 1 and "lower-case" in done.stderr
    device.shutdown()


@pytest.mark.shows(**STORAGE, feature="a kill in the middle of an upload")
def test_a_kill_in_the_middle_leaves_what_was_answered_and_nothing_half(uploading, tmp_path):
    device = device_of(uploading)
    kept, half = device.get_storage_info_for_blob("kept"), device.get_storage_info_for_blob("half")
    blob_of(kept, max_block_size=1024 * 1024, max_single_put_size=1024 * 1024).upload_blob(BIG)
    blob_of(half).stage_block("b1", b"answered")
    answered = len(pieces(uploading))

    def body():
        """Kills the server once it has a part of the body on its disk."""
        yield BIG[: 4 * 1024 * 1024]
        while len(pieces(uploading)) == answered:
            yield b"."
        uploading.process.send_signal(signal.SIGKILL)
        uploading.process.wait(20)
        yield BIG

    with pytest.raises(requests.RequestException):
        requests.put(address(half) + "&comp=block&blockid=YjI%3D", data=body(), timeout=20)
    (uploading.folder / "endpoints.json").unlink(missing_ok=True)
    assert len(pieces(uploading)) == answered + 1
    uploading.start()
    assert len(pieces(uploading)) == answered
    _, waiting = blob_of(half).get_block_list("uncommitted")
    assert [block.id for block in waiting] == ["b1"]
    assert names(uploading) == ["dev-1/kept"]
    assert fetched(uploading, "dev-1/kept", tmp_path) == BIG
    blob_of(half).commit_block_list([BlobBlock("b1")])
    assert blob_of(half).download_blob().readall() == b"answered"
    device.shutdown()


def test_files_go_with_their_hub_and_are_removed_by_operators(uploading):
    device = device_of(uploading)
    for name in ["a", "b"]:
        blob_of(device.get_storage_info_for_blob(name)).upload_blob(b"x")
    done = uploading.run("file", "delete", "dev-1/a")
    assert done.returncode == 0, done.stderr
    assert (names(uploading), len(pieces(uploading))) == (["dev-1/b"], 1)
    assert uploading.run("file", "delete", "dev-1/a").returncode == 3
    assert uploading.run("file", "get", "dev-1/a").returncode == 3
    uploading.command("hub", "update", uploading.hub["name"], "--upload-container", "")
    with pytest.raises(ClientError):
        device.get_storage_info_for_blob("c")
    device.shutdown()


def test_what_is_too_large_is_refused_and_leaves_nothing(muster_with, tmp_path):
    config = tmp_path / "muster.toml"
    config.write_text("[quotas]\nfile_bytes = 100_000\nfiles_bytes = 250_000\n")
    muster = muster_with("--config", str(config))
    muster.command("hub", "update", muster.hub["name"], "--upload-container", CONTAINER)
    device = device_of(muster)
    place = device.get_storage_info_for_blob("a")
    with pytest.raises(HttpResponseError) as refused:
        blob_of(place).upload_blob(b"x" * 100_001)
    assert (refused.value.status_code, refused.value.error_code) == (413, "RequestBodyTooLarge")
    blob_of(place).upload_blob(b"x" * 100_000)
    blob_of(device.get_storage_info_for_blob("b")).upload_blob(b"x" * 100_000)
    with pytest.raises(HttpResponseError) as refused:
        blob_of(device.get_storage_info_for_blob("c")).upload_blob(b"x" * 100_000)
    assert (refused.value.status_code, refused.value.error_code) == (403, "AccountQuotaExceeded")
    assert len(pieces(muster)) == 2
    device.shutdown()


def test_programs_read_notifications_over_https(uploading):
    device = device_of(uploading)
    place = device.get_storage_info_for_blob("a")
    blob_of(place).upload_blob(b"four")
    device.notify_blob_upload_status(place["correlationId"], *DONE)
    host = uploading.hub["hostName"]
    headers = {"Authorization": service_token(uploading)}
    base = f"https://{host}/messages/serviceBound/filenotifications"
    version = {"api-version": "2021-04-12"}

    def ask(verb: str, path: str = "") -> requests.Response:
        return requests.request(verb, base + path, params=version, headers=headers, timeout=20)

    told = ask("GET")
    assert (told.status_code, told.json()["blobName"]) == (200, "dev-1/a")
    assert ask("GET").status_code == 204
    lock = told.headers["ETag"].strip('"')
    assert ask("POST", f"/{lock}/abandon").status_code == 204
    lock = ask("GET").headers["ETag"].strip('"')
    assert ask("DELETE", f"/{lock}").status_code == 204
    assert ask("DELETE", f"/{lock}").status_code == 412
    device.shutdown()


@pytest.mark.shows(**{**DEVICE, "credential": "X.509"}, feature="file upload: whole, notified")
def test_a_device_uploads_by_its_certificate(uploading, tmp_path):
    make(uploading, tmp_path, "device", "dev-x")
    own = thumbprint((tmp_path / "dev-x.pem").read_bytes())
    registry_of(uploading).create_device_with_x509("dev-x", own, own, "enabled")
    device = IoTHubDeviceClient.create_from_x509_certificate(
        X509(str(tmp_path / "dev-x.chain.pem"), str(tmp_path / "dev-x.key.pem")),
        uploading.hub["hostName"],
        "dev-x",
        server_verification_cert=uploading.authority,
    )
    place = device.get_storage_info_for_blob("a")
    blob_of(place).upload_blob(b"x")
    device.notify_blob_upload_status(place["correlationId"], *DONE)
    assert names(uploading) == ["dev-x/a"]
    device.shutdown()
