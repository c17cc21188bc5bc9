"""The adapters against the signatures their trainers document; neither trainer is installed.

TRL (docs/source/grpo_trainer.md, "Using a custom reward function"): keyword arguments prompts, completions,
completion_ids, trainer_state, log_extra, log_metric and every column; a list of float or None comes back.
verl (workers/reward_manager/naive.py): keyword arguments data_source, solution_str, ground_truth, extra_info;
a number or a dict with "score" comes back.
"""

import asyncio
import contextlib
import contextvars
import gc
import inspect
import logging
import math
import multiprocessing
import pickle
import threading
from types import SimpleNamespace

import pytest
import rubriscope as rs
from rubriscope import Rubric, Sequential, WeightedSum
from rubriscope.adapters import trl, verl

PLACE = contextvars.ContextVar("place", default=None)


class FakeRecorder:
    """Remembers who was observed; its episode is a context variable that the rubrics below read."""

    episode_id = "e"

    def __init__(self):
        self.observed = []
        self.detached = 0
        self.step = None

    def observe(self, rubric):
        self.observed.append(rubric)
        return self

    def detach(self):
        self.detached += 1

    @contextlib.contextmanager
    def episode(self, name, **labels):
        assert name == self.episode_id
        token = PLACE.set({label: value for label, value in labels.items() if value is not None})
        yield
        PLACE.reset(token)


class Length(Rubric):
    """The action's length; remembers what it saw."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, action, observation):
        self.seen.append((action, observation, PLACE.get()))
        return float(len(action))


class AsyncLength(Length):
    async def forward(self, action, observation):
        before = PLACE.get()
        await asyncio.sleep(0)
        assert PLACE.get() == before
        return super().forward(action, observation)


class Together(Rubric):
    """Returns only when all ``expected`` calls have begun."""

    def __init__(self, expected):
        super().__init__()
        self.expected = expected
        self.begun = 0

    async def forward(self, action, observation):
        self.begun += 1
        while self.begun < self.expected:
            await asyncio.sleep(0)
        return float(action)


class Brittle(Rubric):
    """The action as a number; raises where it is none."""

    def forward(self, action, observation):
        return float(action)


class AsyncBrittle(Rubric):
    async def forward(self, action, observation):
        await asyncio.sleep(0)
        return float(action)


class NonEmpty(Rubric):
    def forward(self, action, observation):
        return float(bool(action))


class Long(Rubric):
    def forward(self, action, observation):
        return min(1.0, len(action) / 4)


def trl_call(function, prompts, completions, step=7, **columns):
    """Call as GRPOTrainer._calculate_rewards does."""
    metrics = {}
    rewards = function(
        prompts=prompts,
        completions=completions,
        completion_ids=[[1, 2]] * len(completions),
        trainer_state=SimpleNamespace(global_step=step),
        log_extra=lambda column, values: None,
        log_metric=lambda name, value: metrics.setdefault(name, value),
        **columns,
    )
    return rewards, metrics


# ---- TRL


def test_trl_standard_format():
    rubric = Length()
    function = trl.reward_function(rubric)
    rewards, _ = trl_call(function, ["p", "p", "q"], ["a", "bb", "ccc"], answer=[1, None, 3])
    assert rewards == [1.0, 2.0, 3.0] and all(type(reward) is float for reward in rewards)
    assert [(action, observation) for action, observation, _ in rubric.seen] == [
        ("a", {"prompt": "p", "answer": 1}),
        ("bb", {"prompt": "p", "answer": None}),
        ("ccc", {"prompt": "q", "answer": 3}),
    ]


def test_trl_needs_nothing_but_prompts_and_completions():
    assert trl.reward_function(Length())(["p"], ["abc"]) == [3.0]
    assert trl.reward_function(Length())([], []) == []


@pytest.mark.parametrize(
    ("completion", "text"),
    [
        ([{"role": "assistant", "content": "hello"}], "hello"),
        ([{"content": "no role, as in TRL's own examples"}], "no role, as in TRL's own examples"),
        (
            [
                {"role": "assistant", "content": "let me look", "tool_calls": [{}]},
                {"role": "tool", "content": "42"},
                {"role": "assistant", "content": "it is 42"},
            ],
            "it is 42",
        ),
        ([{"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "image"}]}], "a"),
        ([{"role": "assistant", "content": None, "tool_calls": [{}]}], ""),
    ],
)
def test_trl_chat_format(completion, text):
    rubric = Length()
    prompt = [{"role": "user", "content": "hi"}]
    trl_call(trl.reward_function(rubric), [prompt], [completion])
    assert rubric.seen[0][0] == text and rubric.seen[0][1] == {"prompt": prompt}


def test_trl_chat_without_an_assistant():
    with pytest.raises(ValueError, match=r"no assistant message: roles \['tool'\]"):
        trl_call(trl.reward_function(Length()), ["p"], [[{"role": "tool", "content": "x"}]])


def test_trl_columns_that_are_no_lists_reach_every_sample():
    rubric = Length()
    trl_call(trl.reward_function(rubric), ["p", "p"], ["a", "b"], nothing=None, state={"k": 1})
    assert [o for _, o, _ in rubric.seen] == [{"prompt": "p", "nothing": None, "state": {"k": 1}}] * 2


@pytest.mark.parametrize("wrong", [{"prompts": ["p"]}, {"column": [1, 2, 3]}])
def test_trl_lengths_are_checked(wrong):
    arguments = {"prompts": ["p", "p"], "completions": ["a", "b"], **wrong}
    with pytest.raises(ValueError, match=r"(prompt|column) has [13] values for 2 completions"):
        trl_call(trl.reward_function(Length()), **arguments)


def test_trl_own_action_and_observation():
    rubric = Length()
    function = trl.reward_function(
        rubric,
        action=lambda sample: sample["completion"].upper(),
        observation=lambda sample: (sample["completion_ids"], sample["answer"]),
    )
    trl_call(function, ["p"], ["ab"], answer=["x"])
    assert rubric.seen[0][:2] == ("AB", ([1, 2], "x"))


def test_trl_name():
    assert trl.reward_function(Length()).__name__ == "Length"
    assert trl.reward_function(Length(), name="mine").__name__ == "mine"
    # TRL awaits what this finds to be a coroutine function: ours is not one, whatever the rubric is.
    assert not inspect.iscoroutinefunction(trl.reward_function(AsyncLength()))


def test_trl_async_rubric_scores_the_batch_at_once():
    function = trl.reward_function(Together(8))
    assert trl_call(function, ["p"] * 8, [str(i) for i in range(8)])[0] == [float(i) for i in range(8)]


def test_trl_async_rubric_inside_a_running_loop():
    async def train():
        return trl_call(trl.reward_function(AsyncLength()), ["p", "p"], ["a", "bb"])[0]

    assert asyncio.run(train()) == [1.0, 2.0]


def test_trl_from_many_threads_at_once():
    function = trl.reward_function(WeightedSum([AsyncLength(), Length()], [0.5, 0.5]))
    results = {}

    def work(size):
        results[size] = [trl_call(function, ["p"] * 3, ["x" * size] * 3) for _ in range(10)]

    threads = [threading.Thread(target=work, args=(size,)) for size in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for size, calls in results.items():
        for rewards, metrics in calls:
            assert rewards == [float(size)] * 3
            assert metrics == {"WeightedSum/rubric_0": size, "WeightedSum/rubric_1": size}


def test_trl_reward_function_inside_an_async_rubric_is_refused():
    inner = trl.reward_function(AsyncLength())

    class Outer(Rubric):
        async def forward(self, action, observation):
            return inner(["p"], [action])[0]

    with pytest.raises(RuntimeError, match="wait for itself"):
        trl_call(trl.reward_function(Outer()), ["p"], ["a"])


@pytest.mark.parametrize("rubric", [Length, AsyncLength])
def test_trl_step_group_and_sample(rubric):
    recorder, rubric = FakeRecorder(), rubric()
    function = trl.reward_function(rubric, recorder=recorder)
    trl_call(function, ["p", "p", "q", "q"], ["a", "b", "c", "d"], step=3)
    trl_call(function, ["q", "r"], ["e", "f"], step=3)
    trl_call(function, ["p"], ["g"], step=4)
    assert recorder.observed == [rubric] and function.recorder is recorder and function.rubric is rubric
    places = {action: place for action, _, place in rubric.seen}
    assert places == {
        "a": {"step": 3, "group_id": 0, "sample_index": 0},
        "b": {"step": 3, "group_id": 0, "sample_index": 1},
        "c": {"step": 3, "group_id": 1, "sample_index": 0},
        "d": {"step": 3, "group_id": 1, "sample_index": 1},
        "e": {"step": 3, "group_id": 2, "sample_index": 0},
        "f": {"step": 3, "group_id": 3, "sample_index": 0},
        "g": {"step": 4, "group_id": 0, "sample_index": 0},
    }
    assert PLACE.get() is None
    function.close()
    assert recorder.detached == 1


def test_trl_num_generations_tells_equal_prompts_apart():
    rubric = Length()
    function = trl.reward_function(rubric, recorder=FakeRecorder(), num_generations=2)
    trl_call(function, ["p"] * 4, list("abcd"))
    assert [(p["group_id"], p["sample_index"]) for *_, p in rubric.seen] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_trl_without_trainer_state_the_recorder_counts():
    rubric = Length()
    trl.reward_function(rubric, recorder=FakeRecorder())(prompts=["p"], completions=["a"])
    assert rubric.seen[0][2] == {"step": 0, "group_id": 0, "sample_index": 0}


@pytest.mark.parametrize("rubric", [Brittle, AsyncBrittle])
@pytest.mark.parametrize("bad", ["oops", "nan", "inf"])
def test_trl_a_failure_reaches_the_trainer(rubric, bad):
    with pytest.raises(ValueError, match=r"could not convert|must be a finite number") as caught:
        trl_call(trl.reward_function(rubric()), ["p"] * 3, ["1", bad, "3"])
    assert caught.value.__notes__ == ["while scoring sample 1 of 3"]


@pytest.mark.parametrize("rubric", [Brittle, AsyncBrittle])
def test_trl_a_failure_as_none_is_counted_and_logged(rubric, caplog):
    function = trl.reward_function(rubric(), on_error="none")
    with caplog.at_level(logging.WARNING, "rubriscope"):
        rewards, metrics = trl_call(function, ["p"] * 4, ["1", "oops", "nan", "4"])
    assert rewards == [1.0, None, None, 4.0]
    name = rubric.__name__
    assert function.failures == 2 and metrics[f"{name}/failed"] == 0.5
    assert f"{name} could not score 2 of 4 samples" in caplog.text and "ValueError" in caplog.text
    rewards, metrics = trl_call(function, ["p"], ["1"])
    assert rewards == [1.0] and metrics[f"{name}/failed"] == 0.0 and function.failures == 2


def test_trl_an_early_failure_lets_the_calls_before_it_end_and_begins_none_after(recwarn):
    length = AsyncLength()
    rubric = Sequential(Brittle(), length)
    with pytest.raises(ValueError, match="could not convert"):
        trl_call(trl.reward_function(rubric), ["p"] * 3, ["1", "oops", "3"])
    assert [action for action, *_ in length.seen] == ["1"]
    gc.collect()
    assert [w for w in recwarn if "never awaited" in str(w.message)] == []


def test_trl_logs_the_components_of_the_tree():
    tree = Sequential(NonEmpty(), Long())
    hooks_before = list_hooks(tree)
    rewards, metrics = trl_call(trl.reward_function(tree, name="r"), ["p"] * 3, ["", "ab", "abcd"])
    assert rewards == [0.0, 0.5, 1.0]
    # rubric_1 is not reached by the empty completion, so its mean is over two.
    assert metrics == {"r/rubric_0": pytest.approx(2 / 3), "r/rubric_1": 0.75}
    assert list_hooks(tree) == hooks_before
    assert trl_call(trl.reward_function(tree, log_components=False), ["p"], ["a"])[1] == {}


def list_hooks(tree):
    """How many hooks fire in one call, hooks of ours aside: calls with the adapter's must leave none."""
    fired = []
    handles = [node.register_forward_hook(lambda *a: fired.append(1)) for node in tree.rubrics()]
    tree("abcd", None)
    for handle in handles:
        handle.remove()
    return len(fired)


def test_trl_components_of_calls_at_once_are_kept_apart():
    tree = WeightedSum([AsyncLength(), AsyncLength()], [0.25, 0.75])
    rewards, metrics = trl_call(trl.reward_function(tree), ["p"] * 10, ["x" * i for i in range(10)])
    assert rewards == [float(i) for i in range(10)]
    assert metrics == {"WeightedSum/rubric_0": 4.5, "WeightedSum/rubric_1": 4.5}


def test_trl_pickles_without_its_observer():
    function = trl.reward_function(Brittle(), name="mine", on_error="none")
    again = pickle.loads(pickle.dumps(function))
    assert again.__name__ == "mine" and trl_call(again, ["p"], ["2"])[0] == [2.0]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rubric": len}, TypeError, "rubric must be a rubriscope.Rubric, got builtin_function_or_method"),
        ({"on_error": "nan"}, ValueError, "on_error must be 'raise' or 'none', got 'nan'"),
        ({"num_generations": 0}, ValueError, "num_generations must be at least 1, got 0"),
        ({"session": "x"}, ValueError, "session='x' names the session of a recorder opened here"),
    ],
)
def test_trl_arguments_are_checked(options, error, message):
    with pytest.raises(error, match=message):
        trl.reward_function(**{"rubric": Length(), **options})


# ---- TRL, recorded


def film_of(path):
    with rs.Film(path) as film:
        return [snapshot for session in film.sessions() for snapshot in film.snapshots(session)]


def place(snapshot):
    return snapshot.step, snapshot.group_id, snapshot.sample_index


@pytest.mark.parametrize("rubric", [Length, AsyncLength])
def test_trl_recorded_into_a_database(tmp_path, rubric):
    path = tmp_path / "runs.db"
    function = trl.reward_function(rubric(), recorder=path, session="grpo")
    trl_call(function, ["p", "p", "q", "q"], ["a", "bb", "ccc", "dddd"], step=3, answer=[1, None, 3, 4])
    trl_call(function, ["p"], ["e"], step=4)
    function.close()
    assert function.recorder.closed
    snapshots = {snapshot.action: snapshot for snapshot in film_of(path)}
    assert {action: place(snapshot) for action, snapshot in snapshots.items()} == {
        "a": (3, 0, 0),
        "bb": (3, 0, 1),
        "ccc": (3, 1, 0),
        "dddd": (3, 1, 1),
        "e": (4, 0, 0),
    }
    assert [snapshot.reward for snapshot in snapshots.values()] == [len(action) for action in snapshots]
    assert {snapshot.session_name for snapshot in snapshots.values()} == {"grpo"}
    assert snapshots["bb"].observation == repr({"answer": None, "prompt": "p"})


def test_trl_a_recorder_of_the_users_stays_open_and_keeps_its_episode(tmp_path):
    path = tmp_path / "runs.db"
    with rs.record(path, session="mine") as recorder:
        recorder.episode_id = "ep-7"
        function = trl.reward_function(Length(), recorder=recorder)
        trl_call(function, ["p"], ["abc"])
        function.close()
        assert not recorder.closed
        function.rubric("not seen", None)
    (snapshot,) = film_of(path)
    assert snapshot.episode_id == "ep-7" and snapshot.action == "abc"


def test_trl_a_failed_sample_is_recorded_as_failed(tmp_path):
    path = tmp_path / "runs.db"
    function = trl.reward_function(Sequential(NonEmpty(), Brittle()), recorder=path, on_error="none")
    assert trl_call(function, ["p"] * 2, ["1", "oops"])[0] == [1.0, None]
    function.close()
    statuses = [snapshot.statuses for snapshot in film_of(path)]
    assert statuses == [
        {"root": "scored", "rubric_0": "scored", "rubric_1": "scored"},
        {"root": "failed", "rubric_0": "scored", "rubric_1": "failed"},
    ]


def in_worker(function, completions):
    trl_call(function, ["p"] * len(completions), completions, step=1)
    function.recorder.flush()


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
@pytest.mark.parametrize("rubric", [Length, AsyncLength])
def test_trl_records_from_worker_processes(tmp_path, method, rubric):
    path = tmp_path / "runs.db"
    function = trl.reward_function(rubric(), recorder=path, session="workers")
    trl_call(function, ["p"], ["parent before"], step=0)
    context = multiprocessing.get_context(method)
    workers = [context.Process(target=in_worker, args=(function, [f"worker {i}", "b"])) for i in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    trl_call(function, ["p"], ["parent after"], step=2)
    function.close()
    with rs.Film(path) as film:
        (session,) = film.sessions()
        snapshots = list(film.snapshots(session))
    assert sorted((snapshot.step, snapshot.action) for snapshot in snapshots) == [
        (0, "parent before"),
        (1, "b"),
        (1, "b"),
        (1, "worker 0"),
        (1, "worker 1"),
        (2, "parent after"),
    ]
    assert len({snapshot.id.partition(":")[0] for snapshot in snapshots}) == 3


def test_trl_a_pickled_copy_in_the_same_process_uses_the_same_recorder(tmp_path):
    path = tmp_path / "runs.db"
    function = trl.reward_function(Length(), recorder=path)
    again = pickle.loads(pickle.dumps(function))
    assert again.recorder is function.recorder
    trl_call(again, ["p"], ["copy"])
    trl_call(function, ["p"], ["original"])
    function.close()
    assert sorted(snapshot.action for snapshot in film_of(path)) == ["copy", "original"]


# ---- verl


def verl_call(function, solution="abcd", **options):
    """Call as NaiveRewardManager does."""
    arguments = {"data_source": "d", "ground_truth": "g", "extra_info": {"index": 5, "split": "train"}}
    return function(solution_str=solution, **{**arguments, **options})


def test_verl_score_and_components():
    function = verl.compute_score_function(Sequential(NonEmpty(), Long()))
    assert verl_call(function, "ab") == {"score": 0.5, "rubric/rubric_0": 1.0, "rubric/rubric_1": 0.5}
    skipped = verl_call(function, "")
    assert skipped["score"] == 0.0 and math.isnan(skipped["rubric/rubric_1"])
    plain = verl.compute_score_function(Long(), components=False)
    assert verl_call(plain, "ab") == 0.5 and plain.__name__ == "compute_score"


def test_verl_what_the_rubric_sees():
    rubric, recorder = Length(), FakeRecorder()
    function = verl.compute_score_function(rubric, recorder=recorder, components=False)
    verl_call(function, reward_router_address="here")
    verl_call(function, extra_info=None)
    assert rubric.seen == [
        (
            "abcd",
            {
                "index": 5,
                "split": "train",
                "reward_router_address": "here",
                "data_source": "d",
                "ground_truth": "g",
            },
            {"step": 0, "group_id": 5},
        ),
        ("abcd", {"data_source": "d", "ground_truth": "g"}, {"step": 1}),
    ]
    assert recorder.observed == [rubric]


def test_verl_async_rubric_in_and_out_of_a_loop():
    function = verl.compute_score_function(AsyncLength())
    assert verl_call(function) == {"score": 4.0}

    async def reward_loop():  # verl runs a synchronous function in its loop's executor, or right in it
        return await asyncio.get_running_loop().run_in_executor(None, verl_call, function), verl_call(
            function
        )

    assert asyncio.run(reward_loop()) == ({"score": 4.0}, {"score": 4.0})


def test_verl_failures(caplog):
    with pytest.raises(ValueError, match="could not convert"):
        verl_call(verl.compute_score_function(Brittle()), "oops")
    function = verl.compute_score_function(Brittle(), on_error=-1)
    with caplog.at_level(logging.WARNING, "rubriscope"):
        assert verl_call(function, "oops") == {"score": -1.0, "rubric/failed": 1.0}
    assert "verl gets -1.0. ValueError" in caplog.text and function.failures == 1
    assert verl_call(function, "2") == {"score": 2.0, "rubric/failed": 0.0}
    for wrong in ("nan", math.nan, None):
        with pytest.raises(ValueError, match="on_error must be 'raise' or a finite number"):
            verl.compute_score_function(Brittle(), on_error=wrong)


def make_long():
    return Long()


INSTANCE = Long()


@pytest.mark.parametrize("attribute", ["make_long", "Long", "INSTANCE"])
def test_verl_module_level_function_takes_its_rubric_by_name(attribute):
    options = {"rubric": f"{__name__}:{attribute}", "components": False}
    assert verl.compute_score("d", "ab", "g", {"index": 1}, **options) == 0.5
    assert verl_call(verl.compute_score, "abcd", **options) == 1.0


def test_verl_module_level_function_keeps_what_it_made(monkeypatch):
    made = []
    monkeypatch.setitem(globals(), "make_long", lambda: made.append(1) or Long())
    for _ in range(3):
        verl.compute_score("d", "ab", "g", rubric=f"{__name__}:make_long", on_error=0.125)
    assert made == [1]


def test_verl_bad_names():
    with pytest.raises(ValueError, match="rubric must be a Rubric or 'module:attribute', got 'nope'"):
        verl.compute_score_function("nope")
    with pytest.raises(AttributeError, match="nothing"):
        verl.compute_score_function(f"{__name__}:nothing")
    with pytest.raises(TypeError, match=r"must be a Rubric.* got 3"):
        verl.compute_score_function(f"{__name__}:verl_call_result")


def verl_call_result():
    return 3


def test_verl_pickles():
    function = pickle.loads(pickle.dumps(verl.compute_score_function(Long())))
    assert verl_call(function, "ab") == {"score": 0.5}


def test_verl_recorded_into_a_database(tmp_path):
    path = tmp_path / "runs.db"
    options = {"rubric": f"{__name__}:make_long", "recorder": str(path), "session": "verl"}
    for solution in ("a", "ab"):
        verl.compute_score("d", solution, "g", {"index": 5}, **options)
    function = next(f for f in verl._functions.values() if getattr(f.recorder, "session_name", "") == "verl")
    function.close()
    verl._functions.clear()
    assert [(s.action, *place(s)) for s in film_of(path)] == [("a", 0, 5, None), ("ab", 1, 5, None)]
