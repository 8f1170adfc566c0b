"""Filters as people write them: ``site=lung``, ``stain in (HE,PAS)``, ``patient!=P7``.

Conditions are joined by *and*; the values of one condition by *or*.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence

from sish_cluster.core.errors import BadFilter
from sish_cluster.core.query import Filter
from sish_cluster.core.slide import Slide

_LABEL = r"(?P<label>[A-Za-z_][\w.-]*)"
_ONE = re.compile(rf"\s*{_LABEL}\s*(?P<operator>!=|=)\s*(?P<value>.+?)\s*")
_MANY = re.compile(rf"\s*{_LABEL}\s+(?P<operator>not\s+in|in)\s*\((?P<values>[^()]*)\)\s*", re.I)


@dataclasses.dataclass(frozen=True, slots=True)
class Exclusion:
    """Slides left out of a search by identity.

    Parameters
    ----------
    patients, institutions, slides
        Values to leave out.
    """

    patients: tuple[str, ...] = ()
    institutions: tuple[str, ...] = ()
    slides: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        slide: Slide,
        *,
        patient: bool = False,
        institution: bool = False,
        slide_itself: bool = False,
    ) -> Exclusion:
        """Return the exclusion of the query slide's own patient, institution or self.

        Raises
        ------
        BadFilter
            If the slide does not say what is to be left out.
        """
        return cls(
            (_known(slide, "patient"),) if patient else (),
            (_known(slide, "institution"),) if institution else (),
            (slide.slide_id,) if slide_itself else (),
        )

    @classmethod
    def of_case(
        cls,
        slides: Iterable[Slide],
        *,
        patient: bool = False,
        institution: bool = False,
        slide_itself: bool = False,
    ) -> Exclusion:
        """Return the exclusion of everything of several slides' own that is to be left out.

        Raises
        ------
        BadFilter
            If a slide does not say what is to be left out.
        """
        every = cls()
        for slide in slides:
            own = cls.of(slide, patient=patient, institution=institution, slide_itself=slide_itself)
            every = every.and_also(own)
        return cls(*(tuple(dict.fromkeys(values)) for values in dataclasses.astuple(every)))

    def and_also(self, other: Exclusion) -> Exclusion:
        """Return both exclusions in one."""
        return Exclusion(
            self.patients + other.patients,
            self.institutions + other.institutions,
            self.slides + other.slides,
        )


def _known(slide: Slide, label: str) -> str:
    value = slide.label(label)
    if not value:
        raise BadFilter(
            f"cannot leave out the {label} of slide {slide.slide_id!r}: nobody said who that is;"
            f" name the {label} to leave out, or give a labels table",
            field=label,
        )
    return value


def parsed_filter(conditions: Iterable[str]) -> Filter:
    """Return the filter of conditions such as ``site=lung`` or ``stain not in (PAS, IHC)``.

    Raises
    ------
    BadFilter
        If a condition cannot be read, or two conditions leave no value.

    Examples
    --------
    >>> f = parsed_filter(["site=lung", "stain in (HE,PAS)", "patient!=P7"])
    >>> sorted(f.keep["stain"]), sorted(f.leave_out["patient"])
    (['HE', 'PAS'], ['P7'])
    """
    keep: dict[str, set[str]] = {}
    leave_out: dict[str, set[str]] = {}
    for condition in conditions:
        label, values, is_kept = _parsed(condition)
        if not is_kept:
            leave_out.setdefault(label, set()).update(values)
        elif keep.setdefault(label, set(values)) & values:
            keep[label] &= values
        else:
            raise BadFilter(
                f"{condition!r}: no slide can have {label} {_listed(values)} and also"
                f" {_listed(keep[label])}; write {label} in (...) for either",
                field="where",
            )
    return Filter.of(keep=keep, leave_out=leave_out)


def _parsed(condition: str) -> tuple[str, set[str], bool]:
    one, many = _ONE.fullmatch(condition), _MANY.fullmatch(condition)
    if many:
        values = {value.strip() for value in many["values"].split(",")} - {""}
        if values:
            return many["label"], values, many["operator"].lower() == "in"
    elif one:
        return one["label"], {one["value"]}, one["operator"] == "="
    raise BadFilter(
        f"cannot read the condition {condition!r}: write label=value, label!=value,"
        " 'label in (a,b)' or 'label not in (a,b)'",
        field="where",
    )


def _listed(values: Iterable[str]) -> str:
    return " or ".join(repr(value) for value in sorted(values))


def filter_of(where: Filter | Sequence[str], exclude: Exclusion) -> Filter:
    """Return the filter that keeps ``where`` and leaves out ``exclude``."""
    base = where if isinstance(where, Filter) else parsed_filter(where)
    left = {name: set(values) for name, values in base.leave_out.items()}
    wanted = {
        "patient": exclude.patients,
        "institution": exclude.institutions,
        "slide": exclude.slides,
    }
    for name, values in wanted.items():
        if values:
            left.setdefault(name, set()).update(values)
    return Filter.of(keep=base.keep, leave_out=left)
