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
from sish_cluster.core.errors import BadSlide, SishError
from sish_cluster.core.posting import EncodedSlide
from sish_cluster.core.query import Query, SearchSettings
from sish_cluster.core.topology import KeyRange
from sish_cluster.local.encoding import LocalEncoder, SlideFailure, SlideToEncode
from sish_cluster.local.indexing import FolderContents, folder_contents, indexed
from sish_cluster.local.loopback import LoopbackCluster, ShardPlan
from sish_cluster.report import ReportSettings, Searched, SlideFile, SlideFiles, written_report
from sish_cluster.testing.slides import draw_slides

COLLECTION = "demo"
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
        self._failures: list[SlideFailure] = []

    def run(self, slides_dir: Path | None, limit: int | None) -> None:
        """Do all of it; a slide that fails is reported at the end."""
        with self._stages.stage("find the slides"):
            contents = self._contents(slides_dir)
            slides = few(contents.slides, limit)
            plan = plan_of(slides)
            self._failures += contents.failures if limit is None else ()
        low, high = ShardPlan("low", range=KeyRange(0, CUT)), ShardPlan("high", range=KeyRange(CUT))
        with contextlib.ExitStack() as running:
            with self._stages.stage("start the cluster (2 shards, 1 router)"):
                cluster = running.enter_context(
                    LoopbackCluster(self._folder / "state", [low, high])
                )
                client = running.enter_context(Client(cluster.address))
            OUT.print(f"router on {cluster.address}; encoder: {self._encoder.description}")
            self._index(client, plan)
            searches = self._searches(client, plan)
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

    def _index(self, client: Client, plan: Plan) -> None:
        with self._stages.stage(f"encode and ingest {len(plan.indexed)} slides"):
            self._forget_queries(client, plan)
            with SlideBars("indexing", total=len(plan.indexed)) as bars:
                report = indexed(
                    client, COLLECTION, plan.indexed, self._encoder,
                    watch=bars.watch, on_done=bars.done,
                )  # fmt: skip
            self._failures += report.failures
        OUT.print(f"{len(report.stored)} slides stored, {len(report.unchanged)} unchanged")

    def _forget_queries(self, client: Client, plan: Plan) -> None:
        """Take back slides that an interrupted run, or one with other slides, left in the index."""
        wanted = {slide.slide.slide_id for slide in plan.indexed}
        if COLLECTION in {found.name for found in client.list_collections()}:
            for stored in client.list_slides(COLLECTION):
                if stored.slide.slide_id not in wanted:
                    client.forget(COLLECTION, stored.slide.slide_id)

    def _searches(self, client: Client, plan: Plan) -> list[Searched]:
        known = plan.pair[0] if plan.pair else plan.indexed[0]
        asked = [*plan.held_out, HeldOut(known, "in the index: it must find itself, at distance 0")]
        with self._stages.stage(f"encode {len(plan.held_out)} queries"):
            encoded = self._encoded([held.slide for held in asked])
        with self._stages.stage("search"):
            searches = [
                self._search(client, encoded[held.slide.slide.slide_id], held.note)
                for held in asked
                if held.slide.slide.slide_id in encoded
            ]
            searches += self._other_way_round(client, plan, encoded)
        table = [(search.slide.slide_id, search.result) for search in searches]
        OUT.print(results_table(table, title="slides that look alike"))
        for search in searches:
            OUT.print(f"[bold]{search.slide.slide_id}[/] ({search.note})")
            OUT.print(summary_of(search.result))
        self._check_identity(searches, known)
        return searches

    def _encoded(self, slides: Sequence[SlideToEncode]) -> dict[str, EncodedSlide]:
        found: dict[str, EncodedSlide] = {}
        with SlideBars("queries", total=len(slides)) as bars:
            for outcome in self._encoder.encoded(slides, watch=bars.watch):
                if isinstance(outcome, SlideFailure):
                    self._failures.append(outcome)
                    bars.done(outcome.slide_id, outcome)
                else:
                    found[outcome.slide.slide_id] = outcome
                    bars.done(outcome.slide.slide_id, None)
        return found

    def _search(
        self, client: Client, encoded: EncodedSlide, note: str, *, exclude: Exclusion | None = None
    ) -> Searched:
        bound = client.definition_of(COLLECTION).max_distance
        query = Query(
            encoded.patches,
            encoded.fingerprint,
            SearchSettings(max_distance=bound),
            filter_of((), exclude or Exclusion()),
            patient=encoded.slide.patient,
        )
        result = client.search(COLLECTION, query, k=3)
        return Searched(encoded.slide, result, query.settings, query.where, note)

    def _other_way_round(
        self, client: Client, plan: Plan, encoded: dict[str, EncodedSlide]
    ) -> list[Searched]:
        """Ingest the pair's held-out slide, ask with its partner, and forget it again."""
        if plan.pair is None or not {s.slide.slide_id for s in plan.pair} <= encoded.keys():
            return []
        inside, outside = (encoded[slide.slide.slide_id] for slide in plan.pair)
        client.ingest_slide(COLLECTION, outside)
        try:
            note = (
                f"the other way round: {outside.slide.slide_id} ingested, the query itself left out"
            )
            own = Exclusion.of(inside.slide, slide_itself=True)
            return [self._search(client, inside, note, exclude=own)]
        finally:
            client.forget(COLLECTION, outside.slide.slide_id)

    def _check_identity(self, searches: Sequence[Searched], known: SlideToEncode) -> None:
        """Raise unless the slide that is in the index found itself first, at distance 0."""
        slide_id = known.slide.slide_id
        own = next((s for s in searches if s.slide.slide_id == slide_id and not s.where), None)
        first = own.result.results[0] if own and own.result.results else None
        if own and (first is None or first.slide.slide_id != slide_id or first.distance):
            raise SishError(f"{slide_id} is in the index and did not find itself at distance 0")

    def _report(self, searches: Sequence[Searched], slides: Sequence[SlideToEncode]) -> None:
        files = {slide.slide.slide_id: SlideFile(slide.path, slide.mpp) for slide in slides}
        about = self._encoder.description
        settings = ReportSettings(
            title="sish demo: slides that look alike",
            about=[("collection", COLLECTION), ("encoder", str(about))],
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


if __name__ == "__main__":
    main()
