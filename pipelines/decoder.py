"""The side of a decoder process that is never in danger: it asks, waits with a limit, and knows which clip it was.

A source's clips are asked for together. When the process dies, they are asked for once more: the blow may have come
from outside, and then the shard is as if nothing had been. When it dies again at the same place, or does not answer in
time, those that have no answer yet are asked for one by one, so that only the clip that does it fails, blamed the
second time only.
"""

import atexit
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa

from pipelines.messages import GRACE_S, LENGTH, ClipFailure, SourceRequest, framed, request_to_json
from pipelines.scratch import process_scratch
from pipelines.source import DecodeError, DecodeLimits, DecoderCrashError, OutOfMemoryError, TooSlowError
from schemas.features import FeatureSpec, Modality
from schemas.shards import feature_schema

START_S = 120.0
"""How long a process may take to start and import what it needs, on a busy machine."""

ATTEMPTS = 2
"""How often a process ends at the same place before clips are asked for one by one, or the one asked for is blamed."""

MAX_ATTEMPTS = 5
"""How often clips are asked for together at most, wherever the process ends."""

MAX_HANGS = 2
"""A source of which so many clips have hung is not tried further: each costs the whole time limit."""

MAX_HEAD_BYTES = 1 << 24
"""A longer head comes from a decoder whose memory is damaged, and is not read."""

PIPE_BYTES = 1 << 20
"""An answer of usual size fits the pipe, so the process goes on while the answer is being written to disk."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredClip:
    """A clip as it goes into the files of a shard."""

    presence: dict[str, Any]
    """The columns of ``clips.arrow`` that are not in the manifest."""
    batches: dict[Modality, pa.RecordBatch]
    """One row per modality computed."""
    note: str | None
    """Damage survived and parts missing, for the ledger."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What came of one clip of a request."""

    index: int
    """Which of the request's clips."""
    made: StoredClip | ClipFailure
    """The clip, or why there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeJob:
    """What all requests of a dataset have in common."""

    videos: str
    """Root of the media files: path or fsspec URL."""
    features: FeatureSpec
    """What to compute, and how."""
    limits: DecodeLimits
    """What one clip may cost."""


class DecoderStartError(RuntimeError):
    """There is no decoder process to be had, for a reason that lies in no file."""


class _DiedError(Exception):
    """The process ended in the middle of a request, or what it said was no answer."""


class _HungError(Exception):
    """The process did not answer in time."""


class Decoder:
    """A decoder process, started when it is needed and again after it has died."""

    def __init__(self) -> None:
        self._versions: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._scratch = ""

    def clips(self, request: SourceRequest, job: DecodeJob) -> Iterator[Answer]:
        """An answer for every clip of a request, in the order in which they are complete. No file makes it raise.

        Raises:
            DecoderStartError: The process cannot be started.
        """
        waiting = list(range(len(request.clips)))
        for answer in self._try(request, job):
            waiting.remove(answer.index)
            yield answer
        hangs = 0
        for index in waiting:
            if hangs >= MAX_HANGS:
                yield _failed(index, TooSlowError(f"not tried: {hangs} clips of this file took more than the limit"))
                continue
            alone = list(self._try(replace(request, clips=(request.clips[index],)), job))
            yield replace(alone[0], index=index)
            made = alone[0].made
            hangs += isinstance(made, ClipFailure) and made.reason == TooSlowError.reason

    def versions(self) -> dict[str, str]:
        """Versions of the libraries that decide the stored values, as the process has them."""
        if not self._versions:
            self._start()
        return self._versions

    def _try(self, request: SourceRequest, job: DecodeJob) -> Iterator[Answer]:
        """Answers for the clips of a request, asked for together, and again in a fresh process if that died.

        A clip that is asked for alone always gets one: then there is nothing else to blame.
        """
        waiting = set(range(len(request.clips)))
        troubles: dict[int, Answer] = {}
        ends: Counter[int] = Counter()
        while max(ends.values(), default=0) < ATTEMPTS and ends.total() < MAX_ATTEMPTS:
            answered = 0
            try:
                # All of them again, answered or not: what is asked for together is decoded together, and the noise that
                # some sound decoders make up depends on where they began.
                for answer in self._ask(request, job):
                    answered += 1
                    if _may_be_ours(answer):
                        troubles[answer.index] = answer
                    elif answer.index in waiting:
                        waiting.remove(answer.index)
                        yield answer
            except _HungError:
                error = TooSlowError(f"decoding took more than {job.limits.max_decode_s:g} s, the decoder was ended")
                troubles.update({index: _failed(index, error) for index in waiting})
                break
            except _DiedError as died:
                error = DecoderCrashError(f"the decoder process died of this clip: {died}")
                troubles.update({index: _failed(index, error) for index in waiting})
            if not waiting:
                return
            self.close()
            ends[answered] += 1  # Blows from outside fall anywhere, a file's own always at the same place.
        if len(request.clips) == 1:
            yield from (troubles[index] for index in waiting)

    def _ask(self, request: SourceRequest, job: DecodeJob) -> Iterator[Answer]:
        """The answers of the process, as they come."""
        self._start()
        asked = {
            "request": request_to_json(request),
            "videos": job.videos,
            "features": job.features.to_json(),
            "limits": asdict(job.limits),
            "scratch": self._scratch,
        }
        wait_s = job.limits.max_decode_s + GRACE_S
        ended = False
        try:
            self._write(framed(asked), wait_s)
            while not (head := self._read_json(wait_s)).get("end"):
                yield self._answer(head, request, job, wait_s)
            ended = True
        except BrokenPipeError:
            raise _DiedError(self._last_words()) from None
        finally:
            if not ended:
                self.close()  # Answers that nobody reads must not be taken for those to the next request.

    def _answer(self, head: dict[str, Any], request: SourceRequest, job: DecodeJob, wait_s: float) -> Answer:
        try:
            index = head["index"]
            clip = request.clips[index]
            if "failure" in head:
                return Answer(index=index, made=ClipFailure(**head["failure"]))
            batches: dict[Modality, pa.RecordBatch] = {}
            for modality, size in head["batches"]:
                if not 0 <= size <= job.limits.max_memory_gib * 2**30:
                    raise ValueError(f"a batch of {size} bytes")
                schema = feature_schema(modality, job.features)
                batch = pa.ipc.read_record_batch(pa.py_buffer(self._read(size, wait_s)), schema)
                batch.validate(full=True)
                if batch.num_rows != 1 or batch["clip_id"][0].as_py() != clip.clip_id:
                    raise ValueError("another clip than asked for")
                batches[modality] = batch
            return Answer(index=index, made=StoredClip(presence=head["presence"], batches=batches, note=head["note"]))
        except (KeyError, IndexError, TypeError, ValueError, pa.ArrowException) as error:
            # A damaged decoder may say anything.
            raise _DiedError(f"its answer made no sense: {error}") from error

    def _start(self) -> None:
        """Have a process that runs; one that dies while it starts may have been killed from outside."""
        try:
            self._started()
        except DecoderStartError:
            self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._scratch = tempfile.mkdtemp(dir=process_scratch())
            # The packages may come from anywhere, such as the working directory of a submitted job.
            path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "pipelines.decoder_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
                bufsize=0,
            )
            assert self._process.stdout is not None
            if hasattr(fcntl, "F_SETPIPE_SZ"):
                with contextlib.suppress(OSError):  # Over the user's quota a pipe keeps its usual size.
                    fcntl.fcntl(self._process.stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            try:
                self._versions = self._read_json(START_S)["versions"]
            except (_DiedError, _HungError) as trouble:
                self.close()
                raise DecoderStartError(
                    f"the decoder process does not start: {trouble}; see the worker's log"
                ) from None
        return self._process

    def _read_json(self, wait_s: float) -> dict[str, Any]:
        (length,) = LENGTH.unpack(self._read(LENGTH.size, wait_s))
        if length > MAX_HEAD_BYTES:
            raise _DiedError("its answer made no sense")
        try:
            head = json.loads(self._read(length, wait_s))
        except ValueError as error:
            raise _DiedError(f"its answer made no sense: {error}") from None
        if not isinstance(head, dict):
            raise _DiedError("its answer made no sense")
        return head

    def _write(self, data: bytes, wait_s: float) -> None:
        """Send a request, which may be larger than the pipe, to a process that may read no more."""
        assert self._process is not None
        assert self._process.stdin is not None
        handle = self._process.stdin.fileno()
        os.set_blocking(handle, False)
        until_s = time.monotonic() + wait_s
        ready = select.poll()
        ready.register(handle, select.POLLOUT)
        view = memoryview(data)
        while view:
            left_s = until_s - time.monotonic()
            if left_s <= 0 or not ready.poll(left_s * 1000):
                raise _HungError(f"no answer in {wait_s:.0f} s")
            with contextlib.suppress(BlockingIOError):
                view = view[os.write(handle, view) :]

    def _read(self, size: int, wait_s: float) -> bytearray:
        """So many bytes, or an exception."""
        assert self._process is not None
        assert self._process.stdout is not None
        handle = self._process.stdout.fileno()
        until_s = time.monotonic() + wait_s
        ready = select.poll()
        ready.register(handle, select.POLLIN)
        data = bytearray(size)
        view, got = memoryview(data), 0
        while got < size:
            left_s = until_s - time.monotonic()
            if left_s <= 0 or not ready.poll(left_s * 1000):
                raise _HungError(f"no answer in {wait_s:.0f} s")
            count = os.readv(handle, [view[got:]])
            if count == 0:
                raise _DiedError(self._last_words())
            got += count
        return data

    def _last_words(self) -> str:
        """How the process ended."""
        assert self._process is not None
        try:
            status = self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            return "it closed its output"
        if status >= 0:
            return f"it exited with status {status}"
        return f"it was ended by {signal.Signals(-status).name}"

    def close(self) -> None:
        """End the process, whatever it is doing, and remove what it had downloaded."""
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process.kill()
            self._process.wait()
            self._process = None
            shutil.rmtree(self._scratch, ignore_errors=True)


_decoder = Decoder()
"""One per process: starting one takes seconds, so it serves shard after shard."""

atexit.register(_decoder.close)


def shared_decoder() -> Decoder:
    """The decoder of this process."""
    return _decoder


def _may_be_ours(answer: Answer) -> bool:
    """Whether a failure may come from what the process had done before, and not from this clip."""
    return isinstance(answer.made, ClipFailure) and answer.made.reason == OutOfMemoryError.reason


def _failed(index: int, error: DecodeError) -> Answer:
    return Answer(index=index, made=ClipFailure(stage=error.stage, reason=error.reason, message=str(error)))
