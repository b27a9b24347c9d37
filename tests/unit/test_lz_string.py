"""LZ-string against what lz-string 1.5.0 (JavaScript) made of the same texts."""

import hashlib

import numpy as np
import pytest
from psalm_stream.eval.egoexo.lz_string import compress, decompress
from psalm_stream.stream import rle
from psalm_stream.stream.errors import BadInput

RECORDED = {
    "": "Q",
    "a": "IZA",
    "aaaaaaaaaaaa": "IY1lA",
    "hello hello hello": "BYUwNmD2AEoTcpA",
    "ß→x": "PuJMIB5A",
    "c29;00000000000000000000000000000U6": "MYJgnA3ADDt-DFQKoDYg",
}


@pytest.mark.parametrize(("text", "compressed"), RECORDED.items())
def test_recorded_texts_are_read_and_written(text, compressed):
    assert decompress(compressed) == text
    assert compress(text) == compressed


def noisy_counts():
    """Run-lengths of a random mask, 958 characters, whose phrases outgrow several code lengths."""
    return rle.encode(np.random.default_rng(0).random((40, 50)) < 0.5).counts.decode()


def test_a_long_text_is_written_as_recorded_and_read_back():
    compressed = compress(noisy_counts())
    assert hashlib.sha256(compressed.encode()).hexdigest()[:16] == "e84798a355d014fc"
    assert decompress(compressed) == noisy_counts()


def test_a_plus_that_a_form_turned_into_a_space_is_read_as_a_plus():
    compressed = compress(noisy_counts())
    assert "+" in compressed
    assert decompress(compressed.replace("+", " ")) == noisy_counts()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "ends early"),
        ("BYUwNmD2AEoT", "ends early"),
        ("/w==", "holds '/'"),
        ("///", "holds"),
        ("zzzz", "begins with a phrase"),
        ("Iag", "names phrase"),
    ],
)
def test_what_is_no_compressed_text_is_refused_with_a_reason(text, why):
    with pytest.raises(BadInput, match=why):
        decompress(text)
