"""The site of docs/ lists every page and script there is; what it says of itself and how to cite it agree. The strict
build itself is `make docs`, a part of `make test`.
"""

import ast
import importlib.util
import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]


def pages_in(nav: object) -> list[str]:
    """The files of a nav, depth first."""
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [page for part in parts for page in pages_in(part)]  # type: ignore[union-attr]


def test_every_page_is_in_the_navigation_once():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    docs = ROOT / "docs"
    assert sorted(pages_in(nav)) == sorted(str(page.relative_to(docs)) for page in docs.rglob("*.md"))


def test_the_benchmarks_page_has_every_script_and_nothing_else():
    page = (ROOT / "docs" / "benchmarks.md").read_text().partition("## Every script")[2]
    listed = re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE)
    scripts = [
        path.stem
        for path in sorted((ROOT / "benchmarks").glob("*.py"))
        if f"python -m benchmarks.{path.stem}" in (ast.get_docstring(ast.parse(path.read_text())) or "")
    ]
    assert listed == scripts


def test_examples_in_docstrings_become_code():
    spec = importlib.util.spec_from_file_location("doctest_fences", ROOT / "docs" / "doctest_fences.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = "Sum.\n\n>>> x = [\n...     1,\n... ]\n>>> x\n[1]\n\nMore.\n\n>>> 2\n2"
    assert module.fenced(text) == (
        "Sum.\n\n```pycon\n>>> x = [\n...     1,\n... ]\n>>> x\n[1]\n```\n\nMore.\n\n```pycon\n>>> 2\n2\n```"
    )
    assert module.fenced("No example.\n\n    >> quoted") == "No example.\n\n    >> quoted"


def test_the_citation_names_this_version_and_the_paper_of_the_readme():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    for name in ("version", "license", "keywords"):
        assert citation[name] == project[name]
    (paper,) = citation["references"]
    bibtex = (ROOT / "README.md").read_text().partition("@inproceedings")[2]
    assert f"{{{paper['title']}}}" in bibtex
    names = " and ".join(f"{author['family-names']}, {author['given-names']}" for author in paper["authors"])
    assert f"{{{names}}}" in bibtex
    assert f"{{{paper['year']}}}" in bibtex


def test_hooks_run_tools_of_the_pinned_environment():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]
    assert all(hook["entry"].startswith(".venv/bin/") for hook in hooks[0]["hooks"])


def test_contributing_takes_three_commands_that_exist():
    (block,) = re.findall(r"```sh\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.DOTALL)
    targets = set(re.findall(r"^make (\w+)", block, flags=re.MULTILINE))
    assert len(block.splitlines()) == 3
    assert targets <= set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
