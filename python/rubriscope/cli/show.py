"""``rubriscope show``: a session at a glance, or the snapshots of one step."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..film import Film, Session
from ..render import Column, duration, fitted_table, fixed, number, printable, snapshot_tree, sparkline
from ..series import Summary
from .common import (
    OK,
    CommandError,
    add_command,
    ascii_only,
    console,
    note_journals,
    open_session,
    print_json,
)
from .sessions import ranks, took

if TYPE_CHECKING:
    from rich.table import Table

    from ..checkpoints import ModelCheckpoint


def register(commands: Any) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "show",
        run,
        help="summarise a session, or draw the snapshots of a step",
        description="Summarise a session: metadata, and each rubric's and scalar's figures over the steps.\n"
        "With --step, draw the snapshots of that step as trees.",
        epilog="examples:\n"
        "  rubriscope show runs.db\n"
        "  rubriscope show runs.db grpo --step 12 --episode ep-7",
    )
    parser.add_argument("target", metavar="TARGET", help="a database or .jsonl file, also TARGET:SESSION")
    parser.add_argument("session", nargs="?", metavar="SESSION", help="its name, UUID or number")
    parser.add_argument("--step", type=int, metavar="N", help="draw the snapshots of this step")
    parser.add_argument("--episode", metavar="NAME", help="this episode only")
    parser.add_argument(
        "--limit", type=int, default=8, metavar="N", help="at most N trees for --step; 0 for all (default 8)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints the summary or the step."""
    film, session = open_session(arguments.target, arguments.session)
    note_journals(film)
    if arguments.step is not None:
        return _show_step(film, session, arguments)
    episode = arguments.episode
    found = film.summaries(session, episode=episode)
    rubrics = [summary for summary in found if summary.kind == "rubric"]
    scalars = [summary for summary in found if summary.kind == "scalar"]
    if arguments.json:
        print_json(
            {
                "session": session.to_dict(),
                "episodes": film.episodes(session),
                "rubrics": [summary.to_dict() for summary in rubrics],
                "scalars": [summary.to_dict() for summary in scalars],
                "checkpoints": [checkpoint.to_dict() for checkpoint in film.checkpoints(session)],
            }
        )
        return OK
    _print_summary(film, session, rubrics, scalars)
    return OK


def _print_summary(film: Film, session: Session, rubrics: list[Summary], scalars: list[Summary]) -> None:
    from rich.table import Table
    from rich.text import Text

    out = console()
    head = Text(printable(session.name), style="bold")
    head.append(f"  {session.uuid}", style="dim not bold")
    out.print(head)
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column()
    end = "" if session.closed_ns is not None else ", no end recorded"
    facts.add_row("started", f"{session.created.astimezone():%Y-%m-%d %H:%M:%S}")
    facts.add_row("took", took(session) + end)
    facts.add_row("snapshots", f"{session.steps:,} in {_episodes(film.episodes(session))}")
    if session.scalars:
        facts.add_row("scalars", f"{session.scalars:,} records")
    if session.writers > 1:
        facts.add_row("writers", f"{session.writers}, ranks {ranks(session.ranks)}")
    for key, value in _facts(session.metadata):
        facts.add_row(printable(key), printable(value, 200))
    out.print(facts)
    for many in (rubrics, scalars):
        if many:
            out.print(_table(many, out.width))
    checkpoints = film.checkpoints(session)
    if checkpoints:
        out.print(_checkpoint_table(checkpoints, out.width))
    if not rubrics and not scalars and not checkpoints:
        out.print("nothing recorded yet")


def _table(many: list[Summary], width: int) -> Table:
    from rich.text import Text

    is_rubric = many[0].kind == "rubric"
    path, n, mean, std, least, most, curve, ends, failed, skipped, time = columns = [
        Column("rubric" if is_rubric else "scalar", right=False),
        Column("n", 1),
        Column("mean"),
        Column("std", 4),
        Column("min", 7),
        Column("max", 6),
        Column("over the steps", 2, right=False, style="cyan"),
        Column("first → last", 5, right=False),
        Column("failed", 1),
        Column("skipped", 8),
        Column("time", 3),
    ]
    for summary in many:
        path.cells.append(_indented(summary.path) if is_rubric else printable(summary.path))
        n.cells.append(f"{summary.n:,}")
        for column, value in zip(
            (mean, std, least, most), (summary.mean, summary.std, summary.min, summary.max), strict=True
        ):
            column.cells.append(fixed(value))
        curve.cells.append(sparkline(summary.curve, 24 if width >= 110 else 12, ascii_only=ascii_only()))
        ends.cells.append(" → ".join(number(value) for value in summary.curve[:1] + summary.curve[-1:]))
        failed.cells.append(Text(f"{summary.failed:,}", style="red" if summary.failed else "dim"))
        skipped.cells.append(Text(f"{summary.skipped:,}", style="" if summary.skipped else "dim"))
        time.cells.append(duration(summary.mean_duration_ns))
    return fitted_table(columns if is_rubric else columns[:8], width)


def _checkpoint_table(checkpoints: list[ModelCheckpoint], width: int) -> Table:
    step, name, size, digest, info = columns = [
        Column("step"),
        Column("checkpoint", right=False),
        Column("bytes", 1),
        Column("SHA-256", 2, right=False),
        Column("about", 3, right=False),
    ]
    for one in checkpoints:
        step.cells.append(f"{one.step:,}")
        shards = f" ({len(one.files):,} files)" if one.files else ""
        name.cells.append(printable(one.name) + shards)
        size.cells.append("–" if one.size is None else f"{one.size:,}")
        digest.cells.append("–" if one.sha256 is None else one.sha256[:16])
        info.cells.append(", ".join(f"{printable(k)}={printable(v, 60)}" for k, v in one.info.items()))
    return fitted_table(columns, width)


def _indented(path: str) -> str:
    """The path, moved in by its depth: the whole path stays readable and can be copied."""
    return path if path == "root" else "  " * (path.count(".") + 1) + printable(path)


def _episodes(names: list[str]) -> str:
    if len(names) == 1:
        return f"episode {printable(names[0])}"
    shown = ", ".join(printable(name) for name in names[:4])
    return f"{len(names):,} episodes: {shown}{', …' if len(names) > 4 else ''}"


def _facts(metadata: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The run's own metadata, then in short what the recorder found out about the process."""
    own = {key: value for key, value in metadata.items() if key != "rubriscope"}
    rows = _flat(own)
    found = metadata.get("rubriscope")
    if not isinstance(found, Mapping):
        return rows
    if found.get("argv"):
        rows.append(("command", " ".join(map(str, found["argv"]))))
    git = found.get("git")
    if isinstance(git, Mapping):
        rows.append(("git", f"{str(git.get('commit'))[:12]}{', with changes' if git.get('dirty') else ''}"))
    versions = {"rubriscope": found.get("version"), "python": found.get("python")}
    versions.update(found.get("packages") or {})
    rows.append(("versions", ", ".join(f"{name} {value}" for name, value in versions.items() if value)))
    machine = found.get("machine")
    if isinstance(machine, Mapping):
        cpus = f", {machine['cpus']} CPUs" if "cpus" in machine else ""
        rows.append(("machine", f"{machine.get('host')}{cpus}, {machine.get('platform')}"))
    return rows


def _flat(metadata: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested metadata as dotted keys; lists and long things on one line."""
    rows: list[tuple[str, str]] = []
    for key, value in metadata.items():
        if isinstance(value, Mapping) and value:
            rows += _flat(value, f"{prefix}{key}.")
        elif isinstance(value, (list, tuple)):
            rows.append((prefix + key, " ".join(map(str, value))))
        else:
            rows.append((prefix + key, str(value)))
    return rows


def _show_step(film: Film, session: Session, arguments: argparse.Namespace) -> int:
    step = arguments.step
    found = film.snapshots(session, episode=arguments.episode, start=step, stop=step + 1)
    limit = arguments.limit or None
    shown = list(itertools.islice(found, limit))
    if not shown:
        where = f" of episode {arguments.episode!r}" if arguments.episode is not None else ""
        raise CommandError(f"session {session.name!r} has no step {step}{where}")
    more = sum(1 for _ in found)
    if arguments.json:
        print_json([snapshot.to_dict() for snapshot in shown])
        return OK
    out = console()
    for snapshot in shown:
        out.print(snapshot_tree(snapshot, ranked=len(session.ranks) > 1))
    if more:
        out.print(f"… {more} more at step {step}; --limit 0 shows all")
    return OK
