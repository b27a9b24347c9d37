"""Does a long run grow? python -m psalm_stream.eval.memory VIDEO [PROMPT FLAGS...]

Loops a video to 3,000 frames, runs `psalm-stream run` on it as a process of its own, and reports its resident memory from frame 200 on and
at the end, with how often the objects were seen or carried. Within a frame tensors of tens of megabytes come and go, and where the heap
puts the largest of them makes 16 MB for minutes: each figure is the median of the samples of 300 frames, with the least and the most of
them. Ends with 1 when it has grown by more than 20 MB.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from itertools import islice
from pathlib import Path
from statistics import median

import psutil
from rich.console import Console
from rich.progress import track

from ..stream.sinks import VideoWriter
from ..stream.sources import open_source

EARLY, WINDOW = 200, 300  # frames
BAR_MB = 20


def loop_video(video: str, frames: int, out: Path) -> None:
    """Write `frames` frames of a video, over and over, as an mp4."""
    with open_source(video, session="loop") as source:
        fps, once = source.fps, [frame.pixels() for frame in islice(source, frames)]
    with closing(VideoWriter(out, fps)) as writer:
        for index in track(range(frames), description="looping"):
            writer.write(once[index % len(once)])


def watch(command: list[str], masks: Path) -> list[tuple[int, float]]:
    """Run a command; (masks written, resident megabytes), sampled ten times a second until it ends."""
    seen: list[tuple[int, float]] = []
    process = psutil.Popen(command)
    while process.poll() is None:
        written = sum(1 for _ in masks.glob("*.png")) if masks.exists() else 0
        try:
            if rss := process.memory_info().rss:  # 0: it has just ended
                seen.append((written, rss / 2**20))
        except psutil.NoSuchProcess:
            break
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return seen


def main() -> None:
    """Command line of the measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video")
    parser.add_argument("--frames", type=int, default=3000)
    given, prompts = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        looped, results = Path(folder) / "looped.mp4", Path(folder) / "results"
        loop_video(given.video, given.frames, looped)
        program = str(Path(sys.executable).with_name("psalm-stream"))
        rss = watch([program, "run", str(looped), "--out", str(results), *prompts], results / "masks")
        answers = [json.loads(line) for line in (results / "masks.jsonl").read_text().splitlines()]
    last = rss[-1][0]
    early, late = (sorted(mb for n, mb in rss if start <= n < start + WINDOW) for start in (EARLY, last - WINDOW + 1))
    statuses = {i: Counter(o["status"] for a in answers for o in a["objects"] if o["object_id"] == i) for i in _ids(answers)}
    console = Console()
    growth = median(late) - median(early)
    console.print(f"resident memory after {EARLY} frames: {_spread(early)}; after {last}: {_spread(late)}", soft_wrap=True)
    console.print(f"growth: {growth:+.0f} MB (bar {BAR_MB})")
    for object_id, counts in statuses.items():
        there = (counts["seen"] + counts["carried"]) / len(answers)
        console.print(f"object {object_id}: seen or carried on {there:.1%} of {len(answers)} frames {dict(counts)}", soft_wrap=True)
    if growth > BAR_MB:
        raise SystemExit(1)


def _spread(megabytes: list[float]) -> str:
    return f"{median(megabytes):.0f} MB ({megabytes[0]:.0f} to {megabytes[-1]:.0f})"


def _ids(answers: list[dict]) -> list[int]:
    return sorted({o["object_id"] for answer in answers for o in answer["objects"]})


if __name__ == "__main__":
    main()
