import os
import pickle
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import fsspec
import pytest

from pipelines.annotations import parse_csv
from pipelines.dataset import ShardError, preprocess
from pipelines.manifest import write_manifest
from pipelines.preflight import build
from pipelines.settings import PreprocessConfig
from pipelines.source import UnavailableError
from pipelines.state import find_done
from pipelines.store import Store, local_media
from schemas.features import FeatureSpec, RgbSpec
from tests.media import ordinary_clip


@pytest.fixture(params=["local", "memory", "s3"])
def store(request, tmp_path):
    if request.param == "local":
        return Store(str(tmp_path / "data"))
    if request.param == "s3":
        return Store(f"s3://{request.getfixturevalue('s3_bucket')}/data")
    fsspec.filesystem("memory").store.clear()
    return Store("memory://data")


def test_a_file_appears_whole_under_its_name(store):
    store.write("train/x.json", b"1")
    assert store.read("train/x.json") == b"1"
    assert store.read("train/y.json") is None
    store.remove("train")
    assert store.read("train/x.json") is None


def test_nothing_appears_when_writing_fails(store):
    def interrupted():
        with store.publish(["a", "b"]) as paths:
            open(paths["a"], "w").close()
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        interrupted()
    assert store.read("a") is None
    assert store.read("b") is None


def test_a_file_that_already_says_the_same_is_left_alone(tmp_path):
    store = Store(str(tmp_path))
    store.write("x", b"1")
    before = (tmp_path / "x").stat().st_mtime_ns
    store.write("x", b"1")
    assert (tmp_path / "x").stat().st_mtime_ns == before
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_leftovers_of_a_killed_writer_are_removed(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / ".tmp-123-rgb.arrow").write_bytes(b"half")
    (tmp_path / "train" / "rgb.arrow").write_bytes(b"whole")
    Store(str(tmp_path)).clear_unfinished("train")
    assert [p.name for p in (tmp_path / "train").iterdir()] == ["rgb.arrow"]


def test_only_names_of_directories_are_listed(store):
    for name in ("train/00001/x", "train/00000/x", "train/y"):
        store.write(name, b"1")
    assert store.directories("train") == ["00000", "00001"]
    assert store.directories("val") == []
    assert store.size("train/y") == 1
    assert store.size("train/00001") is None


def test_a_pickled_store_is_the_same_place(store):
    store.write("x", b"1")
    assert pickle.loads(pickle.dumps(store)).read("x") == b"1"


def test_bytes_and_then_names_reach_the_disk_in_the_order_that_a_crash_needs(tmp_path, monkeypatch):
    events = []

    def name_of(handle):
        return os.readlink(f"/proc/self/fd/{handle}")

    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (events.append(("sync", name_of(handle))), fsync(handle))[1])
    monkeypatch.setattr(os, "replace", lambda old, new: (events.append(("rename", old, new)), replace(old, new))[1])
    with Store(str(tmp_path)).publish(["s/a", "s/b"]) as paths:
        for path in paths.values():
            Path(path).write_bytes(b"1")
    temporary = {name: str(Path(path).resolve()) for name, path in paths.items()}
    assert events == [
        ("sync", temporary["s/a"]),
        ("sync", temporary["s/b"]),
        ("rename", paths["s/a"], str(tmp_path / "s/a")),
        ("rename", paths["s/b"], str(tmp_path / "s/b")),
        ("sync", str((tmp_path / "s").resolve())),
    ]


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIAKEY:se/cr+et@bucket/data",
        "s3a://AKIAKEY:secret@bucket",
        "https://me:secret@host/videos",
        "simplecache::s3://AKIAKEY:secret@bucket/v",
    ],
)
def test_a_url_with_credentials_is_refused_without_repeating_them(url):
    for use in (
        lambda: Store(url),
        lambda: local_media(url, "a.mp4").__enter__(),
        lambda: PreprocessConfig(manifest=url, videos="v", out="o"),
    ):
        with pytest.raises(ValueError, match="must not hold credentials") as caught:
            use()
        assert not any(part in str(caught.value) for part in ("AKIAKEY", "se/cr+et", "secret"))


def test_a_url_without_a_bucket_is_refused():
    with pytest.raises(ValueError, match="s3:// names no bucket"):
        Store("s3://")


def test_a_limit_on_the_size_of_files_is_one_line(tmp_path):
    call = """
import resource
import sys
from pipelines.store import Store
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
with Store(sys.argv[1]).publish(["s/a"]) as paths, open(paths["s/a"], "wb") as file:
    file.write(bytes(5000))
"""
    command = [sys.executable, "-c", call, str(tmp_path)]
    ended = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert f"StoreError: there is no space left at {tmp_path}; make room and run again" in ended.stderr
    assert list((tmp_path / "s").iterdir()) == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 24 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)  # A worker may not have closed its files yet.


def test_a_full_disk_is_one_line_and_the_rerun_with_room_completes(ray_session, small_disk, tmp_path):
    names = [f"{i}.mp4" for i in range(4)]
    for i, name in enumerate(names):
        ordinary_clip(tmp_path / "videos" / name, hz=300 + 50 * i)
    table, _ = build(parse_csv("path,split,label\n" + "".join(f"{n},train,a\n" for n in names), what="x"), files=names)
    write_manifest(table, str(tmp_path / "clips.parquet"))

    def run(out):
        settings = PreprocessConfig(
            manifest=str(tmp_path / "clips.parquet"),
            videos=str(tmp_path / "videos"),
            out=str(out),
            features=FeatureSpec(rgb=RgbSpec(fps=10.0, fixed_size_px=(48, 64))),
            clips_per_shard=2,
        )
        preprocess(settings, say=lambda line: None)

    def contents(folder):
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    out = small_disk / "data"
    with pytest.raises(ShardError, match=r"shard train/0000\d .*no space left at .*; make room and run") as caught:
        run(out)
    assert "\n" not in str(caught.value)
    left = contents(out)
    assert "dataset.json" not in left
    for shard in {name.rsplit("/", 1)[0] for name in left if name.endswith("done.json")}:
        assert find_done(Store(str(out)), shard) is not None
    subprocess.run(["mount", "-o", "remount,size=16m", small_disk], check=True)
    run(out)
    run(tmp_path / "roomy")
    assert contents(out) == contents(tmp_path / "roomy")


@contextmanager
def unprivileged():
    """As an ordinary user, whom permissions concern."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_folder_without_permission_is_unavailable_not_missing(tmp_path):
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "a.mp4").write_bytes(b"1")
    (tmp_path / "closed").chmod(0)
    try:
        with (
            unprivileged(),
            pytest.raises(UnavailableError, match=r"'closed/a\.mp4' cannot be read: Permission denied"),
            local_media(str(tmp_path), "closed/a.mp4"),
        ):
            pass
    finally:
        (tmp_path / "closed").chmod(0o700)
