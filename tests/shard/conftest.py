"""What the shard's tests share: small slides, settings of a shard, a server process, byte flips."""

import contextlib
import dataclasses
import os
import subprocess
import sys
import time

import grpc
import numpy as np
import pytest

from sish_cluster.core.collection import Collection
from sish_cluster.core.key import UNIVERSE
from sish_cluster.core.posting import EncodedSlide, PatchColumns
from sish_cluster.core.query import Filter, Mode, Query, SearchSettings
from sish_cluster.core.slide import Slide
from sish_cluster.shard.data_dir import DataDir
from sish_cluster.shard.settings import ShardSettings
from sish_cluster.shard.shard import Shard
from sish_cluster.wire.sish.v1 import shard_pb2, shard_pb2_grpc
from sish_cluster.wire.values import pack_collection, slide_parts

FINGERPRINT = "fingerprint-1"
DEMO = Collection("demo", fingerprint=FINGERPRINT, code_bits=128)
DIMENSIONS = 24
BOTH = Collection("both", fingerprint=FINGERPRINT, code_bits=128, dimensions=DIMENSIONS)
EMBEDDED = Collection(
    "embedded", fingerprint=FINGERPRINT, code_bits=0, dimensions=DIMENSIONS, has_keys=False
)


class Maker:
    """Makes slides and queries of 128-bit codes, and of embeddings of 24 dimensions."""

    fingerprint = FINGERPRINT
    collection = DEMO
    both = BOTH
    embedded = EMBEDDED

    def patches(self, rng_seed, n=5, *, low=0, high=UNIVERSE, code_bytes=16):
        rng = np.random.default_rng(rng_seed)
        return PatchColumns.of(
            rng.integers(low, high, n, dtype=np.uint64),
            rng.integers(0, 256, (n, code_bytes), dtype=np.uint8),
            rng.integers(0, 10**5, (n, 2), dtype=np.int32),
        )

    def slide(self, slide_id, rng_seed=0, n=5, *, fingerprint=FINGERPRINT, patches=None, **labels):
        columns = self.patches(rng_seed, n) if patches is None else patches
        return EncodedSlide.whole(Slide(slide_id, **labels), columns, fingerprint)

    def embedded_patches(self, rng_seed, n=5, *, code_bytes=16, dimensions=DIMENSIONS):
        rng = np.random.default_rng(rng_seed)
        plain = self.patches(rng_seed, n, code_bytes=max(1, code_bytes))
        codes = plain.codes[:, :code_bytes]
        embeddings = rng.standard_normal((n, dimensions))
        return PatchColumns.of(plain.keys, codes, plain.corners, embeddings=embeddings)

    def embedded_slide(self, slide_id, rng_seed=0, n=5, *, code_bytes=16, **labels):
        columns = self.embedded_patches(rng_seed, n, code_bytes=code_bytes)
        return self.slide(slide_id, patches=columns, **labels)

    def directly_found(self, shard, encoded, collection="both"):
        """Return the slide ids whose embeddings are those of a slide's own patches."""
        query = self.query(encoded.patches, mode=Mode.DIRECT, min_cosine=1.0)
        answer = shard.search(collection, query)
        counts = np.diff(answer.candidates.offsets).tolist()
        assert counts == [len(answer.slides)] * len(encoded.patches)
        return sorted(slide.slide_id for slide in answer.slides)

    def query(self, patches, *, where=None, **settings):
        chosen = {"mode": Mode.EXACT, "max_distance": 0} | settings
        return Query(patches, FINGERPRINT, SearchSettings(**chosen), where or Filter())

    def found(self, shard, encoded):
        """Return the slide ids found at distance 0 of a slide's own patches."""
        answer = shard.search("demo", self.query(encoded.patches))
        return sorted({slide.slide_id for slide in answer.slides})

    def filled(self, settings, *, n=12, patches=40):
        """Open, ingest n slides, close; return them by id."""
        slides = {f"s{i}": self.slide(f"s{i}", i, patches, patient=f"p{i}") for i in range(n)}
        with Shard(settings) as shard:
            shard.create_collection(self.collection)
            for encoded in slides.values():
                shard.ingest("demo", encoded)
        return slides

    def everything(self, shard):
        """Return all eligible postings with their slides, in an order of their own."""
        page = shard.range_lookup("demo", 0, 2**50, page_size=10_000)
        ids = [page.slides[row].slide_id for row in page.slide_rows]
        rows = zip(page.keys.tolist(), ids, page.numbers.tolist(), strict=True)
        columns = zip(rows, page.codes.tolist(), page.corners.tolist(), strict=True)
        state = shard.describe_collection("demo")
        return sorted(columns), state, [s.slide.slide_id for s in shard.list_slides("demo")]


@pytest.fixture
def make():
    return Maker()


@pytest.fixture
def settings(tmp_path):
    return ShardSettings(data_dir=tmp_path / "data")


@pytest.fixture
def eager(settings):
    """Settings under which every change is worth a checkpoint, when closing."""
    return dataclasses.replace(settings, checkpoint_postings=1, checkpoint_share=1.0)


@pytest.fixture
def never(settings):
    return dataclasses.replace(settings, checkpoint_postings=10**9)


@pytest.fixture
def checkpoint_path(settings):
    return DataDir(settings.data_dir).checkpoint("demo")


@pytest.fixture
def shard(settings):
    with Shard(settings) as opened:
        opened.create_collection(DEMO)
        yield opened


class ShardProcess:
    """A real ``sish shard serve`` on loopback, and a client of it."""

    def __init__(self, data_dir, *options):
        self.data_dir = data_dir
        self.options = options
        self.start()

    def start(self):
        port_file = self.data_dir.with_name(self.data_dir.name + ".port")
        port_file.unlink(missing_ok=True)
        serve = ["shard", "serve", "--data-dir", str(self.data_dir), "--listen", "127.0.0.1:0"]
        command = [sys.executable, "-m", "sish_cluster.cli", *serve]
        self.process = subprocess.Popen(
            [*command, "--port-file", str(port_file), *self.options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline_s = time.monotonic() + 60
        while not port_file.exists():
            if self.process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"no server: {self.process.communicate()[1]}")
            time.sleep(0.01)
        self.channel = grpc.insecure_channel(port_file.read_text())
        self.stub = shard_pb2_grpc.ShardServiceStub(self.channel)

    def kill(self):
        self.process.kill()
        self._reap()

    def stop(self):
        self.process.terminate()
        self._reap()
        return self.process.returncode

    def _reap(self):
        self.channel.close()
        self.process.communicate(timeout=60)

    def create(self, collection=DEMO):
        request = shard_pb2.CreateCollectionRequest(collection=pack_collection(collection))
        return self.stub.CreateCollection(request, timeout=30)

    def slides(self):
        request = shard_pb2.ListSlidesRequest(collection="demo")
        parts = self.stub.ListSlides(request, timeout=30)
        return {
            slide.slide_id: (version, postings)
            for part in parts
            for slide, version, postings in zip(
                part.slides, part.versions, part.postings, strict=True
            )
        }


def ingest_requests(encoded, *, collection="demo", state=2, is_home=True):
    """Yield a slide's messages for the ``Ingest`` rpc."""
    for part in slide_parts(encoded):
        yield shard_pb2.IngestRequest(
            collection=collection, part=part, state=state, is_home=is_home, home="shard"
        )


@pytest.fixture
def requests_of():
    return ingest_requests


@pytest.fixture
def serve(tmp_path):
    """Start shard servers that end with the test: ``serve(*options)``."""
    with contextlib.ExitStack() as stack:

        def started(*options, name="data"):
            server = ShardProcess(tmp_path / name, *options)
            stack.callback(lambda: server.process.poll() is None and server.kill())
            return server

        yield started


def flip_byte(path, place):
    """Flip every bit of one byte of a file."""
    with open(path, "r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 0xFF]))
        file.flush()
        os.fsync(file.fileno())


@pytest.fixture
def flip():
    return flip_byte
