"""run.json of `psalm-stream run`, `segment` and `eval`: what it takes to get the same masks again, and nothing secret."""

import json

import pytest
from psalm_stream.psalm.tracker import Rules
from psalm_stream.stream.sources import open_source
from psalm_stream.workers.images import ImageJob
from psalm_stream.workers.naming import naming
from psalm_stream.workers.picture_files import record_of
from psalm_stream.workers.prompt_flags import PromptFlags
from psalm_stream.workers.run import Job, run
from psalm_stream.workers.run_files import RECORD
from psalm_stream.workers.settings import MASK_KNOBS, Settings, read_settings
from psalm_stream.workers.tally import Tally
from scene import ColourSegmenter

BOX = "1:6,4,30,22"  # object 1 on frame 0
PASSWORD = "hush-hush"


def run_job(clip, out, settings=None, **flags):
    """Run a clip with a model that finds things by their colour; returns its record."""
    job = Job(str(clip), out, PromptFlags(**(flags or {"boxes": [BOX]})).parse(), settings or Settings())
    with open_source(job.url, session="run") as source:
        run(job, source, ColourSegmenter(), Rules(), Tally(), lambda answer: None)
    return json.loads((out / RECORD).read_text())


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
