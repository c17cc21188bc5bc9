"""Crash campaign: kills a recording process at random times and checks that nothing accepted is lost.

    python tests/crash/campaign.py --child build/bin/crash_child_main --kills 200

Each round starts a process that records from three threads (in half of the rounds a forked child of it as
well), sends SIGKILL to its process group after a random time, in a third of them kills the recovery too,
lets recovery finish, and compares what the sink holds with what the process had been told is accepted: each
record once, in the order of its thread. Exit status 0 when every round passed.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def adopt_orphans() -> None:
    """Make this process the parent of its descendants' orphans, so that it can wait for them."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and what it forked, and wait until all are gone: a dying one may still hold its lock."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    while True:
        try:
            os.waitpid(-process.pid, 0)
        except ChildProcessError:
            return


def one_round(child: Path, seed: int, folder: Path) -> dict[str, int]:
    """Record, kill, recover, check once in `folder`.

    Returns the round's counts: accepted, recovered, torn. Raises RuntimeError with what went wrong.
    """
    chance = random.Random(seed)
    process = subprocess.Popen(
        [child, "record", folder, str(seed)], stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    # A third of the kills fall into the start, when the journal is being made.
    if chance.random() < 2 / 3:
        process.stdout.readline()
    time.sleep(chance.random() ** 3 * 0.5)
    if process.poll() is not None:
        raise RuntimeError(f"the recording process ended by itself with status {process.returncode}")
    kill_group(process)

    if chance.random() < 1 / 3:
        recovery = subprocess.Popen(
            [child, "recover", folder],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(chance.random() * 0.02)
        kill_group(recovery)

    recovered = subprocess.run([child, "recover", folder], capture_output=True, text=True, check=False)
    if recovered.returncode != 0:
        raise RuntimeError(f"recovery: {recovered.stdout}{recovered.stderr}")
    checked = subprocess.run([child, "check", folder], capture_output=True, text=True, check=False)
    if checked.returncode != 0:
        raise RuntimeError(f"check: {checked.stderr}")
    report = json.loads(recovered.stdout)
    return {"accepted": int(checked.stdout), "recovered": report["delivered"], "torn": report["torn"]}


def main() -> int:
    """Run the campaign; returns the exit status."""
    parser = argparse.ArgumentParser(description="kill a recording process at random times")
    parser.add_argument(
        "--child", type=Path, required=True, help="the program built from crash_child_main.cpp"
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None, help="of the first round; default: the time")
    parser.add_argument(
        "--folder", type=Path, default=None, help="where to work; default: a temporary folder"
    )
    options = parser.parse_args()
    if not options.child.exists():
        parser.error(f"{options.child} does not exist: build it first (make test builds it)")

    adopt_orphans()
    first_seed = options.seed if options.seed is not None else int(time.time())
    totals = {"accepted": 0, "recovered": 0, "torn": 0}
    started = time.monotonic()
    for number in range(options.kills):
        seed = first_seed + number
        folder = Path(tempfile.mkdtemp(prefix="rubriscope-crash-", dir=options.folder))
        try:
            counts = one_round(options.child.resolve(), seed, folder)
        except RuntimeError as error:
            print(f"kill {number + 1} (--seed {seed} --kills 1) FAILED in {folder}: {error}", file=sys.stderr)
            return 1
        shutil.rmtree(folder)
        for key, value in counts.items():
            totals[key] += value
        if sys.stderr.isatty():
            print(
                f"\r{number + 1}/{options.kills} kills, {totals['accepted']} accepted",
                end="",
                file=sys.stderr,
            )
    if sys.stderr.isatty():
        print(file=sys.stderr)
    print(
        json.dumps(
            {"kills": options.kills, "first_seed": first_seed, **totals, "lost": 0, "twice": 0}
            | {"seconds": round(time.monotonic() - started, 1)}
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
