package muster;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import com.microsoft.azure.sdk.iot.service.configurations.Configuration;
import com.microsoft.azure.sdk.iot.service.configurations.ConfigurationContent;
import com.microsoft.azure.sdk.iot.service.configurations.ConfigurationsClient;
import com.microsoft.azure.sdk.iot.service.exceptions.IotHubNotFoundException;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;

/** Configurations: iot-service-client puts content into the twins that fulfil a condition. */
@ExtendWith(Fixture.class)
@ServerPerTest
final class ConfigurationTest {
    private static final long WITHIN_MS = 30_000;

    @Test
    @Shows(client = Sdk.SERVICE, credential = "policy", feature = "configurations: created, applied, replaced, listed, deleted")
    void aConfigurationIsAppliedReplacedAndWithdrawn(Muster muster) throws Exception {
        for (String name : List.of("dev-1", "dev-2")) {
            Devices.create(muster, name);
        }
        ConfigurationsClient configurations = new ConfigurationsClient(muster.hubConnectionString());
        ConfigurationContent content = new ConfigurationContent();
        content.setDeviceContent(Map.of("properties.desired.fan", 7));
        Configuration wanted = new Configuration("fans");
        wanted.setContent(content);
        wanted.setTargetCondition("deviceId = 'dev-1'");
        wanted.setPriority(5);
        assertEquals("fans", configurations.create(wanted).getId());
        comes(muster, "dev-1", 7L);
        comes(muster, "dev-2", null);

        Configuration read = configurations.get("fans");
        read.setTargetCondition("deviceId = 'dev-2'");
        configurations.replace(read);
        comes(muster, "dev-2", 7L);
        comes(muster, "dev-1", null);
        assertEquals(1, configurations.get(10).size());
        configurations.delete("fans");
        comes(muster, "dev-2", null);
        assertThrows(IotHubNotFoundException.class, () -> configurations.get("fans"));
    }

    /** Asks until it is so: nobody tells when a configuration has come everywhere. */
    private static void comes(Muster muster, String device, Object wanted) throws Exception {
        long until = System.currentTimeMillis() + WITHIN_MS;
        Object found = Devices.twins(muster).get(device).getDesiredProperties().get("fan");
        while (!Objects.equals(found, wanted) && System.currentTimeMillis() < until) {
            found = Devices.twins(muster).get(device).getDesiredProperties().get("fan");
        }
        assertEquals(wanted, found, device);
    }
}
