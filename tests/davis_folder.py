"""The drawn scene as a DAVIS folder, in the layout of 2017 or of 2016: pictures and annotations whose geometry is known."""

import io

import numpy as np
from PIL import Image
from psalm_stream.stream.sinks import write_label_map
from scene import SIZE_HW, mask_of, picture

BOTH = {"pair": (1, 2), "single": (1,)}


def label_map(index, objects):
    labels = np.zeros(SIZE_HW, np.uint8)
    for object_id in objects:
        labels[mask_of(object_id, index)] = object_id
    return labels


def write_pictures(root, name, objects, frames):
    folder = root / "JPEGImages/480p" / name
    folder.mkdir(parents=True)
    for index in range(frames):
        image = Image.open(io.BytesIO(picture(index, objects)))
        image.save(folder / f"{index:05d}.jpg", quality=100, subsampling=0)


def davis_2017(root, sequences=BOTH, frames=6):
    """Sequence names and the objects each shows."""
    for name, objects in sequences.items():
        write_pictures(root, name, objects, frames)
        folder = root / "Annotations/480p" / name
        folder.mkdir(parents=True)
        for index in range(frames):
            write_label_map(folder / f"{index:05d}.png", label_map(index, objects))
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/val.txt").write_text("".join(f"{name}\n" for name in sequences))
    return root


def davis_2016(root, sequences=BOTH, frames=6):
    """As it was published: grey annotations of 0 and 255, and a list of their paths."""
    lines = []
    for name, objects in sequences.items():
        write_pictures(root, name, objects, frames)
        folder = root / "Annotations/480p" / name
        folder.mkdir(parents=True)
        for index in range(frames):
            Image.fromarray((label_map(index, objects) > 0).astype(np.uint8) * 255).save(folder / f"{index:05d}.png")
            lines.append(f"/JPEGImages/480p/{name}/{index:05d}.jpg /Annotations/480p/{name}/{index:05d}.png \n")
    (root / "ImageSets/480p").mkdir(parents=True)
    (root / "ImageSets/480p/val.txt").write_text("".join(lines))
    return root
