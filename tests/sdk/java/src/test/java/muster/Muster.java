package muster;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Collectors;
import org.junit.jupiter.api.extension.ExtensionContext.Store.CloseableResource;

/** A server on a data folder of its own, and its command line. The tests of a class may share it. */
final class Muster implements CloseableResource {
    private static final long COMMAND_S = 60;
    private static final String SILENCE_S = "20";
    private static final AtomicInteger NAMES = new AtomicInteger();

    private final Path folder;
    private Server server;
    private JsonObject endpoints;
    private volatile boolean hasFailed;

    Muster(Origin origin) throws Exception {
        folder = Files.createTempDirectory("muster-java-");
        origin.copyTo(data());
        Files.createDirectories(files());
        start();
    }

    private void start() throws Exception {
        server = Server.launch(data());
        endpoints = JsonParser.parseString(Files.readString(data().resolve("endpoints.json"))).getAsJsonObject();
    }

    /** Ends the server and starts it again on the same folder. */
    void restart() throws Exception {
        stop();
        start();
    }

    private void stop() throws InterruptedException {
        server.end();
        assertFalse(Files.exists(data().resolve("endpoints.json")));
    }

    /** Has the server's log shown when this is closed. */
    void failed() {
        hasFailed = true;
    }

    @Override
    public void close() throws Exception {
        try {
            stop();
        } finally {
            if (hasFailed) {
                System.err.println(server.log());
            }
            Origin.remove(folder);
        }
    }

    /** A name that no other test uses. */
    String fresh(String kind) {
        return kind + "-" + NAMES.incrementAndGet();
    }

    /** The default provisioning service. */
    JsonObject provisioning() {
        return endpoints.getAsJsonArray("provisioningServices").get(0).getAsJsonObject();
    }

    /** The default hub. */
    JsonObject hub() {
        return endpoints.getAsJsonArray("hubs").get(0).getAsJsonObject();
    }

    String hubHost() {
        return hub().get("hostName").getAsString();
    }

    String hubConnectionString() {
        return hub().get("connectionString").getAsString();
    }

    private Path data() {
        return folder.resolve("data");
    }

    /** A folder for the tests' certificates. */
    Path files() {
        return folder.resolve("files");
    }

    /** Runs a command of the binary against this server, and reads what it prints. */
    JsonElement command(String... arguments) throws Exception {
        return JsonParser.parseString(print(arguments));
    }

    /** The first telemetry of a device, once there is as much as {@code count}. */
    List<JsonObject> telemetry(String device, int count) throws Exception {
        String number = Integer.toString(count);
        String[] some = {"--device", device, "--from", "start", "--count", number, "--timeout", SILENCE_S};
        String lines = print(with(some, "events", "monitor"));
        return lines.lines().map(line -> JsonParser.parseString(line).getAsJsonObject()).toList();
    }

    /** Uploads a CA certificate made here to the provisioning service, and proves possession of its key. */
    void prove(Certificates authority) throws Exception {
        String[] owner = {"--dps", provisioning().get("name").getAsString()};
        Path pem = files().resolve(authority.name() + ".pem");
        command(with(owner, "certificate", "create", authority.name(), "--path", pem.toString()));
        JsonObject asked =
                command(with(owner, "certificate", "generate-verification-code", authority.name())).getAsJsonObject();
        String code = asked.getAsJsonObject("properties").get("verificationCode").getAsString();
        Certificates.make(this, "verification", code, authority);
        Path proof = files().resolve(code + ".pem");
        JsonObject proved = command(with(owner, "certificate", "verify", authority.name(), "--path", proof.toString()))
                .getAsJsonObject();
        assertTrue(proved.getAsJsonObject("properties").get("isVerified").getAsBoolean());
    }

    private static String[] with(String[] options, String... command) {
        List<String> all = new ArrayList<>(List.of(command));
        all.addAll(List.of(options));
        return all.toArray(String[]::new);
    }

    private String print(String... arguments) throws Exception {
        List<String> command = new ArrayList<>(List.of(Server.BINARY, "--data", data().toString(), "--output", "json"));
        command.addAll(List.of(arguments));
        Path errors = folder.resolve(fresh("command"));
        Process process = new ProcessBuilder(command).redirectError(errors.toFile()).start();
        try (var output = process.inputReader()) {
            String printed = output.lines().collect(Collectors.joining("\n"));
            assertTrue(process.waitFor(COMMAND_S, TimeUnit.SECONDS), () -> "ends: " + command);
            String said = Files.readString(errors);
            assertEquals(0, process.exitValue(), () -> command + ": " + said);
            return printed;
        } finally {
            process.destroyForcibly();
        }
    }
}
