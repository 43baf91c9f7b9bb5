"""What a user watches: ``air/...`` while training, ``val-core/...`` in validation. docs/how_it_works.md lists all."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from verl_air.objective import group_accuracy, group_trajectories
from verl_air.rewards.judge.settings import SERVED
from verl_air.training.batch import Trajectories, as_floats
from verl_air.training.rows import GROUP_KEY, check_identity

log = logging.getLogger(__name__)

ANCHORS_WORSE = (
    "verl-air: %s: anchors earn less than open variants (gap %.2f, below zero by more than two standard errors). "
    "air.gap=positive leaves such variants alone, air.gap=signed pushes them down. Look at air/anchor_acc and "
    "air/anchor_truncation_rate: an anchor that is answered wrong is no reference."
)


def training_metrics(
    trajectories: Trajectories,
    valid_N: np.ndarray,
    dropped_groups: int,
    *,
    aux_reward_N: np.ndarray | None = None,
    weighted_N: np.ndarray | None = None,
    judges: Sequence[str] = (),
) -> dict[str, float]:
    """The ``air/...`` metrics of one batch, over all domains and for each if there are several.

    Args:
        trajectories: the batch.
        valid_N: rows that take part in the loss.
        dropped_groups: meta-groups in which a rollout failed.
        aux_reward_N: the rewards that the auxiliary loss is formed from; None where it is off.
        weighted_N: the rows that it is formed from.
        judges: their names; of several, each has its own metrics.

    Returns:
        Metrics by name. A rate or mean over nothing is left out rather than reported as zero. Where anchors earn less
        than open variants a line is logged.
    """
    t, valid_N = trajectories, valid_N & trajectories.final_N
    weighted_N = valid_N if weighted_N is None else weighted_N & t.final_N
    gap_Z, domain_Z = _gaps(t, t.reward_N, valid_N)
    nothing = (np.empty(0), np.empty(0, dtype=object))
    aux_gap_Z, aux_domain_Z = nothing if aux_reward_N is None else _gaps(t, aux_reward_N, weighted_N)
    metrics = {"air/groups/dropped": float(dropped_groups), "air/groups/complete": float(len(gap_Z))}
    domains = sorted(set(t.domain_N[t.real_N]))
    for domain in (None, *domains) if len(domains) > 1 else (None,):
        own_N, own_Z, aux_own_Z = (
            np.ones(len(column), dtype=bool) if domain is None else column == domain
            for column in (t.domain_N, domain_Z, aux_domain_Z)
        )
        means = _means(t, gap_Z[own_Z], valid_N & own_N, t.real_N & own_N)
        means["gap/aux_mean"] = _mean(aux_gap_Z[aux_own_Z])
        means["gap/anchors_worse"] = worse = _below_zero(aux_gap_Z[aux_own_Z])
        if worse:
            log.warning(ANCHORS_WORSE, domain or "all domains", means["gap/aux_mean"])
        metrics |= {f"air/{_of(domain, name)}": value for name, value in means.items() if value is not None}
    if len(judges) > 1:
        for index, name in enumerate(judges):
            asked_N = t.real_N & (t.info_N["judge"] == index)
            of_judge = _judge_means(t, asked_N)
            metrics |= {f"air/judges/{name}/{key}": value for key, value in of_judge.items() if value is not None}
    return metrics


def _below_zero(gap_Z: np.ndarray) -> float | None:
    """1.0 if the mean gap is below zero by more than two standard errors; None for fewer than two meta-groups."""
    return float(gap_Z.mean() < -2 * gap_Z.std(ddof=1) / np.sqrt(len(gap_Z))) if len(gap_Z) > 1 else None


def judge_names(config: Any) -> list[str]:
    """The names that the reward column ``judge`` counts, in the order of ``ScoringPlan.judges``."""
    judges = OmegaConf.select(config, "reward.custom_reward_function.reward_kwargs.judges") or {}
    return list(dict.fromkeys([*map(str, judges), SERVED]))


def _gaps(t: Trajectories, reward_N: np.ndarray, valid_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Anchor minus open mean reward of each complete meta-group, and its domain: [Z], [Z]."""
    columns = (reward_N, t.prompt_N, t.group_N, t.is_anchor_N)
    groups = group_trajectories(*(torch.from_numpy(column[valid_N]) for column in columns))
    domain_Z = np.empty(len(groups.complete_Z), dtype=object)
    domain_Z[groups.group_N.numpy()] = t.domain_N[valid_N]
    return groups.gap_Z.numpy(), domain_Z[groups.complete_Z.numpy()]


def _means(t: Trajectories, gap_Z: np.ndarray, valid_N: np.ndarray, real_N: np.ndarray) -> dict[str, float | None]:
    anchor_N, open_N = t.is_anchor_N, ~t.is_anchor_N
    return {
        "gap/mean": _mean(gap_Z),
        "gap_se": float(gap_Z.std(ddof=1) / np.sqrt(len(gap_Z))) if len(gap_Z) > 1 else None,
        "anchor_reward/mean": _mean(t.reward_N[valid_N & anchor_N]),
        "open_reward/mean": _mean(t.reward_N[valid_N & open_N]),
        "anchor_acc": _mean(_finite(t.info_N["acc"][valid_N & anchor_N])),
        "open_acc": _mean(_finite(t.info_N["acc"][valid_N & open_N])),
        **{f"judge/{name}": value for name, value in _judge_means(t, real_N & open_N).items()},
        "no_answer_rate": _mean(1.0 - _finite(t.info_N["format_ok"][real_N])),
        "truncation_rate": _mean(t.truncated_N[real_N]),
        "anchor_truncation_rate": _mean(t.truncated_N[real_N & anchor_N]),
        "zero_std_rate": _mean(_flat_prompts(t.reward_N[valid_N], t.prompt_N[valid_N])),
    }


def _judge_means(t: Trajectories, rows_N: np.ndarray) -> dict[str, float | None]:
    return {"abstain_rate": _mean(t.abstained_N[rows_N]), "mass": _mean(_finite(t.info_N["judge_mass"][rows_N]))}


def _of(domain: str | None, name: str) -> str:
    """``gap/mean`` of a domain is ``gap/<domain>/mean``: the quantity comes first, as in verl's own names."""
    head, slash, tail = name.partition("/")
    return name if domain is None else f"{head}/{domain}{slash}{tail}"


def _mean(values: np.ndarray) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def _flat_prompts(reward_N: np.ndarray, prompt_N: np.ndarray) -> np.ndarray:
    """Whether all completions of a prompt earned the same: bool [S]."""
    _, first, prompt_N = np.unique(prompt_N, return_index=True, return_inverse=True)
    return np.bincount(prompt_N, weights=reward_N != reward_N[first][prompt_N]) == 0


RANGES = ("score_min", "score_max", "task_min", "task_max", "judge")
"""Reward columns that the route alone decides: stored with rollouts, but no curves."""


def without_constants(infos: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """The reward columns that verl makes validation metrics of, with None for "no value", which it leaves out.

    A NaN would make its mean over the whole data source NaN. Of ``acc`` it then counts such a row as 0, as it does a
    failed session, and leaves it out of ``acc_success_only``.
    """
    return {
        name: [None if isinstance(value, float) and value != value else value for value in values]
        for name, values in infos.items()
        if name not in RANGES
    }


def validation_metrics(
    identities: Sequence[Mapping[str, Any]],
    data_sources: Sequence[str],
    infos: Mapping[str, Sequence[Any]],
    intents: Mapping[str, int] | None = None,
) -> dict[str, float]:
    """Accuracy of prompts and of meta-groups, by data source: ``val-core/<domain>/<split>/acc``, ``.../group_acc``.

    A meta-group that lacks a completion or a verdict is not right, and is counted as incomplete.

    Args:
        identities: ``extra_info`` of each sample, with ``group_size`` (``rows.SIZES``) where the data is known; samples
            without one are left out.
        data_sources: of each sample.
        infos: reward columns of each sample; nothing is reported without ``acc``.
        intents: how many each data source has; None: those of the samples.

    Raises:
        DataError: a sample's ``extra_info`` lacks ``role`` or ``intent_id``.
    """
    if "acc" not in infos:
        return {}
    rows = [row for row, identity in enumerate(identities) if identity]
    for row in rows:
        check_identity(identities[row], f"validation row {identities[row].get('index')}")
    source_N = np.array([str(data_sources[row]) for row in rows], dtype=object)
    role_N = np.array([str(identities[row]["role"]) for row in rows], dtype=object)
    group_N, prompt_N = (_ids([[identities[row].get(name) for name in names] for row in rows]) for names in _KEYS)
    size_N = np.array([identities[row].get("group_size") or 0 for row in rows], dtype=np.int64)
    acc_N = as_floats([infos["acc"][row] for row in rows])
    metrics: dict[str, float | None] = {}
    for source in sorted({*source_N, *(intents or {})}):
        own_N = source_N == source
        groups = group_accuracy(acc_N[own_N], prompt_N[own_N], group_N[own_N], size_N[own_N])
        expected = max((intents or {}).get(source, 0), len(groups.group_Z))
        found = {
            "acc": _mean(_finite(acc_N[own_N])),
            "group_acc": float(groups.all_right_Z.sum()) / expected,
            "incomplete": (expected - float((~groups.incomplete_Z).sum())) / expected,
            "abstain_rate": _mean(~np.isfinite(acc_N[own_N])),
        }
        found |= {f"{role}_acc": _mean(_finite(acc_N[own_N & (role_N == role)])) for role in sorted(set(role_N[own_N]))}
        metrics |= {f"val-core/{source}/{name}": value for name, value in found.items()}
    return {name: value for name, value in metrics.items() if value is not None}


_KEYS = (GROUP_KEY, (*GROUP_KEY, "role", "context", "index"))
"""Of ``extra_info``: what distinguishes meta-groups, and prompts."""


def _ids(names: list[list[Any]]) -> np.ndarray:
    """A compact integer per distinct list of names."""
    known: dict[tuple[Any, ...], int] = {}
    return np.array([known.setdefault(tuple(name), len(known)) for name in names], dtype=np.int64)
