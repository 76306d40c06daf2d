package muster;

import java.lang.annotation.ElementType;
import java.lang.annotation.Retention;
import java.lang.annotation.RetentionPolicy;
import java.lang.annotation.Target;
import java.util.Arrays;
import java.util.stream.Stream;
import org.junit.jupiter.api.extension.ExtensionContext;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.ArgumentsProvider;
import org.junit.jupiter.params.provider.ArgumentsSource;
import org.junit.jupiter.params.support.AnnotationConsumer;

/**
 * A test that is run over every transport with a feature, and by each credential if it says so; the transport is its
 * first argument, the credential its second.
 */
@Target(ElementType.METHOD)
@Retention(RetentionPolicy.RUNTIME)
@ParameterizedTest(name = "{arguments}")
@ArgumentsSource(Over.Transports.class)
@interface Over {
    Transport.Feature value();

    boolean byEachCredential() default false;

    /** Hands out the transports of a test, and its credentials. */
    final class Transports implements ArgumentsProvider, AnnotationConsumer<Over> {
        private Over over;

        @Override
        public void accept(Over over) {
            this.over = over;
        }

        @Override
        public Stream<? extends Arguments> provideArguments(ExtensionContext context) {
            return Arrays.stream(Transport.offering(over.value())).flatMap(this::argumentsOver);
        }

        private Stream<Arguments> argumentsOver(Transport transport) {
            if (!over.byEachCredential()) {
                return Stream.of(Arguments.of(transport));
            }
            return Arrays.stream(Credential.values()).map(credential -> Arguments.of(transport, credential));
        }
    }
}
