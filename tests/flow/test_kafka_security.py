"""Kafka over SASL and TLS, as the properties file says it; a refusal is one clear error that shows no secret."""

import logging
import subprocess
from contextlib import closing
from dataclasses import replace

import pytest
from kafka.admin import UserScramCredentialUpsertion
from psalm_stream.stream import kafka_client
from psalm_stream.stream.errors import BusFailed
from psalm_stream.stream.kafka_bus import KafkaBus, Member
from psalm_stream.stream.kafka_client import headers, open_cluster
from psalm_stream.stream.kafka_topics import check_topics, create_topics
from psalm_stream.workers.dev import kafka_server
from psalm_stream.workers.dev_server import HOST, free_ports

PASSWORD = "s3cret-of-alice"
LOGIN = "org.apache.kafka.common.security"
CERTIFICATES = """
openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=ca
openssl req -x509 -newkey rsa:2048 -nodes -keyout other.key -out other.pem -days 2 -subj /CN=other
for name in server client; do
    openssl req -newkey rsa:2048 -nodes -keyout $name.key -out $name.csr -subj /CN=$name
    openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out $name.pem -days 2 -extfile names
done
cat server.key server.pem > server.store
"""


@pytest.fixture(scope="module")
def secured(servers, tmp_path_factory):
    """A broker with three more listeners: (protocol -> address, folder of the certificates). `servers`: what it needs is there."""
    folder = tmp_path_factory.mktemp("secured")
    (folder / "names").write_text(f"subjectAltName=IP:{HOST}\n")
    subprocess.run(["sh", "-ec", CERTIFICATES], cwd=folder, check=True, capture_output=True)
    port, controller, *more = free_ports(5)
    broker = kafka_server(folder / "kafka", port, controller)
    addresses = dict(zip(("SASL_PLAINTEXT", "SASL_SSL", "SSL"), (f"{HOST}:{p}" for p in more), strict=True))
    listeners = ",".join(f"{name}://{address}" for name, address in {"PLAINTEXT": broker.address, **addresses}.items())
    plain, scram = f'{LOGIN}.plain.PlainLoginModule required user_alice="{PASSWORD}";', f"{LOGIN}.scram.ScramLoginModule required;"
    settings = {
        "listeners": f"{listeners},CONTROLLER://{HOST}:{controller}",
        "advertised.listeners": f"{listeners},CONTROLLER://{HOST}:{controller}",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT," + ",".join(f"{name}:{name}" for name in addresses),
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": folder / "server.store",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": folder / "ca.pem",
        "listener.name.ssl.ssl.client.auth": "required",
    }
    for listener in ("sasl_plaintext", "sasl_ssl"):
        settings[f"listener.name.{listener}.plain.sasl.jaas.config"] = plain
        settings |= {f"listener.name.{listener}.scram-sha-{bits}.sasl.jaas.config": scram for bits in (256, 512)}
    with (folder / "kafka" / "server.properties").open("a") as file:
        file.writelines(f"{name}={value}\n" for name, value in settings.items())
    broker.start()
    try:
        with closing(open_cluster(broker.address).admin()) as admin:
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
                assert admin.alter_user_scram_credentials([UserScramCredentialUpsertion("alice", mechanism, PASSWORD)]) == {"alice": None}
        yield addresses, folder
    finally:
        broker.stop()


SASL = "sasl.mechanism={mechanism}\nsasl.username=alice\nsasl.password=" + PASSWORD + "\n"
TLS = "ssl.ca.location={folder}/ca.pem\n"
CLIENT = "ssl.certificate.location={folder}/client.pem\nssl.key.location={folder}/client.key\n"
WAYS = {
    "SASL_PLAINTEXT with PLAIN": ("SASL_PLAINTEXT", SASL.replace("{mechanism}", "PLAIN")),
    "SASL_PLAINTEXT with SCRAM-SHA-256": ("SASL_PLAINTEXT", SASL.replace("{mechanism}", "SCRAM-SHA-256")),
    "SASL_PLAINTEXT with SCRAM-SHA-512": ("SASL_PLAINTEXT", SASL.replace("{mechanism}", "SCRAM-SHA-512")),
    "SASL_SSL with PLAIN": ("SASL_SSL", SASL.replace("{mechanism}", "PLAIN") + TLS),
    "SSL with a client certificate": ("SSL", TLS + CLIENT),
}


def cluster_of(secured, protocol, text, prefix=""):
    addresses, folder = secured
    file = folder / "client.properties"
    file.write_text(f"# as kcat reads it\nsecurity.protocol={protocol}\n" + text.replace("{folder}", str(folder)))
    return open_cluster(addresses[protocol], file, prefix)


@pytest.mark.parametrize(("protocol", "text"), WAYS.values(), ids=WAYS)
def test_every_client_comes_in(secured, protocol, text, request):
    cluster = cluster_of(secured, protocol, text, prefix=f"t{abs(hash(request.node.name))}.")
    assert len(create_topics(cluster, 1)) == 5
    assert check_topics(cluster) == []
    source = cluster.producer()
    source.send(cluster.topic("frames"), b"0", b"a", headers("frame")).get(timeout=10)
    source.abandon()
    bus = KafkaBus(cluster, Member("group", "0", 30.0))
    (claim,) = bus.poll(1, 5.0).gained
    (record,) = bus.poll(1, 5.0).records
    bus.publish("state", record, "state", b"1")
    bus.commit([replace(claim, offset=1, checkpoint="n1")])
    assert bus.snapshots(0)["a"].data == b"1"
    bus.close()


WRONG = "wrong-s3cret"
REFUSED = {
    "a wrong password": ("SASL_PLAINTEXT", SASL.replace("{mechanism}", "PLAIN").replace(PASSWORD, WRONG), "sasl.password"),
    "a wrong password of SCRAM": ("SASL_PLAINTEXT", SASL.replace("{mechanism}", "SCRAM-SHA-512").replace(PASSWORD, WRONG), "sasl.password"),
    "a broker of another authority": ("SASL_SSL", WAYS["SASL_SSL with PLAIN"][1].replace("ca.pem", "other.pem"), "ssl.ca.location"),
    "no TLS where it is asked for": ("SASL_SSL", "security.protocol=PLAINTEXT\n", "security.protocol"),
    "TLS where there is none": ("SASL_PLAINTEXT", "security.protocol=SSL\n" + TLS, "security.protocol"),
    "no client certificate": ("SSL", TLS, "ssl.certificate.location"),
}


@pytest.mark.parametrize(("protocol", "text", "remedy"), REFUSED.values(), ids=REFUSED)
def test_a_refusal_is_one_error_without_the_secret(secured, protocol, text, remedy, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(kafka_client, "CONNECT_TIMEOUT_S", 3.0)
    cluster = cluster_of(secured, protocol, text)
    with pytest.raises(BusFailed, match=remedy) as refused:
        check_topics(cluster)
    for shown in (str(refused.value), repr(refused.value.__cause__), repr(cluster), caplog.text):
        assert "s3cret" not in shown
