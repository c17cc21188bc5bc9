"""``log_image``: any image as a small PNG or JPEG in the recording."""

from __future__ import annotations

import hashlib
import io
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .. import _C
from ._logging import emit

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

Layout = Literal["HW", "HWC", "CHW"]
LAYOUTS = ("HW", "HWC", "CHW")
MAX_SIDE = 512
MAX_BYTES = 256 * 1024
MAX_PIXELS = 64_000_000
_JPEG_QUALITY = 85
#: Modes that PNG has and that scale well; others are converted.
_PLAIN = ("L", "LA", "RGB", "RGBA")


@dataclass(frozen=True)
class _Source:
    """An image that was given, decoded."""

    image: Image
    format: str  #: png, jpeg, array, tensor, or what Pillow calls the file that it came from
    digest: str
    size_bytes: int
    encoded: bytes | None = None  #: a PNG or JPEG as it was given
    clipped: int = 0


def log_image(
    target: str,
    image: Any,
    *,
    layout: Layout | None,
    max_side: int,
    max_bytes: int,
    max_pixels: int,
) -> bool:
    """See :meth:`rubriscope.code_sight.CodeSight.log_image`."""
    for name, limit in (("max_side", max_side), ("max_bytes", max_bytes), ("max_pixels", max_pixels)):
        if limit < 1:
            raise ValueError(f"{name} is 1 or more, got {limit}")
    if layout is not None and layout not in LAYOUTS:
        raise ValueError(f"layout is one of {', '.join(LAYOUTS)}, got {layout!r}")
    if _C.sight_recorder() is None:
        return False
    _require_pillow()
    source = _source_of(image, layout, max_pixels)
    width, height = source.image.size
    kept, size, form = _small(source, max_side, max_bytes)
    return emit(
        "image",
        target,
        {
            "width": size[0],
            "height": size[1],
            "original_width": width,
            "original_height": height,
            "original_bytes": source.size_bytes,
            "clipped": source.clipped,
        },
        {"image": kept, "format": form, "original_format": source.format, "digest": source.digest},
    )


def _require_pillow() -> None:
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise ImportError("log_image needs Pillow: pip install rubriscope[image]") from error


# ---- what was given


def _source_of(image: Any, layout: Layout | None, max_pixels: int) -> _Source:
    import numpy as np
    from PIL import Image

    if isinstance(image, (bytes, bytearray, memoryview)):
        return _of_bytes(bytes(image), max_pixels)
    if isinstance(image, Image.Image):
        return _of_pillow(image, max_pixels)
    if isinstance(image, np.ndarray):
        return _of_array(image, "array", layout or _layout_of(image.shape, "HWC"), max_pixels)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(image, torch.Tensor):
        return _of_tensor(image, layout, max_pixels)
    raise TypeError(
        "log_image takes PNG or JPEG bytes, a NumPy array, a torch.Tensor or a PIL image, got "
        f"{type(image).__name__}"
    )


def _refuse_large(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ValueError(f"the image has {width} × {height} pixels, more than max_pixels={max_pixels}")


def _of_bytes(data: bytes, max_pixels: int) -> _Source:
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"the image is too large: {error}") from error
    except Exception as error:  # whatever a decoder makes of bytes that are not what they say
        raise ValueError(f"the bytes are no PNG or JPEG image: {error}") from error
    _refuse_large(*image.size, max_pixels)
    form = "png" if image.format == "PNG" else "jpeg"  # Pillow calls some JPEGs MPO
    return _Source(_loaded(image), form, _digest(data), len(data), data)


def _of_pillow(image: Image, max_pixels: int) -> _Source:
    _refuse_large(*image.size, max_pixels)
    form = (image.format or "pil").lower()
    pixels = _loaded(image).tobytes()
    return _Source(image, form, _digest(pixels), len(pixels))


def _loaded(image: Image) -> Image:
    """The image with its pixels read: a file is decoded only here."""
    try:
        image.load()
    except Exception as error:  # as above
        raise ValueError(f"the image cannot be decoded: {error}") from error
    if 0 in image.size:
        raise ValueError(f"the image has {image.size[0]} × {image.size[1]} pixels")
    return image


def _of_tensor(tensor: Any, layout: Layout | None, max_pixels: int) -> _Source:
    import torch

    shape = tuple(tensor.shape)
    # PyTorch's own order, unless only the last dimension can be the channels.
    only_last = len(shape) == 3 and shape[0] not in (1, 3, 4) and shape[2] in (1, 3, 4)
    layout = layout or _layout_of(shape, "HWC" if only_last else "CHW")
    if tensor.numel() > 4 * max_pixels:
        raise ValueError(f"the tensor has {tensor.numel()} elements, more than 4 × max_pixels={max_pixels}")
    if tensor.layout != torch.strided or tensor.is_complex() or tensor.is_quantized:
        raise TypeError(f"log_image takes dense real tensors, got {tensor.layout} of {tensor.dtype}")
    if tensor.is_floating_point() and tensor.dtype not in (torch.float16, torch.float32, torch.float64):
        tensor = tensor.float()  # bfloat16 and smaller: NumPy has none of them
    return _of_array(tensor.detach().cpu().numpy(), "tensor", layout, max_pixels)


def _layout_of(shape: tuple[int, ...], of_three: Layout) -> Layout:
    if len(shape) not in (2, 3):
        raise ValueError(f"an image has the shape HW, HWC or CHW, got {shape}")
    return "HW" if len(shape) == 2 else of_three


def _of_array(array: np.ndarray[Any, Any], form: str, layout: Layout, max_pixels: int) -> _Source:
    import numpy as np
    from PIL import Image

    if array.ndim != len(layout) or 0 in array.shape:
        raise ValueError(f"an image of layout {layout} has {len(layout)} dimensions, got shape {array.shape}")
    pixels = np.moveaxis(array, 0, 2) if layout == "CHW" else array
    if layout != "HW" and pixels.shape[2] not in (1, 3, 4):
        raise ValueError(
            f"an image has 1, 3 or 4 channels, got {pixels.shape[2]} in {layout} of shape {array.shape}"
        )
    _refuse_large(pixels.shape[1], pixels.shape[0], max_pixels)
    digest = _digest(np.ascontiguousarray(array))
    clipped = 0
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    elif np.issubdtype(pixels.dtype, np.floating):
        inside = (pixels >= 0) & (pixels <= 1)
        clipped = int(pixels.size - np.count_nonzero(inside))
        if clipped:
            pixels = np.nan_to_num(pixels, nan=0.0, posinf=1.0, neginf=0.0).clip(0, 1)
        pixels = np.rint(pixels.astype(np.float32) * np.float32(255)).astype(np.uint8)
    elif pixels.dtype != np.uint8:
        raise TypeError(f"log_image takes uint8, bool, or floats from 0 to 1, got {array.dtype}")
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    return _Source(
        Image.fromarray(np.ascontiguousarray(pixels)), form, digest, int(array.nbytes), clipped=clipped
    )


def _digest(data: Any) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


# ---- what is kept


def _small(source: _Source, max_side: int, max_bytes: int) -> tuple[bytes, tuple[int, int], str]:
    """Bytes, (width, height) and format within the limits; what is within them already stays as it is."""
    if source.encoded is not None and max(source.image.size) <= max_side and len(source.encoded) <= max_bytes:
        return source.encoded, source.image.size, source.format
    from PIL import ImageOps

    image = _plain(source.image)
    side = max_side
    while True:
        image = ImageOps.exif_transpose(_scaled(image, side))
        forms = ("jpeg",) if source.format in ("jpeg", "mpo") else ("png", "jpeg")
        for form in ("png",) if image.mode in ("LA", "RGBA") else forms:  # JPEG has no transparency
            encoded = _encoded(image, form)
            if len(encoded) <= max_bytes:
                return encoded, image.size, form
        if max(image.size) == 1:
            raise ValueError(f"no image fits into max_bytes={max_bytes}")
        side = max(max(image.size) * 3 // 4, 1)


def _scaled(image: Image, side: int) -> Image:
    """The image with its longer side at most ``side``; never made larger."""
    from PIL import Image

    longer = max(image.size)
    if longer <= side:
        return image
    width, height = (max(round(pixels * side / longer), 1) for pixels in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)


def _plain(image: Image) -> Image:
    """The image in a mode that can be scaled and stored; 16 bits and floats become 8 bits."""
    import numpy as np
    from PIL import Image

    see_through = image.mode in ("PA", "La", "RGBa") or "transparency" in image.info
    if image.mode in _PLAIN and not see_through:
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode == "I" or image.mode.startswith("I;16"):
        levels = np.asarray(image).astype(np.int64).clip(0, 0xFFFF)
        return Image.fromarray((levels >> 8).astype(np.uint8))
    if image.mode == "F":
        levels = np.nan_to_num(np.asarray(image), nan=0.0, posinf=1.0, neginf=0.0).clip(0, 1)
        return Image.fromarray(np.rint(levels * 255).astype(np.uint8))
    return image.convert("RGBA" if see_through else "RGB")


def _encoded(image: Image, form: str) -> bytes:
    file = io.BytesIO()
    # Without the colour profile: it may be larger than the image, and of the colours before _plain().
    if form == "png":
        image.save(file, "PNG", icc_profile=None)
    else:
        image.save(file, "JPEG", quality=_JPEG_QUALITY, icc_profile=None)
    return file.getvalue()
