"""A part of a slide as a query: a rectangle, or polygons out of a GeoJSON file.

Annotation programs write what a person outlined as GeoJSON in level-0 pixels (QuPath's export opens as it is).
A region becomes a grid of touching patches centred on it; those whose centre lies inside are encoded,
without choosing among them while they are few. Nothing here needs more than numpy: a machine that
only asks an encoder service reads regions too.

Frames: level-0 pixels (x, y), y downwards.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sish_cluster.core.errors import BadRequest
from sish_cluster.core.geometry import Size
from sish_cluster.core.slide import digest_of

MAX_VERTICES = 20_000
"""Most corners of a region in all: a freehand outline has hundreds; crossings are looked for pair by pair."""

MAX_TEXT_BYTES = 8 << 20
"""Longest GeoJSON that is read, bytes: 20,000 vertices take less than one of them."""

MAX_CELLS = 1_000_000
"""Most patches of a region's bounding box: the whole of the largest slides has fewer."""

CROSSING_BLOCK = 1 << 22
"""Pairs of edges compared at a time (about 200 MB)."""

NO_AREA = ("Point", "MultiPoint", "LineString", "MultiLineString")
"""Shapes a drawing may hold beside its polygons: markers and measurements."""

Ring = npt.NDArray[np.float64]
"""Corners of a closed line, (m, 2), the first not repeated at the end."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Polygon:
    """An outline and the holes in it."""

    outline: Ring
    holes: tuple[Ring, ...] = ()

    def contains(self, points: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Return which of points (n, 2) lie inside the outline and in no hole."""
        inside = _inside(self.outline, points)
        for hole in self.holes:
            inside &= ~_inside(hole, points)
        return inside


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Region:
    """One or more polygons of a slide.

    Parameters
    ----------
    polygons
        At least one.
    text
        The GeoJSON it was read from: what an encoder service is sent.
    source
        What errors call it.
    left_out
        Features that are no polygons, in words: points and lines of a drawing.
    """

    polygons: tuple[Polygon, ...]
    text: str
    source: str
    left_out: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Hex digest of the text."""
        return digest_of(self.text.encode())

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom."""
        corners = np.concatenate([polygon.outline for polygon in self.polygons])
        (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
        return float(left), float(top), float(right), float(bottom)

    def contains(self, points: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Return which of points (n, 2) lie in any polygon."""
        inside = [polygon.contains(points) for polygon in self.polygons]
        return np.asarray(np.logical_or.reduce(inside))

    def corners(self, *, slide_size: Size, side_px: int) -> npt.NDArray[np.int32]:
        """Return the patches of the region: those of its grid whose centre lies in it, at least one.

        Parameters
        ----------
        slide_size
            Size at level 0, px; centres outside it do not count.
        side_px
            Side of a patch and step of the grid, level-0 px.

        Returns
        -------
        int32 (n, 2): upper left corners ordered by y and then x, n >= 1; one patch centred on the region
        where it is smaller than a patch.

        Raises
        ------
        BadRequest
            If the region lies outside the slide, or has more than `MAX_CELLS` patches.
        """
        left, top, right, bottom = self.bounds
        if right <= 0 or bottom <= 0 or left >= slide_size.width or top >= slide_size.height:
            raise self._refused(
                f"covers x {left:g}..{right:g}, y {top:g}..{bottom:g} and the slide has"
                f" {slide_size.width} x {slide_size.height} px at level 0: none of it is on the slide."
                " Give level-0 pixels"
            )
        left, top = max(left, 0.0), max(top, 0.0)
        right, bottom = min(right, slide_size.width), min(bottom, slide_size.height)
        columns = max(1, math.ceil((right - left) / side_px))
        rows = max(1, math.ceil((bottom - top) / side_px))
        if columns * rows > MAX_CELLS:
            raise self._refused(
                f"spans {columns} x {rows} patches; at most {MAX_CELLS:,} are taken"
            )
        middle = np.array([(left + right) / 2, (top + bottom) / 2])
        first = middle - np.array([columns - 1, rows - 1]) * side_px / 2
        steps = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(-1, 2)
        centres = first + steps * float(side_px)
        kept = centres[self.contains(centres)]
        if not len(kept):
            kept = middle[None]
        return np.round(kept - side_px / 2).astype(np.int32)

    def _refused(self, what: str) -> BadRequest:
        return BadRequest(f"region {self.source}: {what}", field="region")


def rectangle_region(text: str) -> Region:
    """Return the region of ``x,y,width,height``, level-0 pixels.

    Raises
    ------
    BadRequest
        If it is not four numbers, or width or height is not above 0.

    Examples
    --------
    >>> rectangle_region("100, 200, 50, 40").bounds
    (100.0, 200.0, 150.0, 240.0)
    """
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError:
        x = y = width = height = math.nan
    if not all(map(math.isfinite, (x, y, width, height))) or width <= 0 or height <= 0:
        raise BadRequest(
            f"a rectangle is x,y,width,height in level-0 pixels, width and height above 0; found {text!r}",
            field="rectangle",
        )
    ring = [[x, y], [x + width, y], [x + width, y + height], [x, y + height], [x, y]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return parsed_region(json.dumps(geometry), source=text)


def read_region(path: Path) -> Region:
    """Return the region in a GeoJSON file; see `parsed_region`."""
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise BadRequest(
                f"region {path}: has {path.stat().st_size:,} bytes; at most {MAX_TEXT_BYTES:,} are read:"
                " export the outlines alone",
                field="region",
            )
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequest(f"region {path}: cannot be read: {error}", field="region") from error
    return parsed_region(text, source=str(path))


def parsed_region(text: str, *, source: str) -> Region:
    """Return the region of a GeoJSON text.

    Parameters
    ----------
    text
        A Polygon, MultiPolygon, Feature, FeatureCollection, or list of Features.
    source
        What errors call it.

    Returns
    -------
    Region
        Points and lines among other features are left out of it, and named.

    Raises
    ------
    BadRequest
        If it is no such GeoJSON, holds no polygon, or an outline is empty or crosses itself; what was found
        is named.
    """
    if len(text) > MAX_TEXT_BYTES:
        raise BadRequest(f"region {source}: is too long ({len(text):,} characters)", field="region")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"region {source}: is no JSON: {error}", field="region") from error
    left_out: list[str] = []
    try:
        polygons = tuple(_polygons_of(found, "the file", left_out))
    except _Wrong as error:
        raise BadRequest(f"region {source}: {error}", field="region") from error
    if not polygons:
        raise BadRequest(
            f"region {source}: holds no polygon{_but(left_out)}; draw one round the part"
            " of the slide that is meant",
            field="region",
        )
    return Region(polygons, text, source, tuple(left_out))


def _but(left_out: Sequence[str]) -> str:
    return f", only {', '.join(left_out[:5])}" if left_out else ""


class _Wrong(ValueError):
    """What is wrong with a GeoJSON value."""


def _polygons_of(found: Any, where: str, left_out: list[str]) -> Iterator[Polygon]:
    """Yield the polygons of a GeoJSON value; add to ``left_out`` what features hold instead."""
    kind = found.get("type") if isinstance(found, dict) else None
    if isinstance(found, list):
        for number, feature in enumerate(found, start=1):
            yield from _polygons_of(feature, f"feature {number}", left_out)
    elif kind == "FeatureCollection":
        features = found.get("features")
        if not isinstance(features, list):
            raise _Wrong(f"{where} is a FeatureCollection without a list of features")
        yield from _polygons_of(features, where, left_out)
    elif kind == "Feature" and _shape_of(found) in NO_AREA:
        left_out.append(f"{where} ({_shape_of(found)})")
    elif kind == "Feature":
        yield from _polygons_of(found.get("geometry"), where, left_out)
    elif kind == "Polygon":
        yield _polygon(found.get("coordinates"), where)
    elif kind == "MultiPolygon":
        parts = found.get("coordinates")
        if not isinstance(parts, list):
            raise _Wrong(f"{where} is a MultiPolygon without coordinates")
        for number, part in enumerate(parts, start=1):
            yield _polygon(part, f"{where}, part {number}")
    else:
        name = repr(kind) if kind is not None else f"a {type(found).__name__} without a type"
        raise _Wrong(
            f"{where} is {name}; a region is a Polygon or MultiPolygon, alone, in a Feature or in a"
            " FeatureCollection"
        )


def _shape_of(feature: dict[str, Any]) -> object:
    geometry = feature.get("geometry")
    return geometry.get("type") if isinstance(geometry, dict) else None


def _polygon(coordinates: Any, where: str) -> Polygon:
    if not isinstance(coordinates, list) or not coordinates:
        raise _Wrong(f"{where} is a polygon without coordinates")
    rings = [
        _ring(ring, where if number == 0 else f"{where}, hole {number}")
        for number, ring in enumerate(coordinates)
    ]
    return Polygon(rings[0], tuple(rings[1:]))


def _ring(positions: Any, where: str) -> Ring:
    try:
        ring = np.array([[float(x), float(y)] for x, y, *_ in positions])
    except (TypeError, ValueError):
        raise _Wrong(f"{where}: positions are pairs of numbers, [x, y]") from None
    if len(ring) and not (np.isfinite(ring).all() and (np.abs(ring) < 1e9).all()):
        raise _Wrong(f"{where}: has a position that is no finite number of pixels")
    if len(ring):
        ring = ring[(ring != np.roll(ring, 1, axis=0)).any(axis=1)]
    if len(ring) < 3:
        raise _Wrong(f"{where}: has {len(ring)} different corners; an outline has at least 3")
    if len(ring) > MAX_VERTICES:
        raise _Wrong(f"{where}: has {len(ring)} corners; at most {MAX_VERTICES} are taken")
    crossing = _crossing_of(ring)
    if crossing is not None:
        x, y = ring[crossing]
        raise _Wrong(f"{where}: crosses itself (the edge from {x:g}, {y:g}); draw it without loops")
    if _area_of(ring) == 0:
        raise _Wrong(f"{where}: has no area")
    return ring


def _area_of(ring: Ring) -> float:
    x, y = (ring - ring[0]).T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def _crossing_of(ring: Ring) -> int | None:
    """Return the first edge that properly crosses another, or None; touching is no crossing."""
    ends = np.roll(ring, -1, axis=0)
    block = max(1, CROSSING_BLOCK // len(ring))
    for first in range(0, len(ring), block):
        a, b = ring[first : first + block, None], ends[first : first + block, None]
        apart = _side(a, b, ring[None]) * _side(a, b, ends[None]) < 0
        apart &= _side(ring[None], ends[None], a) * _side(ring[None], ends[None], b) < 0
        crossed = np.flatnonzero(apart.any(axis=1))
        if crossed.size:
            return first + int(crossed[0])
    return None


def _side(
    a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], p: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the sign of the side of line a-b on which p lies."""
    cross = (b[..., 0] - a[..., 0]) * (p[..., 1] - a[..., 1])
    cross = cross - (b[..., 1] - a[..., 1]) * (p[..., 0] - a[..., 0])
    return np.sign(cross)


def _inside(ring: Ring, points: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Return which of points (n, 2) a horizontal ray leaves through an odd number of edges."""
    inside = np.zeros(len(points), np.bool_)
    x, y = points[:, 0], points[:, 1]
    for (x1, y1), (x2, y2) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        if y1 != y2:
            spans = (y1 > y) != (y2 > y)
            inside ^= spans & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
    return inside
