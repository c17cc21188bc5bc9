"""What kind of work a sight point observes."""

from __future__ import annotations

_BUILT_IN = (
    "text_generation",
    "code_execution",
    "vision_processing",
    "simulation",
    "inference",
    "planning",
    "tool_calling",
)
_known = set(_BUILT_IN)


class Modality:
    """The modalities there are, as plain strings; :meth:`register` adds to them."""

    TEXT_GENERATION = "text_generation"
    CODE_EXECUTION = "code_execution"
    VISION_PROCESSING = "vision_processing"
    SIMULATION = "simulation"
    INFERENCE = "inference"
    PLANNING = "planning"
    TOOL_CALLING = "tool_calling"

    @staticmethod
    def register(name: str) -> str:
        """Makes ``name`` a modality and returns it; again is no error.

        Raises:
            ValueError: ``name`` is no identifier.
        """
        if not name.isidentifier():
            raise ValueError(f"a modality is an identifier such as 'simulation', got {name!r}")
        _known.add(name)
        return name

    @staticmethod
    def names() -> list[str]:
        """All modalities, sorted."""
        return sorted(_known)


def check_modality(name: str) -> str:
    """The modality as a str. Raises ValueError for one that nobody registered."""
    if name not in _known:
        raise ValueError(
            f"no modality {name!r} (there are {', '.join(sorted(_known))}; Modality.register adds one)"
        )
    return str(name)
