"""Which share of the meta-groups each domain gets: ``air.domain_weights``, applied to the intents of the data.

A key is a domain (``safety``), or a domain with a key of its rows' extras and a value (``safety/harmful/true``,
``safety/kind/plain``), so that a domain can be divided by source, or harmful and benign be balanced. A plain domain
next to such keys gets the rest of its intents.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import Any

import numpy as np
import pyarrow as pa

from verl_air.data.groups import GroupIndex
from verl_air.errors import DataError


@dataclass(frozen=True)
class Mixture:
    """The intents of each key of ``air.domain_weights``, [D].

    weights: shares as whole numbers, so that nothing is rounded however long a run is.
    members: intent numbers, ascending.
    """

    names: tuple[str, ...]
    weights: tuple[int, ...]
    members: tuple[np.ndarray, ...]


def mix(weights: Mapping[str, float], index: GroupIndex, extras: Any) -> Mixture:
    """Assign intents to the keys of ``air.domain_weights``.

    Args:
        weights: at least one.
        index: the data.
        extras: [S] an arrow array with the rows' JSON extras; of each intent that of its first anchor decides.

    Raises:
        DataError: a key that no intent has, or an intent without a key or with two.
    """
    domain_Z = np.array([name.partition("/")[0] for name in index.names.to_pylist()], dtype=object)
    names = list(weights)
    key_Z = np.array([names.index(domain) if domain in weights else -1 for domain in domain_Z.tolist()])
    divided = {key.partition("/")[0] for key in names if "/" in key}
    own_Z = np.flatnonzero(np.isin(domain_Z, list(divided)))
    rows = extras.take(pa.array(index.anchor_rows[index.anchor_offsets[own_Z]]))
    for z, text in zip(own_Z.tolist(), rows.to_pylist(), strict=True):
        try:
            values = dict(json.loads(text or "{}"))
        except (ValueError, TypeError) as error:
            raise DataError(f"intent {index.names[z]}: extras is {text[:80]!r}, expected a JSON object") from error
        own = {f"{domain_Z[z]}/{extra}/{_text(value)}" for extra, value in values.items()}
        found = [number for number, key in enumerate(names) if key in own]
        if len(found) > 1:
            raise DataError(_fault(f"intent {index.names[z]} has {len(found)} keys", [names[n] for n in found]))
        key_Z[z] = found[0] if found else key_Z[z]
    if len(without := np.flatnonzero(key_Z < 0)):
        raise DataError(_fault(f"{len(without)} intents have no weight, e.g. {index.names[int(without[0])]}", names))
    members = tuple(np.flatnonzero(key_Z == number) for number in range(len(names)))
    if empty := [name for name, own_Z in zip(names, members, strict=True) if not len(own_Z)]:
        there = ", ".join(sorted(set(domain_Z)))
        raise DataError(_fault(f"no intent of data.train_files has the key {empty[0]!r}; domains: {there}", names))
    exact = [Fraction(str(weight)) for weight in weights.values()]
    common = lcm(*(weight.denominator for weight in exact))
    return Mixture(tuple(names), tuple(int(weight * common) for weight in exact), members)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _fault(what: str, keys: Sequence[str]) -> str:
    return (
        f"air.domain_weights ({', '.join(keys)}): {what}. Each intent needs exactly one key, and each key an intent: "
        "add or remove keys (`key: null` removes an inherited one) or data files."
    )
