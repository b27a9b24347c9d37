"""How a picture task is told what to look for: categories, sentences, or shapes drawn on the pictures. Text in, values out.

The drawn shapes are the prompt flags of `run` (prompt_flags.py), with the number of the picture in place of the frame's. No picture is
opened here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..stream.coco import Category, categories_of, read_json
from ..stream.errors import BadPrompt
from ..stream.types import MAX_OBJECT_ID
from .prompt_flags import Flag, PromptFlags

BACKGROUND = "background"  # the model's own last category

EXAMPLE = """--categories "person,dog" --stuff "sky,grass"    everything of these categories
--categories panoptic_val2017.json               the categories of a COCO file, with its ids
--text "the red cup on the left"                 one object; repeat it for more
--box 1:10,20,200,240                            a drawn shape, as for run; 1@3 draws on picture 3, counted from 0"""


@dataclass(frozen=True, slots=True)
class Naming:
    """What is looked for, one of the three. categories: in COCO's order; texts: one object each; flags: drawn shapes, `frame` the picture.

    document: the COCO file the categories are from, None when they were listed.
    """

    categories: tuple[Category, ...] = ()
    texts: tuple[str, ...] = ()
    flags: tuple[Flag, ...] = ()
    document: Any = None

    def said(self) -> dict[str, object]:
        """The same as plain values, for a record."""
        listed = [{"id": c.id, "name": c.name, "isthing": int(c.is_thing)} for c in self.categories]
        return {"categories": listed, "texts": list(self.texts), "prompts": list(dict.fromkeys(flag.said for flag in self.flags))}


def naming(categories: str | None, stuff: str | None, texts: Sequence[str], drawn: PromptFlags) -> Naming:
    """The one way of naming that the flags chose. Raises BadPrompt for none, for several, and for what cannot be read."""
    shapes = any((drawn.masks, drawn.points, drawn.boxes, drawn.scribbles))
    given = {"--categories": bool(categories or stuff), "--text": bool(texts), "--point, --box, --scribble or --mask": shapes}
    ways = [flag for flag, used in given.items() if used]
    if not ways:
        raise BadPrompt(f"nothing was named, expected categories, sentences or drawn shapes. Say what to look for, for example:\n{EXAMPLE}")
    if len(ways) > 1:
        raise BadPrompt(f"{' and '.join(ways)} were given; a picture is asked one way at a time: run the command once for each")
    if shapes:
        return Naming(flags=drawn.parse())
    return Naming(texts=_sentences(texts)) if texts else _categories(categories or "", stuff or "")


def _sentences(texts: Sequence[str]) -> tuple[str, ...]:
    found = tuple(text.strip().rstrip(".") for text in texts)
    if not all(found):
        raise BadPrompt('--text is empty, expected what to look for, such as --text "the red cup"')
    if len(found) > MAX_OBJECT_ID:
        raise BadPrompt(f"{len(found)} times --text, expected at most {MAX_OBJECT_ID}: each is an object id")
    return found


def _categories(listed: str, stuff: str) -> Naming:
    if listed.endswith(".json"):
        if stuff:
            raise BadPrompt(f"--stuff was given beside {listed}, which says itself what is countable (isthing); drop --stuff")
        document = read_json(Path(listed))
        return Naming(_without_background(categories_of(document, f"--categories {listed}")), document=document)
    names = [(name.strip(), is_thing) for text, is_thing in ((listed, True), (stuff, False)) for name in text.split(",") if name.strip()]
    if twice := sorted({name for name, _ in names if sum(name == other for other, _ in names) > 1}):
        raise BadPrompt(f"category {twice[0]!r} is named more than once in --categories and --stuff; name it once")
    if not names:
        raise BadPrompt('--categories is empty, expected names separated by commas, such as --categories "person,dog"')
    return Naming(_without_background(tuple(Category(n, name, is_thing) for n, (name, is_thing) in enumerate(names, start=1))))


def _without_background(categories: tuple[Category, ...]) -> tuple[Category, ...]:
    if any(category.name == BACKGROUND for category in categories):
        raise BadPrompt(f"category {BACKGROUND!r} is the model's own name for what is none of the others; leave it out")
    return categories
