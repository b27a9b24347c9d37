"""The product with one fence taken out: what the fault tests must notice, or they would test nothing."""

from __future__ import annotations

from collections.abc import Sequence

from kafka import OffsetAndMetadata
from psalm_stream.stream.bus import Claim
from psalm_stream.stream.kafka_bus import KafkaBus, Member
from psalm_stream.stream.kafka_client import Cluster
from psalm_stream.stream.redis_scripts import CLAIM, COMMON, LOAD, PREPARE
from psalm_stream.stream.redis_store import RedisStore


class LateBus(KafkaBus):
    """Asks who it is when it commits, not right after the poll: an expelled member is then nobody, whom Kafka does not refuse."""

    def _refuse_stale(self, claims: Sequence[Claim], membership: object) -> None:
        pass

    def _open_producer(self) -> None:
        known = self._producer
        super()._open_producer()
        if self._producer is not known:
            send = self._producer.send_offsets_to_transaction
            self._producer.send_offsets_to_transaction = lambda offsets, _: send(offsets, self._consumer.group_metadata())


class LooseBus(KafkaBus):
    """Sends answers outside of a transaction, then commits the offsets: what is sent is seen, whatever happens next."""

    def _open_producer(self) -> None:
        if self._producer is None:
            self._producer = self.cluster.producer()

    def commit(self, claims: Sequence[Claim]) -> None:
        answers, self._answers = self._answers, []
        for answer in answers:
            self._send(*answer)
        self._producer.flush(self.member.transaction_timeout_s)
        self._consumer.commit({self._at(c.partition): OffsetAndMetadata(c.offset, c.checkpoint, -1) for c in claims})


class HastyBus(KafkaBus):
    """Starts from the offset that is committed now, while a transaction may still change it."""

    def __init__(self, cluster: Cluster, member: Member) -> None:
        consumer = cluster.consumer
        cluster.consumer = lambda **knobs: consumer(**knobs | {"isolation_level": "read_uncommitted"})
        super().__init__(cluster, member)


class ForwardBus(KafkaBus):
    """After a failure it goes on where it was, as kafka-python does by itself, not where the commit is."""

    def recover(self) -> None:
        super().recover()
        self._gained.clear()


class UnfencedStore(RedisStore):
    """Answers whoever asks, and takes what anybody prepares."""

    def __init__(self, url: str, namespace: str) -> None:
        super().__init__(url, namespace)
        bodies = (LOAD, PREPARE)
        scripts = (without("if refused then return refused end\n", COMMON + body) for body in bodies)
        self._load, self._prepare = map(self._client.register_script, scripts)


class TrustingStore(RedisStore):
    """Takes what it holds for true, whatever the log says."""

    def __init__(self, url: str, namespace: str) -> None:
        super().__init__(url, namespace)
        bodies = (CLAIM, LOAD, PREPARE)
        scripts = (without(" and (checkpoint == base or checkpoint == latest)", COMMON + body) for body in bodies)
        self._claim, self._load, self._prepare = map(self._client.register_script, scripts)


def without(fence: str, script: str) -> str:
    """A script with one passage of it taken out."""
    assert script.count(fence) == 1, fence
    return script.replace(fence, "")


BUSES = {"late": LateBus, "loose": LooseBus, "hasty": HastyBus, "forward": ForwardBus}
STORES = {"unfenced": UnfencedStore, "trusting": TrustingStore}
