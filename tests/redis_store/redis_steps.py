"""What the tests of the Redis store do again and again."""

import time
from dataclasses import replace

from psalm_stream.stream.bus import Claim
from psalm_stream.stream.store import StateVersion

START = Claim(partition=0, offset=0, checkpoint=None, generation=1)


def at(offset, checkpoint, generation=1):
    return Claim(0, offset, checkpoint, generation)


def version(offset):
    """The state after the record before an offset."""
    return StateVersion(offset - 1, b"state %d" % offset)


def committed(store, *offsets, sessions="a", start=START):
    """Claim, then prepare and 'commit' a turn up to each offset; returns the last claim."""
    store.claim(start)
    held = start
    for offset in offsets:
        following = replace(held, offset=offset, checkpoint=f"n{offset}")
        store.prepare(held, following, {session: version(offset) for session in sessions})
        held = following
    return held


def wait_until_written(admin, timeout_s=10):
    """Until every acknowledged write is in the append-only file: Redis keeps them back for up to 2 s while an earlier sync is under way."""
    deadline = time.monotonic() + timeout_s
    while admin.info("persistence")["aof_buffer_length"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def stored(admin):
    """(number of entries of the index that are sessions, number of states, sessions that wait for their end) of partition 0."""
    index, states, ended = (f"psalm:{{cluster/topic/group/0}}:{key}" for key in ("index", "states", "ended"))
    return sum(field.startswith(":") for field in admin.hkeys(index)), admin.hlen(states), admin.scard(ended)
