"""plain_ray.sh over ssh: the token first, for the owner alone, then the node's command; a missing node is reported.

There is no second machine here: a stand-in for ssh does on this one what ssh would ask the other's shell to do, but for
starting Ray, which it only prints.
"""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.cluster.test_two_nodes import RECIPE, SCRIPT
from tests.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive, pytest.mark.timeout(600)]

STAND_IN = r"""#!/usr/bin/env bash
# ssh [-T | -tt | -o OPTION]... HOST COMMAND: as ssh does, the words of the command are joined and given to a shell.
# $REMOTE is the other machine's /tmp.
while [[ $1 == -* ]]; do [[ $1 == -o ]] && shift; shift; done
host=$1; shift
printf '%s: %s\n' "$host" "$*" >>"$SSH_LOG"
command="${*//\/tmp\/verl-air./$REMOTE/verl-air.}"
[[ $command == *node.sh* ]] || exec bash -c "$command"
find "$REMOTE" -type f -printf '%m %s\n' >>"$SSH_LOG.tokens"
exec bash -c "$command --dry-run"
"""


def test_what_the_other_machine_is_asked_to_do(playground_files: Path, tmp_path: Path) -> None:
    stand_in = tmp_path / "ssh"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    remote = tmp_path / "remote"
    stand_in_variables = {"SSH_LOG": str(tmp_path / "asked"), "REMOTE": str(remote)}
    with socket.socket() as free, tempfile.TemporaryDirectory(prefix="va-", dir="/tmp") as short:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        options = ["--workers", "node2", "--address", "127.0.0.1", "--port", port, "--gpus", 1, "--cpus", 8]
        options += ["--timeout", 25, "--temp-dir", f"{short}/ray", "--logs", tmp_path / "logs"]
        options += ["--ssh", f"{stand_in} -tt -o BatchMode=yes"]
        training = ["quickstart", f"run_dir={tmp_path}/run", f"playground={playground_files}", *RECIPE]
        done = subprocess.run(
            [str(word) for word in ("bash", SCRIPT, *options, "--", *training)],
            cwd=ROOT,
            env={
                **os.environ,
                "VERL_PLATFORM": "cpu",
                "HF_HUB_OFFLINE": "1",
                "HF_TOKEN": "canary",
                **stand_in_variables,
            },
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
    said = done.stdout + done.stderr
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[0].startswith("node2: umask 077; mkdir -p"), said
    assert "node.sh" in asked[1]
    files = [line.split() for line in (tmp_path / "asked.tokens").read_text().splitlines()]
    assert len(files) == 2, "the token and the variables"
    for mode, size in files:
        assert (int(mode, 8), int(size) > 0) == (stat.S_IRUSR | stat.S_IWUSR, True)
    assert not any("canary" in line for line in asked), "a secret is on a command line"
    assert asked[-1].startswith("node2: rm -rf")
    assert list(remote.iterdir()) == [], "the token stays on the other machine"
    assert f"127.0.0.1:{port}" in (tmp_path / "logs" / "node2.node.log").read_text()
    assert done.returncode == 2, said[-3000:]
    assert "1 node(s)" in said, said[-3000:]
