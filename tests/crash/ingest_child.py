"""An ingester that kills itself (SIGKILL) after some batches, at a point given by chance.

    python tests/crash/ingest_child.py REDIS-URL TARGET SEED MOST-BATCHES

With 0 for MOST-BATCHES it says "ready" and lives until somebody else kills it.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from typing import Any

from rubriscope import _C, ingest

BATCH = 64  # records of an entry, at most
POINTS = ("read", "stored", "acknowledged")


def main() -> None:
    """Ingest until the kill."""
    url, target, seed, most = sys.argv[1:]
    chance = random.Random(int(seed))
    ingest._COUNT = 1
    if most == "0":
        print("ready", flush=True)
        ingest.Ingester(url, target).run()
    left = chance.randint(1, int(most))
    point = chance.choice(POINTS)
    real_acknowledge = ingest.Ingester._acknowledge

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    class Writer:
        """The native writer, and a kill before or after its work."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            self._native = _C.RecordWriter(*arguments, **options)
            self.define, self.close = self._native.define, self._native.close

        def write(self, records: list[bytes]) -> Any:
            nonlocal left
            left -= 1
            if left <= 0 and point == "read":
                die()
            result = self._native.write(records)
            if left <= 0 and point == "stored":
                die()
            return result

    def acknowledge(self: Any, stream: Any, entries: list[bytes]) -> None:
        real_acknowledge(self, stream, entries)
        if left <= 0:
            die()

    class Native:
        """The extension with that writer."""

        RecordWriter = Writer
        Sink = _C.Sink
        _report = staticmethod(_C._report)

    ingest._C = Native  # type: ignore[assignment]
    ingest.Ingester._acknowledge = acknowledge  # type: ignore[method-assign]
    ingest.Ingester(url, target).run()


if __name__ == "__main__":
    main()
