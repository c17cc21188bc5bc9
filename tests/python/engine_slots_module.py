"""Classes that pickle can import."""

from __future__ import annotations

import rubriscope as rs


class Leaf(rs.Rubric):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, action, observation):
        return self.value


class Slotted(rs.Rubric):
    __slots__ = ("child", "scale")

    def __init__(self, scale, child):
        super().__init__()
        self.scale = scale
        self.child = child

    def forward(self, action, observation):
        return self.scale * self.child(action, observation)


class OwnState(rs.Rubric):
    def __init__(self, child):
        super().__init__()
        self.child = child

    def forward(self, action, observation):
        return self.child(action, observation)

    def __getstate__(self):
        return {"child": self.child}

    def __setstate__(self, state):
        self.child = state["child"]
        self.restored = True
