"""Who a slide is: its identity and labels, without a pixel.

Frames and units: ``mpp`` is micrometres per pixel at level 0; corners are level-0 pixels.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping

from sish_cluster.core.errors import BadLabels

NAMED_LABELS = ("patient", "site", "diagnosis", "institution")
"""Labels with a field of their own; every other column of a labels table is an extra label."""

UNKNOWN = ""
"""Value of a label nobody gave."""


_PATIENT_NAMES = (
    re.compile(r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}(?=-|$)", re.IGNORECASE),
    re.compile(r"C3[LN]-\d{5}(?=-|$)", re.IGNORECASE),
)
"""Slide names that begin with their patient's: TCGA (to the third dash-field) and CPTAC."""


@dataclasses.dataclass(frozen=True, slots=True)
class Slide:
    """One slide's identity and labels.

    Parameters
    ----------
    slide_id
        Unique within a collection; not empty.
    patient, site, diagnosis, institution
        Whose it is, which organ, which disease, who holds it; ``""`` when unknown.
    labels
        Every other label by name (stain, magnification, ...).
    mpp
        Micrometres per pixel at level 0; 0 when unknown.
    width_px, height_px
        Size at level 0; 0 when unknown.
    patch_side_px
        Side of a patch in level-0 pixels: what a corner's square covers; 0 when unknown.
    digest
        Hex digest of the file's content; ``""`` when unknown.
    """

    slide_id: str
    patient: str = UNKNOWN
    site: str = UNKNOWN
    diagnosis: str = UNKNOWN
    institution: str = UNKNOWN
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    mpp: float = 0.0
    width_px: int = 0
    height_px: int = 0
    patch_side_px: int = 0
    digest: str = ""

    def __post_init__(self) -> None:
        if not self.slide_id:
            raise BadLabels("a slide needs a slide id that is not empty")
        doubled = set(self.labels) & {"slide", *NAMED_LABELS}
        if doubled:
            raise BadLabels(
                f"slide {self.slide_id!r}: {sorted(doubled)} are fields of their own, not extra labels"
            )

    def label(self, field: str) -> str:
        """Return the value of label ``field`` (``slide``, a named label or an extra), or ``""``.

        Examples
        --------
        >>> Slide("s1", site="lung", labels={"stain": "HE"}).label("stain")
        'HE'
        """
        if field == "slide":
            return self.slide_id
        if field in NAMED_LABELS:
            return str(getattr(self, field))
        return self.labels.get(field, UNKNOWN)

    def to_dict(self) -> dict[str, object]:
        """Return plain values, `from_dict`'s inverse."""
        values: dict[str, object] = {name: getattr(self, name) for name in self.__slots__}
        values["labels"] = dict(self.labels)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Slide:
        """Return the slide `to_dict` described."""
        return cls(**values)  # type: ignore[arg-type]


def patient_of(name: str) -> str:
    """Return the patient that a slide's name begins with, or ``""`` where names do not say.

    Only the names of the two large public archives are read. A name of any other form says nothing: its
    patient comes from a labels table, because a guess would let a patient's other slides into a search
    that was to leave the patient out.

    Examples
    --------
    >>> patient_of("TCGA-CR-7395-01A-01-TS1"), patient_of("C3N-02678-21"), patient_of("liver 3-b")
    ('TCGA-CR-7395', 'C3N-02678', '')
    """
    for pattern in _PATIENT_NAMES:
        if found := pattern.match(name):
            return found.group()
    return UNKNOWN


def digest_of(*parts: bytes) -> str:
    """Return the hex BLAKE2b-128 digest of the parts, lengths included."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def canonical_bytes(values: Mapping[str, object]) -> bytes:
    """Return the one JSON spelling of ``values`` (sorted, no spaces), for digests and records."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
