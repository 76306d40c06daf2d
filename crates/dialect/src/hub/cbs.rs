//! Tokens that clients put on the node `$cbs`, and what each proves (`contract/hub-device.md 4.3`).
