//! A hub's devices over AMQP (`contract/hub-device.md 4.4` to `4.8`).
