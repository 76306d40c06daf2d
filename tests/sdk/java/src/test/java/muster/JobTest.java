package muster;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.JsonParser;
import com.microsoft.azure.sdk.iot.device.DeviceClient;
import com.microsoft.azure.sdk.iot.device.twin.DirectMethodResponse;
import com.microsoft.azure.sdk.iot.service.jobs.DirectMethodsJobOptions;
import com.microsoft.azure.sdk.iot.service.jobs.ScheduledJob;
import com.microsoft.azure.sdk.iot.service.jobs.ScheduledJobStatus;
import com.microsoft.azure.sdk.iot.service.jobs.ScheduledJobType;
import com.microsoft.azure.sdk.iot.service.jobs.ScheduledJobsClient;
import com.microsoft.azure.sdk.iot.service.query.JobQueryResponse;
import com.microsoft.azure.sdk.iot.service.query.QueryClient;
import com.microsoft.azure.sdk.iot.service.twin.Twin;
import java.util.ArrayList;
import java.time.Duration;
import java.time.Instant;
import java.util.Date;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;

/** Jobs: iot-service-client has one thing done to many devices. */
@ExtendWith(Fixture.class)
@ServerPerTest
final class JobTest {
    private static final long MAX_S = 60;
    private static final long WITHIN_MS = 60_000;
    private static final Set<ScheduledJobStatus> ENDED =
            Set.of(ScheduledJobStatus.completed, ScheduledJobStatus.failed, ScheduledJobStatus.cancelled);

    @Test
    @Shows(client = Sdk.SERVICE, credential = "policy", feature = "jobs: a change of many twins, cancelled, listed")
    void aJobChangesTheTwinsThatFulfilItsCondition(Muster muster) throws Exception {
        for (String name : List.of("dev-1", "dev-2", "other")) {
            Devices.create(muster, name);
        }
        ScheduledJobsClient jobs = new ScheduledJobsClient(muster.hubConnectionString());
        Twin patch = new Twin();
        patch.setETag("*");
        patch.getDesiredProperties().put("fan", 7);
        ScheduledJob scheduled =
                jobs.scheduleUpdateTwin("job-1", "deviceId IN ['dev-1', 'dev-2']", patch, new Date(), MAX_S);
        assertEquals("job-1", scheduled.getJobId());
        ScheduledJob job = ended(jobs, "job-1");
        assertEquals(ScheduledJobStatus.completed, job.getJobStatus());
        assertEquals(2, job.getJobStatistics().getSucceededCount());
        assertEquals(7L, Devices.twins(muster).get("dev-2").getDesiredProperties().get("fan"));
        JobQueryResponse rows = jobs.query("SELECT * FROM devices.jobs WHERE jobId = 'job-1' AND deviceId = 'dev-1'");
        assertTrue(rows.hasNext());
        assertEquals("dev-1", rows.next().getDeviceId());

        jobs.scheduleUpdateTwin("job-2", "status = 'enabled'", patch, Date.from(Instant.now().plus(Duration.ofDays(30))), MAX_S);
        assertEquals("job-2", jobs.cancel("job-2").getJobId());
        assertEquals(List.of("job-1"), completed(jobs));
    }

    @Test
    @Shows(client = Sdk.SERVICE, credential = "policy", feature = "jobs: a method of many devices, and what each answered")
    void aJobCallsDevicesAndKeepsWhatEachAnswered(Muster muster) throws Exception {
        DeviceClient client = Devices.open(Devices.client(muster, Transport.MQTT, "dev-1", Devices.create(muster, "dev-1")));
        try {
            client.subscribeToMethods((method, payload, context) -> new DirectMethodResponse(201, Map.of("did", method)), null);
            ScheduledJobsClient jobs = new ScheduledJobsClient(muster.hubConnectionString());
            var options = DirectMethodsJobOptions.builder().payload("now").maxExecutionTimeSeconds((int) MAX_S).build();
            jobs.scheduleDirectMethod("call-1", "deviceId = 'dev-1'", "reboot", new Date(), options);
            assertEquals(1, ended(jobs, "call-1").getJobStatistics().getSucceededCount());
            // The client cannot read a row with an outcome: it looks for the method beside it, and finds none.
            var rows = new QueryClient(muster.hubConnectionString())
                    .queryRaw("SELECT * FROM devices.jobs WHERE devices.jobs.jobId = 'call-1'");
            assertTrue(rows.hasNext());
            var row = JsonParser.parseString(rows.next()).getAsJsonObject();
            assertEquals("dev-1", row.get("deviceId").getAsString());
            var told = row.getAsJsonObject("outcome").getAsJsonObject("deviceMethodResponse");
            assertEquals(JsonParser.parseString("{\"status\":201,\"payload\":{\"did\":\"reboot\"}}"), told);
        } finally {
            client.close();
        }
    }

    /** The job once it has ended: asked again and again, since nobody tells of it. */
    private static ScheduledJob ended(ScheduledJobsClient jobs, String id) throws Exception {
        long until = System.currentTimeMillis() + WITHIN_MS;
        ScheduledJob job = jobs.get(id);
        while (!ENDED.contains(job.getJobStatus()) && System.currentTimeMillis() < until) {
            job = jobs.get(id);
        }
        return job;
    }

    private static List<String> completed(ScheduledJobsClient jobs) throws Exception {
        JobQueryResponse found = jobs.query(ScheduledJobType.scheduleUpdateTwin, ScheduledJobStatus.completed);
        List<String> names = new ArrayList<>();
        while (found.hasNext()) {
            names.add(found.next().getJobId());
        }
        return names;
    }
}
