"""What every Store promises: whichever checkpoint the log turns out to have committed, its states are there."""

import pytest
from psalm_stream.stream.bus import Claim
from psalm_stream.stream.errors import Fenced, StoreLost
from psalm_stream.stream.store import MemoryStore, StateVersion

START = Claim(partition=0, offset=0, checkpoint=None, generation=1)


def at(offset, checkpoint, generation=1, partition=0):
    return Claim(partition, offset, checkpoint, generation)


def prepared(store, *steps, start=START):
    """Claim, then prepare and 'commit' each (following claim, states); returns the last claim."""
    store.claim(start)
    held = start
    for following, states in steps:
        store.prepare(held, following, states)
        held = following
    return held


def test_an_unknown_session_has_no_state(store_factory):
    store = store_factory()
    assert store.load(prepared(store), "a") is None


def test_a_committed_state_is_loaded_as_it_was_written(store_factory):
    store = store_factory()
    held = prepared(store, (at(3, "n1"), {"a": StateVersion(2, b"\x00state")}))
    assert store.load(held, "a") == b"\x00state"


def test_a_prepared_state_is_not_yet_the_true_one(store_factory):
    store = store_factory()
    committed = prepared(store, (at(3, "n1"), {"a": StateVersion(2, b"true")}))
    store.prepare(committed, at(6, "n2"), {"a": StateVersion(5, b"prepared")})
    assert store.load(committed, "a") == b"true"
    assert store.load(at(6, "n2"), "a") == b"prepared"


def test_a_state_whose_commit_did_not_happen_is_dropped_by_the_heir(store_factory):
    store = store_factory()
    committed = prepared(store, (at(3, "n1"), {"a": StateVersion(2, b"true")}))
    store.prepare(committed, at(6, "n2"), {"a": StateVersion(5, b"never committed")})
    heir = at(3, "n1", generation=2)
    store.claim(heir)
    assert store.load(heir, "a") == b"true"


def test_a_state_whose_commit_happened_unnoticed_is_true_for_the_heir(store_factory):
    store = store_factory()
    committed = prepared(store, (at(3, "n1"), {"a": StateVersion(2, b"before")}))
    store.prepare(committed, at(6, "n2"), {"a": StateVersion(5, b"after")})
    heir = at(6, "n2", generation=2)
    store.claim(heir)
    assert store.load(heir, "a") == b"after"


def test_an_heir_may_cut_its_turn_shorter_than_its_predecessor_did(store_factory):
    store = store_factory()
    committed = prepared(store, (at(3, "n1"), {"a": StateVersion(2, b"true")}))
    store.prepare(committed, at(9, "n2"), {"a": StateVersion(8, b"long turn")})
    heir = at(3, "n1", generation=2)
    store.claim(heir)
    store.prepare(heir, at(5, "n3", generation=2), {"a": StateVersion(4, b"short turn")})
    assert store.load(at(5, "n3", generation=2), "a") == b"short turn"


def test_a_turn_prepared_again_replaces_what_was_prepared_before(store_factory):
    store = store_factory()
    committed = prepared(store, (at(3, "n1"), {"a": StateVersion(2, b"true")}))
    store.prepare(committed, at(9, "n2"), {"a": StateVersion(8, b"first try"), "b": StateVersion(7, b"first try")})
    store.prepare(committed, at(5, "n3"), {"a": StateVersion(4, b"second try")})
    heir = at(5, "n3", generation=2)
    store.claim(heir)
    assert store.load(heir, "a") == b"second try"
    assert store.load(heir, "b") is None


def test_sessions_that_did_not_change_keep_their_state(store_factory):
    store = store_factory()
    held = prepared(store, (at(2, "n1"), {"a": StateVersion(1, b"idle")}), (at(9, "n2"), {"b": StateVersion(8, b"busy")}))
    heir = at(9, held.checkpoint, generation=2)
    store.claim(heir)
    assert store.load(heir, "a") == b"idle"


def test_an_ended_session_is_forgotten_once_its_end_is_committed(store_factory):
    store = store_factory()
    held = prepared(store, (at(2, "n1"), {"a": StateVersion(1, b"alive")}), (at(4, "n2"), {"a": StateVersion(3, None)}))
    assert store.load(held, "a") is None


def test_an_end_that_was_not_committed_leaves_the_session_alive(store_factory):
    store = store_factory()
    committed = prepared(store, (at(2, "n1"), {"a": StateVersion(1, b"alive")}))
    store.prepare(committed, at(4, "n2"), {"a": StateVersion(3, None)})
    heir = at(2, "n1", generation=2)
    store.claim(heir)
    assert store.load(heir, "a") == b"alive"


def test_partitions_do_not_know_of_each_other(store_factory):
    store = store_factory()
    first = prepared(store, (at(3, "n1"), {"a": StateVersion(2, b"of 0")}))
    second = prepared(store, (at(3, "m1", partition=1), {"a": StateVersion(2, b"of 1")}), start=at(0, None, partition=1))
    assert (store.load(first, "a"), store.load(second, "a")) == (b"of 0", b"of 1")


@pytest.mark.parametrize("act", ["load", "prepare"])
def test_a_member_with_an_heir_is_fenced(store_factory, act):
    store = store_factory()
    zombie = prepared(store, (at(3, "n1"), {"a": StateVersion(2, b"true")}))
    store.claim(at(3, "n1", generation=2))
    with pytest.raises(Fenced, match="generation 1"):
        store.load(zombie, "a") if act == "load" else store.prepare(zombie, at(6, "n2"), {"a": StateVersion(5, b"zombie")})
    assert store.load(at(3, "n1", generation=2), "a") == b"true"


def test_a_claim_of_a_restarted_group_is_honoured_though_its_generation_is_smaller(store_factory):
    store = store_factory()
    prepared(store, (at(3, "n1", generation=7), {"a": StateVersion(2, b"true")}), start=at(0, None, generation=7))
    restarted = at(3, "n1", generation=1)
    store.claim(restarted)
    store.prepare(restarted, at(5, "n2"), {"a": StateVersion(4, b"new")})
    assert store.load(at(5, "n2"), "a") == b"new"


def test_a_log_without_any_commit_starts_without_states(store_factory):
    store = store_factory()
    prepared(store, (at(3, "n1"), {"a": StateVersion(2, b"of another log")}))
    fresh = at(0, None, generation=2)
    store.claim(fresh)
    assert store.load(fresh, "a") is None


@pytest.mark.parametrize("act", ["claim", "load", "prepare"])
def test_an_emptied_store_says_that_it_lost_the_checkpoint(store_factory, act):
    claim = at(3, "n1")
    store = store_factory()
    calls = {
        "claim": lambda: store.claim(claim),
        "load": lambda: store.load(claim, "a"),
        "prepare": lambda: store.prepare(claim, at(5, "n2"), {}),
    }
    with pytest.raises(StoreLost, match="n1"):
        calls[act]()


def test_a_store_that_was_rolled_back_says_that_it_lost_the_checkpoint(store_factory):
    store = store_factory()
    prepared(store, (at(3, "n1"), {"a": StateVersion(2, b"old")}), (at(5, "n2"), {"a": StateVersion(4, b"old")}))
    with pytest.raises(StoreLost, match=r"n3.*n1 and n2"):
        store.claim(at(7, "n3", generation=2))


def test_a_memory_store_keeps_at_most_two_versions_of_a_session_and_none_of_an_ended_one():
    store = MemoryStore()
    steps = [(at(n, f"n{n}"), {"a": StateVersion(n - 1, b"state"), f"once{n}": StateVersion(n - 1, None)}) for n in range(1, 40)]
    prepared(store, *steps)
    kept = store._partitions[0].versions
    assert {session: len(versions) for session, versions in kept.items()} == {"a": 2, "once39": 1}
