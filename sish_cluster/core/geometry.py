"""Sizes and squares on a slide, with the frame in the name.

Frames: *level 0* pixels (the base of the pyramid), *level* pixels (of one named level), and
micrometres. ``mpp`` is micrometres per level-0 pixel.
"""

from __future__ import annotations

import dataclasses

PATCH_FIELD_UM = 512.0
"""Side of a patch's field of view: 1024 px at 0.5 um per px, published."""


@dataclasses.dataclass(frozen=True, slots=True)
class Size:
    """Width and height in pixels of a named frame."""

    width: int
    height: int


@dataclasses.dataclass(frozen=True, slots=True)
class Box:
    """A rectangle ``[left, right) x [top, bottom)`` in level-0 pixels."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def size(self) -> Size:
        """Width and height."""
        return Size(self.right - self.left, self.bottom - self.top)


def patch_side_px_of(mpp: float, field_um: float = PATCH_FIELD_UM) -> int:
    """Return the side in level-0 pixels of a patch covering ``field_um`` at ``mpp``.

    Examples
    --------
    >>> patch_side_px_of(0.5), patch_side_px_of(0.25)
    (1024, 2048)
    """
    return max(1, round(field_um / mpp))
