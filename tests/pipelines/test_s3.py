"""Everything on S3, against a server on loopback: the same bytes as on a disk, and no half shard after any fault."""

import json
import os
import pickle
import random
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from gblend.clips import ClipReader, read_dataset_info, read_index
from pipelines.annotations import from_folder, list_files, parse_csv
from pipelines.dataset import preprocess
from pipelines.manifest import read_manifest, write_manifest
from pipelines.preflight import build
from pipelines.settings import PreprocessConfig
from pipelines.shards import ShardJob, write_shard
from pipelines.source import (
    DecodeLimits,
    MissingFileError,
    NotAFileError,
    OutsideRootError,
    TooLargeError,
    UnavailableError,
)
from pipelines.state import find_done
from pipelines.store import Store, StoreError, local_media
from schemas.features import FeatureSpec, RgbSpec
from tests.media import ordinary_clip, steady, write_media

boto3 = pytest.importorskip("boto3", reason="the S3 tests need moto[server]")

FEATURES = FeatureSpec(rgb=RgbSpec(fps=10.0, fixed_size_px=(48, 64)))
NAMES = [f"good{i}.mp4" for i in range(6)] + ["corrupt.mp4", "missing.mp4", "mute.mkv"]
SHARD = "train/00000"


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    for i in range(6):
        ordinary_clip(root / f"good{i}.mp4", hz=300 + 50 * i, seconds=0.4)
    write_media(root / "mute.mkv", pts_s=steady(0.4))
    (root / "corrupt.mp4").write_bytes(b"\0" * 5000)
    return root


@pytest.fixture
def rows():
    text = "path,split,label\n" + "".join(f"{n},train,{'ab'[i % 2]}\n" for i, n in enumerate(NAMES))
    return build(parse_csv(text, what="x"), files=NAMES)[0]


def shard_job(out, videos):
    return ShardJob(out=str(out), videos=str(videos), features=FEATURES, limits=DecodeLimits())


def put(client, bucket, key, data):
    """Behind the back of every file system object."""
    client.put_object(Bucket=bucket, Key=key, Body=data)


def upload(client, bucket, folder, prefix):
    for path in folder.iterdir():
        put(client, bucket, f"{prefix}/{path.name}", path.read_bytes())


def objects(client, bucket, prefix):
    """Every visible object below a prefix, as another client sees it."""
    found = client.list_objects_v2(Bucket=bucket, Prefix=prefix + "/").get("Contents", [])
    return {o["Key"][len(prefix) + 1 :]: client.get_object(Bucket=bucket, Key=o["Key"])["Body"].read() for o in found}


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def config(root, manifest, out, **changes):
    values = {"features": FEATURES, "clips_per_shard": 2, "max_error_rate": 0.5, **changes}
    return PreprocessConfig(manifest=str(manifest), videos=str(root), out=str(out), **values)


def quietly(settings):
    return preprocess(settings, say=lambda line: None)


@pytest.fixture
def manifest(tmp_path):
    text = "path,split,label\n" + "".join(
        f"{n},{('train', 'train', 'val', 'test')[i % 4]},{'ab'[i % 2]}\n" for i, n in enumerate(NAMES)
    )
    table, _ = build(parse_csv(text, what="x"), files=NAMES)
    write_manifest(table, str(tmp_path / "clips.parquet"))
    return tmp_path / "clips.parquet"


def test_a_job_on_s3_gives_the_bytes_that_a_job_on_a_disk_gives(
    ray_session, s3_server, s3_client, s3_bucket, videos, manifest, tmp_path
):
    upload(s3_client, s3_bucket, videos, "videos")
    write_manifest(read_manifest(str(manifest)).table, f"s3://{s3_bucket}/clips.parquet")
    settings = config(f"s3://{s3_bucket}/videos/", f"s3://{s3_bucket}/clips.parquet", f"s3://{s3_bucket}/data/")
    made = quietly(settings)
    assert made.reasons == {"unreadable": 1, "missing-file": 1}
    quietly(config(videos, manifest, tmp_path / "data"))
    remote, local = objects(s3_client, s3_bucket, "data"), contents(tmp_path / "data")
    assert remote == local
    for name, data in remote.items():
        for secret in (s3_server.endpoint, "127.0.0.1", "test-access-key", "test-secret-key"):
            assert secret.encode() not in data, name

    again = quietly(settings)
    assert again.kept_shards == again.shards
    data = f"s3://{s3_bucket}/data"
    s3_client.delete_object(Bucket=s3_bucket, Key="data/train/00000/done.json")
    put(s3_client, s3_bucket, "data/val/00000/rgb.arrow", b"torn")
    repaired = quietly(settings)
    assert repaired.kept_shards == repaired.shards - 2
    assert objects(s3_client, s3_bucket, "data") == remote

    info = read_dataset_info(data)
    assert info == read_dataset_info(str(tmp_path / "data"))
    index = read_index(data, info, "train", ("rgb", "flow", "logmel"))
    assert index.clip_ids == read_index(str(tmp_path / "data"), info, "train", ("rgb",)).clip_ids
    there = ClipReader(data, info, ("rgb", "logmel"))
    here = ClipReader(str(tmp_path / "data"), info, ("rgb", "logmel"))
    for shard, row in zip(index.shards, index.rows.tolist(), strict=True):
        far, near = there.read(shard, row), here.read(shard, row)
        assert [bytes(image) for image in far.rgb] == [bytes(image) for image in near.rgb]
        assert (far.logmel is None) == (near.logmel is None)
        assert far.logmel is None or (far.logmel == near.logmel).all()


def test_a_root_and_a_dataset_may_be_whole_buckets(s3_client, s3_bucket, videos, rows, tmp_path):
    upload(s3_client, s3_bucket, videos, "v")
    write_shard(SHARD, rows, shard_job(f"s3://{s3_bucket}", f"s3://{s3_bucket}/v"))
    write_shard(SHARD, rows, shard_job(tmp_path, videos))
    assert objects(s3_client, s3_bucket, SHARD) == contents(tmp_path / SHARD)
    assert find_done(Store(f"s3://{s3_bucket}/"), SHARD) is not None
    assert Store(f"s3://{s3_bucket}").directories("") == ["train", "v"]


@pytest.mark.parametrize("lost", range(6))
def test_a_shard_whose_files_stop_arriving_is_not_there_and_the_rerun_makes_it(
    s3_client, s3_bucket, videos, rows, tmp_path, monkeypatch, lost
):
    write_shard(SHARD, rows, shard_job(tmp_path, videos))
    whole = contents(tmp_path / SHARD)
    job = shard_job(f"s3://{s3_bucket}/data", videos)
    store = Store(job.out)
    write_shard(SHARD, rows.slice(1), job)  # What is there of other rows must not make the half shard readable either.
    sent = []
    put_file = store.fs.put_file

    def failing(local, path):
        sent.append(path)
        if len(sent) > lost:
            raise ConnectionResetError("the network is gone")
        return put_file(local, path)

    with monkeypatch.context() as patch:
        patch.setattr(store.fs, "put_file", failing)
        with pytest.raises(StoreError, match=r"s3://.*/data cannot be used: ConnectionResetError; .* run again"):
            write_shard(SHARD, rows, job)
    assert len(sent) == lost + 1
    assert find_done(store, SHARD) is None
    assert "done.json" not in objects(s3_client, s3_bucket, f"data/{SHARD}")
    write_shard(SHARD, rows, job)
    assert objects(s3_client, s3_bucket, f"data/{SHARD}") == whole


WRITER = """
import pickle, sys
from pipelines.shards import write_shard
work = pickle.load(sys.stdin.buffer)
print("ready", flush=True)
write_shard(*work)
print("done", flush=True)
"""


def test_a_writer_killed_at_any_moment_leaves_no_readable_half_shard(s3_client, s3_bucket, videos, rows, tmp_path):
    write_shard(SHARD, rows, shard_job(tmp_path, videos))
    whole = contents(tmp_path / SHARD)
    job = shard_job(f"s3://{s3_bucket}/data", videos)
    store = Store(job.out)

    def writer():
        """A process that is about to write the shard anew."""
        s3_client.delete_object(Bucket=s3_bucket, Key=f"data/{SHARD}/done.json")
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER],
            cwd=Path(__file__).resolve().parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        process.stdin.write(pickle.dumps((SHARD, rows, job)))
        process.stdin.close()
        assert process.stdout.readline() == b"ready\n"
        return process

    first = writer()
    began_s = time.monotonic()
    assert first.stdout.readline() == b"done\n"
    needed_s = time.monotonic() - began_s
    first.wait()
    rng = random.Random(0)
    outcomes = []
    for _ in range(5):
        process = writer()
        time.sleep(rng.uniform(0.2, 1.0) * needed_s)
        process.kill()
        process.wait()
        process.stdout.close()
        found = objects(s3_client, s3_bucket, f"data/{SHARD}")
        done = find_done(store, SHARD)
        assert all(whole[name] == data for name, data in found.items())
        assert done is None or found == whole
        outcomes.append(done is None)
    assert any(outcomes), "no kill came in time to prove anything"
    write_shard(SHARD, rows, job)
    assert objects(s3_client, s3_bucket, f"data/{SHARD}") == whole


def publish_file(url, name, size):
    """What the test below kills, in a process of its own."""
    with Store(url).publish([name]) as paths, open(paths[name], "wb") as file:
        file.truncate(size)


def test_an_upload_in_parts_that_is_killed_is_invisible(s3_server, s3_client, s3_bucket):
    url = f"s3://{s3_bucket}"
    call = f"from tests.pipelines.test_s3 import publish_file; publish_file({url!r}, 'rgb.arrow', {160 << 20})"
    process = subprocess.Popen([sys.executable, "-c", call], cwd=Path(__file__).resolve().parents[2])
    deadline_s = time.monotonic() + 60
    while not any("/rgb.arrow?" in line for line in s3_server.requests()):
        assert process.poll() is None
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert len(s3_client.list_multipart_uploads(Bucket=s3_bucket)["Uploads"]) == 1
    assert Store(url).size("rgb.arrow") is None
    assert "Contents" not in s3_client.list_objects_v2(Bucket=s3_bucket)


def test_what_other_processes_write_and_remove_is_seen_at_once(s3_client, s3_bucket):
    store = Store(f"s3://{s3_bucket}/data")
    for _ in range(2):
        assert not store.is_directory()
        assert (store.size("train/a/x"), store.read("train/a/x"), store.directories("train")) == (None, None, [])
        put(s3_client, s3_bucket, "data/train/a/x", b"12")
        assert store.is_directory()
        assert (store.size("train/a/x"), store.read("train/a/x"), store.directories("train")) == (2, b"12", ["a"])
        s3_client.delete_object(Bucket=s3_bucket, Key="data/train/a/x")


def test_removing_a_prefix_spares_what_only_begins_alike(s3_client, s3_bucket):
    for key in ("d/train/1/x", "d/train/1/y", "d/train/10/x", "d/train/1.json"):
        put(s3_client, s3_bucket, key, b"1")
    store = Store(f"s3://{s3_bucket}/d")
    store.remove("train/1")
    store.remove("train/none")
    assert sorted(objects(s3_client, s3_bucket, "d")) == ["train/1.json", "train/10/x"]


def test_a_removal_that_is_denied_is_an_error(s3_client, s3_bucket, monkeypatch):
    put(s3_client, s3_bucket, "done.json", b"1")
    store = Store(f"s3://{s3_bucket}")

    def denied(path):
        raise PermissionError("Access Denied")

    monkeypatch.setattr(store.fs, "rm_file", denied)
    with pytest.raises(StoreError, match="access is denied"):
        store.remove("done.json")


def test_a_bucket_that_does_not_exist_is_said_and_not_made(s3_client, videos, rows, manifest):
    store = Store("s3://no-such-bucket/data")
    for use in (
        lambda: store.write("x", b"1"),
        lambda: find_done(store, SHARD),
        lambda: write_shard(SHARD, rows, shard_job(store.url, videos)),
        lambda: quietly(config(videos, manifest, store.url)),
        lambda: quietly(config("s3://no-such-bucket/videos", manifest, "/nowhere")),
    ):
        with pytest.raises(StoreError, match=r"s3://no-such-bucket/\w+ cannot be used: there is no such bucket; make"):
            use()
    assert "no-such-bucket" not in {b["Name"] for b in s3_client.list_buckets()["Buckets"]}


def test_credentials_that_are_wrong_or_may_not_write_are_said_without_repeating_them(s3_server, s3_bucket, monkeypatch):
    fs = type(Store(f"s3://{s3_bucket}").fs)
    iam = boto3.client("iam")
    user = f"reader-{s3_bucket}"
    iam.create_user(UserName=user)
    allowed = {"Effect": "Allow", "Action": ["s3:Get*", "s3:List*"], "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    iam.put_user_policy(UserName=user, PolicyName="read", PolicyDocument=document)
    key = iam.create_access_key(UserName=user)["AccessKey"]

    plain = {"Content-Type": "text/plain"}

    def enforce(after):
        request = urllib.request.Request(f"{s3_server.endpoint}/moto-api/reset-auth", after.encode(), plain)
        urllib.request.urlopen(request, timeout=60).close()

    def problem(access, secret):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", access)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        fs.clear_instance_cache()  # A process meets one set of credentials; this test stands for several.
        with pytest.raises(StoreError) as caught:
            Store(f"s3://{s3_bucket}/data").write("x", b"1")
        assert access not in str(caught.value)
        assert secret not in str(caught.value)
        assert s3_server.endpoint not in str(caught.value)
        return str(caught.value)

    enforce("0")
    try:
        assert "access key is not known" in problem("AKIAUNKNOWN", "some-secret")
        assert "secret key is wrong" in problem(key["AccessKeyId"], "some-secret")
        assert "s3:PutObject" in problem(key["AccessKeyId"], key["SecretAccessKey"])
    finally:
        enforce("inf")
        fs.clear_instance_cache()


@pytest.mark.parametrize(
    "name", ["a b#c?d%20+é&=.mp4", "-x.mp4", "quote'\"[1]*.mp4", "./dot.mp4", "a//b.mp4", "日本/犬.mp4", "x@y:z.mp4"]
)
def test_any_name_of_an_object_is_fetched_as_it_is(s3_client, s3_bucket, name):
    put(s3_client, s3_bucket, f"videos/{name}", b"media of " + name.encode())
    with local_media(f"s3://{s3_bucket}/videos", name) as path, open(path, "rb") as file:
        assert file.read() == b"media of " + name.encode()
    assert not os.path.exists(path)
    assert list_files(f"s3://{s3_bucket}/videos").to_pylist() == [name]


def test_a_download_is_one_look_and_one_request_into_the_given_directory(s3_server, s3_client, s3_bucket, tmp_path):
    put(s3_client, s3_bucket, "v/a.mp4", b"m" * 3_000_000)
    before = len(s3_server.requests())
    with local_media(f"s3://{s3_bucket}/v", "a.mp4", scratch=str(tmp_path), max_bytes=3_000_000) as path:
        assert path.startswith(str(tmp_path))
        assert os.path.getsize(path) == 3_000_000
    assert s3_server.requests()[before:] == [f"HEAD /{s3_bucket}/v/a.mp4", f"GET /{s3_bucket}/v/a.mp4"]
    assert list(tmp_path.iterdir()) == []


def test_an_object_that_is_too_large_is_refused_before_a_byte_of_it_is_fetched(s3_server, s3_client, s3_bucket):
    put(s3_client, s3_bucket, "v/a.mp4", b"m" * 1001)
    before = len(s3_server.requests())
    with (
        pytest.raises(TooLargeError, match=r"'a\.mp4' has 1,001 bytes, allowed are 1,000"),
        local_media(f"s3://{s3_bucket}/v", "a.mp4", max_bytes=1000),
    ):
        pass
    assert s3_server.requests()[before:] == [f"HEAD /{s3_bucket}/v/a.mp4"]


@pytest.mark.parametrize(
    ("uri", "error"),
    [
        ("gone.mp4", MissingFileError),
        ("folder", NotAFileError),
        ("folder/", NotAFileError),
        ("", NotAFileError),
        ("folder/../../secret", OutsideRootError),
        ("/secret", OutsideRootError),
        ("folder/a.mp4?versionId=null", OutsideRootError),
    ],
)
def test_what_is_no_file_below_the_root_is_a_reason(s3_client, s3_bucket, uri, error):
    put(s3_client, s3_bucket, "v/folder/a.mp4", b"1")
    with pytest.raises(error), local_media(f"s3://{s3_bucket}/v", uri):
        pass


def test_a_network_that_fails_is_unavailable_for_input_and_an_error_for_output(s3_server, monkeypatch):
    fs = type(Store("s3://bucket").fs)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    fs.clear_instance_cache()
    try:
        with pytest.raises(UnavailableError) as caught, local_media("s3://bucket/v", "a.mp4"):
            pass
        assert "EndpointConnectionError" in str(caught.value)
        assert "127.0.0.1" not in str(caught.value)
        with pytest.raises(
            StoreError, match=r"s3://bucket/data cannot be used: EndpointConnectionError; check the netw"
        ):
            Store("s3://bucket/data").write("x", b"1")
    finally:
        fs.clear_instance_cache()


def test_a_tree_on_s3_becomes_a_manifest_on_s3(s3_client, s3_bucket):
    for name in ("dog/a.mp4", "dog/b.mp4", "cat/c#1.mp4", "cat/notes.txt"):
        put(s3_client, s3_bucket, name, b"1")
    files = list_files(f"s3://{s3_bucket}")
    assert files.to_pylist() == ["cat/c#1.mp4", "cat/notes.txt", "dog/a.mp4", "dog/b.mp4"]
    table, _ = build(from_folder(files), files=files)
    write_manifest(table, f"s3://{s3_bucket}/out/clips.parquet")
    assert sorted(read_manifest(f"s3://{s3_bucket}/out/clips.parquet").table["uri"].to_pylist()) == [
        "cat/c#1.mp4",
        "dog/a.mp4",
        "dog/b.mp4",
    ]
    assert [name for name in objects(s3_client, s3_bucket, "out")] == ["clips.parquet"]
