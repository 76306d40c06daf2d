package muster;

import com.google.gson.JsonObject;
import java.io.IOException;
import java.lang.reflect.Method;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.List;
import org.junit.jupiter.api.extension.BeforeAllCallback;
import org.junit.jupiter.api.extension.BeforeEachCallback;
import org.junit.jupiter.api.extension.ExtensionContext;
import org.junit.jupiter.api.extension.ExtensionContext.Namespace;
import org.junit.jupiter.api.extension.ExtensionContext.Store;
import org.junit.jupiter.api.extension.InvocationInterceptor;
import org.junit.jupiter.api.extension.ParameterContext;
import org.junit.jupiter.api.extension.ParameterResolver;
import org.junit.jupiter.api.extension.ReflectiveInvocationContext;

/**
 * Hands each test a {@link Muster}, and keeps what the tests that passed have shown.
 *
 * <p>The tests of a class share a server, unless the class is marked {@link ServerPerTest}. Results go into the file
 * that MUSTER_SDK_RESULTS names, a line of JSON each; without it, nowhere.
 */
final class Fixture
        implements BeforeAllCallback, BeforeEachCallback, ParameterResolver, InvocationInterceptor {
    private static final Namespace NAMESPACE = Namespace.create(Fixture.class);
    private static final String HTTPS = Transport.HTTPS.toString();

    @Override
    public void beforeAll(ExtensionContext context) throws Exception {
        if (!isServerPerTest(context)) {
            launch(context);
        }
    }

    @Override
    public void beforeEach(ExtensionContext context) throws Exception {
        if (isServerPerTest(context)) {
            launch(context);
        }
    }

    private static boolean isServerPerTest(ExtensionContext context) {
        return context.getRequiredTestClass().isAnnotationPresent(ServerPerTest.class);
    }

    /** Starts a server that is ended with the class or the test whose context this is. */
    private static void launch(ExtensionContext context) throws Exception {
        Store run = context.getRoot().getStore(NAMESPACE);
        Origin origin;
        synchronized (Fixture.class) {
            origin = run.get(Origin.class, Origin.class);
            if (origin == null) {
                origin = new Origin();
                run.put(Origin.class, origin);
            }
        }
        context.getStore(NAMESPACE).put(Muster.class, new Muster(origin));
    }

    @Override
    public boolean supportsParameter(ParameterContext parameter, ExtensionContext context) {
        return parameter.getParameter().getType() == Muster.class;
    }

    @Override
    public Object resolveParameter(ParameterContext parameter, ExtensionContext context) {
        return musterOf(context);
    }

    private static Muster musterOf(ExtensionContext context) {
        return context.getStore(NAMESPACE).get(Muster.class, Muster.class);
    }

    @Override
    public void interceptTestMethod(
            Invocation<Void> invocation, ReflectiveInvocationContext<Method> called, ExtensionContext context)
            throws Throwable {
        run(invocation, called, context);
    }

    @Override
    public void interceptTestTemplateMethod(
            Invocation<Void> invocation, ReflectiveInvocationContext<Method> called, ExtensionContext context)
            throws Throwable {
        run(invocation, called, context);
    }

    private static void run(
            Invocation<Void> invocation, ReflectiveInvocationContext<Method> called, ExtensionContext context)
            throws Throwable {
        long started = System.nanoTime();
        try {
            invocation.proceed();
        } catch (Throwable failure) {
            musterOf(context).failed();
            throw failure;
        }
        keep(called, (System.nanoTime() - started) / 1_000_000);
    }

    private static void keep(ReflectiveInvocationContext<Method> called, long milliseconds) throws IOException {
        Method test = called.getExecutable();
        Shows shows = test.getAnnotation(Shows.class);
        String file = System.getenv("MUSTER_SDK_RESULTS");
        if (file == null) {
            return;
        }
        List<Object> arguments = called.getArguments();
        String transport = arguments.get(0) instanceof Transport over ? over.toString() : HTTPS;
        JsonObject result = new JsonObject();
        result.addProperty("suite", "java");
        result.addProperty("test", test.getDeclaringClass().getSimpleName() + "." + test.getName());
        result.addProperty("milliseconds", milliseconds);
        result.addProperty("client", shows.client().artifact());
        result.addProperty("version", shows.client().version());
        result.addProperty("transport", transport);
        result.addProperty("credential", credentialOf(arguments, shows));
        result.addProperty("feature", shows.feature());
        synchronized (Fixture.class) {
            String line = result + "\n";
            Files.writeString(Path.of(file), line, StandardOpenOption.CREATE, StandardOpenOption.APPEND);
        }
    }

    private static String credentialOf(List<Object> arguments, Shows shows) {
        return arguments.size() > 1 && arguments.get(1) instanceof Credential by ? by.toString() : shows.credential();
    }
}
