"""The checker of commands refuses what would not work, and the reader of pages overlooks nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.checker import CommandError, check, check_mention
from tests.docs.pages import blocks, commands, inline_commands, kind

MAIN = "python -m verl.trainer.main_ppo"
BOGUS = {
    "make quickstrat": "no such target",
    "frobnicate --all": "no such program",
    "verl-air frobnicate runs/mine": "invalid choice",
    "verl-air report runs/mine --mark x.md": "unrecognized arguments: --mark",  # argparse would take it for --markdown
    "verl-air evaluate runs/nowhere": "no such file",
    "verl-air check nowhere/*.parquet": "no such files",
    "verl-air launch --dry-run grpo-qwen2.5_14b-2x8-megatron trainer.n_gpus_per_node=5": "status 2",
    f"{MAIN} --config-dir recipes --config-name quickstart trainer.no_such_key=1": "no_such_key",
    f"{MAIN} --config-dir recipes --config-nam quickstart": "required",
    "python -m verl_air.playground --out x --sed 0": "status 2",
    "python -m studies.experiment --only no-such-study": "no-such-study",
    "python -m verl_air.nothing": "does not know",
    "python benchmarks/nothing.py": "no such file",
    "python -m pytest tests/nowhere": "no tests there",
    "pytest tests/docs -m exhaustive": "none exhaustive",
    "scripts/cluster/nothing.sh --workers a": "cannot be executed",
    "scripts/cluster/plain_ray.sh --wrokers a -- NAME": "unknown option --wrokers",
    "sbatch --nodes=2 scripts/cluster/slurm.sbatch": "nothing to train",
    "sbatch --nods=2 scripts/cluster/slurm.sbatch NAME": "not an option",
}
BOGUS_MENTIONS = {
    "make quickstrat": "no such target",
    "verl-air frobnicate x": "no such command",
    "verl-air report --mark": "no such option",
    "python benchmarks/no.py": "no such file",
    "python -m verl_air.no": "no such module",
}


@pytest.mark.slow
@pytest.mark.parametrize(("text", "message"), BOGUS.items())
def test_a_bogus_command_is_refused(text: str, message: str, world: Path) -> None:
    (block,) = blocks("page.md", f"```bash\n{text}\n```\n")
    with pytest.raises(CommandError, match=message):
        check(commands(block)[0], world)


@pytest.mark.parametrize(("text", "message"), BOGUS_MENTIONS.items())
def test_a_bogus_mention_is_refused(text: str, message: str) -> None:
    (found,) = inline_commands("page.md", f"See `{text}` for more.\n")
    with pytest.raises(CommandError, match=message):
        check_mention(found)


PAGE = """# A page

Text with `make docs` and `verl-air check`.

    make env        # a comment
    VERL_PLATFORM=cpu .venv/bin/verl-air report runs/a \\
      --out b.html && cd c

1. A list

    ```bash
    frobnicate --all
    ```

```yaml
air: {coef: 1}
```

```
vrel-air report runs/a
```

    vrel-air
"""


def test_what_a_page_holds_is_found() -> None:
    found = blocks("page.md", PAGE)
    assert [(block.line, kind(block)) for block in found] == [
        (5, "shell"),
        (11, "unknown"),  # a fence inside a list is not read as one, and so does not pass unchecked
        (15, "data"),
        (19, "unknown"),
        (23, "unknown"),  # a misspelt command of one word is not taken for Python
    ]
    assert [c.text for c in commands(found[0])] == [
        "make env",
        "VERL_PLATFORM=cpu .venv/bin/verl-air report runs/a --out b.html",
        "cd c",
    ]
    report = commands(found[0])[1]
    assert (report.program, report.variables) == ("verl-air", (("VERL_PLATFORM", "cpu"),))
    assert report.arguments == ("report", "runs/a", "--out", "b.html")
    assert [c.text for c in inline_commands("page.md", PAGE)] == ["make docs", "verl-air check"]
    assert kind(blocks("page.md", "    a.b=1 +c.d=x\n")[0]) == "overrides"
