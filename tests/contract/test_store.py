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
    later = at(9, "n3", generation=2)
    store.prepare(heir, later, {"b": StateVersion(8, b"busy")})
    store.claim(later)
    assert store.load(later, "a") == b"true"


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


def test_what_the_second_try_left_out_does_not_come_back_with_a_later_turn(store_factory):
    store = store_factory()
    committed = prepared(store, (at(3, "n1"), {"a": StateVersion(2, b"true"), "b": StateVersion(1, b"true")}))
    store.prepare(committed, at(9, "n2"), {session: StateVersion(7, b"first try") for session in "abc"})
    store.prepare(committed, at(5, "n3"), {"a": StateVersion(4, b"second try")})
    later = at(9, "n4")
    store.prepare(at(5, "n3"), later, {"d": StateVersion(8, b"later")})
    store.claim(later)
    assert [store.load(later, session) for session in "abcd"] == [b"second try", b"true", None, b"later"]


@pytest.mark.parametrize("happened", ["committed", "not committed"])
def test_a_prepare_repeated_because_its_answer_was_lost_does_no_harm(store_factory, happened):
    store = store_factory()
    committed = prepared(
        store,
        (at(2, "n1"), {"a": StateVersion(1, b"old"), "ending": StateVersion(0, b"alive"), "idle": StateVersion(0, b"idle")}),
        (at(4, "n2"), {"a": StateVersion(3, b"true"), "idle": StateVersion(2, b"still")}),
    )
    turn = {"a": StateVersion(5, b"next"), "ending": StateVersion(4, None), "new": StateVersion(6, b"new")}
    for _ in range(2):
        store.prepare(committed, at(7, "n3"), turn)
    heir = at(7, "n3", generation=2) if happened == "committed" else at(4, "n2", generation=2)
    store.claim(heir)
    found = [store.load(heir, session) for session in ("a", "ending", "idle", "new")]
    assert found == ([b"next", None, b"still", b"new"] if happened == "committed" else [b"true", b"alive", b"still", None])


def test_a_claim_repeated_does_no_harm(store_factory):
    store = store_factory()
    held = prepared(store, (at(3, "n1"), {"a": StateVersion(2, b"true")}))
    for _ in range(2):
        store.claim(held)
    assert store.load(held, "a") == b"true"


def test_sessions_that_did_not_change_keep_their_state(store_factory):
    store = store_factory()
    held = prepared(store, (at(2, "n1"), {"a": StateVersion(1, b"idle")}), (at(9, "n2"), {"b": StateVersion(8, b"busy")}))
    heir = at(9, held.checkpoint, generation=2)
    store.claim(heir)
    assert store.load(heir, "a") == b"idle"


def test_an_idle_session_with_two_versions_keeps_the_later_through_other_turns(store_factory):
    store = store_factory()
    held = prepared(
        store,
        (at(2, "n1"), {"a": StateVersion(1, b"older")}),
        (at(4, "n2"), {"a": StateVersion(3, b"idle")}),
        (at(6, "n3"), {"b": StateVersion(5, b"busy")}),
        (at(8, "n4"), {"b": StateVersion(7, b"busy")}),
    )
    store.prepare(held, at(9, "n5"), {"b": StateVersion(8, b"never committed")})
    assert store.load(held, "a") == b"idle"
    heir = at(8, "n4", generation=2)
    store.claim(heir)
    assert [store.load(heir, session) for session in "ab"] == [b"idle", b"busy"]


def test_a_turn_without_a_change_moves_the_checkpoint_on(store_factory):
    store = store_factory()
    held = prepared(store, (at(2, "n1"), {"a": StateVersion(1, b"idle")}), (at(4, "n2"), {}), (at(6, "n3"), {}))
    assert store.load(held, "a") == b"idle"
    with pytest.raises(StoreLost):
        store.claim(at(2, "n1", generation=2))


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


@pytest.mark.parametrize("happened", ["committed", "not committed"])
def test_a_session_that_ended_can_begin_anew(store_factory, happened):
    store = store_factory()
    ended = prepared(store, (at(2, "n1"), {"a": StateVersion(1, b"first life")}), (at(4, "n2"), {"a": StateVersion(3, None)}))
    store.prepare(ended, at(6, "n3"), {"a": StateVersion(5, b"second life")})
    heir = at(6, "n3", generation=2) if happened == "committed" else at(4, "n2", generation=2)
    store.claim(heir)
    assert store.load(heir, "a") == (b"second life" if happened == "committed" else None)


@pytest.mark.parametrize("session", ["", " ", "12 a", ":a", "a:b{c}", "a\nb", "базар", "base", "x" * 2000])
def test_any_text_names_a_session(store_factory, session):
    store = store_factory()
    held = prepared(store, (at(2, "n1"), {session: StateVersion(1, b"odd"), "a": StateVersion(0, b"plain")}))
    store.claim(held)
    assert [store.load(held, name) for name in (session, "a", "b")] == [b"odd", b"plain", None]


def test_offsets_and_generations_up_to_2_to_the_53_are_told_apart(store_factory):
    store = store_factory()
    end = 2**53 - 1
    old = at(end - 2, "n1", generation=end - 1)
    store.restore(old, {"a": StateVersion(end - 3, b"true")})
    store.prepare(old, at(end, "n2", generation=end - 1), {"a": StateVersion(end - 1, b"prepared")})
    assert [store.load(at(offset, "n2", generation=end - 1), "a") for offset in (end - 1, end)] == [b"true", b"prepared"]
    store.claim(at(end, "n2", generation=end))
    with pytest.raises(Fenced, match=str(end)):
        store.load(at(end, "n2", generation=end - 1), "a")


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


def test_a_member_whose_heir_has_gone_on_is_fenced_and_not_told_of_a_loss(store_factory):
    store = store_factory()
    zombie = prepared(store, (at(3, "n1"), {"a": StateVersion(2, b"true")}))
    held = at(3, "n1", generation=2)
    store.claim(held)
    for following in (at(5, "n2", generation=2), at(7, "n3", generation=2)):
        store.prepare(held, following, {"a": StateVersion(following.offset - 1, b"of the heir")})
        held = following
    for act in (lambda: store.load(zombie, "a"), lambda: store.prepare(zombie, at(6, "z"), {"a": StateVersion(5, b"zombie")})):
        with pytest.raises(Fenced):
            act()
    assert store.load(held, "a") == b"of the heir"


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


@pytest.mark.parametrize("act", ["load", "prepare"])
def test_a_partition_that_nobody_claimed_is_lost_even_when_nothing_was_committed(store_factory, act):
    store = store_factory()
    with pytest.raises(StoreLost, match="nothing"):
        store.load(START, "a") if act == "load" else store.prepare(START, at(2, "n1"), {"a": StateVersion(1, b"new")})


def test_a_refused_prepare_changes_nothing(store_factory):
    store = store_factory()
    held = prepared(store, (at(3, "n1"), {"a": StateVersion(2, b"true")}))
    with pytest.raises(StoreLost):
        store.prepare(at(3, "other"), at(9, "n2"), {"a": StateVersion(5, b"of another log"), "b": StateVersion(6, b"of another log")})
    assert [store.load(at(9, "n1"), session) for session in "ab"] == [b"true", None]
    store.claim(held)


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


# -- after a rebuild ---------------------------------------------------------------------------------------------------


def test_restored_states_are_true_at_their_claim_and_prepared_upon(store_factory):
    store = store_factory()
    rebuilt = at(7, "n3", generation=2)
    store.restore(rebuilt, {"a": StateVersion(6, b"rebuilt"), "b": StateVersion(1, b"rebuilt")})
    store.prepare(rebuilt, at(9, "n4", generation=2), {"a": StateVersion(8, b"next")})
    assert [store.load(rebuilt, session) for session in "ab"] == [b"rebuilt", b"rebuilt"]
    heir = at(9, "n4", generation=3)
    store.claim(heir)
    assert [store.load(heir, session) for session in "ab"] == [b"next", b"rebuilt"]


def test_restored_states_replace_everything_kept_for_the_partition_and_no_other(store_factory):
    store = store_factory()
    other = prepared(store, (at(3, "m1", partition=1), {"a": StateVersion(2, b"of 1")}), start=at(0, None, partition=1))
    held = prepared(store, (at(3, "n1"), {"a": StateVersion(2, b"old"), "gone": StateVersion(1, b"old")}))
    store.prepare(held, at(5, "n2"), {"b": StateVersion(4, b"prepared"), "gone": StateVersion(3, None)})
    rebuilt = at(9, "n7", generation=2)
    store.restore(rebuilt, {"a": StateVersion(8, b"rebuilt")})
    assert [store.load(rebuilt, session) for session in ("a", "b", "gone")] == [b"rebuilt", None, None]
    assert store.load(other, "a") == b"of 1"
    with pytest.raises(StoreLost, match=r"n1.*n7"):
        store.claim(at(3, "n1", generation=3))


def test_restored_states_are_only_those_that_are_true(store_factory):
    store = store_factory()
    rebuilt = at(5, "n2")
    store.restore(rebuilt, {"ended": StateVersion(3, None), "ahead": StateVersion(5, b"of a later record"), "a": StateVersion(4, b"true")})
    later = at(9, "n3")
    store.prepare(rebuilt, later, {})
    assert [store.load(later, session) for session in ("ended", "ahead", "a")] == [None, None, b"true"]


@pytest.mark.parametrize("generation", [1, 3])
def test_who_restores_holds_the_partition_whatever_its_generation(store_factory, generation):
    store = store_factory()
    prepared(store, (at(3, "n1", generation=2), {"a": StateVersion(2, b"old")}), start=at(0, None, generation=2))
    rebuilt = at(7, "n3", generation=generation)
    store.restore(rebuilt, {"a": StateVersion(6, b"rebuilt")})
    assert store.load(rebuilt, "a") == b"rebuilt"
    with pytest.raises(Fenced, match=f"generation {generation}"):
        store.load(at(7, "n3", generation=generation - 1), "a")
