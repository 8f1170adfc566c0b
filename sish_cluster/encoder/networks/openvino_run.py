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

from sish_cluster.encoder.networks.inputs import Rest, Stem
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
        ``float32`` or ``bfloat16``; in bfloat16 the stem and what follows the last convolution stay float32.
    at_once
        Patches that may run at the same time, each on one thread.

    Notes
    -----
    A patch's answer is the same bytes every time on one machine: one thread adds up its sums in one order.
    """

    def __init__(self, network: nn.Module, *, numbers: str, at_once: int = 1) -> None:
        if numbers == "float32":
            compiled = [_compiled(graph_of(network), numbers, at_once)]
        else:
            stem = graph_of(Stem(network))
            channels = stem.output(0).partial_shape[-1].get_length()
            rest = graph_of(Rest(network), channels=channels)
            compiled = [_compiled(stem, "float32", at_once), _compiled(rest, numbers, at_once)]
        self._free: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()
        for _ in range(at_once):
            self._free.put([each.create_infer_request() for each in compiled])

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the network's answer to float32 (1, 3, h, w); waits while `at_once` others run."""
        values = np.ascontiguousarray(x.permute(TO_LAST).numpy())
        requests = self._free.get()
        try:
            for request in requests[:-1]:
                values = request.infer([values], share_inputs=True, share_outputs=True)[0]
            answer = torch.from_numpy(requests[-1].infer([values], share_inputs=True)[0])
        finally:
            self._free.put(requests)
        return answer.permute(TO_FIRST) if answer.ndim == len(TO_FIRST) else answer


def _compiled(graph: Any, numbers: str, at_once: int) -> Any:
    return _core().compile_model(
        graph,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": HINTS[numbers],
            "INFERENCE_NUM_THREADS": at_once,
            "NUM_STREAMS": at_once,
            "ENABLE_CPU_PINNING": False,
        },
    )
