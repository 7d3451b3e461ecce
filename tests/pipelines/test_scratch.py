import os
import signal
import subprocess
import sys
import time

import pytest

from pipelines.scratch import is_abandoned, make_scratch

HOLD = """
import sys
from pipelines.scratch import make_scratch
print(make_scratch("x-", root=sys.argv[1]).path, flush=True)
sys.stdin.read()
"""


def hold(root):
    """A process that has a directory, and its path."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)},
        text=True,
    )
    return process, process.stdout.readline().strip()


def test_the_directory_of_a_killed_process_is_removed_by_the_next_and_a_living_ones_is_kept(tmp_path):
    living, kept = hold(tmp_path)
    killed, left = hold(tmp_path)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    (tmp_path / "x-of-somebody-else").mkdir()
    assert (is_abandoned(kept), is_abandoned(left)) == (False, True)
    made = make_scratch("x-", root=str(tmp_path))
    names = {os.path.basename(path) for path in (kept, made.path)}
    assert set(os.listdir(tmp_path)) == {*names, "x-of-somebody-else"}
    made.remove()
    assert set(os.listdir(tmp_path)) == {os.path.basename(kept), "x-of-somebody-else"}
    living.communicate("")


def test_a_process_killed_while_it_removes_its_directory_leaves_one_that_the_next_removes(tmp_path, monkeypatch):
    scratch = make_scratch("x-", root=str(tmp_path))
    (tmp_path / "file").write_text("elsewhere")
    os.mkdir(os.path.join(scratch.path, "downloads"))

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("pipelines.scratch.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            scratch.remove()
    os.close(scratch.lock)  # As the end of the process does.
    make_scratch("x-", root=str(tmp_path))
    assert not os.path.exists(scratch.path)


def test_an_empty_directory_without_an_owner_goes_after_a_minute_and_not_before(tmp_path):
    new, old = tmp_path / "x-abcdefgh", tmp_path / "x-12345678"
    for path, age_s in ((new, 30), (old, 90)):
        path.mkdir()
        os.utime(path, (time.time() - age_s,) * 2)
    make_scratch("x-", root=str(tmp_path))
    assert (new.exists(), old.exists()) == (True, False)


@pytest.mark.parametrize(("name", "content"), [("x-results", ""), ("x-abcdefgh", "a file"), ("x-abcdefgh", "folder/")])
def test_what_somebody_else_keeps_under_a_similar_name_stays(tmp_path, name, content):
    path = tmp_path / name
    path.mkdir()
    if content.endswith("/"):
        (path / content).mkdir()
    elif content:
        (path / content).touch()
    os.utime(path, (time.time() - 3600,) * 2)
    make_scratch("x-", root=str(tmp_path))
    assert path.exists()
