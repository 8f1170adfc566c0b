"""A state machine: a shard against a plain dictionary, with reopening at any moment.

It is opened again with the checkpoint as it is, with none, with one it had long ago, and with a damaged one.
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sish_cluster.core.collection import Collection
from sish_cluster.core.errors import UnknownSlide
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
ROWS = 40
POOL_KEYS = np.sort(np.random.default_rng(1).integers(0, 2**50, ROWS, dtype=np.uint64))
POOL_CODES = np.random.default_rng(2).integers(0, 256, (ROWS, 16), dtype=np.uint8)


def encoded_of(name, version):
    rows = np.random.default_rng(ord(name) * 10 + version).permutation(ROWS)[: 3 + version * 4]
    patches = PatchColumns.of(POOL_KEYS[rows], POOL_CODES[rows])
    slide = Slide(name, site="lung" if version % 2 else "brain")
    return EncodedSlide.whole(slide, patches, "f")


class ShardMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.settings = ShardSettings(
            self.folder / "data", group_wait_s=0.0, checkpoint_postings=1, checkpoint_share=0.5
        )
        self.checkpoint = DataDir(self.settings.data_dir).checkpoint("demo")
        self.old = self.folder / "old.ckpt"
        self.shard = Shard(self.settings)
        self.shard.create_collection(Collection("demo", fingerprint="f", code_bits=128))
        self.committed = {}
        self.pending = {}

    def teardown(self):
        self.shard.close()
        report = checked(DataDir(self.settings.data_dir))
        assert (report.damage, report.checkpoint_damage) == ([], [])
        shutil.rmtree(self.folder)

    @rule(name=NAMES, version=VERSIONS)
    def ingest_committed(self, name, version):
        outcome = self.shard.ingest("demo", encoded_of(name, version))
        known = self.committed.get(name) == version or (name, version) in self.pending
        assert outcome.was_stored == known
        if self.committed.get(name) != version:
            self.pending.pop((name, version), None)
            self.committed[name] = version

    @rule(name=NAMES, version=VERSIONS)
    def ingest_pending(self, name, version):
        encoded = encoded_of(name, version)
        outcome = self.shard.ingest("demo", encoded, state=SlideState.PENDING)
        known = self.committed.get(name) == version or (name, version) in self.pending
        assert outcome.was_stored == known
        if not known:
            self.pending[name, version] = encoded.version

    @rule(name=NAMES, version=VERSIONS)
    def commit(self, name, version):
        known = self.committed.get(name) == version or (name, version) in self.pending
        try:
            self.shard.commit_slide("demo", name, encoded_of(name, version).version)
        except UnknownSlide:
            assert not known
            return
        assert known
        if self.pending.pop((name, version), None):
            self.committed[name] = version

    @rule(name=NAMES)
    def forget(self, name):
        outcome = self.shard.forget("demo", name)
        gone = [key for key in self.pending if key[0] == name]
        was_here = bool(gone) or name in self.committed
        assert outcome.was_stored == was_here
        self.committed.pop(name, None)
        for key in gone:
            del self.pending[key]

    @rule(name=NAMES, version=VERSIONS)
    def forget_pending(self, name, version):
        outcome = self.shard.forget("demo", name, pending_version=encoded_of(name, version).version)
        assert outcome.was_stored == (self.pending.pop((name, version), None) is not None)

    @rule(checkpoint=st.sampled_from(["kept", "none", "old", "damaged"]), place=st.floats(0, 1))
    def reopen(self, checkpoint, place):
        self.shard.close()
        is_here = self.checkpoint.exists()
        if is_here and not self.old.exists():
            shutil.copy(self.checkpoint, self.old)
        if checkpoint == "none":
            self.checkpoint.unlink(missing_ok=True)
        if checkpoint == "old" and self.old.exists():
            shutil.copy(self.old, self.checkpoint)
        if checkpoint == "damaged" and is_here:
            content = bytearray(self.checkpoint.read_bytes())
            content[int(place * (len(content) - 1))] ^= 0x10
            self.checkpoint.write_bytes(content)
        self.shard = Shard(self.settings)
        self.shard._held("demo").index.check()

    @rule(site=st.sampled_from(["lung", "brain", ""]), max_distance=st.sampled_from([0, 50, 64]))
    def search(self, site, max_distance):
        where = Filter.of(keep={"site": [site]} if site else {})
        chosen = SearchSettings(mode=Mode.EXACT, max_distance=max_distance)
        patches = PatchColumns.of(POOL_KEYS[:3], POOL_CODES[:3])
        answer = self.shard.search("demo", Query(patches, "f", chosen, where))
        found = answer.candidates
        for patch in range(3):
            rows = found.rows_of(patch)
            ids = [answer.slides[s].slide_id for s in found.slides[rows]]
            numbers = found.numbers[rows].tolist()
            distances = found.distances[rows].tolist()
            expected = self._expected(patch, site, max_distance)
            assert list(zip(distances, ids, numbers, strict=True)) == expected

    def _expected(self, patch, site, max_distance):
        rows = []
        for name, version in self.committed.items():
            encoded = encoded_of(name, version)
            if site and encoded.slide.site != site:
                continue
            for number, code in enumerate(encoded.patches.codes):
                distance = int(np.bitwise_count(code ^ POOL_CODES[patch]).sum())
                if distance <= max_distance:
                    rows.append((distance, name, number))
        return sorted(rows)

    @invariant()
    def counts_agree(self):
        state = self.shard.describe_collection("demo")
        postings = sum(3 + 4 * version for version in self.committed.values())
        counts = (state.slides, state.postings, state.pending)
        assert counts == (len(self.committed), postings, len(self.pending))
        listed = {s.slide.slide_id: s.version for s in self.shard.list_slides("demo")}
        assert listed == {n: encoded_of(n, v).version for n, v in self.committed.items()}
        pending = {(p.slide_id, p.version) for p in self.shard.list_pending("demo")}
        assert pending == {(name, version) for (name, _), version in self.pending.items()}


TestShardMachine = ShardMachine.TestCase
TestShardMachine.settings = hypothesis_settings(
    max_examples=25, stateful_step_count=25, deadline=None
)
