"""Run the sources of a batch: skip those that are done, report errors, choose the exit code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rnndet.errors import InputError, OutputError, RnndetError
from rnndet.inference.batch.done import NAME, DoneRecord, describe_job, find_done
from rnndet.inference.batch.jobs import Job
from rnndet.inference.counting import Regions
from rnndet.inference.results import Summary
from rnndet.inference.run import RunOptions, make_stream, run_source
from rnndet.inference.runtimes import Runtime
from rnndet.inference.stream import Stream
from rnndet.messages import counted
from rnndet.system.progress import Progress
from rnndet.video.sources.base import MAX_PIXELS, Source, without_password
from rnndet.video.sources.excerpt import Excerpt
from rnndet.video.sources.isolated import IsolatedSource
from rnndet.video.sources.live import LiveOptions
from rnndet.video.sources.open import open_source
from rnndet.video.synthetic.clip import SyntheticClip
from rnndet.video.window import Window

DEMO_SEED = 7
INTERRUPTED = {"exit_code": 130, "interrupted": True}


@dataclass(frozen=True, slots=True)
class ResultOptions:
    """The options that change the results of a video: done.json records all of them, no others.

    This is the only source of these options, so none can be missing from the record. Each has
    the name that it has in rnndet infer.
    """

    runtime: str = "torch"
    half: bool = False
    score_threshold: float | Mapping[str, float] = 0.3
    nms: float | None = None
    tracker: str = "byte"
    no_scene_cuts: bool = False
    key_every: int = 1
    key_lost: float = 0.0
    start: float = 0.0  # seconds
    end: float | None = None  # seconds
    stride: int = 1
    max_frames: int | None = None
    load_state: str | None = None
    save: tuple[str, ...] = ("video",)
    trails: int = 0
    coast: float = 0.0  # seconds
    classes: tuple[str, ...] | None = None  # names of the model's classes; None: all
    no_track_classes: bool = False
    regions: Regions | None = None
    tracker_options: dict[str, Any] = field(default_factory=dict)  # fields of its options
    size: int | None = None  # longer edge of the network's input; None: the model's

    @property
    def stream(self) -> dict[str, Any]:
        """Keyword arguments of `make_stream`."""
        return {
            "tracker": self.tracker,
            "tracker_options": self.tracker_options,
            "min_score": self.score_threshold,
            "nms": self.nms,
            "scene_cuts": not self.no_scene_cuts,
            "coast": self.coast,
            "key_every": self.key_every,
            "key_lost": self.key_lost,
            "classes": self.classes,
            "track_classes": not self.no_track_classes,
            "regions": self.regions,
            "size": self.size,
        }

    def to_dict(self) -> dict[str, Any]:
        """The options for done.json; as in records of earlier versions where that is the same."""
        newer = {
            "no_track_classes": False, "nms": None, "regions": None, "tracker_options": {},
            "size": None,
        }  # fmt: skip
        return {
            name: value
            for name, value in asdict(self).items()
            if name not in newer or value != newer[name]
        }


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """Options of a run over many sources. All but `results` leave the results unchanged."""

    out: Path
    results: ResultOptions
    resume: bool = False  # skip sources that are done
    overwrite: bool = False
    strict: bool = False  # exit code 1 for an incomplete source
    isolate: bool = False  # decode in a child process
    show: bool = False  # in a window
    max_pixels: int = MAX_PIXELS
    live: LiveOptions = field(default_factory=LiveOptions)  # its `stop` is that of the batch
    save_state: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """State shared by the sources of a run.

    header: added to the header of detections.jsonl; its "model" is that of `describe_model`. stop:
    whether the run is to end. say: called with each line for the user; say_error: with the error of
    a source. progress: of a job, given the expected number of frames.
    """

    options: BatchOptions
    header: Mapping[str, Any]
    stop: Callable[[], bool]
    say: Callable[[str], None]
    say_error: Callable[[RnndetError], None]
    progress: Callable[[Job, int | None], Progress]
    describe_error: Callable[[RnndetError], str] = str  # for the summary

    def run(self, job: Job, runtime: Runtime) -> dict[str, Any]:
        """Run a source, unless it is done; return its entry in the summary of the run."""
        entry = {"source": "demo" if job.source is None else without_password(job.source)}
        try:
            if job.problem is not None:
                raise job.problem
            return entry | self._run_unless_done(job, runtime)
        except KeyboardInterrupt:
            return entry | INTERRUPTED
        except (RnndetError, OSError) as error:
            return entry | self._failed(error, entry["source"])

    def _failed(self, error: RnndetError | OSError, source: str) -> dict[str, Any]:
        if self.stop() and isinstance(error, InputError):  # a live source that was still waiting
            return INTERRUPTED
        if not isinstance(error, RnndetError):
            error = InputError(f"{source}: {error.strerror or error}")
        self.say_error(error)
        return {"exit_code": error.exit_code, "error": self.describe_error(error)}

    def _run_unless_done(self, job: Job, runtime: Runtime) -> dict[str, Any]:
        options = self.options
        folder = options.out / job.name
        if job.source is None:  # the synthetic clip: quick to repeat, but never over a demo.mp4
            overwrite = options.overwrite or not (folder / NAME).exists()
            return self._run(job, runtime, overwrite=overwrite)
        made_from = describe_job(
            job.source,
            model_sha256=self.header["model"]["sha256"],
            options=options.results.to_dict(),
        )
        record = self._find_done(folder, made_from) if options.resume else None
        if record is not None and (record["whole"] or not options.strict):
            self.say(f"{job.name}: done already, {counted(record['frames'], 'frame')}")
            return {"exit_code": 0, "folder": job.name, "skipped": True, "frames": record["frames"]}
        overwrite = options.overwrite or options.resume  # results without a record are incomplete
        done = DoneRecord(made_from, without_password(job.source), strict=options.strict)
        return self._run(job, runtime, overwrite=overwrite, done=done)

    def _find_done(self, folder: Path, made_from: Mapping[str, Any]) -> dict[str, Any] | None:
        try:
            return find_done(folder, made_from)
        except OutputError:
            if not self.options.overwrite:
                raise
            return None

    def _run(
        self, job: Job, runtime: Runtime, *, overwrite: bool, done: DoneRecord | None = None
    ) -> dict[str, Any]:
        results = self.options.results
        stream = make_stream(runtime, **results.stream)
        run_options = RunOptions(
            name=job.name,
            header=self.header,
            save=results.save,
            trails=results.trails,
            max_frames=results.max_frames,
            overwrite=overwrite,
            load_state=results.load_state,
            save_state=self.options.save_state,
            done=done,
        )
        summary = self._run_stream(job, stream, run_options)
        for line in summary.lines():
            self.say(line)
        incomplete = self.options.strict and not summary.is_complete
        code = INTERRUPTED["exit_code"] if summary.interrupted else int(incomplete)
        return {"exit_code": code, "folder": job.name, **summary.to_dict()}

    def _run_stream(self, job: Job, stream: Stream, run_options: RunOptions) -> Summary:
        results = self.options.results
        with self._open(job) as source:
            if (results.start, results.end, results.stride) != (0.0, None, 1):
                source = Excerpt(
                    source, start=results.start, end=results.end, stride=results.stride
                )
            total = min(filter(None, [source.info.length, results.max_frames]), default=None)
            with (
                self.progress(job, total) as progress,
                Window() if self.options.show else nullcontext() as window,
            ):
                return run_source(
                    stream,
                    source,
                    self.options.out,
                    run_options,
                    show=window and window.show,
                    on_frame=progress.step,
                    stop=lambda: self.stop() or (window is not None and window.wants_end),
                )

    def _open(self, job: Job) -> AbstractContextManager[Source | SyntheticClip]:
        """Open the source of a job, or the synthetic clip. Raises InputError."""
        options = self.options
        if job.source is None:
            self.say("no SOURCE given: using a synthetic clip")
            return nullcontext(SyntheticClip(DEMO_SEED))
        live = replace(options.live, stop=self.stop)
        if options.isolate:
            return IsolatedSource(job.source, max_pixels=options.max_pixels, live=live)
        return open_source(job.source, max_pixels=options.max_pixels, live=live)


def exit_code_of(entries: Sequence[Mapping[str, Any]], *, signal_code: int = 0) -> int:
    """Return the exit code of a run: of its only source, or 1 if any of several failed.

    entries: of the summary. signal_code: of the signal that ended the run, 0 for none.

    >>> exit_code_of([{"exit_code": 3}]), exit_code_of([{"exit_code": 0}, {"exit_code": 3}])
    (3, 1)
    """
    if signal_code:
        return signal_code
    if entries and entries[-1].get("interrupted"):
        return INTERRUPTED["exit_code"]
    codes = [entry["exit_code"] for entry in entries]
    return codes[0] if len(codes) == 1 else int(any(codes))
