"""The policy of the playground: a two-layer Qwen3 of about 0.13 million weights.

Qwen3 and not Qwen2, which differs little: for ``model_type: qwen2`` transformers 5 ignores the saved tokenizer class
and puts Qwen2's byte-level rules over our words, so that every prompt would turn into other tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from verl_air.playground.tokenizer import MAX_LENGTH

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM


def build_model(
    tokenizer: PreTrainedTokenizerFast, *, seed: int, hidden: int = 64, layers: int = 2
) -> Qwen3ForCausalLM:
    """A freshly initialised model whose vocabulary is exactly the tokenizer's.

    With a larger vocabulary than the tokenizer's, verl's actor and vLLM would give different log-probabilities.
    Heads are 32 wide, the smallest that vLLM's CPU attention takes. torch's global random state is left as it was.
    """
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=hidden // 32,
        head_dim=32,
        max_position_embeddings=MAX_LENGTH,
        initializer_range=0.05,  # the usual 0.02 is for wide models; here the hidden rule is then learned very late
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(config).float()
