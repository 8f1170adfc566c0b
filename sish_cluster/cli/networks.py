"""Options that decide what an encoder is: every command that encodes has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from sish_cluster.encoder.settings import EncoderSettings

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

NETWORK_OPTIONS = ("profile", "key_weights", "codeword_order", "texture_weights", "device")
"""Names of the options below, which are fields of the encoder's settings."""

FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
"""A file that is there."""


def network_options(command: Decorated) -> Decorated:
    """Add the options of `NETWORK_OPTIONS`."""
    options = [
        click.option(
            "--profile",
            type=click.Choice(["compact", "published"]),
            default="compact",
            show_default=True,
            help="Networks and pixels: compact for CPUs, published as in the paper.",
        ),
        click.option(
            "--key-weights",
            type=FILE,
            help="VQ-VAE checkpoint (model_9.pt or .safetensors).  [default: untrained, seeded]",
        ),
        click.option(
            "--codeword-order",
            type=FILE,
            help="codebook_semantic.pt of that checkpoint.  [default: from the codebook]",
        ),
        click.option(
            "--texture-weights",
            type=FILE,
            help="DenseNet-121 weights.  [default: the ImageNet weights that ship with sish]",
        ),
        click.option(
            "--device", default="auto", show_default=True, help="cpu, cuda, or auto (a GPU if any)."
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def encoder_settings(options: Mapping[str, Any]) -> EncoderSettings:
    """Return the settings of an encoder, from a command's options; others are ignored."""
    from sish_cluster.encoder.profile import profile_of
    from sish_cluster.encoder.settings import EncoderSettings

    chosen = {name: options[name] for name in NETWORK_OPTIONS}
    return EncoderSettings(**{**chosen, "profile": profile_of(chosen["profile"])})
