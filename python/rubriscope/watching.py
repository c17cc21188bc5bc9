"""Statistics of a model's activations, gradients and parameters while it trains."""

from __future__ import annotations

import contextlib
import contextvars
import math
from typing import TYPE_CHECKING, Any

import torch

from . import _C, _device
from .ops._stats import raw_stats
from .recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

KINDS = ("activations", "gradients", "parameters")

_QUANTILES = ((0.05, "log2_p5"), (0.5, "log2_p50"), (0.95, "log2_p95"))


def watch(
    model: torch.nn.Module,
    recorder: Recorder,
    every: int = 100,
    what: Sequence[str] | str = ("activations", "gradients"),
    *,
    modules: Callable[[str, torch.nn.Module], bool] | None = None,
) -> Watch:
    """Records statistics of a model's tensors on every ``every``-th training step, beginning with the first.

    A step is one call of ``model`` in training mode; calls in ``eval()`` mode are not counted. Between
    recorded steps the only cost is one hook on ``model`` itself. Nothing is synchronised: on a GPU the
    statistics are computed there and copied without blocking (``rubriscope.ops.tensor_stats``).

    Recorded as scalars ``<kind>/<path>/<statistic>`` at ``recorder.step``, or at the count of steps where the
    recorder has none. Statistics: ``mean``, ``std``, ``min``, ``max`` of the finite elements, ``nan_count``,
    ``inf_count``, ``zero_fraction``, and of the magnitudes that are not 0 the 5 %, 50 % and 95 % quantile as
    a power of two, rounded down (``log2_p5``, ``log2_p50``, ``log2_p95``). What is undefined is left out.

    ``activations``
        Outputs of the modules without children, or those that ``modules`` chooses, as they leave the module:
        an in-place operation behind it is not seen. The path is the module's (``(root)`` for ``model``), with
        ``[0]`` or ``[key]`` behind it for the tensors of tuples, lists and dicts. Of a module that is called
        several times in a step (shared, recurrent, replicated by ``DataParallel``) the first call counts;
        recomputation by activation checkpointing is not seen.
    ``gradients``
        Gradients of the parameters, as ``wandb.watch`` has them, when the step's backward pass first
        accumulates into them: with gradient accumulation including what was there, under
        ``DistributedDataParallel`` before ranks are averaged. A parameter without gradient has none recorded.
    ``parameters``
        The parameters' values at the beginning of the step.

    Results are never changed, and a failure inside is contained, counted in :attr:`Watch.failures` and
    reported once. Inside modules that ``torch.compile`` compiled no activations can be seen, which is
    reported once; their output, gradients and parameters are recorded. Watch the compiled module
    (``watch(torch.compile(model), …)``); in a function compiled around the model's call nothing is recorded.

    Args:
        model: The root.
        recorder: Where the scalars go.
        every: 1 or greater.
        what: One or several of ``"activations"``, ``"gradients"``, ``"parameters"``.
        modules: Whether a module's output is to be recorded, by its path and itself.

    Returns:
        A handle; :meth:`Watch.remove` it, or use it as a context manager.

    Raises:
        TypeError: ``model`` is no module or ``recorder`` no recorder.
        ValueError: ``every`` is below 1, ``what`` names something else, or ``model.compile()`` was called,
            which leaves no place for hooks.
    """
    return Watch(model, recorder, every, what, modules)


class Watch:
    """A watched model; made by :func:`watch`."""

    def __init__(
        self,
        model: torch.nn.Module,
        recorder: Recorder,
        every: int,
        what: Sequence[str] | str,
        modules: Callable[[str, torch.nn.Module], bool] | None,
    ) -> None:
        if not isinstance(model, torch.nn.Module):
            raise TypeError(f"model is a {type(model).__name__}, expected a torch.nn.Module")
        if not isinstance(recorder, Recorder):
            raise TypeError(
                f"recorder is a {type(recorder).__name__}, expected what rubriscope.record() returns"
            )
        if not isinstance(every, int) or every < 1:
            raise ValueError(f"every is {every!r}, expected a whole number from 1 on")
        kinds = (what,) if isinstance(what, str) else tuple(what)
        for kind in kinds or ("",):
            if kind not in KINDS:
                raise ValueError(
                    f"what names {kind!r}, expected one or several of {', '.join(map(repr, KINDS))}"
                )
        if _compiled_in_place(model):
            raise ValueError(
                "model was compiled in place by model.compile(): watch torch.compile(model) instead"
            )
        self._model = model
        self._recorder = recorder
        self._every = every
        self._kinds = frozenset(kinds)
        self._chosen = modules
        self._handles: list[Any] = []
        self._seen: set[str] = set()
        self._steps = 0
        self._failures = 0
        self._reported: set[str] = set()
        self._root = model.register_forward_pre_hook(_RootHook(self))

    @property
    def steps(self) -> int:
        """How many training steps were counted."""
        return self._steps

    @property
    def failures(self) -> int:
        """How many failures of the watching itself were contained."""
        return self._failures

    def remove(self) -> None:
        """Takes all hooks off the model. Idempotent."""
        self._root.remove()
        self._clear()

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    # ---- a step

    def _begin_step(self) -> None:
        if self._handles:
            self._clear()  # the hooks of the recorded step before
        if not self._model.training:
            return
        count = self._steps
        self._steps = count + 1
        if count % self._every:
            return
        with self._contained():
            label = self._recorder.step
            step = count if label is None else label
            self._seen.clear()
            if "parameters" in self._kinds:
                for name, parameter in self._model.named_parameters():
                    with self._contained():
                        self._record(f"parameters/{name}", parameter, step)
            if "activations" in self._kinds:
                self._hook_modules(step)
            if "gradients" in self._kinds:
                for name, parameter in self._model.named_parameters():
                    if parameter.requires_grad:
                        self._handles.append(
                            parameter.register_post_accumulate_grad_hook(self._gradient_hook(name, step))
                        )

    def _hook_modules(self, step: int) -> None:
        # Off again when the call ends, so that what is recomputed in the backward pass is not seen.
        handles: list[Any] = []
        for path, module in _visible_modules(self._model, self._report_compiled):
            leaf = next(module.children(), None) is None or "_orig_mod" in module._modules
            if leaf if self._chosen is None else self._chosen(path, module):
                handles.append(module.register_forward_hook(self._activation_hook(path or "(root)", step)))

        def end(*_: Any) -> None:
            for handle in handles:
                handle.remove()

        handles.append(self._model.register_forward_hook(end, always_call=True))
        self._handles.extend(handles)

    def _activation_hook(self, path: str, step: int) -> Callable[[Any, Any, Any], None]:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            if path in self._seen or torch.compiler.is_compiling():
                return
            self._seen.add(path)
            with self._contained():
                for place, tensor in _tensors_in(output):
                    self._record(f"activations/{path}{place}", tensor, step)

        return hook

    def _gradient_hook(self, name: str, step: int) -> Callable[[torch.Tensor], None]:
        key = f"gradients/{name}"

        def hook(parameter: torch.Tensor) -> None:
            gradient = parameter.grad
            if gradient is None or key in self._seen:
                return
            self._seen.add(key)
            with self._contained():
                self._record(key, gradient.coalesce().values() if gradient.is_sparse else gradient, step)

        return hook

    def _record(self, name: str, tensor: torch.Tensor, step: int) -> None:
        with torch.no_grad():
            arrival = _Arrival(self._recorder, name, *raw_stats(tensor), step)
        _device._start(arrival)  # type: ignore[arg-type]  # has what every stage there has

    # ---- care

    def _clear(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    @contextlib.contextmanager
    def _contained(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._failures += 1
            self._report_once(
                f"{type(error).__name__}", f"watching a model failed, training goes on: {error!r}", "error"
            )

    def _report_once(self, key: str, message: str, level: str = "warning") -> None:
        if key not in self._reported:
            self._reported.add(key)
            _C._report(level, message)

    def _report_compiled(self, path: str) -> None:
        self._report_once(
            "compiled", f"watch: activations inside the compiled module {path or '(root)'!r} cannot be seen"
        )


class _RootHook:
    """The one hook that stays. A copy of the model, or a pickle, gets one that does nothing."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def __call__(self, _module: Any, _inputs: Any) -> None:
        if not torch.compiler.is_compiling():
            self._watch._begin_step()

    def __reduce__(self) -> tuple[Any, ...]:
        return _inert, ()


def _does_nothing(_module: Any, _inputs: Any) -> None:
    pass


def _inert() -> Callable[[Any, Any], None]:
    return _does_nothing


class _Arrival:
    """A tensor's statistics on their way to the host (a stage of ``_device``)."""

    def __init__(
        self, recorder: Recorder, name: str, moments: torch.Tensor, counts: torch.Tensor, step: int
    ) -> None:
        self.recorder = recorder
        self.name = name
        self.step = step
        self.place = contextvars.copy_context()
        self.events: list[Any] = []
        self.hosts = [moments, counts]
        if moments.device.type == "cuda":
            self.hosts = [torch.empty(t.shape, dtype=t.dtype, pin_memory=True) for t in (moments, counts)]
            for host, source in zip(self.hosts, (moments, counts), strict=True):
                host.copy_(source, non_blocking=True)
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(moments.device))
            self.events.append(event)

    def publish(self) -> None:
        """Waits for the copies, then logs the scalars."""
        for event in self.events:
            event.synchronize()
        scalars = _scalars(self.name, self.hosts[0].tolist(), self.hosts[1].tolist())
        self.recorder._native.log(list(scalars), list(scalars.values()), self.step)


def _scalars(name: str, moments: list[float], counts: list[int]) -> dict[str, float]:
    mean, variance, least, greatest = moments
    count, nan, inf, zero = counts[:4]
    found = {
        "mean": mean,
        "std": math.sqrt(variance) if variance >= 0 else math.nan,
        "min": least,
        "max": greatest,
        "nan_count": float(nan),
        "inf_count": float(inf),
        "zero_fraction": zero / count if count else math.nan,
    }
    magnitudes = counts[4:]
    total = sum(magnitudes)
    if total:
        below, quantiles = 0, list(_QUANTILES)
        for index, here in enumerate(magnitudes):
            below += here
            while quantiles and below >= quantiles[0][0] * total:
                found[quantiles.pop(0)[1]] = float(index - 64)
    return {f"{name}/{key}": value for key, value in found.items() if not math.isnan(value)}


def _compiled_in_place(module: torch.nn.Module) -> bool:
    return getattr(module, "_compiled_call_impl", None) is not None


def _visible_modules(
    root: torch.nn.Module, hidden: Callable[[str], None]
) -> Iterator[tuple[str, torch.nn.Module]]:
    """The modules whose hooks run in eager mode, each once; ``hidden`` is told of the others' parents."""
    waiting = [("", root)]
    seen: set[int] = set()
    while waiting:
        path, module = waiting.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        if _compiled_in_place(module):
            hidden(path)
            continue
        yield path, module
        if "_orig_mod" in module._modules:  # what torch.compile(module) returns
            hidden(path)
            continue
        children = [(f"{path}.{name}" if path else name, child) for name, child in module.named_children()]
        waiting.extend(reversed(children))


def _tensors_in(output: Any, place: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """The floating tensors of a module's output, with where they are in it."""
    if isinstance(output, torch.Tensor):
        if output.is_floating_point():
            yield place, output
    elif isinstance(output, dict):
        for key, value in output.items():
            yield from _tensors_in(value, f"{place}[{key}]")
    elif isinstance(output, (tuple, list)):
        for index, value in enumerate(output):
            yield from _tensors_in(value, f"{place}[{index}]")
