"""What the domains share: intents out of sources, without duplicates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from verl_air.data.build import Material
from verl_air.data.intents import Exclusions, Intent
from verl_air.data.sources import Record, Source, read_source
from verl_air.errors import DataError


class ExcludeRow(Exception):  # noqa: N818  it is no error: the row is left out and counted
    """Raised by a domain for a row that cannot become an intent; the message is the reason that is counted."""


def collect(
    sources: Iterable[Source],
    make_intent: Callable[[Source, Record], Intent],
    exclusions: Exclusions,
    seen: set[str],
) -> list[Intent]:
    """Intents of all rows, in the order of the sources; rows left out are counted in ``exclusions``.

    Args:
        sources: read in turn.
        make_intent: raises :class:`ExcludeRow` to leave a row out.
        exclusions: is added to.
        seen: ids that were met already, also in other calls; is added to.

    Raises:
        DataError: nothing is left; the message lists the reasons.
    """
    sources = list(sources)
    intents: list[Intent] = []
    for source in sources:
        for record in source.records:
            try:
                intent = make_intent(source, record)
            except ExcludeRow as reason:
                exclusions.add(str(reason), record.where)
                continue
            if intent.intent_id in seen:
                exclusions.add("duplicate", record.where)
                continue
            seen.add(intent.intent_id)
            intents.append(intent)
    if sources and not intents:
        reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(exclusions.counts.items()))
        raise DataError(f"{', '.join(source.name for source in sources)}: no usable row ({reasons})")
    return intents


def material_of(
    domain: str,
    answer: str,
    sources: Sequence[str],
    held_out: Sequence[str],
    make_intent: Callable[[Source, Record], Intent],
) -> Material:
    """The material of a domain whose intents all come from rows of the same kinds.

    Args:
        domain, answer: see :class:`~verl_air.data.build.Material`.
        sources, held_out: names for :func:`~verl_air.data.sources.read_source`.
        make_intent: see :func:`collect`.

    Raises:
        DataError: see :func:`collect` and :func:`~verl_air.data.sources.read_source`.
    """
    exclusions, seen = Exclusions(), set[str]()
    training = [read_source(name) for name in sources]
    apart = [read_source(name) for name in held_out]
    return Material(
        domain,
        answer,
        sources=[*training, *apart],
        intents=collect(training, make_intent, exclusions, seen),
        exclusions=exclusions,
        held_out=collect(apart, make_intent, exclusions, seen),
    )


def require_text(record: Record, column: str) -> str:
    """The column's text; a row without it is left out."""
    text = record.text(column)
    if not text:
        raise ExcludeRow(f"empty {column}")
    return text
