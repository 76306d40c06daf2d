package muster;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.microsoft.azure.sdk.iot.provisioning.service.ProvisioningServiceClient;
import com.microsoft.azure.sdk.iot.provisioning.service.Query;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.AllocationPolicy;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.BulkEnrollmentOperationResult;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.BulkOperationMode;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.DeviceRegistrationState;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.EnrollmentGroup;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.EnrollmentStatus;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.IndividualEnrollment;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.ProvisioningStatus;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.QuerySpecification;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.QuerySpecificationBuilder;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.QuerySpecificationBuilder.FromType;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.ReprovisionPolicy;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.SymmetricKeyAttestation;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.TwinCollection;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.TwinState;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.X509Attestation;
import com.microsoft.azure.sdk.iot.provisioning.service.exceptions.ProvisioningServiceClientBadFormatException;
import com.microsoft.azure.sdk.iot.provisioning.service.exceptions.ProvisioningServiceClientException;
import com.microsoft.azure.sdk.iot.provisioning.service.exceptions.ProvisioningServiceClientNotFoundException;
import com.microsoft.azure.sdk.iot.provisioning.service.exceptions.ProvisioningServiceClientPreconditionFailedException;
import com.microsoft.azure.sdk.iot.provisioning.service.exceptions.ProvisioningServiceClientUnathorizedException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.function.Function;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;

/** provisioning-service-client: enrollments, groups, mechanisms, registrations, queries and bulk changes. */
@ExtendWith(Fixture.class)
@ServerPerTest
final class EnrollmentTest {
    private static final String POLICY = "policy";

    @Test
    @Shows(client = Sdk.PROVISIONING_SERVICE, credential = POLICY, feature = "individual enrollments")
    void anEnrollmentIsCreatedReadUpdatedAndDeleted(Muster muster) throws Exception {
        ProvisioningServiceClient service = Provisioning.service(muster);
        IndividualEnrollment terms = new IndividualEnrollment("dev-1", Provisioning.freshKeys());
        terms.setDeviceId("Device-1");
        terms.setInitialTwin(new TwinState(
                new TwinCollection(Map.of("place", "cave")), new TwinCollection(Map.of("temperature", 50.123))));
        ReprovisionPolicy policy = new ReprovisionPolicy();
        policy.setUpdateHubAssignment(true);
        policy.setMigrateDeviceData(false);
        terms.setReprovisionPolicy(policy);
        terms.setAllocationPolicy(AllocationPolicy.STATIC);
        terms.setIotHubs(List.of(muster.hubHost()));

        IndividualEnrollment made = service.createOrUpdateIndividualEnrollment(terms);
        assertEquals("Device-1", made.getDeviceId());
        assertEquals("cave", made.getInitialTwin().getTags().get("place"));
        assertEquals(50.123, made.getInitialTwin().getDesiredProperties().get("temperature"));
        assertFalse(made.getReprovisionPolicy().getMigrateDeviceData());
        assertEquals(AllocationPolicy.STATIC, made.getAllocationPolicy());
        assertEquals(List.of(muster.hubHost()), List.copyOf(made.getIotHubs()));
        SymmetricKeyAttestation keys = (SymmetricKeyAttestation) made.getAttestation();
        assertNotEquals(keys.getPrimaryKey(), keys.getSecondaryKey());

        IndividualEnrollment read = service.getIndividualEnrollment("dev-1");
        assertEquals(made.getEtag(), read.getEtag());
        assertEquals(EnrollmentStatus.UNASSIGNED, read.getDeviceRegistrationState().getStatus());
        read.setProvisioningStatus(ProvisioningStatus.DISABLED);
        IndividualEnrollment changed = service.createOrUpdateIndividualEnrollment(read);
        assertEquals(ProvisioningStatus.DISABLED, changed.getProvisioningStatus());
        assertEquals(made.getCreatedDateTimeUtc(), changed.getCreatedDateTimeUtc());
        var mechanism = service.getIndividualEnrollmentAttestationMechanism("dev-1").getAttestation();
        assertEquals(keys.getPrimaryKey(), assertInstanceOf(SymmetricKeyAttestation.class, mechanism).getPrimaryKey());

        assertThrows(
                ProvisioningServiceClientPreconditionFailedException.class,
                () -> service.deleteIndividualEnrollment(made));
        service.deleteIndividualEnrollment(changed);
        assertThrows(
                ProvisioningServiceClientNotFoundException.class, () -> service.getIndividualEnrollment("dev-1"));
    }

    @Test
    @Shows(client = Sdk.PROVISIONING_SERVICE, credential = POLICY, feature = "enrollment groups")
    void anEnrollmentGroupIsCreatedReadUpdatedAndDeleted(Muster muster) throws Exception {
        ProvisioningServiceClient service = Provisioning.service(muster);
        EnrollmentGroup made = Provisioning.enrollGroup(muster, "caves", Provisioning.freshKeys());
        EnrollmentGroup read = service.getEnrollmentGroup("caves");
        assertEquals(made.getEtag(), read.getEtag());
        read.setProvisioningStatus(ProvisioningStatus.DISABLED);
        EnrollmentGroup changed = service.createOrUpdateEnrollmentGroup(read);
        assertEquals(ProvisioningStatus.DISABLED, changed.getProvisioningStatus());
        String key = ((SymmetricKeyAttestation) made.getAttestation()).getPrimaryKey();
        var mechanism = service.getEnrollmentGroupAttestationMechanism("caves").getAttestation();
        assertEquals(key, assertInstanceOf(SymmetricKeyAttestation.class, mechanism).getPrimaryKey());
        assertThrows(
                ProvisioningServiceClientPreconditionFailedException.class,
                () -> service.deleteEnrollmentGroup("caves", made.getEtag()));
        service.deleteEnrollmentGroup("caves");
        assertThrows(ProvisioningServiceClientNotFoundException.class, () -> service.getEnrollmentGroup("caves"));
    }

    @Test
    @Shows(client = Sdk.PROVISIONING_SERVICE, credential = POLICY, feature = "X.509 enrollments")
    void anEnrolledCertificateIsShownByWhatItSaysNeverItself(Muster muster) throws Exception {
        ProvisioningServiceClient service = Provisioning.service(muster);
        Certificates own = Certificates.make(muster, "device", "dev-x");
        var attestation = X509Attestation.createFromClientCertificates(own.pem());
        X509Attestation made =
                (X509Attestation) Provisioning.enroll(muster, "dev-x", attestation).getAttestation();
        assertNull(made.getClientCertificates().getPrimary().getCertificate());
        assertEquals("CN=dev-x", made.getPrimaryX509CertificateInfo().getSubjectName());
        assertEquals(own.leaf().getNotAfter(), made.getPrimaryX509CertificateInfo().getNotAfterUtc());
        // What was read is written back without the certificate, which stays.
        IndividualEnrollment read = service.getIndividualEnrollment("dev-x");
        read.setProvisioningStatus(ProvisioningStatus.DISABLED);
        X509Attestation kept =
                (X509Attestation) service.createOrUpdateIndividualEnrollment(read).getAttestation();
        String thumbprint = made.getPrimaryX509CertificateInfo().getSha256Thumbprint();
        assertEquals(thumbprint, kept.getPrimaryX509CertificateInfo().getSha256Thumbprint());
    }

    @Test
    @Shows(client = Sdk.PROVISIONING_SERVICE, credential = POLICY, feature = "queries with paging")
    void enrollmentsAndGroupsAreQueriedPageByPage(Muster muster) throws Exception {
        ProvisioningServiceClient service = Provisioning.service(muster);
        List<String> names = List.of("a", "b", "c", "d", "e");
        for (String name : names) {
            Provisioning.enroll(muster, name, Provisioning.freshKeys());
            Provisioning.enrollGroup(muster, name, Provisioning.freshKeys());
        }
        List<Object[]> entries = pages(service.createIndividualEnrollmentQuery(all(FromType.ENROLLMENTS), 2));
        assertEquals(List.of(2, 2, 1), entries.stream().map(page -> page.length).toList());
        assertEquals(names, sorted(entries, IndividualEnrollment.class, IndividualEnrollment::getRegistrationId));
        List<Object[]> groups = pages(service.createEnrollmentGroupQuery(all(FromType.ENROLLMENT_GROUPS), 5));
        assertEquals(List.of(5), groups.stream().map(page -> page.length).toList());
        assertEquals(names, sorted(groups, EnrollmentGroup.class, EnrollmentGroup::getEnrollmentGroupId));
    }

    @Test
    @Shows(client = Sdk.PROVISIONING_SERVICE, credential = POLICY, feature = "registration states")
    void registrationsAreReadQueriedByGroupAndDeleted(Muster muster) throws Exception {
        ProvisioningServiceClient service = Provisioning.service(muster);
        EnrollmentGroup group = Provisioning.enrollGroup(muster, "caves", Provisioning.freshKeys());
        String key = ((SymmetricKeyAttestation) group.getAttestation()).getPrimaryKey();
        Provisioning.register(muster, Transport.HTTPS, Provisioning.derived("cave-1", key));
        QuerySpecification all = all(FromType.DEVICE_REGISTRATIONS);
        List<Object[]> states = pages(service.createEnrollmentGroupRegistrationStateQuery(all, "caves", 1));
        assertEquals(
                List.of("cave-1"),
                sorted(states, DeviceRegistrationState.class, DeviceRegistrationState::getRegistrationId));
        DeviceRegistrationState state = service.getDeviceRegistrationState("cave-1");
        assertEquals(EnrollmentStatus.ASSIGNED, state.getStatus());
        assertEquals(muster.hubHost(), state.getAssignedHub());
        assertThrows(
                ProvisioningServiceClientPreconditionFailedException.class,
                () -> service.deleteDeviceRegistrationState("cave-1", group.getEtag()));
        service.deleteDeviceRegistrationState(state);
        assertThrows(
                ProvisioningServiceClientNotFoundException.class,
                () -> service.getDeviceRegistrationState("cave-1"));
    }

    @Test
    @Shows(client = Sdk.PROVISIONING_SERVICE, credential = POLICY, feature = "bulk")
    void enrollmentsAreCreatedUpdatedAndDeletedTogether(Muster muster) throws Exception {
        ProvisioningServiceClient service = Provisioning.service(muster);
        List<IndividualEnrollment> two = Stream.of("dev-1", "dev-2").map(EnrollmentTest::byKey).toList();
        assertTrue(service.runBulkEnrollmentOperation(BulkOperationMode.CREATE, two).getSuccessful());
        BulkEnrollmentOperationResult again =
                service.runBulkEnrollmentOperation(BulkOperationMode.CREATE, List.of(two.get(0), byKey("dev-3")));
        assertFalse(again.getSuccessful());
        assertEquals(1, again.getErrors().size());
        assertEquals("dev-1", again.getErrors().get(0).getRegistrationId());
        assertEquals(409201, again.getErrors().get(0).getErrorCode());
        List<IndividualEnrollment> made = new ArrayList<>();
        for (String name : List.of("dev-1", "dev-2", "dev-3")) {
            IndividualEnrollment read = service.getIndividualEnrollment(name);
            read.setProvisioningStatus(ProvisioningStatus.DISABLED);
            made.add(read);
        }
        BulkOperationMode guarded = BulkOperationMode.UPDATE_IF_MATCH_ETAG;
        assertTrue(service.runBulkEnrollmentOperation(guarded, made).getSuccessful());
        BulkEnrollmentOperationResult stale = service.runBulkEnrollmentOperation(guarded, made);
        assertEquals(List.of(412001, 412001, 412001), stale.getErrors().stream().map(e -> e.getErrorCode()).toList());
        assertTrue(service.runBulkEnrollmentOperation(BulkOperationMode.DELETE, two).getSuccessful());
        var left = pages(service.createIndividualEnrollmentQuery(all(FromType.ENROLLMENTS)));
        assertEquals(
                List.of("dev-3"), sorted(left, IndividualEnrollment.class, IndividualEnrollment::getRegistrationId));
    }

    @Test
    @Shows(client = Sdk.PROVISIONING_SERVICE, credential = POLICY, feature = "errors")
    void eachMistakeIsToldByItsKind(Muster muster) throws Exception {
        ProvisioningServiceClient service = Provisioning.service(muster);
        Provisioning.enroll(muster, "dev-1", Provisioning.freshKeys());
        Exception exists = assertThrows(
                ProvisioningServiceClientException.class,
                () -> Provisioning.enroll(muster, "dev-1", Provisioning.freshKeys()));
        assertTrue(exists.getMessage().contains("409201"), exists.getMessage());
        String condition = "provisioningStatus = 'enabled'";
        QuerySpecification less =
                new QuerySpecificationBuilder("*", FromType.ENROLLMENTS).where(condition).createSqlQuery();
        assertThrows(
                RuntimeException.class, () -> service.createIndividualEnrollmentQuery(less).next());
        assertThrows(
                ProvisioningServiceClientNotFoundException.class, () -> service.getDeviceRegistrationState("dev-1"));
        String right = muster.provisioning().get("connectionString").getAsString();
        String wrong = right.replaceAll("SharedAccessKey=.*", "SharedAccessKey=YW5vdGhlciBrZXk=");
        assertThrows(
                ProvisioningServiceClientUnathorizedException.class,
                () -> new ProvisioningServiceClient(wrong).getIndividualEnrollment("dev-1"));
        assertThrows(
                ProvisioningServiceClientBadFormatException.class,
                () -> Provisioning.enroll(muster, "dev 2", Provisioning.freshKeys()));
    }

    private static IndividualEnrollment byKey(String name) {
        return new IndividualEnrollment(name, Provisioning.freshKeys());
    }

    private static QuerySpecification all(FromType kind) {
        return new QuerySpecificationBuilder("*", kind).createSqlQuery();
    }

    private static List<Object[]> pages(Query query) {
        List<Object[]> pages = new ArrayList<>();
        while (query.hasNext()) {
            pages.add(query.next().getItems());
        }
        return pages;
    }

    private static <T> List<String> sorted(List<Object[]> pages, Class<T> kind, Function<T, String> name) {
        return pages.stream().flatMap(Arrays::stream).map(kind::cast).map(name).sorted().toList();
    }
}
