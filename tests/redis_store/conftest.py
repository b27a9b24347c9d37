"""Redis servers of a test's own, to be mistreated, and stores on them."""

import os
import shutil

import pytest
from psalm_stream.stream.redis_store import RedisStore
from psalm_stream.workers.dev import redis_server
from psalm_stream.workers.dev_server import ask, free_ports
from redis import Redis


@pytest.fixture
def start(tmp_path):
    """Start a redis-server of this test's own; more flags come after the usual ones."""
    if shutil.which("redis-server") is None and not os.environ.get("CI"):
        pytest.skip("no redis-server on this machine")
    servers = []

    def started(*flags):
        server = redis_server(tmp_path / f"redis{len(servers)}", *free_ports(1))
        server.command += flags
        if "--requirepass" in flags:
            server.answers = lambda port: ask(port, b"PING\r\n", size=7) == b"-NOAUTH"
        servers.append(server)
        server.start()
        return server

    yield started
    for server in servers:
        server.stop()


@pytest.fixture
def server(start):
    return start()


@pytest.fixture
def admin(server):
    """A client with all rights and no part in what is tested."""
    with Redis(host="127.0.0.1", port=server.port, decode_responses=True) as client:
        yield client


@pytest.fixture
def connect(request):
    """A store on a server, by address or Server; user: `name:password@`."""

    def connected(server, user="", options="", namespace="cluster/topic/group", scheme="redis"):
        store = RedisStore(f"{scheme}://{user}{getattr(server, 'address', server)}/0{options}", namespace)
        request.addfinalizer(store.close)
        return store

    return connected
