"""Exceptions of rubriscope that have no closer relative in Python."""


class RubriscopeError(RuntimeError):
    """Root of rubriscope's own exceptions."""


class FormatError(RubriscopeError):
    """A file is not rubriscope's, of a newer format, or damaged. It was left as it was."""


class SinkError(RubriscopeError):
    """A sink could not take a batch."""
