"""Regularizers: the weight of each trajectory in the auxiliary loss ``J_aux = -(1/N) sum_i weight_i log pi_i``.

=======================  ==============================================================================  ============
``air``                  gap * reward on open prompts, gap = sg[rbar_acr - rbar_s]                       paper: AIR
``vrex``                 (2 / |C|) (mean over contexts of rbar - rbar_s) * reward                        Var_c R_c
``group_accuracy``       (right - mean of its prompt) * product of the other prompts' accuracies         P(all right)
``group_accuracy_open``  the same over the open prompts only
``none``                 0
=======================  ==============================================================================  ============

Third parties add their own with :func:`register_regularizer`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from verl_air.config import GapOptions
from verl_air.errors import ConfigError
from verl_air.extensions import load_plugins
from verl_air.objective.meta_group import MetaGroups
from verl_air.settings import closest

Regularizer = Callable[[MetaGroups, GapOptions], Tensor]
"""Returns ``weight_N``, float64 [N]. Rows of incomplete meta-groups and invalid rows are zeroed by the caller."""

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
    if name not in _REGULARIZERS:
        known = ", ".join(regularizer_names())
        raise ConfigError(
            f"air.regularizer: {name!r} is not registered{closest(name, _REGULARIZERS)}; registered: {known}"
        )
    return _REGULARIZERS[name]


@register_regularizer("none")
def no_regularizer(groups: MetaGroups, options: GapOptions) -> Tensor:
    """No auxiliary term at all: plain GRPO or GSPO."""
    return torch.zeros_like(groups.reward_N)


@register_regularizer("air")
def air(groups: MetaGroups, options: GapOptions) -> Tensor:
    """Anchor invariance: open prompts are pulled to the anchor's mean reward, anchors are left alone."""
    gap_N = groups.anchor_mean_Z[groups.group_N] - groups.own_mean_N(options.estimator)
    se2_S = groups.var_S / groups.count_S.clamp(min=1) + groups.anchor_var_Z[groups.group_S]
    gap_N = _shrunk(gap_N, se2_S[groups.prompt_N], options.gap_shrinkage)
    if options.gap == "positive":
        gap_N = gap_N.clamp(min=0.0)
    return torch.where(groups.is_anchor_N | ~groups.defined_N(options.estimator), 0.0, gap_N * groups.reward_N)


@register_regularizer("vrex")
def vrex(groups: MetaGroups, options: GapOptions) -> Tensor:
    """V-REx: all prompts, anchors included, are pulled to the mean over the contexts of their intent.

    With ``loo`` the own prompt's mean is the leave-one-out mean in both places, which makes it exact. It is symmetric
    by definition: ``options.gap`` does not apply.
    """
    contexts_Z, present_S = groups.contexts_Z.clamp(min=1), groups.count_S > 0
    own_N, contexts_N = groups.own_mean_N(options.estimator), contexts_Z[groups.group_N]
    others_N = groups.sum_by_group(groups.mean_S, present_S)[groups.group_N] - groups.mean_S[groups.prompt_N]
    gap_N = (others_N + own_N) / contexts_N - own_N
    se2_S = groups.var_S / groups.count_S.clamp(min=1)
    mean_var_Z = groups.sum_by_group(se2_S, present_S) / contexts_Z.square()
    gap_N = _shrunk(gap_N, se2_S[groups.prompt_N] + mean_var_Z[groups.group_N], options.gap_shrinkage)
    return torch.where(groups.defined_N(options.estimator), 2.0 / contexts_N * gap_N * groups.reward_N, 0.0)


@register_regularizer("group_accuracy")
def group_accuracy_weight(groups: MetaGroups, options: GapOptions) -> Tensor:
    """Policy gradient of the probability that one completion of each prompt of a meta-group are all right.

    With ``loo``, E[gradient of -J_aux] = 1/|S| times the gradient of that probability, averaged over the meta-groups
    (of |S| prompts with K completions each): unbiased, since prompts are sampled independently. ``paper`` makes it
    (K - 1) / K of that. A meta-group with a prompt that has no verdict has no weight: its product is not known.

    Raises:
        ValueError: there are no verdicts.
    """
    return _all_right(groups, options, torch.ones_like(groups.valid_N))


@register_regularizer("group_accuracy_open")
def group_accuracy_open_weight(groups: MetaGroups, options: GapOptions) -> Tensor:
    """The same of the open prompts alone; anchors have no weight and are no factors."""
    return _all_right(groups, options, ~groups.is_anchor_N)


def _all_right(groups: MetaGroups, options: GapOptions, taken_N: Tensor) -> Tensor:
    if groups.right_N is None:
        raise ValueError(
            "regularizer group_accuracy needs right_N, a verdict on every valid trajectory. In training that is the "
            "key 'acc', which some row's reward function did not return: return it, or use "
            "reward.custom_reward_function path=pkg://verl_air.rewards name=compute_score"
        )
    right_N = groups.right_N.to(torch.float64)
    others_N = groups.product_of_others(right_N, taken_N, options.accuracy_prior)[groups.prompt_N]
    weight_N = (right_N - groups.own_mean_N(options.estimator, right_N)) * others_N
    return torch.where(taken_N & groups.defined_N(options.estimator), weight_N, 0.0)


def _shrunk(gap_N: Tensor, se2_N: Tensor, shrinkage: float) -> Tensor:
    """``options.gap_shrinkage``, given the gap's squared standard error."""
    if shrinkage == 0.0:
        return gap_N
    keep_N = 1.0 - shrinkage * se2_N / gap_N.square().clamp(min=1e-12)
    return gap_N * keep_N.clamp(min=0.0)
