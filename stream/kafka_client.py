"""The way to a Kafka cluster: addresses and security, the three kinds of client set up for this service, and its errors in words.

With kafka_bus.py the only module that imports a Kafka client. Security comes from a file of client properties, in the names librdkafka
gives them (`security.protocol=SASL_SSL`), so that the file kcat reads serves here too. What travels is in codec.py, the protocol in bus.py.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from .bus import LARGEST_STATE, Record
from .codec import SCHEMA
from .errors import BadConfig, BadRecord, BusFailed, Fenced

try:
    import crc32c  # noqa: F401  kafka-python falls back to Python without it: 44 times slower to send, 76 to read
    from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, errors
    from kafka.admin import ConfigResource, ConfigResourceType
except ModuleNotFoundError as error:
    raise BadConfig(f"Kafka needs the package {error.name}, which is not installed; pip install 'psalm-stream[kafka]'") from error

CONNECT_TIMEOUT_S = 10.0
REQUEST_TIMEOUT_S = 10.0  # of one answer; a rebalance waits longer by itself
LARGEST_RECORD = LARGEST_STATE  # a topic's own max.message.bytes is what refuses a record
LONGEST_KEY = 1024  # bytes; every answer to a record repeats its key
TOPIC_NAME = re.compile(r"[\w.-]*", re.ASCII)

PROPERTIES = {
    "security.protocol": "security_protocol",
    "sasl.mechanism": "sasl_mechanism",
    "sasl.mechanisms": "sasl_mechanism",
    "sasl.username": "sasl_plain_username",
    "sasl.password": "sasl_plain_password",
    "ssl.ca.location": "ssl_cafile",
    "ssl.certificate.location": "ssl_certfile",
    "ssl.key.location": "ssl_keyfile",
    "ssl.key.password": "ssl_password",
    "ssl.crl.location": "ssl_crlfile",
    "ssl.endpoint.identification.algorithm": "ssl_check_hostname",
}
CHOICES = {
    "security.protocol": ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"),
    "sasl.mechanism": ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"),
    "ssl.endpoint.identification.algorithm": ("HTTPS", "NONE"),
}

FENCING = (
    errors.ProducerFencedError,
    errors.InvalidProducerEpochError,
    errors.CommitFailedError,
    errors.IllegalGenerationError,
    errors.UnknownMemberIdError,
    errors.FencedInstanceIdError,
)
REMEDIES = {  # by what an error says, the first that fits; the names are of the Kafka properties
    "SaslAuthenticationFailed": "correct sasl.username and sasl.password",
    "UnsupportedSaslMechanism": "name a sasl.mechanism of the broker",
    "AuthorizationFailed": "grant the user this topic, group or transactional id",
    "UnknownTopicOrPartition": "psalm-stream topics create",
    "CERTIFICATE_VERIFY_FAILED": "correct ssl.ca.location, or the name in the broker's certificate",
    "SSL.*ALERT": "correct ssl.certificate.location and ssl.key.location",
    "WRONG_VERSION|UNEXPECTED_EOF|InvalidReceive|socket disconnected": "correct security.protocol, sasl.username and sasl.password",
    "KafkaTimeout|KafkaConnection": "start the broker, or correct its address",
}
LOGS_WITH_BYTES = ("kafka.net.connection", "kafka.net.transport", "kafka.protocol.parser")  # at level DEBUG, the password among them


def _above_debug(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG


class Secret(str):
    """Text that shows itself to no log line and no traceback; kafka-python logs its settings at level DEBUG."""

    def __repr__(self) -> str:
        return "'***'"


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where Kafka is and what its clients say there. prefix: stands before the name of every topic."""

    servers: str
    prefix: str = ""
    security: Mapping[str, object] = field(default_factory=dict, repr=False)

    def topic(self, name: str) -> str:
        """The name of a topic of ours on this cluster."""
        return self.prefix + name

    def consumer(self, **knobs: object) -> Consumer:
        """A consumer of committed records alone. Raises BusFailed."""
        ours = {"isolation_level": "read_committed", "enable_auto_commit": False, "auto_offset_reset": "none", "fetch_max_bytes": 16 << 20}
        with _connecting(self.servers):
            return Consumer(**self._connection(), metrics_enabled=False, allow_auto_create_topics=False, **ours | knobs)

    def producer(self, **knobs: object) -> Producer:
        """An idempotent producer. Raises BusFailed."""
        ours = {"max_request_size": LARGEST_RECORD, "batch_size": 1 << 20, "max_block_ms": int(CONNECT_TIMEOUT_S * 1000)}
        with _connecting(self.servers):
            return Producer(**self._connection(), metrics_enabled=False, allow_auto_create_topics=False, **ours | knobs)

    def admin(self, kind: type[KafkaAdminClient] = KafkaAdminClient) -> KafkaAdminClient:
        """A client that creates and describes topics. Raises BusFailed."""
        with _connecting(self.servers):
            return kind(**self._connection())

    def _connection(self) -> dict[str, object]:
        if self.security:
            for name in LOGS_WITH_BYTES:
                logging.getLogger(name).addFilter(_above_debug)
        return {
            "bootstrap_servers": self.servers.split(","),
            "bootstrap_timeout_ms": int(CONNECT_TIMEOUT_S * 1000),
            "request_timeout_ms": int(REQUEST_TIMEOUT_S * 1000),
            "reconnect_backoff_max_ms": 1000,  # after an outage a client is back within a second
            **self.security,
        }


class Consumer(KafkaConsumer):
    """A KafkaConsumer that keeps its place in a rebalance, which kafka-python 3.0.12 loses."""

    @property
    def at_rest(self) -> bool:
        """Whether this member takes part in no rebalance, and has to in none."""
        return not self._coordinator.need_rejoin()

    def join(self, timeout_s: float) -> bool:
        """Take part in a rebalance until it is over; whether this member is then at rest.

        To be called before every poll: a poll that gives up waiting forgets a rebalance that ends before the next, and begins another.
        """
        return self.at_rest or self._coordinator.ensure_active_group(timeout_ms=timeout_s * 1000)

    def forget(self) -> None:
        """Claim nothing of what was held before an expulsion. 3.0.12 goes on to: what the group then gives to another is withheld from it
        until this member revokes it, which it never does."""
        for assignor in self._coordinator._assignors.values():
            assignor.member_assignment = None


class Producer(KafkaProducer):
    """A KafkaProducer that waits for the end of a transaction no longer than the broker does, and can be left at once.

    The client's own waits last for as long as no broker answers, and its close(0) raises with records in flight.
    """

    def send_offsets_to_transaction(self, offsets: Mapping, group_metadata: object) -> None:
        """See KafkaProducer. Raises KafkaTimeoutError."""
        self._wait(self._transaction_manager.send_offsets_to_transaction(offsets, group_metadata))

    def commit_transaction(self) -> None:
        """See KafkaProducer. Raises KafkaTimeoutError, and then nobody knows whether it was committed."""
        self._wait(self._transaction_manager.begin_commit())

    def abandon(self) -> None:
        """Close without sending any more; what is undecided is settled by the next producer of this transactional id."""
        self._sender.force_close()
        self._sender.join(1.0)
        with suppress(errors.KafkaError):
            self.close(timeout=0)

    def _wait(self, result: object) -> None:
        self._sender.wakeup()
        if not result.wait(timeout_ms=self.config["transaction_timeout_ms"]):
            raise errors.KafkaTimeoutError(f"no answer within {self.config['transaction_timeout_ms'] / 1000:g} s")


def open_cluster(servers: str, properties: str | Path | None = None, prefix: str = "") -> Cluster:
    """The cluster at `HOST:PORT,...`, with the security its properties file says. Connects to nothing. Raises BadConfig."""
    for server in servers.split(","):
        if not re.fullmatch(r"[^\s:/]+:\d+|\[[0-9a-fA-F:]+\]:\d+", server):
            raise BadConfig(f"Kafka broker is {server!r}, expected HOST:PORT,...; set PSALM_KAFKA")
    if not TOPIC_NAME.fullmatch(prefix):
        raise BadConfig(f"topic prefix is {prefix!r}, expected letters, digits, '.', '_' and '-' alone")
    return Cluster(servers, prefix, read_security(Path(properties)) if properties else {})


def read_security(path: Path) -> dict[str, object]:
    """The client's settings from a file of lines `name=value`, as librdkafka names them. Raises BadConfig, which shows no value."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(f"Kafka properties {path} cannot be read ({type(error).__name__}); name a readable text file") from error
    found: dict[str, object] = {}
    for number, line in enumerate(lines, 1):
        name, equals, value = (part.strip() for part in line.partition("="))
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not equals:
            raise BadConfig(f"Kafka properties {path}, line {number} has no '=', expected name=value, or a comment after #")
        found[PROPERTIES[_known(name, path)]] = _value(name, value, path)
    if str(found.get("security_protocol", "")).startswith("SASL"):
        given = {name for name, setting in PROPERTIES.items() if setting in found}
        if lacks := [name for name in ("sasl.mechanism", "sasl.username", "sasl.password") if name not in given]:
            raise BadConfig(f"Kafka properties {path} say {found['security_protocol']} without {', '.join(lacks)}; add them")
    return found


def _known(name: str, path: Path) -> str:
    if name not in PROPERTIES:
        nearest = difflib.get_close_matches(name, PROPERTIES, n=1, cutoff=0)[0]
        raise BadConfig(f"Kafka properties {path} name {name!r}, which is not known; did you mean {nearest}? All: {', '.join(PROPERTIES)}")
    return name


def _value(name: str, value: str, path: Path) -> object:
    choices = CHOICES.get(name.replace("mechanisms", "mechanism"))
    if choices and value.upper() not in choices:
        raise BadConfig(f"Kafka properties {path}: {name} is {value!r}, expected one of {', '.join(choices)}")
    if name == "ssl.endpoint.identification.algorithm":
        return value.upper() == "HTTPS"
    if name.endswith("password"):
        return Secret(value)
    return value.upper() if choices else value


@contextmanager
def named_errors(doing: str) -> Iterator[None]:
    """What the client raises inside the block, as an error of ours: Fenced, BadRecord or BusFailed."""
    try:
        yield
    except FENCING as error:
        raise Fenced(f"{doing}: {error}; another holds what this member held, start from what is committed") from error
    except (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError) as error:
        raise BadRecord(f"{doing}: a record is larger than its topic takes ({error}); send less, or raise its max.message.bytes") from error
    except errors.KafkaError as error:
        remedy = next((text for said, text in REMEDIES.items() if re.search(said, str(error))), "see the broker's log")
        raise BusFailed(f"{doing}: {error}; {remedy}") from error


class _Reasons(logging.Handler):
    """Why connections failed, which the client tells its log alone; what it raises in the end is that time is over."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[errors.KafkaError] = []

    def emit(self, record: logging.LogRecord) -> None:
        told = (said for said in record.args or () if isinstance(said, errors.KafkaError))
        self.found += [said for said in told if not isinstance(said, errors.KafkaTimeoutError | errors.RequestTimedOutError)]


@contextmanager
def _connecting(servers: str) -> Iterator[None]:
    reasons, log = _Reasons(), logging.getLogger("kafka.net.manager")
    level = log.level
    log.addHandler(reasons)
    log.setLevel(min(log.getEffectiveLevel(), reasons.level))  # also where a command shows nothing of the client's log
    try:
        with named_errors(f"connect to Kafka at {servers}"):
            try:
                yield
            except errors.KafkaTimeoutError as error:  # a refusal is often lost in the disconnection that follows it
                told = [reason for reason in reasons.found if not isinstance(reason, errors.KafkaConnectionError)]
                raise [error, *reasons.found, *told][-1] from error
    finally:
        log.setLevel(level)
        log.removeHandler(reasons)


def settings_of(admin: KafkaAdminClient, topics: Sequence[str]) -> dict[str, dict[str, str]]:
    """All settings of topics that exist, by topic and name."""
    found = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics], config_filter="all")
    return {topic: {name: said["value"] for name, said in found["topic"][topic].items()} for topic in topics}


def headers(kind: str) -> list[tuple[str, bytes]]:
    """What travels beside a record's bytes: their kind, and the schema they were packed with."""
    return [("kind", kind.encode()), ("schema", str(SCHEMA).encode())]


def record_of(topic: str, message: object) -> Record:
    """A record as the client read it from a topic of ours; a key that is no text, or longer than any name, counts as none."""
    try:
        key = (message.key or b"").decode() if len(message.key or b"") <= LONGEST_KEY else ""
    except UnicodeDecodeError:
        key = ""
    kind = next((value or b"" for name, value in message.headers if name == "kind"), b"").decode(errors="replace")
    return Record(topic, message.partition, message.offset, key, kind, message.value, message.timestamp)
