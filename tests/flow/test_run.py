"""`psalm-stream run`: from a folder of pictures to a folder of results, and every way a user can get it wrong."""

import json
import shutil
import subprocess
import sys

import av
import numpy as np
import pytest
import torch
from PIL import Image
from psalm_stream.psalm.config import NAMED_CONFIGS
from psalm_stream.psalm.model import Psalm
from psalm_stream.psalm.tracker import Rules
from psalm_stream.psalm.train.shipping import save_checkpoint, train_tokenizer
from psalm_stream.stream.codec import mask_frame_from_json
from psalm_stream.stream.errors import BadPrompt
from psalm_stream.stream.sources import open_source
from psalm_stream.workers.cli.app import app
from psalm_stream.workers.prompt_flags import PromptFlags
from psalm_stream.workers.run import Job, run
from psalm_stream.workers.settings import Settings
from psalm_stream.workers.tally import Tally
from scene import SIZE_HW, ColourSegmenter, mask_of
from typer.testing import CliRunner

BOX = "1:6,4,30,22"  # object 1 on frame 0


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A model of nano's sizes that has learnt nothing: what it proposes does not matter here."""
    folder = tmp_path_factory.mktemp("untrained")
    config = NAMED_CONFIGS["nano"]
    train_tokenizer(folder, config.phi.vocab_size)
    torch.manual_seed(0)
    save_checkpoint(Psalm(config), folder)
    return folder


def mask_file(path, *object_ids, index=0):
    values = np.zeros(SIZE_HW, np.uint8)
    for object_id in object_ids:
        values[mask_of(object_id, index)] = object_id
    image = Image.fromarray(values)
    image.putpalette([0, 0, 0] + [128] * 765)
    image.save(path)
    return path


def job(clip, out, **flags):
    return Job(str(clip), out, PromptFlags(**flags).parse(), Settings())


def run_job(job, on_answer=lambda answer: None):
    tally = Tally()
    with open_source(job.url, session="run", limit=job.limit) as source:
        run(job, source, ColourSegmenter(), Rules(), tally, on_answer)
    return tally


def lines(out):
    return [mask_frame_from_json(json.loads(line)) for line in (out / "masks.jsonl").read_text().splitlines()]


def ids(out, index):
    return np.array(Image.open(out / "masks" / f"{index:05}.png"))


def count_pictures(video):
    with av.open(str(video)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_the_results_are_a_mask_and_a_line_for_every_frame_a_video_and_a_record(clip_folder, tmp_path):
    out = tmp_path / "out"
    run_job(job(clip_folder, out, boxes=["1@1:8,4,32,22"]))
    assert sorted(p.name for p in out.iterdir()) == ["masks", "masks.jsonl", "overlay.mp4", "run.json"]
    assert sorted(p.name for p in (out / "masks").iterdir()) == [f"{i:05}.png" for i in range(5)]
    assert [line.key.index for line in lines(out)] == [0, 1, 2, 3, 4]
    assert count_pictures(out / "overlay.mp4") == 5
    assert not ids(out, 0).any()
    assert (ids(out, 4) == mask_of(1, 4)).mean() > 0.99


def test_a_mask_file_comes_back_as_it_was_given(clip_folder, tmp_path):
    given = mask_file(tmp_path / "given.png", 1, 2)
    run_job(job(clip_folder, tmp_path / "out", masks=[str(given)]))
    assert (ids(tmp_path / "out", 0) == np.array(Image.open(given))).all()


def test_two_runs_write_the_same_but_for_the_times(clip_folder, tmp_path):
    given = str(mask_file(tmp_path / "given.png", 1, 2))
    for name in ("first", "second"):
        run_job(job(clip_folder, tmp_path / name, masks=[given]))
    first, second = (json.loads((tmp_path / name / "run.json").read_text()) for name in ("first", "second"))
    assert lines(tmp_path / "first") == lines(tmp_path / "second")
    assert all((ids(tmp_path / "first", i) == ids(tmp_path / "second", i)).all() for i in range(5))
    assert {k for k in first if first[k] != second[k]} <= {"ms", "seconds"}
    assert first["answers_sha256"] == second["answers_sha256"]


def test_the_record_says_what_was_run_and_what_came_of_it(clip_folder, tmp_path):
    given = str(mask_file(tmp_path / "given.png", 1, 2))
    run_job(job(clip_folder, tmp_path / "out", masks=[given]))
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["input"] == str(clip_folder)
    assert record["prompts"] == [f"--mask {given}"]
    assert record["weights_digest"] == "colour"
    assert record["settings"]["policy"] == "honest"
    assert (record["frames"], record["objects"], record["masks"]["seen"], record["stopped_by"]) == (5, [1, 2], 10, None)
    assert set(record["ms"]) == {"read", "decode", "plan", "model", "settle", "write"}


def test_a_run_that_is_interrupted_leaves_readable_results(clip_folder, tmp_path):
    def interrupt(answer):
        if answer.key.index == 2:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run_job(job(clip_folder, out, boxes=[BOX]), interrupt)
    assert len(lines(out)) == len(list((out / "masks").iterdir())) == count_pictures(out / "overlay.mp4") == 3
    assert json.loads((out / "run.json").read_text())["stopped_by"] == "KeyboardInterrupt"


def test_a_mask_that_does_not_fit_a_later_picture_is_named_and_the_results_before_are_kept(clip_folder, tmp_path):
    narrow = tmp_path / "narrow.png"
    Image.fromarray(np.ones((72, 95), np.uint8)).save(narrow)
    with pytest.raises(BadPrompt, match=r"--mask .*narrow\.png@3.*72, 95.*72, 96"):
        run_job(job(clip_folder, tmp_path / "out", boxes=[BOX], masks=[f"{narrow}@3"]))
    assert len(lines(tmp_path / "out")) == 3


def test_a_prompt_on_a_frame_that_is_no_picture_is_refused_and_does_not_move_to_the_next(clip_folder, tmp_path):
    clip = shutil.copytree(clip_folder, tmp_path / "broken")
    broken = sorted(clip.iterdir())[2]
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(BadPrompt, match=r"--box 2@2:1,2,9,9: .*run/main/2.*another frame"):
        run_job(job(clip, tmp_path / "out", boxes=[BOX, "2@2:1,2,9,9"]))
    assert len(lines(tmp_path / "out")) == 2


def test_a_prompt_beyond_the_last_frame_is_an_error_and_the_results_are_kept(clip_folder, tmp_path):
    with pytest.raises(BadPrompt, match=r"after 5 frames.*frame 9 \(object 2\)"):
        run_job(job(clip_folder, tmp_path / "out", boxes=[BOX, "2@9:1,2,3,4"]))
    assert len(lines(tmp_path / "out")) == 5
    assert "frame 9" in json.loads((tmp_path / "out" / "run.json").read_text())["stopped_by"]


# -- the program ----------------------------------------------------------------------------------------------------------


def psalm_stream(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200", "PSALM_THREADS": "1"})


def test_the_program_segments_a_clip_and_says_what_it_found(clip_folder, tmp_path, checkpoint):
    given = mask_file(tmp_path / "given.png", 1, 2)
    result = psalm_stream("run", clip_folder, "--out", tmp_path / "out", "--mask", given, "--weights", checkpoint)
    assert result.exit_code == 0, result.output
    assert "5 frames" in result.output
    assert "objects 1, 2" in result.output
    assert (ids(tmp_path / "out", 0) == np.array(Image.open(given))).all()
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["settings"]["threads"] == record["threads"] == 1


def test_quiet_prints_nothing(clip_folder, tmp_path, checkpoint):
    arguments = ("--box", BOX, "--weights", checkpoint, "--quiet", "--no-overlay", "--limit", 2)
    result = psalm_stream("run", clip_folder, "--out", tmp_path / "out", *arguments)
    assert (result.exit_code, result.output) == (0, "")
    assert not (tmp_path / "out" / "overlay.mp4").exists()
    assert len(lines(tmp_path / "out")) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--point 1:320,180"),
        (["--box", "1:1,2"], "expected ID[@FRAME]:x0,y0,x1,y1"),
        (["--box", "1:1,2,300,4"], "--box 1:1,2,300,4"),
        (["--point", "1@3:1,nan"], "nan"),
        (["--box", BOX, "--point", "1:3,4"], "two shapes on frame 0"),
        (["--mask", "nowhere.png"], "nowhere.png does not exist"),
        (["--box", BOX, "--policy", "fair"], "--policy is 'fair'"),
        (["--box", BOX, "--weights", "nowhere"], "nowhere"),
        (["--box", BOX, "--device", "abacus"], "device is 'abacus', available here: cpu"),
        (["--box", BOX, "--box", "2@5:1,2,3,4"], "--box 2@5:1,2,3,4: frame 5 never comes, the run has frames 0 to 4"),
        (["--box", BOX, "--box", "2@3:1,2,3,4", "--limit", 3], "frame 3 never comes, the run has frames 0 to 2"),
        (["--box", BOX, "--policy", "official", "--motion", "only"], "policy 'official' always runs the model"),
        (["--box", BOX, "--policy", "official", "--oracle", "gone"], "--oracle gone holds no *.png"),
        (["--mask", "a:x:[b].png"], "mask a:x:[b].png does not exist"),
    ],
)
def test_a_mistake_is_one_message_exit_code_2_and_no_results_folder(clip_folder, tmp_path, arguments, said):
    result = psalm_stream("run", clip_folder, "--out", tmp_path / "out", *arguments)
    assert result.exit_code == 2
    assert said in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_an_input_that_is_not_there_is_named(tmp_path):
    result = psalm_stream("run", tmp_path / "gone.mp4", "--out", tmp_path / "out", "--box", BOX)
    assert (result.exit_code, "gone.mp4" in result.output) == (2, True)


def test_a_results_folder_that_cannot_be_made_is_named(clip_folder, tmp_path, checkpoint):
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "out"
    result = psalm_stream("run", clip_folder, "--out", out, "--box", BOX, "--weights", checkpoint)
    assert result.exit_code == 2
    assert f"--out {out} cannot be written" in result.output


def test_the_official_numbers_are_switched_on_by_flags_and_recorded(clip_folder, tmp_path, checkpoint):
    plain, official = tmp_path / "plain", tmp_path / "official"
    arguments = ("run", clip_folder, "--box", BOX, "--weights", checkpoint, "--limit", 1)
    assert psalm_stream(*arguments, "--out", plain).exit_code == 0
    assert psalm_stream(*arguments, "--out", official, "--official-rounding", "--sampled-regions").exit_code == 0
    before, after = (json.loads((out / "run.json").read_text()) for out in (plain, official))
    assert (before["settings"]["official_rounding"], before["settings"]["sampled_regions"]) == (False, False)
    assert (after["settings"]["official_rounding"], after["settings"]["sampled_regions"]) == (True, True)
    assert after["weights_digest"] == before["weights_digest"] + "-rounded"


def test_an_oracle_is_refused_with_the_honest_policy(clip_folder, tmp_path, checkpoint):
    mask_file(tmp_path / "00000.png", 1)
    result = psalm_stream("run", clip_folder, "--out", tmp_path / "o", "--box", BOX, "--oracle", tmp_path, "--weights", checkpoint)
    assert (result.exit_code, "oracle" in result.output) == (2, True)


def test_an_oracle_that_leaves_frames_out_is_refused(clip_folder, tmp_path, checkpoint):
    oracle = tmp_path / "oracle"
    oracle.mkdir()
    for index in (0, 5):
        mask_file(oracle / f"{index:05}.png", 1, index=index)
    arguments = ("--mask", oracle / "00000.png", "--policy", "official", "--oracle", oracle, "--weights", checkpoint)
    result = psalm_stream("run", clip_folder, "--out", tmp_path / "o", *arguments)
    assert (result.exit_code, "skips from 00000.png to 00005.png" in " ".join(result.output.split())) == (2, True)


def test_the_official_policy_asks_only_for_what_its_oracle_names(clip_folder, tmp_path, checkpoint):
    oracle = tmp_path / "oracle"
    oracle.mkdir()
    for index, object_ids in enumerate([(1, 2), (1, 2), (1,), (1,), (1, 2)]):
        mask_file(oracle / f"{index:05}.png", *object_ids, index=index)
    arguments = ("--mask", oracle / "00000.png", "--policy", "official", "--oracle", oracle, "--weights", checkpoint)
    assert psalm_stream("run", clip_folder, "--out", tmp_path / "out", *arguments).exit_code == 0
    absent = [{o.object_id for o in line.objects if o.status == "absent"} for line in lines(tmp_path / "out")]
    assert [2 in gone for gone in absent[2:4]] == [True, True]


def test_a_run_that_is_terminated_leaves_readable_results(clip_folder, tmp_path, checkpoint):
    for index in range(5, 400):
        shutil.copy(clip_folder / "00001.png", clip_folder / f"{index:05}.png")
    out = tmp_path / "out"
    program = [sys.executable, "-c", "from psalm_stream.workers.cli.app import main; main()"]
    process = subprocess.Popen([*program, "run", clip_folder, "--out", out, "--box", BOX, "--weights", checkpoint, "--quiet"])
    while not (out / "masks" / "00003.png").exists():
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.05)
    process.terminate()
    assert process.wait(60) == 130
    record = json.loads((out / "run.json").read_text())
    assert record["stopped_by"] == "KeyboardInterrupt"
    assert len(lines(out)) >= 3
    with av.open(str(out / "overlay.mp4")) as video:
        assert len(list(video.decode(video=0))) >= 3


def test_results_that_are_there_are_kept_unless_overwritten(clip_folder, tmp_path, checkpoint):
    out = tmp_path / "out"
    (out / "masks").mkdir(parents=True)
    (out / "masks" / "00099.png").write_bytes(b"of an earlier run")
    (out / "notes.txt").write_text("mine")
    arguments = ("run", clip_folder, "--out", out, "--box", BOX, "--weights", checkpoint, "--limit", 1)
    refused = psalm_stream(*arguments)
    assert (refused.exit_code, "--overwrite" in refused.output) == (2, True)
    assert psalm_stream(*arguments, "--overwrite").exit_code == 0
    assert [p.name for p in (out / "masks").iterdir()] == ["00000.png"]
    assert (out / "notes.txt").read_text() == "mine"


def test_inspecting_a_checkpoint_that_fits_says_so(checkpoint):
    result = psalm_stream("weights", "inspect", checkpoint)
    assert result.exit_code == 0
    assert "nano" in result.output
    assert "fits" in result.output


def test_inspecting_nano_names_the_three_inputs_psalm_lacks():
    said = " ".join(psalm_stream("weights", "inspect", "nano").output.split())
    assert "inputs PSALM lacks" in said
    assert all(words in said for words in ("carried mask", "likeness of colours", "ring around it"))


def test_inspecting_a_checkpoint_that_does_not_fit_exits_with_1(checkpoint, tmp_path):
    from safetensors.torch import load_file, save_file

    tensors = load_file(checkpoint / "model.safetensors")
    lost = sorted(tensors)[0]
    del tensors[lost]
    save_file(tensors, tmp_path / "model.safetensors")
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((checkpoint / name).read_bytes())
    result = psalm_stream("weights", "inspect", tmp_path)
    assert result.exit_code == 1
    assert lost in result.output


def test_the_version_and_the_help_start_without_torch():
    code = "import sys; from psalm_stream.workers.cli.app import app\ntry: app(['--version'])\nfinally: assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()[0]) == (0, "psalm-stream"), done.stderr
