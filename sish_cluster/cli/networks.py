"""Options that decide what an encoder is: every command that encodes has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sish_cluster.core.errors import BadRequest

if TYPE_CHECKING:
    from sish_cluster.encoder.profile import Profile
    from sish_cluster.encoder.settings import EmbedderFileSettings, EncoderSettings

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

PROFILES = ("compact", "published", "retccl")
"""Names of the encoder profiles, as `sish_cluster.encoder.profile` has them."""

EMBEDDERS = ("densenet121", "retccl", "resnet18", "efficientnet-lite0")
"""Names of the embedders, as `sish_cluster.encoder.embedders` has them."""

SELECTORS = ("sish", "retccl", "random", "cluster", "entropy", "location", "wsisum")
"""Names of the mosaic selectors, as `sish_cluster.encoder.selectors` has them."""

STAINS = ("macenko", "reinhard")
"""Names of the stain normalisations, as `sish_cluster.encoder.stain` has them."""

ENGINES = ("auto", "openvino", "torch")
"""Names of the engines, as `sish_cluster.encoder.networks.engine` has them."""

PRECISIONS = ("half", "full")
"""Names of the precisions, as `sish_cluster.encoder.networks.engine` has them."""

FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
"""A file that is there."""


_NETWORKS = [
    click.option(
        "--profile",
        type=click.Choice(PROFILES),
        help="Networks and pixels: compact for CPUs, published as in SISH's paper, retccl as in"
        " RetCCL's.  [default: the embedder's, or compact]",
    ),
    click.option(
        "--key-weights",
        type=FILE,
        help="VQ-VAE checkpoint (model_9.pt or .safetensors).  [default: what ships with sish]",
    ),
    click.option(
        "--codeword-order",
        type=FILE,
        help="codebook_semantic.pt of that checkpoint.  [default: from the codebook]",
    ),
    click.option(
        "--embedder",
        metavar="NAME|FILE",
        help=f"The network of codes and embeddings: {', '.join(EMBEDDERS)}, or a TorchScript or"
        " torch.export (.pt2) file.  [default: the profile's]",
    ),
    click.option(
        "--weights",
        "--texture-weights",
        "weights",
        type=FILE,
        help="Weights of the embedder.  [default: what ships with sish, or an installed package]",
    ),
    click.option(
        "--embedder-input",
        metavar="PX@MPP",
        help="What an embedder FILE sees, such as 224@0.5.  [default: FILE.json, or 224@0.5]",
    ),
    click.option(
        "--trust-embedder-code",
        is_flag=True,
        help="Load an embedder FILE although that runs the code in it.",
    ),
]
"""Which networks see a patch, and their weights."""

_MOSAIC = [
    click.option(
        "--selector",
        type=click.Choice(SELECTORS),
        help="Who chooses a slide's patches.  [default: the profile's]",
    ),
    click.option(
        "--patches-per-slide",
        type=click.IntRange(1),
        help="Most patches of a slide.  [default: the selector's]",
    ),
    click.option("--summary-model", type=FILE, help="Trained network of the selector wsisum."),
    click.option(
        "--stain",
        type=click.Choice(STAINS),
        help="Normalise every patch's stain.  [default: as scanned]",
    ),
    click.option(
        "--device", default="auto", show_default=True, help="cpu, cuda, or auto (a GPU if any)."
    ),
]
"""Which patches they see, in what stain, and where they run."""

_RUNNING = [
    click.option(
        "--engine",
        type=click.Choice(ENGINES),
        default="auto",
        show_default=True,
        help="What runs the networks: openvino on CPUs, torch anywhere; auto takes openvino on a CPU"
        " where it is installed.",
    ),
    click.option(
        "--precision",
        type=click.Choice(PRECISIONS),
        default="half",
        show_default=True,
        help="half: codes and embeddings in bfloat16 where the device multiplies it itself, about twice"
        " as fast; a few of 1024 bits differ from full, float32. Keys are float32 always.",
    ),
]
"""What runs them, and in what numbers."""


def network_options(command: Decorated) -> Decorated:
    """Add the options `encoder_settings` reads: networks, weights, mosaic, stain."""
    for option in reversed([*_NETWORKS, *_MOSAIC, *_RUNNING]):
        command = option(command)
    return command


def encoder_settings(options: Mapping[str, Any]) -> EncoderSettings:
    """Return the settings of an encoder, from a command's options; others are ignored."""
    from sish_cluster.encoder.cutting import MosaicSettings
    from sish_cluster.encoder.settings import EncoderSettings

    profile, embedder = _profile_and_embedder(options)
    return EncoderSettings(
        profile=profile,
        embedder=embedder,
        weights=options["weights"],
        mosaic=MosaicSettings(
            selector=options["selector"] or "",
            patches_per_slide=options["patches_per_slide"],
            summary_model=options["summary_model"],
        ),
        stain=options["stain"] or "",
        key_weights=options["key_weights"],
        codeword_order=options["codeword_order"],
        device=options["device"],
        engine=options["engine"],
        precision=options["precision"],
    )


def profile_name(options: Mapping[str, Any]) -> str:
    """Return the name of the profile that options choose, without reading anything."""
    if options["profile"]:
        return str(options["profile"])
    embedder = options["embedder"]
    if embedder and embedder not in EMBEDDERS:
        return "own"
    return "retccl" if embedder in ("retccl", "resnet18") else "compact"


def _profile_and_embedder(
    options: Mapping[str, Any],
) -> tuple[Profile, str | EmbedderFileSettings]:
    """Return the profile and the embedder: a file of one's own brings its own profile."""
    from sish_cluster.encoder.profile import profile_of

    name = options["embedder"] or ""
    if not name or name in EMBEDDERS:
        if options["embedder_input"]:
            raise BadRequest(
                "--embedder-input is for an embedder FILE; the named networks see what the profile says",
                field="embedder_input",
            )
        return profile_of(profile_name(options)), name
    return _own(Path(name), options)


def _own(path: Path, options: Mapping[str, Any]) -> tuple[Profile, EmbedderFileSettings]:
    from sish_cluster.encoder.embedder_file import read_own

    if not path.is_file():
        raise BadRequest(
            f"--embedder {path}: is no name ({', '.join(EMBEDDERS)}) and no file that is there",
            field="embedder",
        )
    if options["profile"] or options["weights"]:
        raise BadRequest(
            f"--embedder {path}: a file brings its own weights and field of view: leave --profile and"
            " --weights out",
            field="embedder",
        )
    side_px, mpp = _input_of(options["embedder_input"])
    own = read_own(path, side_px=side_px, mpp=mpp, trusts_code=options["trust_embedder_code"])
    return own.profile, own.settings


def _input_of(text: str | None) -> tuple[int | None, float | None]:
    if not text:
        return None, None
    side, _, mpp = text.partition("@")
    try:
        return int(side), float(mpp)
    except ValueError:
        raise BadRequest(
            f"--embedder-input is SIDE@MPP, pixels a side at um per pixel, such as 224@0.5; found {text!r}",
            field="embedder_input",
        ) from None
