"""Steering of a running process: a Unix socket of the user's own, over which injections come and go.

A request and its reply are one line of JSON each. A process listens only when it was asked to.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import json
import os
import socket
import stat
import struct
import tempfile
import threading
from collections.abc import Callable
from typing import Any

from ._actions import logger

_MOST = 1 << 20  # bytes of a request or a reply
_PATIENCE = 10.0  # seconds for a peer to send or take a line
_ERRORS: dict[str, type[Exception]] = {
    one.__name__: one for one in (KeyError, LookupError, RuntimeError, TypeError, ValueError)
}


def socket_folder() -> str:
    """Where this user's processes listen: below ``$XDG_RUNTIME_DIR``, or the folder of temporary files."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        return os.path.join(runtime, "rubriscope")
    return os.path.join(tempfile.gettempdir(), f"rubriscope-{os.geteuid()}")


def socket_path(pid: int) -> str:
    """Where the process of this number listens, if it does."""
    return os.path.join(socket_folder(), f"sight-{pid}.sock")


def _check_folder(folder: str) -> None:
    about = os.lstat(folder)
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.geteuid() or about.st_mode & 0o077:
        raise PermissionError(f"{folder} is not a folder that only this user can enter (mode 0700)")


class _Server:
    def __init__(self, operations: dict[str, Callable[..., Any]]) -> None:
        folder = socket_folder()
        os.makedirs(folder, mode=0o700, exist_ok=True)
        _check_folder(folder)
        self.pid = os.getpid()
        self.path = socket_path(self.pid)
        self._operations = operations
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)  # left by a dead process that had our number
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.bind(self.path)
        os.chmod(self.path, 0o600)
        self._socket.listen(8)
        threading.Thread(target=self._serve, name="rubriscope-sight", daemon=True).start()

    def close(self) -> None:
        if os.getpid() == self.pid:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._socket.close()

    def forget(self) -> None:
        """In a forked child: the socket is the parent's."""
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                return  # closed
            with peer, contextlib.suppress(OSError):  # the peer went away
                peer.settimeout(_PATIENCE)
                peer.sendall(self._answer(peer))

    def _answer(self, peer: socket.socket) -> bytes:
        try:
            line = _line(peer)  # whoever it is reads the answer only once all is sent
            _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if uid not in (os.geteuid(), 0):
                raise PermissionError(f"the user {uid} may not steer a process of the user {os.geteuid()}")
            request = json.loads(line)
            operation = self._operations.get(request.pop("op", None))
            if operation is None:
                raise ValueError(f"no such operation (there are {', '.join(self._operations)})")
            reply = {"result": operation(**request)}
        except Exception as error:  # whatever it is, the other side is told and the program goes on
            said = error.args[0] if isinstance(error, KeyError) and error.args else error
            reply = {"error": type(error).__name__, "message": str(said)}
        return json.dumps(reply).encode() + b"\n"


def _line(peer: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\n"):
        more = peer.recv(65_536)
        if not more:
            raise ConnectionError("the connection ended within a line")
        data += more
        if len(data) > _MOST:
            raise ValueError(f"a line is longer than {_MOST} bytes")
    return data


_lock = threading.Lock()
_server: _Server | None = None


def listen() -> str:
    """See :meth:`CodeSight.listen`."""
    global _server
    with _lock:
        if _server is None:
            _server = _Server(_operations())
        return _server.path


def listen_as_told() -> None:
    """``RUBRISCOPE_SIGHT=1``: a program that is only to be observed goes on where that is not possible."""
    try:
        listen()
    except OSError as error:
        logger.error("RUBRISCOPE_SIGHT: this process cannot be steered: %s", error)


def stop() -> None:
    """See :meth:`CodeSight.stop_listening`."""
    global _server
    with _lock:
        server, _server = _server, None
    if server is not None:
        server.close()


def _in_child() -> None:
    global _server, _lock
    _lock = threading.Lock()
    if _server is not None:
        _server.forget()
        _server = None


os.register_at_fork(after_in_child=_in_child)
atexit.register(stop)


def _operations() -> dict[str, Callable[..., Any]]:
    from ._sight import get_code_sight

    sight = get_code_sight()

    def status() -> dict[str, Any]:
        return {
            "injections": [dataclasses.asdict(one) for one in sight.injections()],
            "points": {name: dataclasses.asdict(one) for name, one in sight.stats().items()},
        }

    return {
        "list": status,
        "inject_metric": sight.inject_metric,
        "inject_log": sight.inject_log,
        "remove": sight.remove,
        "enable": sight.enable,
        "disable": sight.disable,
    }


def listening() -> list[int]:
    """The numbers of this user's processes that listen; what dead ones left is cleared away."""
    try:
        names = os.listdir(socket_folder())
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        digits = name.removeprefix("sight-").removesuffix(".sock")
        if not digits.isdecimal():
            continue
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            try:
                peer.connect(socket_path(int(digits)))
            except ConnectionRefusedError:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(socket_path(int(digits)))
            except FileNotFoundError:
                continue
            else:
                found.append(int(digits))
    return sorted(found)


def ask(pid: int, op: str, **request: Any) -> Any:
    """What the process answers.

    Raises:
        ProcessLookupError: no process of this number listens.
        PermissionError: the folder of the sockets is not this user's alone.
        TimeoutError: it does not answer, as while one C call holds its interpreter.
        KeyError, LookupError, TypeError, ValueError, RuntimeError: as it was raised there.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.settimeout(_PATIENCE)
        try:
            _check_folder(socket_folder())
            peer.connect(socket_path(pid))
        except (FileNotFoundError, ConnectionRefusedError):
            raise ProcessLookupError(
                f"no process {pid} listens at {socket_path(pid)}: start it with RUBRISCOPE_SIGHT=1, or have "
                "it call rs.get_code_sight().listen()"
            ) from None
        peer.sendall(json.dumps({"op": op, **request}).encode() + b"\n")
        reply = json.loads(_line(peer))
    if "error" in reply:
        raise _ERRORS.get(reply["error"], RuntimeError)(reply["message"])
    return reply["result"]
