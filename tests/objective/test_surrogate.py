import pytest
import torch

from verl_air.objective import importance_ratio, surrogate_loss


def batch(rows: int = 6, tokens: int = 5, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    log_prob = -torch.rand(rows, tokens, generator=generator)
    weight = torch.randn(rows, generator=generator)
    length = torch.randint(1, tokens + 1, (rows,), generator=generator)
    return log_prob.requires_grad_(), weight, (torch.arange(tokens) < length[:, None]).float()


def test_is_minus_the_weighted_sum_of_sequence_log_probs() -> None:
    log_prob, weight, mask = batch()
    want = -sum(float(weight[i] * (log_prob[i] * mask[i]).sum()) for i in range(6)) / 6
    assert float(surrogate_loss(log_prob, weight, mask, num_trajectories=6)) == pytest.approx(want, rel=1e-6)


def test_parts_add_up_to_the_whole() -> None:
    log_prob, weight, mask = batch()
    whole = surrogate_loss(log_prob, weight, mask, num_trajectories=6)
    for split in (1, 2, 3):
        parts = [
            surrogate_loss(log_prob[i : i + split], weight[i : i + split], mask[i : i + split], num_trajectories=6)
            for i in range(0, 6, split)
        ]
        torch.testing.assert_close(sum(parts), whole)


def test_weights_may_be_repeated_over_tokens() -> None:
    log_prob, weight, mask = batch()
    repeated = surrogate_loss(log_prob, weight[:, None].expand_as(mask), mask, num_trajectories=6)
    torch.testing.assert_close(repeated, surrogate_loss(log_prob, weight, mask, num_trajectories=6))


def test_masked_tokens_and_zero_weights_have_no_gradient() -> None:
    log_prob, weight, mask = batch()
    weight[2] = 0.0
    surrogate_loss(log_prob, weight, mask, num_trajectories=6).backward()
    assert (log_prob.grad[mask == 0] == 0).all()
    assert (log_prob.grad[2] == 0).all()


def test_a_good_completion_becomes_likelier_and_a_bad_one_less() -> None:
    """All completions wrong under the variant, the anchor right: one step of descent lowers the wrong action's odds."""
    logits = torch.zeros(1, 2, requires_grad=True)
    wrong = logits.log_softmax(-1)[:, :1].expand(3, 1)
    weight = torch.full((3,), (1.25 - -1.0) * -1.0)  # Delta * r, with r < 0
    surrogate_loss(wrong, weight, torch.ones(3, 1), num_trajectories=3).backward()
    stepped = (logits - 0.1 * logits.grad).softmax(-1)
    assert stepped[0, 1] > 0.5 > stepped[0, 0]


def test_low_precision_is_summed_in_float32() -> None:
    log_prob, weight, mask = batch()
    loss = surrogate_loss(log_prob.bfloat16(), weight, mask, num_trajectories=6)
    assert loss.dtype == torch.float32


def test_the_ratio_is_clipped_and_detached() -> None:
    log_prob, weight, mask = batch()
    same = surrogate_loss(log_prob, weight, mask, num_trajectories=6, ratio_NT=importance_ratio(log_prob, log_prob))
    torch.testing.assert_close(same, surrogate_loss(log_prob, weight, mask, num_trajectories=6))
    ratio = importance_ratio(log_prob, log_prob - 5.0, max_ratio=2.0)
    far = surrogate_loss(log_prob, weight, mask, num_trajectories=6, ratio_NT=ratio)
    torch.testing.assert_close(far, 2.0 * same)
    (grad,) = torch.autograd.grad(far, log_prob)
    torch.testing.assert_close(grad, -2.0 * weight[:, None] * mask / 6)


def test_the_rollouts_weights_come_on_top_of_the_clip() -> None:
    log_prob, *_ = batch()
    weights = torch.linspace(0.0, 3.0, log_prob.numel()).reshape(log_prob.shape)
    ratio = importance_ratio(log_prob, log_prob - 5.0, weights, max_ratio=1.5)
    torch.testing.assert_close(ratio, 1.5 * weights)
