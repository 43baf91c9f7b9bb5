"""``AirConfig``: the recipe's ``air:`` key. Imports no torch and no verl."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from verl_air.settings import Settings


class GapOptions(Settings):
    """How a regularizer forms its gap; part of :class:`AirConfig`, and what a registered regularizer is given.

    estimator: mean reward of a trajectory's own prompt: ``loo``, over the other completions (leave-one-out: unbiased
        at no cost; needs ``rollout.n >= 2``), or ``paper``, over all of them, as published.
    gap: of ``air``: ``positive``, clamped at zero, so that an open variant that is paid more than its anchor is left
        alone; or ``signed``, as published, which pushes it down, even where the anchor is what is wrong.
    gap_shrinkage: s >= 0; the gap is multiplied by max(0, 1 - s * se^2 / gap^2), with se its standard error over the
        completions. 0 is off, 1 the positive-part James-Stein factor. It lowers noise at the price of a bias.
    accuracy_prior: of ``group_accuracy``: the other prompts' accuracies are taken as if each had so many more
        completions, half of them right. 0 is unbiased; 1 makes most weights differ from zero at the price of a bias.
    """

    prefix: ClassVar[str] = "air"

    estimator: Literal["loo", "paper"] = "loo"
    gap: Literal["signed", "positive"] = "positive"
    gap_shrinkage: float = Field(0.0, ge=0)
    accuracy_prior: float = Field(0.0, ge=0)


class AirConfig(GapOptions):
    """Options of Anchor Invariance Regularization. docs/paper_index.md cites the source of each default.

    The objective:
        estimator, gap, gap_shrinkage, accuracy_prior: see :class:`GapOptions`.
        regularizer: ``air``, ``group_accuracy``, ``group_accuracy_open``, ``vrex`` (the symmetric baseline), ``none``,
            or a name registered by a third party.
        coef: weight of the auxiliary loss, lambda in the paper. 0 is exactly plain GRPO or GSPO.
        consistency: weight of on-policy consistency training (arXiv 2605.21834), alone or on top of the above: the
            reverse KL, on the policy's own responses to an open variant, to the frozen initial policy given the plain
            request. Needs memory for the reference policy, and a forward pass of it over the open rows.
        normalize_by: average the auxiliary loss over ``all`` valid trajectories, or over the ``open`` ones only.
        importance: ``none``, or ``ratio``: reweight tokens by pi / pi_old, and by verl's ``rollout_is_weights`` where
            there are any, for updates that are off-policy (several mini-batches per step, asynchronous rollouts).
        importance_clip: upper clip of pi / pi_old.
        old_log_probs: ``recompute``, a forward pass before the update as in verl, or ``reuse``: the update's own,
            detached, which are the same where a step is one on-policy update.
        aux_reward: the reward in gap and weight: ``total`` (task + format, as in the paper), or ``task`` alone so that
            a wrong but well-formatted answer is worth less than zero.
        reward_scale: ``raw``, or ``unit``: map every reward function's range to [-1, 1] first, so that anchors and open
            variants compare like with like.

    Meta-groups:
        anchors_per_intent, open_per_intent: prompts of an intent that are sampled together (m and n in the paper).
        incomplete_groups: what happens to a meta-group in which a rollout failed or was filtered: ``drop`` (masked
            out of the step), ``no_air`` (trained without the auxiliary term) or ``refill`` (replaced by a fresh one).

    Mixing:
        domain_weights: shares of meta-groups by domain, in any unit: ``{safety: 1, moral: 1, math: 1}``. Empty: intents
            come as often as the data holds them. :mod:`verl_air.data.mixing` has the keys that divide a domain. A null
            removes an inherited key.

    Failures that may be transient; a mistake in recipe or data stops the run at once:
        max_failed_rate: the run stops when the share of prompts with a failed rollout is above this. Prompts in flight
            count as good. Training and validation are counted apart.
        max_abstain_rate: the same for the share of open rows on which the judge abstained.
        failure_window: steps over which both are counted.

    Before training:
        check_judge: whether a judge that can be reached must separate canned replies of known kind before training
            starts (``verl-air check --judge``). False for studies of faulty judges.

    Running:
        best_metric: the metric of validation by which the best checkpoint is kept alongside the last ones:
            ``group_acc`` (the mean over ``id`` splits), the name of any other, or none (``null``).
    """

    regularizer: str = "air"
    coef: float = Field(8e-4, ge=0)
    consistency: float = Field(0.0, ge=0)
    normalize_by: Literal["all", "open"] = "all"
    importance: Literal["none", "ratio"] = "none"
    importance_clip: float = Field(2.0, ge=1)
    old_log_probs: Literal["recompute", "reuse"] = "recompute"
    aux_reward: Literal["total", "task"] = "total"
    reward_scale: Literal["raw", "unit"] = "raw"
    anchors_per_intent: int = Field(1, ge=1)
    open_per_intent: int = Field(3, ge=1)
    incomplete_groups: Literal["drop", "no_air", "refill"] = "drop"
    domain_weights: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    max_failed_rate: float = Field(0.2, ge=0, le=1)
    max_abstain_rate: float = Field(0.2, ge=0, le=1)
    failure_window: int = Field(20, ge=1)
    check_judge: bool = True
    best_metric: str | None = "group_acc"

    @field_validator("domain_weights", mode="before")
    @classmethod
    def _without_nulls(cls, weights: Any) -> Any:
        if not isinstance(weights, dict):
            return {} if weights is None else weights
        if odd := [key for key in weights if str(key).count("/") not in (0, 2)]:
            raise ValueError(f"has the key {odd[0]!r}: write a domain, or domain/key/value with a key of extras")
        return {str(key): weight for key, weight in weights.items() if weight is not None}

    @property
    def group_size(self) -> int:
        """Prompts in a meta-group, |S_z|."""
        return self.anchors_per_intent + self.open_per_intent

    @property
    def active(self) -> bool:
        """Whether the auxiliary loss does anything at all."""
        return self.coef > 0 and self.regularizer != "none"
