#!/usr/bin/env bash
# Resolve requirements/cpu.in into the complete pin list requirements/cpu.lock (Python 3.10 to 3.12, Linux).
# Pins that still fit are kept; `scripts/lock.sh --upgrade` takes the newest of all.
set -euo pipefail
cd "$(dirname "$0")/.."
uv="${UV:-.venv/bin/uv}"
resolved="$(mktemp)"
trap 'rm -f "$resolved"' EXIT
cp requirements/cpu.lock "$resolved" # uv prefers what the output file has
"$uv" pip compile --quiet --universal --python-version 3.10 --no-header --no-annotate "$@" \
  --override requirements/cpu-overrides.txt --output-file "$resolved" requirements/cpu.in >/dev/null
grep -v -e "sys_platform == 'never'" -e "sys_platform == 'win32'" -e "sys_platform == 'emscripten'" "$resolved" \
  >requirements/cpu.lock
echo "requirements/cpu.lock: $(grep -c '==' requirements/cpu.lock) pins"
