"""Small drawn videos with known masks, and proposals made of arrays, for the tests of the tracker."""

import cv2
import numpy as np
from psalm_stream.psalm.tracker import plan, prompted, settle
from psalm_stream.stream.rle import decode, encode
from psalm_stream.stream.types import Frame, FrameKey, Mask, ObjectPrompt, Prompt, Proposals, TrackState

SIZE_HW = (96, 128)


def frame_of(rgb, index=0, view="main"):
    data = cv2.imencode(".png", rgb[..., ::-1])[1].tobytes()
    return Frame(FrameKey("s", view, index), index, False, rgb.shape[:2], data)


def texture(seed, size_hw=SIZE_HW):
    noise = np.random.default_rng(seed).integers(0, 256, (*size_hw, 3)).astype(np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)


def square(x, y, side=24, size_hw=SIZE_HW):
    """A square mask with its top left corner at (x, y), cut at the frame."""
    mask = np.zeros(size_hw, bool)
    mask[max(y, 0) : max(y + side, 0), max(x, 0) : max(x + side, 0)] = True
    return mask


def shift(mask, dx, dy=0):
    return cv2.warpAffine(mask.astype(np.uint8), np.float32([[1, 0, dx], [0, 1, dy]]), mask.shape[::-1]).astype(bool)


class Scene:
    """Two textured squares on a textured ground: object 1 moves right, object 2 left, two pixels a frame."""

    def truth(self, index):
        return {1: square(10 + 2 * index, 12), 2: square(90 - 2 * index, 56)}

    def frame(self, index):
        image = texture(0)
        for object_id, mask in self.truth(index).items():
            ys, xs = np.nonzero(mask)
            image[mask] = texture(object_id)[ys - ys.min(), xs - xs.min()]
        return frame_of(image, index)


def proposals_of(request, candidates):
    """candidates: (mask, {object_id: score}) a query. Every token of an object gets that object's score, 0.05 where none is said."""
    ids = [region.object_id for region in request.condition.regions]
    scores = np.array([[said.get(i, 0.05) for _, said in candidates] for i in ids], np.float32).reshape(len(ids), len(candidates))
    return Proposals(scores, lambda queries: np.array([candidates[q][0] for q in queries]))


def mask_prompt(frame, masks):
    return Prompt(frame.key, "p", tuple(ObjectPrompt(i, Mask(encode(mask))) for i, mask in masks.items()))


def begun(frame, masks, rules):
    """The session after a first frame prompted with masks."""
    state = prompted(TrackState("s"), mask_prompt(frame, masks))
    return step(state, frame, rules, [])[0]


def step(state, frame, rules, candidates):
    request = plan(state, frame, rules)
    return settle(state, frame, request, proposals_of(request, candidates), rules, "digest")


def answered(mask_frame):
    """The answer's objects by id, and their masks."""
    objects = {o.object_id: o for o in mask_frame.objects}
    return objects, {i: decode(o.rle) for i, o in objects.items() if o.rle is not None}


def iou(a, b):
    return (a & b).sum() / (a | b).sum()
