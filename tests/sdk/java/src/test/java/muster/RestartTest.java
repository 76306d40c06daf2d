package muster;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.microsoft.azure.sdk.iot.device.DeviceClient;
import com.microsoft.azure.sdk.iot.device.Message;
import com.microsoft.azure.sdk.iot.device.transport.IotHubConnectionStatus;
import com.microsoft.azure.sdk.iot.device.twin.TwinCollection;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.extension.ExtendWith;

/** iot-device-client while its hub restarts. */
@ExtendWith(Fixture.class)
@ServerPerTest
final class RestartTest {
    private static final int BACK_S = 60;

    @Over(Transport.Feature.TWINS)
    @Shows(client = Sdk.DEVICE, credential = "symmetric key", feature = "reconnect after a server restart")
    void aDeviceComesBackAfterARestart(Transport transport, Muster muster) throws Exception {
        String name = muster.fresh("dev");
        DeviceClient client = Devices.client(muster, transport, name, Devices.create(muster, name));
        CountDownLatch back = new CountDownLatch(2);
        client.setConnectionStatusChangeCallback(
                change -> {
                    if (change.getNewStatus() == IotHubConnectionStatus.CONNECTED) {
                        back.countDown();
                    }
                },
                null);
        Devices.open(client);
        try {
            BlockingQueue<TwinCollection> told = Devices.watch(client);
            Devices.report(client, Map.of("before", true));
            muster.restart();
            assertTrue(back.await(BACK_S, TimeUnit.SECONDS), "the device comes back");
            Devices.desire(muster, name, "after", true);
            assertEquals(Map.of("after", true), Devices.next(told));
            assertEquals(Map.of("before", true), Devices.read(client).getReportedProperties());
            client.sendEvent(new Message("after"));
        } finally {
            client.close();
        }
        assertEquals("after", muster.telemetry(name, 1).get(0).get("body").getAsString());
    }
}
