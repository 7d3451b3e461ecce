"""A store that does not answer is asked again, and in the end is one line, whatever is read or written there."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from gblend import storage
from gblend.clips import ClipReader, read_dataset_info
from gblend.config import TrainConfig
from gblend.outputs import HeadOutputs, load_outputs, save_outputs
from gblend.prefetch import Prefetch
from gblend.records import HeadScore, read_json, read_lines, write_json, write_lines, write_text
from gblend.run_files import finished_run
from gblend.shard_cache import StoredFile
from gblend.shard_files import ShardFiles
from gblend.state_files import StateFiles
from gblend.storage import asked, delete, entries, exists, read_bytes, write_bytes
from schemas import FeatureSpec, RgbSpec
from schemas.store_errors import StoreError
from tests.gblend.shards import gradient_clip, write_dataset, write_done

METHODS = ("cat_file", "info", "ls", "open", "pipe_file", "mv", "rm")
SECRET = "http://10.0.0.1/?key=AKIAKEY"


class ClientError(Exception):
    """As clients have them: no `OSError`, and its message names the endpoint."""


class Flaky:
    """Memory as a remote store of which every n-th request fails: with ``each`` 3 every third one, with 1 all."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.each, self.error, self.asked, self.waits_s = 0, ClientError(SECRET), 0, []
        for name in METHODS:  # Of the class: every thread has a file system of its own.
            monkeypatch.setattr(MemoryFileSystem, name, self._of(getattr(MemoryFileSystem, name)))
        monkeypatch.setattr(storage.time, "sleep", self.waits_s.append)
        self._inside = threading.local()

    def _of(self, method: Callable) -> Callable:
        def call(*args: object, **kwargs: object) -> object:
            if getattr(self._inside, "on", False):  # The methods call each other.
                return method(*args, **kwargs)
            self.asked += 1
            if self.each and self.asked % self.each == 0:
                raise self.error
            self._inside.on = True
            try:
                return method(*args, **kwargs)
            finally:
                self._inside.on = False

        return call


@pytest.fixture
def flaky(monkeypatch) -> Iterator[Flaky]:
    found = Flaky(monkeypatch)
    yield found
    found.each = 0
    delete("memory://flaky")


SCORES = HeadScore(loss_nats=1.0, metrics={"accuracy": 0.5}, count=2)
OUTPUTS = HeadOutputs(
    heads=("rgb",),
    log_probs=np.zeros((1, 2, 3), np.float32),
    counted=np.ones((1, 2), bool),
    labels=np.zeros(2, np.int64),
    positions=np.arange(2),
)


def save_state(place: str) -> str:
    files = StateFiles(directory=place, settings={}, say=print)
    files.newest()
    files.write({"records": "7", "0.parameters": {}}, at="here")
    return StateFiles(directory=place, settings={}, say=print).newest()["records"]


WRITTEN_AND_READ = {
    "a document": lambda place: (write_json(f"{place}/a", {"x": 1}), read_json(f"{place}/a"))[1],
    "lines": lambda place: (write_lines(f"{place}/a", [SCORES]), read_lines(f"{place}/a")[0]["count"])[1],
    "outputs": lambda place: (
        save_outputs(f"{place}/a", {"": {"val": OUTPUTS}}),
        load_outputs(f"{place}/a")["val"].heads,
    )[1],
    "a state": save_state,
    "names": lambda place: (write_bytes(f"{place}/d/a", b""), entries(f"{place}/d"), exists(f"{place}/e"))[1:],
}


@pytest.mark.parametrize("what", WRITTEN_AND_READ)
def test_a_store_that_fails_now_and_then_gives_what_a_disk_gives(flaky, tmp_path, what):
    flaky.each = 3
    use = WRITTEN_AND_READ[what]
    assert use("memory://flaky") == use(str(tmp_path))
    assert flaky.waits_s


@pytest.mark.parametrize(
    "use",
    [
        lambda place: read_dataset_info(place),
        lambda place: ShardFiles(place).stored("train/00000", "rgb.arrow"),
        lambda place: read_json(f"{place}/a"),
        lambda place: read_lines(f"{place}/a"),
        lambda place: write_text(f"{place}/a", "x"),
        lambda place: finished_run(place, {}),
        lambda place: StateFiles(directory=place, settings={}).newest(),
        lambda place: exists(f"{place}/a"),
    ],
)
def test_a_store_that_never_answers_is_one_line_after_four_attempts_and_says_no_more_than_it_must(flaky, use):
    flaky.each = 1
    with pytest.raises(
        StoreError, match=r"^memory://flaky\S* cannot be used, 4 attempts failed: ClientError; "
    ) as told:
        use("memory://flaky")
    assert (flaky.asked, flaky.waits_s) == (4, [1.0, 4.0, 16.0])
    assert not any(part in str(told.value) for part in (SECRET, "\n"))


@pytest.mark.parametrize("error", [PermissionError("Forbidden"), type("NoCredentialsError", (Exception,), {})(SECRET)])
def test_what_asking_again_cannot_mend_is_told_at_once(flaky, error):
    flaky.each, flaky.error = 1, error
    with pytest.raises(StoreError, match=r"^memory://flaky/a cannot be used: (access is denied|there are no cred)"):
        read_json("memory://flaky/a")
    assert (flaky.asked, flaky.waits_s) == (1, [])


def test_that_a_file_is_not_there_is_an_answer(flaky):
    with pytest.raises(FileNotFoundError):
        read_bytes("memory://flaky/a")
    assert not exists("memory://flaky/a")
    assert flaky.waits_s == []


def test_a_url_whose_client_is_not_installed_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(ValueError, match=r"^gs://bucket/dataset\.json cannot be used: .*: pip install 'gcsfs', on Ray"):
        read_dataset_info("gs://bucket")


def test_an_error_of_a_local_file_is_left_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(storage.time, "sleep", lambda seconds: pytest.fail("nothing to wait for"))

    def ask(fs: object, place: str) -> None:
        raise IsADirectoryError(place)

    with pytest.raises(IsADirectoryError):
        asked(str(tmp_path), ask)


def test_clips_read_by_ranges_come_whole_from_a_store_that_fails_now_and_then(flaky, tmp_path, monkeypatch):
    write_dataset(tmp_path, {"train": [gradient_clip("c0", seed=0)]}, spec=FeatureSpec(rgb=RgbSpec(fps=20.0)))
    write_done(tmp_path)
    fsspec.filesystem("memory").put(f"{tmp_path}/", "/flaky/", recursive=True)
    plain, turns = fsspec.filesystem("memory").open, iter(range(10**6))

    def failing(*args: object, **kwargs: object) -> object:
        file = plain(*args, **kwargs)
        read = file.read

        def read_or_fail(size: int = -1) -> bytes:
            found = read(size)
            if next(turns) % 2 == 0:
                raise ClientError(SECRET)  # And it is no longer where it was.
            return found

        return SimpleNamespace(read=read_or_fail, seek=file.seek, tell=file.tell, close=lambda: None)

    monkeypatch.setattr(fsspec.filesystem("memory"), "open", failing)
    info = read_dataset_info(str(tmp_path))
    there, here = (
        ClipReader(ShardFiles(place), info, ("rgb",)).read("train/00000", 0).rgb
        for place in ("memory://flaky", str(tmp_path))
    )
    assert [bytes(image) for image in there] == [bytes(image) for image in here]
    assert flaky.waits_s


def test_local_bytes_are_on_the_disk_before_the_file_has_its_name(tmp_path, monkeypatch):
    events, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (events.append(os.readlink(f"/proc/self/fd/{file}")), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda old, new: (events.append((old, new)), replace(old, new)))
    path = tmp_path / "run" / "config.json"
    write_text(str(path), "x")
    partial = events[0]
    assert Path(partial).name.startswith("config.json.partial-")
    assert events == [partial, (partial, str(path))]
    assert path.read_text() == "x"


@pytest.mark.parametrize(("text", "told"), [("", "no JSON document"), ('{"epochs": ', "no JSON document")])
def test_a_damaged_document_is_named_with_what_to_do(tmp_path, text, told):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"^{path} is damaged: it is {told} .*; restore it, or delete the directory"):
        read_json(str(path))


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("config.json", "[]", "is damaged: it holds \\[\\] instead of an object; restore it"),
        ("config.json", "", "is damaged: it is no JSON document"),
        ("result.json", "[]", "is damaged: it holds \\[\\] instead of an object; restore it"),
        ("result.json", "{}", "was not written by this version of gblend"),
    ],
)
def test_a_run_whose_documents_are_damaged_is_not_gone_on_with(tmp_path, name, text, told):
    settings = TrainConfig(name="test").to_json()
    write_json(str(tmp_path / "config.json"), settings)
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=f"^{tmp_path / name} {told}"):
        finished_run(str(tmp_path), settings)


class Taken(Prefetch):
    """Another thread takes the last file whenever this one looks at where they are without the lock."""

    @property
    def _next(self) -> int:
        at = self.__dict__.get("at", 0)
        if not self._turn._is_owned():
            self.__dict__["at"] = at + 1
        return at

    @_next.setter
    def _next(self, at: int) -> None:
        self.__dict__["at"] = at


@pytest.fixture
def died(monkeypatch) -> list:
    """Errors that ended a thread."""
    found: list = []
    monkeypatch.setattr(threading, "excepthook", lambda args: found.append(args.exc_value))
    return found


def test_threads_that_fetch_ahead_agree_on_where_they_are(died):
    fetched: list = []
    file = StoredFile(url="memory://a", sha256="", size=1)
    files = ShardFiles("memory://flaky")
    files.cache = SimpleNamespace(fetch=fetched.append)  # pyright: ignore[reportAttributeAccessIssue]
    files.stored = lambda shard, name: file
    Taken(files, [[("train/00000", "rgb.arrow")]], ahead_bytes=10).join()
    assert (died, fetched) == ([], [file])


def test_a_source_that_does_not_answer_ends_fetching_ahead_without_a_traceback(flaky, died):
    flaky.each = 1
    files = ShardFiles("memory://flaky")
    files.cache = SimpleNamespace(fetch=pytest.fail)  # pyright: ignore[reportAttributeAccessIssue]
    Prefetch(files, [[("train/00000", "rgb.arrow")]], ahead_bytes=10).join()
    assert died == []
    assert flaky.asked == 4


def test_a_deletion_ends_though_something_seems_to_be_left(tmp_path, monkeypatch):
    """The mark of a directory in an object store, which no listing of files holds."""
    (tmp_path / "run").mkdir()
    monkeypatch.setattr("gblend.storage.exists", lambda url: True)
    storage.delete(str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
