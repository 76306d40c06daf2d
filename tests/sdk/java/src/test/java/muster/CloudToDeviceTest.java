package muster;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;

import com.microsoft.azure.sdk.iot.device.ClientOptions;
import com.microsoft.azure.sdk.iot.device.DeviceClient;
import com.microsoft.azure.sdk.iot.device.IotHubMessageResult;
import com.microsoft.azure.sdk.iot.device.Message;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.extension.ExtendWith;

/** iot-device-client is sent messages, some while it is away. */
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
        client.setMessageCallback(
                (message, context) -> {
                    arrived.add(message);
                    return IotHubMessageResult.COMPLETE;
                },
                null);
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

    private static Message next(BlockingQueue<Message> arrived) throws InterruptedException {
        Message message = arrived.poll(ARRIVES_S, TimeUnit.SECONDS);
        assertNotNull(message, "a message arrives");
        return message;
    }

    private static String body(Message message) {
        return new String(message.getBytes(), Message.DEFAULT_IOTHUB_MESSAGE_CHARSET);
    }
}
