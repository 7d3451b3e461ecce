import os
import signal
import subprocess
import sys

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
