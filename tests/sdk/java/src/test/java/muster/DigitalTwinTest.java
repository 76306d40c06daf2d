package muster;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.microsoft.azure.sdk.iot.device.ClientOptions;
import com.microsoft.azure.sdk.iot.device.DeviceClient;
import com.microsoft.azure.sdk.iot.device.twin.DirectMethodPayload;
import com.microsoft.azure.sdk.iot.device.twin.DirectMethodResponse;
import com.microsoft.azure.sdk.iot.service.digitaltwin.DigitalTwinClient;
import com.microsoft.azure.sdk.iot.service.digitaltwin.UpdateOperationUtility;
import com.microsoft.azure.sdk.iot.service.digitaltwin.models.DigitalTwinInvokeCommandRequestOptions;
import com.microsoft.azure.sdk.iot.service.digitaltwin.serialization.BasicDigitalTwin;
import com.microsoft.rest.RestException;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;

/** iot-service-client's digital twins: read, patched, commanded; iot-device-client is the Plug and Play device. */
@ExtendWith(Fixture.class)
final class DigitalTwinTest {
    private static final String MODEL = "dtmi:com:example:TemperatureController;2";
    private static final int CONNECT_S = 20;
    private static final int NOT_FOUND = 404;

    private static DigitalTwinClient twins(Muster muster) {
        return new DigitalTwinClient(muster.hubConnectionString());
    }

    /** A device that announces its model, which this client does over MQTT. */
    private static DeviceClient announced(Muster muster, String name) throws Exception {
        String identity = ";DeviceId=" + name + ";SharedAccessKey=" + Devices.create(muster, name);
        var options = ClientOptions.builder().modelId(MODEL).build();
        var client = new DeviceClient("HostName=" + muster.hubHost() + identity, Transport.MQTT.device(), options);
        return Devices.open(client);
    }

    private static List<Object> wanted(String path, Object value) {
        return new UpdateOperationUtility().appendAddPropertyOperation(path, value).getUpdateOperations();
    }

    private static int statusOf(Runnable call) {
        return assertThrows(RestException.class, call::run).response().code();
    }

    @Test
    @Shows(client = Sdk.SERVICE, credential = "policy", feature = "digital twins: read, patch, errors")
    void aDigitalTwinIsReadAndPatched(Muster muster) throws Exception {
        String name = muster.fresh("dev");
        DigitalTwinClient twins = twins(muster);
        DeviceClient device = announced(muster, name);
        try {
            Devices.watch(device);
            Devices.report(device, Map.of("thermostat1", Map.of("__t", "c", "maxTempSinceLastReboot", 25.5)));
        } finally {
            device.close();
        }
        BasicDigitalTwin read = twins.getDigitalTwin(name, BasicDigitalTwin.class);
        assertEquals(List.of(name, MODEL), List.of(read.getId(), read.getMetadata().getModelId()));
        twins.updateDigitalTwin(name, wanted("/thermostat1/targetTemperature", 21.5));
        JsonObject raw = JsonParser.parseString(twins.getDigitalTwin(name, String.class)).getAsJsonObject();
        JsonObject component = raw.getAsJsonObject("thermostat1");
        assertEquals(25.5, component.get("maxTempSinceLastReboot").getAsDouble());
        JsonObject told = component.getAsJsonObject("$metadata").getAsJsonObject("targetTemperature");
        assertEquals(21.5, told.get("desiredValue").getAsDouble());

        String nobody = muster.fresh("dev");
        // What is not found is nothing to this client, and no failure.
        assertNull(twins.getDigitalTwin(nobody, BasicDigitalTwin.class));
        assertEquals(NOT_FOUND, statusOf(() -> twins.updateDigitalTwin(nobody, wanted("/fanSpeed", 1))));
    }

    private static DirectMethodResponse answer(String command, DirectMethodPayload payload, Object context) {
        return new DirectMethodResponse(202, Map.of("command", command, "given", payload.getPayloadAsJsonElement()));
    }

    @Test
    @Shows(client = Sdk.SERVICE, credential = "policy", feature = "digital twins: commands of device and component")
    void commandsOfTheDeviceAndOfAComponentAreCarriedOut(Muster muster) throws Exception {
        String name = muster.fresh("dev");
        DigitalTwinClient twins = twins(muster);
        DeviceClient device = announced(muster, name);
        var waiting = new DigitalTwinInvokeCommandRequestOptions();
        waiting.setConnectTimeoutInSeconds(CONNECT_S);
        try {
            device.subscribeToMethods(DigitalTwinTest::answer, null);
            var rebooted = twins.invokeCommandWithResponse(name, "reboot", "5", waiting);
            assertEquals(202, rebooted.body().getStatus());
            // This client gives what it was answered as the text of the JSON.
            var expected = JsonParser.parseString("{\"command\":\"reboot\",\"given\":5}");
            assertEquals(expected, JsonParser.parseString(rebooted.body().getPayload(String.class)));
            assertTrue(rebooted.headers().getRequestId().matches("[0-9a-f-]{36}"), rebooted.headers().getRequestId());
            var told = twins.invokeComponentCommand(name, "thermostat1", "getMaxMinReport", "\"noon\"");
            expected = JsonParser.parseString("{\"command\":\"thermostat1*getMaxMinReport\",\"given\":\"noon\"}");
            assertEquals(expected, JsonParser.parseString(told.getPayload(String.class)));
        } finally {
            device.close();
        }
        assertEquals(NOT_FOUND, statusOf(() -> twins.invokeCommand(name, "reboot")));
    }
}
