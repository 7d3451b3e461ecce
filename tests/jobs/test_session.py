import json
import os
from typing import Any

import pytest
import ray
from ray.exceptions import AuthenticationError

from jobs.session import connect


@pytest.fixture
def init(monkeypatch) -> dict[str, Any]:
    """What `ray.init` was called with, instead of a cluster; the exception under ``raises`` is raised."""
    called: dict[str, Any] = {}

    def fake(**arguments: Any) -> None:
        called.update(arguments)
        if "raises" in called:
            raise called["raises"]

    monkeypatch.setattr(ray, "init", fake)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "OMP_NUM_THREADS", "RAY_JOB_CONFIG_JSON_ENV_VAR"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    return called


def mode() -> str | None:
    return os.environ.get("RAY_AUTH_MODE")


def test_a_private_cluster_has_no_tokens_whatever_the_user_set(init, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with connect():
        assert mode() == "disabled"


@pytest.mark.parametrize("chosen", ["token", None])
def test_the_mode_for_a_cluster_to_join_is_left_alone(init, monkeypatch, chosen):
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    if chosen:
        monkeypatch.setenv("RAY_AUTH_MODE", chosen)
    with connect():
        assert mode() == chosen


@pytest.mark.parametrize(
    ("name", "value", "sent"),
    [
        ("OTHER", "", {"OMP_NUM_THREADS": "1"}),
        ("OMP_NUM_THREADS", "4", {}),
        ("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": {"env_vars": {"OMP_NUM_THREADS": "4"}}}), {}),
        ("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": {}}), {"OMP_NUM_THREADS": "1"}),
    ],
)
def test_threads_that_a_submitted_job_has_set_are_not_set_again(init, monkeypatch, name, value, sent):
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    monkeypatch.setenv(name, value)
    with connect():
        assert init["runtime_env"]["env_vars"] == sent


@pytest.mark.parametrize(
    "error", [RuntimeError("x"), ConnectionError("x"), AuthenticationError("x"), ValueError("x"), Exception("x")]
)
def test_a_cluster_that_cannot_be_joined_is_named(init, monkeypatch, error):
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    init["raises"] = error
    with (
        pytest.raises(ConnectionError, match=r"cannot join the Ray cluster at head:6379 \(from RAY_ADDRESS\): "),
        connect(),
    ):
        raise AssertionError("connected")
