"""Hooks: who is called, when, with what, and what happens when one fails."""

from __future__ import annotations

import asyncio
import gc
import inspect
import weakref

import pytest
import rubriscope as rs
from engine_support import AsyncValue, Mean, Raises, Value


def trace_tree(tree, log):
    """Hooks on every node that write down what they see."""
    for name, node in [("root", tree), *tree.named_rubrics()]:
        node.register_forward_pre_hook(lambda r, a, o, name=name: log.append(("pre", name)))
        node.register_forward_hook(lambda r, a, o, s, name=name: log.append(("post", name)))


def test_arguments_of_hooks():
    seen = []
    rubric = Value(0.5)
    rubric.register_forward_pre_hook(lambda *given: seen.append(given))
    rubric.register_forward_hook(lambda *given: seen.append(given))
    rubric("action", "observation")
    assert seen == [(rubric, "action", "observation"), (rubric, "action", "observation", 0.5)]


def test_a_hooks_return_value_is_ignored():
    rubric = Value(0.5)
    rubric.register_forward_pre_hook(lambda *_: 7)
    rubric.register_forward_hook(lambda *_: 7)
    assert rubric(1, 2) == 0.5


def test_hooks_run_in_order_of_registration():
    log = []
    rubric = Value(0.5)
    for i in range(5):
        rubric.register_forward_hook(lambda *_, i=i: log.append(i))
        rubric.register_forward_pre_hook(lambda *_, i=i: log.append(-i - 1))
    rubric(1, 2)
    assert log == [-1, -2, -3, -4, -5, 0, 1, 2, 3, 4]


@pytest.mark.parametrize("leaf", [Value, AsyncValue])
@pytest.mark.parametrize(
    "make",
    [
        lambda leaf: rs.Gate(leaf(1.0)),
        lambda leaf: rs.Sequential(leaf(1.0)),
        lambda leaf: rs.WeightedSum([leaf(1.0)], [1.0]),
    ],
    ids=["gate", "sequential", "sum"],
)
def test_a_containers_pre_hook_comes_before_its_child(make, leaf):
    tree = make(leaf)
    log = []
    trace_tree(tree, log)
    score = tree(1, 2)
    if inspect.iscoroutine(score):
        score = asyncio.run(score)
    assert score == 1.0
    (child,) = (name for name, _ in tree.named_children())
    assert log == [("pre", "root"), ("pre", child), ("post", child), ("post", "root")]


def test_hooks_of_a_deep_tree_nest():
    tree = rs.Sequential(rs.Gate(Value(1.0)), rs.WeightedSum([Value(0.5), Mean(x=Value(1))], [0.5, 0.5]))
    log = []
    trace_tree(tree, log)
    tree(1, 2)
    depth = []
    for when, name in log:
        if when == "pre":
            depth.append(name)
        else:
            assert depth.pop() == name
    assert not depth
    assert len(log) == 2 * 7


def test_a_skipped_node_calls_no_hook():
    tree = rs.Sequential(Value(0.0), Value(1.0))
    log = []
    trace_tree(tree, log)
    tree(1, 2)
    assert [name for when, name in log if when == "pre"] == ["root", "rubric_0"]


def test_handle_removes_once():
    log = []
    rubric = Value(0.5)
    first = rubric.register_forward_hook(lambda *_: log.append(1))
    rubric.register_forward_hook(lambda *_: log.append(2))
    rubric(1, 2)
    first.remove()
    first.remove()
    rubric(1, 2)
    assert log == [1, 2, 2]


def test_handle_is_a_context_manager():
    log = []
    rubric = Value(0.5)
    with rubric.register_forward_hook(lambda *_: log.append("post")) as handle:
        assert hasattr(handle, "remove")
        with rubric.register_forward_pre_hook(lambda *_: log.append("pre")):
            rubric(1, 2)
        rubric(1, 2)
    rubric(1, 2)
    assert log == ["pre", "post", "post"]


def test_the_same_function_may_be_registered_twice():
    log = []
    hook = lambda *_: log.append(1)  # noqa: E731
    rubric = Value(0.5)
    first = rubric.register_forward_hook(hook)
    rubric.register_forward_hook(hook)
    rubric(1, 2)
    first.remove()
    rubric(1, 2)
    assert log == [1, 1, 1]


@pytest.mark.parametrize("wrong", [None, 3, "text"], ids=repr)
def test_a_hook_must_be_callable(wrong):
    for register in (Value(1).register_forward_hook, Value(1).register_forward_pre_hook):
        with pytest.raises(TypeError, match="callable"):
            register(wrong)


def test_hooks_that_change_hooks():
    log = []
    rubric = Value(0.5)

    def once(*_):
        log.append("once")
        handle.remove()
        rubric.register_forward_hook(lambda *_: log.append("new"))

    handle = rubric.register_forward_hook(once)
    rubric.register_forward_hook(lambda *_: log.append("other"))
    rubric(1, 2)
    assert log == ["once", "other"]
    rubric(1, 2)
    assert log == ["once", "other", "other", "new"]


@pytest.mark.parametrize("register", ["register_forward_pre_hook", "register_forward_hook"])
@pytest.mark.parametrize("leaf", [Value, AsyncValue])
def test_an_exception_in_a_hook_reaches_the_caller_and_leaves_the_tree_usable(register, leaf):
    tree = rs.Sequential(rs.Gate(leaf(1.0)), leaf(0.5))

    def run():
        score = tree(1, 2)
        return asyncio.run(score) if inspect.iscoroutine(score) else score

    def bad(*_):
        raise LookupError("hook")

    for path in ("rubric_0.rubric", "rubric_0", "rubric_1"):
        with getattr(tree.get_rubric(path), register)(bad), pytest.raises(LookupError, match="hook"):
            run()
        assert run() == 0.5
    with getattr(tree, register)(bad), pytest.raises(LookupError, match="hook"):
        run()
    assert run() == 0.5


def test_later_hooks_do_not_run_after_one_that_raised():
    log = []
    rubric = Value(0.5)
    rubric.register_forward_hook(lambda *_: 1 / 0)
    rubric.register_forward_hook(lambda *_: log.append(1))
    with pytest.raises(ZeroDivisionError):
        rubric(1, 2)
    assert log == []


def test_forward_hooks_do_not_run_after_a_forward_that_raised():
    log = []
    tree = rs.Sequential(Raises())
    trace_tree(tree, log)
    with pytest.raises(RuntimeError):
        tree(1, 2)
    assert log == [("pre", "root"), ("pre", "rubric_0")]


# ---- Async hooks


async def test_an_async_hook_makes_the_call_a_coroutine():
    log = []

    async def before(*_):
        await asyncio.sleep(0)
        log.append("before")

    async def after(*_):
        await asyncio.sleep(0)
        log.append("after")

    rubric = Value(0.5)
    assert rubric(1, 2) == 0.5
    with rubric.register_forward_pre_hook(before), rubric.register_forward_hook(after):
        coroutine = rubric(1, 2)
        assert inspect.iscoroutine(coroutine)
        assert log == []
        assert await coroutine == 0.5
        assert log == ["before", "after"]
    assert rubric(1, 2) == 0.5


async def test_an_async_hook_below_makes_the_tree_asynchronous():
    order = []

    async def after(*_):
        order.append("child")

    tree = rs.WeightedSum([rs.Gate(Value(1.0)), Value(0.5)], [0.5, 0.5])
    tree.register_forward_hook(lambda *_: order.append("root"))
    handle = tree.rubric_0.rubric.register_forward_hook(after)
    coroutine = tree(1, 2)
    assert inspect.iscoroutine(coroutine)
    assert await coroutine == 0.75
    assert order == ["child", "root"]
    handle.remove()
    assert tree(1, 2) == 0.75


async def test_sync_and_async_hooks_mix_in_order():
    log = []
    rubric = AsyncValue(0.5)

    async def slow(*_):
        await asyncio.sleep(0)
        log.append("async")

    rubric.register_forward_hook(lambda *_: log.append("first"))
    rubric.register_forward_hook(slow)
    rubric.register_forward_hook(lambda *_: log.append("last"))
    assert await rubric(1, 2) == 0.5
    assert log == ["first", "async", "last"]


async def test_callable_objects_and_partials_as_async_hooks():
    import functools

    log = []

    class Hook:
        async def __call__(self, *_):
            log.append("object")

        async def method(self, *_):
            log.append("method")

    async def function(tag, *_):
        log.append(tag)

    rubric = Value(0.5)
    for hook in (Hook(), Hook().method, functools.partial(function, "partial")):
        rubric.register_forward_hook(hook)
    assert await rubric(1, 2) == 0.5
    assert log == ["object", "method", "partial"]


async def test_a_sync_hook_that_returns_an_awaitable_is_awaited_on_an_async_rubric():
    log = []

    async def later():
        log.append("later")

    rubric = AsyncValue(0.5)
    rubric.register_forward_hook(lambda *_: later())
    assert await rubric(1, 2) == 0.5
    assert log == ["later"]


# ---- Life


def test_a_removed_hook_is_let_go():
    class Hook:
        def __call__(self, *_):
            pass

    hook = Hook()
    gone = weakref.ref(hook)
    rubric = Value(0.5)
    handle = rubric.register_forward_hook(hook)
    handle.remove()
    del hook
    gc.collect()
    assert gone() is None


def test_a_handle_outlives_nothing():
    rubric = Value(0.5)
    handle = rubric.register_forward_hook(lambda *_: None)
    del handle
    log = []
    rubric.register_forward_hook(lambda *_: log.append(1))
    rubric(1, 2)
    assert log == [1]


def test_hooks_are_copied_with_the_rubric():
    import copy

    log = []
    rubric = Value(0.5)
    rubric.register_forward_hook(lambda r, *_: log.append(r))
    twin = copy.deepcopy(rubric)
    twin(1, 2)
    assert log == [twin]
