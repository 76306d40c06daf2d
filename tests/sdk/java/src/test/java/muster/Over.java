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

/** A test that is run over every transport with a feature; the transport is its first argument. */
@Target(ElementType.METHOD)
@Retention(RetentionPolicy.RUNTIME)
@ParameterizedTest(name = "{0}")
@ArgumentsSource(Over.Transports.class)
@interface Over {
    Transport.Feature value();

    /** Hands out the transports of a test. */
    final class Transports implements ArgumentsProvider, AnnotationConsumer<Over> {
        private Transport.Feature feature;

        @Override
        public void accept(Over over) {
            feature = over.value();
        }

        @Override
        public Stream<? extends Arguments> provideArguments(ExtensionContext context) {
            return Arrays.stream(Transport.offering(feature)).map(Arguments::of);
        }
    }
}
