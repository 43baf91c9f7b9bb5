"""Links between pages, and from pages to files, lead somewhere: on disk, on GitHub, and on the site of `make docs`."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

from tests.conftest import ROOT
from tests.docs.pages import PAGES, anchors, links

SKIPPED = {"runs", "build", "dist"}
EVERY_PAGE = sorted(
    path
    for top in ROOT.iterdir()
    if not top.name.startswith(".") and top.name not in SKIPPED
    for path in ([top] if top.suffix == ".md" else top.rglob("*.md"))
)


def broken(page: Path) -> list[str]:
    """The links of a page to files or headings that are not there."""
    found = []
    for link in links(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, fragment = unquote(link).partition("#")
        target = (page.parent / path) if path else page
        is_there = target.exists() and not path.startswith("/")
        if not is_there or (fragment and fragment not in anchors(target.read_text(encoding="utf-8"))):
            found.append(link)
    return found


@pytest.mark.parametrize("page", EVERY_PAGE, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    assert broken(page) == []


def test_pages_are_found_and_have_links() -> None:
    assert {str(path.relative_to(ROOT)) for path in EVERY_PAGE} >= set(PAGES)
    assert "../README.md#install" in links((ROOT / "docs" / "cluster.md").read_text())


def test_a_broken_link_is_seen(tmp_path: Path) -> None:
    (tmp_path / "b.md").write_text("# One `x.y`: 2\n\n## Again\n\n## Again\n\n```\n# code\n```\n")
    page = tmp_path / "a.md"
    page.write_text(
        "# Here\n[ok](b.md#one-xy-2) [ok](b.md#again-1) [ok](#here) [ok](https://example.org/x) `[code](no.md)`\n\n"
        "    [block](no.md)\n\n![image](no.svg) [file](no.md) [heading](b.md#two) [code](b.md#code) [here](#there)\n"
        "[root](/b.md)\n\n[named]: no.txt\n"
    )
    assert broken(page) == ["no.svg", "no.md", "b.md#two", "b.md#code", "#there", "/b.md", "no.txt"]


STAGED = set(re.findall(r"(?m)^PAGES := (.*)$", (ROOT / "Makefile").read_text())[0].split())
IN_SITE = [page for page in EVERY_PAGE if page.relative_to(ROOT).parts[0] in STAGED]
"""The pages of which the Makefile makes the site."""


@pytest.mark.parametrize("page", IN_SITE, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_stay_inside_the_site(page: Path) -> None:
    for link in links(page.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:|#", link):
            target = (page.parent / link.partition("#")[0]).resolve().relative_to(ROOT)
            assert target.parts[0] in STAGED, f"{link}: name {target.parts[0]} in PAGES of the Makefile"


def test_the_menu_names_every_page_once() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    menu = re.findall(r"[\w./-]+\.md", yaml.safe_dump(config["nav"]))
    pages = {str(path.relative_to(ROOT)) for path in IN_SITE}
    assert sorted(menu) == sorted(pages - {config["not_in_nav"].lstrip("/")})
