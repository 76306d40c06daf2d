package muster;

import java.lang.annotation.ElementType;
import java.lang.annotation.Retention;
import java.lang.annotation.RetentionPolicy;
import java.lang.annotation.Target;

/** Which cell of docs/clients.md a test that passes is. The transport is its first argument, or HTTPS without one. */
@Target(ElementType.METHOD)
@Retention(RetentionPolicy.RUNTIME)
@interface Shows {
    Sdk client();

    /** Of a test that is run by each credential, the credential is an argument. */
    String credential() default "";

    String feature();
}
