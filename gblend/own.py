"""A user's own code, named as ``module:callable``: imported here, so that every option fails by the same lines."""

import importlib
from collections.abc import Callable
from typing import Any


def import_callable(name: str, place: str, *, purpose: str) -> Callable[..., Any]:
    """What ``place`` names.

    Args:
        name: The option that names it, for the errors.
        place: ``module:callable``.
        purpose: What it must be callable with, for the errors.

    Raises:
        ValueError: The module cannot be imported, lacks the attribute, or the attribute cannot be called.

    >>> import_callable("loss.callable", "math:sqrt", purpose="a number")(4.0)
    2.0
    """
    module_name, _, attribute = place.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(f"{name}: {module_name} cannot be imported ({error})") from error
    found = getattr(module, attribute, None)
    if found is None:
        raise ValueError(f"{name}: module {module_name} has no {attribute}")
    if not callable(found):
        raise ValueError(f"{name}: {attribute} must be callable with {purpose}, is {type(found).__name__}")
    return found
