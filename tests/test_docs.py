import importlib
import importlib.util
import re
from pathlib import Path

import pytest

from jobs.recipes import small_cpu
from tests.commands import assert_taken, commands_in, require_fitting_data

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"

PAGES = ("quickstart", "method", "data", "clusters", "training", "tuning", "terminal")
"""Those with commands."""


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


def test_every_name_on_the_method_page_can_be_imported():
    names = set(re.findall(r"`((?:gblend|jobs)(?:\.\w+)+)`", (DOCS / "method.md").read_text()))
    assert len(names) > 30
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            module, _, attribute = name.rpartition(".")
            assert hasattr(importlib.import_module(module), attribute), name


def test_the_method_page_has_every_equation_algorithm_table_and_figure_of_the_paper_once_in_order():
    page = (DOCS / "method.md").read_text()
    rows = re.findall(r"^\| (Eq\. \d|Algorithm \d|Table \d|Fig\. \d)", page, flags=re.MULTILINE)
    for kind, count in (("Eq.", 7), ("Algorithm", 3), ("Table", 8), ("Fig.", 6)):
        numbers = [int(row[-1]) for row in rows if row.startswith(kind)]
        assert list(dict.fromkeys(numbers)) == list(range(1, count + 1))


@pytest.mark.parametrize("page", [ROOT / "README.md", *(DOCS / f"{name}.md" for name in PAGES)], ids=lambda p: p.stem)
def test_every_command_on_a_page_is_one_the_program_takes_on_the_data_it_makes_before(page, monkeypatch, capsys):
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), flags=re.DOTALL)
    taken = assert_taken(commands_in("\n".join(blocks)), monkeypatch, capsys)
    read = require_fitting_data(taken)
    assert read > 0 or not any("rgb" in each for each in taken)


def test_no_run_is_given_to_a_report_twice_by_the_readme(monkeypatch, capsys):
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    taken = assert_taken(commands_in("\n".join(blocks)), monkeypatch, capsys)
    places = {each["out"] for each in taken if "config" in each}
    (reported,) = [command[1:-2] for command in commands_in("\n".join(blocks)) if command[0] == "report"]
    assert len(reported) == 1
    assert set(reported) <= places


def test_every_flag_on_the_method_page_is_a_setting_of_a_recipe():
    flags = re.findall(r"`--([a-z]+)\.([a-z0-9-]+)", (DOCS / "method.md").read_text())
    assert len(flags) > 20
    for section, name in flags:
        assert hasattr(getattr(small_cpu(), section), name.replace("-", "_")), f"--{section}.{name}"
