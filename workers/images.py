"""`psalm-stream segment` without its screen: pictures through the model, one by one, into a folder of results.

A picture is asked as a frame is, by a Request; what becomes of the findings is decided here by the way it was asked: categories (panoptic,
semantic and instance results), sentences, or drawn shapes. The files are picture_files.py's; flags, bar and messages cli/images.py's.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from ..psalm.interactive import pick_shapes
from ..psalm.visual_prompts import rasterize
from ..stream import rle
from ..stream.errors import BadPrompt, SourceFailed, Undecodable
from ..stream.pictures import displayed_size
from ..stream.sources import PICTURE_SUFFIXES, natural_order
from ..stream.types import (
    MAX_OBJECT_ID,
    Categories,
    Frame,
    FrameKey,
    FrameStatus,
    MaskFrame,
    ObjectMask,
    ObjectStatus,
    Region,
    Regions,
    Request,
    Sentence,
)
from .naming import Naming
from .prompt_flags import Flag, check
from .settings import Settings

if TYPE_CHECKING:
    from ..psalm.findings import Findings
    from ..psalm.postprocess import InstanceResult

SESSION = "segment"
SHOWN_SCORE = 0.5  # of the instance task's many pairs, those painted and put into masks/; instances.json has them all

Task = Literal["panoptic", "instance", "semantic"]


class Looker(Protocol):
    """A model that says all it sees. digest: names the weights."""

    digest: str

    def look(self, requests: Sequence[Request]) -> list[Findings]:
        """One Findings a request, in order."""


@dataclass(frozen=True, slots=True)
class ImageJob:
    """What to segment, and how.

    images: the pictures in order; task: what is made of categories; generalized: a sentence may mean several objects or none.
    """

    images: tuple[Path, ...]
    naming: Naming
    out: Path
    settings: Settings
    task: Task = "panoptic"
    generalized: bool = False
    overlay: bool = True


@dataclass(frozen=True, slots=True)
class Segmented:
    """The answer to one picture.

    masks: an object each for a segment, sentence or shape; of categories also, as the task gives them: panoptic ids int32 [H, W] and the
    category number (from 0) of each id; semantic: category numbers int64 [H, W]; instances: see `psalm.postprocess.InstanceResult`.
    """

    path: Path
    frame: Frame
    masks: MaskFrame
    panoptic: np.ndarray | None = None
    labels: dict[int, int] = field(default_factory=dict)
    semantic: np.ndarray | None = None
    instances: InstanceResult | None = None


def pictures_of(paths: Sequence[Path]) -> tuple[Path, ...]:
    """The pictures that are named: files as they are, those directly in a folder in natural order.

    Raises SourceFailed for one that does not exist, a folder without any, and two whose results would have the same name.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise SourceFailed(f"picture {path} does not exist, expected a JPEG, a PNG or a folder of them; check the path")
        inside = [path] if not path.is_dir() else sorted((p for p in path.iterdir() if _is_picture(p)), key=natural_order)
        if not inside:
            raise SourceFailed(f"folder {path}: no picture directly in it, expected files in {', '.join(PICTURE_SUFFIXES)}")
        found += inside
    names: dict[str, Path] = {}
    for path in found:
        if (other := names.setdefault(path.stem, path)) is not path:
            raise SourceFailed(f"pictures {other} and {path} would both be called {path.stem}; segment them into two folders")
    return tuple(found)


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")


def refuse_misfits(job: ImageJob) -> None:
    """Look at every picture's header before anything is computed. Raises SourceFailed, and BadPrompt for a shape that does not fit its
    picture, a picture that no shape is drawn on, and a number that no picture has."""
    sizes = [read_picture(path, index).size_hw for index, path in enumerate(job.images)]
    if not job.naming.flags:
        return
    drawn = {flag.frame for flag in job.naming.flags}
    if beyond := [flag for flag in job.naming.flags if flag.frame >= len(sizes)]:
        raise BadPrompt(f"{beyond[0].said}: picture {beyond[0].frame} was not given, they are 0 to {len(sizes) - 1}; counting starts at 0")
    if bare := [index for index in range(len(sizes)) if index not in drawn]:
        raise BadPrompt(f"nothing is drawn on picture {bare[0]}, {job.images[bare[0]]}; draw on it, as in --box 1@{bare[0]}:10,20,200,240")
    for index, size_hw in enumerate(sizes):
        check(_on(job.naming, index), size_hw)


def read_picture(path: Path, index: int) -> Frame:
    """A picture file as a frame, its bytes untouched. Raises SourceFailed for what is no JPEG or PNG."""
    try:
        data = path.read_bytes()
        return Frame(FrameKey(SESSION, path.name, index), 0, False, displayed_size(data), data)
    except (OSError, Undecodable) as error:
        raise SourceFailed(f"picture {path}: {error}; give a JPEG or PNG, or leave it out") from error


def segment_images(job: ImageJob, model: Looker, skip: Callable[[Path], bool] = lambda path: False) -> Iterator[Segmented]:
    """Answer the job's pictures in order, but for those to skip. Raises SourceFailed, BadPrompt."""
    for index, path in enumerate(job.images):
        if skip(path):
            continue
        frame = read_picture(path, index)
        try:
            frame.pixels()
        except Undecodable as error:
            raise SourceFailed(f"picture {path}: {error}; leave it out") from error
        began = time.perf_counter()
        requests = requests_of(job.naming, frame)
        findings = model.look(requests)
        looked = time.perf_counter()
        answer = decide(job, model.digest, requests, findings)
        ms = {"model": (looked - began) * 1e3, "decide": (time.perf_counter() - looked) * 1e3}
        yield replace(answer, path=path, masks=replace(answer.masks, ms=ms))


def requests_of(naming: Naming, frame: Frame) -> list[Request]:
    """What is asked of one picture: categories together, shapes together, every sentence for itself. Raises BadPrompt."""
    seed = zlib.crc32(str(frame.key).encode())
    if naming.categories:
        return [Request(frame, Categories(tuple(c.name for c in naming.categories)), seed=seed)]
    if naming.texts:
        return [Request(frame, Sentence((text,)), seed=seed) for text in naming.texts]
    drawn = {flag.object_id: rasterize(flag.shape, frame.size_hw) for flag in _on(naming, frame.key.index)}
    return [Request(frame, Regions(tuple(Region(i, frame, mask) for i, mask in drawn.items())), drawn, seed)]


def decide(job: ImageJob, digest: str, requests: Sequence[Request], findings: Sequence[Findings]) -> Segmented:
    """Make a picture's answer of all that the model said of it."""
    frame = requests[0].frame
    if job.naming.categories:
        return _of_categories(job, digest, frame, findings[0])
    if job.naming.texts:
        objects = [_of_sentence(job, n, text, said) for n, (text, said) in enumerate(zip(job.naming.texts, findings, strict=True), start=1)]
    else:
        objects = _of_shapes(job, requests[0], findings[0])
    return _answer(frame, digest, objects)


def _of_sentence(job: ImageJob, object_id: int, text: str, findings: Findings) -> ObjectMask:
    return _object(object_id, text, *referred(findings, job.generalized, official=job.settings.policy == "official"))


def referred(findings: Findings, generalized: bool = False, official: bool = False) -> tuple[float, np.ndarray]:
    """What a sentence means: the best score of a proposal, and its mask, bool [H, W].

    generalized: all sure proposals together instead, or nothing where none is; official: the best one even so.
    """
    proposals = findings.proposals()
    best = int(proposals.scores[0].argmax())
    mask = findings.referred("official" if official else "empty").cpu().numpy() if generalized else proposals.masks([best])[0]
    return float(proposals.scores[0, best]), mask


def _of_shapes(job: ImageJob, request: Request, findings: Findings) -> list[ObjectMask]:
    flags = {flag.object_id: flag for flag in _on(job.naming, request.frame.key.index)}
    drawn = [(flags[region.object_id].shape, region.mask) for region in request.condition.regions]
    picks = pick_shapes(drawn, findings.proposals(), official=job.settings.policy == "official")
    nothing = np.zeros(request.frame.size_hw, bool)
    return [_object(i, "", pick.score if pick else 0.0, pick.mask if pick else nothing) for i, pick in zip(flags, picks, strict=True)]


def _of_categories(job: ImageJob, digest: str, frame: Frame, findings: Findings) -> Segmented:
    names = [category.name for category in job.naming.categories]
    things = [category.is_thing for category in job.naming.categories]
    if job.task == "semantic":
        numbers = findings.semantic("padded").cpu().numpy()
        present = np.unique(numbers).tolist()[:MAX_OBJECT_ID]
        objects = [_object(n, names[label], 1.0, numbers == label) for n, label in enumerate(present, start=1)]
        return replace(_answer(frame, digest, objects), semantic=numbers)
    if job.task == "instance":
        found = findings.instances()
        sure = [row for row in found.scores.argsort(descending=True).tolist() if found.scores[row] >= SHOWN_SCORE][:MAX_OBJECT_ID]
        scored = [(names[int(found.labels[row])], float(found.scores[row]), found.masks[row].cpu().numpy()) for row in sure]
        return replace(_answer(frame, digest, [_object(n, *one) for n, one in enumerate(scored, start=1)]), instances=found)
    found = findings.panoptic(things)
    ids = found.ids.cpu().numpy()
    below_first = sorted(found.segments, key=lambda s: s.is_thing)  # the order of painting: things over stuff
    objects = [_object(s.id, names[s.label], s.score, ids == s.id) for s in below_first]
    labels = {s.id: s.label for s in found.segments}
    numbers = findings.semantic("source").cpu().numpy()
    answer = _answer(frame, digest, objects)
    return replace(answer, panoptic=ids, labels=labels, semantic=numbers, instances=findings.instances(things))


def _on(naming: Naming, index: int) -> list[Flag]:
    """What is drawn on one picture."""
    return [flag for flag in naming.flags if flag.frame == index]


def _object(object_id: int, label: str, score: float, mask: np.ndarray) -> ObjectMask:
    if not mask.any():
        return ObjectMask(object_id, label, ObjectStatus.ABSENT, 0.0, None)
    return ObjectMask(object_id, label, ObjectStatus.SEEN, score, rle.encode(mask))


def _answer(frame: Frame, digest: str, objects: Sequence[ObjectMask]) -> Segmented:
    masks = MaskFrame(frame.key, frame.t_ns, frame.size_hw, FrameStatus.OK, tuple(objects), digest)
    return Segmented(Path(frame.key.view), frame, masks)
