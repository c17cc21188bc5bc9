"""How the ranks of one run agree on the session that all of them record."""

from __future__ import annotations

import datetime
import json
import os
import sys
import uuid
from typing import Any

from . import _C
from ._provenance import rank_and_world_size

_NAMESPACE = uuid.UUID("6d1a3c1e-7d0b-5b3e-9c58-2f0d4f6a9b11")  # of session ids made from a job's id
_TIMEOUT = datetime.timedelta(seconds=60)

_calls: dict[str, int] = {}  # name -> how often this process asked: the n-th call of each rank is one session


def session_id_from(text: str) -> str:
    """The UUID that ``text`` is, else the one that every process makes of this text."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return str(uuid.uuid5(_NAMESPACE, text))


def agreed(name: str | None, identity: dict[str, Any]) -> dict[str, Any]:
    """The identity of the session that the ranks record together under ``name``; ``identity`` where alone.

    The first rank that comes offers its identity in the run's key-value store, and all take what is there:
    no rank waits for another, so recording on some ranks only is fine. Where there is no store the job's id
    decides.

    Raises:
        ConnectionError: the run has a store, and it does not answer.
    """
    if rank_and_world_size()[1] < 2:
        return identity
    # Workers that were started again after a failure are another attempt: another session.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", os.environ.get("SLURM_RESTART_COUNT", "0"))
    asked = name or ""
    number = _calls[asked] = _calls.get(asked, 0) + 1
    key = f"rubriscope/{attempt}/{number}/{asked}"
    try:
        store = _store()
        if store is not None:
            taken = store.compare_set(key, "", json.dumps(identity))
            found: dict[str, Any] = json.loads(taken)
            return found
    except (RuntimeError, OSError) as error:
        raise ConnectionError(
            f"the ranks' store does not answer ({error}): without it they cannot agree on a session; "
            "pass session_id="
        ) from error
    job = _job()
    if job is not None:
        return {**identity, "session_id": session_id_from(f"{job}/{key}")}
    _C._report(
        "warning",
        f"this is one of several ranks, and nothing says which run it belongs to: it records a session of "
        f"its own, {identity['session_name']!r}. Call rubriscope.record() after init_process_group(), start "
        "the ranks by torchrun, or pass session_id=",
    )
    return identity


def _store() -> Any:
    """A connection to the run's key-value store: torchrun's, else the process group's; None without one."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        import torch.distributed as distributed

        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        return distributed.TCPStore(  # type: ignore[attr-defined]
            host, port, is_master=False, timeout=_TIMEOUT, wait_for_workers=False
        )
    loaded = sys.modules.get("torch.distributed")
    if loaded is None or not (loaded.is_available() and loaded.is_initialized()):
        return None
    store = loaded.distributed_c10d._get_default_store()
    # A connection of its own: a forked worker must not speak on its parent's.
    return None if store is None else store.clone()


def _job() -> str | None:
    """What the launcher calls this run, where that is never used again."""
    run = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    if run not in ("", "none"):
        return f"torchrun/{run}"
    if "SLURM_JOB_ID" in os.environ:
        return f"slurm/{os.environ['SLURM_JOB_ID']}/{os.environ.get('SLURM_STEP_ID', '')}"
    return None
