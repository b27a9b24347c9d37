"""Which object frames count, and how they are averaged: a take scored by hand, by the rules of the official code."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from egoexo_takes import EGO, EXO, TALL, cup_take, predicted, stored
from psalm_stream.eval.egoexo.data import Take
from psalm_stream.eval.egoexo.score import by_take, figures, mean_of_takes, rows, score, score_take, undecodable
from psalm_stream.stream import rle
from psalm_stream.stream.coco import rle_json

PAIR = f"{EGO}_{EXO}"
BOX, MOVED = ((100, 150), (200, 280)), ((100, 150), (210, 290))


def answers(frames):
    """A take's part of a prediction file: answers about the cup by frame."""
    return {"masks": {"cup_0": {PAIR: {str(frame): answer for frame, answer in frames.items()}}, "knife_1": {}}, "subsample_idx": []}


MOVED_AND_EMPTY = answers({0: predicted(EXO, *MOVED, 0.8), 30: predicted(EXO, None, None, 0.3), 60: predicted(EXO, *BOX, 0.9)})


def test_counted_are_frames_with_a_query_mask_on_which_somebody_looked_in_the_target():
    scored = list(score_take(cup_take(), MOVED_AND_EMPTY, "ego-exo"))
    assert [s.frame for s in scored] == [0, 30]  # 60: nobody looked in the target; 90: no query mask


def test_a_frame_without_a_true_mask_counts_for_existence_alone():
    take = cup_take()
    take = replace(take, annotated={**take.annotated, "cup_0": {EXO: frozenset({0, 60})}})
    there, absent = score_take(take, MOVED_AND_EMPTY, "ego-exo")
    assert (there.exists, absent.exists, absent.frame) == (True, False, 60)
    assert all(math.isnan(v) for v in (absent.iou, absent.ca, absent.le, absent.ca_registered, absent.le_centroid))
    assert figures([there, absent]).visible == 1


def test_the_official_values_come_out_of_full_size_truth_and_answers_at_scoring_size():
    """The two exo vectors recorded from the official code, through files of full size."""
    moved, empty = score_take(cup_take(), MOVED_AND_EMPTY, "ego-exo")
    assert (moved.iou, moved.ca, moved.le) == pytest.approx((0.777778, 0.623077, 0.014731), abs=1e-6)
    assert (empty.iou, empty.ca, empty.le) == pytest.approx((0, 0, 0.229507), abs=1e-6)
    assert (moved.ca_registered, moved.le_centroid) == pytest.approx((1, 10 / math.hypot(270, 480)), abs=1e-9)


def test_the_other_direction_is_scored_at_the_size_of_the_worn_camera():
    square = ((100, 200), (100, 200))
    masks = {"cup_0": {f"{EXO}_{EGO}": {str(f): predicted(EGO, (100, 200), (110, 210), 0.6) for f in (0, 30)}}, "knife_1": {}}
    first, _ = score_take(cup_take(), {"masks": masks}, "exo-ego")
    assert stored(EGO, *square)["size"] == [1408, 1408]
    assert (first.iou, first.ca, first.le) == pytest.approx((0.818182, 0.515000, 0.014731), abs=1e-6)


def test_a_true_mask_that_cannot_be_decoded_is_not_counted_and_said():
    take = cup_take()
    spoilt = {**take.masks, "cup_0": {EGO: take.masks["cup_0"][EGO], EXO: {0: None, 30: take.masks["cup_0"][EXO][30]}}}
    take = replace(take, masks=spoilt)
    assert [s.frame for s in score_take(take, MOVED_AND_EMPTY, "ego-exo")] == [30]
    assert undecodable(take, "ego-exo") == 1
    assert undecodable(cup_take(), "ego-exo") == 0


def test_a_query_mask_that_cannot_be_decoded_leaves_its_frame_to_be_scored():
    take = cup_take()
    spoilt = {**take.masks, "cup_0": {EGO: {0: None, 30: None}, EXO: take.masks["cup_0"][EXO]}}
    assert [s.frame for s in score_take(replace(take, masks=spoilt), MOVED_AND_EMPTY, "ego-exo")] == [0, 30]


def test_a_true_mask_that_vanishes_at_scoring_size_is_met_by_an_empty_answer():
    thin = Take("t", {"cup_0": {EGO: {0: stored(EGO, (0, 9), (0, 9))}, TALL: {0: thin_mask()}}}, (), {"cup_0": {TALL: frozenset({0})}})
    empty = {"masks": {"cup_0": {f"{EGO}_{TALL}": {"0": predicted(TALL, None, None, 0.9)}}}}
    (found,) = score_take(thin, empty, "ego-exo")
    assert (found.exists, found.iou, found.ca, found.le) == (True, 1, 1, 0)


def thin_mask():
    """One pixel that no pixel of scoring size looks at."""
    mask = np.zeros((3000, 4000), bool)
    mask[1, 1] = True
    return rle_json(rle.encode(mask))


def test_every_object_frame_weighs_the_same_and_every_take_does_beside_it():
    long, short = cup_take("long"), cup_take("short")
    perfect = answers({f: predicted(EXO, *BOX, 0.9) for f in (0, 30, 60)})
    short = replace(short, annotated={"cup_0": {EXO: frozenset({0})}})
    scored = score([long, short], {"long": MOVED_AND_EMPTY, "short": perfect}, "ego-exo", lambda: None)
    pooled, takes = figures(scored), by_take(scored)
    assert pooled.iou == pytest.approx((7 / 9 + 0 + 1) / 3, abs=1e-6)
    assert mean_of_takes(list(takes.values())).iou == pytest.approx((7 / 18 + 1) / 2, abs=1e-6)
    assert (pooled.frames, takes["long"].frames, takes["short"].frames) == (3, 2, 1)


def test_existence_is_judged_by_confidence_alone_whatever_the_mask():
    take = cup_take()
    take = replace(take, annotated={"cup_0": {EXO: frozenset({0, 30, 60})}})
    scored = list(score_take(take, MOVED_AND_EMPTY, "ego-exo"))  # there: 0.8, 0.3; not there, a mask all the same: 0.9
    found = figures(scored)
    assert (found.ba, found.existence) == pytest.approx((0.25, 1 / 3))


def test_nothing_to_measure_is_not_a_number_and_stays_out_of_the_mean_of_takes():
    take = replace(cup_take(), annotated={"cup_0": {EXO: frozenset({60})}})
    nothing = figures(list(score_take(take, MOVED_AND_EMPTY, "ego-exo")))
    assert math.isnan(nothing.iou)
    assert nothing.ba == 0
    good = figures(list(score_take(cup_take(), MOVED_AND_EMPTY, "ego-exo")))
    assert mean_of_takes([nothing, good]).iou == good.iou
    assert math.isnan(figures([]).ba)


def test_the_lines_of_the_table_have_their_names_first():
    header, first, _ = rows(list(score_take(cup_take(), MOVED_AND_EMPTY, "ego-exo")))
    assert header[:6] == ("take", "name", "query", "target", "frame", "exists")
    assert first[:6] == ("take-1", "cup_0", EGO, EXO, 0, True)
