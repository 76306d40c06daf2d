//! The frames of a SASL exchange (part 5, section 5.3.3). What the bytes in them mean is the caller's.

use bytes::Bytes;

use super::composite::{Composite, choices, composite};
use super::decode::{Fault, Malformed, Reader};
use super::descriptor;
use super::text::{Symbol, Text};

/// What a SASL frame says.
#[derive(Clone, Debug, PartialEq)]
pub enum SaslFrame {
    /// The server's mechanisms.
    Mechanisms(SaslMechanisms),
    /// The client's choice.
    Init(SaslInit),
    /// The server's question.
    Challenge(SaslChallenge),
    /// The client's answer.
    Response(SaslResponse),
    /// The server's verdict.
    Outcome(SaslOutcome),
}

impl SaslFrame {
    /// The name in the standard.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Mechanisms(_) => "sasl-mechanisms",
            Self::Init(_) => "sasl-init",
            Self::Challenge(_) => "sasl-challenge",
            Self::Response(_) => "sasl-response",
            Self::Outcome(_) => "sasl-outcome",
        }
    }

    /// Reads the body of a frame.
    pub fn decode(body: &Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let unknown = Malformed { offset: 0, fault: Fault::Descriptor { expected: "SASL frame" } };
        if reader.u8()? != 0x00 {
            return Err(unknown);
        }
        let frame = match reader.descriptor()? {
            Some(descriptor::SASL_MECHANISMS) => Self::Mechanisms(SaslMechanisms::read_list(&mut reader)?),
            Some(descriptor::SASL_INIT) => Self::Init(SaslInit::read_list(&mut reader)?),
            Some(descriptor::SASL_CHALLENGE) => Self::Challenge(SaslChallenge::read_list(&mut reader)?),
            Some(descriptor::SASL_RESPONSE) => Self::Response(SaslResponse::read_list(&mut reader)?),
            Some(descriptor::SASL_OUTCOME) => Self::Outcome(SaslOutcome::read_list(&mut reader)?),
            _ => return Err(unknown),
        };
        reader.finish()?;
        Ok(frame)
    }

    /// Appends the body of a frame.
    pub fn encode(&self, output: &mut Vec<u8>) {
        match self {
            Self::Mechanisms(mechanisms) => Composite::write(mechanisms, output),
            Self::Init(init) => Composite::write(init, output),
            Self::Challenge(challenge) => Composite::write(challenge, output),
            Self::Response(response) => Composite::write(response, output),
            Self::Outcome(outcome) => Composite::write(outcome, output),
        }
    }
}

choices! {
    /// How a SASL exchange ended (part 5, section 5.3.3.6).
    SaslCode {
        /// The client is authenticated.
        Ok = 0,
        /// It is not.
        Auth = 1,
        /// The server cannot tell.
        Sys = 2,
        /// The server cannot tell, and never will.
        SysPerm = 3,
        /// The server cannot tell at the moment.
        SysTemp = 4,
    }
}

composite! {
    /// The server's mechanisms (part 5, section 5.3.3.1).
    SaslMechanisms = descriptor::SASL_MECHANISMS {
        /// Their names, in the server's order of preference.
        sasl_server_mechanisms: Vec<Symbol>,
    }
}

composite! {
    /// The client's choice (part 5, section 5.3.3.2).
    SaslInit = descriptor::SASL_INIT {
        /// The mechanism.
        mechanism: Symbol,
        /// What the mechanism begins with.
        initial_response: Option<Bytes>,
        /// Whom the client dialled.
        hostname: Option<Text>,
    }
}

composite! {
    /// The server's question (part 5, section 5.3.3.3).
    SaslChallenge = descriptor::SASL_CHALLENGE {
        /// What the mechanism asks.
        challenge: Bytes,
    }
}

composite! {
    /// The client's answer (part 5, section 5.3.3.4).
    SaslResponse = descriptor::SASL_RESPONSE {
        /// What the mechanism answers.
        response: Bytes,
    }
}

composite! {
    /// The server's verdict (part 5, section 5.3.3.5).
    SaslOutcome = descriptor::SASL_OUTCOME {
        /// The verdict.
        code: SaslCode,
        /// What the mechanism says with it.
        additional_data: Option<Bytes>,
    }
}
