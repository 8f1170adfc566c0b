"""A folder of tiles as a collection: encoded once, found again the next time."""

from __future__ import annotations

import base64
import functools
import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sish_cluster.cli.networks import encoder_settings
from sish_cluster.client import Client
from sish_cluster.core.collection import Collection, default_max_distance
from sish_cluster.core.errors import UnknownCollection
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.slide import Slide, digest_of

if TYPE_CHECKING:
    from sish_cluster.encoder.pipeline import Encoder
    from sish_cluster.encoder.tile_folder import Tile

PICTURE_PX = 160
"""Side of a tile's picture on a page, px."""

Advance = Callable[[int, int], None]
"""Called with tiles done and tiles in all."""


def tile_collection(
    client: Client,
    folder: Path,
    table: Path | None,
    *,
    options: Mapping[str, Any],
    advance: Advance = lambda done, total: None,
) -> tuple[str, list[tuple[str, str]]]:
    """Return the collection that holds a folder's tiles, and (tile, problem) of those that failed.

    The collection is named after folder and encoder, so another encoder gets a collection of its own. Tiles
    it holds with the same content and labels are not encoded again, so an interrupted run goes on where it
    was; tiles that have left the folder are forgotten.

    Parameters
    ----------
    client
        The cluster.
    folder, table
        The tiles and their labels; see `encoder.tile_folder`.
    options
        Of a command with `network_options`.
    advance
        Told how far it is.
    """
    from sish_cluster.encoder.pipeline import Encoder
    from sish_cluster.encoder.tile_folder import encoded_tiles, tile_fingerprint, tiles_of

    encoder = Encoder(encoder_settings(options))
    fingerprint = tile_fingerprint(encoder)
    name = f"{_plain(folder.resolve().name)}-{fingerprint[:8]}"
    _ensure(client, name, fingerprint, encoder)
    held = {stored.slide.slide_id: stored.slide for stored in client.list_slides(name)}
    for slide_id in held.keys() - {tile.slide.slide_id for tile in tiles_of(folder, table)}:
        client.forget(name, slide_id)
    failures: list[tuple[str, str]] = []
    outcomes = encoded_tiles(
        folder, table, encoder, progress=advance, is_known=lambda tile: _is_held(held, tile)
    )
    for outcome in outcomes:
        if isinstance(outcome, EncodedSlide):
            client.ingest_slide(name, outcome)
        else:
            failures.append((outcome.slide_id, outcome.error.message))
    return name, failures


def _plain(name: str) -> str:
    """Return a name a collection may begin with."""
    return re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-_")[:40] or "tiles"


def _ensure(client: Client, name: str, fingerprint: str, encoder: Encoder) -> None:
    try:
        client.definition_of(name)
    except UnknownCollection:
        bits = encoder.code_bits
        bound = default_max_distance(encoder.settings.profile.name, bits)
        client.create_collection(
            Collection(
                name,
                fingerprint,
                bits,
                bound,
                f"tiles at {encoder.settings.profile.side_px} px a side; {encoder.description}",
                dimensions=encoder.embedder.dimensions,
                has_keys=encoder.keying is not None,
            )
        )


def _is_held(held: Mapping[str, Slide], tile: Tile) -> bool:
    """Whether a tile is stored with this content and these labels."""
    slide = held.get(tile.slide.slide_id)
    return (
        slide is not None
        and not tile.problem
        and _labels(slide) == _labels(tile.slide)
        and slide.digest == digest_of(tile.path.read_bytes())
    )


def _labels(slide: Slide) -> tuple[object, ...]:
    named = (slide.patient, slide.site, slide.diagnosis, slide.institution)
    return (*named, dict(slide.labels))


def tile_pictures(folder: Path, table: Path | None) -> Callable[[str, int], str]:
    """Return what shows a tile: slide id and patch number -> a small JPEG as a data URI."""
    from sish_cluster.encoder.tile_folder import tiles_of

    paths = {tile.slide.slide_id: tile.path for tile in tiles_of(folder, table)}

    @functools.lru_cache(maxsize=1024)
    def picture(slide_id: str, number: int) -> str:
        from PIL import Image

        path = paths.get(slide_id)
        if path is None or not path.exists():
            return ""
        with Image.open(path) as image:
            small = image.convert("RGB")
        small.thumbnail((PICTURE_PX, PICTURE_PX))
        stream = io.BytesIO()
        small.save(stream, "JPEG", quality=82)
        return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()

    return picture


def slide_pictures(
    folder: Path, client: Client, collection: str, slides: Sequence[Slide]
) -> Callable[[str, int], str]:
    """Return what shows slides and their patches, from the slide files of a folder."""
    from sish_cluster.encoder.catalogue import find_slides, slide_name
    from sish_cluster.report import SlideFile, SlideFiles

    known = {slide.slide_id: slide for slide in slides}
    found = {slide_name(path): path for path in find_slides(folder)}
    files = SlideFiles(
        {
            slide_id: SlideFile(found[slide_id], slide.mpp or None)
            for slide_id, slide in known.items()
            if slide_id in found
        }
    )

    @functools.lru_cache(maxsize=1024)
    def picture(slide_id: str, number: int) -> str:
        slide = known.get(slide_id)
        if slide is None or slide_id not in found:
            return ""
        if number < 0:
            return files.thumbnail(slide, (), side_px=PICTURE_PX).uri
        patches = client.encoded_slide(collection, slide_id).patches
        row = patches.numbers.tolist().index(number)
        x, y = patches.corners[row].tolist()
        return files.patch(slide_id, (x, y), slide.patch_side_px, PICTURE_PX).uri

    return picture
