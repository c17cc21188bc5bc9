"""TensorBoard, Parquet, W&B and MLflow: written by the recorder, read back by each one's own library."""

from __future__ import annotations

import math
import os
import signal
import struct
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import rubriscope as rs
from engine_support import Echo, Raises, Value
from rubriscope.targets import sink_for_target, target_of

STEPS = list(range(3, 23))


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def record_a_run(sink, **options):
    """Two snapshots and one log() a step; the scores are exact in float32."""
    with rs.record(sink, session="run/1", **options) as recorder:
        tree = rs.RubricDict({"good": Echo(), "half": Value(0.5)})

        class Root(rs.Rubric):
            def __init__(self):
                super().__init__()
                self.parts = tree

            def forward(self, action, observation):
                return self.parts["good"](action, observation) + self.parts["half"](action, observation)

        root = Root()
        recorder.observe(root)
        for step in STEPS:
            recorder.step = step
            for sample in range(2):
                recorder.sample_index = sample
                root(step / 4 + sample, "seen")
            recorder.log({"loss": 1 / 2**step}, step=step)
    return recorder


def expected(key):
    """(step, value) of a curve."""
    value = {
        "rubric/root": lambda step, sample: step / 4 + sample + 0.5,
        "rubric/parts.good": lambda step, sample: step / 4 + sample,
        "rubric/parts.half": lambda step, sample: 0.5,
        "loss": lambda step, sample: 1 / 2**step,
    }[key]
    return [(step, value(step, sample)) for step in STEPS for sample in range(1 if key == "loss" else 2)]


CURVES = ["rubric/root", "rubric/parts.good", "rubric/parts.half", "loss"]


def all_delivered(recorder):
    stats = recorder.stats()
    return (stats.accepted, stats.durable, stats.failed) == (3 * len(STEPS), 3 * len(STEPS), 0)


# ---- TensorBoard


def test_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recorder = record_a_run(rs.TensorBoardSink(tmp_path / "tb"))
    assert all_delivered(recorder)
    (folder,) = (tmp_path / "tb").iterdir()
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == sorted(CURVES)
    for key in CURVES:
        assert [(e.step, e.value) for e in events.Scalars(key)] == expected(key)
    times = [e.wall_time for e in events.Scalars("rubric/root")]
    assert times == sorted(times)


# ---- Parquet


def parquet_rows(folder):
    import pyarrow.parquet as pq

    rows = pq.read_table(folder, partitioning=None).to_pylist()
    return sorted(rows, key=lambda row: (row["writer"], row["sequence"]))


def test_parquet(tmp_path):
    recorder = record_a_run(rs.ParquetSink(tmp_path / "pq"))
    assert all_delivered(recorder)
    rows = parquet_rows(tmp_path / "pq")
    assert [row["sequence"] for row in rows] == list(range(3 * len(STEPS)))
    snapshots = [row for row in rows if row["kind"] == "snapshot"]
    for path in ("root", "parts.good", "parts.half"):
        got = [(row["step"], dict(row["scores"])[path]) for row in snapshots]
        assert got == expected("rubric/" + path)
    assert [row["reward"] for row in snapshots] == [value for _, value in expected("rubric/root")]
    assert {(row["observation"], row["session_name"], row["writer"]) for row in snapshots} == {
        ("seen", "run/1", recorder.writer_id)
    }
    assert [row["sample"] for row in snapshots] == [0, 1] * len(STEPS)
    scalars = [(row["step"], dict(row["scores"])["loss"]) for row in rows if row["kind"] == "scalars"]
    assert scalars == expected("loss")


def test_parquet_puts_small_parts_together(tmp_path):
    folder = tmp_path / "pq"
    with rs.record(rs.ParquetSink(folder)) as recorder:
        for i in range(80):
            recorder.log({"x": i})
            recorder.flush()
        assert len(list(folder.iterdir())) < 20  # of 80 batches
    assert len(list(folder.iterdir())) == 1
    assert [dict(row["scores"])["x"] for row in parquet_rows(folder)] == list(range(80))


def test_parquet_failures_and_skipped_nodes(tmp_path):
    with rs.record(rs.ParquetSink(tmp_path / "pq")) as recorder:
        tree = rs.Sequential(Value(0.0), Value(1.0))
        broken = rs.Sequential(Raises(RuntimeError("no idea")))
        recorder.observe(tree)
        recorder.observe(broken)
        tree("a", "o")
        with pytest.raises(RuntimeError):
            broken("a", "o")
        recorder.log({"nan": math.nan, "inf": math.inf})
    rows = parquet_rows(tmp_path / "pq")
    assert dict(rows[0]["statuses"])["rubric_1"] == "skipped" and "rubric_1" not in dict(rows[0]["scores"])
    assert dict(rows[1]["statuses"]) == {"root": "failed", "rubric_0": "failed"}
    assert rows[1]["reward"] is None and "no idea" in dict(rows[1]["reasons"])["rubric_0"]
    values = dict(rows[2]["scores"])
    assert math.isnan(values["nan"]) and math.isnan(values["inf"])


def test_parquet_holds_every_record_once_after_kills(tmp_path):
    """A process that is killed between its part and the journal's cursor, and one in the middle of a join."""
    script = textwrap.dedent(
        """
        import os, signal, sys
        import rubriscope as rs
        from rubriscope.sinks import parquet

        kill_in = sys.argv[2]
        real = getattr(parquet.ParquetSink, kill_in)

        def wrapped(self, *arguments):
            result = real(self, *arguments)
            if any(part.last >= 15 for part in self._parts):
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(parquet.ParquetSink, kill_in, wrapped)
        if kill_in == "_write":  # of a join: the parts that went into it are still there
            parquet.Path.unlink = lambda *arguments, **options: None
        recorder = rs.record(rs.ParquetSink(sys.argv[1]))
        for i in range(100):
            recorder.log({"x": i})
            recorder.flush()
        """
    )
    folder = tmp_path / "pq"
    for kill_in in ("write_all", "_write"):
        done = subprocess.run([sys.executable, "-c", script, str(folder), kill_in], timeout=60)
        assert done.returncode == -signal.SIGKILL
    with rs.record(rs.ParquetSink(folder)) as recorder:
        assert recorder.stats().recovered >= 0
    per_writer: dict[str, list[float]] = {}
    for row in parquet_rows(folder):
        per_writer.setdefault(row["writer"], []).append(dict(row["scores"])["x"])
    assert len(per_writer) == 2
    for values in per_writer.values():
        assert len(values) >= 16 and values == list(range(len(values)))


# ---- Weights & Biases


def wandb_records(folder):
    """The records of an offline run. W&B's service writes the last of them after finish() has returned."""
    (file,) = Path(folder).glob("wandb/offline-run-*/*.wandb")
    deadline = time.monotonic() + 20
    while True:
        records = wandb_file(file)
        if any(record.HasField("exit") for record in records):
            return records
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wandb_file(file):
    """What there is of a run's file: LevelDB's log format after 7 bytes, records as protobuf."""
    from wandb.proto import wandb_internal_pb2

    data = Path(file).read_bytes()
    assert data[:4] == b":W&B"
    block = 32 * 1024
    at, whole, records = 7, b"", []
    while at + 7 <= len(data):
        if block - at % block < 7:
            at += block - at % block
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        if kind == 0:
            break
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            records.append(record)
            whole = b""
    return records


def wandb_rows(folder):
    import json

    for record in wandb_records(folder):
        if record.WhichOneof("record_type") == "history":
            yield {
                (item.key or "/".join(item.nested_key)): json.loads(item.value_json)
                for item in record.history.item
            }


@pytest.fixture
def offline(monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield wandb
    wandb.teardown()


def test_wandb(tmp_path, offline):
    recorder = record_a_run(rs.WandBSink("project", dir=str(tmp_path)))
    assert all_delivered(recorder)
    rows = list(wandb_rows(tmp_path))
    assert [row["_step"] for row in rows] == list(range(3 * len(STEPS)))
    for key in CURVES:
        assert [(row["step"], row[key]) for row in rows if key in row] == expected(key)
    assert offline.run is None  # the user's current run is left alone
    records = wandb_records(tmp_path)
    runs = [record.run for record in records if record.HasField("run")]
    assert (runs[0].project, runs[0].run_group, runs[0].display_name) == ("project", "run/1", "run/1")
    metrics = {r.metric.name or r.metric.glob_name: r.metric for r in records if r.HasField("metric")}
    assert metrics["rubric/*"].step_metric == "step"


def test_wandb_into_a_run_of_the_users(tmp_path, offline):
    with offline.init(project="mine", dir=str(tmp_path)) as run:
        run.log({"own": 1})
        record_a_run(rs.WandBSink(run=run))
        run.log({"own": 2})  # still open
    rows = list(wandb_rows(tmp_path))
    assert [row["own"] for row in rows if "own" in row] == [1, 2]
    assert [(r["step"], r["rubric/root"]) for r in rows if "rubric/root" in r] == expected("rubric/root")
    with pytest.raises(ValueError, match="project"):
        rs.WandBSink("p", run=run)


# ---- MLflow


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A database of MLflow's; making one takes it seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


def test_mlflow(store):
    from mlflow.tracking import MlflowClient

    recorder = record_a_run(rs.MLflowSink("experiment", tracking_uri=store))
    assert all_delivered(recorder)
    client = MlflowClient(store)
    (run,) = client.search_runs([client.get_experiment_by_name("experiment").experiment_id])
    assert (run.info.run_name, run.info.status) == ("run/1", "FINISHED")
    assert run.data.tags["rubriscope.session_id"] == recorder.session_id
    for key in CURVES:
        history = client.get_metric_history(run.info.run_id, key)
        assert sorted((m.step, m.value) for m in history) == sorted(set(expected(key)))


def test_mlflow_twice_is_once_and_names_are_made_fit(store):
    from mlflow.tracking import MlflowClient
    from rubriscope.snapshot import Scalars

    sink = rs.MLflowSink("another", tracking_uri=store)
    session = {"session_id": "s", "session_name": "n", "writer_id": "w", "created_ns": 1, "rank": 1}
    for _ in range(2):
        sink.open({**session, "world_size": 2})
        sink.write_all([Scalars("w:0", "s", "n", 7, 5_000_000, {"odd [name]": 2.5})])
        sink.close()
    client = MlflowClient(store)
    (run,) = client.search_runs([client.get_experiment_by_name("another").experiment_id])
    assert run.info.run_name == "n-rank1"
    (metric,) = client.get_metric_history(run.info.run_id, "odd _name_")
    assert (metric.value, metric.step, metric.timestamp) == (2.5, 7, 5)


def test_mlflow_server_that_is_down_delays_nobody(tmp_path):
    sink = rs.MLflowSink("e", tracking_uri="http://user:secret@127.0.0.1:9/")  # nobody listens there
    assert sink.target == "mlflow:e@http://127.0.0.1:9/"
    with rs.record(tmp_path / "runs.db", sinks=[sink]) as recorder:
        recorder.log({"x": 1})
        with pytest.raises(TimeoutError, match="refused"):
            recorder.flush(1)
        database, down = recorder.stats().sinks
        assert (database.durable, down.durable, down.failing, down.failed) == (1, 0, True, 0)
        journal = recorder.journal_path
    assert journal.exists()  # its share waits for the server


# ---- all of them


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("tensorboard:{p}", rs.TensorBoardSink),
        ("parquet:{p}", rs.ParquetSink),
        ("wandb:project", rs.WandBSink),
        ("mlflow:experiment@sqlite:///{p}/x.db", rs.MLflowSink),
    ],
)
def test_targets_name_their_sinks(tmp_path, target, kind):
    target = target.format(p=tmp_path)
    sink = sink_for_target(target)
    assert isinstance(sink, kind)
    assert target_of(sink) == target and target_of(sink_for_target(target_of(sink))) == target


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("TensorBoardSink", "tensorboard", "tensorboard"),
        ("ParquetSink", "pyarrow", "parquet"),
        ("WandBSink", "wandb", "wandb"),
        ("MLflowSink", "mlflow", "mlflow"),
        ("OTLPSink", "opentelemetry.proto.trace.v1.trace_pb2", "otlp"),
        ("RedisStreamSink", "redis", "redis"),
    ],
)
def test_a_missing_library_names_the_extra(name, module, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    arguments = {"TensorBoardSink": ["x"], "ParquetSink": ["x"]}.get(name, [])
    with pytest.raises(ImportError, match=rf"{name} needs .*pip install 'rubriscope\[{extra}\]'"):
        getattr(rs, name)(*arguments)


def test_a_forked_child_writes_a_run_of_its_own(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with rs.record(sinks=[rs.TensorBoardSink(tmp_path / "tb"), rs.ParquetSink(tmp_path / "pq")]) as recorder:
        recorder.log({"x": 1}, step=0)
        recorder.flush()
        child = os.fork()
        if child == 0:
            recorder.log({"x": 2}, step=1)
            recorder.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        recorder.log({"x": 3}, step=2)
    seen = []
    for file in (tmp_path / "tb").rglob("events*"):
        events = EventAccumulator(str(file))
        events.Reload()
        seen.append([(e.step, e.value) for e in events.Scalars("x")])
    assert sorted(seen) == [[(0, 1.0), (2, 3.0)], [(1, 2.0)]]
    rows = parquet_rows(tmp_path / "pq")
    assert sorted(dict(row["scores"])["x"] for row in rows) == [1, 2, 3]
    assert len({row["writer"] for row in rows}) == 2
