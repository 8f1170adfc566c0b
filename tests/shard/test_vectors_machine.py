"""A state machine: embeddings of a shard against a plain dictionary, reopened and checked at any moment."""

import math
import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from sish_cluster.core.collection import Collection
from sish_cluster.core.embedding import distance_of
from sish_cluster.core.posting import EncodedSlide, PatchColumns
from sish_cluster.core.query import Filter, Mode, Query, SearchSettings
from sish_cluster.core.seams import SlideState
from sish_cluster.core.slide import Slide
from sish_cluster.shard.check import checked
from sish_cluster.shard.data_dir import DataDir
from sish_cluster.shard.settings import ShardSettings
from sish_cluster.shard.shard import Shard

NAMES = st.sampled_from("abcd")
VERSIONS = st.integers(0, 3)
DIMENSIONS = 20
POOL = np.float16(np.random.default_rng(1).standard_normal((60, DIMENSIONS)) + 0.5)
COLLECTIONS = (
    Collection("both", "f", code_bits=64, dimensions=DIMENSIONS),
    Collection("embedded", "f", code_bits=0, dimensions=DIMENSIONS, has_keys=False),
)


def encoded_of(collection, name, version):
    rng = np.random.default_rng(ord(name) * 10 + version)
    n = [0, 3, 7, 40][version]
    keys = rng.integers(0, 2**50, n, dtype=np.uint64)
    codes = rng.integers(0, 256, (n, collection.code_bytes), dtype=np.uint8)
    patches = PatchColumns.of(keys, codes, embeddings=POOL[rng.permutation(60)[:n]])
    return EncodedSlide.whole(Slide(name, site="lung" if version % 2 else "skin"), patches, "f")


def cosine_of(a, b):
    a, b = a.astype(float), b.astype(float)
    return math.fsum(a * b) / math.sqrt(math.fsum(a * a) * math.fsum(b * b))


COSINES = np.array([[cosine_of(a, b) for b in POOL] for a in POOL[:3]])


class VectorsMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.settings = ShardSettings(
            self.folder / "data", group_wait_s=0.0, checkpoint_postings=1, checkpoint_share=0.5
        )
        self.shard = Shard(self.settings)
        for collection in COLLECTIONS:
            self.shard.create_collection(collection)
        self.committed = {collection.name: {} for collection in COLLECTIONS}
        self.pending = {collection.name: {} for collection in COLLECTIONS}

    def teardown(self):
        self.shard.close()
        report = checked(DataDir(self.settings.data_dir))
        assert (report.damage, report.checkpoint_damage) == ([], [])
        shutil.rmtree(self.folder)

    @rule(collection=st.sampled_from(COLLECTIONS), name=NAMES, version=VERSIONS)
    def ingest(self, collection, name, version):
        self.shard.ingest(collection.name, encoded_of(collection, name, version))
        self.committed[collection.name][name] = version
        self.pending[collection.name].pop((name, version), None)

    @rule(collection=st.sampled_from(COLLECTIONS), name=NAMES, version=VERSIONS)
    def ingest_pending(self, collection, name, version):
        encoded = encoded_of(collection, name, version)
        self.shard.ingest(collection.name, encoded, state=SlideState.PENDING)
        if self.committed[collection.name].get(name) != version:
            self.pending[collection.name][name, version] = encoded.version

    @rule(collection=st.sampled_from(COLLECTIONS))
    def commit_all(self, collection):
        pending = self.pending[collection.name]
        for (name, version), digest in list(pending.items()):
            self.shard.commit_slide(collection.name, name, digest)
            self.committed[collection.name][name] = version
            del pending[name, version]

    @rule(collection=st.sampled_from(COLLECTIONS), name=NAMES)
    def forget(self, collection, name):
        self.shard.forget(collection.name, name)
        self.committed[collection.name].pop(name, None)
        for key in [key for key in self.pending[collection.name] if key[0] == name]:
            del self.pending[collection.name][key]

    @rule()
    def reopen(self):
        self.shard.close()
        self.shard = Shard(self.settings)

    @rule(collection=st.sampled_from(COLLECTIONS))
    def compact(self, collection):
        self.shard._held(collection.name).compact()

    @rule(
        collection=st.sampled_from(COLLECTIONS),
        site=st.sampled_from(["lung", "skin", ""]),
        least=st.sampled_from([-1.0, 0.3, 1.0]),
        k=st.sampled_from([0, 2]),
    )
    def search(self, collection, site, least, k):
        codes = np.zeros((3, 0), np.uint8)
        patches = PatchColumns.of([1, 2, 3], codes, embeddings=POOL[:3])
        chosen = SearchSettings(Mode.DIRECT, min_cosine=least, max_candidates=k)
        where = Filter.of(keep={"site": [site]} if site else {})
        answer = self.shard.search(collection.name, Query(patches, "f", chosen, where))
        found = answer.candidates
        for patch in range(3):
            rows = found.rows_of(patch)
            ids = [answer.slides[s].slide_id for s in found.slides[rows]]
            columns = (found.distances[rows].tolist(), ids, found.numbers[rows].tolist())
            expected = self._expected(collection, patch, site, least)[: k or None]
            assert list(zip(*columns, strict=True)) == expected

    def _expected(self, collection, patch, site, least):
        rows = []
        for name, version in self.committed[collection.name].items():
            encoded = encoded_of(collection, name, version)
            if site in ("", encoded.slide.site):
                for number, row in enumerate(encoded.patches.embeddings):
                    pool_row = int(np.flatnonzero((row == POOL).all(axis=1))[0])
                    cosine = COSINES[patch, pool_row]
                    if cosine >= least:
                        rows.append((int(distance_of(cosine)), name, number))
        return sorted(rows)

    @rule(collection=st.sampled_from(COLLECTIONS), name=NAMES)
    def get_back(self, collection, name):
        found = self.shard.encoded_slide(collection.name, name)
        version = self.committed[collection.name].get(name)
        assert (found is None) == (version is None)
        if found is not None:
            encoded = encoded_of(collection, name, version)
            assert found.version == encoded.version
            assert np.array_equal(found.patches.embeddings, encoded.patches.embeddings)
            assert np.array_equal(found.patches.codes, encoded.patches.codes)


TestVectorsMachine = VectorsMachine.TestCase
TestVectorsMachine.settings = hypothesis_settings(
    max_examples=25, stateful_step_count=25, deadline=None
)
