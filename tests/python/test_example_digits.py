"""The digits examples: the reward tree against a table worked out by hand, the algorithm's parts against
plain formulas, and short runs whose films hold every answer."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("sklearn")

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))

import digits_policy  # noqa: E402
import digits_rubric  # noqa: E402
import grpo_digits  # noqa: E402
import rubriscope as rs  # noqa: E402


def run(script: str, *options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / script), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


# ---- the reward ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "form", "quality"),
    [
        # form: a quarter each for opening, digit, confidence and end
        # quality: 0.8 correct + 0.1 (1 - Brier loss) + 0.1 brevity
        ("<a> 7 sure <e>", 1.0, 0.8 + 0.1 * (1 - 0.05**2) + 0.1),
        ("<a> 7 unsure <e>", 1.0, 0.8 + 0.1 * (1 - 0.7**2) + 0.1),
        ("<a> 3 sure <e>", 1.0, 0.1 * (1 - 0.95**2) + 0.1),
        ("<a> 3 unsure <e>", 1.0, 0.1 * (1 - 0.3**2) + 0.1),
        ("um <a> 7 likely <e>", 1.0, 0.8 + 0.1 * (1 - 0.3**2) + 0.1 * 0.5),
        ("um hmm <a> 7 sure <e>", 1.0, 0.8 + 0.1 * (1 - 0.05**2)),
        ("<a> 7 sure um <e>", 0.75, None),
        ("<a> 7 sure 7 7 7", 0.75, None),
        ("<a> 7 <e>", 0.5, None),
        ("<a> sure 7 <e>", 0.25, None),
        ("<a> <e>", 0.25, None),
        ("7 sure <e>", 0.0, None),
        ("7 <a> 7 sure <e>", 0.0, None),
        ("<e>", 0.0, None),
        ("um um um um um um", 0.0, None),
    ],
)
def test_reward_of_an_answer(answer: str, form: float, quality: float | None) -> None:
    reward = digits_rubric.DigitsRubric()(answer, 7)
    assert reward == pytest.approx(0.1 * form + 0.9 * (quality or 0.0), abs=1e-12)


def test_tree_is_four_levels_deep() -> None:
    paths = ["root", *(path for path, _ in digits_rubric.DigitsRubric().named_rubrics())]
    assert max(path.count(".") + 1 for path in paths[1:]) + 1 >= 4
    assert set(digits_rubric.CURVES) <= set(paths)


# ---- the algorithm's parts ---------------------------------------------------------------------------------


def test_text_and_tokens_are_inverse() -> None:
    text = "um <a> 4 likely <e>"
    assert digits_policy.decode(digits_policy.encode(text)) == text
    tokens = torch.tensor([digits_policy.encode(text) + [digits_policy.END_ID] * 2])
    assert digits_policy.Decoder()(tokens) == [text]
    with pytest.raises(ValueError, match="'seven' is not a token"):
        digits_policy.encode("<a> seven <e>")


def test_sampled_log_probabilities_are_those_of_the_training_pass() -> None:
    torch.manual_seed(3)
    policy = digits_policy.DigitPolicy(16)
    images = torch.rand(5, 64)
    answers = policy.sample(images, 4, torch.Generator().manual_seed(1))
    log_probs = digits_policy.chosen_log_probs(policy(images, answers.tokens), answers.tokens)
    assert answers.tokens.shape[0] == 20
    torch.testing.assert_close(
        log_probs * answers.mask, answers.log_probs * answers.mask, atol=1e-5, rtol=1e-5
    )
    for row, mask in zip(answers.tokens.tolist(), answers.mask.tolist(), strict=True):
        length = row.index(digits_policy.END_ID) + 1 if digits_policy.END_ID in row else len(row)
        assert mask == [1.0] * length + [0.0] * (len(row) - length)


def test_sampling_follows_the_policys_distribution() -> None:
    torch.manual_seed(5)
    policy = digits_policy.DigitPolicy(16)
    image = torch.rand(1, 64)
    answers = policy.sample(image, 40_000, torch.Generator().manual_seed(2), max_tokens=1)
    frequency = torch.bincount(answers.tokens[:, 0], minlength=len(digits_policy.VOCABULARY)) / 40_000
    expected = policy(image, torch.zeros(1, 1, dtype=torch.int64)).exp()[0, 0]
    assert (frequency - expected).abs().max() < 6 * (0.25 / 40_000) ** 0.5


def test_advantages_are_relative_to_the_group() -> None:
    rewards = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.9, 0.9, 0.9, 0.9])
    advantages = grpo_digits.group_advantages(rewards, 4)
    value = 0.5 / (torch.tensor([0.0, 1.0, 0.0, 1.0]).std().item() + 1e-4)
    assert advantages[:4].tolist() == pytest.approx([-value, value, -value, value])
    assert advantages[4:].tolist() == pytest.approx([0.0] * 4, abs=1e-3)


def test_update_makes_better_answers_likelier_and_stays_near_the_reference() -> None:
    settings = grpo_digits.Settings(images=2, samples=8, hidden=16)
    digits = digits_policy.Digits.load()
    learner = grpo_digits.GRPO(settings, seed=0)
    reference = [parameter.clone() for parameter in learner.reference.parameters()]
    images = digits.train_images[:2]
    answers = learner.policy.sample(images, settings.samples, torch.Generator().manual_seed(0))
    rewards = torch.tensor([1.0, 0.0] * 8)

    def likelihood() -> torch.Tensor:
        with torch.no_grad():
            chosen = digits_policy.chosen_log_probs(learner.policy(images, answers.tokens), answers.tokens)
        return (chosen * answers.mask).sum(1)

    before = likelihood()
    scalars = learner.update(images, answers, rewards)
    gain = likelihood() - before
    assert gain[::2].mean() > gain[1::2].mean()
    assert scalars["kl"] >= 0
    for kept, now in zip(reference, learner.reference.parameters(), strict=True):
        assert torch.equal(kept, now)


# ---- whole runs --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def short_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("grpo")
    db = folder / "runs.db"
    done = run("grpo_digits.py", "--steps", 40, "--db", db, "--session", "grpo", "--quiet", "--json",
               "--plot", folder / "curves.png")  # fmt: skip
    assert done.returncode == 0, done.stderr
    return db, json.loads(done.stdout)


def test_reward_rises_from_nothing(short_run: tuple[Path, dict]) -> None:
    _, result = short_run
    evaluations = dict(map(tuple, result["evaluations"]))
    assert list(evaluations) == [0, 20, 40]
    assert evaluations[0] < 0.1
    assert evaluations[40] > 0.2 > 10 * evaluations[0]


def test_film_holds_every_answer(short_run: tuple[Path, dict]) -> None:
    db, result = short_run
    settings = grpo_digits.Settings()
    heldout = 3 * 360
    assert result["steps"] == 40
    assert result["rubric_calls"] == {"train": 40 * settings.batch, "heldout": heldout}
    with sqlite3.connect(db) as connection:
        counts = dict(connection.execute("SELECT episode_id, count(*) FROM steps GROUP BY episode_id"))
        assert counts == {"train": 40 * settings.batch, "heldout": heldout}
        per_step = connection.execute(
            "SELECT step_index, count(*), count(DISTINCT group_id), count(DISTINCT sample_index) FROM steps "
            "WHERE episode_id = 'train' GROUP BY step_index ORDER BY step_index"
        ).fetchall()
        assert per_step == [(step, settings.batch, settings.images, settings.samples) for step in range(40)]
    film = rs.Film(db)
    steps, means = film.scores("root", "grpo", episode="train").by_step()
    assert steps.tolist() == list(range(40))
    assert means.tolist() == pytest.approx(result["reward_mean"], abs=1e-6)
    assert film.scores("reward_mean", "grpo").score.tolist() == pytest.approx(result["reward_mean"], abs=1e-6)
    logged = film.scores("heldout_reward", "grpo")
    assert [list(pair) for pair in zip(logged.step.tolist(), logged.score.tolist(), strict=True)] == [
        [step, pytest.approx(reward, abs=1e-6)] for step, reward in result["evaluations"]
    ]
    assert {"loss", "kl", "entropy"} <= set(film.scalars("grpo"))


def test_film_can_be_scored_again(short_run: tuple[Path, dict]) -> None:
    """Each recorded answer, scored anew by a fresh tree, gets the recorded scores: nothing is mixed up."""
    db, _ = short_run
    rubric = digits_rubric.DigitsRubric()
    for snapshot in rs.Film(db).snapshots("grpo", episode="heldout"):
        assert rubric(snapshot.action, snapshot.observation) == snapshot.scores["root"] == snapshot.reward
        reached = "answer.rubric_1.correct" in snapshot.scores
        assert reached == (snapshot.scores["form"] == 1.0)


def test_curve_is_drawn(short_run: tuple[Path, dict]) -> None:
    db, _ = short_run
    assert (db.parent / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_recording_does_not_change_the_run(short_run: tuple[Path, dict], tmp_path: Path) -> None:
    _, recorded = short_run
    done = run(
        "grpo_digits.py", "--steps", 40, "--no-record", "--db", tmp_path / "none.db", "--quiet", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["reward_mean"] == recorded["reward_mean"]
    assert list(tmp_path.iterdir()) == []


def test_exit_code_says_that_the_target_was_missed(tmp_path: Path) -> None:
    done = run("grpo_digits.py", "--budget-s", 0.5, "--db", tmp_path / "runs.db")
    assert done.returncode == 1, done.stderr
    assert "did not reach 0.9" in done.stderr


def test_supervised_run_is_comparable(short_run: tuple[Path, dict]) -> None:
    db, _ = short_run
    done = run("sft_digits.py", "--steps", 100, "--db", db, "--session", "sft", "--quiet", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["evaluations"][0][1] < 0.1 < 0.5 < result["evaluations"][-1][1]
    with sqlite3.connect(db) as connection:
        (count,) = connection.execute(
            "SELECT count(*) FROM steps JOIN sessions USING (session_id) WHERE sessions.name = 'sft'"
        ).fetchone()
    assert count == result["rubric_calls"] == 6 * 360
    compared = subprocess.run(
        [
            sys.executable,
            "-m",
            "rubriscope.cli",
            "compare",
            str(db),
            "sft",
            "grpo",
            "--episode",
            "heldout",
            "--json",
        ],
        capture_output=True,
        text=True,
    )
    assert compared.returncode in (0, 1), compared.stderr  # 1: a drop was found
    assert "answer.rubric_1.correct" in compared.stdout
    assert "heldout_reward" in compared.stdout
