"""How a picture task is told what to look for, and what is said when it is not."""

import json

import pytest
from psalm_stream.stream.coco import Category
from psalm_stream.stream.errors import BadPrompt
from psalm_stream.workers.naming import naming
from psalm_stream.workers.prompt_flags import PromptFlags

NONE = PromptFlags()


def test_listed_categories_are_things_unless_they_are_stuff():
    found = naming(" person, traffic light ,", "sky", (), NONE)
    assert found.categories == (Category(1, "person", True), Category(2, "traffic light", True), Category(3, "sky", False))


def test_stuff_alone_is_enough():
    assert naming(None, "sky,grass", (), NONE).categories == (Category(1, "sky", False), Category(2, "grass", False))


def test_a_coco_file_brings_its_ids_and_names_with_commas(tmp_path):
    path = tmp_path / "categories.json"
    path.write_text(json.dumps({"categories": [{"id": 7, "name": "wall, brick wall", "isthing": 0}], "images": []}))
    found = naming(str(path), None, (), NONE)
    assert found.categories == (Category(7, "wall, brick wall", False),)
    assert found.document["images"] == []


def test_every_sentence_is_an_object_and_its_full_stop_is_the_prompts_own():
    assert naming(None, None, ["the red cup. ", "the cup on the left"], NONE).texts == ("the red cup", "the cup on the left")


def test_shapes_are_the_prompt_flags_of_run():
    (flag,) = naming(None, None, (), PromptFlags(boxes=["2@1:0,0,5,5"])).flags
    assert (flag.object_id, flag.frame) == (2, 1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((None, None, (), NONE), "nothing was named"),
        (("a", None, ("b",), NONE), "--categories and --text were given"),
        ((None, None, ("b",), PromptFlags(points=["1:2,3"])), "--text and --point, --box, --scribble or --mask were given"),
        ((" ,", None, (), NONE), "--categories is empty"),
        (("a,b,a", None, (), NONE), "category 'a' is named more than once"),
        (("a", "a", (), NONE), "category 'a' is named more than once"),
        (("a,background", None, (), NONE), "'background' is the model's own name"),
        ((None, None, ("a", " . "), NONE), "--text is empty"),
        ((None, None, ("a",) * 256, NONE), "256 times --text, expected at most 255"),
        (("a.json", "b", (), NONE), "drop --stuff"),
    ],
)
def test_what_cannot_be_asked_is_refused(given, said):
    with pytest.raises(BadPrompt) as error:
        naming(*given)
    assert said in str(error.value)
