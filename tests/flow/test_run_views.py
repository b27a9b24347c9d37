"""`psalm-stream run --view ...`: two views of a scene into one results folder."""

import json
import shutil

import av
import cv2
import numpy as np
import pytest
from PIL import Image
from psalm_stream.psalm.tracker import Rules
from psalm_stream.stream.codec import mask_frame_from_json
from psalm_stream.stream.errors import BadPrompt, SourceFailed
from psalm_stream.stream.views import View
from psalm_stream.workers.cli.app import app
from psalm_stream.workers.prompt_flags import PromptFlags
from psalm_stream.workers.run import Job, rules_of, run
from psalm_stream.workers.settings import Settings
from psalm_stream.workers.tally import Tally
from scene import ColourSegmenter, frames, mask_of, picture
from typer.testing import CliRunner

COUNT = 6


@pytest.fixture
def views(tmp_path):
    """Folders of the drawn scene as `ego` sees it, and mirrored as `exo` does."""
    for name in ("ego", "exo"):
        (tmp_path / name).mkdir()
    for index in range(COUNT):
        (tmp_path / "ego" / f"{index:05}.png").write_bytes(picture(index))
        mirrored = cv2.imdecode(np.frombuffer(picture(index), np.uint8), cv2.IMREAD_COLOR)[:, ::-1]
        cv2.imwrite(str(tmp_path / "exo" / f"{index:05}.png"), mirrored)
    return View("ego", str(tmp_path / "ego")), View("exo", str(tmp_path / "exo"))


def run_views(views, out, **flags):
    """Run with a model that finds things by their colour; returns the tally."""
    flags = flags or {"boxes": ["ego/1:6,4,30,22", "ego/2:6,26,30,44"]}
    job = Job("", out, PromptFlags(**flags).parse([view.name for view in views]), Settings(), views=tuple(views))
    tally = Tally()
    with job.open() as source:
        job.refuse_misfits(source)
        run(job, source, ColourSegmenter(), Rules(), tally, lambda answer: None)
    return tally


def record(out):
    return json.loads((out / "run.json").read_text())


def ids(out, view, index):
    return np.array(Image.open(out / view / "masks" / f"{index:05}.png"))


def lines(out, view):
    return [mask_frame_from_json(json.loads(line)) for line in (out / view / "masks.jsonl").read_text().splitlines()]


def truth(view, index):
    """Label map of a frame."""
    labels = np.zeros(mask_of(1, 0).shape, int)
    for object_id in (1, 2):
        mask = mask_of(object_id, index)
        labels[mask if view == "ego" else mask[:, ::-1]] = object_id
    return labels


def test_each_view_has_its_folder_and_what_is_about_all_lies_beside_them(views, tmp_path):
    out = tmp_path / "out"
    run_views(views, out)
    assert sorted(p.name for p in out.iterdir()) == ["ego", "exo", "overlay.mp4", "run.json"]
    for view in ("ego", "exo"):
        assert sorted(p.name for p in (out / view).iterdir()) == ["masks", "masks.jsonl"]
        assert [p.name for p in sorted((out / view / "masks").iterdir())] == [f"{i:05}.png" for i in range(COUNT)]
        assert [(line.key.view, line.key.index) for line in lines(out, view)] == [(view, i) for i in range(COUNT)]


def test_objects_named_in_one_view_have_their_ids_and_masks_in_the_other(views, tmp_path):
    run_views(views, tmp_path / "out")
    for view in ("ego", "exo"):
        for index in range(COUNT):
            assert (ids(tmp_path / "out", view, index) == truth(view, index)).mean() > 0.99


def test_the_overlay_shows_a_picture_a_moment_as_wide_as_both_views(views, tmp_path):
    run_views(views, tmp_path / "out")
    with av.open(str(tmp_path / "out" / "overlay.mp4")) as video:
        pictures = list(video.decode(video=0))
    assert len(pictures) == COUNT
    assert (pictures[0].height, pictures[0].width) == (72, 96 + 4 + 96)


def test_the_record_describes_every_view(views, tmp_path):
    out = tmp_path / "out"
    later = (views[0], View("exo", views[1].url, offset_ns=200_000_000))
    tally = run_views(later, out)
    found = record(out)
    assert "input" not in found
    assert {view: (told["input"], told["offset_s"]) for view, told in found["views"].items()} == {
        "ego": (views[0].url, 0.0),
        "exo": (views[1].url, 0.2),
    }
    assert {view: (told["frames"], told["objects"]) for view, told in found["views"].items()} == dict.fromkeys(("ego", "exo"), (6, [1, 2]))
    assert found["views"]["ego"]["answers_sha256"] != found["views"]["exo"]["answers_sha256"] != found["answers_sha256"] == tally.digest()
    assert found["prompts"] == ["--box ego/1:6,4,30,22", "--box ego/2:6,26,30,44"]
    assert found["settings"]["max_skew_s"] == 0.5


def test_two_runs_write_the_same(views, tmp_path):
    first, second = (run_views(views, tmp_path / name).digest() for name in ("first", "second"))
    assert first == second


def test_a_view_that_ends_early_leaves_the_other_to_go_on(views, tmp_path):
    for index in range(2, COUNT):
        (tmp_path / "ego" / f"{index:05}.png").unlink()
    run_views(views, tmp_path / "out")
    assert [len(lines(tmp_path / "out", view)) for view in ("ego", "exo")] == [2, COUNT]
    assert (ids(tmp_path / "out", "exo", COUNT - 1) == truth("exo", COUNT - 1)).mean() > 0.99


def test_a_damaged_view_is_an_error_once_the_others_are_through(views, tmp_path):
    (tmp_path / "exo" / "00003.png").write_bytes(b"no picture")
    with pytest.raises(SourceFailed, match=r"^view exo: .*00003\.png"):
        run_views(views, tmp_path / "out")
    assert [len(lines(tmp_path / "out", view)) for view in ("ego", "exo")] == [COUNT, 3]
    assert record(tmp_path / "out")["stopped_by"].startswith("SourceFailed: view exo")


def test_what_was_named_is_answered_as_if_its_view_were_alone(views, tmp_path):
    run_views(views, tmp_path / "both")
    alone = Job(views[0].url, tmp_path / "alone", PromptFlags(boxes=["1:6,4,30,22", "2:6,26,30,44"]).parse(), Settings())
    with alone.open() as source:
        run(alone, source, ColourSegmenter(), Rules(), Tally(), lambda answer: None)
    for index in range(COUNT):
        own = (tmp_path / "alone" / "masks" / f"{index:05}.png").read_bytes()
        assert (tmp_path / "both" / "ego" / "masks" / f"{index:05}.png").read_bytes() == own


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"boxes": ["ego/1:6,4,30,22", "exo/2@9:1,2,3,4"]}, r"--box exo/2@9:1,2,3,4: frame 9 never comes, view exo has frames 0 to 5"),
        ({"boxes": ["exo/1:6,4,300,22"]}, r"--box exo/1:6,4,300,22: box is"),
    ],
)
def test_a_shape_that_does_not_fit_its_view_is_refused_before_anything_is_computed(views, tmp_path, flags, said):
    with pytest.raises(BadPrompt, match=said):
        run_views(views, tmp_path / "out", **flags)
    assert not (tmp_path / "out").exists()


def test_a_shape_is_held_against_the_frames_of_its_own_view(views, tmp_path):
    for path in (tmp_path / "exo").iterdir():
        cv2.imwrite(str(path), cv2.copyMakeBorder(cv2.imread(str(path)), 0, 0, 0, 40, cv2.BORDER_REPLICATE))
    tally = run_views(views, tmp_path / "out", boxes=["ego/1:6,4,30,22", "exo/2@1:100,26,130,44"])
    assert tally.frames == 2 * COUNT


def test_the_rules_of_a_run_join_its_views_as_the_settings_say(views, tmp_path):
    assert rules_of(Job("", tmp_path, (), Settings(max_skew_s=0.125), views=views)).max_skew_s == 0.125


def test_a_prompt_whose_frame_never_comes_names_its_view(views, tmp_path):
    job = Job(
        "", tmp_path / "out", PromptFlags(boxes=["ego/1:6,4,30,22", "exo/2@9:1,2,3,4"]).parse(["ego", "exo"]), Settings(), views=views
    )
    with job.open() as source, pytest.raises(BadPrompt, match=r"view exo frame 9 \(object 2\)"):
        run(job, source, ColourSegmenter(), Rules(), Tally(), lambda answer: None)


def test_results_of_an_earlier_run_are_replaced_and_nothing_else(views, tmp_path):
    out = tmp_path / "out"
    for folder in (out / "masks", out / "ego" / "masks"):
        folder.mkdir(parents=True)
        (folder / "00099.png").touch()
    (out / "ego" / "notes.txt").write_text("mine")
    run_views(views, out)
    assert not (out / "masks").exists()
    assert sorted(p.name for p in (out / "ego").iterdir()) == ["masks", "masks.jsonl", "notes.txt"]
    assert len(list((out / "ego" / "masks").iterdir())) == COUNT


# -- the program -------------------------------------------------------------------------------------------------------


def psalm_stream(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200", "PSALM_THREADS": "1"})


def test_the_program_runs_views_and_says_what_it_found_in_each(views, tmp_path):
    flags = [f"--view={view.name}={view.url}" for view in views]
    given = tmp_path / "first.png"
    Image.fromarray(truth("ego", 0).astype(np.uint8)).save(given)
    prompts = ["--mask", f"ego/{given}", "--point", "exo/7@1:3,3"]
    result = psalm_stream("run", *flags, "--offset", "exo=0.01", *prompts, "--out", tmp_path / "out", "--limit", 2)
    assert result.exit_code == 0, result.output
    assert "  ego: 2 frames; objects 1, 2" in result.output
    assert "  exo: 2 frames; objects" in result.output
    assert "ego/, exo/, overlay.mp4, run.json" in result.output
    assert (ids(tmp_path / "out", "ego", 0) == truth("ego", 0)).all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--box", "1:6,4,30,22"], "--box 1:6,4,30,22: names no view, expected VIEW/ID[@FRAME]:x0,y0,x1,y1"),
        (["--box", "top/1:6,4,30,22"], "--box top/1:6,4,30,22: view 'top' is none of this run, expected VIEW/"),
        (["--mask", "first.png"], "--mask first.png: names no view, expected VIEW/FILE[@FRAME]"),
        (["--point", "ego/1:6"], "--point ego/1:6: '6' is not 2 numbers"),
        ([], "--point ego/1:320,180"),
        (["--box", "ego/1:6,4,30,22", "--offset", "top=1"], "view 'top' is not there, expected one of ego, exo"),
        (["--box", "ego/1:6,4,30,22", "--view", "ego=again"], "view 'ego' was given before"),
        (["--box", "ego/1:6,4,30,22", "--view", "top=gone.mp4"], "view top: input gone.mp4: no such file"),
        (["--box", "ego/1:6,4,30,22", "--policy", "official"], "--policy is official"),
        (["--box", "ego/1:6,4,30,22", "--max-skew-s", "-1"], "--max-skew-s is -1.0"),
        (["film.mp4", "--box", "ego/1:6,4,30,22"], "INPUT film.mp4 and --view"),
    ],
)
def test_a_mistake_is_one_message_exit_code_2_and_no_results_folder(views, tmp_path, arguments, said):
    flags = [f"--view={view.name}={view.url}" for view in views]
    result = psalm_stream("run", *flags, "--out", tmp_path / "out", *arguments)
    assert result.exit_code == 2
    assert said in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_a_run_of_neither_an_input_nor_views_is_refused(tmp_path):
    result = psalm_stream("run", "--out", tmp_path / "out", "--box", "1:6,4,30,22")
    assert (result.exit_code, "nothing is to be run" in result.output) == (2, True)


def test_a_clip_copied_under_two_names_is_two_views(tmp_path):
    clip = tmp_path / "a"
    clip.mkdir()
    for frame in frames(3):
        (clip / f"{frame.key.index:05}.png").write_bytes(frame.data)
    shutil.copytree(clip, tmp_path / "b")
    tally = run_views((View("a", str(clip)), View("b", str(tmp_path / "b"))), tmp_path / "out", boxes=["b/1:6,4,30,22"])
    assert {view: own.masks["seen"] for view, own in tally.views.items()} == {"a": 2, "b": 3}  # a's first frame comes before b's prompt
