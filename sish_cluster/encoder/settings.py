"""What an encoder, its actors and its service are told, as frozen values passed explicitly."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from sish_cluster.core.errors import BadRequest
from sish_cluster.core.slide import canonical_bytes, digest_of
from sish_cluster.encoder.cutting import MosaicSettings
from sish_cluster.encoder.profile import COMPACT, Profile
from sish_cluster.encoder.scaling import ScalingSettings


@dataclasses.dataclass(frozen=True, slots=True)
class EmbedderFileSettings:
    """An embedder of one's own: a TorchScript or torch.export file, and what it expects."""

    path: Path
    """The file: ``.pt2`` for torch.export, anything else TorchScript."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Subtracted from pixels scaled to 0..1; ImageNet's unless said otherwise."""
    deviation: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Divided by after that; ImageNet's unless said otherwise."""
    trusts_code: bool = False
    """Whether code in the file may run: TorchScript files are programs."""


@dataclasses.dataclass(frozen=True, slots=True)
class EncoderSettings:
    """Everything that decides what an encoded slide is."""

    profile: Profile = COMPACT
    """Networks and the pixels they see; compact, because most machines have no GPU."""
    embedder: str | EmbedderFileSettings = ""
    """The network of codes and embeddings: a name, ``""`` for the profile's, or a file of one's own."""
    weights: Path | None = None
    """Weights of that network; None for those that ship with the project or an installed package."""
    mosaic: MosaicSettings = dataclasses.field(default_factory=MosaicSettings)
    """Which patches stand for a slide; of this only selector and count are in the fingerprint."""
    stain: str = ""
    """Stain normalisation of every patch: ``macenko``, ``reinhard``, or ``""`` for none."""
    key_weights: Path | None = None
    """Weights of the key network; None for those that ship (compact) or the untrained
    seeded initialisation (published)."""
    codeword_order: Path | None = None
    """A ``codebook_semantic.pt``; None for the order stored with, or computed from, the codebook."""
    device: str = "auto"
    """``cpu``, ``cuda``, or ``auto``: a GPU where torch sees one."""
    engine: str = "auto"
    """What runs the networks: ``openvino`` (CPU only), ``torch``, or ``auto``: OpenVINO on a CPU where it is
    installed. No part of the fingerprint: in float32 no bit of 66 patches
    differed between the two, and keys of 2."""
    precision: str = "half"
    """``half``: embeddings and codes in bfloat16 where the device multiplies it itself, twice as fast; ``full``:
    in float32. Keys are float32 always. No part of the fingerprint either: 4 to 5 of a code's 1024 bits differ,
    9 at most in 66 patches; see `networks.engine`."""

    @property
    def cutting(self) -> MosaicSettings:
        """The mosaic's settings with the profile's field of view, and its selector where none is named."""
        return dataclasses.replace(
            self.mosaic,
            field_um=self.profile.field_um,
            selector=self.mosaic.selector or self.profile.selector,
        )

    @property
    def mosaic_digest(self) -> str:
        """Hex digest of what decides which patches are chosen."""
        values = dataclasses.asdict(self.cutting)
        values.pop("readers")
        del values["summary_model"]
        values |= self.extras
        return digest_of(canonical_bytes(values))

    @property
    def extras(self) -> dict[str, object]:
        """What the fingerprint holds beside profile and networks: only what differs from the defaults."""
        mosaic = self.cutting
        found: dict[str, object] = {}
        if self.stain:
            found["stain"] = self.stain
        if mosaic.selector != "sish" or mosaic.patches_per_slide:
            found["mosaic"] = {"selector": mosaic.selector, "patches": mosaic.patches_per_slide}
        if mosaic.summary_model is not None:
            found["summary_model"] = digest_of(mosaic.summary_model.read_bytes())
        return found


@dataclasses.dataclass(frozen=True, slots=True)
class ActorSettings:
    """How many actors there are, what each may take, and how long it may be silent."""

    n_actors: int | None = None
    """Actors, the most there may be; None for one a core (two torch processes on one core only take
    turns)."""
    min_actors: int | None = None
    """Actors there always are; None for `n_actors`: then their number never changes."""
    n_readers: int | None = None
    """Readers of slides, each with one slide at a time; None for one an actor."""
    batch_patches: int | None = None
    """Patches encoded together; None for 16 on a GPU and 1 on a CPU, where larger batches are slower."""
    cpus_per_reader: float = 0.25
    """CPUs Ray reserves for a reader: it waits for the actors most of the time."""
    cpus_per_actor: float = 0.5
    """CPUs Ray reserves for an actor: less than one, so that other work on the machine fits."""
    gpus_per_actor: float = 0.25
    """Share of a GPU an actor reserves where Ray has GPUs; four actors keep one busy."""
    place_timeout_s: float = 120.0
    """Seconds until an actor that has not answered yet counts as not placed."""
    stall_timeout_s: float = 600.0
    """Seconds without progress until a slide is given up: a patch takes seconds, a slow disk more."""
    task_retries: int = 2
    """How often a slide is encoded again when its actor dies; a slide that kills three is at fault."""
    poll_s: float = 0.25
    """Seconds between looks at the progress of busy actors."""
    object_store_bytes: int = 512 << 20
    """Ray's object store: the batches of a few readers, 0.8 MB a compact patch."""

    def __post_init__(self) -> None:
        if self.n_actors is not None and self.n_actors < 1:
            raise BadRequest(
                f"at least 1 actor is needed; asked for {self.n_actors}", field="actors"
            )
        if self.n_readers is not None and self.n_readers < 1:
            raise BadRequest(
                f"at least 1 reader is needed; asked for {self.n_readers}", field="readers"
            )

    @property
    def wanted_actors(self) -> int:
        """Actors asked for, or one for each core this process may use."""
        return self.n_actors or len(os.sched_getaffinity(0))

    @property
    def wanted_readers(self) -> int:
        """Readers asked for, or one an actor."""
        return self.n_readers or self.wanted_actors

    @property
    def scaling(self) -> ScalingSettings:
        """Between what bounds the number of actors moves."""
        most = self.wanted_actors
        return ScalingSettings(min_actors=self.min_actors or most, max_actors=most)

    def batch_of(self, *, has_gpu: bool) -> int:
        """Return how many patches are encoded together."""
        return self.batch_patches or (16 if has_gpu else 1)


@dataclasses.dataclass(frozen=True, slots=True)
class ServiceSettings:
    """What the encoder service allows."""

    slides_dir: Path | None = None
    """Folder whose slides may be encoded by path; None allows no paths."""
    max_waiting: int = 16
    """Slides that may wait for an actor; more are refused with EncoderBusy."""
    max_image_bytes: int = 32 << 20
    """Bytes of one patch image; a 1024 px PNG has about 2 MiB."""
    max_image_side_px: int = 4096
    """Pixels a side of one patch image: a patch of a 40x slide has 2048."""
    retry_after_s: float = 5.0
    """What a refused caller is told to wait: about one slide's mosaic."""
