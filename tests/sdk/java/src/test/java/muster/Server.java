package muster;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.BufferedReader;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

/** The program under test as a process: started, awaited until it is ready, ended, its exit code checked. */
final class Server {
    private static final long READY_S = 20;
    private static final long STOP_S = 20;

    /** The program under test. */
    static final String BINARY = System.getenv().getOrDefault("MUSTER_BIN", "target/debug/muster");

    private final Process process;
    private final Path log;

    private Server(Process process, Path log) {
        this.process = process;
        this.log = log;
    }

    /** Starts a server on a data folder; its log stands in the file beside the folder. */
    static Server launch(Path data) throws Exception {
        Path log = logOf(data);
        List<String> command = List.of(BINARY, "serve", "--data", data.toString(), "--strict");
        ProcessBuilder builder = new ProcessBuilder(command);
        Process process = builder.redirectError(ProcessBuilder.Redirect.appendTo(log.toFile())).start();
        Server server = new Server(process, log);
        BufferedReader said = process.inputReader();
        CompletableFuture<String> first = CompletableFuture.supplyAsync(() -> firstLine(said));
        try {
            assertEquals("ready", first.get(READY_S, TimeUnit.SECONDS), server::log);
        } catch (Exception | Error failure) {
            process.destroyForcibly();
            throw failure;
        }
        return server;
    }

    /** Asks the server to end, and expects a clean exit. */
    void end() throws InterruptedException {
        process.destroy();
        try {
            assertTrue(process.waitFor(STOP_S, TimeUnit.SECONDS), "the server ends");
            assertEquals(0, process.exitValue(), this::log);
        } finally {
            process.destroyForcibly();
        }
    }

    /** What every server on this data folder has logged. */
    String log() {
        try {
            return Files.readString(log);
        } catch (IOException failure) {
            return failure.toString();
        }
    }

    private static Path logOf(Path data) {
        return data.resolveSibling(data.getFileName() + ".log");
    }

    private static String firstLine(BufferedReader said) {
        try {
            String line = said.readLine();
            return line == null ? "" : line.strip();
        } catch (IOException failure) {
            return failure.toString();
        }
    }
}
