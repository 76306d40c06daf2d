package muster;

import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.util.Properties;

/** The clients, as Maven Central names them and as the jars on the class path say which they are. */
enum Sdk {
    DEVICE("com.microsoft.azure.sdk.iot", "iot-device-client"),
    SERVICE("com.microsoft.azure.sdk.iot", "iot-service-client"),
    PROVISIONING_DEVICE("com.microsoft.azure.sdk.iot.provisioning", "provisioning-device-client"),
    PROVISIONING_SERVICE("com.microsoft.azure.sdk.iot.provisioning", "provisioning-service-client"),
    STORAGE("com.azure", "azure-storage-blob");

    private final String group;
    private final String artifact;

    Sdk(String group, String artifact) {
        this.group = group;
        this.artifact = artifact;
    }

    String artifact() {
        return artifact;
    }

    String version() {
        String path = "/META-INF/maven/" + group + "/" + artifact + "/pom.properties";
        Properties properties = new Properties();
        try (InputStream found = Sdk.class.getResourceAsStream(path)) {
            properties.load(found);
        } catch (IOException failure) {
            throw new UncheckedIOException(failure);
        }
        return properties.getProperty("version");
    }
}
