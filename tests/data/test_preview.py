from __future__ import annotations

import json
import re
from pathlib import Path

from tests.data.support import build_fixture, spoil
from verl_air.data.check import check_files
from verl_air.data.check.preview import write_preview
from verl_air.data.schema import read_rows


def test_the_page_shows_whole_groups_of_every_file(tmp_path: Path) -> None:
    files = build_fixture("moral", tmp_path / "data")
    page = write_preview(tmp_path / "pages" / "p.html", files, check_files(files), groups=6).read_text()
    assert page.count('<details class="group"') == 6
    for file in files:
        first = next(read_rows(file))["extra_info"]["intent_id"]
        assert page.count(f"intent {first} in {file}") == 1
    shown = re.findall(r"\((\d+) rows\)", page)
    assert sorted(shown) == ["4", "4", "4", "4", "8", "8"]
    assert not re.search(r"(src|href)\s*=", page), "it needs no other file"
    assert [path.name for path in (tmp_path / "pages").iterdir()] == ["p.html"]


def test_more_groups_than_there_are(tmp_path: Path) -> None:
    files = build_fixture("moral", tmp_path)
    page = write_preview(tmp_path / "p.html", files, check_files(files), groups=1000).read_text()
    assert page.count('<details class="group"') == 12


def test_what_a_row_holds_cannot_run_in_the_page(tmp_path: Path) -> None:
    files = build_fixture("moral", tmp_path)
    evil = "<script>alert('x')</script>"

    def plant(rows: list) -> None:
        for row in rows:
            row["prompt"][0]["content"] = row["reward_model"]["ground_truth"] = evil
            row["extra_info"]["extras"] = json.dumps({"request": evil, evil: evil})
            row["extra_info"]["context"] = evil

    spoil(files[1], plant)
    page = write_preview(tmp_path / "p.html", files[1:2], check_files(files[1:2])).read_text()
    assert "alert(&#39;x&#39;)" in page
    assert "<script>alert" not in page


def test_findings_are_on_the_page_and_broken_extras_are_shown_as_they_are(tmp_path: Path) -> None:
    files = build_fixture("moral", tmp_path)
    spoil(files[1], lambda rows: rows[0]["extra_info"].update(extras="{oops"))
    page = write_preview(tmp_path / "p.html", files, check_files(files)).read_text()
    assert "1 error(s)" in page
    assert "is not JSON" in page
    assert "{oops" in page
