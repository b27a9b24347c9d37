from contextlib import closing

import pytest
from scene import frames


@pytest.fixture
def clip_folder(tmp_path):
    """Five frames of the drawn scene as a folder of pictures."""
    folder = tmp_path / "clip"
    folder.mkdir()
    for frame in frames(5):
        (folder / f"{frame.key.index:05}.png").write_bytes(frame.data)
    return folder


@pytest.fixture
def source_log(servers):
    """A log of two partitions, for sources."""
    from source_log import SourceTestLog

    with closing(SourceTestLog(servers.kafka.address)) as log:
        yield log


@pytest.fixture
def start_ingest(source_log):
    """Start an ingest worker on that log, as often as called; returns it."""
    from source_log import IngestThreads

    with closing(IngestThreads(source_log)) as workers:
        yield workers.start
