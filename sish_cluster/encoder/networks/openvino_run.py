"""A network run by OpenVINO on this machine's processor, one thread a patch.

The number of threads, their places and the precision are all said outright: left to itself OpenVINO would take
every core, pin its threads to them (two actors would share one core and leave another idle) and compute in
bfloat16 wherever the processor has it.
"""

from __future__ import annotations

import functools
import queue
from typing import Any

import numpy as np
import torch
from torch import nn

from sish_cluster.encoder.networks.inputs import Normalisation
from sish_cluster.encoder.networks.openvino_graph import TO_FIRST, TO_LAST, graph_of
from sish_cluster.encoder.networks.openvino_quiet import openvino_parts

HINTS = {"float32": "f32", "bfloat16": "bf16"}
"""Names of numbers -> OpenVINO's."""


@functools.cache
def _core() -> Any:
    ov, _ = openvino_parts()
    return ov.Core()


def multiplies_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 itself (AVX-512 BF16, AMX), rather than through float32."""
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVinoEngine:
    """A network compiled for this processor; safe to ask from several threads.

    Parameters
    ----------
    network
        In evaluation mode; not kept.
    numbers
        ``float32`` or ``bfloat16``; in bfloat16 what follows the last convolution stays float32.
    at_once
        Patches that may run at the same time, each on one thread.
    whole
        Of the pixels, when they come as `inputs.whole_of` them: for bfloat16, which holds those exactly.

    Notes
    -----
    A patch's answer is the same bytes every time on one machine: one thread adds up its sums in one order.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        numbers: str,
        at_once: int = 1,
        whole: Normalisation | None = None,
    ) -> None:
        compiled = _core().compile_model(
            graph_of(network, whole=whole),
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": HINTS[numbers],
                "INFERENCE_NUM_THREADS": at_once,
                "NUM_STREAMS": at_once,
                "ENABLE_CPU_PINNING": False,
            },
        )
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(at_once):
            self._free.put(compiled.create_infer_request())

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the network's answer to float32 (1, 3 or 4, h, w); waits while `at_once` others run."""
        values = np.ascontiguousarray(x.permute(TO_LAST).numpy())
        request = self._free.get()
        try:
            answer = torch.from_numpy(request.infer([values], share_inputs=True)[0])
        finally:
            self._free.put(request)
        return answer.permute(TO_FIRST) if answer.ndim == len(TO_FIRST) else answer
