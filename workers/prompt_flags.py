"""The prompt flags of the command line: text -> prompts, and what can be said against them before a frame is looked at.

`--mask FILE[@FRAME]`, `--point ID[@FRAME]:x,y`, `--box ID[@FRAME]:x0,y0,x1,y1`, `--scribble ID[@FRAME]:x,y;x,y;...`; FRAME counts from 0
and is 0 when left out. Coordinates are pixels of the displayed frame, origin top left. Of several views each text starts with the one it
is drawn on, `VIEW/`. What a shape covers is psalm/visual_prompts.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..psalm.visual_prompts import rasterize
from ..stream import rle
from ..stream.errors import BadPrompt, Undecodable
from ..stream.pictures import displayed_size
from ..stream.types import MAX_OBJECT_ID, Box, Frame, FrameKey, Mask, ObjectPrompt, Points, Prompt, Scribble, Shape

VIEW = "main"  # of an input that is the only one
VOID = 255  # in a DAVIS mask file: a pixel nobody decided about

EXAMPLE = """--mask first.png            an indexed PNG, value = object id, on frame 0
--mask later.png@120        the same on frame 120
--point 1:320,180           a click on object 1 at x=320, y=180; repeat it for more clicks
--box 2@5:10,20,200,240     a box x0,y0,x1,y1 around object 2 on frame 5
--scribble 3:10,10;60,80    a stroke over object 3"""

FORMS = {
    "--mask": "FILE[@FRAME], such as first.png@120",
    "--point": "ID[@FRAME]:x,y, such as 1:320,180",
    "--box": "ID[@FRAME]:x0,y0,x1,y1, such as 2@5:10,20,200,240",
    "--scribble": "ID[@FRAME]:x,y;x,y;..., such as 3:10,10;60,80",
}


@dataclass(frozen=True, slots=True)
class Flag:
    """One object as one flag names it.

    said: the flag and its text, for messages; file: its mask file, empty for other shapes; void: pixels of that file that say 255.
    """

    said: str
    frame: int
    object_id: int
    shape: Shape
    void: int = 0
    view: str = VIEW
    file: str = ""


@dataclass(frozen=True, slots=True)
class _Text:
    """What one flag was given. said: the flag and the whole text, for messages; flag: such as --point; text: without its view."""

    said: str
    flag: str
    view: str
    text: str


@dataclass(frozen=True, slots=True)
class PromptFlags:
    """The prompt flags of one command, as given."""

    masks: Sequence[str] = ()
    points: Sequence[str] = ()
    boxes: Sequence[str] = ()
    scribbles: Sequence[str] = ()

    def parse(self, views: Sequence[str] = ()) -> tuple[Flag, ...]:
        """Every object on every frame, one Flag each, in frame order.

        views: the names of which each text must start with one, and a slash; none: there is one view, and no text names it. Raises
        BadPrompt: unreadable, twice the same, a view that is not there, or no object at all.
        """
        given = {"--mask": self.masks, "--point": self.points, "--box": self.boxes, "--scribble": self.scribbles}
        masks, points, boxes, scribbles = ([_text(flag, text, views) for text in texts] for flag, texts in given.items())
        named = [flag for told in masks for flag in _mask_file(told)]
        named += _clicks(points)
        named += [_one(told, lambda said, body: Box(_numbers(said, body, 4))) for told in boxes]
        named += [_one(told, lambda said, body: Scribble(_pairs(said, body))) for told in scribbles]
        if not named:
            example = re.sub(r"^(--\w+ )", rf"\1{views[0]}/", EXAMPLE, flags=re.MULTILINE) if views else EXAMPLE
            raise BadPrompt(f"no object was named, expected at least one prompt. Say what to follow, for example:\n{example}")
        _refuse_twice(named)
        return tuple(sorted(named, key=lambda flag: (flag.frame, flag.object_id)))


def prompts(flags: Iterable[Flag], session: str) -> tuple[Prompt, ...]:
    """One Prompt a frame of a view, its objects together."""
    frames: dict[FrameKey, list[ObjectPrompt]] = {}
    for flag in flags:
        frames.setdefault(FrameKey(session, flag.view, flag.frame), []).append(ObjectPrompt(flag.object_id, flag.shape))
    return tuple(Prompt(key, f"flags@{key.view}/{key.index}", tuple(objects)) for key, objects in frames.items())


def check(flags: Iterable[Flag], size_hw: tuple[int, int]) -> None:
    """Raise BadPrompt for a shape that does not fit a frame of `size_hw`, naming the flag: sooner than when its frame comes."""
    for flag in flags:
        try:
            rasterize(flag.shape, size_hw)
        except BadPrompt as error:
            raise BadPrompt(f"{flag.said}: {error}") from error


def _refuse_twice(flags: Sequence[Flag]) -> None:
    seen: dict[tuple[str, int, int], Flag] = {}
    for flag in flags:
        before = seen.setdefault((flag.view, flag.frame, flag.object_id), flag)
        if before is not flag:
            raise BadPrompt(f"object {flag.object_id} has two shapes on frame {flag.frame}: {before.said} and {flag.said}; keep one")


def _text(flag: str, text: str, views: Sequence[str]) -> _Text:
    """The view that a text is about, and the rest of it."""
    said = f"{flag} {text}"
    if not views:
        return _Text(said, flag, VIEW, text)
    view, slash, rest = text.strip().partition("/")
    if not slash or view not in views:
        wrong = f"view {view!r} is none of this run" if slash else "names no view"
        form = FORMS[flag].replace("such as ", f"such as {views[0]}/")
        raise BadPrompt(f"{said}: {wrong}, expected VIEW/{form}, with VIEW one of {', '.join(views)}")
    return _Text(said, flag, view, rest)


def _mask_file(told: _Text) -> Iterator[Flag]:
    path, frame = _at_frame(told.text)
    said = told.said
    ids = read_ids(path)
    named = [int(i) for i in np.unique(ids) if i not in (0, VOID)]
    if not named:
        found = ", ".join(str(i) for i in np.unique(ids))
        raise BadPrompt(
            f"{said}: its pixel values are {found}, expected object ids from 1 to {VOID - 1} ({VOID} means undecided, as in DAVIS); "
            "save it as an indexed PNG whose value is the object's id"
        )
    for object_id in named:
        yield Flag(said, frame, object_id, Mask(rle.encode(ids == object_id)), int((ids == VOID).sum()), told.view, path)


def read_ids(path: str | Path) -> np.ndarray:
    """The object ids of an indexed (or 8-bit grey) PNG: uint8 [H, W], 0 = background, 255 = undecided. Raises BadPrompt."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=("PNG",)) as image:  # others may be lossy, and an id off by one is another object
            if image.mode not in ("P", "L"):
                raise BadPrompt(f"mask {path} is a {image.mode} picture, expected an indexed or 8-bit grey PNG; its values are the ids")
            return np.array(image)
    except FileNotFoundError as error:
        raise BadPrompt(f"mask {path} does not exist, expected an indexed PNG; check the path") from error
    except UnidentifiedImageError as error:
        raise BadPrompt(f"mask {path} is no PNG, expected an indexed one; its values are the ids") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadPrompt(f"mask {path} cannot be read ({error}), expected an indexed PNG; save it again") from error


def read_picture(text: str, session: str, view: str) -> Frame:
    """The picture that FILE[@FRAME] names, as a frame of the view, of no known time. Raises BadPrompt for a file that is no JPEG or PNG."""
    path, index = _at_frame(text)
    try:
        data = Path(path).read_bytes()
        return Frame(FrameKey(session, view, index), 0, False, displayed_size(data), data)
    except (OSError, Undecodable) as error:
        raise BadPrompt(f"--on {text}: {error}; expected a JPEG or PNG of view {view}") from error


def _at_frame(text: str) -> tuple[str, int]:
    """FILE[@FRAME]: only digits after the last @ are a frame, and a file of the whole name wins."""
    path, at, frame = text.rpartition("@")
    if at and path and frame.isdecimal() and not Path(text).exists():
        return path, int(frame)
    return text, 0


def _one(told: _Text, shape: Callable[[str, str], Shape]) -> Flag:
    """ID[@FRAME]:BODY with the shape that `shape(said, BODY)` reads."""
    said = told.said
    head = re.fullmatch(r"(\d+)(?:@(\d+))?:(.+)", told.text.strip())
    if not head:
        raise BadPrompt(f"{said} cannot be read, expected {FORMS[told.flag]}")
    object_id = int(head[1])
    if not 1 <= object_id <= MAX_OBJECT_ID:
        raise BadPrompt(f"{said}: object id is {object_id}, expected 1 to {MAX_OBJECT_ID}")
    return Flag(said, int(head[2] or 0), object_id, shape(said, head[3]), view=told.view)


def _clicks(points: Sequence[_Text]) -> list[Flag]:
    """Clicks on one object of one frame belong together."""
    clicks: dict[tuple[str, int, int], list[Flag]] = {}
    for told in points:
        flag = _one(told, lambda said, body: Points((_numbers(said, body, 2),)))
        clicks.setdefault((flag.view, flag.frame, flag.object_id), []).append(flag)
    return [
        replace(same[0], said=" ".join(f.said for f in same), shape=Points(tuple(xy for f in same for xy in f.shape.xy)))
        for same in clicks.values()
    ]


def _pairs(said: str, body: str) -> tuple[tuple[float, float], ...]:
    return tuple(_numbers(said, pair, 2) for pair in body.strip().strip(";").split(";"))


def _numbers(said: str, body: str, count: int) -> tuple[float, ...]:
    """Exactly `count` finite numbers, separated by commas; whether they lie on the frame is asked when its size is known."""
    try:
        values = tuple(float(part) for part in body.split(","))
    except ValueError as error:
        raise BadPrompt(f"{said}: {error}, expected {FORMS[said.split()[0]]}") from error
    if len(values) != count:
        raise BadPrompt(f"{said}: {body!r} is not {count} numbers, expected {FORMS[said.split()[0]]}")
    if not all(map(math.isfinite, values)):
        raise BadPrompt(f"{said}: {body!r} is not finite, expected {FORMS[said.split()[0]]}")
    return values
