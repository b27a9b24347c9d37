"""The store on a Redis that is killed, paused, emptied, rolled back, full or cut off, and what it keeps there."""

import os
import select
import socket
import threading
import time
from dataclasses import replace

import pytest
from psalm_stream.stream import redis_store
from psalm_stream.stream.errors import Fenced, StoreFailed, StoreLost
from psalm_stream.stream.store import StateVersion
from redis.crc import key_slot
from redis_steps import START, at, committed, stored, version, wait_until_written

# -- faults ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", ["committed", "not committed"])
def test_what_was_written_outlives_a_kill_of_the_server(server, admin, connect, outcome):
    store = connect(server)
    held = committed(store, 3)
    store.prepare(held, at(6, "n6"), {"a": version(6), "b": version(5)})
    wait_until_written(admin)
    server.kill()
    server.start()
    heir = at(6, "n6", generation=2) if outcome == "committed" else at(3, "n3", generation=2)
    store.claim(heir)
    assert [store.load(heir, s) for s in "ab"] == ([b"state 6", b"state 5"] if outcome == "committed" else [b"state 3", None])


@pytest.mark.parametrize("act", ["load", "prepare"])
def test_a_living_owner_learns_that_its_store_was_emptied_and_restores_it(server, admin, connect, act):
    store = connect(server)
    held = committed(store, 3)
    admin.flushall()
    with pytest.raises(StoreLost, match="knows nothing"):
        store.load(held, "a") if act == "load" else store.prepare(held, at(6, "n6"), {"b": version(6)})
    store.restore(held, {"a": version(3)})
    store.prepare(held, at(6, "n6"), {"b": version(6)})
    assert [store.load(at(6, "n6"), s) for s in "ab"] == [b"state 3", b"state 6"]


def test_what_is_restored_in_several_parts_is_all_there(server, admin, connect, monkeypatch):
    monkeypatch.setattr(redis_store, "PART_BYTES", 20)
    store = connect(server)
    committed(store, 3, 6)
    rebuilt = at(9, "n9", generation=2)
    states = {f"s{n}": StateVersion(n, b"x" * n) for n in range(1, 9)}
    store.restore(rebuilt, states)
    assert [store.load(rebuilt, f"s{n}") for n in range(10)] == [None, *(version.data for version in states.values()), None]
    assert stored(admin) == (8, 8, 0)


def test_nobody_is_let_into_a_partition_that_is_half_restored(server, admin, connect, monkeypatch):
    monkeypatch.setattr(redis_store, "PART_BYTES", 1)
    store = connect(server)
    held = committed(store, 3)
    with pytest.raises(Death):
        store.restore(held, Breaking({"a": version(3), "b": version(2)}))
    assert stored(admin) == (1, 1, 0)
    for act in (lambda: store.load(held, "a"), lambda: store.claim(held), lambda: store.prepare(held, at(6, "n6"), {})):
        with pytest.raises(StoreLost, match="knows nothing"):
            act()
    store.claim(START)
    assert store.load(START, "a") is None


class Death(Exception):
    """The end of a worker."""


class Breaking(dict):
    """States whose owner dies before the last one."""

    def items(self):
        yield next(iter(super().items()))
        raise Death


def test_of_two_who_restore_a_partition_at_once_the_first_gives_way(server, connect, monkeypatch):
    monkeypatch.setattr(redis_store, "PART_BYTES", 1)
    first, second = connect(server), connect(server)
    later = at(6, "n6", generation=2)

    class Overtaken(dict):
        def items(self):
            yield "a", version(3)
            second.restore(later, {"b": version(5)})
            yield "c", version(3)

    with pytest.raises(Fenced, match="another member restores it"):
        first.restore(at(3, "n3"), Overtaken())
    assert [second.load(later, s) for s in "abc"] == [None, b"state 5", None]


@pytest.mark.parametrize("act", ["load", "prepare", "claim"])
def test_a_living_owner_learns_that_its_store_was_rolled_back(server, admin, connect, tmp_path, act):
    store = connect(server)
    held = committed(store, 3, 6)
    wait_until_written(admin)
    server.save(tmp_path / "saved")
    for offset in (9, 12):
        following = at(offset, f"n{offset}")
        store.prepare(held, following, {"b": version(offset)})
        held = following
    server.roll_back(tmp_path / "saved")
    acts = {
        "load": lambda: store.load(held, "a"),
        "prepare": lambda: store.prepare(held, at(15, "n15"), {"b": version(15)}),
        "claim": lambda: store.claim(held),
    }
    with pytest.raises(StoreLost, match=r"n12.*n3 and n6"):
        acts[act]()


@pytest.mark.parametrize("key", ["index", "states"])
@pytest.mark.parametrize("act", ["load", "claim"])
def test_a_single_key_that_is_gone_is_a_loss_and_no_unknown_session(server, admin, connect, key, act):
    store = connect(server)
    held = committed(store, 3)
    assert admin.delete(f"psalm:{{cluster/topic/group/0}}:{key}") == 1
    with pytest.raises(StoreLost):
        store.load(held, "a") if act == "load" else store.claim(held)


def test_a_session_that_changed_since_its_state_was_gone_is_still_a_loss_to_an_heir(server, admin, connect):
    store = connect(server)
    held = committed(store, 3)
    admin.delete("psalm:{cluster/topic/group/0}:states")
    store.prepare(held, at(6, "never committed"), {"a": version(6)})
    with pytest.raises(StoreLost, match="'a'"):
        store.claim(at(3, "n3", generation=2))


def test_a_write_of_a_member_with_an_heir_in_another_process_is_refused(server, connect):
    zombie, heir = connect(server), connect(server)
    held = committed(zombie, 3)
    heir.claim(at(3, "n3", generation=2))
    with pytest.raises(Fenced, match=r"generation 1.*generation 2"):
        zombie.prepare(held, at(6, "z"), {"a": StateVersion(5, b"zombie")})
    heir.claim(at(3, "n3", generation=3))
    assert heir.load(at(3, "n3", generation=3), "a") == b"state 3"


def test_a_prepare_whose_answer_got_lost_on_the_way_is_repeated_unseen(server, connect):
    with Cutter(server.port) as cutter:
        store = connect(f"127.0.0.1:{cutter.port}")
        held = committed(store, 3)
        cutter.cut_next_answer.set()
        store.prepare(held, at(6, "n6"), {"a": version(6)})
        assert not cutter.cut_next_answer.is_set()
        assert (store.load(held, "a"), store.load(at(6, "n6"), "a")) == (b"state 3", b"state 6")


class Cutter(threading.Thread):
    """A wire to a port of this machine that is cut when an answer has arrived and was not handed on."""

    def __init__(self, port):
        super().__init__()
        self.server_port, self.listener = port, socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.cut_next_answer, self.over = threading.Event(), threading.Event()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()

    def run(self):
        ends, servers = {}, set()
        while not self.over.is_set():
            for source in select.select([self.listener, *ends], [], [], 0.05)[0]:
                if source is self.listener:
                    client, server = source.accept()[0], socket.create_connection(("127.0.0.1", self.server_port))
                    ends |= {client: server, server: client}
                    servers.add(server)
                elif source in ends:
                    self.pass_on(source, ends, cut=source in servers and self.cut_next_answer.is_set())
        for end in (self.listener, *ends):
            end.close()

    def pass_on(self, source, ends, cut):
        data = source.recv(1 << 16)
        if data and not cut:
            ends[source].sendall(data)
            return
        for end in (ends.pop(ends[source]), ends.pop(source)):
            end.close()
        if data:
            self.cut_next_answer.clear()


def test_a_connection_that_ended_while_it_was_idle_goes_unnoticed(server, admin, connect):
    store = connect(server)
    held = committed(store, 3)
    admin.client_kill_filter(_type="normal", skipme=True)
    assert store.load(held, "a") == b"state 3"


@pytest.mark.parametrize("said_by", ["module", "url"])
def test_a_server_that_does_not_answer_is_named_when_its_time_is_over(server, connect, monkeypatch, said_by):
    monkeypatch.setattr(redis_store, "SOCKET_TIMEOUT_S", 0.3 if said_by == "module" else 300)
    store = connect(server, options="?socket_timeout=0.3" if said_by == "url" else "")
    held = committed(store, 3)
    server.pause()
    began = time.monotonic()
    with pytest.raises(StoreFailed, match=f"{server.address}.*Timeout"):
        store.load(held, "a")
    assert time.monotonic() - began < 10
    server.resume()
    assert store.load(held, "a") == b"state 3"


def test_a_server_that_is_gone_is_named_at_once_and_used_when_it_is_back(server, connect):
    store = connect(server)
    held = committed(store, 3)
    server.kill()
    with pytest.raises(StoreFailed, match=f"{server.address}.*refused.*start it"):
        store.load(held, "a")
    server.start()
    assert store.load(held, "a") == b"state 3"


def test_a_full_server_refuses_a_turn_whole_and_lets_an_heir_claim(server, admin, connect):
    store = connect(server)
    held = committed(store, 3)
    store.prepare(held, at(6, "n6"), {"a": version(6), "b": version(5)})
    admin.config_set("maxmemory", "1mb")
    with pytest.raises(StoreFailed, match="maxmemory"):
        store.prepare(at(6, "n6"), at(9, "n9"), {"a": StateVersion(8, os.urandom(1 << 20))})
    heir = at(6, "n6", generation=2)
    store.claim(heir)
    assert [store.load(heir, s) for s in "ab"] == [b"state 6", b"state 5"]


# -- what is kept ------------------------------------------------------------------------------------------------------


def test_at_most_two_states_of_a_session_are_kept_and_nothing_of_an_ended_one(server, admin, connect):
    store = connect(server)
    store.claim(START)
    held = START
    for n in range(1, 40):
        following = at(n, f"n{n}")
        store.prepare(held, following, {"a": version(n), f"once{n}": StateVersion(n - 1, None)})
        assert stored(admin) == (2, min(n, 2) + 1, 1)  # a and the session that just ended, whose end waits for its commit
        held = following
    store.prepare(held, at(40, "n40"), {})
    assert stored(admin) == (1, 2, 0)
    store.prepare(at(40, "n40"), at(41, "never committed"), {"a": StateVersion(40, None)})
    store.claim(at(40, "n40"))
    assert stored(admin) == (1, 1, 0)


def test_the_keys_of_a_partition_share_a_hash_slot_and_those_of_other_groups_are_others(server, admin, connect):
    for namespace in ("cluster/topic/one", "cluster/topic/two"):
        store = connect(server, namespace=namespace)
        for partition in (0, 1):
            start = replace(START, partition=partition)
            committed(store, 3, start=start)
            store.prepare(
                replace(start, offset=3, checkpoint="n3"), replace(start, offset=5, checkpoint="n5"), {"a": StateVersion(4, None)}
            )
    keys = admin.keys()
    homes = {key.rsplit(":", 1)[0] for key in keys}
    assert homes == {f"psalm:{{cluster/topic/{group}/{partition}}}" for group in ("one", "two") for partition in (0, 1)}
    assert len(keys) == 3 * len(homes)
    assert len({key_slot(key.encode()) for key in keys}) == len(homes)


def test_states_of_another_log_are_discarded_in_one_line(server, connect, caplog):
    store = connect(server)
    committed(store, 3, sessions="abc")
    store.claim(replace(START, generation=2))
    assert [r.getMessage() for r in caplog.records if "discarded 3 sessions" in r.getMessage()] != []
    caplog.clear()
    store.claim(replace(START, generation=3))
    assert caplog.records == []
