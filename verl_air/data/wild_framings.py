"""Jailbreak templates found in the wild, as framings: JSON arrays, JSON lines, CSV and TSV, in their own conventions.

An entry is a text, a conversation (a list of turns), or an object with one of them under a usual name; further columns
are optional: ``jailbreak`` (entries that are marked as none are left out), ``name``, and ``family``.

The request replaces each ``[INSERT PROMPT HERE]`` and its variants (other verbs, nouns, brackets, languages), else each
``{goal}``, ``[PROMPT]``, ``<request>`` and the like; without such a placeholder it is appended to the last user turn.
All other brackets and braces are text. Near-duplicates are left out. A family is what the column says; else it is a
cluster of texts whose sets of words overlap by ``FAMILY_THRESHOLD``, directly or through others.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from verl_air.data.framings import FramingTemplate
from verl_air.data.intents import Exclusions, normalise
from verl_air.data.near_duplicates import clusters, first_linked
from verl_air.data.sources import read_source
from verl_air.errors import DataError

_Turns = tuple[tuple[str, str], ...]  # role and text of each

_logger = logging.getLogger(__name__)

FAMILY_THRESHOLD = 0.4
_MOST_EXACT = 4000  # templates whose pairs are all compared
SUFFIXES = frozenset({".json", ".jsonl", ".csv", ".tsv"})

_TEXT_COLUMNS = ("prompt", "template", "jailbreak_prompt", "text", "content", "request")
_TURN_COLUMNS = ("messages", "turns", "conversation", "conversations")
_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
_TWICE = "have several placeholders, of which each gets the request (remove those that only talk about it)"
_APPENDED = "have no placeholder, so that the request is appended (write {request} where it belongs instead)"

_VERBS = (
    r"\b(?:insert|put|enter|place|type|write|paste|add|replace|your|insert[ae]r?|escrib[ae]|ins[ée]r(?:er|ez)|[ée]cri(?:re|vez)"
    r"|inseri(?:r|sci)|insira|hier|вставьте|введите)\b|插入|输入|輸入|入力|挿入"
)
_NOUNS = (
    r"prompt|request|goal|question|query|instructions?|task|behaviou?r|pregunta|solicitud|petici[óo]n|consigna|demande"
    r"|requ[êe]te|domanda|richiesta|pergunta|solicita[çc][ãa]o|frage|anfrage|aufgabe|вопрос|запрос|提示|问题|問題|请求|質問"
)
_BRACKETS = (r"\[{1,2}", r"\]{1,2}"), (r"\{{1,2}", r"\}{1,2}"), (r"<", r">"), (r"\(", r"\)")
_INSTRUCTION = re.compile(
    "|".join(
        rf"{left}\s*(?=[^\]}}>)\n]{{0,12}}(?:{_VERBS}))(?=[^\]}}>)\n]{{0,80}}(?:{_NOUNS}))[^\[\]{{}}<>()\n]{{1,80}}{right}"
        for left, right in _BRACKETS
    ),
    re.IGNORECASE,
)
_NAME = re.compile(
    "|".join(rf"{left}\s*(?:{_NOUNS})\s*{right}" for left, right in _BRACKETS[:3]),
    re.IGNORECASE,
)
_UNSPACED = re.compile(r"([\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff])")


def read_wild_framings(
    path: Path, family_column: str = "", exclusions: Exclusions | None = None
) -> list[FramingTemplate]:
    """The templates of a file, without registering them; those with several placeholders or none are logged.

    Args:
        path: of one of the kinds in ``SUFFIXES``.
        family_column: the column that says the family; else ``family`` if there is one, else families are clusters.
        exclusions: counts what is left out: empty entries, those marked as no jailbreak, near-duplicates.

    Raises:
        DataError: the file cannot be read, or an entry is malformed; the message names file and entry.
    """
    exclusions = Exclusions() if exclusions is None else exclusions
    unusual = Exclusions()
    entries: list[tuple[str, dict[str, Any], _Turns]] = []
    for row in read_source(str(path)).rows:
        columns = {str(name).strip().lower(): value for name, value in row.values.items()}
        if family_column and family_column.lower() not in columns:
            raise DataError(f"{row.where}: no column {family_column!r}; the columns are {', '.join(row.values)}")
        mark = str(columns.get("jailbreak", "true")).strip().lower()
        if mark not in ("true", "1", "yes", "false", "0", "no"):
            raise DataError(f"{row.where}, column 'jailbreak': {mark!r} is neither true nor false")
        if mark in ("false", "0", "no"):
            exclusions.add("marked as no jailbreak", row.where)
        elif turns := _turns(columns, row.where):
            messages, n = with_placeholder(turns)
            entries.append((row.where, columns, messages))
            if n != 1:
                unusual.add(_TWICE if n else _APPENDED, row.where)
        else:
            exclusions.add("without text", row.where)
    for what, places in unusual.as_dict().items():
        _logger.warning("templates that %s: %d (e.g. %s)", what, places["count"], "; ".join(places["examples"]))
    texts = [_UNSPACED.sub(r" \1 ", "\n".join(text for _, text in turns)) for _, _, turns in entries]
    kept = []
    for z, root in enumerate(clusters(texts).tolist()):
        if z == root:
            kept.append(z)
        else:
            exclusions.add("near-duplicate template", entries[z][0])
    framings = []
    for z, root in zip(kept, _families([texts[z] for z in kept]), strict=True):
        _, columns, messages = entries[z]
        name, family = (str(columns.get(key) or "").strip() for key in ("name", family_column.lower() or "family"))
        framings.append(
            FramingTemplate(
                name=name or f"{path.stem}-{_digest(messages)}",
                family=family or f"{path.stem}-family-{_digest(entries[kept[root]][2])}",
                messages=messages,
                wild=True,
            )
        )
    if not framings:
        raise DataError(
            f"{path}: no usable template ({', '.join(f'{n} {why}' for why, n in exclusions.counts.items())})"
        )
    return framings


def _families(texts: list[str]) -> list[int]:
    """The first text of each text's family: texts that overlap, directly or through others."""
    if len(texts) > _MOST_EXACT:
        return clusters(texts, threshold=FAMILY_THRESHOLD).tolist()  # its bands propose about half of such pairs
    words = [set(normalise(text).split()) for text in texts]
    number = {word: column for column, word in enumerate(sorted(set().union(*words)))}
    rows = [z for z, own in enumerate(words) for _ in own]
    columns = [number[word] for own in words for word in own]
    has_ZT = csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(texts), len(number) or 1))
    shared_ZZ, size_Z = (has_ZT @ has_ZT.T).toarray(), has_ZT.sum(axis=1)
    union_ZZ = size_Z[:, None] + size_Z[None] - shared_ZZ
    return first_linked(csr_array(shared_ZZ >= FAMILY_THRESHOLD * union_ZZ)).tolist()


def with_placeholder(turns: _Turns) -> tuple[_Turns, int]:
    """The turns with ``{request}`` where the request goes, and how many placeholders there were."""
    for pattern in (_INSTRUCTION, _NAME):
        # "<prompt>" is a tag, and no placeholder, where "</prompt>" follows.
        found = (f"</{match[0].strip('<> ')}>" not in text for _, text in turns for match in pattern.finditer(text))
        if any(found):
            replaced = [(role, *pattern.subn("{request}", text)) for role, text in turns]
            return tuple((role, text) for role, text, _ in replaced), sum(n for *_, n in replaced)
    *before, (role, last) = turns
    return (*before, (role, f"{last}\n\n{{request}}")), 0


def _turns(columns: Mapping[str, Any], where: str) -> _Turns:
    """Roles and texts; empty if there is no text. The last turn is the user's."""
    column = next((name for name in (*_TURN_COLUMNS, *_TEXT_COLUMNS) if name in columns), None)
    if column is None:
        raise DataError(
            f"{where}: none of the columns {', '.join((*_TEXT_COLUMNS, *_TURN_COLUMNS))}; it has {', '.join(columns)}"
        )
    value = columns[column]
    if isinstance(value, str) and column in _TURN_COLUMNS:  # a CSV cell holds a list as JSON
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise DataError(f"{where}, column {column!r}: expected a JSON list of turns ({error})") from error
    if not isinstance(value, list):
        text = str(value or "").strip()
        return (("user", text),) if text else ()
    place = f"{where}, column {column!r}"
    turns = tuple(_turn(turn, number, f"{place}, turn {number + 1}") for number, turn in enumerate(value))
    if turns and turns[-1][0] != "user":
        raise DataError(f"{place}: the last turn must be the user's; end the list before the reply")
    return turns if any(text for _, text in turns) else ()


def _turn(turn: Any, number: int, where: str) -> tuple[str, str]:
    """A text (turns alternate, the user's first), ``{role, content}``, ``{from, value}`` or ``{user: text}``."""
    if isinstance(turn, str):
        return ("assistant" if number % 2 else "user"), turn.strip()
    if isinstance(turn, dict):
        role, text = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
        if role is None and len(turn) == 1:
            ((role, text),) = turn.items()
        role = _ROLES.get(str(role).lower(), str(role).lower())
        if role in ("system", "user", "assistant") and isinstance(text, str):
            return role, text.strip()
    raise DataError(f"{where}: expected a text, or an object with role (system, user, assistant) and content")


def _digest(turns: _Turns) -> str:
    return hashlib.sha256(normalise("\n".join(text for _, text in turns)).encode()).hexdigest()[:8]
