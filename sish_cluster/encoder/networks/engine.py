"""What runs a network: OpenVINO on a CPU, torch on a GPU, in float32 or bfloat16.

On a CPU OpenVINO runs our networks one patch at a time and one thread a patch, 1.4 times as fast as torch; in
bfloat16, where the processor multiplies it itself, 2.8 times. torch runs them on GPUs, in channels-last
order, and wherever OpenVINO is not installed. Keys are whole numbers that a search compares for nearness, so
the key network always runs in float32; embeddings and codes bear bfloat16, and `precision` says whether they
get it.

Neither engine nor precision is part of the fingerprint: a collection takes slides from any machine. What that
costs is measured by ``benchmarks.bench_encode``, in bits of a code and in keys that differ.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from typing import Protocol

import torch
from torch import nn

from sish_cluster.core.errors import BadRequest
from sish_cluster.encoder.networks.inputs import IMAGENET, Normalisation, Rest, Stem, placed
from sish_cluster.encoder.networks.openvino_quiet import has_openvino
from sish_cluster.encoder.networks.openvino_run import OpenVinoEngine, multiplies_bfloat16

ENGINES = ("auto", "openvino", "torch")
"""Names of the engines; ``auto`` is OpenVINO on a CPU where it is installed, else torch."""

PRECISIONS = ("half", "full")
"""``half``: embeddings in bfloat16 where the device multiplies it itself; ``full``: in float32."""


class Engine(Protocol):
    """A network that is ready."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return what float32 (b, 3, h, w), channels-last on the network's device, becomes: float32."""


@dataclasses.dataclass(frozen=True, slots=True)
class EngineSettings:
    """What runs networks, and how much at once."""

    engine: str = "auto"
    """One of `ENGINES`."""
    precision: str = "half"
    """One of `PRECISIONS`; for embeddings, keys are float32 always."""
    at_once: int = 1
    """Threads that may ask at the same time; each patch runs on one thread."""

    def __post_init__(self) -> None:
        for field, value, known in (
            ("engine", self.engine, ENGINES),
            ("precision", self.precision, PRECISIONS),
        ):
            if value not in known:
                raise BadRequest(
                    f"{field} is one of {', '.join(known)}; got {value!r}", field=field
                )
        if self.at_once < 1:
            raise BadRequest(f"at least 1 patch runs at once; got {self.at_once}", field="at_once")


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """Which engine runs a network on which device, and in what numbers."""

    engine: str
    """``openvino`` or ``torch``."""
    numbers: str
    """``float32`` or ``bfloat16``."""
    device: torch.device
    """Where; OpenVINO runs on the CPU only."""
    at_once: int = 1
    """Threads that may ask at the same time."""

    @property
    def takes_whole(self) -> bool:
        """Whether the network is given `inputs.whole_of` pixels rather than normalised ones."""
        return self.engine == "openvino" and self.numbers == "bfloat16"

    def __str__(self) -> str:
        return f"{self.engine} on {self.device.type}, {self.numbers}"


def plan_of(settings: EngineSettings, device: torch.device, *, keeps_float32: bool = False) -> Plan:
    """Return the plan of a network on a device; ``keeps_float32`` for one whose answers become keys.

    Raises
    ------
    BadRequest
        If OpenVINO is asked for on a GPU.
    EncoderUnavailable
        If OpenVINO is asked for and not there.
    """
    engine = settings.engine
    if engine == "openvino" and device.type != "cpu":
        raise BadRequest(
            f"OpenVINO runs on the CPU here and device {device} was asked for: leave --engine to auto, or"
            " use --device cpu",
            field="engine",
        )
    if engine == "auto":
        engine = "openvino" if device.type == "cpu" and has_openvino() else "torch"
    halves = settings.precision == "half" and not keeps_float32 and _multiplies(engine, device)
    return Plan(engine, "bfloat16" if halves else "float32", device, settings.at_once)


def _multiplies(engine: str, device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 itself and the engine knows to make it; torch on a CPU stays exact."""
    if engine == "openvino":
        return multiplies_bfloat16()
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


class TorchEngine:
    """A network run by torch, its weights in channels-last order.

    Parameters
    ----------
    network
        Maps (b, 3, h, w) to one tensor; its convolutions' weights are changed to the plan's numbers.
    plan
        Device and numbers.

    Notes
    -----
    In bfloat16 the stem stays float32 (see `inputs.Staged`), norms keep float32 statistics, and networks widen
    their last grid before they average it, or near numbers of an embedding would become equal.
    """

    def __init__(self, network: nn.Module, plan: Plan) -> None:
        self._network = placed(network, plan.device)
        self._stages = [network]
        if plan.numbers == "bfloat16":
            self._stages = [Stem(network), Rest(network)]
            _halve_all_but_first(network)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the network's answer in float32."""
        for stage in self._stages[:-1]:
            x = stage(x).bfloat16()
        answer: torch.Tensor = self._stages[-1](x)
        return answer.float()


def _halve_all_but_first(network: nn.Module) -> None:
    """Turn the weights of every convolution but the stem's to bfloat16."""
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    for layer in convolutions[1:]:
        layer.to(torch.bfloat16)


class Runner:
    """A network that becomes ready when it is first asked; safe to ask from several threads.

    Whoever only wants to know what an encoder is never pays for that. OpenVINO keeps its own copy of the
    weights, so torch's is let go.

    Parameters
    ----------
    network
        In evaluation mode, on the CPU.
    plan
        What runs it, and where.
    normalisation
        Of the pixels, for a plan that takes them whole.
    """

    def __init__(
        self, network: nn.Module, plan: Plan, *, normalisation: Normalisation = IMAGENET
    ) -> None:
        self.plan = plan
        self._normalisation = normalisation
        self._network: nn.Module | None = network
        self._engine: Callable[[torch.Tensor], torch.Tensor] | None = None
        self._lock = threading.Lock()

    @property
    def network(self) -> nn.Module | None:
        """The torch network; None once OpenVINO has it."""
        return self._network

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the network's answer to x, float32 (b, 3, h, w), channels-last; see `Engine`."""
        return (self._engine or self._started())(x)

    def _started(self) -> Callable[[torch.Tensor], torch.Tensor]:
        with self._lock:
            if self._engine is None:
                assert self._network is not None
                if self.plan.engine == "openvino":
                    self._engine = OpenVinoEngine(
                        self._network,
                        numbers=self.plan.numbers,
                        at_once=self.plan.at_once,
                        whole=self._normalisation if self.plan.takes_whole else None,
                    )
                    self._network = None
                else:
                    self._engine = TorchEngine(self._network, self.plan)
            return self._engine
