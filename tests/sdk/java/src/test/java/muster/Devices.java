package muster;

import static org.junit.jupiter.api.Assertions.assertNotNull;

import com.microsoft.azure.sdk.iot.device.ClientOptions;
import com.microsoft.azure.sdk.iot.device.DeviceClient;
import com.microsoft.azure.sdk.iot.device.InternalClient;
import com.microsoft.azure.sdk.iot.device.IotHubStatusCode;
import com.microsoft.azure.sdk.iot.device.ModuleClient;
import com.microsoft.azure.sdk.iot.device.exceptions.IotHubClientException;
import com.microsoft.azure.sdk.iot.device.twin.Twin;
import com.microsoft.azure.sdk.iot.device.twin.TwinCollection;
import com.microsoft.azure.sdk.iot.service.registry.Device;
import com.microsoft.azure.sdk.iot.service.registry.Module;
import com.microsoft.azure.sdk.iot.service.registry.RegistryClient;
import com.microsoft.azure.sdk.iot.service.twin.TwinClient;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Callable;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import javax.net.ssl.SSLContext;

/** What the suites share about devices at a hub: how they connect, and what the hub's operators change. */
final class Devices {
    private static final long TOLD_S = 20;
    private static final int ANSWER_MS = 5_000;
    private static final int ATTEMPTS = 4;

    private Devices() {}

    static RegistryClient registry(Muster muster) {
        return new RegistryClient(muster.hubConnectionString());
    }

    static TwinClient twins(Muster muster) {
        return new TwinClient(muster.hubConnectionString());
    }

    /** Creates an identity by keys in the registry, and returns the key that the hub made for it. */
    static String create(Muster muster, String name) throws Exception {
        return registry(muster).addDevice(new Device(name)).getPrimaryKey();
    }

    /** A device that is to connect by its key. */
    static DeviceClient client(Muster muster, Transport transport, String name, String key) {
        String text = "HostName=" + muster.hubHost() + ";DeviceId=" + name + ";SharedAccessKey=" + key;
        return new DeviceClient(text, transport.device());
    }

    /** A device that is to connect by its certificate. */
    static DeviceClient client(Muster muster, Transport transport, String name, Certificates own) throws Exception {
        var security = Provisioning.certificate(own);
        return new DeviceClient(muster.hubHost(), name, security, transport.device());
    }

    /** A module of a device that is to connect by a key of its own. */
    static ModuleClient module(Muster muster, Transport transport, Module made) throws Exception {
        String identity = ";DeviceId=" + made.getDeviceId() + ";ModuleId=" + made.getId();
        String text = "HostName=" + muster.hubHost() + identity + ";SharedAccessKey=" + made.getPrimaryKey();
        return new ModuleClient(text, transport.device());
    }

    /** A module of a device that is to connect by a certificate. */
    static ModuleClient module(Muster muster, Transport transport, Module made, Certificates own) throws Exception {
        SSLContext shown = Provisioning.certificate(own).getSSLContext();
        String identity = ";DeviceId=" + made.getDeviceId() + ";ModuleId=" + made.getId();
        String text = "HostName=" + muster.hubHost() + identity + ";x509=true";
        return new ModuleClient(text, transport.device(), ClientOptions.builder().sslContext(shown).build());
    }

    /** Connects, and closes what does not connect. */
    static <T extends InternalClient> T open(T client) throws Exception {
        try {
            client.open(false);
            return client;
        } catch (Exception refused) {
            client.close();
            throw refused;
        }
    }

    /** Patches a desired property of a device, or removes it by {@code null}. */
    static void desire(Muster muster, String name, String property, Object value) throws Exception {
        var patch = new com.microsoft.azure.sdk.iot.service.twin.Twin(name);
        patch.getDesiredProperties().put(property, value);
        twins(muster).patch(patch);
    }

    /** Subscribes to desired properties, which this client demands before anything else that has to do with twins. */
    static BlockingQueue<TwinCollection> watch(InternalClient client) throws Exception {
        BlockingQueue<TwinCollection> told = new LinkedBlockingQueue<>();
        client.subscribeToDesiredProperties((twin, context) -> told.add(twin.getDesiredProperties()), null);
        return told;
    }

    /** The next patch of desired properties. */
    static TwinCollection next(BlockingQueue<TwinCollection> told) throws InterruptedException {
        TwinCollection patch = told.poll(TOLD_S, TimeUnit.SECONDS);
        assertNotNull(patch, "desired properties arrive");
        return patch;
    }

    /** Reads the twin over the device's connection. */
    static Twin read(InternalClient client) throws Exception {
        return insist(() -> client.getTwin(ANSWER_MS));
    }

    /** Patches the reported properties, and returns their version. */
    static int report(InternalClient client, Map<String, ?> patch) throws Exception {
        return insist(() -> client.updateReportedProperties(properties(patch), ANSWER_MS).getVersion());
    }

    /**
     * Asks again if the client says that no answer came. It hands an answer to one of its threads, which forgets who
     * asked, before it looks up who asked: on a busy machine it drops answers that arrived (docs/wire-notes.md).
     */
    private static <T> T insist(Callable<T> question) throws Exception {
        for (int attempt = 1; attempt < ATTEMPTS; attempt++) {
            try {
                return question.call();
            } catch (IotHubClientException failure) {
                if (failure.getStatusCode() != IotHubStatusCode.DEVICE_OPERATION_TIMED_OUT) {
                    throw failure;
                }
            }
        }
        return question.call();
    }

    /** Properties as this client reports them and compares them. */
    static TwinCollection properties(Map<String, ?> properties) {
        TwinCollection collection = new TwinCollection();
        collection.putAll(properties);
        return collection;
    }
}
