package muster;

import com.microsoft.azure.sdk.iot.provisioning.device.ProvisioningDeviceClient;
import com.microsoft.azure.sdk.iot.provisioning.device.ProvisioningDeviceClientRegistrationResult;
import com.microsoft.azure.sdk.iot.provisioning.security.SecurityProvider;
import com.microsoft.azure.sdk.iot.provisioning.security.SecurityProviderSymmetricKey;
import com.microsoft.azure.sdk.iot.provisioning.security.hsm.SecurityProviderX509Cert;
import com.microsoft.azure.sdk.iot.provisioning.service.ProvisioningServiceClient;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.Attestation;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.EnrollmentGroup;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.IndividualEnrollment;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.SymmetricKeyAttestation;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.X509Attestation;
import java.nio.charset.StandardCharsets;

/** What the suites share about provisioning: enrollments made by the service client, devices that register. */
final class Provisioning {
    private Provisioning() {}

    static ProvisioningServiceClient service(Muster muster) {
        return new ProvisioningServiceClient(muster.provisioning().get("connectionString").getAsString());
    }

    /** Two keys that the service is to make. */
    static Attestation freshKeys() {
        return new SymmetricKeyAttestation(null, null);
    }

    static IndividualEnrollment enroll(Muster muster, String name, Attestation attestation) throws Exception {
        return service(muster).createOrUpdateIndividualEnrollment(new IndividualEnrollment(name, attestation));
    }

    static EnrollmentGroup enrollGroup(Muster muster, String name, Attestation attestation) throws Exception {
        return service(muster).createOrUpdateEnrollmentGroup(new EnrollmentGroup(name, attestation));
    }

    /** Enrolls a device by keys that the service makes, and returns them. */
    static SymmetricKeyAttestation enrollByKey(Muster muster, String name) throws Exception {
        return (SymmetricKeyAttestation) enroll(muster, name, freshKeys()).getAttestation();
    }

    /** Makes an intermediate below a root, and enrolls the devices whose certificates it signs. */
    static Certificates enrollFactory(Muster muster, Certificates root) throws Exception {
        Certificates factory = Certificates.make(muster, "intermediate", muster.fresh("factory"), root);
        enrollGroup(muster, factory.name(), X509Attestation.createFromRootCertificates(factory.pem()));
        return factory;
    }

    static SecurityProvider key(String registrationId, String key) {
        return new SecurityProviderSymmetricKey(key.getBytes(StandardCharsets.UTF_8), registrationId);
    }

    /** The key of one device of a group. The client takes and returns keys as the bytes of their base64. */
    static SecurityProvider derived(String registrationId, String groupKey) throws Exception {
        byte[] text = groupKey.getBytes(StandardCharsets.UTF_8);
        byte[] derived = SecurityProviderSymmetricKey.ComputeDerivedSymmetricKey(text, registrationId);
        return new SecurityProviderSymmetricKey(derived, registrationId);
    }

    static SecurityProvider certificate(Certificates made) {
        return new SecurityProviderX509Cert(made.leaf(), made.key(), made.issuers());
    }

    static ProvisioningDeviceClientRegistrationResult register(
            Muster muster, Transport transport, SecurityProvider security) throws Exception {
        return register(muster, transport, security, muster.provisioning().get("idScope").getAsString());
    }

    static ProvisioningDeviceClientRegistrationResult register(
            Muster muster, Transport transport, SecurityProvider security, String idScope) throws Exception {
        String host = muster.provisioning().get("deviceEndpoint").getAsString();
        ProvisioningDeviceClient client =
                ProvisioningDeviceClient.create(host, idScope, transport.provisioning(), security);
        try {
            return client.registerDeviceSync();
        } finally {
            client.close();
        }
    }
}
