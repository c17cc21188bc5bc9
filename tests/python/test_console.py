"""The console sink and how a snapshot looks in a terminal."""

from __future__ import annotations

import io
import sys

import pytest
from recording_fixture import make_session
from rich.console import Console
from rubriscope import render
from rubriscope.sinks import console as console_module
from rubriscope.sinks.console import ConsoleSink
from rubriscope.snapshot import NeuralSnapshot


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def failed_one() -> NeuralSnapshot:
    return next(s for s in make_session(1, "run").snapshots if "failed" in s.statuses.values())


def test_one_line_a_snapshot() -> None:
    out = io.StringIO()
    snapshots = make_session(1, "run", 3).snapshots
    ConsoleSink(out).write(snapshots)
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    assert "run ep 0 step 1 " in lines[1]
    assert f"reward {snapshots[1].reward:.4g}" in lines[1]
    assert f"quality.exact {snapshots[1].scores['quality.exact']:.4g}" in lines[1]
    assert "\x1b" not in out.getvalue()


def test_failures_are_marked_where_they_stand() -> None:
    out = io.StringIO()
    ConsoleSink(out).write([failed_one()])
    line = out.getvalue()
    assert "reward –" in line
    assert "✗ quality.exact (ZeroDivisionError: division by zero)" in line
    assert "✗ root" not in line
    assert "✗ quality " not in line


def test_every_thins_but_keeps_failures() -> None:
    out = io.StringIO()
    sink = ConsoleSink(out, every=4)
    snapshots = make_session(1, "run", 16).snapshots
    for snapshot in snapshots:
        sink.write([snapshot])
    kept = [s.step for i, s in enumerate(snapshots) if i % 4 == 0 or "failed" in s.statuses.values()]
    found = [int(line.split(" step ")[1].split()[0]) for line in out.getvalue().splitlines()]
    assert found == kept
    with pytest.raises(ValueError, match="at least 1, not 0"):
        ConsoleSink(every=0)


def test_recovered_snapshots_are_not_printed() -> None:
    out = io.StringIO()
    snapshot = failed_one()
    snapshot.recovered = True
    sink = ConsoleSink(out, tree=True)
    sink.write([snapshot])
    sink.close()
    assert out.getvalue() == ""
    assert ConsoleSink.wants_recovered is False


def test_tree_on_a_terminal_is_throttled_and_ends_with_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    now = [100.0]
    monkeypatch.setattr(console_module.time, "monotonic", lambda: now[0])
    out = Terminal()
    sink = ConsoleSink(out)
    snapshots = make_session(1, "run", 4).snapshots

    def trees() -> int:
        return out.getvalue().count("root  ")

    sink.write(snapshots[:1])
    assert trees() == 1
    sink.write(snapshots[1:2])
    assert trees() == 1
    now[0] += console_module.TREE_INTERVAL_S
    sink.write(snapshots[2:3])
    assert trees() == 2
    sink.write(snapshots[3:])
    sink.close()
    assert trees() == 3
    sink.close()
    assert trees() == 3
    assert "\x1b[" in out.getvalue()


def test_no_tree_where_it_is_not_a_terminal_unless_asked() -> None:
    plain, asked = io.StringIO(), io.StringIO()
    snapshots = make_session(1, "run", 1).snapshots
    for sink in (ConsoleSink(plain), ConsoleSink(asked, tree=True)):
        sink.write(snapshots)
        sink.close()
    assert "├──" not in plain.getvalue()
    assert "├──" in asked.getvalue()


def test_prints_to_standard_output_as_it_is_then(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = ConsoleSink()
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    sink.write(make_session(1, "run", 1).snapshots)
    assert "run ep 0 step 0" in out.getvalue()


def test_logged_scalars() -> None:
    out = io.StringIO()
    ConsoleSink(out).log({"loss": 0.25, "kl": float("nan")}, step=7)
    assert out.getvalue() == "step 7  loss 0.25  kl nan\n"


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    ConsoleSink(out, tree=False).write([failed_one()])
    assert "\x1b" not in out.getvalue()


def test_a_narrow_encoding_gets_escapes_not_an_error() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    ConsoleSink(out).write([failed_one()])
    assert b"x quality.exact" in raw.getvalue()


def test_control_characters_never_reach_the_terminal() -> None:
    snapshot = make_session(1, "run", 1).snapshots[0]
    snapshot.session_name = "a\x1b[2Jb"
    snapshot.action = "\x1b]0;title\x07\x9b31m"
    snapshot.reasons = {"root": "\x1b[31m"}
    snapshot.statuses["root"] = "failed"
    out = io.StringIO()
    sink = ConsoleSink(out, tree=True)
    sink.write([snapshot])
    sink.close()
    assert not set(out.getvalue()) & {"\x1b", "\x07", "\x9b"}
    assert "a\\x1b[2Jb" in out.getvalue()


def test_line_keeps_within_a_width() -> None:
    for snapshot in make_session(1, "run").snapshots:
        line = render.snapshot_line(snapshot, width=100)
        assert len(line) <= 100 or "✗" in line
    assert "+" in render.snapshot_line(make_session(1, "run").snapshots[0], width=70)


def test_tree_shows_each_node_below_its_parent() -> None:
    snapshot = make_session(1, "run", 1).snapshots[0]
    tree = render.snapshot_tree(snapshot)
    root = tree.children[-1]
    assert str(root.label).startswith("root")
    names = {str(child.label).split()[0]: child for child in root.children}
    assert list(names) == ["format", "quality", "style"]
    assert [str(child.label).split()[0] for child in names["quality"].children] == ["exact", "style"]
    assert "has both tags" in str(names["format"].children[0].label)


def test_sparkline() -> None:
    assert render.sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert render.sparkline([0, 0, 10, 10], width=2) == "▁█"
    assert render.sparkline([5, 5, 5]) == "▄▄▄"
    assert render.sparkline([]) == ""
    assert len(render.sparkline(list(range(1000)), width=24)) == 24
    assert render.sparkline([0, 1], ascii_only=True) == "_#"


def test_a_table_leaves_out_columns_before_it_cuts_a_number() -> None:
    columns = [
        render.Column("path", right=False, cells=["quality.exact"]),
        render.Column("mean", cells=["0.1234"]),
        render.Column("std", 2, cells=["0.5678"]),
        render.Column("n", 1, cells=["12,345"]),
    ]

    def drawn(width: int) -> str:
        out = io.StringIO()
        Console(file=out, width=width).print(render.fitted_table(columns, width))
        assert all(len(line) <= width for line in out.getvalue().splitlines())
        return out.getvalue()

    assert "0.5678" in drawn(60)
    assert "12,345" in drawn(40)
    assert "std" not in drawn(40)
    assert "0.1234" in drawn(30)
    assert "12,345" not in drawn(30)


@pytest.mark.parametrize(
    ("value", "short", "column"),
    [
        (None, "–", "–"),
        (0.0, "0", "0"),
        (1 / 3, "0.3333", "0.3333"),
        (1.0, "1", "1.0000"),
        (-0.25, "-0.25", "-0.2500"),
        (1.5e-7, "1.5e-07", "1.5e-07"),
        (123456.0, "123,456", "1.23e+05"),
        (float("nan"), "nan", "nan"),
    ],
)
def test_numbers(value: float | None, short: str, column: str) -> None:
    assert render.number(value) == short
    assert render.fixed(value) == column


def test_durations() -> None:
    found = [render.duration(ns) for ns in (None, 71, 1500, 2.5e6, 3e9, 4.2e12)]
    assert found == ["", "71 ns", "1.5 µs", "2.5 ms", "3 s", "4,200 s"]
