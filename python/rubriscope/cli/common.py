"""What the commands share: arguments, targets, output and progress."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from .._postgres_url import is_postgres
from ..render import colour_wanted, is_terminal
from ..snapshot import dump_json

if TYPE_CHECKING:
    from rich.console import Console

    from ..film import Film, Session

OK, FAILED, USAGE = 0, 1, 2


class Parser(argparse.ArgumentParser):
    """argparse with epilogs printed as they are written."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **kwargs)


class CommandError(Exception):
    """Ends a command with a message and an exit code."""

    def __init__(self, message: str, code: int = USAGE) -> None:
        super().__init__(message)
        self.code = code


def add_command(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], int],
    *,
    help: str,
    description: str,
    epilog: str = "",
) -> Parser:
    """A subcommand's parser with what all have: ``--json`` and the function to run."""
    parser: Parser = commands.add_parser(name, help=help, description=description, epilog=epilog)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument(
        "--key-file", metavar="FILE", help="the key of an encrypted recording (RUBRISCOPE_KEY_FILE)"
    )
    parser.set_defaults(run=run)
    return parser


def add_range(parser: argparse.ArgumentParser) -> None:
    """``--episode``, ``--from`` and ``--to``."""
    parser.add_argument("--episode", metavar="NAME", help="this episode only")
    parser.add_argument("--from", dest="start", type=int, metavar="STEP", help="first step")
    parser.add_argument("--to", dest="stop", type=int, metavar="STEP", help="the step to stop before")


def split_target(text: str) -> tuple[str, str | None]:
    """``runs.db:grpo`` into target and session; a colon that belongs to an existing path stays there.

    In a ``postgresql://`` URL the session is what follows the last colon of its path or its options.
    """
    if is_postgres(text):
        authority, slash, rest = text.partition("://")[2].partition("/")
        database, colon, session = rest.rpartition(":")
        if not colon:
            return text, None
        return text.partition("://")[0] + "://" + authority + slash + database, session
    scheme, colon, rest = text.partition(":")
    prefix = ""
    if colon and scheme.lower() in ("sqlite", "jsonl"):
        prefix, text = scheme + ":", rest
    if not os.path.exists(_file(text)):
        target, colon, session = text.rpartition(":")
        if colon and os.path.exists(_file(target)):
            return prefix + target, session
    return prefix + text, None


def _file(text: str) -> str:
    return "/" + text.lstrip("/") if text.startswith("//") else text


def file_of(target: str) -> str:
    """The path in a target, without its scheme."""
    scheme, colon, rest = target.partition(":")
    if colon and scheme.lower() in ("sqlite", "jsonl") and not os.path.exists(target):
        return _file(rest)
    return target


def note_journals(film: Film) -> None:
    """Says on standard error when records of a process that died wait in a journal."""
    from .._C import journal_dir_for, list_journals

    folder = journal_dir_for(film.place)
    if not os.path.isdir(folder):
        return
    ownerless = (one for one in list_journals(folder) if not one["owner_alive"] and not one["set_aside"])
    records = sum(one["pending_records"] for one in ownerless)
    if records:
        print(
            f"rubriscope: {records:,} records wait in the journal of a process that died; "
            f"bring them in with: rubriscope recover {film.target}",
            file=sys.stderr,
        )


def open_session(target: str, session: str | None) -> tuple[Film, Session]:
    """The film and the session meant; ``target`` may carry the session after a colon."""
    from ..film import Film

    target, in_target = split_target(target)
    film = Film(target)
    return film, film.session(session if session is not None else in_target)


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Prints valid JSON: numbers that are not finite are ``null``."""
    sys.stdout.write(dump_json(value, indent=indent) + "\n")


def console(*, stderr: bool = False) -> Console:
    """A rich console whose broken pipe reaches :func:`app.run`."""
    from rich.console import Console

    class PipeConsole(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    file = sys.stderr if stderr else sys.stdout
    # Piped output is for other programs: wide, so that no cell is cut at column 80.
    width = None if is_terminal(file) else 160
    return PipeConsole(
        file=file, width=width, highlight=False, no_color=not colour_wanted(file), emoji=False, markup=False
    )


def many(count: int, noun: str) -> str:
    """``1 record``, ``1,234 records``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def ascii_only() -> bool:
    """Whether standard output cannot hold block characters."""
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    try:
        "▁█✗".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return True
    return False


@contextlib.contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error, drawn only on a terminal: yields ``report(done, total)``."""
    if not is_terminal(sys.stderr):
        yield lambda done, total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)

        def report(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total or None)

        yield report
