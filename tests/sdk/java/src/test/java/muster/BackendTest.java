package muster;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertThrows;

import com.microsoft.azure.sdk.iot.device.DeviceClient;
import com.microsoft.azure.sdk.iot.device.IotHubMessageResult;
import com.microsoft.azure.sdk.iot.device.ModuleClient;
import com.microsoft.azure.sdk.iot.service.exceptions.IotHubDeviceMaximumQueueDepthExceededException;
import com.microsoft.azure.sdk.iot.service.exceptions.IotHubNotFoundException;
import com.microsoft.azure.sdk.iot.service.messaging.AcknowledgementType;
import com.microsoft.azure.sdk.iot.service.messaging.DeliveryAcknowledgement;
import com.microsoft.azure.sdk.iot.service.messaging.FeedbackBatch;
import com.microsoft.azure.sdk.iot.service.messaging.FeedbackRecord;
import com.microsoft.azure.sdk.iot.service.messaging.FeedbackStatusCode;
import com.microsoft.azure.sdk.iot.service.messaging.Message;
import com.microsoft.azure.sdk.iot.service.messaging.MessageFeedbackProcessorClient;
import com.microsoft.azure.sdk.iot.service.messaging.MessagingClient;
import com.microsoft.azure.sdk.iot.service.registry.Module;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import org.junit.jupiter.api.extension.ExtendWith;

/** iot-service-client sends to devices and reads what became of it. */
@ServerPerTest
@ExtendWith(Fixture.class)
final class BackendTest {
    private static final long ARRIVES_S = 20;
    private static final int QUEUED_MAX = 50;

    private static MessagingClient sender(Muster muster, Transport transport) throws Exception {
        MessagingClient client = new MessagingClient(muster.hubConnectionString(), transport.service());
        client.open();
        return client;
    }

    private static Message message(String text, String messageId) {
        Message message = new Message(text);
        message.setMessageId(messageId);
        message.setDeliveryAcknowledgement(DeliveryAcknowledgement.Full);
        return message;
    }

    private static <T> T next(BlockingQueue<T> arrived) throws InterruptedException {
        T next = arrived.poll(ARRIVES_S, TimeUnit.SECONDS);
        assertNotNull(next, "something arrives");
        return next;
    }

    @Over(Transport.Feature.BACK_ENDS)
    @Shows(client = Sdk.SERVICE, credential = "policy", feature = "cloud-to-device: send, properties, feedback")
    void aMessageIsSentAndWhatBecameOfItIsTold(Transport transport, Muster muster) throws Exception {
        String name = muster.fresh("dev");
        String key = Devices.create(muster, name);
        BlockingQueue<com.microsoft.azure.sdk.iot.device.Message> arrived = new LinkedBlockingQueue<>();
        DeviceClient device = Devices.client(muster, transport, name, key);
        device.setMessageCallback(
                (message, context) -> {
                    arrived.add(message);
                    return IotHubMessageResult.COMPLETE;
                },
                null);
        Devices.open(device);
        BlockingQueue<FeedbackBatch> told = new LinkedBlockingQueue<>();
        var processor = new MessageFeedbackProcessorClient(
                muster.hubConnectionString(),
                transport.service(),
                batch -> {
                    told.add(batch);
                    return AcknowledgementType.COMPLETE;
                });
        processor.start();
        MessagingClient client = sender(muster, transport);
        try {
            Message sent = message("hellö", "m 1");
            sent.setCorrelationId("c");
            sent.setProperties(Map.of("plain", "value"));
            client.send(name, sent);
            var received = next(arrived);
            assertEquals("hellö", new String(received.getBytes(), Message.DEFAULT_IOTHUB_MESSAGE_CHARSET));
            assertEquals(List.of("m 1", "c"), List.of(received.getMessageId(), received.getCorrelationId()));
            assertEquals("value", received.getProperty("plain"));
            FeedbackRecord record = next(told).getRecords().get(0);
            assertEquals(List.of("m 1", name), List.of(record.getOriginalMessageId(), record.getDeviceId()));
            assertEquals(FeedbackStatusCode.success, record.getStatusCode());
        } finally {
            client.close();
            processor.stop();
            device.close();
        }
    }

    @Over(Transport.Feature.BACK_ENDS)
    @Shows(client = Sdk.SERVICE, credential = "policy", feature = "cloud-to-device: to a module, feedback, refused")
    void aMessageIsSentToAModuleAndWhatBecameOfItIsTold(Transport transport, Muster muster) throws Exception {
        String name = muster.fresh("dev");
        Devices.create(muster, name);
        Module made = Devices.registry(muster).addModule(new Module(name, "mod-1"));
        BlockingQueue<com.microsoft.azure.sdk.iot.device.Message> arrived = new LinkedBlockingQueue<>();
        ModuleClient module = Devices.module(muster, transport, made);
        module.setMessageCallback(
                (message, context) -> {
                    arrived.add(message);
                    return IotHubMessageResult.COMPLETE;
                },
                null);
        Devices.open(module);
        BlockingQueue<FeedbackRecord> told = new LinkedBlockingQueue<>();
        var processor = new MessageFeedbackProcessorClient(
                muster.hubConnectionString(),
                transport.service(),
                batch -> {
                    told.addAll(batch.getRecords());
                    return AcknowledgementType.COMPLETE;
                });
        processor.start();
        MessagingClient client = sender(muster, transport);
        try {
            client.send(name, "mod-1", message("hello", "m 1"));
            var received = next(arrived);
            assertEquals("m 1", received.getMessageId());
            FeedbackRecord record = next(told);
            assertEquals(List.of("m 1", name), List.of(record.getOriginalMessageId(), record.getDeviceId()));
            assertEquals(FeedbackStatusCode.success, record.getStatusCode());
            assertThrows(IotHubNotFoundException.class, () -> client.send(name, "mod-2", new Message("a")));
        } finally {
            client.close();
            processor.stop();
            module.close();
        }
    }

    @Over(Transport.Feature.BACK_ENDS)
    @Shows(client = Sdk.SERVICE, credential = "policy", feature = "feedback: abandon, complete")
    void feedbackThatIsAbandonedComesAgain(Transport transport, Muster muster) throws Exception {
        String name = muster.fresh("dev");
        Devices.create(muster, name);
        BlockingQueue<String> told = new LinkedBlockingQueue<>();
        AtomicBoolean isFirst = new AtomicBoolean(true);
        var processor = new MessageFeedbackProcessorClient(
                muster.hubConnectionString(),
                transport.service(),
                batch -> {
                    batch.getRecords().forEach(record -> told.add(record.getOriginalMessageId()));
                    return isFirst.getAndSet(false) ? AcknowledgementType.ABANDON : AcknowledgementType.COMPLETE;
                });
        processor.start();
        MessagingClient client = sender(muster, transport);
        try {
            client.send(name, message("purged", "m1"));
            muster.command("message", "purge", name);
            assertEquals(List.of("m1", "m1"), List.of(next(told), next(told)));
            client.send(name, message("purged", "m2"));
            muster.command("message", "purge", name);
            assertEquals("m2", next(told), "what was completed does not come again");
        } finally {
            client.close();
            processor.stop();
        }
    }

    @Over(Transport.Feature.BACK_ENDS)
    @Shows(client = Sdk.SERVICE, credential = "policy", feature = "cloud-to-device: refused, and why")
    void whatIsNotTakenIsRefusedWithItsReason(Transport transport, Muster muster) throws Exception {
        String name = muster.fresh("dev");
        Devices.create(muster, name);
        MessagingClient client = sender(muster, transport);
        try {
            String nobody = muster.fresh("dev");
            assertThrows(IotHubNotFoundException.class, () -> client.send(nobody, new Message("a")));
            for (int number = 0; number < QUEUED_MAX; number += 1) {
                client.send(name, new Message("" + number));
            }
            assertThrows(IotHubDeviceMaximumQueueDepthExceededException.class, () -> client.send(name, new Message("one more")));
        } finally {
            client.close();
        }
    }
}
