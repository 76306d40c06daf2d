package muster;

import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.Key;
import java.security.KeyStore;
import java.security.MessageDigest;
import java.security.cert.Certificate;
import java.security.cert.X509Certificate;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;

/** What {@code muster ca} makes of one name: a certificate as PEM, and with its key and its issuers as PKCS#12. */
record Certificates(String name, String pem, List<X509Certificate> chain, Key key) {
    private static final String PASSWORD = "cheese";

    /** Makes a certificate that signs itself. */
    static Certificates make(Muster muster, String kind, String name) throws Exception {
        return issue(muster, kind, name);
    }

    /** Makes a certificate that {@code issuer} signs. */
    static Certificates make(Muster muster, String kind, String name, Certificates issuer) throws Exception {
        return issue(muster, kind, name, "--issuer", issuer.name());
    }

    /** Makes a certificate that signs itself, for a name that has one already. */
    static Certificates forge(Muster muster, String name) throws Exception {
        return issue(muster, "device", name, "--file", name + "-forged");
    }

    private static Certificates issue(Muster muster, String kind, String name, String... arguments) throws Exception {
        List<String> command = new ArrayList<>(List.of("ca", kind, name));
        command.addAll(List.of("--out", muster.files().toString(), "--password", PASSWORD));
        command.addAll(List.of(arguments));
        muster.command(command.toArray(String[]::new));
        int file = command.indexOf("--file");
        return read(name, muster.files().resolve(file < 0 ? name : command.get(file + 1)));
    }

    private static Certificates read(String name, Path base) throws Exception {
        KeyStore store = KeyStore.getInstance("PKCS12");
        try (InputStream file = Files.newInputStream(Path.of(base + ".pfx"))) {
            store.load(file, PASSWORD.toCharArray());
        }
        String alias = store.aliases().nextElement();
        Certificate[] chain = store.getCertificateChain(alias);
        List<X509Certificate> certificates = Arrays.stream(chain).map(X509Certificate.class::cast).toList();
        Key key = store.getKey(alias, PASSWORD.toCharArray());
        return new Certificates(name, Files.readString(Path.of(base + ".pem")), certificates, key);
    }

    /** As identities at a hub name it: SHA-256, in capitals. */
    String thumbprint() throws Exception {
        byte[] digest = MessageDigest.getInstance("SHA-256").digest(leaf().getEncoded());
        return HexFormat.of().withUpperCase().formatHex(digest);
    }

    X509Certificate leaf() {
        return chain.get(0);
    }

    List<X509Certificate> issuers() {
        return chain.subList(1, chain.size());
    }
}
