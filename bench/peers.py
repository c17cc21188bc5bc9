"""The peers, as their users run them: OpenEnv's rubrics, and the best leaf that plain Python allows."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import itertools
import random
import sys
import types
from collections.abc import Callable
from typing import Any


class OpenEnv:
    """OpenEnv's own rubric files, as installed by ``pip install --no-deps openenv-core``.

    Only `base.py` and `containers.py` are loaded: the package's ``__init__`` imports a web server and its
    dependencies, which rubrics do not use.

    Raises:
        ModuleNotFoundError: openenv-core is not installed.
    """

    def __init__(self) -> None:
        try:
            distribution = importlib.metadata.distribution("openenv-core")
        except importlib.metadata.PackageNotFoundError as error:
            raise ModuleNotFoundError(
                "the peer OpenEnv is not installed: pip install --no-deps openenv-core==0.3.0"
            ) from error
        self.version: str = distribution.version
        for package in ("openenv", "openenv.core", "openenv.core.rubrics"):
            sys.modules.setdefault(package, types.ModuleType(package))
        base, containers = (
            self._load(
                f"openenv.core.rubrics.{name}", distribution.locate_file(f"openenv/core/rubrics/{name}.py")
            )
            for name in ("base", "containers")
        )
        self.Rubric: Any = base.Rubric
        self.Gate: Any = containers.Gate
        self.WeightedSum: Any = containers.WeightedSum

    @staticmethod
    def _load(name: str, path: Any) -> types.ModuleType:
        spec = importlib.util.spec_from_file_location(name, str(path))
        if spec is None or spec.loader is None:
            raise ModuleNotFoundError(f"openenv-core holds no {path}")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module


def constant_leaf(base: type) -> type:
    """A rubric of one constant; made anew for each base, so that no bytecode is shared between peers."""

    class Constant(base):  # type: ignore[misc, valid-type]
        def forward(self, action: Any, observation: Any) -> float:
            return 0.5

    return Constant


def varying_leaf(base: type) -> type:
    """A rubric of random scores with all their digits: constants would flatter what writes them as text."""

    class Varying(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            rng = random.Random(7)
            self.scores = itertools.cycle([rng.uniform(0.2, 1.0) for _ in range(1000)])

        def forward(self, action: Any, observation: Any) -> float:
            return next(self.scores)

    return Varying


def tree(rubrics: Any, gates: int = 3, leaves: int = 2, kind: Callable[[type], type] = constant_leaf) -> Any:
    """A WeightedSum of ``gates`` gates over WeightedSums of ``leaves`` Python leaves.

    Args:
        rubrics: Where Rubric, Gate and WeightedSum come from: rubriscope or :class:`OpenEnv`.
        gates: 3 of them with 2 leaves each are the 13 nodes of the comparison.
        leaves: 2 gates of 5 leaves each are 15 nodes.
        kind: Makes the leaves' class.
    """
    leaf = kind(rubrics.Rubric)
    share = [1 / leaves] * leaves
    branches = [
        rubrics.Gate(rubrics.WeightedSum([leaf() for _ in range(leaves)], share), threshold=0.1)
        for _ in range(gates)
    ]
    return rubrics.WeightedSum(branches, [1 / gates] * gates)


# The best pure-Python leaves we could write: what a call must do at least (look whether there are hooks, run
# forward, keep the score), in three ways. Which one is fastest depends on the interpreter: all are timed.


class OneFlagLeaf:
    """Slots, and one flag that says whether there are hooks of either kind."""

    __slots__ = ("_forward_hooks", "_hooked", "_pre_hooks", "last_score")

    def __init__(self) -> None:
        self._hooked = False
        self._pre_hooks: list[Any] = []
        self._forward_hooks: list[Any] = []
        self.last_score: float | None = None

    def forward(self, action: Any, observation: Any) -> float:
        return 0.5

    def __call__(self, action: Any, observation: Any) -> float:
        if self._hooked:
            for pre_hook in self._pre_hooks:
                pre_hook(self, action, observation)
        score = self.last_score = self.forward(action, observation)
        if self._hooked:
            for hook in self._forward_hooks:
                hook(self, action, observation, score)
        return score


class HookListsLeaf:
    """Slots, and the hooks' lists themselves tested."""

    __slots__ = ("_forward_hooks", "_pre_hooks", "last_score")

    def __init__(self) -> None:
        self._pre_hooks: list[Any] = []
        self._forward_hooks: list[Any] = []
        self.last_score: float | None = None

    def forward(self, action: Any, observation: Any) -> float:
        return 0.5

    def __call__(self, action: Any, observation: Any) -> float:
        if self._pre_hooks:
            for pre_hook in self._pre_hooks:
                pre_hook(self, action, observation)
        score = self.forward(action, observation)
        self.last_score = score
        if self._forward_hooks:
            for hook in self._forward_hooks:
                hook(self, action, observation, score)
        return score


class DictLeaf:
    """Without slots: attributes in the instance's dictionary, as OpenEnv's users may add their own."""

    def __init__(self) -> None:
        self._hooked = False
        self._pre_hooks: list[Any] = []
        self._forward_hooks: list[Any] = []
        self.last_score: float | None = None

    def forward(self, action: Any, observation: Any) -> float:
        return 0.5

    def __call__(self, action: Any, observation: Any) -> float:
        if self._hooked:
            for pre_hook in self._pre_hooks:
                pre_hook(self, action, observation)
        score = self.last_score = self.forward(action, observation)
        if self._hooked:
            for hook in self._forward_hooks:
                hook(self, action, observation, score)
        return score


PURE_PYTHON_LEAVES = (OneFlagLeaf, HookListsLeaf, DictLeaf)
