"""What every command shares: two consoles, the option of a setting, and errors in one line.

Commands are in the modules beside this one; only they print.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape

from ...stream.errors import PsalmStreamError
from ..settings import PREFIX, Settings

out = Console(highlight=False, emoji=False)
err = Console(stderr=True, highlight=False, emoji=False)

BAD_INPUT, INTERRUPTED = 2, 130  # exit codes


def knob(name: str, metavar: str | None = None) -> typer.models.OptionInfo:
    """The option of a setting, a switch without metavar: its help, default and environment variable are the setting's."""
    field = Settings.model_fields[name]
    default = "unset" if field.default in ("", None) else field.default
    text = f"{escape(field.description)}. [dim]\\[default: {default}; env: {PREFIX}{name.upper()}][/]"
    return typer.Option(f"--{name.replace('_', '-')}", help=text, metavar=metavar, show_default=False)


@contextmanager
def asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or SIGTERM asked the command to end, to be looked at between two steps; asked again, KeyboardInterrupt is raised.

    For commands that read Kafka: an exception in the middle of kafka-python 3.0.12 can leave a lock of it behind, and its close waiting.
    """
    asked = False

    def ask(*_: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    heard = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, ask) for number in heard}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def clean_errors() -> Iterator[None]:
    """What a user can mend is one red message and exit code 2; anything else is a bug and keeps its traceback."""
    try:
        yield
    except PsalmStreamError as error:
        err.print(f"[bold red]error[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(BAD_INPUT) from error
