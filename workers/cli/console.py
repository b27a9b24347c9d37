"""What every command shares: two consoles, the option of a setting, and errors in one line.

Commands are in the modules beside this one; only they print.
"""

from __future__ import annotations

from collections.abc import Iterator
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
def clean_errors() -> Iterator[None]:
    """What a user can mend is one red message and exit code 2; anything else is a bug and keeps its traceback."""
    try:
        yield
    except PsalmStreamError as error:
        err.print(f"[bold red]error[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(BAD_INPUT) from error
