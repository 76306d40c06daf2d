//! What is read, what is refused, and that what is written is what is read.

use bytes::{Bytes, BytesMut};

use super::*;

mod bounds;
mod oracle;
mod samples;
mod wire;

fn hex(text: &str) -> Bytes {
    hex::decode(text.split_whitespace().collect::<String>()).unwrap().into()
}

fn performative(body: &Bytes) -> Performative {
    let (performative, rest) = Performative::decode(body).unwrap();
    assert!(rest.is_empty(), "bytes are left");
    performative
}

fn encoded(performative: &Performative) -> Bytes {
    let mut output = Vec::new();
    performative.encode(&mut output);
    output.into()
}

fn encoded_value(value: &Value) -> Bytes {
    let mut output = Vec::new();
    value.encode(&mut output);
    output.into()
}

fn encoded_sasl(frame: &SaslFrame) -> Bytes {
    let mut output = Vec::new();
    frame.encode(&mut output);
    output.into()
}

/// Every frame in `input`, as its channel and body.
fn frames(input: &[u8], frame_type: frame::FrameType) -> Vec<frame::Frame> {
    let mut input = BytesMut::from(input);
    let frames = std::iter::from_fn(|| frame::decode_frame(&mut input, frame_type, u32::MAX).unwrap()).collect();
    assert!(input.is_empty(), "bytes are left");
    frames
}
