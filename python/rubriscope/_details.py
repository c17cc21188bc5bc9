"""Small pieces the C++ engine asks Python for on its cold paths."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

    from ._C import Rubric


def is_async_callable(function: Any) -> bool:
    """Whether calling ``function`` gives a coroutine: an ``async def``, a partial or an object of one."""
    while hasattr(function, "func"):  # functools.partial
        function = function.func
    return inspect.iscoroutinefunction(function) or (
        callable(function)
        and not inspect.isroutine(function)
        and not inspect.isclass(function)
        and inspect.iscoroutinefunction(type(function).__call__)
    )


class RemovableHandle:
    """Takes a hook off again: ``handle.remove()``, or ``with rubric.register_forward_hook(f): …``."""

    __slots__ = ("_id", "_rubric")

    def __init__(self, rubric: Rubric, hook_id: int) -> None:
        self._rubric = rubric
        self._id = hook_id

    def remove(self) -> None:
        """Removes the hook; a second call does nothing."""
        self._rubric._remove_hook(self._id)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


def to_json(mapping: dict[str, Any]) -> str:
    """A mapping as a JSON object; a number that is not finite becomes null, other objects their repr."""
    return json.dumps(_plain(mapping), ensure_ascii=False, separators=(",", ":"))


def value_to_json(value: Any) -> str:
    """One value as :func:`to_json` has it."""
    return json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return _plain(value.item())
    return repr(value)


def attributes(rubric: Rubric) -> dict[str, Any]:
    """Everything Python keeps of a rubric: its ``__dict__`` and what is in its ``__slots__``."""
    state: Any = object.__getstate__(rubric)
    plain, slots = state if isinstance(state, tuple) else (state, None)
    return {**(plain or {}), **(slots or {})}


def metadata_json(score: Any) -> str | None:
    """The metadata of an ``rs.Score`` as a JSON object, None when it has none."""
    return to_json(score.metadata) if score.metadata else None


def annotations_json(waiting: dict[str, Any] | None, inside: dict[str, Any] | None) -> str:
    """The annotations of one snapshot: those made before the call, then those made during it."""
    return to_json({**(waiting or {}), **(inside or {})})


def describe(value: Any) -> str:
    """What a capture keeps of a value that is no string: tensors and arrays unread, else its repr."""
    shape = getattr(value, "shape", None)
    dtype = getattr(value, "dtype", None)
    if shape is None or dtype is None:
        return repr(value)
    device = getattr(value, "device", None)
    where = f", device={device}" if device is not None else ""
    return f"{type(value).__name__.lower()}(shape={tuple(shape)}, dtype={dtype}{where})"


@functools.cache
def _source_digest(cls: type) -> str | None:
    """SHA-256 of a class's source text; None where there is none (a class typed into a console)."""
    try:
        return hashlib.sha256(inspect.getsource(cls).encode()).hexdigest()
    except (OSError, TypeError):
        return None


def node_details(rubric: Rubric) -> str:
    """A rubric's module, source digest and configuration as a JSON object, for the schema of its tree."""
    cls: Any = type(rubric)
    details: dict[str, Any] = {"module": cls.__module__}
    digest = _source_digest(cls)
    if digest is not None:
        details["source_sha256"] = digest
    config = rubric.state_dict()
    if config:
        details["config"] = config
    return to_json(details)


def tree_repr(rubric: Rubric) -> str:
    """A rubric as an indented tree of its classes, as ``nn.Module`` shows itself."""
    name = type(rubric).__name__
    lines = []
    for child_name, child in rubric.named_children():
        below = repr(child).replace("\n", "\n  ")
        lines.append(f"  ({child_name}): {below}")
    return f"{name}(\n" + "\n".join(lines) + "\n)" if lines else f"{name}()"
