"""What a user watches during training, computed on valid rows only, over all domains and for each."""

from __future__ import annotations

import numpy as np

from verl_air.training.trajectories import Trajectories


def training_metrics(trajectories: Trajectories, valid_N: np.ndarray, dropped_groups: int) -> dict[str, float]:
    """The ``air/...`` metrics of one batch.

    Args:
        trajectories: the batch.
        valid_N: rows that take part in the loss.
        dropped_groups: meta-groups masked out because a rollout failed.

    Returns:
        Metrics by name. A rate or mean over nothing is left out rather than reported as zero.
    """
    real_N = trajectories.final_N & ~trajectories.padding_N
    valid_N = valid_N & trajectories.final_N
    metrics = {
        "air/groups/dropped": float(dropped_groups),
        "air/groups/complete": float(len(_group_gaps(trajectories, valid_N))),
    }
    metrics.update(_means("", trajectories, valid_N, real_N))
    domains = sorted(set(trajectories.domain_N[real_N]))
    for domain in domains if len(domains) > 1 else ():
        of_domain = trajectories.domain_N == domain
        metrics.update(_means(f"{domain}/", trajectories, valid_N & of_domain, real_N & of_domain))
    return metrics


def _means(prefix: str, t: Trajectories, valid_N: np.ndarray, real_N: np.ndarray) -> dict[str, float]:
    gap_Z = _group_gaps(t, valid_N)
    anchor_N, open_N = t.is_anchor_N, ~t.is_anchor_N
    spread_S = _reward_spread(t, valid_N)
    found = {
        "gap/mean": _mean(gap_Z),
        "gap_se": float(gap_Z.std(ddof=1) / np.sqrt(len(gap_Z))) if len(gap_Z) > 1 else None,
        "anchor_reward/mean": _mean(t.reward_N[valid_N & anchor_N]),
        "open_reward/mean": _mean(t.reward_N[valid_N & open_N]),
        "anchor_acc": _mean(_finite(t.info_N["acc"][valid_N & anchor_N])),
        "open_acc": _mean(_finite(t.info_N["acc"][valid_N & open_N])),
        "judge/abstain_rate": _mean(t.abstained_N[real_N & open_N]),
        "truncation_rate": _mean(t.truncated_N[real_N]),
        "anchor_truncation_rate": _mean(t.truncated_N[real_N & anchor_N]),
        "zero_std_rate": _mean(spread_S == 0),
    }
    # gap/mean of a domain is air/gap/<domain>/mean: the quantity comes first, as in verl's own names
    return {f"air/{_with_domain(name, prefix)}": value for name, value in found.items() if value is not None}


def _with_domain(name: str, prefix: str) -> str:
    head, slash, tail = name.partition("/")
    return f"{head}/{prefix}{tail}" if slash else (f"{head}/{prefix.rstrip('/')}" if prefix else head)


def _mean(values: np.ndarray) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def _prompt_means(t: Trajectories, valid_N: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean reward, meta-group and role of each prompt with a valid completion: [S], [S], [S]."""
    prompts, first, prompt_N = np.unique(t.prompt_N[valid_N], return_index=True, return_inverse=True)
    total_S = np.bincount(prompt_N, weights=t.reward_N[valid_N], minlength=len(prompts))
    mean_S = total_S / np.maximum(np.bincount(prompt_N, minlength=len(prompts)), 1)
    return mean_S, t.group_N[valid_N][first], t.is_anchor_N[valid_N][first]


def _group_gaps(t: Trajectories, valid_N: np.ndarray) -> np.ndarray:
    """Anchor minus open reward of each complete meta-group, prompts weighing alike: [Z]."""
    if not valid_N.any():
        return np.empty(0)
    mean_S, group_S, is_anchor_S = _prompt_means(t, valid_N)
    size = int(group_S.max()) + 1

    def by_group(mask_S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        count = np.bincount(group_S[mask_S], minlength=size)
        total = np.bincount(group_S[mask_S], weights=mean_S[mask_S], minlength=size)
        return total / np.maximum(count, 1), count > 0

    anchor_Z, has_anchor_Z = by_group(is_anchor_S)
    open_Z, has_open_Z = by_group(~is_anchor_S)
    return (anchor_Z - open_Z)[has_anchor_Z & has_open_Z]


def _reward_spread(t: Trajectories, valid_N: np.ndarray) -> np.ndarray:
    """Largest minus smallest reward among each prompt's valid completions: [S]."""
    if not valid_N.any():
        return np.empty(0)
    prompts, prompt_N = np.unique(t.prompt_N[valid_N], return_inverse=True)
    low, high = np.full(len(prompts), np.inf), np.full(len(prompts), -np.inf)
    np.minimum.at(low, prompt_N, t.reward_N[valid_N])
    np.maximum.at(high, prompt_N, t.reward_N[valid_N])
    return high - low
