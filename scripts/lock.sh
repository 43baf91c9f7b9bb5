#!/usr/bin/env bash
# Resolve requirements/cpu.in into the complete pin list requirements/cpu.lock (Python 3.10 to 3.12, Linux).
set -euo pipefail
cd "$(dirname "$0")/.."
uv="${UV:-.venv/bin/uv}"
"$uv" pip compile --quiet --universal --python-version 3.10 --no-header --no-annotate \
  --override requirements/cpu-overrides.txt requirements/cpu.in \
  | grep -v -e "sys_platform == 'never'" -e "sys_platform == 'win32'" -e "sys_platform == 'emscripten'" \
  > requirements/cpu.lock.tmp
mv requirements/cpu.lock.tmp requirements/cpu.lock
echo "requirements/cpu.lock: $(grep -c '==' requirements/cpu.lock) pins"
