"""The Ego-Exo4D correspondence data: relation files, scoring truth, processed takes, and the pairs of cameras in them.

A take has one ego camera (its name holds `aria`) and exo cameras; its annotation says by object, camera and frame where the object is.
Masks are at the camera's full resolution, pictures are smaller: ROOT/TAKE/CAMERA/FRAME.jpg. The model is asked in ask.py, answers
are judged in score.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from ...stream import rle
from ...stream.coco import read_json
from ...stream.errors import BadInput
from ...stream.types import Rle
from .lz_string import decompress

DIRECTIONS = ("ego-exo", "exo-ego")
SCORING_SIDE = 480  # long side of the masks that are compared
Stored = Mapping[str, object] | None  # a mask as a file holds it
Masks = Mapping[str, Mapping[str, Mapping[int, Stored]]]  # by object, camera, frame


@dataclass(frozen=True, slots=True)
class Take:
    """One take's annotation.

    masks: by object, camera and frame, as stored; annotated: by object and camera the frames somebody looked at, None where a file does not
    say. A frame that was looked at and has no mask: the object is not visible. subsample_idx: the frames that have pictures.
    """

    uid: str
    masks: Masks = field(repr=False)
    subsample_idx: tuple[int, ...] = ()
    annotated: Mapping[str, Mapping[str, frozenset[int]]] | None = field(default=None, repr=False)
    name: str = ""

    @property
    def objects(self) -> list[str]:
        """Object names in natural order; ids count through them from 1."""
        return sorted(self.masks, key=natural)

    def mask(self, name: str, camera: str, frame: int) -> Rle | None:
        """An object's mask, None where there is none or it cannot be decoded."""
        return stored_rle(self.masks[name].get(camera, {}).get(frame))

    def looked_at(self, name: str, camera: str) -> frozenset[int]:
        """The frames on which somebody looked for an object in a camera. Raises BadInput for a file that does not say."""
        if self.annotated is None:
            raise BadInput(
                f"take {self.uid}: its file has no annotated_frames, so nobody knows what is absent; score with the relations file"
            )
        return self.annotated.get(name, {}).get(camera, frozenset())

    def size_hw(self, camera: str) -> tuple[int, int] | None:
        """(H, W) of a camera's masks, None when none of them can be decoded."""
        entries = (entry for cameras in self.masks.values() for entry in cameras.get(camera, {}).values())
        return next((found.size_hw for found in map(stored_rle, entries) if found is not None), None)

    def cameras(self) -> list[str]:
        """All cameras that see an object, in natural order."""
        return sorted({camera for cameras in self.masks.values() for camera in cameras}, key=natural)

    def first(self, count: int) -> Take:
        """The take cut down to the first `count` frames that have a mask."""
        frames = sorted({f for cameras in self.masks.values() for stored in cameras.values() for f in stored})[:count]
        kept = {o: {c: {f: m for f, m in stored.items() if f in frames} for c, stored in cs.items()} for o, cs in self.masks.items()}
        looked = self.annotated and {o: {c: at & set(frames) for c, at in cs.items()} for o, cs in self.annotated.items()}
        return replace(self, masks=kept, annotated=looked)


@dataclass(frozen=True, slots=True)
class Pair:
    """An object in two cameras: asked for by its masks in `query`, answered in `target`."""

    name: str
    query: str
    target: str

    @property
    def key(self) -> str:
        """Its name in a prediction file."""
        return f"{self.query}_{self.target}"


def pairs(take: Take, direction: str) -> Iterator[Pair]:
    """Every object with every ego x exo pair of the cameras that know it, in file order; none for an object without both."""
    for name, cameras in take.masks.items():
        for ego in (c for c in cameras if is_ego(c)):
            for exo in (c for c in cameras if not is_ego(c)):
                yield Pair(name, ego, exo) if direction == "ego-exo" else Pair(name, exo, ego)


def is_ego(camera: str) -> bool:
    """Whether a camera is the one that is worn."""
    return "aria" in camera


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key in which cam2 is before cam10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def scoring_size(size_hw: tuple[int, int]) -> tuple[int, int]:
    """The (H, W) at which masks of a camera are compared: long side 480, the other truncated: (2160, 3840) -> (270, 480)."""
    longest = max(size_hw)
    return size_hw[0] * SCORING_SIDE // longest, size_hw[1] * SCORING_SIDE // longest


# -- files ------------------------------------------------------------------------------------------------------------


def stored_rle(stored: Stored) -> Rle | None:
    """A mask from either file format: LZ-string `encodedMask`, or COCO `size` and `counts`. None: null, or undecodable."""
    if stored is None:
        return None
    if "encodedMask" in stored:
        return _decoded(str(stored["encodedMask"]), (int(stored["height"]), int(stored["width"])))
    height, width = stored["size"]
    return _checked(Rle((int(height), int(width)), str(stored["counts"]).encode()))


@lru_cache(maxsize=1024)
def _decoded(encoded: str, size_hw: tuple[int, int]) -> Rle | None:
    try:
        return _checked(Rle(size_hw, decompress(encoded).encode()))
    except BadInput:
        return None


def _checked(found: Rle) -> Rle | None:
    try:
        rle.area(found)
    except BadInput:
        return None
    return found


def read_truth(path: Path) -> dict[str, Take]:
    """All takes of a relations file or of a scoring truth (`annotations` by take). Raises BadInput naming what does not fit."""
    told = read_object(path)
    if not isinstance(told.get("annotations"), dict):
        raise BadInput(f"{path}: has no `annotations` by take, expected relations_SPLIT.json or a scoring truth; it holds {_keys(told)}")
    return {uid: _take(path, uid, entry) for uid, entry in told["annotations"].items()}


def read_processed(folder: Path) -> Take:
    """A processed take's own annotation.json, which does not say what was looked at. Raises BadInput."""
    path = folder / "annotation.json"
    return _take(path, folder.name, read_object(path))


def read_object(path: Path) -> dict:
    """A JSON object. Raises BadInput."""
    told = read_json(path)
    if not isinstance(told, dict):
        raise BadInput(f"{path}: holds a {type(told).__name__}, expected a JSON object; download or write it again")
    return told


def _take(path: Path, uid: str, entry: Mapping) -> Take:
    try:
        take = _raw_take(uid, entry) if "object_masks" in entry else _processed_take(uid, entry)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(
            f"{path}: take {uid} is not as the benchmark stores it ({type(error).__name__}: {error}); download it again"
        ) from error
    egos = [camera for camera in take.cameras() if is_ego(camera)]
    if len(egos) > 1:
        raise BadInput(f"{path}: take {uid} has the ego cameras {', '.join(egos)}, expected one; only one name may hold `aria`")
    return take


def _raw_take(uid: str, entry: Mapping) -> Take:
    tracks = entry["object_masks"]
    masks = {o: {c: _by_frame(track["annotation"]) for c, track in cameras.items()} for o, cameras in tracks.items()}
    annotated = {o: {c: frozenset(map(int, track["annotated_frames"])) for c, track in cameras.items()} for o, cameras in tracks.items()}
    frames = sorted({f for cameras in annotated.values() for at in cameras.values() for f in at})
    return Take(uid, masks, tuple(frames), annotated, str(entry.get("take_name", "")))


def _processed_take(uid: str, entry: Mapping) -> Take:
    masks = {o: {c: _by_frame(frames) for c, frames in cameras.items()} for o, cameras in entry["masks"].items()}
    annotated = entry.get("annotated_frames")
    if annotated is not None:
        annotated = {o: {c: frozenset(map(int, at)) for c, at in cameras.items()} for o, cameras in annotated.items()}
    return Take(uid, masks, tuple(map(int, entry["subsample_idx"])), annotated)


def _by_frame(stored: Mapping[str, Stored]) -> dict[int, Stored]:
    return {int(frame): mask for frame, mask in stored.items()}


def _keys(told: Mapping) -> str:
    return ", ".join(list(told)[:5]) or "nothing"


# -- a data root ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DataRoot:
    """ROOT/TAKE/CAMERA/FRAME.jpg with the takes of one split that were chosen. notes: what a user should know."""

    root: Path
    takes: tuple[Take, ...]
    scorable: bool
    notes: tuple[str, ...] = ()

    def picture(self, take: str, camera: str, frame: int) -> Path:
        """Where a picture belongs."""
        return self.root / take / camera / f"{frame}.jpg"

    def has_picture(self, take: str, camera: str, frame: int) -> bool:
        """Whether a picture is there; an empty file, as a full disk leaves them, is none."""
        path = self.picture(take, camera, frame)
        return path.is_file() and path.stat().st_size > 0


def open_root(root: Path, split: str, relations: Path | None, names: Sequence[str] = (), limit: int | None = None) -> DataRoot:
    """The takes of a split, or those named by uid or take name; of each only its first `limit` frames if given.

    relations: relations or scoring truth file; None: relations_SPLIT.json in ROOT or ROOT/annotations. Without one the masks are
    those of the takes' own annotation.json, and cannot be scored. Raises BadInput.
    """
    uids = _split(root, split)
    found = relations or next(
        (p for p in (root / f"relations_{split}.json", root / "annotations" / f"relations_{split}.json") if p.is_file()), None
    )
    if found is not None:
        known, notes = read_truth(found), []
        absent = [uid for uid in uids or () if uid not in known]
        notes += (
            [f"{len(absent)} takes of {split} have no relations in {found.name}, {absent[0]} the first; they are left out"]
            if absent
            else []
        )
        listed = [known[uid] for uid in (uids or known) if uid in known]
    else:
        folders = [root / uid for uid in uids] if uids else sorted(p.parent for p in root.glob("*/annotation.json"))
        listed = [read_processed(folder) for folder in folders if (folder / "annotation.json").is_file()]
        notes = [f"no relations_{split}.json in {root}: predictions are made and cannot be scored; name the file with --relations"]
    if not listed:
        raise BadInput(
            f"{root} holds no take of split {split!r}; expected TAKE/CAMERA/FRAME.jpg, TAKE/annotation.json and relations_{split}.json"
        )
    taken = chosen(listed, names)
    return DataRoot(root, tuple(take if limit is None else take.first(limit) for take in taken), found is not None, tuple(notes))


def _split(root: Path, split: str) -> list[str] | None:
    """The take uids of a split by ROOT/split.json; None without such a file."""
    path = root / "split.json"
    if not path.is_file():
        if (root / "split_checking.json").is_file():
            raise BadInput(
                f"{root} has split_checking.json and no split.json: the official process_annotations.py reads the wrong one of the two; "
                "copy split.json of the annotations there"
            )
        return None
    told = read_object(path)
    if split not in told:
        raise BadInput(f"{path} has no split {split!r}, expected one of {_keys(told)}")
    return list(told[split])


def chosen(listed: Iterable[Take], names: Sequence[str]) -> list[Take]:
    takes = list(listed)
    if unknown := [name for name in names if not any(name in (take.uid, take.name) for take in takes)]:
        raise BadInput(f"take {unknown[0]} is not among the {len(takes)} takes of this split, expected a uid such as {takes[0].uid}")
    return [take for take in takes if not names or take.uid in names or take.name in names]
