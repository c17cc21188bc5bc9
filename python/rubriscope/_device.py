"""Scores that are still on a device: copied to pinned memory without blocking, recorded when they arrive."""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from typing import Any

from . import _C


class _Arrival:
    """One call's device scores on their way to the host."""

    def __init__(self, snapshot: Any, pending: list[tuple[int, Any]]) -> None:
        import torch

        self.snapshot = snapshot
        self.failed = [(slot, score) for slot, score in pending if score.numel() != 1]
        scores = [(slot, score) for slot, score in pending if score.numel() == 1]
        self.slots = [slot for slot, _ in scores]
        self.hosts = []
        self.place = contextvars.copy_context()  # of the call: the thread that publishes is in no episode
        self.events = []
        devices = set()
        for _, score in scores:
            score = score.detach().reshape(())
            on_cuda = score.device.type == "cuda"
            host = torch.empty((), dtype=score.dtype, pin_memory=on_cuda)
            host.copy_(score, non_blocking=on_cuda)
            self.hosts.append(host)
            if on_cuda:
                devices.add(score.device)
        for device in devices:
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(device))
            self.events.append(event)

    def publish(self) -> None:
        """Waits for the copies, then writes the snapshot."""
        for event in self.events:
            event.synchronize()
        found: list[tuple[int, float, str | None]] = [
            (slot, float(host), None) for slot, host in zip(self.slots, self.hosts, strict=True)
        ]
        for slot, score in self.failed:
            found.append((slot, 0.0, f"a tensor of shape {tuple(score.shape)}, not a single number"))
        _C._publish_deferred(self.snapshot, found)


class _BatchArrival:
    """A batch's device scores on their way to the host."""

    def __init__(self, contexts: Any, scores: list[Any], actions: list[Any], observations: list[Any]) -> None:
        import torch

        self.contexts = contexts
        self.actions = actions
        self.observations = observations
        self.hosts = []
        self.place = contextvars.copy_context()
        self.events = []
        for node, rows, vector, start, end in scores:
            on_cuda = vector.device.type == "cuda"
            host = torch.empty(vector.shape, dtype=vector.dtype, pin_memory=on_cuda)
            host.copy_(vector, non_blocking=on_cuda)
            self.hosts.append((node, rows, host, start, end))
            if on_cuda:
                event = torch.cuda.Event()
                event.record(torch.cuda.current_stream(vector.device))
                self.events.append(event)

    def publish(self) -> None:
        for event in self.events:
            event.synchronize()
        for node, rows, host, start, end in self.hosts:
            for row, value in zip(rows, host.tolist(), strict=True):
                self.contexts.record(node, row, value, start, end)
        self.contexts.publish(self.actions, self.observations)


class _ScalarArrival:
    """Logged scalars, some of them on their way to the host."""

    def __init__(self, recorder: Any, names: list[str], values: list[Any], step: int | None) -> None:
        import torch

        self.recorder = recorder
        self.names = names
        self.step = step
        self.values: list[Any] = []
        self.place = contextvars.copy_context()
        self.events = []
        for name, value in zip(names, values, strict=True):
            if isinstance(value, float):
                self.values.append(value)
                continue
            if value.numel() != 1:
                raise ValueError(f"log() takes 0-dim tensors, got shape {tuple(value.shape)} for {name!r}")
            on_cuda = value.device.type == "cuda"
            host = torch.empty((), dtype=value.dtype, pin_memory=on_cuda)
            host.copy_(value.detach().reshape(()), non_blocking=on_cuda)
            self.values.append(host)
            if on_cuda:
                event = torch.cuda.Event()
                event.record(torch.cuda.current_stream(value.device))
                self.events.append(event)

    def publish(self) -> None:
        for event in self.events:
            event.synchronize()
        self.recorder.log(self.names, [float(value) for value in self.values], self.step)


_Pending = _Arrival | _BatchArrival | _ScalarArrival


class _Completer:
    """Publishes snapshots in order as their numbers arrive, on a thread that runs while there are any."""

    def __init__(self) -> None:
        self._arrivals: queue.SimpleQueue[_Pending] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting = 0
        self._running = False

    def add(self, arrival: _Pending) -> None:
        with self._lock:
            self._waiting += 1
            self._arrivals.put(arrival)
            if not self._running:
                self._running = True
                threading.Thread(target=self._work, name="rubriscope-device-scores", daemon=True).start()

    def is_idle(self) -> bool:
        """Whether everything added has been published."""
        with self._lock:
            return self._waiting == 0

    def _work(self) -> None:
        while True:
            arrival = self._arrivals.get()
            try:
                arrival.place.run(arrival.publish)
            except Exception as error:  # the thread must live on for the other snapshots
                _C._report("error", f"a record with device numbers was lost: {error!r}")
            with self._lock:
                self._waiting -= 1
                if self._waiting == 0:
                    self._running = False
                    return

    def drain(self, timeout_s: float) -> bool:
        """Waits until everything added has been published; whether it has."""
        deadline = time.monotonic() + timeout_s
        while True:
            with self._lock:
                if self._waiting == 0:
                    return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.001)


_completer = _Completer()


def complete_later(snapshot: Any, pending: list[tuple[int, Any]]) -> None:
    """Starts copying a call's device scores; its snapshot is published when they have arrived."""
    _start(_Arrival(snapshot, pending))


def complete_batch_later(
    contexts: Any, scores: list[Any], actions: list[Any], observations: list[Any]
) -> None:
    """The same for the vectors of one batch: ``scores`` holds (rubric, rows, vector, start, end)."""
    _start(_BatchArrival(contexts, scores, actions, observations))


def log_later(recorder: Any, names: list[str], values: list[Any], step: int | None) -> None:
    """Records scalars of which some are on a device; they are logged when they have arrived."""
    _start(_ScalarArrival(recorder, names, values, step))


def _start(arrival: _Pending) -> None:
    if not arrival.events and _completer.is_idle():
        arrival.publish()
    else:
        _completer.add(arrival)  # also what is complete already, behind what is not


def drain(timeout_s: float) -> bool:
    """Waits until every snapshot with device scores has been published; whether it has."""
    return _completer.drain(timeout_s)
