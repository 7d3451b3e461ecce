"""The process that touches media files: reads requests from its standard input, answers on its standard output.

Whatever a file does to it, a crash, a hang, or memory without end, ends this process and no other; `pipelines.decoder`
starts it, watches it and says which clip it was. The two speak as `pipelines.messages` says.
"""

import json
import math
import os
import resource
import signal
from contextlib import suppress
from dataclasses import asdict
from typing import Any, BinaryIO

import av
import cv2
import numpy as np
import pyarrow as pa
import torch
import torchaudio

from pipelines.clip import ClipResult, make_clips
from pipelines.flow import warm_up
from pipelines.messages import GRACE_S, LENGTH, ClipFailure, framed, request_from_json
from pipelines.source import DecodeLimits
from schemas.features import FeatureSpec, Modality
from schemas.shards import feature_schema


def main() -> None:
    """Answer requests until there are no more."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # What libraries print must not get between answers.
    pa.array(np.zeros(1))  # Arrow imports what it needs for the first array; no clip is charged for that.
    answers.write(framed({"ready": True, "versions": versions()}))
    answers.flush()
    while (head := requests.read(LENGTH.size)) != b"":
        answer(json.loads(requests.read(*LENGTH.unpack(head))), answers)


def answer(asked: dict[str, Any], answers: BinaryIO) -> None:
    """Write the answers to one request."""
    limits = DecodeLimits(**asked["limits"])
    features = FeatureSpec.from_json(asked["features"])
    request = request_from_json(asked["request"])
    if "flow" in request.modalities:
        with suppress(ValueError):  # Weights that cannot be had: each clip's row says so.
            warm_up(features.flow)
    _limit_memory(limits.max_memory_gib)
    # Ends the process in the middle of whatever C code it hangs in, also when nobody is left to do it.
    alarm_s = math.ceil(limits.max_decode_s + 2 * GRACE_S)
    signal.alarm(alarm_s)
    for result in make_clips(
        request, videos=asked["videos"], features=features, limits=limits, scratch=asked["scratch"]
    ):
        signal.alarm(alarm_s)
        _write(result, features, answers)
    signal.alarm(0)
    answers.write(framed({"end": True}))
    answers.flush()


def _limit_memory(max_gib: float) -> None:
    """Let allocations fail beyond a limit, counted as Linux does; where there is no /proc there is no limit."""
    try:
        with open("/proc/self/status") as status:
            used = next(int(line.split()[1]) << 10 for line in status if line.startswith("VmData:"))
    except FileNotFoundError:
        return
    global _base
    _base = _base or used
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = _base + int(max_gib * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


_base = 0
"""Memory in use before the first clip."""


def _write(result: ClipResult, features: FeatureSpec, answers: BinaryIO) -> None:
    made = result.made
    if isinstance(made, ClipFailure):
        answers.write(framed({"index": result.index, "failure": asdict(made)}))
        answers.flush()
        return
    batches: list[tuple[Modality, pa.Buffer]] = []
    for modality, values in made.features.items():
        schema = feature_schema(modality, features)
        arrays = [pa.array([values.get(field.name)], type=field.type) for field in schema]
        batches.append((modality, pa.record_batch(arrays, schema=schema).serialize()))
    head = {"index": result.index, "presence": made.presence, "note": made.note}
    answers.write(framed({**head, "batches": [[name, buffer.size] for name, buffer in batches]}))
    for _, buffer in batches:
        answers.write(memoryview(buffer))
    answers.flush()


def versions() -> dict[str, str]:
    """What decides the stored values besides the spec."""
    # Asked of the modules: OpenCV comes from any of four distributions.
    modules = {"av": av, "numpy": np, "opencv": cv2, "pyarrow": pa, "torch": torch, "torchaudio": torchaudio}
    codec = ".".join(str(part) for part in av.library_versions["libavcodec"])
    return {**{name: str(module.__version__) for name, module in modules.items()}, "libavcodec": codec}


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:
        os._exit(1)  # Nobody is left to answer; closing what is buffered would fail once more.
