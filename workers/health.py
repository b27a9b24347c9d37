"""How a segment worker is: /healthz, /readyz and /metrics over HTTP, from what its turns say.

Health is flow: a worker whose turns keep failing, or that hangs in one, is not healthy, whatever its process does. An empty turn is flow.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ..stream.errors import BadConfig
from ..stream.types import MaskFrame
from .answering import Answered

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """What /metrics shows. The names and labels here are the documented ones; there are no others."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        given = {"registry": self.registry}
        self.frames = Counter("psalm_frames", "Frames answered", ["status"], **given)
        self.objects = Counter("psalm_objects", "Objects answered", ["status"], **given)
        self.notices = Counter("psalm_notices", "Records answered without masks", ["kind"], **given)
        self.failures = Counter("psalm_turn_failures", "Turns that failed and were forgotten", ["error"], **given)
        self.stages = Histogram("psalm_stage_seconds", "Time of one frame in a stage", ["stage"], buckets=SECONDS, **given)
        self.age = Histogram("psalm_answer_age_seconds", "From a record's acceptance to its committed answer", buckets=SECONDS, **given)
        self.partitions = Gauge("psalm_partitions", "Partitions this worker holds", **given)
        self.rebuilding = Gauge("psalm_partitions_rebuilding", "Partitions whose states are being repeated from the log", **given)

    def answered(self, steps: Sequence[Answered]) -> None:
        """Count what a committed turn answered."""
        now_s = time.time()
        for step in steps:
            self.age.observe(max(0.0, now_s - step.record.t_ms / 1e3))
            if not isinstance(step.answer, MaskFrame):
                self.notices.labels(step.answer.kind.value).inc()
                continue
            self.frames.labels(step.answer.status.value).inc()
            for found in step.answer.objects:
                self.objects.labels(found.status.value).inc()
            for stage, ms in step.ms.items():
                self.stages.labels(stage).observe(ms / 1e3)


class Flow:
    """When a turn last came to its end, and whether every partition held can be answered. Written by the worker, read by HTTP threads."""

    def __init__(self, stalled_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.stalled_s, self.clock = stalled_s, clock
        self.ready = False
        self.trouble = ""  # of the turns since the last good one
        self._good_at = clock()

    def good(self, ready: bool) -> None:
        """A turn came to its end. ready: no partition waits for its states."""
        self._good_at, self.ready, self.trouble = self.clock(), ready, ""

    def bad(self, error: BaseException) -> None:
        """A turn failed."""
        self.trouble = f"{type(error).__name__}: {error}"

    def state(self) -> tuple[bool, str]:
        """Whether turns come to their end, and a line that says so."""
        since_s = self.clock() - self._good_at
        said = f"last good turn {since_s:.1f} s ago, stalled from {self.stalled_s:.0f} s on"
        return since_s < self.stalled_s, f"{said}; {self.trouble}" if self.trouble else said


class HealthServer:
    """Answers /healthz (200 or 503 by flow), /readyz and /metrics on a port (0: a free one) of all interfaces; a context manager."""

    def __init__(self, port: int, flow: Flow, metrics: Metrics) -> None:
        def pages(path: str) -> tuple[HTTPStatus, str, bytes]:
            healthy, said = flow.state()
            match path:
                case "/healthz":
                    return _status(healthy), "text/plain", said.encode()
                case "/readyz":
                    return _status(healthy and flow.ready), "text/plain", b"ready" if flow.ready else b"states are being repeated"
                case "/metrics":
                    return HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(metrics.registry)
            return HTTPStatus.NOT_FOUND, "text/plain", b"expected /healthz, /readyz or /metrics"

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, kind, body = pages(self.path.partition("?")[0])
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Probes come every few seconds: they are no news."""

        try:
            self._server = ThreadingHTTPServer(("", port), Handler)
        except OSError as error:
            raise BadConfig(f"--health-port {port} cannot be opened ({error.strerror}); choose a free one, or 0") from error
        self.port = self._server.server_address[1]

    def __enter__(self) -> HealthServer:
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _status(good: bool) -> HTTPStatus:
    return HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
