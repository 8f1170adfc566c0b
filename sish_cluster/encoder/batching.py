"""Joins the patches of many callers into batches a network runs faster.

A GPU takes 32 patches in little more time than one. Callers (readers of slides, clients of the service)
each bring a few; whoever comes while a batch is running is in the next. Nobody waits for company: a batch
starts as soon as the network is free.
"""

from __future__ import annotations

import collections
import dataclasses
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import numpy as np

from sish_cluster.core.errors import EncoderUnavailable
from sish_cluster.core.seams import Pixels
from sish_cluster.encoder.reading import EncodedPatches


@dataclasses.dataclass(slots=True)
class _Call:
    pixels: Pixels
    answer: Future[EncodedPatches]


class Batcher:
    """One network, shared by callers on any thread; `close` it, or use it as a context manager.

    Parameters
    ----------
    encode
        Makes columns of patches uint8 (n, side, side, 3); called on one thread only.
    max_patches
        Most patches of one batch, unless a single caller brings more.
    """

    def __init__(self, encode: Callable[[Pixels], EncodedPatches], *, max_patches: int) -> None:
        self._encode = encode
        self._max_patches = max_patches
        self._calls: collections.deque[_Call] = collections.deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._start()

    def __enter__(self) -> Batcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, pixels: Pixels) -> Future[EncodedPatches]:
        """Return the future of the columns of patches uint8 (n, side, side, 3), n >= 1.

        Notes
        -----
        A caller that cancels its future before its batch begins is left out of it. An error of the network
        fails every caller of its batch that also fails alone: one caller's bad patch harms no other.
        """
        call = _Call(pixels, Future())
        with self._changed:
            if self._is_closed:
                raise EncoderUnavailable("the encoder was closed: start it again")
            self._calls.append(call)
            self._changed.notify()
        return call.answer

    def restart(self) -> None:
        """Give up the batch that runs: whoever waits is served without it."""
        with self._changed:
            self._start()

    def close(self) -> None:
        """Finish the batch that runs and fail what waits; repeating it changes nothing."""
        with self._changed:
            self._is_closed = True
            waiting = list(self._calls)
            self._calls.clear()
            self._changed.notify()
        for call in waiting:
            if call.answer.set_running_or_notify_cancel():
                call.answer.set_exception(
                    EncoderUnavailable("the encoder was closed before the patch's turn came")
                )
        self._thread.join()

    def _start(self) -> None:
        # A daemon: a batch that never ends must not keep the process.
        self._thread = threading.Thread(target=self._run, name="sish-batch", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while batch := self._next():
            self._settle([call for call in batch if call.answer.set_running_or_notify_cancel()])

    def _next(self) -> list[_Call]:
        """Wait for callers and return the next batch; empty when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._calls or self._is_closed or self._is_replaced)
            batch: list[_Call] = []
            if self._is_replaced:
                return batch
            n_patches = 0
            while self._calls and (
                not batch
                or (
                    n_patches + len(self._calls[0].pixels) <= self._max_patches
                    and self._calls[0].pixels.shape[1:] == batch[0].pixels.shape[1:]
                )
            ):
                call = self._calls.popleft()
                batch.append(call)
                n_patches += len(call.pixels)
            return batch

    @property
    def _is_replaced(self) -> bool:
        return threading.current_thread() is not self._thread

    def _settle(self, batch: Sequence[_Call]) -> None:
        if not batch:
            return
        try:
            columns = self._encode(np.concatenate([call.pixels for call in batch]))
        except BaseException as error:
            self._settle_alone(batch, error)
            return
        start = 0
        for call in batch:
            end = start + len(call.pixels)
            call.answer.set_result(columns.rows(start, end))
            start = end

    def _settle_alone(self, batch: Sequence[_Call], error: BaseException) -> None:
        if len(batch) == 1:
            batch[0].answer.set_exception(error)
            return
        for call in batch:
            try:
                call.answer.set_result(self._encode(call.pixels))
            except BaseException as own:
                call.answer.set_exception(own)
