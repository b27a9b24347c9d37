"""The Store on a Redis: states outlive their worker, and each call is one atomic script.

The only module that imports redis: the connection, what is asked of the server, and its failures by name. The scripts are in
redis_scripts.py; what the operations mean is said in store.py.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from redis import Redis, exceptions
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.connection import ConnectionPool, parse_url
from redis.retry import Retry

from .bus import Claim
from .errors import BadConfig, Fenced, StoreFailed, StoreLost
from .redis_scripts import CLAIM, COMMON, LOAD, PREPARE, RESTORE
from .store import StateVersion, fenced, lost

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 2.0
SOCKET_TIMEOUT_S = 5.0  # of one answer
PART_BYTES = 4 << 20  # of a restore; 1000 idle sessions of 200 kB at once took 2 s, and more than 5 s on a busy machine
URL_FORM = "redis://USER:PASSWORD@HOST:PORT/DB, or rediss:// for TLS, with special characters of the password percent-encoded"
RIGHTS = "~psalm:* +info +evalsha +script|load +hget +hmget +hkeys +hexists +hstrlen +hset +hdel +smembers +sadd +del +unlink"

REMEDIES = (
    (exceptions.AuthenticationError, "correct user and password in the URL"),
    (exceptions.NoPermissionError, f"grant the user {RIGHTS}"),
    (exceptions.OutOfMemoryError, "raise its maxmemory: a session needs its state twice"),
    (exceptions.ReadOnlyError, "name the primary, this is a replica"),
    (exceptions.BusyLoadingError, "wait until it has loaded its data"),
    (exceptions.ConnectionError, "start it, or correct the URL"),
    (exceptions.TimeoutError, f"see why it does not answer in time (URL option socket_timeout, else {SOCKET_TIMEOUT_S:g} s)"),
)


class RedisStore:
    """A Store on one Redis (6 or newer), which many workers share.

    url: redis://user:password@host:port/db, rediss:// for TLS (with ?ssl_ca_certs=FILE); namespace: what keeps logs and groups apart:
    "cluster id/topic id/group". Raises BadConfig for a URL or a Redis that cannot do, and, as every operation, StoreFailed for one that
    cannot be reached or refuses to work.
    """

    def __init__(self, url: str, namespace: str) -> None:
        options = _connection_options(url)
        self.namespace = namespace
        self.address = f"{options['host']}:{options['port']}"
        self._secrets = [options[name] for name in ("password", "ssl_password") if options.get(name)]
        self._client = Redis.from_pool(ConnectionPool(**options))
        self._claim, self._load, self._prepare, self._restore = (
            self._client.register_script(COMMON + script) for script in (CLAIM, LOAD, PREPARE, RESTORE)
        )
        try:
            self._client.connection_pool.make_connection()  # connects to nothing yet
            self._refuse_forgetful()
        except TypeError as error:
            raise BadConfig(f"redis URL of {self.address}: {error}; remove the option, or say rediss:// for one of TLS") from None
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"RedisStore({self.address}, namespace={self.namespace!r})"

    def claim(self, claim: Claim) -> None:
        """See Store."""
        if claim.checkpoint is not None:
            self._ask(self._claim, claim)
        elif discarded := self._replace(claim, {}):
            said = "%r: nothing was ever committed of partition %d; discarded %d sessions, of another log or of a turn that never was"
            log.warning(said, self, claim.partition, discarded)

    def load(self, claim: Claim, session: str) -> bytes | None:
        """See Store."""
        return self._ask(self._load, claim, session) or None

    def prepare(self, claim: Claim, following: Claim, states: Mapping[str, StateVersion]) -> None:
        """See Store."""
        self._ask(self._prepare, claim, following.checkpoint, *_flat(states))

    def restore(self, claim: Claim, states: Mapping[str, StateVersion]) -> None:
        """See Store."""
        self._replace(claim, states)

    def close(self) -> None:
        """See Store."""
        self._client.close()

    def _replace(self, claim: Claim, states: Mapping[str, StateVersion]) -> int:
        """Restore, in parts that each fit a timeout. Returns how many sessions were kept before."""
        restorer = uuid.uuid4().hex
        before = self._ask(self._restore, claim, restorer, "first")
        for part in _parts(states):
            self._ask(self._restore, claim, restorer, "more", *_flat(part))
        self._ask(self._restore, claim, restorer, "last")
        return before

    def _ask(self, script: Script, claim: Claim, *arguments: str | int | bytes) -> Any:
        """Run a script over the claim's partition. Returns what it says. Raises Fenced, StoreLost, StoreFailed."""
        tag = f"psalm:{{{self.namespace}/{claim.partition}}}"
        with self._failures_named():
            status, *said = script(
                keys=[f"{tag}:{key}" for key in ("index", "states", "ended")],
                args=[claim.checkpoint or "", claim.offset, claim.generation, *arguments],
            )
        match status:
            case b"fenced":
                raise fenced(claim, int(said[0]))
            case b"overtaken":
                raise Fenced(
                    f"state of partition {claim.partition}: another member restores it; drop the turn and start from what is committed"
                )
            case b"lost":
                raise lost(claim, None if said[0] is None else tuple(known.decode() or None for known in said))
            case b"hole":
                raise StoreLost(
                    f"state of partition {claim.partition}: session {said[0].decode()!r} is in the index of {self!r}, its state is not; "
                    "somebody deleted or evicted keys"
                )
        return said[0]

    def _refuse_forgetful(self) -> None:
        """Raise BadConfig for a Redis that may evict states, warn of one that does not write them down.

        Asks INFO, which says both: CONFIG is what managed services forbid.
        """
        with self._failures_named():
            info = self._client.info()
        policy = info.get("maxmemory_policy")
        if policy != "noeviction":
            raise BadConfig(
                f"redis at {self.address} has maxmemory-policy {policy}, expected noeviction: it would drop states of running sessions; "
                "set it in redis.conf, or: redis-cli CONFIG SET maxmemory-policy noeviction"
            )
        if not info.get("aof_enabled"):
            log.warning(
                "redis at %s runs without an append-only file: after its restart all states are rebuilt from the log; set appendonly yes",
                self.address,
            )

    @contextmanager
    def _failures_named(self) -> Iterator[None]:
        """Turn an error of the client into ours, without its cause: a server may repeat the password it was sent."""
        try:
            yield
        except exceptions.RedisError as error:
            said = f"{error}".rstrip(".")
            for secret in self._secrets:
                said = said.replace(secret, "***")
            remedy = next((remedy for kind, remedy in REMEDIES if isinstance(error, kind)), f"see its log, and that its user has {RIGHTS}")
            raise StoreFailed(f"redis at {self.address} failed ({type(error).__name__}: {said}); {remedy}") from None


def _flat(states: Mapping[str, StateVersion]) -> list[str | int | bytes]:
    return [value for session, version in states.items() for value in (session, version.applied, version.data or b"")]


def _parts(states: Mapping[str, StateVersion]) -> Iterator[dict[str, StateVersion]]:
    """The states, cut after every PART_BYTES."""
    part, size = {}, 0
    for session, version in states.items():
        part[session] = version
        size += len(version.data or b"")
        if size >= PART_BYTES:
            yield part
            part, size = {}, 0
    yield part


def _connection_options(url: str) -> dict[str, Any]:
    """What a URL says, over our defaults. Raises BadConfig, which repeats nothing of it: a slip may put the password anywhere.

    A lost connection is tried once again, at once: that hides one which ended while it was idle, and every operation may be repeated.
    A longer outage is the caller's, and so is a timeout: whoever waited 5 s should not wait again unasked. RESP 2 needs no HELLO, which
    an old server would answer by repeating the password.
    """
    ours = {"host": "localhost", "port": 6379, "socket_connect_timeout": CONNECT_TIMEOUT_S, "socket_timeout": SOCKET_TIMEOUT_S}
    fixed = {"decode_responses": False, "protocol": 2, "retry": Retry(NoBackoff(), 1, (exceptions.ConnectionError,))}
    try:
        parts = urlsplit(url)
        if parts.scheme in ("redis", "rediss") and re.fullmatch(r"(/\d*)?", parts.path) and not parts.fragment and "@" not in parts.query:
            return ours | parse_url(url) | fixed
    except ValueError:
        pass
    raise BadConfig(f"the redis URL cannot be read; expected {URL_FORM}")
