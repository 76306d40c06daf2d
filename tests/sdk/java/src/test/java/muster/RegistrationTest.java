package muster;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.microsoft.azure.sdk.iot.provisioning.device.ProvisioningDeviceClientRegistrationResult;
import com.microsoft.azure.sdk.iot.provisioning.device.ProvisioningDeviceClientStatus;
import com.microsoft.azure.sdk.iot.provisioning.device.internal.exceptions.ProvisioningDeviceClientException;
import com.microsoft.azure.sdk.iot.provisioning.security.SecurityProvider;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.SymmetricKeyAttestation;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.X509Attestation;
import java.util.HashSet;
import java.util.Set;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.function.Executable;

/** provisioning-device-client over each of its transports, with enrollments made by provisioning-service-client. */
@ExtendWith(Fixture.class)
final class RegistrationTest {
    private static void registers(Muster muster, Transport transport, SecurityProvider security, String name)
            throws Exception {
        ProvisioningDeviceClientRegistrationResult result = Provisioning.register(muster, transport, security);
        assertEquals(ProvisioningDeviceClientStatus.PROVISIONING_DEVICE_STATUS_ASSIGNED,
                result.getProvisioningDeviceClientStatus());
        assertEquals(muster.hubHost(), result.getIothubUri());
        assertEquals(name, result.getDeviceId());
    }

    @Over(Transport.Feature.PROVISIONING)
    @Shows(client = Sdk.PROVISIONING_DEVICE, credential = "symmetric key", feature = "provision, individual enrollment")
    void aDeviceRegistersWithAKeyOfItsOwn(Transport transport, Muster muster) throws Exception {
        String name = muster.fresh("dev");
        SymmetricKeyAttestation keys = Provisioning.enrollByKey(muster, name);
        registers(muster, transport, Provisioning.key(name, keys.getPrimaryKey()), name);
        registers(muster, transport, Provisioning.key(name, keys.getSecondaryKey()), name);
    }

    @Over(Transport.Feature.PROVISIONING)
    @Shows(client = Sdk.PROVISIONING_DEVICE, credential = "symmetric key", feature = "provision, enrollment group")
    void aDeviceRegistersWithAKeyDerivedFromItsGroup(Transport transport, Muster muster) throws Exception {
        var group = Provisioning.enrollGroup(muster, muster.fresh("caves"), Provisioning.freshKeys());
        String key = ((SymmetricKeyAttestation) group.getAttestation()).getPrimaryKey();
        String name = muster.fresh("Cave");
        registers(muster, transport, Provisioning.derived(name, key), name);
    }

    @Over(Transport.Feature.PROVISIONING)
    @Shows(
            client = Sdk.PROVISIONING_DEVICE,
            credential = "X.509",
            feature = "provision, individual enrollment, self-signed")
    void aDeviceRegistersWithASelfSignedCertificate(Transport transport, Muster muster) throws Exception {
        String name = muster.fresh("dev");
        Certificates own = Certificates.make(muster, "device", name);
        Provisioning.enroll(muster, name, X509Attestation.createFromClientCertificates(own.pem()));
        registers(muster, transport, Provisioning.certificate(own), name);
    }

    @Over(Transport.Feature.PROVISIONING)
    @Shows(
            client = Sdk.PROVISIONING_DEVICE,
            credential = "X.509",
            feature = "provision, enrollment group, through an intermediate")
    void aDeviceRegistersThroughAnIntermediateBelowARootThatWasProved(Transport transport, Muster muster)
            throws Exception {
        Certificates root = Certificates.make(muster, "root", muster.fresh("root"));
        muster.prove(root);
        Certificates factory = Provisioning.enrollFactory(muster, root);
        String name = muster.fresh("cave");
        Certificates issued = Certificates.make(muster, "device", name, factory);
        registers(muster, transport, Provisioning.certificate(issued), name);
    }

    @Over(Transport.Feature.PROVISIONING)
    @Shows(client = Sdk.PROVISIONING_DEVICE, credential = "any", feature = "refusals cannot be told apart")
    void everyRefusedCredentialGetsTheSameAnswer(Transport transport, Muster muster) throws Exception {
        String enrolled = muster.fresh("dev");
        String other = Provisioning.enrollByKey(muster, muster.fresh("dev")).getPrimaryKey();
        Provisioning.enrollByKey(muster, enrolled);
        Certificates unproved = Certificates.make(muster, "root", muster.fresh("root"));
        Certificates factory = Provisioning.enrollFactory(muster, unproved);
        SecurityProvider wrong = Provisioning.key(enrolled, other);
        Set<String> byKey = refusals(muster, transport, wrong, Provisioning.key(muster.fresh("dev"), other));
        Certificates own = Certificates.make(muster, "device", muster.fresh("dev"));
        Certificates issued = Certificates.make(muster, "device", muster.fresh("cave"), factory);
        Set<String> byCertificate =
                refusals(muster, transport, Provisioning.certificate(own), Provisioning.certificate(issued));
        assertEquals(1, byKey.size(), byKey::toString);
        assertEquals(1, byCertificate.size(), byCertificate::toString);
        String unknown = refusal(() -> Provisioning.register(muster, transport, wrong, "0ne00000000"));
        if (transport.offers(Transport.Feature.ERROR_CODES)) {
            assertEquals(byKey, byCertificate);
            String told = byKey.iterator().next();
            assertTrue(told.contains("401002") && told.contains("Unauthorized"), told);
            assertTrue(unknown.contains("404000"), unknown);
        }
    }

    private static Set<String> refusals(Muster muster, Transport transport, SecurityProvider... refused) {
        Set<String> told = new HashSet<>();
        for (SecurityProvider security : refused) {
            told.add(refusal(() -> Provisioning.register(muster, transport, security)));
        }
        return told;
    }

    /** What a device that must be refused is told, without the tracking ID and the time. */
    private static String refusal(Executable registering) {
        Throwable cause = assertThrows(ProvisioningDeviceClientException.class, registering);
        while (cause.getCause() != null) {
            cause = cause.getCause();
        }
        return cause.toString().replaceAll("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\\d{4}-\\d\\d-[0-9T:.]+Z", "-");
    }
}
