"""Which function a target such as ``pkg.mod:Class.method`` or ``Class.method`` means."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Iterator
from types import FunctionType, MethodType, ModuleType
from typing import Any

from .. import _C

_SHOWN = 5  # candidates in a message


def find_function(target: str) -> tuple[str, FunctionType]:
    """The function that ``target`` means, and its full name ``module:qualname``.

    Raises:
        LookupError: nothing, or more than one function, is called so.
        TypeError: what is called so is no Python function.
    """
    if not isinstance(target, str):
        raise TypeError(f"a target is a str such as 'pkg.mod:Class.method', got {target!r}")
    if ":" in target:
        module_name, _, qualname = target.partition(":")
        module = sys.modules.get(module_name)
        if module is None:
            raise LookupError(f"target {target!r}: no module {module_name!r} is loaded")
        found = _member(module, qualname.split("."))
        if found is None:
            raise LookupError(f"target {target!r}: {module_name} has no {qualname!r}{_local_hint(qualname)}")
        owner, value = found
        return _checked(target, f"{module_name}:{qualname}", owner, value)
    return _by_suffix(target)


def _by_suffix(target: str) -> tuple[str, FunctionType]:
    parts = target.split(".")
    functions: dict[int, tuple[str, FunctionType]] = {}
    refusals: list[TypeError] = []
    for module, path in _places(parts):
        found = _member(module, path)
        if found is None:
            continue
        owner, value = found
        try:
            name, function = _checked(target, f"{module.__name__}:{'.'.join(path)}", owner, value)
        except TypeError as refusal:
            refusals.append(refusal)
        else:
            functions.setdefault(id(function), (name, function))
    if len(functions) == 1:
        return next(iter(functions.values()))
    if functions:
        names = sorted(name for name, _ in functions.values())
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        raise LookupError(
            f"target {target!r} is ambiguous: {', '.join(names[:_SHOWN])}{more}; give one of them in full"
        )
    if refusals:
        raise refusals[0]
    raise LookupError(
        f"target {target!r}: no loaded module has it{_local_hint(target)}; expected module:qualname or the "
        "end of a dotted name"
    )


def _places(parts: list[str]) -> Iterator[tuple[ModuleType, list[str]]]:
    """Each module that the first parts may name, with what is left for its members."""
    for name, module in list(sys.modules.items()):
        if not isinstance(module, ModuleType) or not isinstance(getattr(module, "__name__", None), str):
            continue
        for count in range(len(parts)):
            head = ".".join(parts[:count])
            if not head or name == head or name.endswith(f".{head}"):
                yield module, parts[count:]


def _member(module: ModuleType, path: list[str]) -> tuple[type | None, Any] | None:
    """What the path leads to, with the class that it is looked up in, read without running any code."""
    owner: type | None = None
    value: Any = module
    for name in path:
        members = vars(value) if isinstance(value, (ModuleType, type)) else {}
        if name in members:
            owner = value if isinstance(value, type) else None
            value = members[name]
        elif isinstance(value, type) and (base := _defining(value, name)) is not None:
            owner, value = value, vars(base)[name]
        else:
            return None
    return owner, value


def _defining(cls: type, name: str) -> type | None:
    return next((base for base in cls.__mro__ if name in vars(base)), None)


def _checked(target: str, path: str, owner: type | None, value: Any) -> tuple[str, FunctionType]:
    member = path.rpartition(".")[2]
    if owner is not None and member not in vars(owner):
        base = _defining(owner, member)
        assert base is not None
        raise TypeError(
            f"target {target!r}: {owner.__qualname__} inherits {member} from {base.__module__}:"
            f"{base.__qualname__}, whose other users would be instrumented, too; name "
            f"'{base.__module__}:{base.__qualname__}.{member}' if that is meant"
        )
    function = _function_in(value)
    if function is None:
        raise TypeError(
            f"target {target!r}: {path} is {_kind(value)}; only Python functions and methods can be "
            "instrumented while they run"
        )
    own = f"{function.__module__}:{function.__qualname__}"
    return (own if _leads_to(own, function) else path), function


def _function_in(value: Any) -> FunctionType | None:
    """The Python function behind a static, class or bound method, a property or a sight point."""
    if isinstance(value, (staticmethod, classmethod, MethodType)):
        return _function_in(value.__func__)
    if isinstance(value, property):
        return _function_in(value.fget)
    if isinstance(value, functools.cached_property):
        return _function_in(value.func)
    if isinstance(value, _C.SightFunction):
        return _function_in(vars(value)["__wrapped__"])
    return value if isinstance(value, FunctionType) else None


def _leads_to(name: str, function: FunctionType) -> bool:
    module_name, _, qualname = name.partition(":")
    module = sys.modules.get(module_name)
    found = _member(module, qualname.split(".")) if isinstance(module, ModuleType) else None
    return found is not None and _function_in(found[1]) is function


def _kind(value: Any) -> str:
    if isinstance(value, type):
        return f"the class {value.__qualname__} (name one of its methods, such as __init__)"
    if isinstance(value, ModuleType):
        return "a module"
    if inspect.isbuiltin(value) or inspect.isroutine(value):
        return f"a {type(value).__name__}, implemented in C"
    return f"of the type {type(value).__module__}.{type(value).__qualname__}"


def _local_hint(name: str) -> str:
    return " (functions made inside functions cannot be named)" if "<locals>" in name else ""
