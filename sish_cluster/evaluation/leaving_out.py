"""Leaving one patient (or institution) out: who a slide belongs to, and the filter that hides them.

The patient is the label ``patient``. Where nobody gave one, two archives' slide names say it: TCGA's
``TCGA-CR-7395-01A-01-TS1`` in its first three fields, CPTAC's ``C3N-02678-21`` in its first two. Any other
name stands for itself. Such slides cannot be hidden by their label, so they are hidden by their ids.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Mapping, Sequence

from sish_cluster.core.query import Filter
from sish_cluster.core.slide import UNKNOWN, Slide
from sish_cluster.evaluation.settings import EvaluationSettings, LeaveOut

_NAMED_PATIENT = re.compile(r"(tcga-\w+-\w+|c3[ln]-\d+)(?![A-Za-z0-9])", re.IGNORECASE)


def patient_of(slide: Slide) -> str:
    """Return whose slide it is, or the slide's own id where nobody can tell.

    Examples
    --------
    >>> patient_of(Slide("tcga-cr-7395-01a-01-ts1")), patient_of(Slide("C3N-02678-21"))
    ('TCGA-CR-7395', 'C3N-02678')
    >>> patient_of(Slide("C3N-02678-21", patient="P7")), patient_of(Slide("biopsy 12"))
    ('P7', 'biopsy 12')
    """
    if slide.patient:
        return slide.patient
    named = _NAMED_PATIENT.match(slide.slide_id)
    return named.group(1).upper() if named else slide.slide_id


def group_of(slide: Slide, leave_out: LeaveOut) -> str:
    """Return the group that is left out with a slide; its patient where the institution is unknown."""
    if leave_out is LeaveOut.SLIDE:
        return slide.slide_id
    if leave_out is LeaveOut.INSTITUTION and slide.institution:
        return slide.institution
    return patient_of(slide)


class Leaver:
    """Writes each query's filter.

    Parameters
    ----------
    slides
        Every slide of the collection.
    leave_out
        What a query may not find.
    """

    def __init__(self, slides: Sequence[Slide], leave_out: LeaveOut) -> None:
        self._leave_out = leave_out
        unnamed: dict[str, list[str]] = collections.defaultdict(list)
        for slide in slides:
            if not slide.patient:
                unnamed[patient_of(slide)].append(slide.slide_id)
        self._unnamed: Mapping[str, list[str]] = unnamed

    def filter_for(self, slide: Slide) -> Filter:
        """Return the filter under which ``slide`` is searched."""
        left: dict[str, list[str]] = {"slide": [slide.slide_id]}
        if self._leave_out is not LeaveOut.SLIDE:
            # An unlabelled sibling of a labelled slide has the patient in its name only.
            patient = patient_of(slide)
            left["slide"] = sorted({slide.slide_id, *self._unnamed.get(patient, ())})
            left["patient"] = [patient]
        if self._leave_out is LeaveOut.INSTITUTION and slide.institution != UNKNOWN:
            left["institution"] = [slide.institution]
        return Filter.of(leave_out=left)

    def is_left_out(self, slide: Slide, *, query: Slide) -> bool:
        """Whether ``query`` may not find ``slide``."""
        if slide.slide_id == query.slide_id:
            return True
        if self._leave_out is LeaveOut.SLIDE:
            return False
        is_same_house = bool(query.institution) and slide.institution == query.institution
        return patient_of(slide) == patient_of(query) or (
            self._leave_out is LeaveOut.INSTITUTION and is_same_house
        )


class Reachable:
    """Whether a slide's label occurs outside of what is left out with it."""

    def __init__(self, slides: Sequence[Slide], settings: EvaluationSettings) -> None:
        self._settings = settings
        self._groups: dict[str, set[str]] = collections.defaultdict(set)
        for slide in slides:
            self._groups[slide.label(settings.label_field)].add(self._group_of(slide))

    def _group_of(self, slide: Slide) -> str:
        return group_of(slide, self._settings.leave_out)

    def by(self, slide: Slide) -> bool:
        """Whether another group has the slide's label."""
        return bool(self._groups[slide.label(self._settings.label_field)] - {self._group_of(slide)})
