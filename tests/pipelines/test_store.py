import fsspec
import pytest

from pipelines.store import Store


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    if request.param == "local":
        return Store(str(tmp_path / "data"))
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
