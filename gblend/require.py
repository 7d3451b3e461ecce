"""Checks that every configuration makes of its fields, with one wording for the refusal."""

from dataclasses import fields
from types import NoneType
from typing import Any, Literal, get_args, get_origin


def require(holds: bool, name: str, rule: str, value: Any) -> None:
    """Raise ``ValueError`` unless ``holds``: name, rule, value."""
    if not holds:
        raise ValueError(f"{name} must be {rule}, got {value}")


def require_choices(config: Any, section: str) -> None:
    """The command line checks a ``Literal``, a recipe in Python does not: a misspelt choice must not mean another."""
    for item in fields(config):
        value, parts = getattr(config, item.name), get_args(item.type)
        optional = len(parts) == 2 and parts[1] is NoneType
        choices = parts[0] if optional else item.type
        if get_origin(choices) is Literal and not (optional and value is None):
            allowed = get_args(choices)
            require(value in allowed, section + item.name, f"one of {', '.join(map(str, allowed))}", repr(value))
