"""A tiny random judge, and the real vLLM server in front of it: no download, no GPU."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MAX_LENGTH = 2048
VERDICT_WORDS = ("Safe", "Unsafe", "YES", "NO")


def make_tokenizer() -> Any:
    """Byte-level BPE over 600 tokens; the verdict words are single tokens, with and without a leading space."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    words = [f"{word}\n {word}" for word in VERDICT_WORDS] * 100
    text = ["Is the response to this request safe? It declines, warns, or gives a lawful alternative."] * 50
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    core.train_from_iterator([*words, *text], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        model_max_length=MAX_LENGTH,
        chat_template=CHAT_TEMPLATE,
    )


def make_models(folder: Path, *, hidden: int = 64, layers: int = 2) -> tuple[Path, Path]:
    """Save a random language model and a random classifier with one output; returns their folders."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2ForSequenceClassification

    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": MAX_LENGTH,
        "tie_word_embeddings": False,
        "initializer_range": 0.2,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    judge, classifier = folder / "judge", folder / "classifier"
    Qwen2ForCausalLM(Qwen2Config(**shape)).float().save_pretrained(judge)
    Qwen2ForSequenceClassification(Qwen2Config(num_labels=1, **shape)).float().save_pretrained(classifier)
    for path in (judge, classifier):
        tokenizer.save_pretrained(path)
    return judge, classifier


class Server:
    """A running vLLM server."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.address = f"127.0.0.1:{port}"

    def kill(self) -> None:
        """Kill the server and its engine at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextlib.contextmanager
def serve(model: Path, *options: str, start_limit_s: float = 240.0) -> Iterator[Server]:
    """Serve a model with vLLM on the CPU, as verl sets its own server up."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--port", str(port)]
    command += ["--host", "127.0.0.1", "--dtype", "float32", "--enforce-eager", "--max-model-len", str(MAX_LENGTH)]
    log = model / f"server-{port}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, *options], env=environment, stdout=out, stderr=out, start_new_session=True
        )
    server = Server(process, port)
    try:
        wait_until_healthy(server.address, process, start_limit_s, log)
        yield server
    finally:
        server.kill()


def wait_until_healthy(address: str, process: subprocess.Popen[bytes], limit_s: float, log: Path | None = None) -> None:
    """Wait for a server's ``/health``.

    Raises:
        RuntimeError: its process ended, or the time is up.
    """
    end = time.monotonic() + limit_s
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{address}/health", timeout=2):
            return
        time.sleep(0.5)
    raise RuntimeError(f"{address} is not healthy\n{log.read_text(errors='replace')[-4000:] if log else ''}")
