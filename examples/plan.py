"""Which slides a demonstration indexes and which it keeps back as queries, so that one learns something."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from sish_cluster.core.slide import Slide
from sish_cluster.local.encoding import SlideToEncode


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """A slide that is not in the index, and what it shows."""

    slide: SlideToEncode
    note: str


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is indexed, what is asked, and which two slides of one patient are a pair.

    Parameters
    ----------
    indexed
        Slides of the index.
    held_out
        Slides that are only asked for.
    """

    indexed: Sequence[SlideToEncode]
    held_out: Sequence[HeldOut]

    @property
    def pair(self) -> tuple[SlideToEncode, SlideToEncode] | None:
        """An indexed slide and a held-out one of the same patient, or None."""
        for held in self.held_out:
            for slide in self.indexed:
                if slide.slide.patient and slide.slide.patient == held.slide.slide.patient:
                    return slide, held.slide
        return None


def plan_of(slides: Sequence[SlideToEncode]) -> Plan:
    """Return a plan that holds out one slide of each kind and keeps at least two in the index.

    The kinds: a slide whose patient has another, a slide whose site another patient has, and a slide
    whose site nobody else has.
    """
    kinds = {
        _SAME_PATIENT: _of_same_patient(slides),
        _SAME_SITE: _of_same_site(slides),
        _NO_RELATIVE: _without_relative(slides),
    }
    held_out: dict[str, HeldOut] = {}
    for note, found in kinds.items():
        if found is not None and len(slides) - len(held_out) > 2:
            held_out.setdefault(found.slide.slide_id, HeldOut(found, note))
    if not held_out and len(slides) > 1:
        held_out[slides[-1].slide.slide_id] = HeldOut(slides[-1], _ANY)
    rest = [slide for slide in slides if slide.slide.slide_id not in held_out]
    return Plan(rest, list(held_out.values()))


_SAME_PATIENT = "not in the index; another slide of the same patient is"
_SAME_SITE = "not in the index; its organ is, from another patient"
_NO_RELATIVE = "not in the index, nor is any slide of its organ: the nearest is only the nearest"
_ANY = "not in the index"


def few(slides: Sequence[SlideToEncode], limit: int | None) -> list[SlideToEncode]:
    """Return at most ``limit`` slides: a patient's pair first, then the smallest files."""
    if limit is None or limit >= len(slides):
        return list(slides)
    by_size = sorted(slides, key=lambda slide: _file_bytes(slide.path))
    patients = Counter(slide.slide.patient for slide in slides if slide.slide.patient)
    pair = next((s.slide.patient for s in by_size if patients[s.slide.patient] > 1), None)
    by_size.sort(key=lambda slide: pair is None or slide.slide.patient != pair)
    return sorted(by_size[:limit], key=lambda slide: slide.slide.slide_id)


def _file_bytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _of_same_patient(slides: Sequence[SlideToEncode]) -> SlideToEncode | None:
    return _last_with_company(slides, [slide.slide.patient for slide in slides])


def _of_same_site(slides: Sequence[SlideToEncode]) -> SlideToEncode | None:
    return _last_with_company(slides, [_site_of(slide.slide) for slide in slides])


def _without_relative(slides: Sequence[SlideToEncode]) -> SlideToEncode | None:
    sites = Counter(_site_of(slide.slide) for slide in slides)
    return next((s for s in slides if sites[_site_of(s.slide)] == 1 and _site_of(s.slide)), None)


def _last_with_company(
    slides: Sequence[SlideToEncode], values: Sequence[str]
) -> SlideToEncode | None:
    counts = Counter(value for value in values if value)
    pairs = [slide for slide, value in zip(slides, values, strict=True) if counts[value] > 1]
    return pairs[-1] if pairs else None


def _site_of(slide: Slide) -> str:
    return "" if slide.site == "unknown" else slide.site
