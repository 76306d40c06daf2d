package muster;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.microsoft.azure.sdk.iot.device.DeviceClient;
import com.microsoft.azure.sdk.iot.device.IotHubMessageResult;
import com.microsoft.azure.sdk.iot.device.Message;
import com.microsoft.azure.sdk.iot.device.transport.IotHubConnectionStatus;
import com.microsoft.azure.sdk.iot.device.twin.DirectMethodResponse;
import com.microsoft.azure.sdk.iot.device.twin.TwinCollection;
import com.microsoft.azure.sdk.iot.service.methods.DirectMethodsClient;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.extension.ExtendWith;

/** iot-device-client while its hub restarts. */
@ExtendWith(Fixture.class)
@ServerPerTest
final class RestartTest {
    private static final int BACK_S = 60;
    private static final int ARRIVES_S = 20;

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
        BlockingQueue<String> arrived = new LinkedBlockingQueue<>();
        client.setMessageCallback(
                (message, context) -> {
                    arrived.add(new String(message.getBytes(), Message.DEFAULT_IOTHUB_MESSAGE_CHARSET));
                    return IotHubMessageResult.COMPLETE;
                },
                null);
        Devices.open(client);
        try {
            BlockingQueue<TwinCollection> told = Devices.watch(client);
            client.subscribeToMethods((method, payload, context) -> new DirectMethodResponse(200, method), null);
            Devices.report(client, Map.of("before", true));
            muster.restart();
            assertTrue(back.await(BACK_S, TimeUnit.SECONDS), "the device comes back");
            Devices.desire(muster, name, "after", true);
            assertEquals(Map.of("after", true), Devices.next(told));
            assertEquals(Map.of("before", true), Devices.read(client).getReportedProperties());
            client.sendEvent(new Message("after"));
            DirectMethodsClient caller = new DirectMethodsClient(muster.hubConnectionString());
            assertEquals("echo", caller.invoke(name, "echo").getPayloadAsJsonElement().getAsString());
            muster.command("message", "send", name, "after");
            assertEquals("after", arrived.poll(ARRIVES_S, TimeUnit.SECONDS));
        } finally {
            client.close();
        }
        assertEquals("after", muster.telemetry(name, 1).get(0).get("body").getAsString());
    }
}
