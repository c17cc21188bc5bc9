"""watch: what is recorded, when, and that training is left alone."""

from __future__ import annotations

import contextlib
import copy
import math
import pickle
import sqlite3

import pytest
import rubriscope as rs
import torch
from rubriscope import _C, Watch, watch, watching
from torch import nn

STATISTICS = {"mean", "std", "min", "max", "nan_count", "inf_count", "zero_fraction"}


def rows(path):
    with contextlib.closing(sqlite3.connect(path)) as db:
        return list(db.execute("select step_index, name, value from scalar_values order by rowid"))


class Run:
    """A recorder on a database, and what came of it."""

    def __init__(self, folder):
        self.path = folder / "runs.db"
        self.recorder = rs.record(self.path)

    def found(self):
        self.recorder.close()
        return {(step, name): value for step, name, value in rows(self.path)}

    def names(self):
        """Kind/path of everything recorded, with the steps."""
        found = {}
        for step, name in self.found():
            found.setdefault(name.rsplit("/", 1)[0], set()).add(step)
        return found


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path)
    yield run
    run.recorder.close()


@pytest.fixture
def reports(monkeypatch):
    found = []
    monkeypatch.setattr(_C, "_report", lambda level, message: found.append((level, message)))
    return found


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Linear(8, 2))


def train(model, steps, seed=1, **inputs):
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(steps):
        out = model(torch.randn(16, 4, generator=generator), **inputs)
        if isinstance(out, dict):
            out = out["out"][0]
        out.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def test_values(run):
    model = mlp()
    seen = {}
    model[0].register_forward_hook(lambda m, i, o: seen.update(activation=o.detach().clone()))
    model[0].weight.register_hook(lambda g: seen.update(gradient=g.clone()))
    weight = model[0].weight.detach().clone()
    with watch(model, run.recorder, every=10, what=("activations", "gradients", "parameters")) as watched:
        train(model, 1)
    assert watched.failures == 0 and watched.steps == 1
    found = run.found()
    for name, tensor in (
        ("activations/0", seen["activation"]),  # before the ReLU wrote over it
        ("gradients/0.weight", seen["gradient"]),
        ("parameters/0.weight", weight),
    ):
        assert found[0, f"{name}/mean"] == pytest.approx(tensor.double().mean().item())
        assert found[0, f"{name}/std"] == pytest.approx(tensor.double().std().item())
        assert found[0, f"{name}/min"] == tensor.min().item()
        assert found[0, f"{name}/max"] == tensor.max().item()
        assert found[0, f"{name}/nan_count"] == found[0, f"{name}/inf_count"] == 0
        median = tensor[tensor != 0].abs().log2().floor().quantile(0.5, interpolation="lower")
        assert found[0, f"{name}/log2_p50"] == median.item()
    assert found[0, "activations/1/min"] == 0 < found[0, "activations/1/zero_fraction"] < 1


def test_which_steps_and_names(run):
    model = mlp()
    watch(model, run.recorder, every=3)
    model.eval()
    model(torch.ones(1, 4))
    model.train()
    train(model, 7)
    layers = {f"activations/{i}" for i in range(3)}
    gradients = {f"gradients/{i}.{p}" for i in (0, 2) for p in ("weight", "bias")}
    assert run.names() == {name: {0, 3, 6} for name in layers | gradients}


def test_the_recorders_step_is_the_label(run):
    model = mlp()
    watch(model, run.recorder, every=1, what="gradients")
    for step in (100, 250):
        run.recorder.step = step
        train(model, 1)
    assert set().union(*run.names().values()) == {100, 250}


@pytest.mark.parametrize("every", [1, 2])
def test_training_is_the_same_to_the_bit(run, every):
    plain, watched = mlp(), mlp()
    watch(watched, run.recorder, every=every, what=("activations", "gradients", "parameters"))
    train(plain, 6)
    train(watched, 6)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), watched.parameters(), strict=True))


def test_nothing_stays_on_the_model_between_steps(run):
    model = mlp()
    handle = watch(model, run.recorder, every=5)
    train(model, 2)
    assert not any(m._forward_hooks for m in model.modules())
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())
    assert len(model._forward_pre_hooks) == 1
    handle.remove()
    handle.remove()
    assert not model._forward_pre_hooks
    train(model, 9)
    assert handle.steps == 2


def test_removed_in_the_middle_of_a_step(run):
    model = mlp()
    handle = watch(model, run.recorder)
    loss = model(torch.ones(2, 4)).sum()
    handle.remove()
    loss.backward()
    assert not any(name.startswith("gradients") for name in run.names())


class Nested(nn.Module):
    """A shared layer, a recurrent one, a dict of tuples as output, unused parameters, integers."""

    def __init__(self):
        super().__init__()
        self.shared = nn.Linear(4, 4)
        self.again = self.shared
        self.lstm = nn.LSTM(4, 3, batch_first=True)
        self.unused = nn.Linear(2, 2)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)

    def forward(self, x):
        x = self.again(self.shared(self.frozen(x)))
        y, (h, _) = self.lstm(x[:, None])
        return {"out": (y, h), "index": y.argmax(-1)}


def test_modules_of_every_kind(run):
    model = Nested()
    watch(model, run.recorder, every=1, modules=lambda path, module: True)
    train(model, 1)
    names = set(run.names())
    assert {n for n in names if n.startswith("activations")} == {
        "activations/shared",
        "activations/frozen",
        "activations/lstm[0]",
        "activations/lstm[1][0]",
        "activations/lstm[1][1]",
        "activations/(root)[out][0]",
        "activations/(root)[out][1]",
    }
    gradients = {n for n in names if n.startswith("gradients")}
    assert "gradients/shared.weight" in gradients and "gradients/lstm.weight_ih_l0" in gradients
    assert not any("unused" in n or "frozen" in n for n in gradients)


def test_a_model_without_children(run):
    model = nn.Linear(4, 2)
    watch(model, run.recorder, every=1)
    train(model, 2)
    assert run.names() == {
        name: {0, 1} for name in ("activations/(root)", "gradients/weight", "gradients/bias")
    }


def test_checkpointed_modules(run):
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = mlp()

        def forward(self, x):
            return torch.utils.checkpoint.checkpoint(self.body, x, use_reentrant=False)

    torch.manual_seed(0)
    model, plain = Checkpointed(), mlp()
    watch(model, run.recorder, every=1)
    train(model, 3)
    train(plain, 3)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), model.parameters(), strict=True))
    names = run.names()
    assert names["activations/body.1"] == names["gradients/body.2.weight"] == {0, 1, 2}


def test_compiled_models(run, reports):
    model = torch.compile(mlp(), backend="aot_eager")
    handle = watch(model, run.recorder, every=2, what=("activations", "gradients", "parameters"))
    train(model, 4)
    assert handle.failures == 0 and handle.steps == 4
    names = run.names()
    assert names["activations/(root)"] == names["gradients/_orig_mod.0.weight"] == {0, 2}
    assert not any(name.startswith("activations/_orig") for name in names)
    assert len(reports) == 1 and "cannot be seen" in reports[0][1]


def test_compiled_in_place(run, reports):
    model = mlp()
    model[0].compile(backend="aot_eager")
    watch(model, run.recorder, every=1)
    train(model, 2)
    names = run.names()
    assert "activations/1" in names and "activations/0" not in names and "gradients/0.weight" in names
    assert len(reports) == 1
    whole = mlp()
    whole.compile(backend="aot_eager")
    with pytest.raises(ValueError, match="compiled in place"):
        watch(whole, run.recorder)


def test_inside_a_compiled_function(run):
    model = mlp()
    handle = watch(model, run.recorder, every=1)
    compiled = torch.compile(lambda x: model(x).sum(), fullgraph=True, backend="aot_eager")
    compiled(torch.ones(2, 4)).backward()
    assert handle.steps == 0 and handle.failures == 0


def test_special_values(run):
    model = nn.Sequential(nn.Identity(), nn.Linear(4, 2))
    watch(model, run.recorder, every=1)
    model(torch.tensor([[math.nan, math.inf, 0.0, 2.0]]))
    model(torch.full((1, 4), math.nan))
    found = run.found()
    assert found[0, "activations/0/nan_count"] == found[0, "activations/0/inf_count"] == 1
    assert found[0, "activations/0/mean"] == 1 and found[0, "activations/0/zero_fraction"] == 0.25
    assert (1, "activations/0/mean") not in found and found[1, "activations/0/nan_count"] == 4


def test_half_types(run):
    model = mlp().bfloat16()
    watch(model, run.recorder, every=1)
    model(torch.randn(3, 4, dtype=torch.bfloat16)).float().sum().backward()
    assert "gradients/0.weight" in run.names()


def test_gradient_accumulation(run):
    model = mlp()
    watch(model, run.recorder, every=2, what="gradients")
    for _ in range(2):  # the second backward pass adds to the first, whose gradients were recorded
        model(torch.ones(1, 4)).sum().backward()
    assert set().union(*run.names().values()) == {0}


def test_a_failing_forward_leaves_no_hooks(run):
    model = mlp()
    watch(model, run.recorder, every=1)
    with pytest.raises(RuntimeError):
        model(torch.ones(1, 5))
    assert not any(m._forward_hooks for m in model.modules())
    train(model, 1)


def test_failures_are_contained_and_counted(run, reports, monkeypatch):
    def fail(tensor):
        raise MemoryError("none left")

    model, plain = mlp(), mlp()
    handle = watch(model, run.recorder, every=1, what=("activations", "gradients", "parameters"))
    monkeypatch.setattr(watching, "raw_stats", fail)
    train(model, 2)
    train(plain, 2)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), model.parameters(), strict=True))
    assert handle.failures == 2 * (3 + 4 + 4)
    assert len(reports) == 1 and reports[0][0] == "error" and "none left" in reports[0][1]


def test_a_failing_choice_of_modules(run, reports):
    model = mlp()
    handle = watch(model, run.recorder, every=1, modules=lambda path, module: 1 / 0)
    train(model, 2)
    assert handle.failures == 2 and len(reports) == 1 and "ZeroDivisionError" in reports[0][1]


def test_copies_and_pickles_are_not_watched(run):
    model = mlp()
    handle = watch(model, run.recorder, every=1)
    train(copy.deepcopy(model), 1)
    train(pickle.loads(pickle.dumps(model)), 1)
    assert handle.steps == 0 and run.names() == {}


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"model": 3}, TypeError, "model is a int"),
        ({"recorder": "runs.db"}, TypeError, "recorder is a str"),
        ({"every": 0}, ValueError, "every is 0"),
        ({"every": 1.5}, ValueError, "every is 1.5"),
        ({"what": ()}, ValueError, "what names ''"),
        ({"what": ("activations", "weights")}, ValueError, "what names 'weights'"),
    ],
)
def test_bad_arguments(run, arguments, error, words):
    with pytest.raises(error, match=words):
        watch(**{"model": mlp(), "recorder": run.recorder, **arguments})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_nothing_is_synchronised(run):
    model = mlp().cuda()
    handle = watch(model, run.recorder, every=1, what=("activations", "gradients", "parameters"))
    x = torch.ones(4, 4, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            model(x).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert handle.failures == 0 and isinstance(handle, Watch)
    assert {"activations/0", "gradients/0.weight", "parameters/0.weight"} <= set(run.names())
