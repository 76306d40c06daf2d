package muster;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import com.google.gson.JsonObject;
import com.microsoft.azure.sdk.iot.device.ClientOptions;
import com.microsoft.azure.sdk.iot.device.DeviceClient;
import com.microsoft.azure.sdk.iot.device.InternalClient;
import com.microsoft.azure.sdk.iot.device.IotHubStatusCode;
import com.microsoft.azure.sdk.iot.device.Message;
import com.microsoft.azure.sdk.iot.device.ModuleClient;
import com.microsoft.azure.sdk.iot.device.exceptions.IotHubClientException;
import com.microsoft.azure.sdk.iot.device.twin.Twin;
import com.microsoft.azure.sdk.iot.device.twin.TwinCollection;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.IndividualEnrollment;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.SymmetricKeyAttestation;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.TwinState;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.X509Attestation;
import com.microsoft.azure.sdk.iot.service.registry.Module;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import javax.net.ssl.SSLContext;
import org.junit.jupiter.api.extension.ExtendWith;

/** iot-device-client at a hub: telemetry, twins, desired properties and refusals. */
@ExtendWith(Fixture.class)
final class DeviceTest {
    private static final int MESSAGES = 100;
    private static final int ACKNOWLEDGED_S = 20;
    private static final String OTHER_KEY = "YW5vdGhlciBrZXkgb2YgdGhpcnR5LXR3byBieXRlcyE=";

    @Over(Transport.Feature.TWINS)
    @Shows(
            client = Sdk.DEVICE,
            credential = "symmetric key",
            feature = "provision, connect, telemetry, twin get, reported patch")
    void aProvisionedDeviceSendsAndReports(Transport transport, Muster muster) throws Exception {
        String name = muster.fresh("dev");
        var desired = new com.microsoft.azure.sdk.iot.provisioning.service.configs.TwinCollection();
        desired.put("temperature", 50.5);
        IndividualEnrollment entry = new IndividualEnrollment(name, Provisioning.freshKeys());
        entry.setInitialTwin(new TwinState(null, desired));
        var enrolled = Provisioning.service(muster).createOrUpdateIndividualEnrollment(entry);
        String key = ((SymmetricKeyAttestation) enrolled.getAttestation()).getPrimaryKey();
        String hub = Provisioning.register(muster, transport, Provisioning.key(name, key)).getIothubUri();
        assertEquals(muster.hubHost(), hub);

        DeviceClient client = Devices.open(Devices.client(muster, transport, name, key));
        try {
            Devices.watch(client);
            client.sendEvent(new Message("25.1"));
            Twin twin = Devices.read(client);
            assertEquals(Map.of("temperature", 50.5), twin.getDesiredProperties());
            assertEquals(1, twin.getDesiredProperties().getVersion());
            Map<String, ?> nested = Map.of("temperature", 50.5, "nested", Map.of("a", 1.0));
            reports(client, nested, nested);
            reports(client, Collections.singletonMap("nested", null), Map.of("temperature", 50.5));
        } finally {
            client.close();
        }
        assertEquals("25.1", muster.telemetry(name, 1).get(0).get("body").getAsString());
    }

    private static void reports(DeviceClient client, Map<String, ?> patch, Map<String, ?> whole) throws Exception {
        int version = Devices.report(client, patch);
        TwinCollection reported = Devices.read(client).getReportedProperties();
        assertEquals(version, reported.getVersion());
        assertEquals(whole, reported);
    }

    @Over(value = Transport.Feature.TELEMETRY, byEachCredential = true)
    @Shows(client = Sdk.DEVICE, feature = "telemetry with properties, in order")
    void telemetryArrivesInOrderWithItsProperties(Transport transport, Credential credential, Muster muster)
            throws Exception {
        String name = muster.fresh("dev");
        DeviceClient client = Devices.open(credential.client(muster, transport, name));
        try {
            Message message = new Message("{\"temperature\":50.123}");
            message.setMessageId("m/1");
            message.setCorrelationId("c 1");
            message.setContentType("application/json");
            message.setContentEncoding("utf-8");
            message.setProperty("alert", "no & yes/maybe");
            client.sendEvent(message);
            List<Message> numbers = IntStream.range(0, MESSAGES).mapToObj(n -> new Message("number " + n)).toList();
            BlockingQueue<IotHubStatusCode> acknowledged = new LinkedBlockingQueue<>();
            for (Message number : numbers) {
                client.sendEventAsync(number, (sent, failure, context) ->
                        acknowledged.add(failure == null ? IotHubStatusCode.OK : failure.getStatusCode()), null);
            }
            for (int index = 0; index < MESSAGES; index++) {
                assertEquals(IotHubStatusCode.OK, acknowledged.poll(ACKNOWLEDGED_S, TimeUnit.SECONDS));
            }
        } finally {
            client.close();
        }
        List<JsonObject> arrived = muster.telemetry(name, 1 + MESSAGES);
        JsonObject first = arrived.get(0);
        assertEquals(50.123, first.getAsJsonObject("body").get("temperature").getAsDouble());
        assertEquals("no & yes/maybe", first.getAsJsonObject("properties").get("alert").getAsString());
        JsonObject system = first.getAsJsonObject("systemProperties");
        List<String> told = new ArrayList<>();
        for (String property : List.of("messageId", "correlationId", "contentType", "contentEncoding")) {
            told.add(system.get(property).getAsString());
        }
        assertEquals(List.of("m/1", "c 1", "application/json", "utf-8"), told);
        List<String> bodies = arrived.stream().skip(1).map(one -> one.get("body").getAsString()).toList();
        assertEquals(IntStream.range(0, MESSAGES).mapToObj(n -> "number " + n).toList(), bodies);
    }

    @Over(Transport.Feature.BATCHES)
    @Shows(client = Sdk.DEVICE, credential = "symmetric key", feature = "telemetry in a batch, with properties")
    void aBatchArrivesInOrderWithTheProperties(Transport transport, Muster muster) throws Exception {
        String name = muster.fresh("dev");
        DeviceClient client = Devices.open(Devices.client(muster, transport, name, Devices.create(muster, name)));
        List<Message> numbers = IntStream.range(0, MESSAGES).mapToObj(n -> new Message("number " + n)).toList();
        numbers.get(0).setProperty("Alert", "no & yes/maybe");
        numbers.get(0).setMessageId("m/1");
        try {
            client.sendEvents(numbers);
        } finally {
            client.close();
        }
        List<JsonObject> arrived = muster.telemetry(name, MESSAGES);
        List<String> bodies = arrived.stream().map(one -> one.get("body").getAsString()).toList();
        assertEquals(IntStream.range(0, MESSAGES).mapToObj(n -> "number " + n).toList(), bodies);
        JsonObject first = arrived.get(0);
        assertEquals("no & yes/maybe", first.getAsJsonObject("properties").get("Alert").getAsString());
        assertEquals("m/1", first.getAsJsonObject("systemProperties").get("messageId").getAsString());
    }

    @Over(Transport.Feature.TWINS)
    @Shows(
            client = Sdk.DEVICE,
            credential = "X.509",
            feature = "provision self-signed and through an intermediate, connect with the same certificate")
    void devicesConnectWithTheCertificatesTheyWereProvisionedBy(Transport transport, Muster muster) throws Exception {
        Certificates root = Certificates.make(muster, "root", muster.fresh("root"));
        muster.prove(root);
        Certificates factory = Provisioning.enrollFactory(muster, root);
        Certificates own = Certificates.make(muster, "device", muster.fresh("dev"));
        Provisioning.enroll(muster, own.name(), X509Attestation.createFromClientCertificates(own.pem()));
        Certificates issued = Certificates.make(muster, "device", muster.fresh("cave"), factory);
        for (Certificates certificate : List.of(own, issued)) {
            String name = certificate.name();
            Provisioning.register(muster, transport, Provisioning.certificate(certificate));
            DeviceClient client = Devices.open(Devices.client(muster, transport, name, certificate));
            try {
                Devices.watch(client);
                client.sendEvent(new Message("25.1"));
                assertEquals(1, Devices.read(client).getReportedProperties().getVersion());
            } finally {
                client.close();
            }
        }
        Certificates forged = Certificates.forge(muster, own.name());
        refuses(Devices.client(muster, transport, own.name(), forged));
    }

    @Over(value = Transport.Feature.TWINS, byEachCredential = true)
    @Shows(client = Sdk.DEVICE, feature = "twin get, reported patch, desired callback in order")
    void desiredPropertiesReachTheDeviceInOrder(Transport transport, Credential credential, Muster muster)
            throws Exception {
        String name = muster.fresh("dev");
        DeviceClient client = Devices.open(credential.client(muster, transport, name));
        try {
            BlockingQueue<TwinCollection> told = Devices.watch(client);
            reports(client, Map.of("fan", true), Map.of("fan", true));
            for (double temperature : new double[] {50, 51, 52}) {
                Devices.desire(muster, name, "temperature", temperature);
            }
            Devices.desire(muster, name, "temperature", null);
            for (int version = 2; version <= 4; version++) {
                TwinCollection patch = Devices.next(told);
                assertEquals(Map.of("temperature", 48.0 + version), patch);
                assertEquals(version, patch.getVersion());
            }
            TwinCollection removal = Devices.next(told);
            assertEquals(5, removal.getVersion());
            assertEquals(Devices.properties(Collections.singletonMap("temperature", null)), removal);
        } finally {
            client.close();
        }
    }

    @Over(value = Transport.Feature.MODULES, byEachCredential = true)
    @Shows(client = Sdk.DEVICE, feature = "modules: telemetry, twin, desired callback")
    void aModuleSendsReportsAndIsToldOfItsOwnTwin(Transport transport, Credential credential, Muster muster)
            throws Exception {
        String name = muster.fresh("dev");
        Devices.create(muster, name);
        ModuleClient module = Devices.open(credential.module(muster, transport, name, "mod-1"));
        try {
            module.sendEvent(new Message("from the module"));
            BlockingQueue<TwinCollection> told = Devices.watch(module);
            Devices.report(module, Map.of("running", true));
            assertEquals(Map.of("running", true), Devices.read(module).getReportedProperties());
            var patch = new com.microsoft.azure.sdk.iot.service.twin.Twin(name, "mod-1");
            patch.getDesiredProperties().put("pace", 1.5);
            Devices.twins(muster).patch(patch);
            assertEquals(Map.of("pace", 1.5), Devices.next(told));
        } finally {
            module.close();
        }
        JsonObject sent = muster.telemetry(name, 1).get(0);
        assertEquals("mod-1", sent.get("moduleId").getAsString());
        assertEquals("from the module", sent.get("body").getAsString());
    }

    @Over(Transport.Feature.MODULES)
    @Shows(client = Sdk.DEVICE, credential = "X.509", feature = "modules: another certificate is refused")
    void aModuleWithTheCertificateOfAnotherIsRefused(Transport transport, Muster muster) throws Exception {
        String name = muster.fresh("dev");
        Devices.create(muster, name);
        Credential.CERTIFICATE.module(muster, transport, name, "mod-1").close();
        Certificates other = Certificates.make(muster, "device", muster.fresh("other"));
        refuses(Devices.module(muster, transport, new Module(name, "mod-1"), other));
    }

    @Over(Transport.Feature.TWINS)
    @Shows(client = Sdk.DEVICE, credential = "symmetric key", feature = "the announced model is shown in the twin")
    void theAnnouncedModelIsShownInTheTwin(Transport transport, Muster muster) throws Exception {
        String name = muster.fresh("dev");
        String key = Devices.create(muster, name);
        ClientOptions options = ClientOptions.builder()
                .modelId("dtmi:muster:Cave;1")
                .sslContext(SSLContext.getDefault())
                .build();
        String text = "HostName=" + muster.hubHost() + ";DeviceId=" + name + ";SharedAccessKey=" + key;
        DeviceClient client = Devices.open(new DeviceClient(text, transport.device(), options));
        try {
            assertEquals("dtmi:muster:Cave;1", Devices.twins(muster).get(name).getModelId());
        } finally {
            client.close();
        }
    }

    @Over(Transport.Feature.TWINS)
    @Shows(
            client = Sdk.DEVICE,
            credential = "symmetric key",
            feature = "a reported patch that breaks a rule is refused")
    void aReportedPatchThatBreaksARuleIsRefused(Transport transport, Muster muster) throws Exception {
        String name = muster.fresh("dev");
        DeviceClient client = Devices.open(Devices.client(muster, transport, name, Devices.create(muster, name)));
        try {
            Devices.watch(client);
            Map<String, ?> broken = Map.of("a b", 1);
            var refusal = assertThrows(IotHubClientException.class, () -> Devices.report(client, broken));
            assertEquals(IotHubStatusCode.BAD_FORMAT, refusal.getStatusCode());
            assertEquals(Map.of(), Devices.read(client).getReportedProperties());
        } finally {
            client.close();
        }
    }

    @Over(Transport.Feature.TELEMETRY)
    @Shows(client = Sdk.DEVICE, credential = "symmetric key", feature = "a wrong key and an unknown device are refused")
    void aWrongKeyAndAnUnknownDeviceAreRefused(Transport transport, Muster muster) throws Exception {
        String name = muster.fresh("dev");
        Devices.create(muster, name);
        refuses(Devices.client(muster, transport, name, OTHER_KEY));
        refuses(Devices.client(muster, transport, muster.fresh("dev"), OTHER_KEY));
    }

    /** Expects a refusal when the device connects or, where nothing is said until then, when it sends. */
    private static void refuses(InternalClient client) {
        try {
            var refusal = assertThrows(IotHubClientException.class, () -> {
                client.open(false);
                client.sendEvent(new Message("25.1"));
            });
            assertEquals(IotHubStatusCode.UNAUTHORIZED, refusal.getStatusCode());
        } finally {
            client.close();
        }
    }
}
