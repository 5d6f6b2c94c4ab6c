"""One stream of inputs over several boards."""

import queue
import threading
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from ...hw.arch.errors import DeviceError
from ..image import Image
from .device import Device

__all__ = ["infer_on"]

AHEAD = 16
"""Outputs of a board that may wait until those before them are there."""


class _Source:
    """Inputs and their numbers, for whoever asks first."""

    def __init__(self, inputs: Iterable[np.ndarray]) -> None:
        self._inputs, self._lock = enumerate(inputs), threading.Lock()
        self.ended = threading.Event()

    def take(self, numbers: "queue.SimpleQueue[int]") -> Iterator[np.ndarray]:
        """Inputs until none is left; their numbers go into `numbers` as they are taken."""
        while not self.ended.is_set():
            with self._lock:
                item = next(self._inputs, None)
            if item is None:
                return
            numbers.put(item[0])
            yield item[1]


def infer_on(devices: Sequence[Device], image: Image, inputs: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """:meth:`.device.Device.infer`, spread over several boards that hold the same image; outputs come in order.

    Each board has a thread. The first error of one of them ends all, and is raised.
    """
    if not devices:
        raise DeviceError("inference needs at least one board, not 0; name its port with --port")
    if len(devices) == 1:
        yield from devices[0].infer(image, inputs)
        return
    source = _Source(inputs)
    results: queue.Queue[tuple[int, np.ndarray] | BaseException | None] = queue.Queue(AHEAD * len(devices))

    def put(item: tuple[int, np.ndarray] | BaseException | None) -> None:
        while not source.ended.is_set():
            try:
                return results.put(item, timeout=0.1)
            except queue.Full:
                continue

    def work(device: Device) -> None:
        numbers: queue.SimpleQueue[int] = queue.SimpleQueue()
        try:
            for output in device.infer(image, source.take(numbers)):
                put((numbers.get(), output))
            put(None)
        except BaseException as error:  # noqa: B036 - raised again where the outputs are asked for
            put(error)

    threads = [threading.Thread(target=work, args=(device,), daemon=True, name=device.name) for device in devices]
    try:
        for thread in threads:
            thread.start()
        waiting: dict[int, np.ndarray] = {}
        following, left = 0, len(threads)
        while left:
            item = results.get()
            if item is None:
                left -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                waiting[item[0]] = item[1]
            while following in waiting:
                yield waiting.pop(following)
                following += 1
    finally:
        source.ended.set()
        for thread in threads:
            thread.join()
