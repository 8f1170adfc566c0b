"""Leave-one-patient-out: the patient is never returned, and says nothing about the label weights.

Real shards in the process, one index and three cut by key range, every mode and ranking. Patients are those
that archive names begin with, or a column's, for names of any form.
"""

import asyncio
import dataclasses
import itertools

import pytest

from sish_cluster import AsyncClient
from sish_cluster.client import Exclusion, filter_of
from sish_cluster.core.clock import Deadline
from sish_cluster.core.errors import BadFilter
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.query import Mode, Query, Ranking, SearchSettings
from sish_cluster.core.slide import Slide, patient_of
from sish_cluster.core.topology import KeyRange, Selector, ShardSpec, Topology
from sish_cluster.router.router import Router
from sish_cluster.shard.direct import DirectShard
from sish_cluster.shard.settings import ShardSettings
from sish_cluster.shard.shard import Shard
from sish_cluster.testing.synthetic import SyntheticSlides

DRAWN = SyntheticSlides(rng_seed=3, patches=4)
TCGA = [f"TCGA-CR-{patient}-0{part}A-01-TS{part}" for patient in (7395, 7404) for part in (1, 2)]
CPTAC = [f"C3N-0267{patient}-2{part}" for patient in (8, 9) for part in (1, 2)]
FREE_FORM = {"liver 3": "Mrs A", "b/2019-07": "Mrs A", "Müller_1": "Mr B", "scan(2)": "Mr B"}
NAMES = {name: patient_of(name) for name in [*TCGA, *CPTAC]} | FREE_FORM
CUTS = {
    "one index": (ShardSpec("all", ""),),
    "3 by range": tuple(
        ShardSpec(f"r{low}", "", Selector(), KeyRange(low, high))
        for low, high in itertools.pairwise((0, 2 * 10**14, 5 * 10**14, 1 << 50))
    ),
}


def slides_of(diagnosis_of=lambda patient, number: f"d{number % 3}"):
    """Twelve slides of six patients, all of one site, so that every one resembles every other."""
    made = []
    for number, (name, patient) in enumerate(NAMES.items()):
        drawn = DRAWN.slide(3 * number)
        slide = Slide(name, patient=patient, diagnosis=diagnosis_of(patient, number))
        made.append(EncodedSlide.whole(slide, drawn.patches, drawn.fingerprint))
    return made


@pytest.fixture(params=CUTS.values(), ids=list(CUTS))
def specs(request):
    return request.param


async def filled(folder, specs, slides):
    shards = {
        s.name: DirectShard(Shard(ShardSettings(folder / s.name, s.name, s.selector, s.range)))
        for s in specs
    }
    client = AsyncClient.over(Router(Topology(specs), shards))
    await client.create_collection(DRAWN.collection)
    async for outcome in client.ingest("synthetic", slides):
        assert outcome.is_durable, outcome.error
    return client


def wide(mode):
    return SearchSettings(mode, max_distance=200)


async def left_out(client, slide, mode, ranking):
    query = Query(slide.patches, slide.fingerprint, wide(mode), patient=slide.slide.patient)
    exclude = Exclusion.of(slide.slide, patient=True)
    return await client.search("synthetic", query, k=12, exclude=exclude, ranking=ranking)


async def test_the_patient_is_never_returned_and_all_others_can_be(tmp_path, specs):
    slides = slides_of()
    assert len({slide.slide.patient for slide in slides}) == 6
    async with await filled(tmp_path, specs, slides) as client:
        for slide, mode in itertools.product(slides, [Mode.SISH, Mode.GUIDED, Mode.EXACT]):
            for ranking in Ranking:
                result = await left_out(client, slide, mode, ranking)
                found = [one.slide.patient for one in result.results]
                assert found, (slide.slide.slide_id, mode, ranking, result.reason)
                assert slide.slide.patient not in found
                assert result.eligible == 4 * (len(NAMES) - 2)
            patches = await client.search_patches(
                "synthetic", slide, mode=mode, max_distance=200,
                exclude=Exclusion.of(slide.slide, patient=True),
            )  # fmt: skip
            assert slide.slide.patient not in {found.patient for found in patches.slides}


async def test_the_patients_own_labels_change_nothing(tmp_path, specs):
    answers = []
    for place, own_label in enumerate(["d0", "rare"]):
        slides = slides_of(
            lambda patient, number, own=own_label: own if patient == "Mrs A" else f"d{number % 3}"
        )
        asked = next(slide for slide in slides if slide.slide.patient == "Mrs A")
        async with await filled(tmp_path / str(place), specs, slides) as client:
            results = [await left_out(client, asked, Mode.EXACT, ranking) for ranking in Ranking]
        answers.append([dataclasses.replace(result, elapsed_ms=0.0) for result in results])
    assert answers[0] == answers[1]
    assert answers[0][0].votes


async def test_the_patients_labels_are_not_counted_even_where_its_slides_may_be_found(
    tmp_path, specs
):
    slides = slides_of()
    asked = slides[0]
    own = Exclusion(patients=(asked.slide.patient,))
    async with await filled(tmp_path, specs, slides) as client:
        router = client._calls
        query = Query(asked.patches, asked.fingerprint, wide(Mode.EXACT), patient=own.patients[0])
        kept = await counts_of(router, query)
        dropped = await counts_of(
            router, dataclasses.replace(query, patient="", where=filter_of((), own))
        )
        every = await counts_of(router, dataclasses.replace(query, patient=""))
    assert kept == dropped
    assert sum(kept.values()) == sum(every.values()) - 2


async def counts_of(router, query):
    calls = [
        shard.search("synthetic", query, wants_examined=False, deadline=Deadline.after(60))
        for shard in router._shards.values()
    ]
    counts: dict[str, int] = {}
    for answer in await asyncio.gather(*calls):
        for label, n in answer.label_counts.items():
            counts[label] = counts.get(label, 0) + n
    return counts


async def test_a_case_of_several_patients_leaves_them_all_out(tmp_path, specs):
    slides = slides_of()
    case = [slides[0], slides[4], slides[8]]
    exclude = Exclusion.of_case([part.slide for part in case], patient=True)
    async with await filled(tmp_path, specs, slides) as client:
        result = await client.search_case(
            "synthetic", case, k=12, exclude=exclude, mode=Mode.EXACT, max_distance=200
        )
    patients = {part.slide.patient for part in case}
    assert len(patients) == 3
    assert result.results
    assert not patients & {found.slide.patient for found in result.results}
    assert result.n_query_patches == 12


def test_a_name_that_says_no_patient_is_never_left_out_by_guess():
    slide = Slide("liver 3", patient=patient_of("liver 3"))
    with pytest.raises(BadFilter, match="nobody said who that is"):
        Exclusion.of(slide, patient=True)
