"""A score that carries why it is what it is."""

from __future__ import annotations

from typing import Any, SupportsFloat, SupportsIndex

__all__ = ["Score"]


class Score(float):
    """A ``float`` with an explanation and metadata, usable anywhere a number is expected.

    A rubric returns it instead of a number; the snapshot then keeps both beside the node's score.
    Arithmetic gives plain floats: a sum of two scores has no single explanation. ``str()`` and
    formatting give the number alone, ``repr()`` shows everything.

    Args:
        value: the score; anything ``float()`` takes (a 0-dim tensor on the CPU included).
        explanation: why, in words (a judge's answer, the reason of a failed check), or ``None``.
        **metadata: named facts about the score. Values that JSON can hold are recorded as they are;
            any other value is recorded as its ``repr``, when the record is made and not here.

    Raises:
        TypeError: ``value`` is not a number, or ``explanation`` is neither a string nor ``None``.

    Example:
        >>> Score(0.5, "two of four facts", found=2, wanted=4) + 1
        1.5
    """

    __slots__ = ("explanation", "metadata")

    explanation: str | None
    metadata: dict[str, Any]

    def __new__(
        cls,
        value: SupportsFloat | SupportsIndex | str,
        /,
        explanation: str | None = None,
        **metadata: Any,
    ) -> Score:
        if explanation is not None and not isinstance(explanation, str):
            raise TypeError(
                f"explanation must be a string or None, got {type(explanation).__name__}: {explanation!r}"
            )
        score = super().__new__(cls, value)
        score.explanation = explanation
        score.metadata = metadata
        return score

    def __repr__(self) -> str:
        parts = [float.__repr__(self)]
        if self.explanation is not None:
            parts.append(repr(self.explanation))
        parts += [f"{name}={value!r}" for name, value in self.metadata.items()]
        return f"{type(self).__name__}({', '.join(parts)})"

    __str__ = float.__repr__

    def __reduce__(self) -> tuple[Any, ...]:
        state = getattr(self, "__dict__", None)  # only a subclass without __slots__ has one
        arguments = (type(self), float(self), self.explanation, self.metadata)
        return (_restore, arguments, state) if state else (_restore, arguments)


def _restore(cls: type[Score], value: float, explanation: str | None, metadata: dict[str, Any]) -> Score:
    return cls.__new__(cls, value, explanation, **metadata)
