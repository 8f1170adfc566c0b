"""A stored slide as a query: what every search of an evaluation sends."""

from __future__ import annotations

from sish_cluster.core.collection import Collection
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.query import Filter, Mode, Query
from sish_cluster.evaluation.outcome import RunPlan
from sish_cluster.evaluation.settings import EvaluationSettings


def query_of(
    encoded: EncodedSlide,
    plan: RunPlan,
    where: Filter,
    collection: Collection,
    settings: EvaluationSettings,
) -> Query:
    """Return a stored slide as a query that may not find what ``where`` hides."""
    needs_embeddings = plan.mode in (Mode.DIRECT, Mode.AUTO)
    return Query(
        encoded.patches if needs_embeddings else encoded.patches.without_embeddings(),
        encoded.fingerprint,
        settings.search_of(plan.mode, collection, bound=plan.bound),
        where,
        label_field=settings.label_field,
        patient=encoded.slide.patient,
    )
