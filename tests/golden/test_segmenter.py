"""`segment` and `look`, as the service and picture tasks call them: requests made of golden pictures give what is recorded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from inputs import RADII, condition_of, is_fragile
from psalm_stream.eval.pictures.referring_files import Question
from psalm_stream.eval.pictures.referring_metrics import overlap, score
from psalm_stream.eval.pictures.referring_scores import score_answers
from psalm_stream.psalm import weights
from psalm_stream.psalm.findings import Findings
from psalm_stream.psalm.postprocess import PANOPTIC_SCORE
from psalm_stream.psalm.regions import points_from_indices
from psalm_stream.psalm.segmenter import Segmenter
from psalm_stream.psalm.visual_prompts import grow
from psalm_stream.stream.coco import rle_json
from psalm_stream.stream.rle import encode
from psalm_stream.stream.types import Frame, FrameKey, Proposals, Region, Regions, Request
from results import in_order_of
from torch import Tensor
from walk import FRAGILE, GOLDEN, SCORE, Case, case_names, few, load_case, sizes, unpack

TASKS = {name: str(load_case(name).told.get("task")) for name in case_names()}
CATEGORIES = [name for name, task in TASKS.items() if task in ("panoptic", "instance")]
MAPS = [name for name, task in TASKS.items() if task in ("panoptic", "semantic")]
SENTENCES = [name for name, task in TASKS.items() if task == "referring"]
REGIONS = [name for name, task in TASKS.items() if task == "region" and "in.prompt_masks_original" in load_case(name).tensors]
PAIRS = [name for name, task in TASKS.items() if task.startswith("egoexo")]
BATCH_TOLERANCE = 1e-5


def frame_of(name: str, size_hw: tuple[int, int]) -> Frame:
    return Frame(FrameKey("golden", name, 0), 0, False, tuple(size_hw), (GOLDEN / name).read_bytes())


def request_of(case: Case) -> Request:
    """What a case of one image asks."""
    frame = frame_of(case.told["images"][0], (case.told["height"][0], case.told["width"][0]))
    if case.told["task"] != "region":
        return Request(frame, condition_of(case.told))
    radius = RADII.get(case.told["region_type"])
    masks = [grow(mask, radius) if radius else mask for mask in case.bits("in.prompt_masks_original").numpy()]
    return Request(frame, Regions(tuple(Region(n, frame, mask) for n, mask in enumerate(masks, start=1))))


def pair_request(case: Case, sample: int) -> Request:
    """What one sample of a case of two views asks."""
    told = case.told["samples"][sample]
    masks = {i: case.bits(f"s{sample}.vp_mask_original.{i}").numpy() for i in told["ids"]}
    other = frame_of(told["vp_image"], next(iter(masks.values())).shape)
    regions = tuple(Region(i, other, mask) for i, mask in masks.items())
    return Request(frame_of(told["image"], (told["height"], told["width"])), Regions(regions))


def answer(segmenter: Segmenter, request: Request, points: Tensor | None = None) -> Proposals:
    """One answer of a fresh Segmenter; points: [K, P, 2], where its regions are pooled; None: at every mask pixel."""
    left = iter(() if points is None else points)
    pooled_at = None if points is None else lambda masks, seed: next(left)[None]
    return Segmenter(segmenter.network, segmenter.tokenizer, segmenter.digest, pooled_at).segment([request])[0]


def recorded_points(case: Case) -> Tensor:
    return points_from_indices(case.bits("in.region_masks.0"), case.tensors["rng.region_point_index"])


def moves(case: Case) -> bool:
    """Whether another order of summation may move the results of a case of one image."""
    return is_fragile(case.told, case.told.get("attn_mask_margin", []))


def assert_scores(found: np.ndarray, case: Case) -> None:
    recorded = case.tensors["out.scores"]
    assert found.shape == recorded.shape
    assert np.abs(found - recorded.numpy()).max() <= (FRAGILE if moves(case) else SCORE) * recorded.abs().max()


def assert_masks(found: np.ndarray, case: Case) -> None:
    recorded = unpack(case.tensors["out.masks_packed"], case.told["out_masks_shape"]).numpy()
    assert found.shape == recorded.shape
    assert (found != recorded).sum() <= few(found.size, loose=moves(case))


def assert_same_pixels(found: Tensor, recorded: Tensor, case: Case) -> None:
    assert found.shape == recorded.shape
    assert (found != recorded).sum() <= few(found.numel(), loose=moves(case))


def holds(claim: Callable[..., None], *arguments: object) -> bool:
    """Whether an assertion passes."""
    try:
        claim(*arguments)
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize(
    ("told", "pixels", "score", "fits"),
    [
        ({"fragile": False, "attn_mask_margin": [1e-2, 6e-5]}, 1, 0.5, True),
        ({"fragile": False, "attn_mask_margin": [1e-2, 6e-5]}, 40, 0.505, False),
        ({"fragile": True}, 40, 0.505, True),
        ({"attn_mask_margin": [1e-2, 4e-5]}, 40, 0.505, True),
        ({"fragile": True}, 60, 0.52, False),
    ],
)
def test_a_fragile_case_may_be_off_by_more_and_no_other(told: dict, pixels: int, score: float, fits: bool) -> None:
    recorded = {"out.scores": torch.tensor([0.5]), "out.masks_packed": torch.zeros(1250, dtype=torch.uint8)}
    case = Case("panoptic_x", {"out_masks_shape": [1, 100, 100], **told}, recorded)
    found = torch.zeros(1, 100, 100, dtype=torch.bool)
    found.view(-1)[:pixels] = True
    assert holds(assert_scores, np.array([score], np.float32), case) == fits
    assert holds(assert_masks, found.numpy(), case) == fits
    assert holds(assert_same_pixels, found, torch.zeros_like(found), case) == fits


@pytest.mark.parametrize("name", CATEGORIES)
def test_categories_asked_of_the_service_score_as_recorded(name: str, segmenter: Segmenter) -> None:
    case = load_case(name)
    proposals = answer(segmenter, request_of(case))
    pairs = case.tensors["out.topk_flat_index_before_thing_filter"]
    categories = len(proposals.scores)
    if TASKS[name] == "panoptic":
        pairs = pairs[torch.tensor(case.told["is_thing"]).bool()[pairs % categories]]
    assert_scores(proposals.scores[pairs % categories, pairs // categories], case)
    assert_masks(proposals.masks((pairs // categories).tolist()), case)


@pytest.mark.parametrize("name", SENTENCES)
def test_sentences_asked_of_the_service_score_as_recorded(name: str, segmenter: Segmenter) -> None:
    case = load_case(name)
    proposals = answer(segmenter, request_of(case))
    order = in_order_of(torch.arange(proposals.scores.shape[1]), case.tensors["out.topk_query_index"])
    assert_scores(proposals.scores[0][order], case)
    assert_masks(proposals.masks(order.tolist()), case)


def looked(segmenter: Segmenter, case: Case) -> Findings:
    """What a fresh Segmenter finds."""
    return Segmenter(segmenter.network, segmenter.tokenizer, segmenter.digest).look([request_of(case)])[0]


@pytest.mark.parametrize("name", [name for name in CATEGORIES if TASKS[name] == "panoptic"])
def test_categories_looked_for_part_the_picture_as_recorded(name: str, segmenter: Segmenter) -> None:
    case = load_case(name)
    found = looked(segmenter, case).panoptic([bool(thing) for thing in case.told["is_thing"]])
    assert_same_pixels(found.ids, case.tensors["out.panoptic_seg"], case)
    segments = [{"id": s.id, "isthing": s.is_thing, "category_id": s.label} for s in found.segments]
    assert segments == case.told["segments_info"]
    assert all(PANOPTIC_SCORE < s.score <= 1 for s in found.segments)


@pytest.mark.parametrize("name", MAPS)
def test_categories_looked_for_give_every_pixel_the_recorded_one(name: str, segmenter: Segmenter) -> None:
    case = load_case(name)
    numbers = looked(segmenter, case).semantic("source" if TASKS[name] == "panoptic" else "padded")
    assert_same_pixels(numbers, case.tensors["out.sem_seg_argmax"].long(), case)


@pytest.mark.parametrize("name", CATEGORIES)
def test_categories_looked_for_give_the_recorded_instances(name: str, segmenter: Segmenter) -> None:
    case = load_case(name)
    things = [bool(thing) for thing in case.told["is_thing"]] if TASKS[name] == "panoptic" else None
    found, pairs = looked(segmenter, case).instances(things), case.tensors["out.topk_flat_index_before_thing_filter"]
    order = in_order_of(found.queries * len(case.told["is_thing"]) + found.labels, pairs)
    assert_scores(found.scores[order].numpy(), case)
    assert_masks(found.masks[order].numpy(), case)


@pytest.mark.parametrize("name", SENTENCES)
def test_a_sentence_looked_for_generally_means_the_recorded_pixels(name: str, segmenter: Segmenter) -> None:
    case = load_case(name)
    recorded = unpack(case.tensors["out.gref_0.6.pred_packed"], case.told["out_masks_shape"][1:])
    assert_same_pixels(looked(segmenter, case).referred("official"), recorded, case)


@pytest.mark.parametrize("name", SENTENCES)
def test_a_sentence_is_scored_as_recorded(name: str) -> None:
    case = load_case(name)
    truth = unpack(case.tensors["out.gt_mask_packed"], case.told["out_masks_shape"][1:]).numpy()
    for answered, metric in (("out.top1.pred_packed", "metric_top1"), ("out.gref_0.6.pred_packed", "metric_gref_0.6")):
        figures = overlap(truth, unpack(case.tensors[answered], truth.shape).numpy())
        assert [figures.shared, figures.either] == [case.told[metric][part][1] for part in ("intersection", "union")]
        assert score([figures]).giou == pytest.approx(case.told[metric]["iou"][1], abs=1e-7)  # recorded in float32


@pytest.mark.parametrize("name", [name for name in REGIONS if "gt_polygons" in load_case(name).told])
def test_regions_are_scored_as_recorded_against_the_official_truth(name: str) -> None:
    case = load_case(name)
    masks = unpack(case.tensors["out.masks_packed"], case.told["out_masks_shape"]).numpy()[case.tensors["out.pick"].numpy()]
    questions = [Question(str(k), "", masks.shape[1:], segmentations=(p,)) for k, p in enumerate(case.told["gt_polygons"])]
    answers = {str(k): rle_json(encode(mask.astype(bool))) for k, mask in enumerate(masks)}
    found, metric = score_answers(questions, answers, side=sizes()["image_size"]).official, case.told["metric"]
    assert found.ciou == metric["intersection"][1] / metric["union"][1]
    assert found.giou == pytest.approx(metric["giou"][1], abs=1e-7)


@pytest.mark.parametrize("name", REGIONS)
def test_regions_asked_of_the_service_score_as_recorded_when_pooled_at_the_recorded_points(name: str, segmenter: Segmenter) -> None:
    case = load_case(name)
    proposals = answer(segmenter, request_of(case), recorded_points(case))
    assert_scores(proposals.scores.T, case)
    assert_masks(proposals.masks(range(proposals.scores.shape[1])), case)


def test_regions_pooled_at_seeded_points_score_the_same_twice_and_otherwise_than_by_their_mean(
    checkpoint_folder: Path, segmenter: Segmenter
) -> None:
    request = request_of(load_case(REGIONS[0]))
    sampled = [weights.load(checkpoint_folder, sampled_regions=True).segment([request])[0].scores for _ in range(2)]
    assert np.array_equal(*sampled)
    assert not np.array_equal(sampled[0], answer(segmenter, request).scores)


def every_request() -> list[tuple[Request, float]]:
    """All requests of the folder, with what their scores may differ by when another order of summation answers them."""
    asked = [(request_of(load_case(name)), load_case(name).told) for name in (*CATEGORIES, *SENTENCES, *REGIONS)]
    for case in map(load_case, PAIRS):
        asked += [(pair_request(case, n), sample) for n, sample in enumerate(case.told["samples"])]
    return [(request, FRAGILE if is_fragile(told, told["attn_mask_margin"]) else BATCH_TOLERANCE) for request, told in asked]


def test_a_batch_of_mixed_requests_is_answered_as_each_request_alone(golden: Path, segmenter: Segmenter) -> None:
    asked = every_request()
    assert len({len(r.condition.regions) for r, _ in asked if isinstance(r.condition, Regions)}) > 1
    together = Segmenter(segmenter.network, segmenter.tokenizer, segmenter.digest).segment([request for request, _ in asked])
    for (request, tolerance), batched in zip(asked, together, strict=True):
        alone = answer(segmenter, request)
        queries = range(alone.scores.shape[1])
        differing = (batched.masks(queries) != alone.masks(queries)).sum((1, 2))
        assert differing.sum() <= few(len(queries) * np.prod(request.frame.size_hw), loose=tolerance == FRAGILE)
        allowed = np.where(differing > 0, max(SCORE, tolerance), tolerance)  # a pixel more or less shows in the score of a small mask
        assert (np.abs(batched.scores - alone.scores) <= allowed).all()
