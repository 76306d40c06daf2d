package muster;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.azure.core.http.policy.FixedDelayOptions;
import com.azure.core.http.policy.RetryOptions;
import com.azure.core.util.BinaryData;
import com.azure.storage.blob.BlobClient;
import com.azure.storage.blob.BlobClientBuilder;
import com.azure.storage.blob.models.BlobErrorCode;
import com.azure.storage.blob.models.BlobHttpHeaders;
import com.azure.storage.blob.models.BlobRange;
import com.azure.storage.blob.models.BlobStorageException;
import com.azure.storage.blob.models.ParallelTransferOptions;
import com.azure.storage.blob.options.BlobParallelUploadOptions;
import com.microsoft.azure.sdk.iot.device.DeviceClient;
import com.microsoft.azure.sdk.iot.device.FileUploadCompletionNotification;
import com.microsoft.azure.sdk.iot.device.FileUploadSasUriRequest;
import com.microsoft.azure.sdk.iot.device.FileUploadSasUriResponse;
import com.microsoft.azure.sdk.iot.device.IotHubStatusCode;
import com.microsoft.azure.sdk.iot.device.exceptions.IotHubClientException;
import com.microsoft.azure.sdk.iot.service.messaging.AcknowledgementType;
import com.microsoft.azure.sdk.iot.service.messaging.FileUploadNotification;
import com.microsoft.azure.sdk.iot.service.messaging.FileUploadNotificationProcessorClient;
import java.io.ByteArrayOutputStream;
import java.time.Duration;
import java.util.Arrays;
import java.util.Date;
import java.util.Random;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;

/** iot-device-client uploads files by azure-storage-blob, and iot-service-client hears of them. */
@ServerPerTest
@ExtendWith(Fixture.class)
final class FileUploadTest {
    private static final long ARRIVES_S = 20;
    private static final String CONTAINER = "uploads";
    private static final String CONTENT = "hellö";
    private static final long BLOCK_BYTES = 1 << 20;
    private static final int BIG_BYTES = 9 * (1 << 20) + 17;

    /** A device at a hub that takes files and tells of them. It opens no connection: uploads go over HTTPS with any. */
    private static DeviceClient uploader(Muster muster, String name) throws Exception {
        String hub = muster.hub().get("name").getAsString();
        muster.command("hub", "update", hub, "--upload-container", CONTAINER, "--upload-notifications", "true");
        return Devices.client(muster, Transport.MQTT, name, Devices.create(muster, name));
    }

    /** What the client's documentation has users make of what the hub answers. */
    private static BlobClient blobOf(FileUploadSasUriResponse place) throws Exception {
        // What is refused is told at once.
        var once = new RetryOptions(new FixedDelayOptions(0, Duration.ofSeconds(1)));
        return new BlobClientBuilder().endpoint(place.getBlobUri().toString()).retryOptions(once).buildClient();
    }

    private static void complete(DeviceClient device, FileUploadSasUriResponse place) throws Exception {
        device.completeFileUpload(new FileUploadCompletionNotification(place.getCorrelationId(), true, 201, "done"));
    }

    private static byte[] downloaded(BlobClient blob, BlobRange range) {
        ByteArrayOutputStream content = new ByteArrayOutputStream();
        blob.downloadStreamWithResponse(content, range, null, null, true, null, null);
        return content.toByteArray();
    }

    @Test
    @Shows(client = Sdk.DEVICE, credential = "symmetric key", feature = "file upload: signature, completion")
    void aDeviceUploadsAFileAndItsHubHasIt(Muster muster) throws Exception {
        DeviceClient device = uploader(muster, "dev-1");
        var place = device.getFileUploadSasUri(new FileUploadSasUriRequest("logs/a.txt"));
        assertEquals("dev-1/logs/a.txt", place.getBlobName());
        blobOf(place).upload(BinaryData.fromString(CONTENT));
        complete(device, place);
        var file = muster.command("file", "list").getAsJsonArray().get(0).getAsJsonObject();
        assertEquals("dev-1/logs/a.txt", file.get("name").getAsString());
        assertEquals(BinaryData.fromString(CONTENT).getLength(), file.get("bytes").getAsLong());
        var again = assertThrows(IotHubClientException.class, () -> complete(device, place));
        assertEquals(IotHubStatusCode.BAD_FORMAT, again.getStatusCode());
        device.close();
    }

    @Test
    @Shows(
            client = Sdk.STORAGE,
            credential = "signature",
            feature = "upload in blocks with their hashes, read whole and in part, properties, refusals")
    void aLargeFileGoesInBlocksAndIsReadInParts(Muster muster) throws Exception {
        DeviceClient device = uploader(muster, "dev-1");
        var place = device.getFileUploadSasUri(new FileUploadSasUriRequest("big.bin"));
        BlobClient blob = blobOf(place);
        byte[] big = new byte[BIG_BYTES];
        new Random(1).nextBytes(big);
        var inBlocks = new ParallelTransferOptions().setBlockSizeLong(BLOCK_BYTES).setMaxSingleUploadSizeLong(BLOCK_BYTES);
        var upload = new BlobParallelUploadOptions(BinaryData.fromBytes(big))
                .setParallelTransferOptions(inBlocks)
                .setComputeMd5(true)
                .setHeaders(new BlobHttpHeaders().setContentType("text/plain"));
        blob.uploadWithResponse(upload, null, null);
        var properties = blob.getProperties();
        assertEquals(BIG_BYTES, properties.getBlobSize());
        assertEquals("text/plain", properties.getContentType());
        assertArrayEquals(big, blob.downloadContent().toBytes());
        byte[] part = downloaded(blob, new BlobRange(1_000_000, 77L));
        assertArrayEquals(Arrays.copyOfRange(big, 1_000_000, 1_000_077), part);
        complete(device, place);
        var late = assertThrows(BlobStorageException.class, () -> blob.upload(BinaryData.fromString("x"), true));
        assertEquals(BlobErrorCode.AUTHENTICATION_FAILED, late.getErrorCode());
        device.close();
    }

    @Over(Transport.Feature.BACK_ENDS)
    @Shows(client = Sdk.SERVICE, credential = "policy", feature = "file notifications: complete, abandon")
    void theBackEndHearsOfEachFileUntilItHasSettled(Transport transport, Muster muster) throws Exception {
        DeviceClient device = uploader(muster, "dev-1");
        BlockingQueue<FileUploadNotification> told = new LinkedBlockingQueue<>();
        var processor = new FileUploadNotificationProcessorClient(
                muster.hubConnectionString(),
                transport.service(),
                notification -> {
                    boolean isFirst = told.isEmpty();
                    told.add(notification);
                    return isFirst ? AcknowledgementType.ABANDON : AcknowledgementType.COMPLETE;
                });
        processor.start();
        try {
            var place = device.getFileUploadSasUri(new FileUploadSasUriRequest("log.txt"));
            blobOf(place).upload(BinaryData.fromString(CONTENT));
            complete(device, place);
            for (int time = 0; time < 2; time += 1) {
                FileUploadNotification heard = told.poll(ARRIVES_S, TimeUnit.SECONDS);
                assertNotNull(heard, "a notification arrives");
                assertEquals("dev-1", heard.getDeviceId());
                assertEquals("dev-1/log.txt", heard.getBlobName());
                assertEquals(BinaryData.fromString(CONTENT).getLength(), heard.getBlobSizeInBytes());
                String address = "https://" + muster.hubHost() + "/" + CONTAINER + "/dev-1/log.txt";
                assertEquals(address, heard.getBlobUri());
                Date written = heard.getLastUpdatedTimeDate();
                assertTrue(!written.after(heard.getEnqueuedTimeUtcDate()), written.toString());
            }
            assertEquals(0, muster.command("file", "notifications").getAsJsonArray().size());
        } finally {
            processor.stop();
            device.close();
        }
    }
}
