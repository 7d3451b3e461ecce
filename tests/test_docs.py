import importlib.util
import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"


def make_tables():
    spec = importlib.util.spec_from_file_location("make_tables", DOCS / "make_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_of_the_data_page_are_what_the_code_says():
    page = (DOCS / "data.md").read_text()
    assert make_tables().filled(page) == page, "run python docs/make_tables.py"


def test_every_table_is_on_the_page():
    page = (DOCS / "data.md").read_text()
    assert set(re.findall(r"<!-- table: ([a-z-]+) -->", page)) == set(make_tables().TABLES)
