package muster;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.JsonParser;
import com.microsoft.azure.sdk.iot.device.DeviceClient;
import com.microsoft.azure.sdk.iot.device.twin.DirectMethodPayload;
import com.microsoft.azure.sdk.iot.device.twin.DirectMethodResponse;
import com.microsoft.azure.sdk.iot.service.exceptions.IotHubException;
import com.microsoft.azure.sdk.iot.service.exceptions.IotHubGatewayTimeoutException;
import com.microsoft.azure.sdk.iot.service.exceptions.IotHubNotFoundException;
import com.microsoft.azure.sdk.iot.service.methods.DirectMethodRequestOptions;
import com.microsoft.azure.sdk.iot.service.methods.DirectMethodsClient;
import com.microsoft.azure.sdk.iot.service.registry.Module;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.function.Executable;

/** Direct methods: iot-service-client calls, iot-device-client answers, and callers hear when nobody does. */
@ExtendWith(Fixture.class)
final class MethodTest {
    private static final int SILENCE_S = 5;

    /** Answers {@code echo} with what it was given, and everything else with a failure that says why. */
    private static DirectMethodResponse answer(String method, DirectMethodPayload payload, Object context) {
        if (method.equals("echo")) {
            return new DirectMethodResponse(200, payload.getPayloadAsJsonElement());
        }
        return new DirectMethodResponse(-404, Map.of("why", method));
    }

    private static DirectMethodRequestOptions with(Object payload) {
        return DirectMethodRequestOptions.builder().payload(payload).build();
    }

    @Over(value = Transport.Feature.METHODS, byEachCredential = true)
    @Shows(client = Sdk.DEVICE, feature = "direct methods: status and payload both ways")
    void aDeviceAnswersWithAStatusAndAPayloadOfItsOwn(Transport transport, Credential credential, Muster muster)
            throws Exception {
        String name = muster.fresh("dev");
        DirectMethodsClient caller = new DirectMethodsClient(muster.hubConnectionString());
        DeviceClient client = Devices.open(credential.client(muster, transport, name));
        try {
            client.subscribeToMethods(MethodTest::answer, null);
            var said = JsonParser.parseString("{\"b\":1.5,\"a\":[true,\"é\\n\"],\"big\":4503599627370495}");
            var echo = caller.invoke(name, "echo", with(said));
            assertEquals(200, echo.getStatus());
            assertEquals(said, echo.getPayloadAsJsonElement());
            var failure = caller.invoke(name, "reboot");
            assertEquals(-404, failure.getStatus());
            assertEquals(JsonParser.parseString("{\"why\":\"reboot\"}"), failure.getPayloadAsJsonElement());
        } finally {
            client.close();
        }
    }

    @Test
    @Shows(client = Sdk.SERVICE, credential = "policy", feature = "direct methods: offline, unknown, silent")
    void callersHearWhyNothingComesBack(Muster muster) throws Exception {
        String name = muster.fresh("dev");
        DirectMethodsClient caller = new DirectMethodsClient(muster.hubConnectionString());
        String key = Devices.create(muster, name);
        Devices.registry(muster).addModule(new Module(name, "mod-1"));
        // Without saying so, this client waits for devices longer than for the hub.
        var atOnce = DirectMethodRequestOptions.builder()
                .methodConnectTimeoutSeconds(0)
                .methodResponseTimeoutSeconds(SILENCE_S)
                .build();
        String unknown = muster.fresh("dev");
        tells("404103", IotHubNotFoundException.class, () -> caller.invoke(name, "reboot", atOnce));
        tells("404103", IotHubNotFoundException.class, () -> caller.invoke(name, "mod-1", "reboot", atOnce));
        tells("DeviceNotFound", IotHubNotFoundException.class, () -> caller.invoke(unknown, "reboot", atOnce));
        DeviceClient client = Devices.open(Devices.client(muster, Transport.MQTT, name, key));
        CountDownLatch over = new CountDownLatch(1);
        try {
            client.subscribeToMethods((method, payload, context) -> silent(over), null);
            tells("504101", IotHubGatewayTimeoutException.class, () -> caller.invoke(name, "sleep", atOnce));
        } finally {
            over.countDown();
            client.close();
        }
    }

    private static DirectMethodResponse silent(CountDownLatch over) {
        try {
            over.await();
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        }
        return new DirectMethodResponse(200, null);
    }

    private static void tells(String code, Class<? extends IotHubException> kind, Executable call) {
        IotHubException told = assertThrows(kind, call);
        assertTrue(told.getMessage().contains(code), told.getMessage());
    }
}
