"""By enumeration: what the expected gradient of each regularizer and option is, as docs/estimators.md says."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.objective.exact import World

SHAPES = [
    pytest.param(dict(contexts=2, anchors=1, actions=3, completions=2), id="1 anchor, 1 open, K=2"),
    pytest.param(dict(contexts=3, anchors=1, actions=3, completions=2), id="1 anchor, 2 open, K=2"),
    pytest.param(dict(contexts=3, anchors=2, actions=2, completions=3), id="2 anchors, 1 open, K=3"),
    pytest.param(dict(contexts=2, anchors=1, actions=3, completions=3), id="1 anchor, 1 open, K=3"),
    pytest.param(dict(contexts=2, anchors=1, actions=2, completions=4), id="1 anchor, 1 open, K=4"),
]
over_worlds = pytest.mark.parametrize(
    "world_of", [pytest.param(lambda shape, seed=seed: World.random(seed, **shape), id=str(seed)) for seed in range(4)]
)
over_shapes = pytest.mark.parametrize("shape", SHAPES)


def relative_error(got: Tensor, want: Tensor) -> float:
    return float((got - want).norm() / want.norm())


def direction(world: World) -> Tensor:
    """The ordinary policy gradient of each context's mean reward: [C, A]."""
    return world.gradient(lambda p_CA: (p_CA * world.reward_CA).sum())


def multipliers(got_CA: Tensor, along_CA: Tensor) -> tuple[Tensor, Tensor]:
    """Of each context, the share of ``along`` in ``got`` [C], and of what else there is in ``got`` [C]."""
    factor_C = (got_CA * along_CA).sum(-1) / along_CA.square().sum(-1)
    return factor_C, (got_CA - factor_C[:, None] * along_CA).norm(dim=-1) / got_CA.norm(dim=-1).clamp(min=1e-12)


@over_shapes
@over_worlds
def test_loo_air_equals_the_gradient_of_omega_air(shape, world_of) -> None:
    world = world_of(shape)
    # The weights ascend the reward, so their gradient is minus that of Omega; Omega's is 2 K-averaged, hence 2 / K.
    got = -2.0 / world.completions * world.expected_gradient(world.weights())
    anchor = world.mean_C[: world.anchors].mean()
    want = world.gradient(lambda p_CA: ((p_CA * world.reward_CA).sum(-1) - anchor)[world.anchors :].square().sum())
    assert relative_error(got, want) < 1e-6
    assert torch.equal(got[: world.anchors], torch.zeros_like(got[: world.anchors]))


@over_shapes
@over_worlds
@pytest.mark.parametrize("gap", ["signed", "positive"])
def test_loo_vrex_equals_the_gradient_of_the_variance_of_risks(shape, world_of, gap: str) -> None:
    """It is symmetric by definition, whatever ``gap`` is."""
    world = world_of(shape)
    got = -1.0 / world.completions * world.expected_gradient(world.weights(regularizer="vrex", gap=gap))
    want = world.gradient(lambda p_CA: (p_CA * world.reward_CA).sum(-1).var(correction=0))
    assert relative_error(got, want) < 1e-6


def test_the_papers_estimator_is_biased() -> None:
    """The bias that docs/estimators.md reports: K = 3, four random policies of four actions in an open context."""
    errors = []
    for seed in range(4):
        world = World.random(seed, contexts=2, anchors=1, actions=4, completions=3)
        paper, loo = (world.expected_gradient(world.weights(estimator=name))[1:] for name in ("paper", "loo"))
        errors.append(relative_error(paper, loo))
    assert min(errors) > 0.02
    assert max(errors) > 0.2


@over_shapes
@over_worlds
@pytest.mark.parametrize("gap", ["signed", "positive"])
def test_air_is_the_ordinary_policy_gradient_times_the_expected_gap(shape, world_of, gap: str) -> None:
    """Of each open prompt. With a clamped gap, its expectation is that of the clamped one."""
    world = world_of(shape)
    anchor_O = world.of_actions(world.reward_CA)[:, : world.anchors].mean((1, 2))
    reward_OCK = world.of_actions(world.reward_CA)
    others_OCK = (reward_OCK.sum(-1, keepdim=True) - reward_OCK) / (world.completions - 1)
    gap_OCK = anchor_O[:, None, None] - others_OCK
    expected_C = torch.einsum("o,ock->c", world.probability_O, gap_OCK.clamp(min=0) if gap == "positive" else gap_OCK)
    expected_C[: world.anchors] = 0.0
    got = world.expected_gradient(world.weights(gap=gap))
    torch.testing.assert_close(got, expected_C[:, None] * direction(world), atol=1e-6, rtol=1e-6)
    if gap == "signed":
        exact_C = world.completions * (world.mean_C[: world.anchors].mean() - world.mean_C)
        torch.testing.assert_close(expected_C[world.anchors :], exact_C[world.anchors :])


@pytest.mark.parametrize(
    ("accuracy", "signed", "positive"),
    [(0.9, 0.0, 0.1638), (0.5, 0.0, 0.375)],
)
def test_noise_alone_makes_a_positive_gap(accuracy: float, signed: float, positive: float) -> None:
    """Of a prompt that is as good as its anchor; K = 3, rewards of +1 and -1."""
    world = World.of_accuracies(accuracy, accuracy, completions=3)
    for gap, expected in (("signed", signed), ("positive", positive)):
        got = world.expected_gradient(world.weights(gap=gap)) / world.completions
        factor_C, _ = multipliers(got, direction(world))
        assert float(factor_C[1]) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_shrinkage_turns_the_gradient(seed: int) -> None:
    """The standard error holds the trajectory's own reward: what is left is no multiple of the policy gradient."""
    world = World.random(seed, contexts=2, anchors=1, actions=3, completions=3)
    for options, least, most in (({}, 0.0, 1e-6), ({"shrinkage": 1.0}, 0.005, 1.0)):
        _, other_C = multipliers(world.expected_gradient(world.weights(**options)), direction(world))
        assert least <= float(other_C[1]) < most


@pytest.mark.parametrize("options", [{}, {"gap": "positive"}, {"shrinkage": 1.0}, {"estimator": "paper"}])
def test_with_two_rewards_every_option_only_rescales_the_gradient(options: dict) -> None:
    world = World.of_accuracies(0.9, 0.3, 0.1, completions=3)
    factor_C, other_C = multipliers(world.expected_gradient(world.weights(**options)), direction(world))
    assert (other_C < 1e-6).all()
    assert factor_C[0] == 0
    assert factor_C[2] > factor_C[1] > 0


def grpo_advantages(world: World) -> Tensor:
    """verl's: divided by the deviation of the prompt's rewards, [O, C, K]."""
    reward_OCK = world.of_actions(world.reward_CA)
    return (reward_OCK - reward_OCK.mean(-1, keepdim=True)) / (reward_OCK.std(-1, keepdim=True) + 1e-6)


@pytest.mark.parametrize("spread", [1.0, 2.0, 4.0])
def test_grpo_does_not_see_the_scale_of_rewards_and_air_sees_its_square(spread: float) -> None:
    """K = 3 and two rewards: GRPO's factor is 2 / sqrt(3) of the gradient of accuracy, whatever the accuracy."""
    accuracies = (0.9, 0.5, 0.13)
    world = World.of_accuracies(*accuracies, completions=3, right=spread / 2, wrong=-spread / 2)
    of_accuracy = world.gradient(lambda p_CA: p_CA[:, 0].sum())
    grpo_C, _ = multipliers(world.expected_gradient(grpo_advantages(world)) / 3, of_accuracy)
    air_C, _ = multipliers(world.expected_gradient(world.weights()) / 3, of_accuracy)
    assert grpo_C.tolist() == pytest.approx([2 / math.sqrt(3)] * 3, rel=1e-4)
    assert air_C.tolist() == pytest.approx([spread**2 * (0.9 - p) if p < 0.9 else 0.0 for p in accuracies], rel=1e-4)


def noise(world: World, weight_OCK: Tensor) -> float:
    """Variance of the open prompt's gradient over its squared mean."""
    square = world.gradients(weight_OCK)[:, 1].square().sum(-1) @ world.probability_O
    return float(square / world.expected_gradient(weight_OCK)[1].square().sum()) - 1.0


@pytest.mark.parametrize(
    ("accuracy", "grpo", "signed", "positive"),
    [(0.13, (3.42, 1.95, 1.35), (0.57, 0.29, 0.20), (0.52, 0.28, 0.20)),
     (0.85, (2.92, 1.61, 1.10), (108.6, 54.2, 35.8), (11.8, 6.6, 4.9))],
)  # fmt: skip
def test_noise_falls_with_completions(accuracy: float, grpo: tuple, signed: tuple, positive: tuple) -> None:
    """Far from its anchor AIR is the less noisy estimate, close to it the noisier one; the anchor is .9 right."""
    worlds = [World.of_accuracies(0.9, accuracy, completions=K) for K in (2, 3, 4)]
    assert [noise(world, grpo_advantages(world)) for world in worlds] == pytest.approx(grpo, rel=0.02)
    for gap, expected in (("signed", signed), ("positive", positive)):
        assert [noise(world, world.weights(gap=gap)) for world in worlds] == pytest.approx(expected, rel=0.03)


@over_shapes
@over_worlds
@pytest.mark.parametrize("estimator", ["loo", "paper"])
def test_group_accuracy_is_the_gradient_of_the_chance_that_all_are_right(shape, world_of, estimator: str) -> None:
    """J_aux divides by the |S| K trajectories, so 1 / |S| of it; the paper's estimator makes it (K - 1) / K of that."""
    world = world_of(shape)
    S, K = len(world.logits_CA), world.completions
    weight_OCK = world.weights(regularizer="group_accuracy", estimator=estimator)
    got = world.expected_gradient(weight_OCK) / (S * K)
    want = world.gradient(lambda p_CA: (p_CA * world.right_CA).sum(-1).prod()) / S
    assert relative_error(got, want if estimator == "loo" else want * (K - 1) / K) < 1e-6


@over_worlds
def test_group_accuracy_open_leaves_anchors_out(world_of) -> None:
    world = world_of(dict(contexts=3, anchors=1, actions=3, completions=2))
    got = world.expected_gradient(world.weights(regularizer="group_accuracy_open"))
    want = world.gradient(lambda p_CA: (p_CA * world.right_CA).sum(-1)[1:].prod()) * world.completions
    assert relative_error(got, want) < 1e-6


@pytest.mark.parametrize(
    ("prior", "zero", "turned", "noise"), [(0.0, 0.969, 1.0, 31.4), (1.0, 0.717, 0.9999, 6.1), (4.0, 0.717, 0.998, 3.4)]
)
def test_the_weights_of_group_accuracy_are_sparse(prior: float, zero: float, turned: float, noise: float) -> None:
    """Three prompts at .13 and an anchor at .96: share of zeros, cosine with the exact gradient, E|g|^2 / |E g|^2."""
    world = World.of_accuracies(0.96, 0.13, 0.13, 0.13, completions=3)
    weight_OCK = world.weights(regularizer="group_accuracy", accuracy_prior=prior)
    want = world.gradient(lambda p_CA: p_CA[:, 0].prod())
    got = world.expected_gradient(weight_OCK)
    square = world.gradients(weight_OCK).square().sum((1, 2)) @ world.probability_O
    zeros_O = (weight_OCK == 0).double().mean((1, 2))
    assert float(zeros_O @ world.probability_O) == pytest.approx(zero, abs=1e-3)
    assert float((got * want).sum() / got.norm() / want.norm()) == pytest.approx(turned, abs=5e-4)
    assert float(square / got.square().sum()) == pytest.approx(noise, rel=0.01)
