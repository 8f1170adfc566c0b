"""Constants of ranking, each with its unit and reason."""

from __future__ import annotations

import dataclasses

from sish_cluster.core.errors import BadRequest


@dataclasses.dataclass(frozen=True, slots=True)
class RankingSettings:
    """What rankers share; the defaults are the published constants where there are any."""

    weight_scale: float = 10.0
    """F: scale of label weights (published: 10, 30 for organ search). It cancels in shares, and so in
    uncertainties."""
    weight_exponent: float = 1.0
    """A label's weight falls with its count to this power: 1 balances labels fully (published), 0
    counts every candidate alike."""
    nearest: int = 5
    """Leading candidates of a query patch whose mean distance says how near they are (published);
    RetCCL: whose labels it votes by, too."""
    voters: int = 5
    """Most certain query patches that vote on the label (published)."""
    low_percentile: float = 5.0
    """Query patches with fewer candidates than this percentile of the lengths are set aside, %."""
    high_percentile: float = 95.0
    """The same for more candidates than this percentile, %."""
    lengths_needed: int = 3
    """Percentiles apply only with more distinct lengths than this (published)."""
    halvings: float = 16.0
    """Default ranking: how often a pair's say is halved between distance 0 and the query patches' mean
    nearness; large enough that pairs as far as any two slides' hardly speak (measured: 8 is too few,
    beyond 16 nothing changes)."""
    rrf_constant: float = 60.0
    """Added to every rank in reciprocal-rank fusion: the constant of the method's paper (Cormack,
    Clarke and Büttcher 2009), which keeps one lucky first place from deciding."""

    retccl_certain_first: bool = True
    """RetCCL: whether the query patch of least entropy ranks first. The published texts can be read either
    way; certain patches first is what the entropy is for."""

    def __post_init__(self) -> None:
        if self.nearest < 1 or self.voters < 1:
            raise BadRequest(
                "ranking needs nearest >= 1 and voters >= 1;"
                f" found nearest={self.nearest}, voters={self.voters}"
            )
        if not 0 <= self.low_percentile <= self.high_percentile <= 100:
            raise BadRequest(
                "ranking needs 0 <= low_percentile <= high_percentile <= 100;"
                f" found {self.low_percentile} and {self.high_percentile}"
            )
        if self.weight_scale <= 0 or self.halvings <= 0 or self.rrf_constant < 0:
            raise BadRequest(
                "ranking needs weight_scale > 0, halvings > 0 and rrf_constant >= 0;"
                f" found {self.weight_scale}, {self.halvings} and {self.rrf_constant}"
            )
