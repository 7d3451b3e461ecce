"""Checks that the specs share: one line that names the field, what is allowed and the value."""

from typing import Any


def require_number(name: str, value: Any, *, most: float) -> None:
    """A finite number above 0.

    >>> require_number("rgb.fps", 0.0, most=240.0)
    Traceback (most recent call last):
        ...
    ValueError: rgb.fps must be above 0 and at most 240, got 0.0
    """
    # Written so that NaN fails too.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
        raise ValueError(f"{name} must be above 0 and at most {most:g}, got {value!r}")


def require_whole(name: str, value: Any, *, least: int, most: int) -> None:
    """A whole number in a closed range."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name} must be a whole number in {least}..{most}, got {value!r}")


def require_one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """One of a few words."""
    if value not in allowed:
        raise ValueError(f"{name} must be {' or '.join(allowed)}, got {value!r}")
