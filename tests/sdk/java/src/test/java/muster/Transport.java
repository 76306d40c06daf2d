package muster;

import com.microsoft.azure.sdk.iot.device.IotHubClientProtocol;
import com.microsoft.azure.sdk.iot.provisioning.device.ProvisioningDeviceClientTransportProtocol;
import com.microsoft.azure.sdk.iot.service.messaging.IotHubServiceClientProtocol;
import java.util.Arrays;
import java.util.Set;

/** How devices reach Muster, and which tests are run that way: a transport is added by one line. */
enum Transport {
    HTTPS("https", Feature.PROVISIONING, Feature.ERROR_CODES, Feature.TELEMETRY, Feature.BATCHES, Feature.MESSAGES),
    MQTT(
            "mqtt",
            Feature.PROVISIONING,
            Feature.ERROR_CODES,
            Feature.TELEMETRY,
            Feature.TWINS,
            Feature.METHODS,
            Feature.MESSAGES,
            Feature.MODULES),
    MQTT_WS("mqtt-ws", MQTT),
    AMQP(
            "amqp",
            Feature.PROVISIONING,
            Feature.TELEMETRY,
            Feature.TWINS,
            Feature.METHODS,
            Feature.MESSAGES,
            Feature.MODULES,
            Feature.MULTIPLEXING,
            Feature.BACK_ENDS),
    AMQP_WS("amqp-ws", AMQP);

    /** What may be done over a transport. */
    enum Feature {
        PROVISIONING,
        /** A device that may not register is told the code of the error. */
        ERROR_CODES,
        TELEMETRY,
        /** Several messages of telemetry in one request. */
        BATCHES,
        TWINS,
        METHODS,
        /** From the cloud to a device. */
        MESSAGES,
        /** Modules of devices. */
        MODULES,
        /** Several devices on one connection. */
        MULTIPLEXING,
        /** Back-end programs that send to devices and hear what became of it. */
        BACK_ENDS,
    }

    private static final String SECURE_AMQP = "AMQPS";

    private final String text;
    private final Set<Feature> features;

    Transport(String text, Feature... features) {
        this.text = text;
        this.features = Set.of(features);
    }

    /** Another way to carry the same protocol. */
    Transport(String text, Transport same) {
        this.text = text;
        this.features = same.features;
    }

    boolean offers(Feature feature) {
        return features.contains(feature);
    }

    /** As the device client names it. */
    IotHubClientProtocol device() {
        return IotHubClientProtocol.valueOf(sdkName());
    }

    /** As the service client names it. */
    IotHubServiceClientProtocol service() {
        return IotHubServiceClientProtocol.valueOf(sdkName());
    }

    /** As the provisioning client names it. */
    ProvisioningDeviceClientTransportProtocol provisioning() {
        return ProvisioningDeviceClientTransportProtocol.valueOf(sdkName());
    }

    private String sdkName() {
        return name().replace("AMQP", SECURE_AMQP);
    }

    static Transport[] offering(Feature feature) {
        return Arrays.stream(values()).filter(transport -> transport.offers(feature)).toArray(Transport[]::new);
    }

    @Override
    public String toString() {
        return text;
    }
}
