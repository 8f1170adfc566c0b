import dataclasses

import numpy as np
import pytest

from sish_cluster import open_home
from sish_cluster.client import EncoderDescription
from sish_cluster.core.errors import BadRequest, BadSlide, FingerprintMismatch, ShardUnavailable
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.slide import Slide
from sish_cluster.local.asking import (
    case_slide,
    encoded_case,
    query_region,
    query_slide,
    with_known_labels,
)
from sish_cluster.local.encoding import SlideFailure, SlideProgress, SlideToEncode
from sish_cluster.local.indexing import indexed
from sish_cluster.local.keeping import Keep, collection_of, usual_keep
from sish_cluster.testing.synthetic import SyntheticSlides

DRAWN = SyntheticSlides(patches=3)
DESCRIPTION = EncoderDescription("none", "synthetic", 1024, "drawn keys", "drawn codes")


class DrawingEncoder:
    """Draws codes where an encoder would read pixels; slides called bad fail."""

    def __init__(self, description=DESCRIPTION):
        self.description = description
        self.asked = []
        self.was_closed = False

    def encoded(self, slides, *, watch=lambda progress: None, wants_embeddings=False):
        try:
            for number, wanted in enumerate(slides):
                self.asked.append(wanted.slide.slide_id)
                watch(SlideProgress(wanted.slide.slide_id, "encoding", 3, 3))
                if "bad" in wanted.slide.slide_id:
                    yield SlideFailure(wanted.slide.slide_id, "no tissue: scan it again")
                else:
                    drawn = DRAWN.slide(number)
                    yield dataclasses.replace(drawn, slide=wanted.slide)
        finally:
            self.was_closed = True


def wanted(*names):
    return [SlideToEncode(None, Slide(name, patient=name)) for name in names]


@pytest.fixture
def client(tmp_path):
    with open_home(tmp_path) as client:
        yield client


def test_a_failing_slide_is_reported_and_the_others_are_stored(client):
    done = []
    report = indexed(
        client,
        "demo",
        wanted("a", "bad", "c"),
        DrawingEncoder(),
        on_done=lambda name, failure: done.append((name, failure is None)),
    )
    assert [slide.slide_id for slide in report.stored] == ["a", "c"]
    assert report.failures == [SlideFailure("bad", "no tissue: scan it again")]
    assert done == [("a", True), ("bad", False), ("c", True)]
    assert client.describe_collection("demo").slides == 2


def test_the_collection_is_made_with_the_encoders_fingerprint(client):
    indexed(client, "demo", wanted("a"), DrawingEncoder())
    made = client.definition_of("demo")
    assert (made.fingerprint, made.code_bits) == ("synthetic", 1024)
    assert "drawn keys" in made.encoder


def test_another_encoders_collection_is_refused_before_anything_is_encoded(client):
    indexed(client, "demo", wanted("a"), DrawingEncoder())
    other = DrawingEncoder(dataclasses.replace(DESCRIPTION, fingerprint="other"))
    with pytest.raises(FingerprintMismatch, match="other"):
        indexed(client, "demo", wanted("b"), other)
    assert other.asked == []


def test_an_interrupted_indexing_closes_the_encoder_and_keeps_what_is_stored(client):
    encoder = DrawingEncoder()

    def interrupt(name, failure):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        indexed(client, "demo", wanted("a", "b"), encoder, on_done=interrupt)
    assert encoder.was_closed
    assert encoder.asked == ["a"]
    assert [s.slide.slide_id for s in client.list_slides("demo")] == ["a"]


def test_a_slide_that_is_refused_by_the_cluster_is_reported_as_not_stored(client):
    class WrongCodes(DrawingEncoder):
        def encoded(self, slides, *, watch=None, wants_embeddings=False):
            yield dataclasses.replace(DRAWN.slide(0), fingerprint="changed meanwhile")

    report = indexed(client, "demo", wanted("a"), WrongCodes())
    assert [f.slide_id for f in report.failures] == ["slide-0000"]
    assert "encoded, but not stored" in report.failures[0].problem


def test_a_query_that_cannot_be_encoded_says_why():
    with pytest.raises(BadSlide, match="no tissue: scan it again"):
        encoded_case(wanted("bad")[:1], DrawingEncoder())


def test_a_query_takes_the_labels_its_file_has_in_the_collection(client):
    known = dataclasses.replace(DRAWN.slide(0).slide, digest="d1")
    client.create_collection(DRAWN.collection)
    client.ingest_slide("synthetic", dataclasses.replace(DRAWN.slide(0), slide=known))
    bare = dataclasses.replace(DRAWN.slide(0), slide=Slide(known.slide_id, digest="d1"))
    assert with_known_labels(client, "synthetic", bare).slide.patient == "patient-0"
    other = dataclasses.replace(bare, slide=Slide(known.slide_id, digest="d2"))
    assert with_known_labels(client, "synthetic", other).slide.patient == ""


class Away:
    """A cluster one shard of which is away: its slides cannot be listed."""

    def list_slides(self, collection, *, slide_id):
        raise ShardUnavailable("shard 'b' cannot be reached")


def test_a_query_goes_without_labels_while_a_shard_is_away():
    bare = dataclasses.replace(DRAWN.slide(0), slide=Slide("a", digest="d1"))
    assert with_known_labels(Away(), "synthetic", bare) is bare


def test_a_query_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(BadSlide, match="there is no such file"):
        query_slide(tmp_path / "no.svs")


@pytest.mark.parametrize(
    ("keep", "columns"),
    [(Keep.CODES, (1024, 0)), (Keep.EMBEDDINGS, (0, 8)), (Keep.BOTH, (1024, 8))],
    ids=str,
)
def test_a_collection_keeps_what_was_asked_for_and_nothing_else(client, keep, columns):
    class Embedding(DrawingEncoder):
        def encoded(self, slides, *, watch=None, wants_embeddings=False):
            drawn = DRAWN.slide(0)
            rows = np.ones((len(drawn.patches), 8 if wants_embeddings else 0), np.float16)
            patches = dataclasses.replace(drawn.patches, embeddings=rows)
            yield EncodedSlide.whole(slides[0].slide, patches, drawn.fingerprint)

    encoder = Embedding(dataclasses.replace(DESCRIPTION, dimensions=8))
    report = indexed(client, "demo", wanted("a"), encoder, keep=keep)
    made = client.definition_of("demo")
    assert not report.failures
    assert (made.code_bits, made.dimensions) == columns
    patches = client.encoded_slide("demo", "a").patches
    assert (8 * patches.code_bytes, patches.dimensions) == columns


def test_an_encoder_without_keys_makes_a_collection_of_embeddings():
    keyless = dataclasses.replace(DESCRIPTION, dimensions=8, has_keys=False)
    assert (usual_keep(DESCRIPTION), usual_keep(keyless)) == (Keep.CODES, Keep.EMBEDDINGS)
    assert not collection_of("demo", keyless, Keep.BOTH).has_keys
    with pytest.raises(BadRequest, match="gives codes alone"):
        collection_of("demo", DESCRIPTION, Keep.BOTH)


def test_a_case_is_called_after_its_slides_and_has_the_labels_they_share():
    parts = [
        dataclasses.replace(DRAWN.slide(i), slide=Slide(f"s{i}", patient="p", site=f"organ-{i}"))
        for i in range(2)
    ]
    assert case_slide(parts[:1]) is parts[0].slide
    case = case_slide(parts)
    assert (case.slide_id, case.patient, case.site) == ("s0 + s1", "p", "")


def test_a_case_without_one_of_its_slides_is_refused_and_so_are_two_of_one_name():
    with pytest.raises(BadSlide, match="no tissue"):
        encoded_case(wanted("a", "bad"), DrawingEncoder())
    with pytest.raises(BadRequest, match="two slides of the case are called 'a'"):
        encoded_case(wanted("a", "a"), DrawingEncoder())


def test_a_query_has_one_region():
    assert query_region() is None
    with pytest.raises(BadRequest, match="not both"):
        query_region(rectangle="0,0,1,1", file="a.geojson")
