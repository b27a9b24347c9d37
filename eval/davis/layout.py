"""The DAVIS folder layouts: which sequences a set lists, where their pictures and annotations lie, and what these say.

DAVIS-2017 lists sequences in ImageSets/2017/SET.txt and annotates objects by index; DAVIS-2016 lists frames in ImageSets/480p/SET.txt
(an image and an annotation path a line), and whatever an annotation does not leave at 0 is object 1. Following the objects is
tracking.py's, answers on disk are results.py's, scoring is metrics.py's.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ...stream import rle
from ...stream.errors import BadInput, Undecodable
from ...stream.pictures import displayed_size
from ...stream.sources import PICTURE_SUFFIXES, natural_order
from ...stream.types import FrameKey, Mask, ObjectPrompt, Prompt
from .metrics import VOID

LISTS = {2017: "ImageSets/2017", 2016: "ImageSets/480p"}
IMAGES, ANNOTATIONS = "JPEGImages/480p", "Annotations/480p"
FEWEST_FRAMES = 3  # the first and the last are not scored


@dataclass(frozen=True, slots=True)
class DavisSequence:
    """One sequence: its name, its image folder, one annotation a frame in order, and whether an annotation only says object or not."""

    name: str
    images: Path
    labels: tuple[Path, ...]
    binary: bool = False

    @property
    def frames(self) -> tuple[str, ...]:
        """The name of every frame, such as 00012; answers are PNGs of these names."""
        return tuple(path.stem for path in self.labels)

    def true_map(self, index: int) -> np.ndarray:
        """The true label map of a frame, uint8 [H, W]: 0 background, 1..n objects, 255 void. Raises BadInput."""
        return read_labels(self.labels[index], self.binary)

    def truth(self) -> list[np.ndarray]:
        """Every frame's true label map."""
        return [self.true_map(index) for index in range(len(self.labels))]

    def image(self, index: int) -> Path | None:
        """The picture of a frame, None when it is not there."""
        paths = (self.images / f"{self.frames[index]}{suffix}" for suffix in PICTURE_SUFFIXES)
        return next((path for path in paths if path.is_file()), None)


@dataclass(frozen=True, slots=True)
class Davis:
    """A set of DAVIS, or the part of it that was asked for.

    root: as given; layout: 2016 or 2017; listed: names of all its sequences; sequences: those asked for, in list order; limit: frames that
    each was cut to, None for all.
    """

    root: Path
    layout: int
    set_name: str
    listed: tuple[str, ...]
    sequences: tuple[DavisSequence, ...]
    limit: int | None = None


def open_davis(root: Path, set_name: str = "val", names: Sequence[str] = (), limit: int | None = None) -> Davis:
    """Find the sequences of a set, or those named, each cut to its first `limit` frames if given. Only names are looked at.

    Raises BadInput when the folder is no DAVIS folder, a name is not in the list, or a sequence lacks annotations or has fewer than 3.
    """
    if limit is not None and limit < FEWEST_FRAMES:
        raise BadInput(f"limit is {limit} frames, expected at least {FEWEST_FRAMES}: the first and the last are not scored")
    layout, image_set = _find_list(root, set_name)
    labels = _listed_2017(root, image_set) if layout == 2017 else _listed_2016(root, image_set)
    if not labels:
        raise BadInput(f"{image_set} lists no sequence; expected {'one name' if layout == 2017 else 'an image and an annotation'} a line")
    for name in names:
        if name not in labels:
            near = difflib.get_close_matches(name, labels, n=1)
            raise BadInput(
                f"sequence {name} is not in {image_set}; {f'did you mean {near[0]}? It lists' if near else 'it lists'} {', '.join(labels)}"
            )
    found = tuple(
        _sequence(root, name, paths if layout == 2016 else _annotations(root / ANNOTATIONS / name, image_set), layout == 2016, limit)
        for name, paths in labels.items()
        if not names or name in names
    )
    return Davis(root, layout, set_name, tuple(labels), found, limit)


def _find_list(root: Path, set_name: str) -> tuple[int, Path]:
    if not root.is_dir():
        raise BadInput(f"{root} is no folder; give the one that holds JPEGImages, Annotations and ImageSets of DAVIS")
    for layout, folder in LISTS.items():
        if (image_set := root / folder / f"{set_name}.txt").is_file():
            return layout, image_set
    there = sorted({path.stem for folder in LISTS.values() for path in (root / folder).glob("*.txt")})
    wanted = " and no ".join(f"{folder}/{set_name}.txt" for folder in LISTS.values())
    remedy = f"it has the sets {', '.join(there)}: choose one with --set" if there else "give the folder of a DAVIS data set"
    raise BadInput(f"{root} has no {wanted}, one of which lists the sequences in the layouts of 2017 and 2016; {remedy}")


def _listed_2017(root: Path, image_set: Path) -> dict[str, tuple[Path, ...]]:
    return dict.fromkeys(image_set.read_text().split(), ())


def _listed_2016(root: Path, image_set: Path) -> dict[str, tuple[Path, ...]]:
    """Annotations by sequence, the folder they lie in. Paths in the list start at the data set's root, with or without a slash."""
    paths: dict[str, list[Path]] = {}
    for number, line in enumerate(image_set.read_text().splitlines(), start=1):
        if not (parts := line.split()):
            continue
        if len(parts) != 2:
            raise BadInput(f"{image_set}, line {number}: {line.strip()!r}, expected an image path and an annotation path")
        image, label = (root / part.lstrip("/") for part in parts)
        if image.stem != label.stem or image.parent.name != label.parent.name:
            raise BadInput(f"{image_set}, line {number}: image {image.name} and annotation {label.name} are not of one frame")
        paths.setdefault(label.parent.name, []).append(label)
    return {name: tuple(sorted(labels, key=natural_order)) for name, labels in paths.items()}


def _annotations(folder: Path, image_set: Path) -> tuple[Path, ...]:
    if labels := tuple(sorted(folder.glob("*.png"), key=natural_order)):
        return labels
    raise BadInput(
        f"sequence {folder.name} of {image_set} has no annotation: {folder} {'holds no *.png' if folder.is_dir() else 'is missing'}"
    )


def _sequence(root: Path, name: str, labels: Sequence[Path], binary: bool, limit: int | None) -> DavisSequence:
    sequence = DavisSequence(name, root / IMAGES / name, tuple(labels[:limit]), binary)
    for path in sequence.labels:
        if not path.is_file():
            raise BadInput(f"sequence {name}: annotation {path} is missing; unpack the annotations of the data set again")
    if len(sequence.labels) < FEWEST_FRAMES:
        raise BadInput(
            f"sequence {name} has {len(sequence.labels)} annotated frames, expected at least {FEWEST_FRAMES}: the first and the last are "
            "not scored"
        )
    return sequence


def check_pictures(sequence: DavisSequence, whole: bool = True) -> None:
    """Raise BadInput unless the frames a tracker will see are the annotated ones, and the first annotation has its picture's size.

    whole: the sequence is not cut, so that every picture must have an annotation.
    """
    if not sequence.images.is_dir():
        raise BadInput(f"sequence {sequence.name}: folder {sequence.images} is missing; unpack the pictures of the data set")
    pictures = [p for p in sequence.images.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES and not p.name.startswith(".")]
    seen = [path.stem for path in sorted(pictures, key=natural_order)]
    if lacking := [frame for frame in sequence.frames if frame not in set(seen)]:
        raise BadInput(f"sequence {sequence.name}: annotation {lacking[0]}.png has no picture in {sequence.images}; add it")
    expected = seen if whole else seen[: len(sequence.frames)]
    if extra := [name for name in expected if name not in set(sequence.frames)]:
        raise BadInput(
            f"sequence {sequence.name}: picture {extra[0]} has no annotation ({sequence.labels[0].parent / extra[0]}.png is missing or not "
            "listed); only fully annotated sequences can be scored"
        )
    picture, labels = sequence.image(0), sequence.true_map(0)
    try:
        size_hw = displayed_size(picture.read_bytes())
    except Undecodable as error:
        raise BadInput(f"sequence {sequence.name}: picture {picture}: {error}; replace it") from error
    if labels.shape != size_hw:
        raise BadInput(
            f"sequence {sequence.name}: annotation {sequence.labels[0]} is {by(labels.shape)}, its picture {by(size_hw)}; "
            "use pictures and annotations of one resolution"
        )


def read_labels(path: Path, binary: bool = False) -> np.ndarray:
    """Read a label PNG as uint8 [H, W]: its indices, or with `binary` 1 wherever it is not 0 (not black, of a colour picture).

    Raises BadInput for a file that is missing, no PNG, or, unless binary, a colour picture: an index that went through a palette is lost.
    """
    try:
        with Image.open(path, formats=("PNG",)) as image:
            if image.mode in ("P", "L", "1"):
                labels = np.array(image).astype(np.uint8, copy=False)
            elif binary and image.mode in ("RGB", "RGBA", "LA"):
                labels = np.array(image.convert("RGB")).max(axis=2)
            else:
                raise BadInput(
                    f"{path} is a {image.mode} picture, expected an indexed or 8-bit grey PNG whose values are object ids; save it so"
                )
    except FileNotFoundError as error:
        raise BadInput(f"{path} is missing, expected a label PNG") from error
    except UnidentifiedImageError as error:
        raise BadInput(f"{path} is no PNG, expected a label PNG; save it as one") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadInput(f"{path} cannot be read ({error}), expected a label PNG; save it again") from error
    return (labels > 0).astype(np.uint8) if binary else labels


def ids_of(labels: np.ndarray) -> tuple[int, ...]:
    """The object ids in a label map, uint8 [H, W], ascending, without background and void."""
    return tuple(int(i) for i in np.unique(labels) if i not in (0, VOID))


def first_mask_prompt(labels: np.ndarray, session: str, view: str = "main") -> Prompt:
    """The prompt that gives every object of a label map, uint8 [H, W], as a mask on frame 0."""
    objects = tuple(ObjectPrompt(i, Mask(rle.encode(labels == i))) for i in ids_of(labels))
    return Prompt(FrameKey(session, view, 0), "first-mask", objects)


def by(size_hw: tuple[int, int]) -> str:
    """(H, W) as people say it, 854x480."""
    return f"{size_hw[1]}x{size_hw[0]}"
