import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_the_benchmark_prints_its_stages_and_the_headline_beside_its_budget():
    command = [sys.executable, "-m", "benchmarks.manifest", "--rows", "20000", "--check"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True)
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["stage", "seconds", "peak", "MiB"]
    assert lines[-1].startswith("20,000 clips: manifest ")
    assert lines[-1].endswith("budget 60 s and 1024 MiB each: met")
