"""run.json of `psalm-stream run`, `segment` and `eval`: what it takes to get the same masks again, and nothing secret."""

import hashlib
import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from psalm_stream.psalm.tracker import Rules
from psalm_stream.stream.sinks import VideoWriter
from psalm_stream.stream.sources import open_source
from psalm_stream.workers.cli.app import app
from psalm_stream.workers.images import ImageJob
from psalm_stream.workers.naming import naming
from psalm_stream.workers.picture_files import record_of
from psalm_stream.workers.prompt_flags import PromptFlags
from psalm_stream.workers.run import Job, digests, run
from psalm_stream.workers.run_files import RECORD
from psalm_stream.workers.settings import MASK_KNOBS, Settings, read_settings
from psalm_stream.workers.tally import Tally
from scene import ColourSegmenter, frames, mask_of
from typer.testing import CliRunner

BOX = "1:6,4,30,22"  # object 1 on frame 0
PASSWORD = "hush-hush"


def run_job(clip, out, settings=None, **flags):
    """Run a clip with a model that finds things by their colour; returns its record."""
    job = Job(str(clip), out, PromptFlags(**(flags or {"boxes": [BOX]})).parse(), settings or Settings())
    with open_source(job.url, session="run") as source:
        run(job, source, ColourSegmenter(), Rules(), Tally(), lambda answer: None)
    return json.loads((out / RECORD).read_text())


def mask_file(path, object_id, index=0):
    Image.fromarray((mask_of(object_id, index) * object_id).astype(np.uint8)).save(path)
    return str(path)


# -- again --------------------------------------------------------------------------------------------------------------


def test_a_mask_file_that_was_changed_shows_in_the_record(clip_folder, tmp_path):
    given = mask_file(tmp_path / "given.png", 1)
    before = run_job(clip_folder, tmp_path / "before", masks=[given])
    mask_file(tmp_path / "given.png", 1, index=1)
    after = run_job(clip_folder, tmp_path / "after", masks=[given])
    assert before["prompts"] == after["prompts"]
    assert set(before["files_sha256"]) == set(after["files_sha256"]) == {given}  # a folder of pictures has no digest
    assert before["files_sha256"] != after["files_sha256"]


def test_a_video_and_several_masks_are_in_the_record_by_their_digests(clip_folder, tmp_path):
    with closing(VideoWriter(tmp_path / "clip.mp4", 25)) as video:
        for picture in frames(3):
            video.write(picture.pixels())
    masks = [mask_file(tmp_path / f"{object_id}.png", object_id) for object_id in (1, 2)]
    record = run_job(tmp_path / "clip.mp4", tmp_path / "out", masks=masks)
    expected = [str(tmp_path / "clip.mp4"), *masks]
    assert record["files_sha256"] == {path: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in expected}


def test_an_address_is_no_file_however_long_it_is():
    assert digests(Job(f"https://host/{'x' * 300}.mp4", Path("out"), (), Settings())) == {}


def call(arguments, settings=()):
    """Run the program with settings from the environment; returns its record."""
    environment = {f"PSALM_{name.upper()}": str(value) for name, value in dict(settings).items() if value is not None}
    result = CliRunner().invoke(app, ["run", *arguments, "--no-overlay", "--quiet"], env=environment)
    assert result.exit_code == 0, result.output
    return json.loads((Path(arguments[arguments.index("--out") + 1]) / RECORD).read_text())


def test_what_a_record_says_gives_the_same_answers_again_with_nano(clip_folder, tmp_path):
    given = ["--mask", mask_file(tmp_path / "given.png", 2), "--point", "1:12,10", "--point", "1:20,16", "--limit", "3"]
    first = call([str(clip_folder), "--out", str(tmp_path / "first"), *given], {"sampled_regions": True, "threads": 1})
    said = [word for prompt in first["prompts"] for word in prompt.split()]
    again = call([first["input"], "--out", str(tmp_path / "again"), *said, "--limit", str(first["limit"])], first["settings"])
    assert (first["frames"], first["objects"]) == (3, [1, 2])
    assert {k for k in first if first[k] != again[k]} <= {"ms", "seconds"}
    plain = call([str(clip_folder), "--out", str(tmp_path / "plain"), *given], {"threads": 1})
    assert plain["answers_sha256"] != first["answers_sha256"]  # so the settings were needed


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def connected(monkeypatch):
    """Settings of an environment whose Redis has a password."""
    monkeypatch.setenv("PSALM_REDIS", f"redis://worker:{PASSWORD}@localhost:6379/0")
    settings = read_settings()
    assert PASSWORD in settings.redis
    return settings


def test_the_record_of_a_run_holds_the_settings_of_masks_and_no_password(clip_folder, tmp_path, connected):
    record = run_job(clip_folder, tmp_path / "out", connected)
    assert set(record["settings"]) == set(MASK_KNOBS)
    assert PASSWORD not in (tmp_path / "out" / RECORD).read_text()


def test_the_record_of_pictures_holds_the_settings_of_masks_and_no_password(clip_folder, tmp_path, connected):
    pictures = tuple(sorted(clip_folder.iterdir()))
    record = record_of(ImageJob(pictures, naming(None, None, ["the red one"], PromptFlags()), tmp_path / "out", connected), "digest")
    assert set(record["settings"]) == set(MASK_KNOBS)
    assert PASSWORD not in json.dumps(record)
