"""Containers: rubrics made of rubrics. Their arithmetic is native; these classes give it its Python face."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._C import Rubric

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence


class _ItemsView:
    """``_rubric_list``: the rubrics a container evaluates, as RFC 004's implementations call them.

    A non-data descriptor, so that a subclass may still assign a list of its own.
    """

    def __get__(self, rubric: Rubric | None, owner: type | None = None) -> Any:
        if rubric is None:
            return self
        return [child for _, child, _ in rubric._items()]


class Sequential(Rubric):
    """Runs rubrics in order and gives the last score; stops and gives 0 at a score of exactly 0.

    Args:
        *rubrics: The rubrics, registered as ``rubric_0``, ``rubric_1``, …; without any the score is 1.

    Raises:
        TypeError: one of them is no rubric.
    """

    _rubric_list = _ItemsView()
    forward = Rubric._forward_sequential

    def __init__(self, *rubrics: Rubric) -> None:
        super().__init__()
        for i, rubric in enumerate(rubrics):
            self._set_item(f"rubric_{i}", rubric)

    def __len__(self) -> int:
        return len(self._items())

    def __getitem__(self, index: int) -> Rubric:
        return self._items()[index][1]


class Gate(Rubric):
    """Gives the child's score where it is at least ``threshold``, else 0.

    A score that is not a finite number never passes.

    Args:
        rubric: The rubric to gate, registered as ``rubric``.
        threshold: The least score that passes. It can be changed later.

    Raises:
        TypeError: ``rubric`` is no rubric, or ``threshold`` no number.
    """

    forward = Rubric._forward_gate

    def __init__(self, rubric: Rubric, threshold: float = 1.0) -> None:
        super().__init__()
        self._set_item("rubric", rubric)
        self._threshold = threshold

    @property
    def threshold(self) -> float:
        """The least score that passes."""
        return self._threshold

    @threshold.setter
    def threshold(self, value: float) -> None:
        self._threshold = value

    def state_dict(self) -> dict[str, Any]:
        """``{"threshold": …}``."""
        return {"threshold": self._threshold}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes the threshold from ``state`` where it is there."""
        if "threshold" in state:
            self._threshold = state["threshold"]


class WeightedSum(Rubric):
    """Gives ``Σ weight × score``. Asynchronous children run concurrently.

    A weight of 0 makes a child a metric: measured and recorded, it adds exactly 0, also when it is NaN.

    Args:
        rubrics: The rubrics, registered as ``rubric_0``, ``rubric_1``, …
        weights: One finite number each; they sum to 1 within 1e-6.

    Raises:
        ValueError: the lengths differ, or the weights do not sum to 1.
        TypeError: one of the rubrics is no rubric.
    """

    _rubric_list = _ItemsView()
    forward = Rubric._forward_weighted_sum

    def __init__(self, rubrics: Sequence[Rubric], weights: Sequence[float]) -> None:
        super().__init__()
        rubrics = list(rubrics)
        weights = [float(weight) for weight in weights]
        if len(rubrics) != len(weights):
            raise ValueError(
                f"Number of rubrics ({len(rubrics)}) must match number of weights ({len(weights)})"
            )
        if not abs(sum(weights) - 1.0) <= 1e-6:
            raise ValueError(f"Weights must sum to 1.0, got {sum(weights)} from {weights}")
        for i, (rubric, weight) in enumerate(zip(rubrics, weights, strict=True)):
            self._set_item(f"rubric_{i}", rubric, weight)

    @property
    def weights(self) -> list[float]:
        """The weights, in the order of the rubrics; a copy."""
        return [weight for _, _, weight in self._items()]

    @property
    def _weights(self) -> list[float]:
        return self.weights

    def state_dict(self) -> dict[str, Any]:
        """``{"weights": […]}``."""
        return {"weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes the weights from ``state`` where they are there; ValueError when their number differs."""
        if "weights" not in state:
            return
        items = self._items()
        if len(state["weights"]) != len(items):
            raise ValueError(f"expected {len(items)} weights, got {len(state['weights'])}")
        for (name, rubric, _), weight in zip(items, state["weights"], strict=True):
            self._set_item(name, rubric, float(weight))


class RubricList(Rubric):
    """A list of rubrics, as ``nn.ModuleList`` is of modules. It does not aggregate: its parent decides.

    Args:
        rubrics: The rubrics, registered as ``rubric_0``, ``rubric_1``, …
    """

    def __init__(self, rubrics: Iterable[Rubric] | None = None) -> None:
        super().__init__()
        self._rubrics: list[Rubric] = []
        self.extend(rubrics or ())

    def forward(self, action: Any, observation: Any) -> float:
        """Raises NotImplementedError: a list does not say how its rubrics combine."""
        raise NotImplementedError(
            "RubricList does not aggregate: call its rubrics from the forward() of the rubric that holds it"
        )

    def append(self, rubric: Rubric) -> None:
        """Adds a rubric at the end."""
        if not isinstance(rubric, Rubric):
            raise TypeError(f"RubricList takes rubrics, got {rubric!r}")
        setattr(self, f"rubric_{len(self._rubrics)}", rubric)
        self._rubrics.append(rubric)

    def extend(self, rubrics: Iterable[Rubric]) -> None:
        """Adds several rubrics at the end."""
        for rubric in rubrics:
            self.append(rubric)

    def __len__(self) -> int:
        return len(self._rubrics)

    def __getitem__(self, index: int) -> Rubric:
        return self._rubrics[index]

    def __iter__(self) -> Iterator[Rubric]:
        return iter(self._rubrics)


class RubricDict(Rubric):
    """Rubrics by name, as ``nn.ModuleDict`` holds modules. It does not aggregate: its parent decides.

    Args:
        rubrics: Name → rubric. Names are non-empty strings without a dot.
    """

    def __init__(self, rubrics: Mapping[str, Rubric] | None = None) -> None:
        super().__init__()
        self._rubric_dict: dict[str, Rubric] = {}
        self.update(rubrics or {})

    def forward(self, action: Any, observation: Any) -> float:
        """Raises NotImplementedError: a dict does not say how its rubrics combine."""
        raise NotImplementedError(
            "RubricDict does not aggregate: call its rubrics from the forward() of the rubric that holds it"
        )

    def __setitem__(self, key: str, rubric: Rubric) -> None:
        if not isinstance(rubric, Rubric):
            raise TypeError(f"RubricDict takes rubrics, got {rubric!r} for {key!r}")
        if hasattr(type(self), key):
            self._set_child(key, rubric)  # an attribute of that name would hide a method
        else:
            setattr(self, key, rubric)
        self._rubric_dict[key] = rubric

    def __getitem__(self, key: str) -> Rubric:
        return self._rubric_dict[key]

    def __delitem__(self, key: str) -> None:
        del self._rubric_dict[key]
        delattr(self, key)

    def __contains__(self, key: object) -> bool:
        return key in self._rubric_dict

    def __len__(self) -> int:
        return len(self._rubric_dict)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rubric_dict)

    def keys(self) -> Iterator[str]:
        """Iterates over the names."""
        return iter(self._rubric_dict.keys())

    def values(self) -> Iterator[Rubric]:
        """Iterates over the rubrics."""
        return iter(self._rubric_dict.values())

    def items(self) -> Iterator[tuple[str, Rubric]]:
        """Iterates over (name, rubric)."""
        return iter(self._rubric_dict.items())

    def update(self, rubrics: Mapping[str, Rubric]) -> None:
        """Adds or replaces rubrics by name."""
        for key, rubric in rubrics.items():
            self[key] = rubric
