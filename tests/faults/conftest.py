"""Runs of the fault tests for pytest: they go on side by side, and each test looks at its own."""

from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from ground import Timing
from lanes import lanes
from points import Point

SIDE_BY_SIDE = 8  # a run waits most of its time for a timeout
SEED = 7


@pytest.fixture(scope="session")
def ran(request, servers, tmp_path_factory):
    """How the run of a point ended: ran(point) -> Outcome.

    What tests are parametrized with as `point` is started at the first call, all of it; the broker's death waits for the others.
    """
    params = [item.callspec.params.get("point") for item in request.session.items if hasattr(item, "callspec")]
    wanted = {point for point in params if isinstance(point, Point)}
    started: dict[Point, Future] = {}
    with lanes(servers.kafka, tmp_path_factory.mktemp("faults"), SIDE_BY_SIDE) as lane, ThreadPoolExecutor(SIDE_BY_SIDE) as pool:

        def outcome(point: Point):
            if point not in started and point.alone:
                for other in started.values():
                    other.exception()
            if point not in started:
                started[point] = pool.submit(lane.go, point, 0, SEED, Timing())
            return started[point].result()

        for point in sorted(wanted, key=lambda point: point.name):
            if not point.alone:
                started[point] = pool.submit(lane.go, point, 0, SEED, Timing())
        yield outcome
