"""JPEG and PNG bytes: their displayed size from the header, and their pixels.

One decoder for everybody (OpenCV), so that whoever looks at a frame sees the same pixels. Sources and messages know only bytes.
"""

from __future__ import annotations

import io
import warnings

import numpy as np

from .errors import Undecodable

MAX_PIXELS = 2**26  # 8192 x 8192: a header of a few bytes may not make a worker ask for gigabytes


def displayed_size(data: bytes) -> tuple[int, int]:
    """(H, W) as displayed, from the header alone. Raises Undecodable."""
    from PIL import Image, UnidentifiedImageError  # loaded on first use, like OpenCV below: most importers never look at a picture

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is judged below
            with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
                width, height = image.size
                exif = Image.Exif()  # not image.getexif(): that decodes a whole PNG, and believes XMP, which OpenCV does not
                exif.load(image.info.get("exif", b""))
                sideways = exif.get(0x0112, 1) >= 5  # EXIF orientations 5 to 8 swap the sides
    except UnidentifiedImageError as error:
        raise Undecodable(f"{len(data)} bytes are no JPEG or PNG; send a complete JPEG or PNG") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Undecodable(f"its header cannot be read ({error}); send a complete JPEG or PNG") from error
    if width * height > MAX_PIXELS:
        raise Undecodable(f"picture is {width} x {height} pixels, expected at most {MAX_PIXELS:,} in all; send it smaller")
    return (width, height) if sideways else (height, width)


def decode_rgb(data: bytes, size_hw: tuple[int, int]) -> np.ndarray:
    """A read-only RGB array, uint8 [H, W, 3], EXIF orientation applied. Raises Undecodable, also for a size other than size_hw."""
    import cv2

    found_hw = displayed_size(data)
    if found_hw != tuple(size_hw):
        raise Undecodable(f"picture is {found_hw}, its record says {tuple(size_hw)} (height, width); fix the source")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        raise Undecodable(f"OpenCV refuses its {len(data)} bytes ({error}); send a complete JPEG or PNG") from error
    if image is None:
        raise Undecodable(f"{len(data)} bytes are no picture OpenCV can read; send a complete JPEG or PNG")
    image.flags.writeable = False
    return image
