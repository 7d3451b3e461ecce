"""Which of the saved states counts, whatever became of their files."""

import json
from pathlib import Path

import pytest
import torch

from gblend.state_files import StateFiles, require_workers

SETTINGS = {"epochs": 3, "rate": 0.1}


def files_in(directory: Path, settings=None, said: list[str] | None = None) -> StateFiles:
    return StateFiles(
        directory=str(directory / "state"),
        settings=SETTINGS if settings is None else settings,
        say=[].append if said is None else said.append,
    )


def state_of(number: int) -> dict:
    return {"records": f"{number}", "0.parameters": {"w": torch.full((100,), number)}, "0.buffers": {"b": [number]}}


def save(directory: Path, *numbers: int) -> None:
    files = files_in(directory)
    files.newest()
    for number in numbers:
        files.write(state_of(number), at="somewhere")


def newest(directory: Path, **more) -> tuple[int | None, list[str]]:
    """The number that the newest state holds in all its parts, and what was said."""
    said: list[str] = []
    state = files_in(directory, said=said, **more).newest()
    if state is None:
        return None, said
    assert state.keys() == state_of(0).keys()
    number = int(state["records"])
    assert torch.equal(state["0.parameters"]["w"], torch.full((100,), number))
    assert state["0.buffers"] == {"b": [number]}
    return number, said


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "state").iterdir())


def flip(path: Path, at: int) -> None:
    contents = bytearray(path.read_bytes())
    contents[at] ^= 1
    path.write_bytes(contents)


def change_document(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_without_any_there_is_none_and_nothing_is_said(tmp_path):
    assert newest(tmp_path) == (None, [])


def test_the_newest_is_found_and_the_one_before_it_is_kept(tmp_path):
    save(tmp_path, 1, 2, 3)
    assert newest(tmp_path) == (3, [])
    assert names_in(tmp_path) == ["000002", "000003"]


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda state: (state / "whole.json").unlink(), "it has no whole.json, so it is not finished"),
        (lambda state: (state / "worker-0.pt").unlink(), "it has no worker-0.pt"),
        (lambda state: (state / "shared.pt").unlink(), "it has no shared.pt"),
        (lambda state: (state / "shared.pt").write_bytes(b""), "shared.pt has 0 bytes instead of "),
        (lambda state: flip(state / "shared.pt", 700), "the contents of shared.pt are not those that were written"),
        (lambda state: flip(state / "worker-0.pt", -1), "the contents of worker-0.pt are not those that were written"),
        (lambda state: (state / "whole.json").write_text(""), "whole.json is not as it was written"),
        (lambda state: (state / "whole.json").write_text("[]"), "whole.json is not as it was written"),
        (
            lambda state: change_document(state / "whole.json", workers=2),
            "the contents of whole.json are not those that were written",
        ),
    ],
)
def test_a_damaged_one_is_passed_over_with_its_reason(tmp_path, damage, why):
    save(tmp_path, 1, 2)
    damage(tmp_path / "state" / "000002")
    number, (line,) = newest(tmp_path)
    assert number == 1
    assert line.startswith(f"{tmp_path}/state/000002 is not used: {why}")


def test_when_none_is_whole_each_is_named_and_the_start_is_announced(tmp_path):
    save(tmp_path, 1, 2)
    for state in (tmp_path / "state").iterdir():
        flip(state / "shared.pt", 700)
    number, said = newest(tmp_path)
    assert number is None
    assert [line.partition(" ")[0].rpartition("/")[2] for line in said] == ["000002", "000001", "state"]
    assert said[-1] == f"{tmp_path}/state holds no state that can be used: the run starts anew"


def test_a_new_one_never_takes_the_place_of_one_that_is_there_and_replaces_what_did_not_count(tmp_path):
    save(tmp_path, 1, 2, 3)
    (tmp_path / "state" / "000003" / "whole.json").unlink()
    save(tmp_path, 4)
    assert names_in(tmp_path) == ["000002", "000004"]
    assert newest(tmp_path) == (4, [])


def test_one_made_with_other_settings_does_not_count(tmp_path):
    save(tmp_path, 1)
    number, said = newest(tmp_path, settings={**SETTINGS, "epochs": 4})
    assert number is None
    assert said[0] == f"{tmp_path}/state/000001 is not used: it was made with other settings"


def test_one_of_another_number_of_workers_is_refused_with_the_remedy(tmp_path):
    save(tmp_path, 1)
    require_workers(str(tmp_path / "state"), SETTINGS, 1)
    with pytest.raises(ValueError, match=r"begun by 1 training workers, and there are 4; .*use --workers 1, or delete"):
        require_workers(str(tmp_path / "state"), SETTINGS, 4)
    require_workers(str(tmp_path / "state"), {}, 4)  # it does not count anyway
    require_workers(str(tmp_path / "nothing"), SETTINGS, 4)


def test_a_state_that_would_run_code_is_not_read(tmp_path, monkeypatch):
    class Harmful:
        def __reduce__(self):
            return print, ("this must never be printed",)

    files = files_in(tmp_path)
    files.write({"records": Harmful()}, at="somewhere")
    with pytest.raises(Exception, match="Weights only load failed"):
        files_in(tmp_path).newest()


def test_they_lie_on_any_file_system_of_fsspec():
    said: list[str] = []
    files = StateFiles(directory="memory://restart/run/state", settings=SETTINGS, say=said.append)
    for number in (1, 2, 3):
        files.write(state_of(number), at="somewhere")
    again = StateFiles(directory="memory://restart/run/state", settings=SETTINGS, say=said.append)
    assert again.newest()["records"] == "3"
    assert (again.number, again.kept, again.others) == (3, [3], [2])
    again.delete()
    assert StateFiles(directory="memory://restart/run/state", settings=SETTINGS, say=said.append).newest() is None
    assert said == []


def test_they_lie_in_a_bucket_of_s3(s3_bucket, s3_client):
    said: list[str] = []
    place = f"s3://{s3_bucket}/run/state"
    files = StateFiles(directory=place, settings=SETTINGS, say=said.append)
    for number in (1, 2, 3):
        files.write(state_of(number), at="somewhere")
    names = [item["Key"] for item in s3_client.list_objects_v2(Bucket=s3_bucket)["Contents"]]
    assert names == [
        f"run/state/{number}/{name}"
        for number in ("000002", "000003")
        for name in ("shared.pt", "whole.json", "worker-0.pt")
    ]
    s3_client.delete_object(Bucket=s3_bucket, Key="run/state/000003/worker-0.pt")
    again = StateFiles(directory=place, settings=SETTINGS, say=said.append)
    assert again.newest()["records"] == "2"
    assert said == [f"{place}/000003 is not used: it has no worker-0.pt"]
    again.delete()
    assert "Contents" not in s3_client.list_objects_v2(Bucket=s3_bucket)
