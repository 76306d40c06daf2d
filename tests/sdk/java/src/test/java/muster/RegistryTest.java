package muster;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;

import com.microsoft.azure.sdk.iot.device.DeviceClient;
import com.microsoft.azure.sdk.iot.service.auth.AuthenticationType;
import com.microsoft.azure.sdk.iot.service.exceptions.IotHubBadFormatException;
import com.microsoft.azure.sdk.iot.service.exceptions.IotHubConflictException;
import com.microsoft.azure.sdk.iot.service.exceptions.IotHubNotFoundException;
import com.microsoft.azure.sdk.iot.service.exceptions.IotHubPreconditionFailedException;
import com.microsoft.azure.sdk.iot.service.exceptions.IotHubUnauthorizedException;
import com.microsoft.azure.sdk.iot.service.registry.Device;
import com.microsoft.azure.sdk.iot.service.registry.DeviceStatus;
import com.microsoft.azure.sdk.iot.service.registry.Module;
import com.microsoft.azure.sdk.iot.service.registry.RegistryClient;
import com.microsoft.azure.sdk.iot.service.registry.RegistryStatistics;
import com.microsoft.azure.sdk.iot.service.twin.Twin;
import com.microsoft.azure.sdk.iot.service.twin.TwinClient;
import com.microsoft.azure.sdk.iot.service.twin.TwinConnectionState;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;

/** iot-service-client at a hub: identities, modules, statistics and twins, and the errors an operator sees. */
@ExtendWith(Fixture.class)
@ServerPerTest
final class RegistryTest {
    private static final String POLICY = "policy";
    private static final String SHA1 = "A".repeat(40);
    private static final String SHA256 = "b".repeat(64);

    @Test
    @Shows(client = Sdk.SERVICE, credential = POLICY, feature = "identities")
    void identitiesAreCreatedReadUpdatedAndDeleted(Muster muster) throws Exception {
        RegistryClient registry = Devices.registry(muster);
        Device asked = new Device("dev-1");
        Device made = registry.addDevice(asked);
        assertEquals(asked.getPrimaryKey(), made.getPrimaryKey());
        Device read = registry.getDevice("dev-1");
        assertEquals(made.getETag(), read.getETag());
        read.setStatus(DeviceStatus.Disabled);
        Device changed = registry.updateDevice(read);
        assertEquals(DeviceStatus.Disabled, changed.getStatus());
        assertEquals(made.getGenerationId(), changed.getGenerationId());
        assertNotEquals(made.getETag(), changed.getETag());
        assertThrows(IotHubPreconditionFailedException.class, () -> registry.removeDevice(made));
        registry.removeDevice(changed);
        assertThrows(IotHubNotFoundException.class, () -> registry.getDevice("dev-1"));
        registry.addDevice(new Device("dev-2"));
        registry.removeDevice("dev-2");
    }

    @Test
    @Shows(client = Sdk.SERVICE, credential = POLICY, feature = "identities by thumbprints and by CA")
    void identitiesAuthenticateByCertificates(Muster muster) throws Exception {
        RegistryClient registry = Devices.registry(muster);
        Device asked = new Device("dev-1", AuthenticationType.SELF_SIGNED);
        asked.setThumbprint(SHA1, SHA256);
        Device made = registry.addDevice(asked);
        assertEquals(AuthenticationType.SELF_SIGNED, made.getAuthenticationType());
        assertEquals(List.of(SHA1, SHA256), List.of(made.getPrimaryThumbprint(), made.getSecondaryThumbprint()));
        registry.addDevice(new Device("dev-2", AuthenticationType.CERTIFICATE_AUTHORITY));
        Device read = registry.getDevice("dev-2");
        assertEquals(AuthenticationType.CERTIFICATE_AUTHORITY, read.getAuthenticationType());
    }

    @Test
    @Shows(client = Sdk.SERVICE, credential = POLICY, feature = "modules")
    void modulesOfADeviceAreCreatedReadAndRemoved(Muster muster) throws Exception {
        RegistryClient registry = Devices.registry(muster);
        registry.addDevice(new Device("dev-1"));
        Module made = registry.addModule(new Module("dev-1", "mod-1"));
        registry.addModule(new Module("dev-1", "mod-2"));
        assertEquals(made.getPrimaryKey(), registry.getModule("dev-1", "mod-1").getPrimaryKey());
        assertEquals(List.of("mod-1", "mod-2"), modules(registry));
        Module changed = registry.updateModule(made);
        assertThrows(IotHubPreconditionFailedException.class, () -> registry.removeModule(made));
        registry.removeModule(changed);
        registry.removeModule("dev-1", "mod-2");
        assertEquals(List.of(), modules(registry));
    }

    private static List<String> modules(RegistryClient registry) throws Exception {
        return registry.getModulesOnDevice("dev-1").stream().map(Module::getId).sorted().toList();
    }

    @Test
    @Shows(client = Sdk.SERVICE, credential = POLICY, feature = "statistics")
    void statisticsCountTheDevices(Muster muster) throws Exception {
        RegistryClient registry = Devices.registry(muster);
        registry.addDevice(new Device("dev-1"));
        Device disabled = new Device("dev-2");
        disabled.setStatus(DeviceStatus.Disabled);
        registry.addDevice(disabled);
        RegistryStatistics counted = registry.getStatistics();
        assertEquals(2, counted.getTotalDeviceCount());
        // The enabled ones are not looked at: this client reads them under a name that no hub sends.
        assertEquals(1, counted.getDisabledDeviceCount());
    }

    @Test
    @Shows(client = Sdk.SERVICE, credential = POLICY, feature = "twins: read, patch, replace")
    void aTwinIsReadPatchedReplacedAndKeptFromAStaleWriter(Muster muster) throws Exception {
        Devices.create(muster, "dev-1");
        TwinClient twins = Devices.twins(muster);
        Twin read = twins.get("dev-1");
        assertEquals(1, read.getDesiredProperties().getVersion());
        read.getTags().put("place", Map.of("room", 4));
        read.getDesiredProperties().put("temperature", 50.123);
        Twin patched = twins.patch(read);
        assertEquals("{\"room\":4}", patched.getTags().get("place").toString());
        assertEquals(50.123, patched.getDesiredProperties().get("temperature"));
        assertEquals(2, patched.getDesiredProperties().getVersion());
        assertEquals(2, patched.getDesiredProperties().getTwinMetadata("temperature").getLastUpdatedVersion());
        read.getTags().put("place", null);
        assertThrows(IotHubPreconditionFailedException.class, () -> twins.patch(read, read.getETag()));
        Twin whole = new Twin("dev-1");
        whole.getDesiredProperties().put("pressure", 3);
        Twin replaced = twins.replace(whole, patched.getETag());
        assertNull(replaced.getDesiredProperties().get("temperature"));
        assertEquals(3.0, ((Number) replaced.getDesiredProperties().get("pressure")).doubleValue());
    }

    @Test
    @Shows(client = Sdk.SERVICE, credential = POLICY, feature = "module twins")
    void aTwinOfAModuleIsReadAndPatched(Muster muster) throws Exception {
        Devices.create(muster, "dev-1");
        Devices.registry(muster).addModule(new Module("dev-1", "mod-1"));
        TwinClient twins = Devices.twins(muster);
        Twin patch = new Twin("dev-1", "mod-1");
        patch.getDesiredProperties().put("on", true);
        twins.patch(patch);
        assertEquals(true, twins.get("dev-1", "mod-1").getDesiredProperties().get("on"));
        assertNull(twins.get("dev-1").getDesiredProperties().get("on"));
    }

    @Test
    @Shows(client = Sdk.SERVICE, credential = POLICY, feature = "twins: reported, connection state")
    void aTwinShowsWhatAConnectedDeviceReports(Muster muster) throws Exception {
        String key = Devices.create(muster, "dev-1");
        DeviceClient client = Devices.open(Devices.client(muster, Transport.MQTT, "dev-1", key));
        try {
            Devices.watch(client);
            Devices.report(client, Map.of("temperature", 21.5));
            Twin twin = Devices.twins(muster).get("dev-1");
            assertEquals(TwinConnectionState.CONNECTED.toString(), twin.getConnectionState());
            assertEquals(21.5, twin.getReportedProperties().get("temperature"));
        } finally {
            client.close();
        }
    }

    @Test
    @Shows(client = Sdk.SERVICE, credential = POLICY, feature = "errors")
    void eachMistakeIsToldByItsKind(Muster muster) throws Exception {
        RegistryClient registry = Devices.registry(muster);
        registry.addDevice(new Device("dev-1"));
        assertThrows(IotHubConflictException.class, () -> registry.addDevice(new Device("dev-1")));
        assertThrows(IotHubNotFoundException.class, () -> registry.removeDevice("dev-2"));
        assertThrows(IotHubNotFoundException.class, () -> Devices.twins(muster).get("dev-2"));
        assertThrows(IotHubNotFoundException.class, () -> registry.getModule("dev-1", "mod-1"));
        assertThrows(IotHubBadFormatException.class, () -> registry.addDevice(new Device("dev 3")));
        String right = muster.hubConnectionString();
        String wrong = right.replaceAll("SharedAccessKey=.*", "SharedAccessKey=YW5vdGhlciBrZXk=");
        RegistryClient stranger = new RegistryClient(wrong);
        assertThrows(IotHubUnauthorizedException.class, () -> stranger.getDevice("dev-1"));
    }
}
