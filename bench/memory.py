"""Does memory stay flat? 10 million snapshots through a journal limited to 64 MiB, into SQLite.

A Python loop calls an observed 5-node tree as fast as it can; the journal is full nearly all the time and
the loop waits for room (``on_full="block"``). The resident set is read every 100,000 snapshots; the mapped
journal counts in it, so the figures hold everything. Compared are the largest value after the first million
and the value there. The database (about 3 GB) is deleted afterwards.
"""

from __future__ import annotations

import gc
import shutil
import sys
import time
from pathlib import Path

import rubriscope as rs
from measure import Report, caller, options, scratch
from peers import tree

STEP = 100_000
SETTLED = 1_000_000
LIMIT_BYTES = 64 << 20
SLACK_KIB = 1024  #: pages that the kernel and the allocator may move about


def resident() -> dict[str, int]:
    """The resident set, and its anonymous and file-backed parts, in KiB."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    found = {parts[0].rstrip(":"): parts for parts in lines if parts}
    return {name: int(found[name][1]) for name in ("VmRSS", "RssAnon", "RssFile", "RssShmem")}


def main() -> int:
    """Run it; the exit code is 1 where the target is missed."""
    parser = options(__doc__)
    parser.add_argument("--snapshots", type=int, help="how many (10,000,000; quick: 3,000,000)")
    args = parser.parse_args()
    report = Report("memory", "does memory stay flat?", args)
    count = args.snapshots or (3_000_000 if args.quick else 10_000_000)
    if count < 2 * SETTLED:
        parser.error(f"--snapshots must be at least {2 * SETTLED}, got {count}")
    gc.disable()
    samples: list[dict[str, int]] = []
    with scratch(args.folder) as place:
        free = shutil.disk_usage(place).free
        if free < count * 600:
            raise OSError(f"{place} has {free >> 20} MiB free; {count * 600 >> 20} are needed (--folder)")
        begin = time.perf_counter()
        with rs.record(
            place / "runs.db", session="bench", journal_limit_bytes=LIMIT_BYTES, block_timeout_s=60
        ) as recorder:
            rubric = tree(rs, 1, 2)
            recorder.observe(rubric, capture="none")
            run = caller(rubric, "the model's answer", "the question")
            largest_journal = 0
            for done in range(STEP, count + 1, STEP):
                run(STEP)
                samples.append({"snapshots": done, **resident()})
                largest_journal = max(largest_journal, recorder.stats().journal_bytes)
            recorder.flush(600)
            spent = time.perf_counter() - begin
            samples.append({"snapshots": count, **resident()})
            stats = recorder.stats()
            if stats.dropped or stats.durable != count:
                raise RuntimeError(f"not everything was recorded: {stats}")
        size = (place / "runs.db").stat().st_size
    at_first = next(s for s in samples if s["snapshots"] == SETTLED)["VmRSS"]
    later = max(s["VmRSS"] for s in samples if s["snapshots"] > SETTLED)
    for sample in samples[:: max(len(samples) // 20, 1)]:
        print("  " + "  ".join(f"{name} {value:>10,}" for name, value in sample.items()))
    report.data = {
        "snapshots": count,
        "seconds": spent,
        "journal_limit_bytes": LIMIT_BYTES,
        "largest_journal_bytes": largest_journal,
        "database_bytes": size,
        "samples_kib": samples,
    }
    growth = later - at_first
    report.row(
        f"memory, {count / 1e6:g} million snapshots through a 64 MiB journal",
        f"{at_first / 1024:.1f} MiB resident after a million, at most {later / 1024:.1f} after",
        "",
        f"{growth / 1024:+.1f} MiB",
        "does not grow",
        growth <= SLACK_KIB,
    )
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
