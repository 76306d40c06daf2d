package muster;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.security.KeyStore;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.extension.ExtensionContext.Store.CloseableResource;

/**
 * The data folder that every server of the run begins with a copy of, and the trust of this machine in its CA.
 *
 * <p>The provisioning clients offer no way to name a CA, so the suite does what an operator would: the CA goes into the
 * trust store of the JVM. Nothing of the SDKs is touched. Make it before any connection.
 */
final class Origin implements CloseableResource {
    private static final String PASSWORD = "changeit";

    private final Path folder;

    Origin() throws Exception {
        folder = Files.createTempDirectory("muster-java-");
        Files.createDirectories(data());
        Server.launch(data()).end();
        trust(data().resolve("ca.pem"));
    }

    /** Makes a server's own copy. */
    void copyTo(Path destination) throws IOException {
        List<Path> paths;
        try (Stream<Path> found = Files.walk(data())) {
            paths = found.toList();
        }
        for (Path path : paths) {
            Path copy = destination.resolve(data().relativize(path).toString());
            Files.copy(path, copy, StandardCopyOption.COPY_ATTRIBUTES, StandardCopyOption.REPLACE_EXISTING);
        }
    }

    @Override
    public void close() throws IOException {
        remove(folder);
    }

    /** Removes a folder with everything below it. */
    static void remove(Path folder) throws IOException {
        List<Path> paths;
        try (Stream<Path> found = Files.walk(folder)) {
            paths = found.sorted(java.util.Comparator.reverseOrder()).toList();
        }
        for (Path path : paths) {
            Files.delete(path);
        }
    }

    private Path data() {
        return folder.resolve("data");
    }

    private void trust(Path authority) throws Exception {
        KeyStore store = KeyStore.getInstance("PKCS12");
        store.load(null, null);
        try (InputStream pem = Files.newInputStream(authority)) {
            Certificate certificate = CertificateFactory.getInstance("X.509").generateCertificate(pem);
            store.setCertificateEntry("muster", certificate);
        }
        Path file = folder.resolve("trust.p12");
        try (OutputStream out = Files.newOutputStream(file)) {
            store.store(out, PASSWORD.toCharArray());
        }
        System.setProperty("javax.net.ssl.trustStore", file.toString());
        System.setProperty("javax.net.ssl.trustStoreType", "PKCS12");
        System.setProperty("javax.net.ssl.trustStorePassword", PASSWORD);
    }
}
