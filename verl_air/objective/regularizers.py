"""Regularizers: rewards of a batch -> one detached weight a trajectory.

The auxiliary loss is ``J_aux = -(1/N) sum_i weight_i log pi_i``. A regularizer says how strongly, and in which
direction, a trajectory's reward is to be pulled: ``weight_i = pull_i * reward_i``.

============  ============================================================  =======================================
``air``       pull = gap = sg[rbar_acr - rbar_s] on open prompts, else 0     paper, section on AIR: Omega_AIR
``vrex``      pull = (2/|C|) (mean over contexts of rbar - rbar_s)           the symmetric baseline, Var_c R_c
``none``      0
============  ============================================================  =======================================

Third parties add their own with :func:`register_regularizer`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from verl_air.errors import ConfigError
from verl_air.extensions import load_plugins
from verl_air.objective.meta_group import MetaGroups, group_trajectories

ESTIMATORS = ("paper", "loo")
GAPS = ("signed", "positive")


@dataclass(frozen=True)
class GapOptions:
    """How a regularizer forms its gap; each is off by default.

    estimator: ``paper`` or ``loo``, see :meth:`MetaGroups.own_mean_N`.
    gap: ``signed``, or ``positive`` to clamp the gap at zero, so that an open variant that is paid more than its
        anchor is left alone.
    shrinkage: s >= 0; the gap is multiplied by max(0, 1 - s * se^2 / gap^2), with se its standard error over the K
        completions. 0 is off, 1 the positive-part James-Stein factor. It lowers noise at the price of a bias.
    """

    estimator: str = "loo"
    gap: str = "signed"
    shrinkage: float = 0.0


Regularizer = Callable[[MetaGroups, GapOptions], Tensor]
"""Returns ``pull_N``, float64 [N]. Rows of incomplete intents and invalid rows are zeroed by the caller."""

_REGULARIZERS: dict[str, Regularizer] = {}


def register_regularizer(name: str) -> Callable[[Regularizer], Regularizer]:
    """Register a regularizer under a name that ``air.regularizer`` can then ask for.

    Raises:
        ConfigError: the name is taken by another function.
    """

    def decorator(function: Regularizer) -> Regularizer:
        if _REGULARIZERS.get(name, function) is not function:
            raise ConfigError(f"a regularizer named {name!r} is registered already: {_REGULARIZERS[name]!r}")
        _REGULARIZERS[name] = function
        return function

    return decorator


def regularizer_names() -> list[str]:
    """The names registered so far."""
    return sorted(_REGULARIZERS)


def get_regularizer(name: str) -> Regularizer:
    """Look a regularizer up, among those of installed plugins too (entry-point group ``verl_air.plugins``).

    Raises:
        ConfigError: it is not registered; the message lists those that are.
    """
    if name not in _REGULARIZERS:
        load_plugins()
    try:
        return _REGULARIZERS[name]
    except KeyError:
        close = difflib.get_close_matches(name, _REGULARIZERS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(
            f"air.regularizer: {name!r} is not registered.{hint} Registered: {', '.join(regularizer_names())}"
        ) from None


@register_regularizer("none")
def no_regularizer(groups: MetaGroups, options: GapOptions) -> Tensor:
    """No pull at all: plain GRPO or GSPO."""
    return torch.zeros_like(groups.reward_N)


@register_regularizer("air")
def air(groups: MetaGroups, options: GapOptions) -> Tensor:
    """Anchor invariance: open prompts are pulled to the anchor's mean reward, anchors are left alone."""
    gap_N = groups.anchor_mean_Z[groups.intent_N] - groups.own_mean_N(options.estimator)
    se2_S = groups.var_S / groups.count_S.clamp(min=1) + groups.anchor_var_Z[groups.intent_S]
    gap_N = _adjust(gap_N, se2_S[groups.prompt_N], options)
    return torch.where(groups.is_anchor_N | ~groups.defined_N(options.estimator), 0.0, gap_N)


@register_regularizer("vrex")
def vrex(groups: MetaGroups, options: GapOptions) -> Tensor:
    """V-REx: all prompts, anchors included, are pulled to the mean over the contexts of their intent.

    With ``loo`` the own prompt's mean is the leave-one-out mean in both places, which makes it exact.
    """
    contexts_Z = groups.contexts_Z.clamp(min=1)
    total_Z = groups.sum_by_intent(groups.mean_S, groups.count_S > 0)
    own_N = groups.own_mean_N(options.estimator)
    others_N = total_Z[groups.intent_N] - groups.mean_S[groups.prompt_N]
    contexts_N = contexts_Z[groups.intent_N]
    gap_N = (others_N + own_N) / contexts_N - own_N
    se2_S = groups.var_S / groups.count_S.clamp(min=1)
    mean_var_Z = groups.sum_by_intent(se2_S, groups.count_S > 0) / contexts_Z.square()
    gap_N = _adjust(gap_N, se2_S[groups.prompt_N] + mean_var_Z[groups.intent_N], options)
    return torch.where(groups.defined_N(options.estimator), 2.0 / contexts_N * gap_N, 0.0)


def _adjust(gap_N: Tensor, se2_N: Tensor, options: GapOptions) -> Tensor:
    if options.gap == "positive":
        gap_N = gap_N.clamp(min=0.0)
    if options.shrinkage > 0.0:
        keep_N = 1.0 - options.shrinkage * se2_N / gap_N.square().clamp(min=1e-12)
        gap_N = gap_N * keep_N.clamp(min=0.0)
    return gap_N


def trajectory_weights(
    reward_N: Tensor,
    prompt_N: Tensor,
    intent_N: Tensor,
    is_anchor_N: Tensor,
    valid_N: Tensor | None = None,
    *,
    regularizer: str = "air",
    estimator: str = "loo",
    gap: str = "signed",
    shrinkage: float = 0.0,
) -> Tensor:
    """One weight a trajectory, computed once on the whole batch.

    It depends on no micro-batch, mini-batch or data-parallel split, and on no order of the rows.

    Args:
        reward_N: float [N], raw rewards (not advantages).
        prompt_N, intent_N: integer ids [N], arbitrary, in any order.
        is_anchor_N: bool [N].
        valid_N: bool [N]; False for abstained and padded rows, whose rewards may be NaN. None: all valid.
        regularizer: a registered name.
        estimator, gap, shrinkage: see :class:`GapOptions`.

    Returns:
        float32 [N], detached. Zero for anchors (``air``), for invalid rows, and for intents that lack a valid anchor
        or a valid open row; with ``loo`` also for prompts with a single valid completion, where it is undefined.

    Raises:
        ValueError: see :func:`group_trajectories`; or an unknown estimator or gap.
        ConfigError: the regularizer is not registered.
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator must be one of {ESTIMATORS}, got {estimator!r}")
    if gap not in GAPS:
        raise ValueError(f"gap must be one of {GAPS}, got {gap!r}")
    if shrinkage < 0.0:
        raise ValueError(f"shrinkage must be at least 0, got {shrinkage}")
    pull = get_regularizer(regularizer)
    groups = group_trajectories(reward_N, prompt_N, intent_N, is_anchor_N, valid_N)
    pull_N = pull(groups, GapOptions(estimator=estimator, gap=gap, shrinkage=shrinkage))
    return torch.where(groups.active_N, pull_N * groups.reward_N, 0.0).to(torch.float32)
