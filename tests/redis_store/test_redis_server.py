"""The Redis a store wants: one that evicts nothing, passwords, rights and TLS, URLs; and that no password is ever shown."""

import subprocess
import uuid

import pytest
from psalm_stream.stream.errors import BadConfig, PsalmStreamError, StoreFailed
from psalm_stream.stream.redis_store import RedisStore
from psalm_stream.stream.store import StateVersion
from psalm_stream.workers.dev_server import free_ports
from redis_steps import at, committed, version

SECRET = "s3cret/with:odd@signs"
QUOTED = "s3cret%2Fwith%3Aodd%40signs"

# -- the server it wants -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_server_that_may_evict_states_is_refused(start, connect, policy):
    with pytest.raises(BadConfig, match=rf"{policy}, expected noeviction.*CONFIG SET maxmemory-policy noeviction"):
        connect(start("--maxmemory-policy", policy))


@pytest.mark.parametrize(("append_only", "warned"), [("yes", False), ("no", True)])
def test_a_server_that_writes_nothing_down_is_used_with_a_warning(start, connect, caplog, append_only, warned):
    committed(connect(start("--appendonly", append_only)), 3)
    assert any("append-only" in r.getMessage() and r.levelname == "WARNING" for r in caplog.records) == warned


def test_a_user_needs_no_more_than_the_rights_that_its_refusal_names(server, admin, connect):
    admin.execute_command("ACL", "SETUSER", "psalm", "on", f">{SECRET}")
    with pytest.raises(StoreFailed, match="grant the user") as refused:
        connect(server, f"psalm:{QUOTED}@")
    rights = str(refused.value).split("grant the user ")[1]
    admin.execute_command("ACL", "SETUSER", "psalm", *rights.split())
    store = connect(server, f"psalm:{QUOTED}@")
    held = committed(store, 3, 6, sessions="ab")
    ended = at(9, "n9")
    store.prepare(held, ended, {"a": StateVersion(8, None)})
    store.prepare(ended, at(12, "n12"), {"b": version(12)})
    store.claim(ended)
    assert [store.load(ended, s) for s in "ab"] == [None, b"state 6"]
    store.restore(held, {"a": version(6)})
    admin.execute_command("ACL", "SETUSER", "psalm", "-hset")
    with pytest.raises(StoreFailed, match=r"can't run this command.*\+hset"):
        store.prepare(held, at(8, "n8"), {"a": version(8)})


@pytest.mark.parametrize("with_authority", [True, False])
def test_a_server_behind_tls_is_used_when_its_certificate_is_vouched_for(start, connect, tmp_path, with_authority):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 -out {certificate}"
    subprocess.run([*make.split(), "-keyout", key], check=True, capture_output=True)
    (port,) = free_ports(1)
    start(
        "--tls-port", str(port), "--tls-cert-file", certificate, "--tls-key-file", key, "--tls-auth-clients", "no", "--requirepass", SECRET
    )
    options = f"?ssl_ca_certs={certificate}" if with_authority else ""
    if with_authority:
        store = connect(f"127.0.0.1:{port}", f":{QUOTED}@", options, scheme="rediss")
        assert store.load(committed(store, 3), "a") == b"state 3"
    else:
        with pytest.raises(StoreFailed, match=f"127.0.0.1:{port}.*CERTIFICATE_VERIFY_FAILED"):
            connect(f"127.0.0.1:{port}", f":{QUOTED}@", options, scheme="rediss")


# -- nothing secret ----------------------------------------------------------------------------------------------------


def parts_of_the_secret(text):
    return [part for part in (SECRET, QUOTED, "s3cret", "odd@signs", "odd%40signs") if part in text]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--requirepass", "another"), "correct user and password"),
        (("--rename-command", "AUTH", ""), r"unknown command 'AUTH'.*\*\*\*"),  # the server repeats what it was sent
        (("--maxmemory-policy", "allkeys-lru", "--requirepass", SECRET), "allkeys-lru"),
    ],
)
def test_no_refusal_of_a_server_shows_the_password(start, connect, caplog, flags, said):
    caplog.set_level("DEBUG")
    server = start(*flags)
    with pytest.raises(PsalmStreamError, match=said) as refused:
        connect(server, f"default:{QUOTED}@")
    assert not parts_of_the_secret(f"{refused.getrepr(chain=True)} {caplog.text}")
    assert server.address in str(refused.value)


def test_neither_a_store_nor_its_failure_shows_the_password(start, connect, caplog):
    caplog.set_level("DEBUG")
    server = start("--requirepass", SECRET)
    store = connect(server, f":{QUOTED}@")
    held = committed(store, 3)
    server.kill()
    with pytest.raises(StoreFailed, match=f"{server.address}") as failed:
        store.load(held, "a")
    assert server.address in repr(store)
    assert not parts_of_the_secret(f"{failed.getrepr(chain=True)} {caplog.text} {store!r} {store}")


@pytest.mark.parametrize(
    "url",
    [
        f"redis://user:{SECRET}@localhost:6379",  # not encoded: its slash ends the host
        "redis://user:12#s3cret@localhost:6379",
        "redis://user:12?s3cret@localhost:6379/0",
        "redis://user:12/s3cret@localhost:6379/0",
        "http://user:s3cret@localhost:6379",
        "localhost:6379/s3cret",
        "redis://localhost:s3cret/0",
        "redis://localhost:6379/s3cret",
        "redis://:s3cret@localhost:6379/0?socket_timeout=long",
        "",
    ],
)
def test_an_url_that_cannot_be_read_is_refused_without_repeating_it(url):
    with pytest.raises(BadConfig, match="percent-encoded") as refused:
        RedisStore(url, uuid.uuid4().hex)
    assert not parts_of_the_secret(str(refused.value))


def test_an_option_that_redis_py_does_not_know_is_refused_by_name(server, connect):
    with pytest.raises(BadConfig, match=f"{server.address}.*'socket_timeut'"):
        connect(server, options="?socket_timeut=3")


def test_options_of_the_url_do_not_change_what_states_are(server, connect):
    store = connect(server, options="?decode_responses=true&protocol=3")
    store.restore(at(3, "n3"), {"a": StateVersion(2, b"\xff\x00")})
    assert store.load(at(3, "n3"), "a") == b"\xff\x00"
