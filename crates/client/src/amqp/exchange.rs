//! Questions to a node of the other end, and its answers: tokens at `$cbs`, a management node.
//!
//! One question waits at a time, and is known again by its message ID. Start at [`Exchange::attach`].

use proto::amqp::{Event, LinkId, LinkTerms, Message, MessageId, Role, Source, Target, Value};

use super::{AmqpConnection, AmqpError};

/// Longest answer that is taken, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 * 1_024;

/// The two links to a node.
pub(crate) struct Exchange {
    questions: LinkId,
    answers: LinkId,
    asked: u64,
}

/// What a node answered.
pub(crate) struct Answer {
    /// As in HTTP.
    pub(crate) status: u16,
    /// More words for it.
    pub(crate) description: String,
    /// The whole message.
    pub(crate) message: Message,
}

impl Exchange {
    /// Attaches the links to `node`, that of the answers first: none is to come too early.
    pub(crate) async fn attach(connection: &mut AmqpConnection, node: &str) -> Result<Self, AmqpError> {
        let link = |direction| format!("{node}-{direction}").as_str().into();
        let answers = LinkTerms::between(Source::at(node), Target::at(node), ANSWER_BYTES_MAX);
        let answers = connection.attach(link("answers"), Role::Receiver, answers).await?;
        connection.grant(answers);
        let questions = LinkTerms::between(Source::at(node), Target::at(node), ANSWER_BYTES_MAX);
        let questions = connection.attach(link("questions"), Role::Sender, questions).await?;
        Ok(Self { questions, answers, asked: 0 })
    }

    /// Asks, and does not wait: the answer is found by [`Self::answer`].
    pub(crate) fn ask(&mut self, connection: &mut AmqpConnection, mut question: Message) -> Result<(), AmqpError> {
        self.asked += 1;
        question.properties.get_or_insert_default().message_id = Some(MessageId::Ulong(self.asked));
        connection.put(self.questions, question.to_bytes())?;
        Ok(())
    }

    /// Asks, and waits for the answer; what comes meanwhile is let pass.
    pub(crate) async fn call(
        &mut self,
        connection: &mut AmqpConnection,
        question: Message,
    ) -> Result<Answer, AmqpError> {
        self.ask(connection, question)?;
        connection.wait("the question", |event| Ok(self.answer(&event))).await
    }

    /// The answer to the last question, if `event` is it.
    pub(crate) fn answer(&self, event: &Event) -> Option<Answer> {
        let Event::Delivery(delivery) = event else { return None };
        if delivery.link != self.answers {
            return None;
        }
        let message = Message::decode(&delivery.payload).ok()?;
        if message.correlation_id() != Some(&MessageId::Ulong(self.asked)) {
            return None;
        }
        let said = &message.application_properties;
        let status = said.find("status-code").and_then(Value::as_i64).and_then(|status| u16::try_from(status).ok());
        let description = said.find("status-description").and_then(Value::as_str).unwrap_or_default().to_owned();
        Some(Answer { status: status.unwrap_or_default(), description, message })
    }
}
