"""Copies of the images that were loaded, so that a board's model can be run without naming its file again."""

from pathlib import Path

from ...hw.arch.errors import DeviceError, ShiftwrightError
from ..image import Image
from ..tools import cache_dir, cache_path
from .device import Device
from .memory import crc_of

__all__ = ["image_on", "remember"]

FOLDER = "images"


def remember(image: Image) -> Path:
    """Keep a copy in the cache folder, by fingerprint and CRC-32 of its words.

    Raises
    ------
    ShiftwrightError
        If the folder can't be written.
    """
    path = cache_dir(FOLDER) / _name(image.config.fingerprint, crc_of(image.words))
    image.save(path)
    return path


def image_on(device: Device) -> Image:
    """The image that a board holds, from the cache folder.

    Raises
    ------
    DeviceError
        If it holds none, or one that was not loaded from here.
    """
    identity = device.identify()
    words, crc = device.model()
    path = cache_path(FOLDER) / _name(identity.fingerprint, crc)
    try:
        image = Image.load(path)
    except ShiftwrightError:
        image = None
    if image is None or len(image.words) != words or crc_of(image.words) != crc:
        raise DeviceError(f"{device.name}: the board holds a model of {words} words with CRC-32 0x{crc:08x}, which was "
                          f"not loaded from here; name its file with --image, or load one with: "
                          f"shiftwright load FILE.swi --port {device.name}")
    return image


def _name(fingerprint: int, crc: int) -> str:
    return f"{fingerprint:08x}-{crc:08x}.swi"
