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
