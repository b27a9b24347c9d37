"""`psalm-stream segment`: from pictures to a folder of results, one way of naming at a time, and every way a user can get it wrong."""

import json

import numpy as np
import pytest
from looker import ColourLooker
from PIL import Image
from psalm_stream.eval.pictures.panoptic_files import PanopticFiles, score_panoptic
from psalm_stream.stream.coco import rgb_to_ids
from psalm_stream.stream.codec import mask_frame_from_json
from psalm_stream.stream.errors import BadConfig, BadPrompt, SourceFailed
from psalm_stream.stream.rle import decode
from psalm_stream.workers.cli.app import app
from psalm_stream.workers.images import ImageJob, pictures_of, refuse_misfits, segment_images
from psalm_stream.workers.naming import naming
from psalm_stream.workers.picture_files import PictureFiles
from psalm_stream.workers.prompt_flags import PromptFlags
from psalm_stream.workers.settings import Settings
from scene import SIZE_HW, mask_of, picture
from typer.testing import CliRunner


@pytest.fixture
def pictures(tmp_path):
    """Three pictures: objects 1 and 2; all three, further right; none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, data in (("a", picture(0)), ("b", picture(3, (1, 2, 3))), ("c10", picture(0, ()))):
        (folder / f"{name}.png").write_bytes(data)
    return folder


def job_of(pictures, out, *, categories=None, stuff=None, texts=(), policy="honest", names=("a", "b", "c10"), **more):
    drawn = PromptFlags(**{flag: more.pop(flag) for flag in ("points", "boxes", "scribbles", "masks") if flag in more})
    paths = tuple(pictures / f"{name}.png" for name in names)
    return ImageJob(paths, naming(categories, stuff, texts, drawn), out, Settings(policy=policy), **more)


def write(job, model=None, resume=False):
    refuse_misfits(job)
    model = model or ColourLooker()
    with PictureFiles(job, model.digest, resume) as files:
        for found in segment_images(job, model, skip=lambda path: path.name in files.done):
            files.write(found)
    return job.out


def lines(out):
    return [json.loads(line) for line in (out / "masks.jsonl").read_text().splitlines()]


def objects(out, picture):
    """Masks by object id of one picture, as its line has them."""
    return {o.object_id: o for o in mask_frame_from_json(lines(out)[picture]).objects}


def numbers(path):
    with Image.open(path) as image:
        return np.array(image)


def files_of(out):
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())


# -- categories --------------------------------------------------------------------------------------------------------


def test_categories_give_a_panoptic_map_that_is_the_truth(pictures, tmp_path):
    out = write(job_of(pictures, tmp_path / "out", categories="red,blue", stuff="grey wall"))
    document = json.loads((out / "panoptic.json").read_text())
    truth = [mask_of(1, 3), mask_of(3, 3)]
    second = document["annotations"][1]
    ids = rgb_to_ids(numbers(out / "panoptic" / second["file_name"]))
    by_category = {s["category_id"]: s for s in second["segments_info"]}
    for mask, category in zip(truth, (1, 2), strict=True):
        assert np.array_equal(ids == by_category[category]["id"], mask)
        x0, y0 = np.nonzero(mask)[1].min(), np.nonzero(mask)[0].min()
        assert by_category[category] | {"id": 0} == {
            "id": 0,
            "category_id": category,
            "area": int(mask.sum()),
            "bbox": [x0, y0, 24, 18],
            "iscrowd": 0,
        }
    assert (ids[mask_of(2, 3)] == 0).all()  # green is none of the categories
    assert document["categories"][2] == {"id": 3, "name": "grey wall", "isthing": 0}
    assert [image["file_name"] for image in document["images"]] == ["a.png", "b.png", "c10.png"]


def test_categories_give_maps_of_numbers_and_scored_instances(pictures, tmp_path):
    out = write(job_of(pictures, tmp_path / "out", categories="red,blue", stuff="grey wall"))
    semantic = numbers(out / "semantic" / "b.png")
    assert [int(semantic[mask_of(i, 3)].max()) for i in (1, 3)] == [0, 1]
    assert semantic[0, 0] == 2
    results = [r for r in json.loads((out / "instances.json").read_text()) if r["score"] > 0.5]
    assert [(r["image_id"], r["category_id"], r["bbox"]) for r in results] == [
        (1, 1, [6, 4, 24, 18]),
        (2, 1, [12, 4, 24, 18]),
        (2, 2, [12, 48, 24, 18]),
    ]


def test_the_written_panoptic_folder_scores_full_marks_against_itself(pictures, tmp_path):
    out = write(job_of(pictures, tmp_path / "out", categories="red,blue", stuff="grey wall"))
    found = score_panoptic(PanopticFiles(out / "panoptic.json"), PanopticFiles(out / "panoptic.json"))
    assert (found.quality().pq, found.quality().categories, found.pictures) == (1.0, 3, 3)


def test_ids_of_pictures_and_categories_are_those_of_the_coco_file(pictures, tmp_path):
    listed = {
        "categories": [{"id": 90, "name": "red", "isthing": 1}],
        "images": [{"id": 70 + n, "file_name": f"{s}.jpg"} for n, s in enumerate("ba")],
    }
    (tmp_path / "gt.json").write_text(json.dumps(listed))
    out = write(job_of(pictures, tmp_path / "out", categories=str(tmp_path / "gt.json"), names=("a", "b")))
    document = json.loads((out / "panoptic.json").read_text())
    assert [a["image_id"] for a in document["annotations"]] == [71, 70]
    assert document["annotations"][0]["segments_info"][0]["category_id"] == 90


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("panoptic", {"instances.json", "panoptic.json", "panoptic/a.png", "semantic/a.png"}),
        ("instance", {"instances.json"}),
        ("semantic", {"semantic/a.png"}),
    ],
)
def test_each_task_writes_its_results_and_always_masks_a_line_and_an_overlay(pictures, tmp_path, task, expected):
    out = write(job_of(pictures, tmp_path / "out", categories="red,green", names="a", task=task))
    assert set(files_of(out)) == {"masks.jsonl", "masks/a.png", "overlay/a.jpg", "run.json"} | expected
    labels = numbers(out / "masks" / "a.png")
    assert len({int(labels[mask_of(i, 0)].min()) for i in (1, 2)} - {0}) == 2


def test_more_categories_than_8_bits_make_a_deeper_semantic_map(pictures, tmp_path):
    names = ",".join([*(f"thing {n}" for n in range(299)), "red"])
    out = write(job_of(pictures, tmp_path / "out", categories=names, names="a", task="semantic"))
    assert numbers(out / "semantic" / "a.png")[mask_of(1, 0)].max() == 299


# -- sentences and shapes ----------------------------------------------------------------------------------------------


def test_every_sentence_is_an_object_of_its_own(pictures, tmp_path):
    out = write(job_of(pictures, tmp_path / "out", texts=["the red one", "the green one"]))
    found = objects(out, 0)
    assert [(o.object_id, o.label) for o in found.values()] == [(1, "the red one"), (2, "the green one")]
    labels = numbers(out / "masks" / "a.png")
    assert all(np.array_equal(labels == i, mask_of(i, 0)) for i in (1, 2))
    assert [path for path in files_of(out) if "panoptic" in path] == []


@pytest.mark.parametrize(
    ("generalized", "policy", "text", "expected"),
    [
        (False, "honest", "the red or green one", (1,)),
        (True, "honest", "the red or green one", (1, 2)),
        (True, "honest", "the purple one", ()),
        (True, "official", "the purple one", (1,)),
    ],
)
def test_a_generalized_sentence_means_all_that_is_sure_or_nothing(pictures, tmp_path, generalized, policy, text, expected):
    out = write(job_of(pictures, tmp_path / "out", texts=[text], generalized=generalized, policy=policy, names="a"))
    rle = objects(out, 0)[1].rle
    found = decode(rle) if rle else np.zeros(SIZE_HW, bool)
    assert np.array_equal(found, np.any([np.zeros(SIZE_HW, bool), *(mask_of(i, 0) for i in expected)], axis=0))


@pytest.mark.parametrize(
    "drawn",
    [
        {"points": ["2:18,35"]},
        {"boxes": ["2:6,26,30,44"]},
        {"scribbles": ["2:12,30;22,38"]},
    ],
)
def test_a_drawn_shape_is_answered_by_the_object_under_it(pictures, tmp_path, drawn):
    out = write(job_of(pictures, tmp_path / "out", names="a", **drawn))
    assert np.array_equal(numbers(out / "masks" / "a.png"), 2 * mask_of(2, 0))


def test_a_rough_mask_is_answered_by_the_model_and_not_given_back(pictures, tmp_path):
    rough = np.zeros(SIZE_HW, np.uint8)
    rough[28:40, 10:26] = 2
    Image.fromarray(rough).save(tmp_path / "rough.png")
    out = write(job_of(pictures, tmp_path / "out", names="a", masks=[str(tmp_path / "rough.png")]))
    assert np.array_equal(numbers(out / "masks" / "a.png"), 2 * mask_of(2, 0))


def test_shapes_on_several_pictures_are_drawn_by_number(pictures, tmp_path):
    out = write(job_of(pictures, tmp_path / "out", names=("a", "b"), points=["1:18,13", "3@1:24,57"]))
    assert [list(objects(out, n)) for n in (0, 1)] == [[1], [3]]
    assert np.array_equal(decode(objects(out, 1)[3].rle), mask_of(3, 3))


# -- the folder --------------------------------------------------------------------------------------------------------


def test_an_interrupted_run_goes_on_to_the_same_files(pictures, tmp_path):
    whole = write(job_of(pictures, tmp_path / "whole", categories="red,blue", stuff="grey"))
    cut = job_of(pictures, tmp_path / "cut", categories="red,blue", stuff="grey")
    with PictureFiles(cut, "colour") as files:
        files.write(next(segment_images(cut, ColourLooker())))
    with (cut.out / "masks.jsonl").open("a") as file:
        file.write('{"image":"b.p')  # died in the middle of a line
    model = ColourLooker()
    write(cut, model, resume=True)
    assert model.asked == ["b.png", "c10.png"]
    assert files_of(cut.out) == files_of(whole)
    for name in ("panoptic.json", "instances.json", "panoptic/b.png", "overlay/b.jpg"):
        assert (cut.out / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize(
    ("other", "said"), [({"categories": "red,green"}, "other asked"), ({"categories": "red", "policy": "official"}, "other settings")]
)
def test_a_folder_of_another_question_is_not_resumed(pictures, tmp_path, other, said):
    write(job_of(pictures, tmp_path / "out", categories="red", names="a"))
    with pytest.raises(BadConfig, match=said):
        write(job_of(pictures, tmp_path / "out", names="a", **other), resume=True)


def test_a_new_run_takes_away_what_an_earlier_one_wrote_and_nothing_else(pictures, tmp_path):
    write(job_of(pictures, tmp_path / "out", categories="red"))
    (tmp_path / "out" / "notes.txt").write_text("mine")
    out = write(job_of(pictures, tmp_path / "out", texts=["the red one"], names="a", overlay=False))
    assert files_of(out) == ["masks.jsonl", "masks/a.png", "notes.txt", "run.json"]


def test_a_folder_is_its_pictures_in_natural_order(pictures):
    (pictures / "c9.jpg").write_bytes(b"")
    (pictures / "notes.txt").write_text("no picture")
    assert [path.name for path in pictures_of([pictures])] == ["a.png", "b.png", "c9.jpg", "c10.png"]


def test_a_picture_is_named_once(pictures, tmp_path):
    with pytest.raises(SourceFailed, match="would both be called a"):
        pictures_of([pictures, pictures / "a.png"])


@pytest.mark.parametrize(
    ("drawn", "said"),
    [
        ({"points": ["1:18,13"]}, r"nothing is drawn on picture 1, .*b\.png; draw on it, as in --box 1@1:"),
        ({"points": ["1:18,13", "1@2:3,3"]}, "picture 2 was not given, they are 0 to 1"),
        ({"points": ["1:18,13", "1@1:96,3"]}, r"--point 1@1:96,3: point is \(96"),
    ],
)
def test_shapes_that_do_not_fit_the_pictures_are_refused_before_anything_is_computed(pictures, tmp_path, drawn, said):
    with pytest.raises(BadPrompt, match=said):
        refuse_misfits(job_of(pictures, tmp_path / "out", names=("a", "b"), **drawn))


# -- the command, with nano --------------------------------------------------------------------------------------------


@pytest.fixture
def segment(pictures, tmp_path):
    """Run the command on picture a.png; returns exit code, what it said, and the results folder."""

    def call(*arguments, images=("a.png",)):
        out = tmp_path / "out"
        result = CliRunner().invoke(app, ["segment", *(str(pictures / name) for name in images), "--out", str(out), *arguments])
        return result.exit_code, " ".join(result.output.split()), out

    return call


WAYS = {
    "categories": ("--categories", "square,disc", "--stuff", "tree"),
    "text": ("--text", "the red thing", "--text", "the green square"),
    "point": ("--point", "1:18,13"),
    "box": ("--box", "1:6,4,30,22", "--box", "2:6,26,30,44"),
    "scribble": ("--scribble", "1:10,8;26,18"),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_command_answers_with_nano(segment, way):
    code, said, out = segment(*WAYS[way])
    assert code == 0, said
    assert "1 pictures in" in said
    assert numbers(out / "masks" / "a.png").shape == SIZE_HW
    assert numbers(out / "overlay" / "a.jpg").shape == (*SIZE_HW, 3)
    if way == "categories":
        assert numbers(out / "semantic" / "a.png").max() < 3
        assert json.loads((out / "panoptic.json").read_text())["annotations"][0]["segments_info"] == []  # nano is sure of no category
    else:
        assert sorted(objects(out, 0)) == list(range(1, 1 + len(WAYS[way]) // 2))


def test_nano_finds_most_of_an_object_in_its_box(segment):
    _, _, out = segment(*WAYS["box"])
    truth = mask_of(1, 0)
    found = decode(objects(out, 0)[1].rle)
    assert (found & truth).sum() / (found | truth).sum() > 0.5


def test_a_mask_file_is_asked_with_and_the_same_command_gives_the_same_masks(segment, tmp_path):
    Image.fromarray(mask_of(1, 0).astype(np.uint8)).save(tmp_path / "rough.png")
    _, _, out = segment("--mask", str(tmp_path / "rough.png"), "--quiet")
    first = (out / "masks" / "a.png").read_bytes()
    code, said, _ = segment("--mask", str(tmp_path / "rough.png"), "--overwrite", "--quiet")
    assert (code, said, (out / "masks" / "a.png").read_bytes()) == (0, "", first)


@pytest.mark.parametrize(
    ("arguments", "images", "said"),
    [
        ((), ("a.png",), "error nothing was named"),
        (("--categories", "a", "--text", "b"), ("a.png",), "error --categories and --text were given"),
        (("--text", "b"), ("missing.png",), "missing.png does not exist"),
        (("--text", "b"), ("notes.txt",), "notes.txt: 5 bytes are no JPEG or PNG"),
        (("--box", "1:0,0,500,10"), ("a.png",), "error --box 1:0,0,500,10"),
        (("--text", "b", "--resume"), ("a.png",), "--resume: "),
        (("--text", "b", "--weights", "nowhere"), ("a.png",), "no such folder"),
    ],
)
def test_what_a_user_can_mend_is_one_clean_line(segment, pictures, arguments, images, said):
    (pictures / "notes.txt").write_text("hello")
    code, output, _ = segment(*arguments, images=images)
    assert code == 2
    assert said in output
    assert "Traceback" not in output


def test_results_are_not_replaced_unasked(segment):
    segment(*WAYS["point"])
    code, said, _ = segment(*WAYS["point"])
    assert (code, "is not empty" in said) == (2, True)
    assert segment(*WAYS["point"], "--resume")[0] == 0
