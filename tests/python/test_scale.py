"""The commands of docs/scale.md, as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from postgres_server import free_port

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "crash"))

from redis_server import RedisServer  # noqa: E402


@pytest.fixture
def redis(tmp_path):
    server = RedisServer(tmp_path / "redis")
    yield server
    server.kill()


def test_the_commands_of_the_page_work(tmp_path, postgres_url, redis):
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    variables, *blocks = re.findall(r"^```sh\n(.*?)^```", page, re.M | re.S)
    assert len(blocks) == 6
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "POSTGRES": postgres_url,
        "REDIS": redis.url,
        "NODES": "1",
        "RANKS": "2",
        "HEAD": f"127.0.0.1:{free_port()}",
    }
    assert set(re.findall(r"(\w+)=", variables)) == {"POSTGRES", "REDIS", "NODES", "RANKS", "HEAD"}
    said = []
    for block in blocks:
        done = subprocess.run(
            ["bash", "-euc", block],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        assert done.returncode == 0, (block, done.stdout, done.stderr)
        said.append(done.stdout)
    assert "writers" in said[1] and "root @ rank 1" in said[1] and "✓ ddp, rank 1" in said[1]
    assert re.search(r"ingested [\d,]+ records of 2 writers", said[2])
    assert int(said[5].split()[-1]) > 2 * 5 * 16 * 16
