"""The cache of remote shard files: what is in it is right, whatever is killed or damaged, and it keeps its limit."""

import errno
import fcntl
import hashlib
import io
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

from gblend import shard_cache
from gblend.batches import training_batches, training_loader
from gblend.clips import ClipReader, read_dataset_info, read_index
from gblend.config import ComputeConfig, InputConfig, TrainConfig
from gblend.data import load_run_data
from gblend.feeder import Feeding, tight_cache
from gblend.prefetch import Prefetch
from gblend.shard_cache import ShardCache, StoredFile
from gblend.shard_files import ShardFiles
from schemas import FeatureSpec, RgbSpec
from schemas.store_errors import StoreError
from tests.gblend.shards import gradient_clip, write_dataset, write_done

SIZE = 100_000
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def source() -> Iterator[str]:
    """A folder in memory, seen by this process and those it forks."""
    fs = fsspec.filesystem("memory")
    fs.mkdir("/source")
    yield "memory://source"
    fs.rm("/source", recursive=True)


def put(source: str, name: str, *, size: int = SIZE) -> StoredFile:
    data = np.random.default_rng(sum(name.encode())).bytes(size)
    with fsspec.open(f"{source}/{name}", "wb") as file:
        file.write(data)
    return StoredFile(url=f"{source}/{name}", sha256=hashlib.sha256(data).hexdigest(), size=size)


def make_cache(tmp_path: Path, *, files: float = 10, **given) -> ShardCache:
    return ShardCache(str(tmp_path / "cache"), limit_bytes=int(files * SIZE), **given)


def content(cache: ShardCache, file: StoredFile) -> str:
    return hashlib.sha256(memoryview(cache.open(file))).hexdigest()


def names(tmp_path: Path) -> set[str]:
    """Files in the cache by what they hold."""
    return {path.name for path in (tmp_path / "cache").iterdir() if path.name != "lock"}


def name(file: StoredFile) -> str:
    return f"{file.sha256}.arrow"


def test_a_file_is_fetched_once_and_then_read_from_the_disk(source, tmp_path):
    file, cache = put(source, "a"), make_cache(tmp_path)
    assert content(cache, file) == file.sha256
    fsspec.filesystem("memory").rm("/source/a")
    assert content(make_cache(tmp_path), file) == file.sha256
    assert names(tmp_path) == {name(file)}


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty", "longer"])
def test_a_damaged_copy_is_noticed_and_fetched_again(source, tmp_path, damage):
    file, cache = put(source, "a"), make_cache(tmp_path)
    cache.fetch(file)
    copy = tmp_path / "cache" / name(file)
    data = copy.read_bytes()
    if damage == "flipped":
        with copy.open("r+b") as opened:
            opened.seek(SIZE // 2)
            opened.write(bytes([data[SIZE // 2] ^ 1]))
    else:
        copy.write_bytes({"truncated": data[:-1], "empty": b"", "longer": data + b"x"}[damage])
    assert content(cache, file) == file.sha256


def test_a_copy_that_was_only_touched_is_checked_and_kept(source, tmp_path):
    file, cache = put(source, "a"), make_cache(tmp_path)
    cache.fetch(file)
    fsspec.filesystem("memory").rm("/source/a")
    os.utime(tmp_path / "cache" / name(file))
    assert content(cache, file) == file.sha256


def in_child(work) -> multiprocessing.Process:
    child = FORK.Process(target=work)
    child.start()
    return child


def wait_for(holds) -> None:
    deadline_s = time.monotonic() + 20.0
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_who_waits_for_a_download_goes_on_when_another_process_has_mapped_the_file_first(source, tmp_path):
    file, cache = put(source, "a"), make_cache(tmp_path)
    path = tmp_path / "cache" / name(file)
    part = Path(f"{path}.part")
    part.parent.mkdir()
    with fsspec.open(file.url) as data:
        part.write_bytes(data.read())
    with part.open() as mapped:
        fcntl.flock(mapped, fcntl.LOCK_SH)
        waiting = threading.Thread(target=cache.fetch, args=(file,), daemon=True)
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        os.utime(part, ns=(0, shard_cache.CHECKED_NS))
        part.rename(path)
        waiting.join(10.0)
        assert not waiting.is_alive()
    assert names(tmp_path) == {name(file)}


def test_a_download_that_was_killed_leaves_nothing_that_is_taken_for_the_file(source, tmp_path, monkeypatch):
    file, cache = put(source, "a"), make_cache(tmp_path)
    part = tmp_path / "cache" / f"{name(file)}.part"

    def half(descriptor: int, data: bytes) -> None:
        os.write(descriptor, data[: len(data) // 2])
        time.sleep(60)

    def work() -> None:
        monkeypatch.setattr(shard_cache, "_write", half)
        cache.fetch(file)

    child = in_child(work)
    wait_for(lambda: part.is_file() and any(part.read_bytes()))
    assert names(tmp_path) == {part.name}
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert content(cache, file) == file.sha256
    assert names(tmp_path) == {name(file)}


def test_what_a_killed_download_left_makes_room_for_other_files(source, tmp_path):
    cache = make_cache(tmp_path, files=2)
    cache.fetch(put(source, "a"))
    (tmp_path / "cache" / "dead.arrow.part").write_bytes(bytes(SIZE))
    cache.fetch(put(source, "b"))
    assert names(tmp_path) == {name(put(source, "a")), name(put(source, "b"))}


def test_of_several_processes_that_want_a_file_one_fetches_it(source, tmp_path, monkeypatch):
    file, cache, log = put(source, "a"), make_cache(tmp_path), tmp_path / "log"
    download = ShardCache._download

    def slow(self, file, descriptor):
        with log.open("a") as lines:
            lines.write("download\n")
        time.sleep(0.3)
        download(self, file, descriptor)

    monkeypatch.setattr(ShardCache, "_download", slow)

    def work() -> None:
        assert content(cache, file) == file.sha256

    children = [in_child(work) for _ in range(4)]
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * 4
    assert log.read_text() == "download\n"


def test_a_file_that_another_finished_in_the_meantime_is_not_fetched_again(source, tmp_path, monkeypatch):
    file, cache, opened = put(source, "a"), make_cache(tmp_path), os.open

    def late(path, *args, **given) -> int:
        if str(path).endswith(".part"):
            monkeypatch.undo()
            cache.fetch(file)
            fsspec.filesystem("memory").rm("/source/a")
        return opened(path, *args, **given)

    monkeypatch.setattr(os, "open", late)
    cache.fetch(file)
    assert names(tmp_path) == {name(file)}


def test_the_least_recently_used_file_goes_first(source, tmp_path):
    a, b, c = (put(source, n) for n in "abc")
    cache = make_cache(tmp_path, files=2)
    cache.fetch(a)
    cache.fetch(b)
    content(cache, a)
    cache.fetch(c)
    assert names(tmp_path) == {name(a), name(c)}


def test_a_file_that_another_process_has_mapped_is_not_evicted(source, tmp_path):
    a, b, c = (put(source, n) for n in "abc")
    cache, ready, done = make_cache(tmp_path, files=2), FORK.Event(), FORK.Event()

    def work() -> None:
        mapped = cache.open(a)
        ready.set()
        done.wait()
        os._exit(hashlib.sha256(memoryview(mapped)).hexdigest() != a.sha256)

    child = in_child(work)
    ready.wait()
    cache.fetch(b)
    cache.fetch(c)
    assert names(tmp_path) == {name(a), name(c)}
    done.set()
    child.join()
    assert child.exitcode == 0
    cache.fetch(b)
    assert names(tmp_path) == {name(b), name(c)}


def test_a_mapping_holds_its_file_until_it_is_gone(source, tmp_path):
    a, b = put(source, "a"), put(source, "b")
    cache = make_cache(tmp_path, files=1, patience_s=0.1)
    mapped = cache.open(a).slice(5, 10)
    with pytest.raises(ValueError, match=r"may hold \S+ GiB, all of it in use, and .*/b takes .*; raise --cache-gib$"):
        cache.fetch(b)
    del mapped
    cache.fetch(b)
    assert names(tmp_path) == {name(b)}


def test_a_file_larger_than_the_cache_is_one_line(source, tmp_path):
    with pytest.raises(ValueError, match=r"^memory://source/a has .* GiB, more than the cache may hold .*--cache-gib"):
        make_cache(tmp_path, files=0.9).fetch(put(source, "a"))


def test_a_file_that_is_not_what_its_shard_says_is_one_line_and_is_not_kept(source, tmp_path):
    file = StoredFile(url=put(source, "a").url, sha256="0" * 64, size=SIZE)
    with pytest.raises(ValueError, match=r"^memory://source/a is not what its shard's done.json says .*preprocess`$"):
        make_cache(tmp_path).open(file)
    assert not any(n.endswith(".arrow") for n in names(tmp_path))


def test_a_file_that_is_gone_is_one_line(source, tmp_path):
    file = put(source, "a")
    fsspec.filesystem("memory").rm("/source/a")
    with pytest.raises(ValueError, match=r"^memory://source/a is missing; rerun `gblend preprocess`$"):
        make_cache(tmp_path).open(file)


class Breaking(io.BytesIO):
    """A file whose source breaks off in the middle of it, as often as it is told to."""

    breaks = 0

    def read(self, size: int | None = -1) -> bytes:
        if Breaking.breaks and self.tell() >= SIZE // 2:
            Breaking.breaks -= 1
            raise TimeoutError("timed out")
        return super().read(size)


@pytest.fixture
def breaking(source, monkeypatch) -> StoredFile:
    """A file whose reads break off, and no time that passes while waiting."""
    file = put(source, "a")
    data = fsspec.filesystem("memory").cat_file("/source/a")
    monkeypatch.setattr(fsspec.filesystem("memory"), "open", lambda *_, **__: Breaking(data))
    monkeypatch.setattr(shard_cache, "CHUNK_BYTES", SIZE // 10)
    monkeypatch.setattr(shard_cache.time, "sleep", lambda seconds: None)
    return file


def test_a_source_that_breaks_off_is_asked_again(breaking, tmp_path):
    Breaking.breaks = 3
    assert content(make_cache(tmp_path), breaking) == breaking.sha256
    assert Breaking.breaks == 0


def test_a_source_that_breaks_off_again_and_again_is_one_line(breaking, tmp_path):
    Breaking.breaks = 100
    with pytest.raises(StoreError, match=r"^memory://source/a cannot be used, 4 attempts failed: TimeoutError; check"):
        make_cache(tmp_path).fetch(breaking)
    assert Breaking.breaks == 96


def test_a_file_that_may_not_be_read_is_one_line_at_once(source, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError("Forbidden")

    file = put(source, "a")
    monkeypatch.setattr(fsspec.filesystem("memory"), "open", refuse)
    with pytest.raises(StoreError, match=r"^memory://source/a cannot be used: access is denied \(PermissionError\); "):
        make_cache(tmp_path).fetch(file)


def test_a_full_disk_is_one_line(source, tmp_path, monkeypatch):
    def full(descriptor: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shard_cache, "_write", full)
    with pytest.raises(
        ValueError, match=r"^no space left on the disk of the cache .*; lower --cache-gib .*--cache-dir$"
    ):
        make_cache(tmp_path).fetch(put(source, "a"))


def test_the_default_place_is_ones_own(source, tmp_path, monkeypatch):
    monkeypatch.setattr(shard_cache.tempfile, "gettempdir", lambda: str(tmp_path))
    cache = ShardCache(limit_bytes=10 * SIZE)
    (tmp_path / "elsewhere").mkdir()
    Path(cache.directory).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="belongs to somebody else; choose another --cache-dir"):
        cache.fetch(put(source, "a"))


CONFIG = TrainConfig(name="test", input=InputConfig(frames=3, crop_px=16, mel_frames=10), modalities=("rgb", "logmel"))


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> Path:
    """A data set of 8 shards on a disk."""
    root = tmp_path_factory.mktemp("data")
    clips = [gradient_clip(f"c{i}", seed=i, label=i % 3) for i in range(28)]
    tests = [gradient_clip(f"t{i}", seed=i) for i in range(2)]
    write_dataset(root, {"train": clips, "test": tests}, spec=FeatureSpec(rgb=RgbSpec(fps=20.0)), per_shard=4)
    write_done(root)
    return root


@pytest.fixture
def remote(source, local) -> str:
    """The same in memory."""
    fsspec.filesystem("memory").put(f"{local}/", "/source/data/", recursive=True)
    return f"{source}/data"


def test_local_files_are_read_where_they_are(local, tmp_path):
    info = read_dataset_info(str(local))
    for data in (str(local), f"file://{local}"):
        files = ShardFiles(data, make_cache(tmp_path))
        assert len(read_index(files, info, "train", ("rgb",))) == 28
        assert ClipReader(files, info, ("rgb",)).read("train/00000", 0).rgb
    assert not (tmp_path / "cache").exists()


def batches_of(data, feeding=None):
    run = load_run_data(data, CONFIG, feeding)
    batches = training_batches(len(run.train), batch_size=6, entropy=(0,), rank=0, world=1)
    return list(training_loader(run.train, batches, (0,)))


def assert_same(some, others) -> None:
    assert len(some) == len(others) > 1
    for one, other in zip(some, others, strict=True):
        assert one.position.tolist() == other.position.tolist()
        for modality, values in one.arrays.items():
            assert values.equal(other.arrays[modality])


def test_training_reads_the_same_through_a_cache_and_only_what_it_trains_on(local, remote, tmp_path):
    cache = ShardCache(str(tmp_path / "cache"), limit_bytes=2**30)
    assert_same(batches_of(str(local)), batches_of(remote, Feeding(cache=cache)))
    files = ShardFiles(remote)
    shards = [shard.name for shard in read_dataset_info(remote).shards]
    read = {(shard, file) for shard in shards for file in ("clips.arrow", "rgb.arrow", "logmel.arrow")}
    unread = {("test/00000", "rgb.arrow"), ("test/00000", "logmel.arrow")}
    assert names(tmp_path) == {name(files.stored(*one)) for one in read - unread}


def test_a_cache_smaller_than_the_data_is_enough(local, remote, tmp_path):
    files = ShardFiles(remote)
    largest = max(files.stored(f"train/{i:05d}", "rgb.arrow").size for i in range(7))
    cache = ShardCache(str(tmp_path / "cache"), limit_bytes=4 * largest)
    assert_same(batches_of(str(local)), batches_of(remote, Feeding(cache=cache)))
    assert sum(path.stat().st_size for path in (tmp_path / "cache").iterdir()) <= 4 * largest


@pytest.mark.parametrize(("spare", "told"), [(0, False), (-1, True)])
def test_a_cache_that_cannot_hold_an_epoch_is_told_of(remote, tmp_path, spare, told):
    files = ShardFiles(remote)
    needed = sum(files.stored(f"train/{i:05d}", f"{m}.arrow").size for i in range(7) for m in ("rgb", "logmel"))
    cache = ShardCache(str(tmp_path / "cache"), limit_bytes=needed + spare)
    line = tight_cache([load_run_data(remote, CONFIG, Feeding(cache=cache)).train])
    assert (line is not None) == told
    assert not told or "files will be fetched again and again; raise --cache-gib" in line


def test_a_shard_that_is_not_finished_is_one_line(remote, tmp_path):
    fsspec.filesystem("memory").rm("/source/data/train/00003/done.json")
    with pytest.raises(ValueError, match=r"^memory://source/data/train/00003/done.json is missing: .*preprocess`$"):
        batches_of(remote, Feeding(cache=make_cache(tmp_path, files=100)))


def test_prefetching_stays_ahead_of_the_batches_by_so_many_bytes(remote, tmp_path):
    files = ShardFiles(remote, ShardCache(str(tmp_path / "cache"), limit_bytes=2**30))
    steps = [[(f"train/{i:05d}", "rgb.arrow")] for i in (3, 1, 3, 0, 2, 5)]
    sizes = [files.stored(*step[0]).size for step in steps]

    def there() -> int:
        return len(names(tmp_path)) if (tmp_path / "cache").exists() else 0

    prefetch = Prefetch(files, steps, ahead_bytes=sizes[0] + sizes[1])
    wait_for(lambda: there() == 2)
    time.sleep(0.1)
    assert names(tmp_path) == {name(files.stored(*steps[i][0])) for i in (0, 1)}
    prefetch.reached(2)
    wait_for(lambda: there() == 4)
    prefetch.reached(5)
    prefetch.join()
    assert there() == 5


def test_what_prefetching_cannot_have_is_told_by_the_reader(remote, tmp_path):
    fsspec.filesystem("memory").rm("/source/data/train/00002/rgb.arrow")
    with pytest.raises(ValueError, match=r"^memory://source/data/train/00002/rgb.arrow is missing; rerun"):
        batches_of(remote, Feeding(cache=make_cache(tmp_path, files=100)))


def test_loader_processes_share_a_cache_of_s3(local, s3_server, s3_client, s3_bucket, tmp_path):
    for path in local.rglob("*.*"):
        s3_client.put_object(Bucket=s3_bucket, Key=f"data/{path.relative_to(local)}", Body=path.read_bytes())
    before = len(s3_server.requests())
    cache = ShardCache(str(tmp_path / "cache"), limit_bytes=2**30, sharers=2)
    got = batches_of(f"s3://{s3_bucket}/data", Feeding(processes=2, cache=cache))
    assert_same(batches_of(str(local)), got)
    fetched = [r for r in s3_server.requests()[before:] if r.startswith("GET") and r.endswith("rgb.arrow")]
    assert len(fetched) == len(set(fetched)) == 7


def test_the_limit_is_checked():
    with pytest.raises(ValueError, match=r"cache_gib must be positive, got 0\.0"):
        ComputeConfig(cache_gib=0.0)
