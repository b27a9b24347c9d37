"""COCO's average precision of instance masks: pycocotools' own evaluation, without its printing."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ...stream.coco import read_json
from ...stream.errors import BadInput

FIGURES = ("AP", "AP50", "AP75", "AP small", "AP medium", "AP large", "AR 1", "AR 10", "AR 100", "AR small", "AR medium", "AR large")


def score_instances(truth: Path, answers: Path) -> dict[str, float]:
    """The twelve figures of COCO's mask evaluation, fractions of 1; -1 where the truth has nothing of the kind, as pycocotools says it.

    truth: COCO's annotation JSON; answers: a list of image_id, category_id, segmentation (run-length) and score. Raises BadInput.
    """
    results = read_json(answers)
    if not isinstance(results, list):
        raise BadInput(f"{answers}: expected COCO's results format, a list of image_id, category_id, segmentation and score")
    if not results:
        return dict.fromkeys(FIGURES, 0.0)
    read_json(truth)  # says what is wrong with it in words
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            known = COCO(str(truth))
            evaluation = COCOeval(known, known.loadRes(results), "segm")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        except (KeyError, TypeError, IndexError, AssertionError) as error:
            raise BadInput(
                f"{truth} and {answers} do not go together ({error!r}); expected COCO's annotations and results of its pictures"
            ) from error
    return dict(zip(FIGURES, (float(figure) for figure in evaluation.stats), strict=True))
