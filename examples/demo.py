"""The main job on one machine: real slides in, ranked slides out, over a real cluster.

Starts two shards and a router as processes on loopback and an encoder whose actors Ray manages; indexes
most slides, asks with the ones it kept back and with one that is in the index, prints the table,
writes ``OUT/report.html``, and ends with what each stage took. Everything is kept in OUT, so a
second run encodes nothing again. Run it with ``make demo``.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from plan import HeldOut, Plan, few, plan_of
from rich.console import Console
from stages import Stages

from sish_cluster import Client
from sish_cluster.cli.failures import told_plainly
from sish_cluster.cli.output import failures_table, results_table, summary_of
from sish_cluster.cli.progress import SlideBars
from sish_cluster.client import Exclusion, filter_of
from sish_cluster.core.errors import BadSlide, Internal
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.query import Query, SearchSettings
from sish_cluster.core.topology import KeyRange
from sish_cluster.local.encoding import LocalEncoder, SlideFailure, SlideToEncode
from sish_cluster.local.indexing import FolderContents, ensured_collection, folder_contents
from sish_cluster.local.loopback import LoopbackCluster, ShardPlan
from sish_cluster.report import ReportSettings, Searched, SlideFile, SlideFiles, written_report
from sish_cluster.testing.slides import draw_slides

SHARED_SLIDES = Path(__file__).resolve().parents[2] / "shared" / "data" / "slides"
"""Real slides beside the project, used when they are there."""

CUT = 4 * 10**14
"""Key at which the two shards meet: about half of the largest key, 8.1e14."""

OUT = Console(highlight=False, width=None if sys.stdout.isatty() else 150)


def main() -> None:
    """Run the demonstration."""
    asked = _arguments()
    signal.signal(signal.SIGTERM, _interrupt)
    with told_plainly(is_debug=asked.debug), Stages() as stages:
        Demo(asked.out, asked.actors, stages).run(asked.slides, asked.limit)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="state and report")
    parser.add_argument("--slides", type=Path, help="folder of slides, with a labels.csv in it")
    parser.add_argument("--limit", type=int, help="use at most so many slides")
    parser.add_argument("--actors", type=int, help="encoder actors (default: one per core)")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser.parse_args()


def _interrupt(number: int, frame: FrameType | None) -> None:
    """End like Control-C, so that every context manager stops what it started."""
    raise KeyboardInterrupt


class Demo:
    """One run: where its state is kept, how many actors encode, what measures it."""

    def __init__(self, folder: Path, n_actors: int | None, stages: Stages) -> None:
        self._folder = folder
        self._stages = stages
        self._encoder = LocalEncoder(use_ray=True, n_actors=n_actors, cache=folder / "encoded")
        # Named after the encoder: a newer version's codes go into a collection of their own.
        self._collection = f"demo-{self._encoder.description.fingerprint[:8]}"
        self._failures: list[SlideFailure] = []

    def run(self, slides_dir: Path | None, limit: int | None) -> None:
        """Do all of it; a slide that fails is reported at the end."""
        with self._stages.stage("find the slides"):
            contents = self._contents(slides_dir)
            slides = few(contents.slides, limit)
            self._failures += contents.failures if limit is None else ()
        low, high = ShardPlan("low", range=KeyRange(0, CUT)), ShardPlan("high", range=KeyRange(CUT))
        with contextlib.ExitStack() as running:
            with self._stages.stage("start the cluster (2 shards, 1 router)"):
                cluster = running.enter_context(
                    LoopbackCluster(self._folder / "state", [low, high])
                )
            OUT.print(f"router on {cluster.address}; encoder: {self._encoder.description}")
            with self._stages.stage(f"read and encode {len(slides)} slides (Ray)"):
                encoded = self._encoded(slides)
            plan = plan_of([slide for slide in slides if slide.slide.slide_id in encoded])
            client = running.enter_context(Client(cluster.address))
            with self._stages.stage(f"ingest {len(plan.indexed)} slides"):
                self._ingest(client, plan, encoded)
            with self._stages.stage("search"):
                searches = self._searches(client, plan, encoded)
        self._printed(searches)
        self._report(searches, slides)
        self._end()

    def _contents(self, slides_dir: Path | None) -> FolderContents:
        """Return the slides given, or the shared ones, or drawn ones."""
        if slides_dir is None and SHARED_SLIDES.is_dir():
            slides_dir = SHARED_SLIDES
        if slides_dir is None:
            slides_dir = self._folder / "drawn"
            if not (slides_dir / "labels.csv").exists():
                OUT.print("no slides given: drawing some")
                draw_slides(slides_dir, patients=2, side_px=2048)
        nearby = [
            slides_dir / "labels.csv",
            slides_dir / "slides.csv",
            slides_dir.with_suffix(".csv"),
        ]
        labels = next((path for path in nearby if path.is_file()), None)
        contents = folder_contents(slides_dir, labels)
        if len(contents.slides) < 2:
            raise BadSlide(
                f"{slides_dir}: the demonstration needs 2 slides, one to ask for the other"
            )
        OUT.print(
            f"{len(contents.slides)} slides in {slides_dir}, labels from {labels or 'folders'}"
        )
        return contents

    def _encoded(self, slides: Sequence[SlideToEncode]) -> dict[str, EncodedSlide]:
        """Return the slides that could be encoded, by slide id; what is kept is not encoded again."""
        found: dict[str, EncodedSlide] = {}
        with SlideBars("encoding", total=len(slides)) as bars:
            for outcome in self._encoder.encoded(slides, watch=bars.watch):
                if isinstance(outcome, SlideFailure):
                    self._failures.append(outcome)
                    bars.done(outcome.slide_id, outcome)
                else:
                    found[outcome.slide.slide_id] = outcome
                    bars.done(outcome.slide.slide_id, None)
        if len(found) < 2:
            raise BadSlide(f"{len(found)} slides could be encoded; the demonstration needs 2")
        return found

    def _ingest(self, client: Client, plan: Plan, encoded: dict[str, EncodedSlide]) -> None:
        ensured_collection(client, self._collection, self._encoder.description)
        wanted = {slide.slide.slide_id for slide in plan.indexed}
        for stored in client.list_slides(self._collection):
            if stored.slide.slide_id not in wanted:  # of an interrupted run, or of other slides
                client.forget(self._collection, stored.slide.slide_id)
        outcomes = list(client.ingest(self._collection, [encoded[name] for name in sorted(wanted)]))
        failed = [SlideFailure(o.slide_id, o.error.message) for o in outcomes if o.error]
        self._failures += failed
        n_there = sum(outcome.was_stored for outcome in outcomes)
        OUT.print(
            f"{len(outcomes) - len(failed)} slides in the index, {n_there} were there already"
        )

    def _searches(
        self, client: Client, plan: Plan, encoded: dict[str, EncodedSlide]
    ) -> list[Searched]:
        known = plan.pair[0] if plan.pair else plan.indexed[0]
        asked = [*plan.held_out, HeldOut(known, "in the index: it must find itself, at distance 0")]
        searches = [
            self._search(client, encoded[held.slide.slide.slide_id], held.note) for held in asked
        ]
        _check_identity(searches[-1])
        if plan.pair is None:
            return searches
        inside, outside = (encoded[slide.slide.slide_id] for slide in plan.pair)
        return [*searches, self._other_way_round(client, inside, outside)]

    def _search(
        self, client: Client, encoded: EncodedSlide, note: str, *, exclude: Exclusion | None = None
    ) -> Searched:
        bound = client.definition_of(self._collection).max_distance
        query = Query(
            encoded.patches,
            encoded.fingerprint,
            SearchSettings(max_distance=bound),
            filter_of((), exclude or Exclusion()),
            patient=encoded.slide.patient,
        )
        result = client.search(self._collection, query, k=3)
        return Searched(encoded.slide, result, query.settings, query.where, note)

    def _other_way_round(
        self, client: Client, inside: EncodedSlide, outside: EncodedSlide
    ) -> Searched:
        """Ingest the pair's held-out slide, ask with its partner, and forget it again."""
        client.ingest_slide(self._collection, outside)
        try:
            note = (
                f"the other way round: {outside.slide.slide_id} ingested, the query itself left out"
            )
            own = Exclusion.of(inside.slide, slide_itself=True)
            return self._search(client, inside, note, exclude=own)
        finally:
            client.forget(self._collection, outside.slide.slide_id)

    def _printed(self, searches: Sequence[Searched]) -> None:
        table = [(search.slide.slide_id, search.result) for search in searches]
        OUT.print(results_table(table, title="slides that look alike"))
        for search in searches:
            OUT.print(f"[bold]{search.slide.slide_id}[/] ({search.note})")
            OUT.print(summary_of(search.result))

    def _report(self, searches: Sequence[Searched], slides: Sequence[SlideToEncode]) -> None:
        files = {slide.slide.slide_id: SlideFile(slide.path, slide.mpp) for slide in slides}
        about = self._encoder.description
        settings = ReportSettings(
            title="sish demo: slides that look alike",
            about=[("collection", self._collection), ("encoder", str(about))],
            code_bits=about.code_bits,
        )
        with self._stages.stage("write the report"), SlideFiles(files) as pictures:
            page = written_report(
                self._folder / "report.html", searches, pictures, settings=settings
            )
        OUT.print(f"report: [bold]{page}[/]")

    def _end(self) -> None:
        if self._failures:
            rows = [(failure.slide_id, failure.problem) for failure in self._failures]
            OUT.print(failures_table(rows))
        OUT.print(self._stages.table())


def _check_identity(searched: Searched) -> None:
    """Raise unless a slide that is in the index found itself first, at distance 0."""
    slide_id = searched.slide.slide_id
    first = searched.result.results[0] if searched.result.results else None
    if first is None or first.slide.slide_id != slide_id or first.distance:
        raise Internal(f"{slide_id} is in the index and did not find itself first, at distance 0")


if __name__ == "__main__":
    main()
