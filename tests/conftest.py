"""The one broker and the one Redis of a test session."""

import os

import pytest
from psalm_stream.workers.dev import DevServers, missing


@pytest.fixture(scope="session")
def servers():
    """A real Kafka and a real Redis, started for the first test that wants them. A test that kills one starts it again."""
    if (lacks := missing()) and not os.environ.get("CI"):
        pytest.skip(f"needs {', '.join(lacks)}: run deploy/servers")
    with DevServers() as running:
        yield running
