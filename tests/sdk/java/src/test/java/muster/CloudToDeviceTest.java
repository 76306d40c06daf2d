package muster;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.microsoft.azure.sdk.iot.device.ClientOptions;
import com.microsoft.azure.sdk.iot.device.DeviceClient;
import com.microsoft.azure.sdk.iot.device.IotHubMessageResult;
import com.microsoft.azure.sdk.iot.device.Message;
import com.microsoft.azure.sdk.iot.device.MessageCallback;
import com.microsoft.azure.sdk.iot.device.ModuleClient;
import com.microsoft.azure.sdk.iot.service.messaging.MessagingClient;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.extension.ExtendWith;

/** Devices and modules of iot-device-client are sent messages, some while they are away. */
@ExtendWith(Fixture.class)
final class CloudToDeviceTest {
    private static final long ARRIVES_S = 20;
    private static final int ASKS_MS = 200;

    @Over(value = Transport.Feature.MESSAGES, byEachCredential = true)
    @Shows(client = Sdk.DEVICE, feature = "cloud-to-device messages, queued and live")
    void messagesReachTheDeviceInOrderWithTheirProperties(Transport transport, Credential credential, Muster muster)
            throws Exception {
        String name = muster.fresh("dev");
        // Over HTTPS this client asks for messages only so often.
        ClientOptions often = ClientOptions.builder().receiveInterval(ASKS_MS).build();
        DeviceClient client = credential.client(muster, transport, name, often);
        muster.command(
                "message", "send", name, "while away", "--property", "alert=no & yes/maybe", "--message-id", "m/1",
                "--correlation-id", "c 1", "--content-type", "text/plain", "--ack", "full");
        BlockingQueue<Message> arrived = new LinkedBlockingQueue<>();
        client.setMessageCallback(keeping(arrived), null);
        Devices.open(client);
        try {
            Message first = next(arrived);
            assertEquals("while away", body(first));
            assertEquals("no & yes/maybe", first.getProperty("alert"));
            assertEquals(List.of("m/1", "c 1"), List.of(first.getMessageId(), first.getCorrelationId()));
            // Over HTTPS this client drops the content type that it was sent.
            assertEquals(transport == Transport.HTTPS ? null : "text/plain", first.getContentType());
            for (String text : List.of("one", "two", "three")) {
                muster.command("message", "send", name, text);
            }
            for (String text : List.of("one", "two", "three")) {
                assertEquals(text, body(next(arrived)));
            }
        } finally {
            client.close();
        }
    }

    @Over(value = Transport.Feature.MODULES, byEachCredential = true)
    @Shows(client = Sdk.DEVICE, feature = "modules: cloud-to-device messages, queued and live")
    void messagesReachTheModuleAndNotItsDevice(Transport transport, Credential credential, Muster muster)
            throws Exception {
        String name = muster.fresh("dev");
        String key = Devices.create(muster, name);
        BlockingQueue<Message> arrived = new LinkedBlockingQueue<>();
        BlockingQueue<Message> atDevice = new LinkedBlockingQueue<>();
        ModuleClient module = credential.module(muster, transport, name, "mod-1");
        module.setMessageCallback(keeping(arrived), null);
        DeviceClient device = Devices.client(muster, transport, name, key);
        device.setMessageCallback(keeping(atDevice), null);
        MessagingClient service = new MessagingClient(muster.hubConnectionString(), Transport.AMQP.service());
        service.open();
        try {
            service.send(name, "mod-1", message("while away"));
            Devices.open(device);
            Devices.open(module);
            assertEquals("while away", body(next(arrived)));
            for (String text : List.of("one", "two")) {
                service.send(name, "mod-1", message(text));
                Message live = next(arrived);
                assertEquals(text, body(live));
                assertEquals("no & yes/maybe", live.getProperty("alert"));
            }
            // Had the device been sent what was for its module, it would have come before this.
            service.send(name, message("to the device"));
            assertEquals("to the device", body(next(atDevice)));
            assertTrue(arrived.isEmpty());
        } finally {
            service.close();
            module.close();
            device.close();
        }
    }

    private static MessageCallback keeping(BlockingQueue<Message> arrived) {
        return (message, context) -> {
            arrived.add(message);
            return IotHubMessageResult.COMPLETE;
        };
    }

    private static com.microsoft.azure.sdk.iot.service.messaging.Message message(String text) {
        var message = new com.microsoft.azure.sdk.iot.service.messaging.Message(text);
        message.setProperties(Map.of("alert", "no & yes/maybe"));
        return message;
    }

    private static Message next(BlockingQueue<Message> arrived) throws InterruptedException {
        Message message = arrived.poll(ARRIVES_S, TimeUnit.SECONDS);
        assertNotNull(message, "a message arrives");
        return message;
    }

    private static String body(Message message) {
        return new String(message.getBytes(), Message.DEFAULT_IOTHUB_MESSAGE_CHARSET);
    }
}
