"""Exceptions of rubriscope that have no closer relative in Python."""


class RubriscopeError(RuntimeError):
    """Root of rubriscope's own exceptions."""


class FailClosed(RubriscopeError):
    """A sight point whose action is ``fail_closed`` passed a limit: its result is withheld."""


class FormatError(RubriscopeError):
    """A file is not rubriscope's, of a newer format, or damaged. It was left as it was."""


class SealedError(RubriscopeError):
    """Something is encrypted and cannot be opened: no key, another key, changed bytes, or shredded."""


class SinkError(RubriscopeError):
    """A sink could not take a batch."""
