"""The Kafka properties file and the addresses: what is understood, what is refused and how, and that no secret is shown."""

import subprocess
import sys

import pytest
from psalm_stream.stream.errors import BadConfig
from psalm_stream.stream.kafka_client import open_cluster, read_security


def properties(tmp_path, text):
    file = tmp_path / "client.properties"
    file.write_text(text)
    return file


def test_every_name_of_librdkafka_becomes_the_clients(tmp_path):
    text = """
        # SASL over TLS
        security.protocol = sasl_ssl
        sasl.mechanisms=scram-sha-512
        sasl.username=alice
        sasl.password=a=b c#d

        ssl.ca.location=/ca.pem
        ssl.certificate.location=/client.pem
        ssl.key.location=/client.key
        ssl.key.password=of the key
        ssl.crl.location=/crl.pem
        ssl.endpoint.identification.algorithm=none
    """
    assert read_security(properties(tmp_path, text)) == {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "alice",
        "sasl_plain_password": "a=b c#d",
        "ssl_cafile": "/ca.pem",
        "ssl_certfile": "/client.pem",
        "ssl_keyfile": "/client.key",
        "ssl_password": "of the key",
        "ssl_crlfile": "/crl.pem",
        "ssl_check_hostname": False,
    }


def test_a_file_of_comments_alone_says_nothing(tmp_path):
    assert read_security(properties(tmp_path, "# nothing\n\n")) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sasl.passwort=s3cret\n", r"sasl\.passwort.*did you mean sasl\.password"),
        ("security.protocol=TLS\n", "'TLS', expected one of PLAINTEXT, SSL"),
        ("sasl.mechanism=GSSAPI\n", "'GSSAPI', expected one of PLAIN, SCRAM-SHA-256"),
        ("ssl.endpoint.identification.algorithm=yes\n", "'yes', expected one of HTTPS, NONE"),
        ("# fine\nsasl.password s3cret\n", "line 2 has no '='"),
        ("security.protocol=SASL_SSL\nsasl.password=s3cret\n", "SASL_SSL without sasl.mechanism, sasl.username"),
    ],
)
def test_what_does_not_fit_is_named_without_the_secret(tmp_path, text, said):
    with pytest.raises(BadConfig, match=said) as refused:
        read_security(properties(tmp_path, text))
    assert "s3cret" not in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BadConfig, match=r"absent\.properties cannot be read \(FileNotFoundError\)"):
        read_security(tmp_path / "absent.properties")


def test_a_cluster_shows_neither_password_nor_security(tmp_path):
    text = "security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\nsasl.username=alice\nsasl.password=s3cret\n"
    cluster = open_cluster("kafka:9092", properties(tmp_path, text), "mine.")
    assert repr(cluster) == "Cluster(servers='kafka:9092', prefix='mine.')"
    assert "s3cret" not in f"{cluster.security} {cluster._connection()}"


@pytest.mark.parametrize("servers", ["kafka:9092", "127.0.0.1:9092,10.0.0.2:9093", "[::1]:9092"])
def test_addresses_are_hosts_with_ports(servers):
    assert open_cluster(servers).servers == servers


@pytest.mark.parametrize("servers", ["", "kafka", "kafka:", ":9092", "kafka:9092,", "kafka://kafka:9092", "kafka:9092 other:9092"])
def test_what_is_no_address_is_refused(servers):
    with pytest.raises(BadConfig, match="expected HOST:PORT"):
        open_cluster(servers)


@pytest.mark.parametrize("prefix", ["a b", "a/b", "ä", "a\n"])
def test_a_prefix_that_is_no_topic_name_is_refused(prefix):
    with pytest.raises(BadConfig, match="topic prefix"):
        open_cluster("kafka:9092", prefix=prefix)


@pytest.mark.parametrize("package", ["kafka", "crc32c"])
def test_a_missing_package_is_told_with_the_command_that_installs_it(package):
    code = f"""
import sys
sys.modules[{package!r}] = None
from psalm_stream.stream.errors import BadConfig
try:
    import psalm_stream.stream.kafka_client
except BadConfig as error:
    print(error)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told == f"Kafka needs the package {package}, which is not installed; pip install 'psalm-stream[kafka]'\n"
