"""What a file can do to its decoder process costs the clip it was, and nothing else. Every fault here is a real one."""

import os
import signal
import threading
import time
from dataclasses import replace

import pytest

from pipelines import decoder as decoder_module
from pipelines.decoder import DecodeJob, Decoder, DecoderStartError, StoredClip, _DiedError
from pipelines.messages import ClipFailure, ClipRequest, SourceRequest
from pipelines.source import DecodeLimits
from schemas.features import MODALITIES, FeatureSpec, RgbSpec
from tests.media import gray_level, ordinary_clip, steady, tone, write_media

FEATURES = FeatureSpec(rgb=RgbSpec(fps=10.0, fixed_size_px=(48, 64)))


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    ordinary_clip(root / "a.mp4", seconds=2.0)
    write_media(
        root / "long.mp4",
        pts_s=steady(120.0),
        picture=lambda i: gray_level(i % 200),
        sound=tone(440, seconds=120.0),
        video_codec="libx264",
        gop=50,
    )
    return root


@pytest.fixture
def decoder():
    made = Decoder()
    yield made
    made.close()


def job(videos, **limits):
    return DecodeJob(videos=str(videos), features=FEATURES, limits=DecodeLimits(**limits))


def request(uri, *spans):
    clips = tuple(ClipRequest(clip_id=f"{uri}@{s}-{e}", start_s=s, end_s=e) for s, e in spans or [(None, None)])
    return SourceRequest(uri=uri, clips=clips, modalities=MODALITIES)


def results(decoder, asked, work):
    return {answer.index: answer.made for answer in decoder.clips(asked, work)}


def bytes_of(made):
    assert isinstance(made, StoredClip)
    return {name: batch.serialize().to_pybytes() for name, batch in made.batches.items()}, made.presence, made.note


def strike(decoder, sent, monkeypatch, which):
    """Sends a signal to the process as soon as it has been asked for something ``which`` says yes to."""
    honest = Decoder._ask

    def ask(self, asked, work):
        if which(asked):
            process = self._started()
            os.kill(process.pid, sent)
        yield from honest(self, asked, work)

    monkeypatch.setattr(Decoder, "_ask", ask)


def test_clips_of_one_file_come_from_one_process(decoder, videos):
    made = results(decoder, request("a.mp4", (0.0, 1.0), (0.5, 2.0)), job(videos))
    process = decoder._process.pid
    assert all(isinstance(clip, StoredClip) for clip in made.values())
    results(decoder, request("a.mp4"), job(videos))
    assert decoder._process.pid == process


def test_a_clip_that_kills_the_decoder_twice_fails_alone_and_by_name(decoder, videos, monkeypatch):
    asked = request("a.mp4", (0.0, 0.5), (0.5, 1.0), (1.0, 1.5))
    whole = results(decoder, asked, job(videos))
    strike(decoder, signal.SIGSEGV, monkeypatch, lambda r: any(c.start_s == 0.5 for c in r.clips))
    made = results(decoder, asked, job(videos))
    assert made[1].reason == "decoder-crash"
    assert "SIGSEGV" in made[1].message
    for index in (0, 2):
        assert bytes_of(made[index]) == bytes_of(whole[index])


def test_a_kill_from_outside_loses_nothing(decoder, videos, monkeypatch):
    whole = results(decoder, request("a.mp4"), job(videos))
    strikes = iter([True, False])
    strike(decoder, signal.SIGKILL, monkeypatch, lambda r: next(strikes))
    again = results(decoder, request("a.mp4"), job(videos))
    assert bytes_of(again[0]) == bytes_of(whole[0])


def test_a_kill_in_the_middle_of_the_work_loses_nothing(decoder, videos):
    spans = [(float(i), i + 1.5) for i in range(0, 100, 2)]
    whole = results(decoder, request("long.mp4", *spans), job(videos))

    def kill():
        time.sleep(0.15)
        os.kill(decoder._process.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    again = results(decoder, request("long.mp4", *spans), job(videos))
    killer.join()
    assert {i: bytes_of(made) for i, made in again.items()} == {i: bytes_of(made) for i, made in whole.items()}


def test_kills_at_several_places_of_one_file_never_divide_its_request(decoder, videos, monkeypatch):
    asked = request("long.mp4", *[(float(i), i + 1.5) for i in range(9)])
    after, wanted = iter([2, 5, 7]), []
    honest = Decoder._ask

    def ask(self, some, work):
        wanted.append(some)
        last = next(after, None)
        for count, answer in enumerate(honest(self, some, work), start=1):
            yield answer
            if count == last:
                raise _DiedError("it was ended by SIGKILL")

    monkeypatch.setattr(Decoder, "_ask", ask)
    made = results(decoder, asked, job(videos))
    assert all(isinstance(clip, StoredClip) for clip in made.values())
    assert wanted == [asked] * 4  # What a clip's sound is to the last bit depends on what is asked for with it.


def test_a_decoder_that_hangs_is_ended_and_its_clip_too_slow(decoder, videos, monkeypatch):
    monkeypatch.setattr(decoder_module, "GRACE_S", 0.5)
    strike(decoder, signal.SIGSTOP, monkeypatch, lambda r: True)
    made = results(decoder, request("a.mp4"), job(videos, max_decode_s=1.0))
    assert (made[0].reason, made[0].stage) == ("too-slow", "video")
    assert decoder._process is None


def test_a_file_that_hangs_again_and_again_is_given_up(decoder, videos, monkeypatch):
    monkeypatch.setattr(decoder_module, "GRACE_S", 0.2)
    asked = []
    strike(decoder, signal.SIGSTOP, monkeypatch, lambda r: asked.append(r) or True)
    made = results(
        decoder, request("a.mp4", *[(i / 10, i / 10 + 0.1) for i in range(9)]), job(videos, max_decode_s=0.3)
    )
    assert {clip.reason for clip in made.values()} == {"too-slow"}
    assert len(asked) == 1 + decoder_module.MAX_HANGS


def test_the_process_ends_itself_when_nobody_is_left_to_do_it(videos):
    decoder = Decoder()
    answers = decoder.clips(request("a.mp4"), job(videos))
    next(answers)
    process = decoder._process
    process.stdin.close()
    assert process.wait(10) == 0
    answers.close()
    decoder.close()


def test_memory_is_limited_and_the_next_clip_is_made(decoder, videos):
    tight = job(videos, max_memory_gib=0.02)
    (failure,) = results(decoder, request("long.mp4"), replace(tight, features=large())).values()
    assert isinstance(failure, ClipFailure)
    assert failure.reason == "out-of-memory"
    assert "--limits.max-memory-gib" in failure.message
    assert isinstance(results(decoder, request("a.mp4"), job(videos))[0], StoredClip)


def large():
    return FeatureSpec(rgb=RgbSpec(fps=10.0, fixed_size_px=(480, 640)))


def test_answers_that_are_not_read_are_not_taken_for_others(decoder, videos):
    unread = decoder.clips(request("a.mp4", (0.0, 0.5), (0.5, 1.0), (1.0, 1.5)), job(videos))
    next(unread)
    unread.close()
    made = results(decoder, request("a.mp4", (1.0, 2.0)), job(videos))
    assert made[0].presence["duration_s"] == 1.0


def test_an_answer_that_makes_no_sense_is_a_crash(decoder, videos, monkeypatch):
    monkeypatch.setattr(Decoder, "_read_json", lambda self, wait_s: {"index": 7, "versions": {}})
    made = results(decoder, request("a.mp4"), job(videos))
    assert made[0].reason == "decoder-crash"


def test_downloads_of_a_process_that_died_are_removed(decoder, videos, monkeypatch):
    results(decoder, request("a.mp4"), job(videos))
    scratch = decoder._scratch
    assert os.path.isdir(scratch)
    os.kill(decoder._process.pid, signal.SIGKILL)
    decoder._process.wait()
    results(decoder, request("a.mp4"), job(videos))
    assert not os.path.exists(scratch)


def test_versions_are_those_of_the_process_that_computes(decoder, videos):
    results(decoder, request("a.mp4"), job(videos))
    assert {"av", "numpy", "opencv", "pyarrow", "torch", "torchaudio", "libavcodec"} == set(decoder.versions())


def test_a_decoder_that_cannot_be_started_is_no_fault_of_the_clips(decoder, videos, monkeypatch):
    monkeypatch.setattr(decoder_module.sys, "executable", "/bin/false")
    with pytest.raises(DecoderStartError, match="does not start: it exited with status 1"):
        results(decoder, request("a.mp4"), job(videos))


@pytest.mark.parametrize("sent", [b"\xff\xff\xff\xff", b"\x02\x00\x00\x00[]"])
def test_what_a_damaged_decoder_says_is_a_crash_and_takes_no_memory(decoder, videos, monkeypatch, sent):
    honest = Decoder._read
    decoder._started()
    said = iter(sent)

    def read(self, size, wait_s):
        return bytearray(next(said) for _ in range(size)) if self is decoder else honest(self, size, wait_s)

    monkeypatch.setattr(Decoder, "_read", read)
    with pytest.raises(_DiedError, match="made no sense"):
        decoder._read_json(1.0)


def test_a_request_larger_than_the_pipe_to_a_process_that_reads_nothing_is_given_up(decoder, videos, monkeypatch):
    monkeypatch.setattr(decoder_module, "GRACE_S", 0.2)
    strike(decoder, signal.SIGSTOP, monkeypatch, lambda r: True)
    asked = request("a.mp4", *[(i / 1000, i / 1000 + 0.1) for i in range(3000)])
    made = results(decoder, asked, job(videos, max_decode_s=0.3))
    assert {clip.reason for clip in made.values()} == {"too-slow"}
