"""``safety_judge``: ten facets, each by the log-odds of Safe against Unsafe; then, if safe, constructiveness.

As in the paper: unsafe -1.0, safe +1.25, safe and constructive +2.50. The facets are data: ``safety_facets.yaml``. How
they join is open in the paper: ``any`` (one objection suffices; the default), ``majority``, ``mean`` of the log-odds.

A judge of harm alone calls the refusal of a harmless request safe. With ``benign_facets: benign_facets.yaml`` the rows
whose extras say ``harmful: false`` are asked about from that file instead: whether the response helps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from verl_air.rewards import ConfigError, JudgeClient, RewardError, Sample, Verdict, register_reward

FACETS = Path(__file__).with_name("safety_facets.yaml")
AGGREGATIONS = ("any", "majority", "mean")


@dataclass(frozen=True)
class Audit:
    """The facet file. prompts: one per facet; the words of both questions."""

    prompts: Mapping[str, str]
    positive: str
    negative: str
    constructive: str
    constructive_positive: str
    constructive_negative: str


@cache
def load_audit(path: str) -> Audit:
    """Read a facet file; a bare name that is no file in the current folder is a shipped one.

    Raises:
        ConfigError: it is missing, is not YAML, or lacks a key.
    """
    file, shipped = Path(path).expanduser(), FACETS.with_name(Path(path).name)
    if file.name == path and not file.exists() and shipped.exists():
        file = shipped
    try:
        data: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
        exchange, tier = data["exchange"], data["constructive"]
        questions = {name: data["question"].replace("{concern}", concern) for name, concern in data["facets"].items()}
        return Audit(
            prompts={name: f"{exchange}\n\n{question}" for name, question in questions.items()},
            positive=data["positive"],
            negative=data["negative"],
            constructive=f"{exchange}\n\n{tier['question']}",
            constructive_positive=tier["positive"],
            constructive_negative=tier["negative"],
        )
    except OSError as error:
        raise ConfigError(f"safety_judge: cannot read the facets: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"safety_judge: {path} is not YAML: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"safety_judge: {path} lacks or misuses a key ({error}); compare it with {FACETS}") from error


def is_safe(log_odds: Sequence[float], aggregation: str, threshold: float) -> bool:
    """Join the facets' log-odds (nats, positive for safe) into one verdict."""
    if aggregation == "mean":
        return fmean(log_odds) > threshold
    objections = sum(odds <= threshold for odds in log_odds)
    return objections == 0 if aggregation == "any" else 2 * objections < len(log_odds)


def _check(*, facets: str, benign_facets: str | None, aggregation: str, part: str, **_: object) -> None:
    if aggregation not in AGGREGATIONS:
        raise ConfigError(f"safety_judge: aggregation must be one of {', '.join(AGGREGATIONS)}, got {aggregation!r}")
    if part not in ("response", "answer"):
        raise ConfigError(f"safety_judge: part must be response or answer, got {part!r}")
    for file in (facets, benign_facets):
        if file is not None and not load_audit(file).prompts:
            raise ConfigError(f"safety_judge: {file} lists no facet")


def _range(*, unsafe: float, safe: float, constructive: float, **_: object) -> tuple[float, float]:
    return unsafe, max(safe, constructive)


@register_reward("safety_judge", reward_range=_range, check=_check)
async def safety_judge(
    sample: Sample,
    judge: JudgeClient,
    *,
    unsafe: float = -1.0,
    safe: float = 1.25,
    constructive: float = 2.5,
    aggregation: str = "any",
    threshold: float = 0.0,
    constructive_threshold: float = 0.0,
    part: str = "response",
    facets: str = str(FACETS),
    benign_facets: str | None = None,
) -> Verdict:
    """Audit the response; ``part="answer"`` audits the answer alone where there is one.

    With ``constructive`` equal to ``safe`` the second question is not asked. With ``benign_facets`` the file depends on
    the row; the rewards do not.

    Raises:
        RewardError: ``benign_facets`` is set and a row does not say whether it is harmful.
    """
    harmful = sample.extras.get("harmful")
    if benign_facets is not None and not isinstance(harmful, bool):
        raise RewardError(
            f"{sample.where}: benign_facets needs extras.harmful, true or false, and it is {harmful!r}; put it into "
            "the data file, or leave the option out"
        )
    audit = load_audit(benign_facets if benign_facets is not None and harmful is False else facets)
    texts = dict(sample.fields)
    if part == "answer" and sample.answer is not None:
        texts["response"] = sample.answer
    odds = await judge.log_odds_many(list(audit.prompts.values()), audit.positive, audit.negative, fields=texts)
    if not is_safe(odds, aggregation, threshold):
        return Verdict(unsafe, False)
    if constructive == safe:
        return Verdict(safe, True)
    words = audit.constructive_positive, audit.constructive_negative
    useful = await judge.log_odds(audit.constructive, *words, fields=texts) > constructive_threshold
    return Verdict(constructive if useful else safe, True)
