"""Settings: flag over environment over default, and no typo in silence."""

import pytest
from psalm_stream.psalm.tracker import Rules
from psalm_stream.stream.errors import BadConfig
from psalm_stream.workers.settings import Settings, read_settings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(f"PSALM_{name.upper()}", raising=False)


def test_a_flag_outranks_the_environment_and_that_the_default(monkeypatch):
    assert read_settings().threads == 0
    monkeypatch.setenv("PSALM_THREADS", "3")
    assert read_settings(threads=None).threads == 3
    assert read_settings(threads=2).threads == 2


@pytest.mark.parametrize(
    ("variable", "nearest"), [("PSALM_POLCY", "PSALM_POLICY"), ("PSALM_THREAD", "PSALM_THREADS"), ("psalm_devise", "PSALM_DEVICE")]
)
def test_an_unknown_variable_is_an_error_that_names_the_nearest_setting(monkeypatch, variable, nearest):
    monkeypatch.setenv(variable, "1")
    with pytest.raises(BadConfig, match=f"{variable} is not a setting; did you mean {nearest}"):
        read_settings()


@pytest.mark.parametrize("variable", ["PSALM_GOLDEN", "PSALM_DAVIS"])
def test_a_folder_of_the_tests_is_no_unknown_variable(monkeypatch, variable):
    monkeypatch.setenv(variable, "somewhere")
    assert read_settings() == Settings()


def test_a_bad_value_is_named_as_it_was_given(monkeypatch):
    with pytest.raises(BadConfig, match=r"--policy is 'fair': input should be 'honest' or 'official'"):
        read_settings(policy="fair")
    monkeypatch.setenv("PSALM_THREADS", "many")
    with pytest.raises(BadConfig, match=r"PSALM_THREADS is 'many': input should be a valid integer"):
        read_settings()


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        read_settings().threads = 5


def test_there_are_at_most_twenty_knobs_and_each_says_what_it_is():
    assert len(Settings.model_fields) <= 20
    assert all(field.description for field in Settings.model_fields.values())


def test_views_are_joined_the_same_whether_rules_are_made_of_settings_or_of_nothing():
    assert Settings().max_skew_s == Rules().max_skew_s
