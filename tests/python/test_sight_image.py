"""Images in a recording: what goes in, and what Pillow makes of what comes out."""

from __future__ import annotations

import hashlib
import io
import itertools
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rubriscope as rs
import torch
from PIL import Image

code_sight = rs.get_code_sight()
Logged = Callable[..., tuple[Any, Image.Image]]


@pytest.fixture
def logged(tmp_path: Path) -> Logged:
    """Logs one image, and gives its event and what Pillow reads of it."""
    places = itertools.count()

    def log(image: Any, **options: Any) -> tuple[Any, Image.Image]:
        path = tmp_path / f"{next(places)}.db"
        with rs.record(path, session="a"):
            assert code_sight.log_image("camera", image, **options)
        (event,) = rs.Film(path).events(kind="observation")
        shown = Image.open(io.BytesIO(event.fields["image"]))
        shown.load()
        assert event.name == "camera" and event.attributes == {"type": "image"}
        assert shown.size == (event.values["width"], event.values["height"])
        assert str(shown.format).lower() == event.fields["format"]
        return event, shown

    return log


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def noise(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_bytes_within_the_limits_stay_as_they_are(logged: Logged, form: str) -> None:
    data = encoded(Image.fromarray(noise(20, 30, 3)), form)
    for given in (data, bytearray(data), memoryview(data)):
        event, _ = logged(given)
        assert event.fields["image"] == data
    assert event.values == {
        "width": 30,
        "height": 20,
        "original_width": 30,
        "original_height": 20,
        "original_bytes": len(data),
        "clipped": 0,
    }
    assert event.fields["digest"] == "sha256:" + hashlib.sha256(data).hexdigest()
    assert event.fields["original_format"] == event.fields["format"] == form.lower()


def test_a_large_one_becomes_a_thumbnail(logged: Logged) -> None:
    ramp = np.linspace(0, 255, 2000).astype(np.uint8)
    image = Image.fromarray(np.stack([np.tile(ramp, (1000, 1))] * 3, axis=2))
    for form in ("PNG", "JPEG"):
        data = encoded(image, form)
        event, shown = logged(data)
        assert shown.size == (512, 256) and event.fields["format"] == form.lower()
        assert (event.values["original_width"], event.values["original_height"]) == (2000, 1000)
        assert event.values["original_bytes"] == len(data)
        # The ramp is still one: left dark, right bright.
        row = np.asarray(shown.convert("L"))[128].astype(int)
        assert row[0] <= 3 and row[-1] >= 252 and abs(row[256] - 128) <= 3
    event, shown = logged(image, max_side=64)
    assert shown.size == (64, 32) and event.fields["original_format"] == "pil"
    assert image.size == (2000, 1000)  # the caller's is untouched


def test_bytes_are_limited(logged: Logged) -> None:
    event, shown = logged(noise(400, 400, 3), max_bytes=50_000)
    assert len(event.fields["image"]) <= 50_000 and event.fields["format"] == "jpeg"
    assert event.values["original_bytes"] == 480_000
    event, shown = logged(noise(400, 400, 4), max_bytes=50_000)  # transparent: PNG has to do
    assert len(event.fields["image"]) <= 50_000 and shown.mode == "RGBA" and shown.size[0] < 130
    data = encoded(Image.fromarray(noise(300, 300, 3)), "PNG")
    event, shown = logged(data, max_bytes=len(data) - 1)
    assert len(event.fields["image"]) < len(data) and event.fields["image"] != data
    with pytest.raises(ValueError, match="no image fits"):
        logged(noise(8, 8), max_bytes=10)


@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 1), (7, 5, 3), (7, 5, 4)])
def test_arrays_come_back_exactly(logged: Logged, shape: tuple[int, ...]) -> None:
    array = noise(*shape)
    event, shown = logged(array)
    assert np.array_equal(np.asarray(shown).reshape(shape), array)
    assert event.fields["digest"] == "sha256:" + hashlib.sha256(array.tobytes()).hexdigest()
    assert event.fields["original_format"] == "array" and event.fields["format"] == "png"
    assert event.values["original_bytes"] == array.size
    # A view that is not contiguous, and the other order.
    _, shown = logged(array[::-1])
    assert np.array_equal(np.asarray(shown).reshape(shape), array[::-1])
    if array.ndim == 3:
        _, shown = logged(np.ascontiguousarray(np.moveaxis(array, 2, 0)), layout="CHW")
        assert np.array_equal(np.asarray(shown).reshape(shape), array)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_from_zero_to_one(logged: Logged, dtype: Any) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    event, shown = logged((levels / 255).astype(dtype))
    assert np.array_equal(np.asarray(shown), levels) and event.values["clipped"] == 0
    odd = np.array([[-1, 0, 0.5, 1], [2, np.nan, np.inf, -np.inf]], dtype)
    event, shown = logged(odd)
    assert np.asarray(shown).tolist() == [[0, 0, 128, 255], [255, 0, 255, 0]]
    assert event.values["clipped"] == 5
    _, shown = logged(np.array([[True, False]]))
    assert np.asarray(shown).tolist() == [[255, 0]]


def test_tensors(logged: Logged) -> None:
    chw = torch.from_numpy(noise(3, 6, 5))
    event, shown = logged(chw)
    assert np.array_equal(np.asarray(shown), chw.permute(1, 2, 0).numpy())
    assert event.fields["original_format"] == "tensor"
    for hwc in (torch.from_numpy(noise(6, 5, 3)), torch.from_numpy(noise(6, 5, 4))):
        _, shown = logged(hwc)  # only the last dimension can be the channels
        assert np.array_equal(np.asarray(shown), hwc.numpy())
    both = torch.from_numpy(noise(3, 6, 4))
    _, shown = logged(both)
    assert shown.size == (4, 6)
    _, shown = logged(both, layout="HWC")
    assert shown.size == (6, 3) and shown.mode == "RGBA"
    grey = torch.rand(4, 6, requires_grad=True)
    _, shown = logged(grey)
    assert np.array_equal(np.asarray(shown), (grey.detach() * 255).round().to(torch.uint8).numpy())
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        _, shown = logged(torch.tensor([[0.0, 0.5, 1.0]], dtype=dtype))
        assert np.asarray(shown).tolist() == [[0, 128, 255]]
    _, shown = logged(torch.from_numpy(noise(1, 4, 6)))
    assert shown.mode == "L" and shown.size == (6, 4)


MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F", "I;16"]


@pytest.mark.parametrize("mode", MODES)
def test_pillow_images_of_every_mode(logged: Logged, mode: str) -> None:
    grey = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (8, 4)))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 256)
    elif mode == "I":
        image = Image.fromarray(np.asarray(grey).astype(np.int32) * 256)
    elif mode == "F":
        image = Image.fromarray(np.asarray(grey).astype(np.float32) / 255)
    else:
        image = grey.convert("RGB").convert(mode)
    assert image.mode == mode
    for options in ({}, {"max_side": 4}):
        event, shown = logged(image, **options)
        assert max(shown.size) == (4 if options else 8)
        if not options:
            flat = np.asarray(shown.convert("RGB").convert("L")).astype(int)
            assert np.abs(flat - np.asarray(grey)).max() <= 2
        assert event.fields["digest"] == "sha256:" + hashlib.sha256(image.tobytes()).hexdigest()


def test_transparency_and_orientation_are_kept(logged: Logged) -> None:
    palette = Image.new("P", (40, 40), 1)
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.info["transparency"] = 1
    _, shown = logged(palette, max_side=10)
    assert shown.mode == "RGBA" and np.asarray(shown)[0, 0, 3] == 0
    keyed = encoded(Image.new("RGB", (40, 40), (1, 2, 3)), "PNG", transparency=(1, 2, 3))
    _, shown = logged(keyed, max_side=10)
    assert shown.mode == "RGBA" and np.asarray(shown)[:, :, 3].max() == 0
    upright = Image.fromarray(np.tile(np.linspace(0, 255, 100).astype(np.uint8), (50, 1)))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90°
    for form in ("PNG", "JPEG"):
        event, shown = logged(encoded(upright, form, exif=exif), max_side=50)
        assert shown.size == (25, 50) and event.values["original_width"] == 100
        column = np.asarray(shown.convert("L"))[:, 12].astype(int)
        assert column[0] < 10 and column[-1] > 245
        assert not shown.getexif().get(0x0112)


def png_of(width: int, height: int) -> bytes:
    """A PNG that says this size, with next to nothing in it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bombs_are_refused_before_they_are_decoded(logged: Logged) -> None:
    for size in ((10_000, 10_000), (60_000, 60_000), (2**31 - 1, 1)):
        with pytest.raises(ValueError, match=r"max_pixels=64000000|too large"):
            logged(png_of(*size))
    data = encoded(Image.new("L", (100, 100)), "PNG")
    with pytest.raises(ValueError, match="100 × 100 pixels, more than max_pixels=9999"):
        logged(data, max_pixels=9_999)
    logged(data, max_pixels=10_000)
    for image in (noise(100, 100), torch.zeros(100, 100), Image.new("L", (100, 100))):
        with pytest.raises(ValueError, match="max_pixels"):
            logged(image, max_pixels=9_999)
    with pytest.raises(ValueError, match="max_pixels"):
        logged(torch.zeros(1).expand(3, 10**6, 10**6))


def test_damaged_bytes_are_a_value_error(logged: Logged) -> None:
    for form in ("PNG", "JPEG"):
        data = encoded(Image.fromarray(noise(64, 64, 3)), form)
        for length in (0, 1, 8, 20, 40, len(data) // 2):
            with pytest.raises(ValueError, match=r"PNG or JPEG|decoded"):
                logged(data[:length])
    good = encoded(Image.fromarray(noise(64, 64, 3)), "PNG")
    refused = 0
    for place in range(8, len(good), 397):
        damaged = bytearray(good)
        damaged[place] ^= 0xFF
        try:
            logged(bytes(damaged))
        except ValueError:
            refused += 1
    assert refused > 0
    for other in (b"GIF89a" + b"\0" * 50, encoded(Image.new("L", (4, 4)), "BMP"), b"<svg/>"):
        with pytest.raises(ValueError, match="no PNG or JPEG"):
            logged(other)


def test_what_is_refused(logged: Logged) -> None:
    for image in (3, None, "image.png", [[1, 2]], Path("image.png")):
        with pytest.raises(TypeError, match="log_image takes"):
            logged(image)
    for image in (
        np.zeros((4, 4), np.int64),
        torch.zeros(4, 4, dtype=torch.int32),
        np.zeros((4, 4), complex),
    ):
        with pytest.raises(TypeError, match=r"uint8|dense real"):
            logged(image)
    for image in (torch.zeros(4, 4, dtype=torch.complex64), torch.zeros(4, 4).to_sparse()):
        with pytest.raises(TypeError, match="dense real"):
            logged(image)
    for image in (np.zeros(4), np.zeros((1, 3, 4, 4)), torch.zeros(1, 3, 4, 4)):
        with pytest.raises(ValueError, match="HW, HWC or CHW"):
            logged(image)
    for image in (np.zeros((4, 4, 2)), np.zeros((3, 4, 5)), torch.zeros(2, 4, 5)):
        with pytest.raises(ValueError, match="1, 3 or 4 channels"):
            logged(image)
    with pytest.raises(ValueError, match="dimensions"):
        logged(np.zeros((0, 4)))
    with pytest.raises(ValueError, match="dimensions"):
        logged(np.zeros((4, 4)), layout="HWC")
    with pytest.raises(ValueError, match="layout is one of"):
        logged(noise(4, 4), layout="WH")
    for limit in ("max_side", "max_bytes", "max_pixels"):
        with pytest.raises(ValueError, match=f"{limit} is 1 or more"):
            logged(noise(4, 4), **{limit: 0})


def test_without_pillow_it_says_what_to_install(
    logged: Logged, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert not code_sight.log_image("camera", noise(4, 4))  # nobody records
    wanted = pytest.raises(ImportError, match=r"pip install rubriscope\[image\]")
    with rs.record(tmp_path / "a.db", session="a"), wanted:
        code_sight.log_image("camera", noise(4, 4))


def test_the_trace_and_json_lines(tmp_path: Path) -> None:
    data = encoded(Image.fromarray(noise(4, 4)), "PNG")
    with rs.record(tmp_path / "a.jsonl", session="a"), rs.MultimodalTracer().trace("t") as trace:
        assert code_sight.log_image("camera", data)
    (event,) = (e for e in rs.Film(tmp_path / "a.jsonl").events(kind="observation") if e.name == "camera")
    assert event.fields["image"] == data and event.fields["trace_id"] == trace.trace_id


def test_a_closed_recorder_is_no_error(tmp_path: Path) -> None:
    assert not code_sight.log_image("camera", "nobody records: not looked at")
