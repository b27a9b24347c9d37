"""Every knob of the service: field = flag = environment variable PSALM_<FIELD>.

A flag outranks the environment, which outranks the default. What belongs to one input (prompts, folders) is an argument of its command
and not here. An environment variable that is nearly a knob is an error: a typo must not run with a default in silence.
"""

from __future__ import annotations

import difflib
import os
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from ..stream.errors import BadConfig

PREFIX = "PSALM_"
MODEL_KNOBS = ("weights", "device", "dtype", "threads", "official_rounding", "sampled_regions", "batch_size")
MASK_KNOBS = (*MODEL_KNOBS, "policy", "motion", "max_skew_s", "max_lag_s")
NOT_KNOBS = frozenset({"PSALM_GOLDEN", "PSALM_DAVIS"})  # folders of the tests: recorded tensors, annotated sequences


class Settings(BaseSettings):
    """The knobs. Build it with `read_settings`, which also looks for misspelt variables and says what is wrong in words."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    weights: str = Field("nano", min_length=1, description="Checkpoint: a folder, a Hugging Face id, or nano, which is shipped")
    device: str = Field("cpu", description="Where the model runs: cpu, cuda, cuda:1, ...")
    dtype: Literal["float32", "float16", "bfloat16"] = Field("float32", description="Number format the model runs in")
    threads: int = Field(0, ge=0, description="CPU threads of the model; 0: as torch chooses, all cores or OMP_NUM_THREADS")
    official_rounding: bool = Field(False, description="Round weights and rotary tables to float16, as the official evaluation does")
    sampled_regions: bool = Field(False, description="Pool a region at PSALM's 256 seeded points instead of all its pixels")
    policy: Literal["honest", "official"] = Field("honest", description="From predictions alone, or as the official DAVIS loop decides")
    motion: Literal["on", "off", "only"] = Field("on", description="Optical flow beside the model, without it, or instead of it")
    max_skew_s: float = Field(
        0.5, ge=0, description="Frames of two views taken within it, in seconds, show one moment; 0: views not joined"
    )
    kafka: str = Field("", description="Kafka brokers, HOST:PORT,...")
    kafka_properties: str = Field("", description="File of Kafka client properties (TLS, SASL), as librdkafka names them")
    redis: str = Field("", repr=False, description="Redis, redis://[USER:PASSWORD@]HOST:PORT/DB, or rediss:// for TLS")
    slot: str = Field("", description="Name of this worker's place, stable over restarts; unset: host name and the first free number")
    topic_prefix: str = Field("", description="Stands before the name of every topic")
    batch_size: int = Field(1, ge=1, description="Frames, each of another session, that the model answers together")
    turn_records: int = Field(16, ge=1, description="Records of the log that one checkpoint answers at most")
    turn_budget_s: float = Field(2.0, gt=0, description="Seconds a checkpoint may be away; a turn takes the records it has time for")
    cached_sessions: int = Field(64, ge=0, description="Sessions whose state is kept unpacked between turns")
    snapshot_every: int = Field(50, ge=1, description="Frames of a session between two snapshots of its state in the log")
    max_lag_s: float = Field(30.0, gt=0, description="Seconds after which a live frame is answered late, without masks; inf: never")


def read_settings(**flags: object) -> Settings:
    """Settings from the flags that were given (None: not given), then the environment, then the defaults. Raises BadConfig."""
    refuse_unknown_variables()
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        raise BadConfig("; ".join(_in_words(problem, flags) for problem in error.errors())) from error


def mask_settings(settings: Settings) -> dict[str, object]:
    """The knobs that masks depend on, as plain values. No connection is among them: its address may hold a password."""
    return settings.model_dump(include=set(MASK_KNOBS))


def refuse_unknown_variables() -> None:
    """Raise BadConfig for an environment variable that starts with PSALM_ and is no knob, naming the nearest one."""
    known = {PREFIX + name.upper() for name in Settings.model_fields} | NOT_KNOBS
    for name in sorted(os.environ):
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            nearest = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0)[0]
            raise BadConfig(f"environment variable {name} is not a setting; did you mean {nearest}? Unset or rename it")


def _in_words(problem: dict, flags: dict[str, object]) -> str:
    name = str(problem["loc"][0])
    if name not in Settings.model_fields:
        return f"{name} is not a setting"
    said = f"--{name.replace('_', '-')}" if flags.get(name) is not None else PREFIX + name.upper()
    return f"{said} is {problem['input']!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}"
