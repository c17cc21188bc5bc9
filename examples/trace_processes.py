"""Three processes, one trace: a planner starts a worker, which starts a store. W3C headers carry the trace.

python examples/trace_processes.py        # writes trace_processes.jsonl and shows the tree
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import rubriscope as rs


def run(role: str, path: str) -> None:
    """Starts a process below the present span."""
    headers: dict[str, str] = {}
    rs.tracer.inject(headers)
    subprocess.run([sys.executable, __file__, role, path, json.dumps(headers)], check=True)


def planner(path: str) -> None:
    """Decides, and has it carried out."""
    with rs.tracer.altitude.transition(4, 2, "the plan is clear") as ctx:
        run("worker", path)
        ctx.set_output("success")


def worker(path: str) -> None:
    """Asks a gate, and has the result kept."""
    with rs.tracer.focus.gate_check("WriteApprovalGate", "allowed", "the user agreed"):
        run("store", path)


def store(path: str) -> None:
    """Keeps it."""
    with rs.tracer.memory.write("altitude", "session", tier="warm", tokens_saved=45):
        pass


def main() -> None:
    """Each process comes in here, the later ones with a role and headers."""
    role = sys.argv[1] if len(sys.argv) > 2 else "planner"
    path = sys.argv[2] if len(sys.argv) > 2 else (sys.argv[1:] or ["trace_processes.jsonl"])[0]
    headers = json.loads(sys.argv[3]) if len(sys.argv) > 3 else {}
    rs.tracer.enable(path)
    with rs.tracer.extract(headers):
        {"planner": planner, "worker": worker, "store": store}[role](path)
    rs.tracer.disable()
    if role == "planner":
        last = Path(path).read_text(encoding="utf-8").splitlines()[-1]
        command = [sys.executable, "-m", "rubriscope", "trace", "view", path]
        subprocess.run([*command, "--trace-id", json.loads(last)["trace_id"]], check=True)


if __name__ == "__main__":
    main()
