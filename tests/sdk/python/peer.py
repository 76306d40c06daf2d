"""Qpid Proton, an AMQP client that nobody made for Azure, as a device or a back-end program of these tests."""

import base64
import hashlib
import hmac
import time
import uuid
from urllib.parse import quote

from proton import Message, SSLDomain, symbol
from proton.reactor import ReceiverOption
from proton.utils import BlockingConnection

WAIT_S = 30
TOKEN_S = 600


def signature(resource: str, key: bytes, policy: str | None = None, lives_s: int = TOKEN_S) -> str:
    """A shared access signature over a resource; a key of Event Hubs signs by its text."""
    encoded = quote(resource, safe="")
    expiry = int(time.time()) + lives_s
    signed = base64.b64encode(hmac.new(key, f"{encoded}\n{expiry}".encode(), hashlib.sha256).digest())
    named = f"&skn={policy}" if policy else ""
    return f"SharedAccessSignature sr={encoded}&sig={quote(signed, safe='')}&se={expiry}{named}"


class Epoch(ReceiverOption):
    """The epoch that a receiver claims a partition by."""

    def __init__(self, epoch: int):
        self.properties = {symbol("com.microsoft:epoch"): epoch}

    def apply(self, receiver):
        receiver.properties = self.properties


class Peer:
    """A connection: by EXTERNAL with a certificate, by PLAIN with a user, else as nobody, with tokens to be put."""

    def __init__(self, muster, host: str, user: str | None = None, password: str | None = None, certificate=None):
        trust = SSLDomain(SSLDomain.MODE_CLIENT)
        trust.set_trusted_ca_db(muster.endpoints["caFile"])
        trust.set_peer_authentication(SSLDomain.VERIFY_PEER_NAME)
        mechanism = "PLAIN" if user else "ANONYMOUS"
        if certificate is not None:
            trust.set_credentials(f"{certificate}.chain.pem", f"{certificate}.key.pem", None)
            mechanism = "EXTERNAL"
        self.connection = BlockingConnection(
            f"amqps://{host}:{muster.endpoints['ports']['amqps']}",
            timeout=WAIT_S,
            ssl_domain=trust,
            allowed_mechs=mechanism,
            user=user,
            password=password,
        )
        assert self.connection.conn.transport.sasl().mech == mechanism

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()

    # This client would call all links to an address alike.
    def sender(self, address: str):
        return self.connection.create_sender(address, name=str(uuid.uuid4()))

    def receiver(self, address: str, options=None, credit: int = 0):
        return self.connection.create_receiver(address, credit=credit, name=str(uuid.uuid4()), options=options)

    def put_token(self, audience: str, token: str) -> int:
        """Puts a token, and gives the status of the answer."""
        said = {"operation": "put-token", "type": "servicebus.windows.net:sastoken", "name": audience}
        return self.call("$cbs", Message(properties=said, body=token)).properties["status-code"]

    def call(self, node: str, question: Message) -> Message:
        """Asks a node, and gives its answer."""
        question.id = uuid.uuid4()
        answers, questions = self.receiver(node), self.sender(node)
        questions.send(question)
        answer = take(answers)
        assert answer.correlation_id == question.id
        questions.close()
        answers.close()
        return answer


def take(receiver) -> Message:
    """The next message, accepted unless its sender has settled it."""
    message = receiver.receive()
    if receiver.fetcher.unsettled:
        receiver.accept()
    return message


def text(message: Message) -> str:
    """The body: one section of data."""
    return bytes(message.body).decode()


def annotated(**annotations) -> dict:
    """Annotations, whose names are symbols."""
    return {symbol(name): value for name, value in annotations.items()}


def binary(text: str, **said) -> Message:
    """A message with one section of data."""
    return Message(body=text.encode(), inferred=True, **said)
