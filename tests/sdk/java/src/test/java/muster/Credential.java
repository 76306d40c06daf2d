package muster;

import com.microsoft.azure.sdk.iot.device.ClientOptions;
import com.microsoft.azure.sdk.iot.device.DeviceClient;
import com.microsoft.azure.sdk.iot.device.ModuleClient;
import com.microsoft.azure.sdk.iot.service.auth.AuthenticationType;
import com.microsoft.azure.sdk.iot.service.registry.Device;
import com.microsoft.azure.sdk.iot.service.registry.Module;

/** How a device or a module of the registry proves who it is. */
enum Credential {
    SYMMETRIC_KEY("symmetric key") {
        @Override
        DeviceClient client(Muster muster, Transport transport, String name, ClientOptions options) throws Exception {
            String key = Devices.create(muster, name);
            String text = "HostName=" + muster.hubHost() + ";DeviceId=" + name + ";SharedAccessKey=" + key;
            return new DeviceClient(text, transport.device(), options);
        }

        @Override
        ModuleClient module(Muster muster, Transport transport, String device, String name) throws Exception {
            Module made = Devices.registry(muster).addModule(new Module(device, name));
            return Devices.module(muster, transport, made);
        }
    },
    CERTIFICATE("X.509") {
        @Override
        DeviceClient client(Muster muster, Transport transport, String name, ClientOptions options) throws Exception {
            Certificates own = Certificates.make(muster, "device", name);
            Device identity = new Device(name, AuthenticationType.SELF_SIGNED);
            identity.setThumbprint(own.thumbprint(), own.thumbprint());
            Devices.registry(muster).addDevice(identity);
            var security = Provisioning.certificate(own);
            return new DeviceClient(muster.hubHost(), name, security, transport.device(), options);
        }

        @Override
        ModuleClient module(Muster muster, Transport transport, String device, String name) throws Exception {
            Certificates own = Certificates.make(muster, "device", device + "." + name);
            Module identity = new Module(device, name, AuthenticationType.SELF_SIGNED);
            identity.setThumbprint(own.thumbprint(), own.thumbprint());
            return Devices.module(muster, transport, Devices.registry(muster).addModule(identity), own);
        }
    };

    private final String text;

    Credential(String text) {
        this.text = text;
    }

    /** Makes an identity in the registry, and a device that is to connect by it. */
    abstract DeviceClient client(Muster muster, Transport transport, String name, ClientOptions options)
            throws Exception;

    /** Makes a module of a device in the registry, and the module that is to connect by it. */
    abstract ModuleClient module(Muster muster, Transport transport, String device, String name) throws Exception;

    DeviceClient client(Muster muster, Transport transport, String name) throws Exception {
        return client(muster, transport, name, ClientOptions.builder().build());
    }

    @Override
    public String toString() {
        return text;
    }
}
