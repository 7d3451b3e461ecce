"""Write the tables of docs/data.md from the code: run `python docs/make_tables.py` after changing schemas.

A table stands between two comments, `<!-- table: NAME -->` and `<!-- end -->`; all else in the page is left alone.
"""

import argparse
import ast
import inspect
import re
import sys
from pathlib import Path

from pipelines.source import DecodeLimits
from schemas.column import Column
from schemas.features import RgbSpec
from schemas.flow import FlowSpec
from schemas.layout import DatasetInfo, ShardDone
from schemas.ledger import LEDGER_COLUMNS, REASONS
from schemas.logmel import LogmelNumbers
from schemas.manifest import IDENTITY_COLUMNS
from schemas.shards import FLOW_COLUMNS, LOGMEL_COLUMNS, PRESENCE_COLUMNS, RGB_COLUMNS
from schemas.tensor import TensorSpec, tensor_columns

PAGE = Path(__file__).with_name("data.md")


def of_columns(columns: tuple[Column, ...]) -> list[str]:
    """A table of an Arrow file's columns."""
    head = ["| column | type | meaning |", "|---|---|---|"]
    return head + [
        f"| `{c.name}` | `{c.type}`{'' if c.nullable else ', never null'} | {escape(c.meaning)} |" for c in columns
    ]


def of_dataclass(kind: type, *, defaults: bool) -> list[str]:
    """A table of a dataclass's fields, from the text under each."""
    tree = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(tree, ast.ClassDef)
    head = ["| setting | default | meaning |", "|---|---|---|"] if defaults else ["| key | meaning |", "|---|---|"]
    rows = []
    for field, text in zip(tree.body, tree.body[1:], strict=False):
        if not isinstance(field, ast.AnnAssign) or not isinstance(text, ast.Expr):
            continue
        assert isinstance(text.value, ast.Constant)
        meaning = escape(" ".join(str(text.value.value).replace("``", "`").split()))
        default = f"`{ast.unparse(default_of(field))}` | " if defaults else ""
        rows.append(f"| `{ast.unparse(field.target)}` | {default}{meaning} |")
    return head + rows


def default_of(field: ast.AnnAssign) -> ast.expr:
    """The default in an assignment, or in its call of ``field``."""
    value = field.value
    assert value is not None
    if isinstance(value, ast.Call):
        return next(keyword.value for keyword in value.keywords if keyword.arg == "default")
    return value


def of_reasons() -> list[str]:
    """A table of the ledger's reasons."""
    head = ["| reason | meaning | tried again by a later run |", "|---|---|---|"]
    return head + [f"| `{name}` | {escape(r.meaning)} | {r.tried_again} |" for name, r in REASONS.items()]


def escape(text: str) -> str:
    """Text for a cell."""
    return text.replace("|", "\\|")


TABLES = {
    "manifest": lambda: of_columns(IDENTITY_COLUMNS),
    "clips": lambda: of_columns(PRESENCE_COLUMNS),
    "rgb": lambda: of_columns(RGB_COLUMNS),
    "flow": lambda: of_columns(FLOW_COLUMNS),
    "logmel": lambda: of_columns(LOGMEL_COLUMNS),
    "ledger": lambda: of_columns(LEDGER_COLUMNS),
    "reasons": of_reasons,
    "done": lambda: of_dataclass(ShardDone, defaults=False),
    "dataset": lambda: of_dataclass(DatasetInfo, defaults=False),
    "rgb-spec": lambda: of_dataclass(RgbSpec, defaults=True),
    "flow-spec": lambda: of_dataclass(FlowSpec, defaults=True),
    "logmel-numbers": lambda: of_dataclass(LogmelNumbers, defaults=True),
    "tensor": lambda: of_columns(tensor_columns("pose")),
    "tensor-spec": lambda: of_dataclass(TensorSpec, defaults=False),
    "limits": lambda: of_dataclass(DecodeLimits, defaults=True),
}


def filled(page: str) -> str:
    """The page with every table as the code says now."""

    def table(found: re.Match[str]) -> str:
        return "\n".join([f"<!-- table: {found[1]} -->", *TABLES[found[1]](), "<!-- end -->"])

    return re.sub(r"<!-- table: ([a-z-]+) -->\n.*?<!-- end -->", table, page, flags=re.DOTALL)


def main() -> int:
    """Write the page, or with ``--check`` say whether it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    page = PAGE.read_text()
    if not check:
        PAGE.write_text(filled(page))
    elif filled(page) != page:
        print(f"{PAGE.name} is not what the code says; run python docs/make_tables.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
