package muster;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.microsoft.azure.sdk.iot.service.exceptions.IotHubException;
import com.microsoft.azure.sdk.iot.service.registry.Device;
import com.microsoft.azure.sdk.iot.service.registry.RegistryClient;
import com.microsoft.azure.sdk.iot.service.registry.RegistryJob;
import com.microsoft.azure.sdk.iot.service.registry.StorageAuthenticationType;
import java.util.Set;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;

/** Imports and exports: iot-service-client has them carried out. */
@ExtendWith(Fixture.class)
@ServerPerTest
final class TransferTest {
    private static final long WITHIN_MS = 60_000;
    private static final Set<RegistryJob.JobStatus> ENDED =
            Set.of(RegistryJob.JobStatus.COMPLETED, RegistryJob.JobStatus.FAILED, RegistryJob.JobStatus.CANCELLED);

    @Test
    @Shows(client = Sdk.SERVICE, credential = "policy", feature = "import and export: there and back")
    void whatIsExportedCanBeImportedAgain(Muster muster) throws Exception {
        muster.command("hub", "update", "hub", "--upload-container", "uploads");
        String uri = muster.command("file", "container").getAsJsonObject().get("containerUri").getAsString();
        String key = Devices.create(muster, "dev-1");
        RegistryClient registry = Devices.registry(muster);

        RegistryJob exported = ended(registry, registry.exportDevices(uri, false));
        assertEquals(RegistryJob.JobType.EXPORT, exported.getType());
        assertEquals(RegistryJob.JobStatus.COMPLETED, exported.getStatus(), exported::getFailureReason);
        assertEquals(100, exported.getProgress());
        assertTrue(!exported.getEndTimeUtc().before(exported.getStartTimeUtc()));

        registry.removeDevice("dev-1");
        RegistryJob imported = ended(registry, registry.importDevices(uri, uri));
        assertEquals(RegistryJob.JobType.IMPORT, imported.getType());
        assertEquals(RegistryJob.JobStatus.COMPLETED, imported.getStatus(), imported::getFailureReason);
        Device device = registry.getDevice("dev-1");
        assertEquals(key, device.getPrimaryKey());

        RegistryJob job = RegistryJob.createForExportJob(uri, true);
        assertEquals(RegistryJob.JobStatus.COMPLETED, ended(registry, registry.exportDevices(job)).getStatus());
        RegistryJob byIdentity = RegistryJob.createForExportJob(uri, true, StorageAuthenticationType.IDENTITY);
        assertThrows(IotHubException.class, () -> registry.exportDevices(byIdentity));
    }

    /** The job once it has ended: asked again and again, since nobody tells of it. */
    private static RegistryJob ended(RegistryClient registry, RegistryJob begun) throws Exception {
        long until = System.currentTimeMillis() + WITHIN_MS;
        RegistryJob job = begun;
        while (!ENDED.contains(job.getStatus()) && System.currentTimeMillis() < until) {
            job = registry.getJob(begun.getJobId());
        }
        return job;
    }
}
