"""Cases that run on any implementation of RFC 004, and what openenv-core answered to them.

``python tests/python/openenv_cases.py`` with ``openenv.core`` importable, or ``OPENENV_PATH`` at an unpacked
wheel, writes ``data/openenv_cases.json`` anew. The tests compare with that file, so that they need none of
openenv-core's many dependencies.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import random
import sys
import types
from pathlib import Path
from typing import Any

ANSWERS = Path(__file__).parent / "data" / "openenv_cases.json"
SCORES = [0.0, 0.25, 0.5, 0.75, 1.0, -0.5, 2.0, 0, 1, True, 1e-12]


def build(implementation: Any, spec: list[Any]) -> Any:
    """The rubric that a spec describes, made with an implementation's classes."""

    class Value(implementation.Rubric):
        def __init__(self, value):
            super().__init__()
            self.value = value

        def forward(self, action, observation):
            return self.value

    class AsyncValue(Value):
        async def forward(self, action, observation):
            await asyncio.sleep(0)
            return self.value

    class Mean(implementation.Rubric):
        def __init__(self, below):
            super().__init__()
            for i, child in enumerate(below):
                setattr(self, f"part_{i}", child)

        def forward(self, action, observation):
            scores = [child(action, observation) for child in self.children()]
            return sum(scores) / len(scores)

    def make(spec):
        kind, *rest = spec
        if kind == "value":
            return Value(rest[0])
        if kind == "async":
            return AsyncValue(rest[0])
        if kind == "gate":
            return implementation.Gate(make(rest[0]), *rest[1:])
        if kind == "sequential":
            return implementation.Sequential(*map(make, rest[0]))
        if kind == "sum":
            return implementation.WeightedSum([make(s) for s in rest[0]], rest[1])
        return Mean([make(s) for s in rest[0]])

    return make(spec)


def random_spec(choose: random.Random, depth: int, may_wait: bool) -> list[Any]:
    """A random tree of finite scores."""
    kind = "leaf" if depth == 0 else choose.choice(["leaf", "gate", "sequential", "sum", "mean"])
    if kind == "leaf":
        return ["async" if may_wait and choose.random() < 0.4 else "value", choose.choice(SCORES)]
    if kind == "gate":
        below = random_spec(choose, depth - 1, may_wait)
        return (
            ["gate", below]
            if choose.random() < 0.3
            else ["gate", below, choose.choice([0.0, 0.25, 0.5, 1.0])]
        )
    below = [random_spec(choose, depth - 1, may_wait and kind != "mean") for _ in range(choose.randint(1, 4))]
    if kind == "sum":
        weights = [choose.random() + 0.01 for _ in below]
        return ["sum", below, [w / sum(weights) for w in weights]]
    return [kind, below]


def is_async(spec: list[Any]) -> bool:
    """Whether an async leaf is anywhere in a spec."""
    return spec[0] == "async" or any(is_async(s) for s in _below(spec))


def _below(spec: list[Any]) -> list[Any]:
    if spec[0] in ("value", "async"):
        return []
    return [spec[1]] if spec[0] == "gate" else spec[1]


def answer(implementation: Any, spec: list[Any]) -> dict[str, Any]:
    """Everything about a tree that two implementations can be compared by."""
    tree = build(implementation, spec)
    order: list[str] = []
    for name, node in tree.named_rubrics():
        if not list(node.children()):
            node.register_forward_hook(lambda r, a, o, s, name=name: order.append(name))
    score = tree("action", "observation")
    waited = inspect.iscoroutine(score)
    if waited:

        async def wait() -> Any:
            return await score

        score = asyncio.run(wait())
    return {
        "score": score,
        "waited": waited,
        "names": [name for name, _ in tree.named_rubrics()],
        "children": [name for name, _ in tree.named_children()],
        "called": sorted(order),
        "last": {name: node.last_score for name, node in tree.named_rubrics()},
    }


def judge_answers(implementation: Any) -> list[list[Any]]:
    """What an LLMJudge reads from answers, with its options."""

    class Client:
        def __init__(self, text):
            self.text = text
            self.prompts = []

        async def complete(self, prompt):
            self.prompts.append(prompt)
            return self.text

    cases: list[tuple[str, dict[str, Any]]] = [
        ("0.8", {}),
        ("Score: 0.25 of 1", {}),
        ("seven", {}),
        ("seven", {"default_score": 0.5}),
        ("7", {}),
        ("7", {"normalize": False}),
        ("SCORE=3/10", {"score_pattern": r"SCORE=(\d+)", "normalize": False}),
        ("grade 9", {"score_pattern": r"\d+", "normalize": False}),
        ("", {}),
    ]
    found = []
    for text, options in cases:
        client = Client(text)
        judge = implementation.LLMJudge("A {action} O {observation}", client, **options)
        score = asyncio.run(judge("act", "obs"))
        found.append([text, options, float(score), client.prompts])
    return found


def trajectory_answers(implementation: Any) -> list[Any]:
    """What a discounting trajectory rubric gives, step by step."""

    class Won(implementation.ExponentialDiscountingTrajectoryRubric):
        def score_trajectory(self, trajectory):
            return float(trajectory[-1][1].won)

    found: list[Any] = []
    for gamma, intermediate in ((0.99, 0.0), (0.5, 0.1), (1.0, 0.0), (0.0, 0.0)):
        rubric = Won(gamma=gamma, intermediate_reward=intermediate)
        steps = [types.SimpleNamespace(done=i == 3, won=i == 3) for i in range(4)]
        rewards = [rubric(i, step) for i, step in enumerate(steps)]
        found.append([gamma, intermediate, rewards, rubric.compute_step_rewards(), rubric.state_dict()])
        rubric.reset()
        found.append([len(rubric.trajectory), rubric.compute_step_rewards()])
    return found


def openenv() -> Any:
    """openenv-core's rubrics, without the rest of that package. ImportError where there is none."""
    path = os.environ.get("OPENENV_PATH")
    if path:
        for name in ("openenv", "openenv.core"):
            package = types.ModuleType(name)
            package.__path__ = [str(Path(path, *name.split(".")))]
            sys.modules[name] = package
        clients = types.ModuleType("openenv.core.llm_client")  # imports openai for a type annotation
        clients.LLMClient = object  # type: ignore[attr-defined]
        sys.modules[clients.__name__] = clients
    from openenv.core import rubrics

    return rubrics


def main() -> None:
    """Asks openenv-core and writes its answers."""
    implementation = openenv()
    choose = random.Random(4)
    specs = [random_spec(choose, choose.randint(0, 4), i % 2 == 1) for i in range(240)]
    trees = []
    for spec in specs:
        found = answer(implementation, spec)
        trees.append({"spec": spec, **found})
    ANSWERS.parent.mkdir(exist_ok=True)
    with ANSWERS.open("w") as file:
        file.write('{"of": "openenv-core 0.3.0",\n"trees": [\n')
        file.write(",\n".join(json.dumps(tree, separators=(",", ":")) for tree in trees))
        file.write("],\n")
        file.write(f'"judge": {json.dumps(judge_answers(implementation))},\n')
        file.write(f'"trajectory": {json.dumps(trajectory_answers(implementation))}}}\n')


if __name__ == "__main__":
    main()
