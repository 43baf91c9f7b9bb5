"""A page that a person can look through, group by group: one HTML file that needs nothing beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow.compute as pc

from verl_air.data.check.findings import Report
from verl_air.data.schema import SCHEMA, SPLITS, Row, open_table, read_extra_columns

_TEMPLATE = Path(__file__).with_name("preview.html.jinja")
_DROPPED = frozenset({"request"})  # shown as the group's heading


@dataclass
class _Group:
    file: str
    intent_id: str
    domain: str
    split: str
    request: str
    rows: list[dict[str, Any]] = field(default_factory=list)


def write_preview(out: Path, paths: Sequence[str | os.PathLike[str]], report: Report, *, groups: int = 60) -> Path:
    """Write the page.

    Args:
        out: the HTML file.
        paths: the files that were checked.
        report: what was found.
        groups: how many meta-groups to show, spread evenly over the files and over each file's length.

    Raises:
        DataError: a file cannot be read.
    """
    share = max(1, groups // max(1, len(paths)))
    shown = [group for path in paths for group in _sample(Path(path), share)]
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        report=report, groups=shown, splits=SPLITS, n_groups=sum(file.intents for file in report.files.values())
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(out)
    return out


def _sample(path: Path, n: int) -> list[_Group]:
    intent_id = read_extra_columns(path, ("intent_id",))["intent_id"]
    names = pc.unique(intent_id)
    if not len(names):
        return []
    chosen = names.take(np.unique(np.linspace(0, len(names) - 1, min(n, len(names))).astype(int)))
    wanted = np.flatnonzero(pc.is_in(intent_id, value_set=chosen).to_numpy())
    found: dict[tuple[str, str], _Group] = {}
    for row in _rows(path, wanted):
        info, extras = row["extra_info"], _extras(row)
        key = info["intent_id"], info["split"]
        group = found.setdefault(key, _Group(str(path), key[0], info["domain"], key[1], str(extras.get("request", ""))))
        group.rows.append(
            {
                **{name: info[name] for name in ("role", "context", "family", "index")},
                "prompt": row["prompt"],
                "ground_truth": row["reward_model"]["ground_truth"],
                "extras": {name: value for name, value in extras.items() if name not in _DROPPED},
            }
        )
    return list(found.values())


def _rows(path: Path, wanted: np.ndarray) -> Iterator[Row]:
    start = 0
    for batch in open_table(path).iter_batches(columns=SCHEMA.names):
        inside = wanted[(wanted >= start) & (wanted < start + batch.num_rows)] - start
        if len(inside):
            yield from batch.take(inside).to_pylist()
        start += batch.num_rows


def _extras(row: Row) -> dict[str, Any]:
    """Decoded; a fault in it is reported by the check, and shown here as it is."""
    raw = row["extra_info"]["extras"]
    try:
        decoded = json.loads(raw or "{}")
    except json.JSONDecodeError:
        decoded = None
    return decoded if isinstance(decoded, dict) else {"extras": raw}
