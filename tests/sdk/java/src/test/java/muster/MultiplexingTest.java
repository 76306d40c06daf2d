package muster;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;

import com.microsoft.azure.sdk.iot.device.DeviceClient;
import com.microsoft.azure.sdk.iot.device.IotHubMessageResult;
import com.microsoft.azure.sdk.iot.device.Message;
import com.microsoft.azure.sdk.iot.device.MultiplexingClient;
import com.microsoft.azure.sdk.iot.device.exceptions.MultiplexingClientRegistrationException;
import com.microsoft.azure.sdk.iot.device.transport.https.exceptions.UnauthorizedException;
import com.microsoft.azure.sdk.iot.device.twin.DirectMethodResponse;
import com.microsoft.azure.sdk.iot.device.twin.TwinCollection;
import com.microsoft.azure.sdk.iot.service.methods.DirectMethodsClient;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.extension.ExtendWith;

/** Several devices of iot-device-client on one connection. */
@ExtendWith(Fixture.class)
final class MultiplexingTest {
    private static final int DEVICES = 3;
    private static final long ARRIVES_S = 20;
    private static final String OTHER_KEY = "YW5vdGhlciBrZXkgb2YgdGhpcnR5LXR3byBieXRlcyE=";

    @Over(Transport.Feature.MULTIPLEXING)
    @Shows(
            client = Sdk.DEVICE,
            credential = "symmetric key",
            feature = "several devices on one connection: telemetry, twins, methods, messages")
    void devicesShareAConnectionAndNothingElse(Transport transport, Muster muster) throws Exception {
        MultiplexingClient shared = new MultiplexingClient(muster.hubHost(), transport.device());
        List<String> names = new ArrayList<>();
        List<DeviceClient> clients = new ArrayList<>();
        BlockingQueue<String> arrived = new LinkedBlockingQueue<>();
        for (int index = 0; index < DEVICES; index++) {
            String name = muster.fresh("dev");
            DeviceClient client = Devices.client(muster, transport, name, Devices.create(muster, name));
            client.setMessageCallback(
                    (message, context) -> {
                        String text = new String(message.getBytes(), Message.DEFAULT_IOTHUB_MESSAGE_CHARSET);
                        arrived.add(name + " is told " + text);
                        return IotHubMessageResult.COMPLETE;
                    },
                    null);
            names.add(name);
            clients.add(client);
        }
        shared.registerDeviceClients(clients);
        try {
            shared.open(false);
            DirectMethodsClient caller = new DirectMethodsClient(muster.hubConnectionString());
            for (int index = 0; index < DEVICES; index++) {
                String name = names.get(index);
                DeviceClient client = clients.get(index);
                BlockingQueue<TwinCollection> told = Devices.watch(client);
                client.sendEvent(new Message("from " + name));
                Devices.report(client, Map.of("name", name));
                Devices.desire(muster, name, "place", name);
                assertEquals(Map.of("place", name), Devices.next(told));
                client.subscribeToMethods(
                        (method, payload, context) -> new DirectMethodResponse(200, name), null);
                assertEquals(name, caller.invoke(name, "who").getPayloadAsJsonElement().getAsString());
                muster.command("message", "send", name, "who it is");
                assertEquals(name + " is told who it is", arrived.poll(ARRIVES_S, TimeUnit.SECONDS));
            }
            shared.unregisterDeviceClient(clients.get(0));
            DeviceClient last = clients.get(DEVICES - 1);
            assertEquals(Map.of("name", names.get(DEVICES - 1)), Devices.read(last).getReportedProperties());
        } finally {
            shared.close();
        }
        for (String name : names) {
            assertEquals("from " + name, muster.telemetry(name, 1).get(0).get("body").getAsString());
        }
    }

    @Over(Transport.Feature.MULTIPLEXING)
    @Shows(
            client = Sdk.DEVICE,
            credential = "symmetric key",
            feature = "several devices on one connection: one that is refused")
    void aDeviceThatIsRefusedTakesNobodyWithIt(Transport transport, Muster muster) throws Exception {
        MultiplexingClient shared = new MultiplexingClient(muster.hubHost(), transport.device());
        String name = muster.fresh("dev");
        String refused = muster.fresh("dev");
        Devices.create(muster, refused);
        DeviceClient client = Devices.client(muster, transport, name, Devices.create(muster, name));
        shared.registerDeviceClient(client);
        try {
            shared.open(false);
            DeviceClient impostor = Devices.client(muster, transport, refused, OTHER_KEY);
            var refusal = assertThrows(
                    MultiplexingClientRegistrationException.class,
                    () -> shared.registerDeviceClient(impostor));
            Exception reason = refusal.getRegistrationExceptions().get(refused);
            assertInstanceOf(UnauthorizedException.class, reason);
            client.sendEvent(new Message("still here"));
        } finally {
            shared.close();
        }
        assertEquals("still here", muster.telemetry(name, 1).get(0).get("body").getAsString());
    }
}
