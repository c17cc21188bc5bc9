"""The rubric itself: children, look-up, what a forward may give, life and death. No observer here."""

from __future__ import annotations

import copy
import gc
import inspect
import math
import pickle
import tracemalloc
import weakref

import cloudpickle
import numpy as np
import pytest
import rubriscope as rs
import torch
from engine_support import AsyncValue, Echo, Mean, Raises, Value

# ---- Making one


def test_a_rubric_without_forward_is_refused():
    with pytest.raises(TypeError, match="forward"):
        rs.Rubric()

    class Nothing(rs.Rubric):
        pass

    with pytest.raises(TypeError, match="Nothing"):
        Nothing()


def test_forward_may_come_from_a_mixin():
    class Scores:
        def forward(self, action, observation):
            return 0.25

    class Mixed(Scores, rs.Rubric):
        pass

    assert Mixed()(1, 2) == 0.25


def test_a_subclass_may_leave_out_the_base_constructor():
    class Quiet(rs.Rubric):
        def __init__(self):
            self.child = Value(0.5)

        def forward(self, action, observation):
            return self.child(action, observation)

    assert Quiet()(1, 2) == 0.5
    assert [name for name, _ in Quiet().named_children()] == ["child"]


def test_a_subclass_may_take_any_arguments():
    class Many(rs.Rubric):
        def __init__(self, a, *rest, b=2, **more):
            super().__init__()
            self.all = (a, rest, b, more)

        def forward(self, action, observation):
            return 1.0

    assert Many(1, 2, 3, b=4, c=5).all == (1, (2, 3), 4, {"c": 5})


def test_unknown_options_of_the_base_are_refused():
    with pytest.raises(TypeError):
        Value(0.5, colour="red")


# ---- Calling


def test_a_call_takes_action_and_observation_by_place_or_by_name():
    class Both(rs.Rubric):
        def forward(self, action, observation):
            return action - observation

    both = Both()
    assert both(5, 3) == both(5, observation=3) == both(action=5, observation=3) == 2
    for wrong in ((), (1,), (1, 2, 3)):
        with pytest.raises(TypeError):
            both(*wrong)
    with pytest.raises(TypeError):
        both(1, reaction=2)


@pytest.mark.parametrize(
    "given",
    [
        0.5,
        1,
        True,
        False,
        -3,
        2**40,
        np.float64(0.25),
        np.float32(0.25),
        np.int64(3),
        np.array(0.5),
        rs.Score(0.75, "why"),
        torch.tensor(0.5),
        torch.tensor(2),
        math.inf,
    ],
    ids=repr,
)
def test_the_caller_gets_what_forward_gave(given):
    rubric = Value(given)
    assert rubric(None, None) is given
    assert rubric.last_score is given or rubric.last_score == given


@pytest.mark.filterwarnings("error")
def test_a_tensor_keeps_its_gradient():
    weight = torch.tensor(0.5, requires_grad=True)

    class Differentiable(rs.Rubric):
        def forward(self, action, observation):
            return weight * action

    gate = rs.Gate(Differentiable(), 0.5)
    assert rs.WeightedSum([gate, rs.Sequential(gate)], [0.5, 0.5])(3.0, None) == 1.5
    score = gate(3.0, None)
    score.backward()
    assert weight.grad == 3.0
    assert gate.batch([1.0, 3.0], [None, None]).tolist() == [0.5, 1.5]


def test_nan_and_none_reach_the_caller_as_they_are():
    assert math.isnan(Value(float("nan"))(1, 2))
    assert Value(None)(1, 2) is None


def test_an_int_too_large_for_a_float_raises_and_says_so():
    with pytest.raises(OverflowError):
        Value(10**400)(1, 2)


def test_last_score_starts_as_none_and_follows_the_calls():
    echo = Echo()
    assert echo.last_score is None
    echo(0.25, None)
    assert echo.last_score == 0.25
    echo(0.75, None)
    assert echo.last_score == 0.75
    echo.last_score = None
    assert echo.last_score is None


def test_last_score_of_every_node_of_a_tree():
    tree = rs.WeightedSum([rs.Gate(Value(0.4), 0.5), Value(0.8)], [0.5, 0.5])
    assert tree(1, 2) == pytest.approx(0.4)
    assert tree.last_score == pytest.approx(0.4)
    assert tree.rubric_0.last_score == 0.0
    assert tree.rubric_0.rubric.last_score == 0.4
    assert tree.rubric_1.last_score == 0.8


def test_an_exception_reaches_the_caller_as_the_same_object():
    error = KeyError("mine")
    rubric = Raises(error)
    with pytest.raises(KeyError) as caught:
        rs.Sequential(rs.Gate(rubric))(1, 2)
    assert caught.value is error
    assert any(entry.name == "forward" for entry in caught.traceback)


def test_reentry_the_same_rubric_may_call_itself():
    class Factorial(rs.Rubric):
        def forward(self, action, observation):
            return 1 if action <= 1 else action * self(action - 1, observation)

    assert Factorial()(10, None) == math.factorial(10)


def test_endless_recursion_is_an_error_not_a_crash():
    class Endless(rs.Rubric):
        def forward(self, action, observation):
            return self(action, observation)

    with pytest.raises(RecursionError):
        Endless()(1, 2)

    class Around(rs.Gate):
        """A container whose child calls it again."""

    class Calls(rs.Rubric):
        def forward(self, action, observation):
            return observation(action, observation)

    loop = Around(Calls(), 0.0)
    with pytest.raises(RecursionError):
        loop(1, loop)


def test_a_very_deep_tree_raises_instead_of_crashing():
    tree: rs.Rubric = Value(1.0)
    for _ in range(5000):
        tree = rs.Gate(tree)
    with pytest.raises(RecursionError):
        tree(1, 2)
    del tree
    gc.collect()


# ---- strict


@pytest.mark.parametrize("bad", [float("nan"), math.inf, -math.inf, None, "high"], ids=repr)
def test_strict_raises_for_a_score_that_is_not_a_finite_number(bad):
    with pytest.raises(ValueError, match="Value"):
        Value(bad, strict=True)(1, 2)
    assert Value(0.5, strict=True)(1, 2) == 0.5


def test_strict_can_be_switched():
    rubric = Value(float("nan"))
    assert rubric.strict is False
    rubric(1, 2)
    rubric.strict = True
    with pytest.raises(ValueError, match="nan"):
        rubric(1, 2)
    rubric.strict = False
    rubric(1, 2)


def test_strict_on_a_container():
    tree = rs.WeightedSum([Value(float("nan")), Value(1.0)], [0.5, 0.5])
    assert math.isnan(tree(1, 2))
    tree.strict = True
    with pytest.raises(ValueError, match="WeightedSum"):
        tree(1, 2)


# ---- Children


def test_children_register_in_order_of_assignment():
    node = Mean(b=Value(1), a=Value(2), c=Value(3))
    assert [name for name, _ in node.named_children()] == ["b", "a", "c"]
    assert list(node.children()) == [node.b, node.a, node.c]


def test_descendants_come_depth_first_with_dotted_names():
    tree = Mean(x=Mean(p=Value(1), q=Value(2)), y=Value(3))
    assert [name for name, _ in tree.named_rubrics()] == ["x", "x.p", "x.q", "y"]
    assert [name for name, _ in tree.named_rubrics(prefix="top")] == ["top.x", "top.x.p", "top.x.q", "top.y"]
    assert [name for name, _ in tree.named_rubrics("top")] == ["top.x", "top.x.p", "top.x.q", "top.y"]
    assert list(tree.rubrics()) == [tree.x, tree.x.p, tree.x.q, tree.y]


def test_iteration_gives_iterators():
    tree = Mean(x=Value(1))
    for iterator in (tree.children(), tree.named_children(), tree.rubrics(), tree.named_rubrics()):
        assert next(iterator)


def test_get_rubric():
    tree = Mean(x=Mean(p=Mean(q=Value(1))))
    assert tree.get_rubric("x") is tree.x
    assert tree.get_rubric("x.p.q") is tree.x.p.q


@pytest.mark.parametrize("path", ["z", "x.z", "x.p.z", "x..p", "", ".x", "x."])
def test_get_rubric_names_the_missing_part_and_what_is_there(path):
    tree = Mean(x=Mean(p=Value(1), q=Value(2)), y=Value(3))
    with pytest.raises(KeyError) as caught:
        tree.get_rubric(path)
    message = str(caught.value)
    missing = next(part for i, part in enumerate(path.split(".")) if part not in "xp" or not part)
    assert f"'{missing}'" in message
    if path == "x.z":
        assert "p, q" in message
    if path == "z":
        assert "x, y" in message


def test_get_rubric_wants_text():
    with pytest.raises(TypeError, match="int"):
        Mean(x=Value(1)).get_rubric(3)


def test_del_unregisters():
    node = Mean(x=Value(1), y=Value(3))
    gone = weakref.ref(node.x)
    del node.x
    assert [name for name, _ in node.named_children()] == ["y"]
    with pytest.raises(AttributeError):
        _ = node.x
    with pytest.raises(KeyError):
        node.get_rubric("x")
    assert node(1, 2) == 3
    assert gone() is None


def test_reassignment_to_something_else_unregisters():
    node = Mean(x=Value(1), y=Value(3))
    node.x = None
    assert [name for name, _ in node.named_children()] == ["y"]
    node.y = "text"
    assert list(node.children()) == []


def test_reassignment_to_a_rubric_replaces_in_place():
    node = Mean(x=Value(1), y=Value(3))
    node.x = Value(5)
    assert [name for name, _ in node.named_children()] == ["x", "y"]
    assert node(1, 2) == 4


def test_an_attribute_that_becomes_a_rubric_registers():
    node = Mean(y=Value(3))
    node.x = 1
    node.x = Value(1)
    assert [name for name, _ in node.named_children()] == ["y", "x"]


def test_deleting_what_is_not_there():
    node = Mean(x=Value(1))
    with pytest.raises(AttributeError):
        del node.z
    assert len(list(node.children())) == 1


def test_a_shared_child_is_one_rubric_under_two_names():
    shared = Value(1)
    tree = Mean(a=shared, b=Mean(c=shared))
    assert tree.get_rubric("a") is tree.get_rubric("b.c") is shared
    assert [name for name, _ in tree.named_rubrics()] == ["a", "b", "b.c"]
    del tree.a
    assert tree.get_rubric("b.c") is shared


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_a_cycle_is_refused_when_it_is_made(depth):
    bottom = top = Mean(leaf=Value(1))
    for _ in range(depth):
        top = Mean(below=top)
    with pytest.raises(ValueError, match="cycle"):
        bottom.back = top
    assert [name for name, _ in bottom.named_children()] == ["leaf"]
    assert not hasattr(bottom, "back")
    assert top(1, 2) == 1


def test_a_refused_child_leaves_the_old_one():
    node = Mean(x=Value(1))
    before = node.x
    with pytest.raises(ValueError, match="cycle"):
        node.x = node
    assert node.x is before
    assert node.get_rubric("x") is before


def test_a_child_whose_attribute_cannot_be_set_is_not_registered():
    class Refusing(rs.Rubric):
        @property
        def fixed(self):
            return 1

        def forward(self, action, observation):
            return 0.0

    node = Refusing()
    with pytest.raises(AttributeError):
        node.fixed = Value(1)
    assert list(node.children()) == []


def test_slots():
    class Slotted(rs.Rubric):
        __slots__ = ("child", "scale")

        def __init__(self, scale):
            super().__init__()
            self.scale = scale
            self.child = Value(0.5)

        def forward(self, action, observation):
            return self.scale * self.child(action, observation)

    rubric = Slotted(2)
    assert rubric(1, 2) == 1.0
    assert [name for name, _ in rubric.named_children()] == ["child"]
    del rubric.child
    assert list(rubric.children()) == []


def test_pickle_and_copy_keep_slots():
    import engine_slots_module as module

    rubric = module.Slotted(3, module.Leaf(0.25))
    for twin in (pickle.loads(pickle.dumps(rubric)), copy.deepcopy(rubric)):
        assert twin.scale == 3
        assert twin.child is not rubric.child
        assert twin(1, 2) == 0.75
        assert [name for name, _ in twin.named_children()] == ["child"]


def test_repr_shows_the_tree():
    shown = repr(Mean(x=Mean(p=Value(1)), y=Value(3)))
    assert shown.splitlines()[0] == "Mean("
    assert "(x): Mean(" in shown and "(p): Value()" in shown and "(y): Value()" in shown


def test_defaults_of_reset_and_state():
    rubric = Value(1)
    assert rubric.reset() is None
    assert rubric.state_dict() == {}
    assert rubric.load_state_dict({"anything": 1}) is None


def test_forward_of_the_base_names_the_class():
    class Calls(rs.Rubric):
        def forward(self, action, observation):
            return super().forward(action, observation)

    with pytest.raises(NotImplementedError, match="Calls"):
        Calls()(1, 2)


# ---- Classes that change, and classes that do more


def test_forward_replaced_on_the_class():
    class Changing(rs.Rubric):
        def forward(self, action, observation):
            return 1.0

    tree = rs.Sequential(Changing())
    assert tree(1, 2) == 1.0
    Changing.forward = lambda self, action, observation: 2.0
    assert tree(1, 2) == 2.0
    del Changing.forward
    with pytest.raises(NotImplementedError):
        tree(1, 2)


def test_forward_replaced_on_a_base_of_the_class():
    class Base(rs.Rubric):
        def forward(self, action, observation):
            return 1.0

    class Derived(Base):
        pass

    rubric = Derived()
    assert rubric(1, 2) == 1.0
    Base.forward = lambda self, action, observation: 3.0
    assert rubric(1, 2) == 3.0


def test_forward_replaced_on_the_instance():
    first, second = Value(1.0), Value(1.0)
    tree = rs.WeightedSum([first, second], [0.5, 0.5])
    assert tree(1, 2) == 1.0
    first.forward = lambda action, observation: 3.0
    assert tree(1, 2) == 2.0
    del first.forward
    assert tree(1, 2) == 1.0


def test_forward_replaced_on_a_containers_instance():
    tree = rs.Sequential(Value(0.5))
    tree.forward = lambda action, observation: 9.0
    assert tree(1, 2) == 9.0
    del tree.forward
    assert tree(1, 2) == 0.5


def test_forward_that_becomes_async():
    class Changing(rs.Rubric):
        def forward(self, action, observation):
            return 1.0

    rubric = Changing()
    assert rubric(1, 2) == 1.0

    async def later(self, action, observation):
        return 2.0

    Changing.forward = later
    coroutine = rubric(1, 2)
    assert inspect.iscoroutine(coroutine)
    coroutine.close()


def test_class_of_an_instance_changed():
    class Other(Value):
        def forward(self, action, observation):
            return -self.value

    rubric = Value(0.5)
    assert rubric(1, 2) == 0.5
    rubric.__class__ = Other
    assert rubric(1, 2) == -0.5


@pytest.mark.parametrize("kind", ["static", "class", "partial", "callable"])
def test_forward_need_not_be_a_plain_function(kind):
    import functools

    class Callable:
        def __call__(self, action, observation):
            return action + observation

    forwards = {
        "static": staticmethod(lambda action, observation: action + observation),
        "class": classmethod(lambda cls, action, observation: action + observation),
        "partial": functools.partial(lambda scale, action, observation: scale * (action + observation), 1),
        "callable": Callable(),
    }
    rubric = type("Odd", (rs.Rubric,), {"forward": forwards[kind]})()
    assert rubric(1, 2) == 3
    assert rs.Sequential(rubric)(1, 2) == 3


def test_an_overridden_call_is_used_by_containers():
    class Doubles(Value):
        def __call__(self, action, observation):
            return 2 * super().__call__(action, observation)

    doubles = Doubles(0.25)
    assert doubles(1, 2) == 0.5
    assert rs.Sequential(doubles)(1, 2) == 0.5
    assert rs.WeightedSum([doubles, Value(0)], [0.5, 0.5])(1, 2) == 0.25
    assert rs.Gate(doubles, 0.5)(1, 2) == 0.5


# ---- Copies


def test_pickle_keeps_the_tree(tmp_path):
    tree = rs.Sequential(rs.Gate(Value(0.5), 0.25), rs.WeightedSum([Value(1), Value(0)], [0.25, 0.75]))
    tree.strict = True
    twin = pickle.loads(pickle.dumps(tree))
    assert [n for n, _ in twin.named_rubrics()] == [n for n, _ in tree.named_rubrics()]
    assert twin(1, 2) == tree(1, 2) == 0.25
    assert twin.strict is True
    assert twin.rubric_0.threshold == 0.25
    assert twin.rubric_1.weights == [0.25, 0.75]
    assert not set(map(id, twin.rubrics())) & set(map(id, tree.rubrics()))
    twin.rubric_0.rubric.value = 0.0
    assert tree(1, 2) == 0.25


@pytest.mark.parametrize(
    "clone", [copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))], ids=["deepcopy", "pickle"]
)
def test_copies_share_what_was_shared(clone):
    shared = Value(1)
    tree = clone(Mean(a=shared, b=Mean(c=shared)))
    assert tree.a is tree.b.c


@pytest.mark.parametrize(
    "clone", [copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))], ids=["deepcopy", "pickle"]
)
def test_copies_of_lists_and_dicts(clone):
    tree = clone(
        Mean(l=rs.RubricList([Value(1), Value(2)]), d=rs.RubricDict({"forward": Value(3), "k": Value(4)}))
    )
    assert [child.value for child in tree.l] == [1, 2]
    assert tree.l[0] is tree.get_rubric("l.rubric_0")
    assert tree.d["forward"] is tree.get_rubric("d.forward")
    assert {key: child.value for key, child in tree.d.items()} == {"forward": 3, "k": 4}


def test_shallow_copy_shares_the_children():
    tree = Mean(a=Value(1))
    twin = copy.copy(tree)
    assert twin.a is tree.a
    twin.a = Value(5)
    assert tree(1, 2) == 1 and twin(1, 2) == 5


def test_cloudpickle_of_a_local_class():
    class Local(rs.Rubric):
        def forward(self, action, observation):
            return 0.125

    assert pickle.loads(cloudpickle.dumps(rs.Sequential(Local())))(1, 2) == 0.125


def test_own_getstate_and_setstate():
    import engine_slots_module as module

    rubric = module.OwnState(module.Leaf(0.5))
    twin = pickle.loads(pickle.dumps(rubric))
    assert twin.restored and twin(1, 2) == 0.5
    assert [name for name, _ in twin.named_children()] == ["child"]


# ---- Nothing leaks


def test_a_tree_in_a_reference_cycle_is_collected():
    class Holder:
        pass

    tree = Mean(a=Value(1), b=rs.Gate(Value(2)))
    holder = Holder()
    holder.tree = tree
    tree.a.owner = holder  # through an object that is no rubric
    tree.register_forward_hook(lambda *_, kept=tree: kept)
    gone = [weakref.ref(rubric) for rubric in (tree, tree.a, tree.b, tree.b.rubric)]
    del tree, holder
    gc.collect()
    assert [ref() for ref in gone] == [None] * 4


def test_last_score_in_a_cycle_is_collected():
    rubric = Value(None)
    rubric.value = rs.Score(1.0, None, owner=rubric)
    rubric(1, 2)
    gone = weakref.ref(rubric)
    del rubric
    gc.collect()
    assert gone() is None


def test_a_child_removed_while_it_runs_stays_alive_until_it_has_ended():
    class Suicidal(rs.Rubric):
        def forward(self, action, observation):
            del observation.rubric_0
            gc.collect()
            return self.value_after()

        def value_after(self):
            return 0.5

    tree = rs.WeightedSum([Suicidal(), Value(1.0)], [0.5, 0.5])
    tree(1, tree)
    assert [name for name, _ in tree.named_children()] == ["rubric_1"]


def leaves_nothing_behind(call, times=20_000):
    """Blocks that a call leaves allocated, measured after a warm-up."""
    for _ in range(200):
        call()
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(times // 2):
            call()
        gc.collect()
        middle = tracemalloc.get_traced_memory()[0]
        for _ in range(times // 2):
            call()
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - middle
    finally:
        tracemalloc.stop()


def swallow(function, *errors):
    def call():
        try:
            function()
        except errors:
            return

    return call


def leaky_calls():
    tree = rs.Sequential(
        rs.Gate(Value(1.0)), rs.WeightedSum([Value(0.5), Value(torch.tensor(0.5))], [0.5, 0.5])
    )
    failing = rs.WeightedSum([Value(1.0), Raises()], [0.5, 0.5])
    hooked = Value(0.5)
    hooked.register_forward_pre_hook(lambda r, a, o: None)
    hooked.register_forward_hook(lambda r, a, o, s: None)
    bad_hook = rs.Sequential(Value(0.5))
    bad_hook.register_forward_hook(lambda r, a, o, s: 1 / 0)
    waiting = rs.WeightedSum([AsyncValue(1.0), Raises()], [0.5, 0.5])
    asynchronous = rs.Sequential(AsyncValue(1.0), AsyncValue(0.5))
    node = Mean(a=Value(1))

    def run(coroutine):
        try:
            while True:
                coroutine.send(None)
        except StopIteration as end:
            return end.value

    def reassign():
        node.b = Value(1)
        del node.b

    return {
        "plain": lambda: tree(object(), object()),
        "raises": swallow(lambda: failing(object(), object()), RuntimeError),
        "strict": swallow(lambda: Value(None, strict=True)(1, 2), ValueError),
        "not a number": swallow(lambda: rs.WeightedSum([Value("x")], [1.0])(1, 2), TypeError),
        "hooks": lambda: hooked(object(), object()),
        "hook raises": swallow(lambda: bad_hook(1, 2), ZeroDivisionError),
        "unawaited after an error": swallow(lambda: waiting(1, 2), RuntimeError),
        "async": lambda: run(asynchronous(object(), object())),
        "abandoned": lambda: asynchronous(object(), object()).close(),
        "wrong arguments": swallow(lambda: tree(1), TypeError),
        "missing path": swallow(lambda: tree.get_rubric("rubric_0.x"), KeyError),
        "reassign": reassign,
        "cycle": swallow(lambda: setattr(node, "a", node), ValueError),
        "batch": lambda: tree.batch([1, 2], [3, 4]),
        "batch raises": swallow(lambda: failing.batch([1, 2], [3, 4]), RuntimeError),
        "handles": lambda: hooked.register_forward_hook(print).remove(),
        "iteration": lambda: (list(tree.named_rubrics()), list(tree.children()), tree._items()),
        "pickle": lambda: pickle.loads(pickle.dumps(node)),
    }


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize("what", sorted(leaky_calls()))
def test_calls_leave_nothing_behind(what):
    times = {"batch": 4000, "batch raises": 4000, "pickle": 4000, "async": 6000}.get(what, 10_000)
    assert leaves_nothing_behind(leaky_calls()[what], times) < max(times // 2, 6000)  # no object a call


def test_references_of_arguments_come_back():
    import sys

    tree = rs.Sequential(
        rs.Gate(Value(1.0)), rs.WeightedSum([Value(0.5), Value(1)], [0.5, 0.5]), Mean(a=Echo())
    )
    failing = rs.Sequential(Value(1.0), Raises())
    action, observation = 0.123456789, object()
    before = sys.getrefcount(action), sys.getrefcount(observation)
    for _ in range(1000):
        tree(action, observation)
        with pytest.raises(RuntimeError):
            failing(action, observation)
    tree.get_rubric("rubric_2.a").last_score = None
    after = sys.getrefcount(action), sys.getrefcount(observation)
    assert after[1] == before[1]
    assert abs(after[0] - before[0]) <= 1
