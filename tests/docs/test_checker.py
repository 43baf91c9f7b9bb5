"""The checker of commands refuses what would not work, and the reader of pages overlooks nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.checker import CommandError, check, check_mention, check_overrides
from tests.docs.pages import Command, blocks, commands, inline_commands, kind

MAIN = "python -m verl.trainer.main_ppo"
BOGUS = {
    "make quickstrat": "no such target",
    "frobnicate --all": "no such program",
    "verl-air frobnicate runs/mine": "invalid choice",
    "verl-air report runs/mine --outt x.html": "unrecognized arguments: --outt",
    "verl-air report runs/mine --mark x.md": "unrecognized arguments: --mark",  # argparse would take it for --markdown
    "verl-air evaluate runs/nowhere": "no such file",
    "verl-air check nowhere/*.parquet": "no such files",
    "verl-air launch --dry-run grpo-qwen2.5_14b-2x8-megatron trainer.n_gpus_per_node=5": "status 2",
    f"{MAIN} --config-dir recipes --config-name nowhere": "no recipe 'nowhere'",
    f"{MAIN} --config-dir recipes --config-name quickstart trainer.no_such_key=1": "no_such_key",
    f"{MAIN} --config-dir recipes --config-nam quickstart": "required",
    "python -m verl_air.playground --out x --sed 0": "status 2",
    "python -m studies.experiment --only no-such-study": "no-such-study",
    "python -m studies.experiment --lists": "status 2",
    "python -m studies.scaling --mode no-such-mode": "status 2",
    "python -m verl_air.nothing": "does not know",
    "python benchmarks/nothing.py": "no such file",
    "python -m pytest tests/nowhere": "no tests there",
    "pytest tests/docs -m exhaustive": "none exhaustive",
    "scripts/cluster/nothing.sh --workers a": "cannot be executed",
    "scripts/cluster/plain_ray.sh --wrokers a -- NAME": "unknown option --wrokers",
    "sbatch --nodes=2 scripts/cluster/slurm.sbatch": "nothing to train",
    "sbatch --nods=2 scripts/cluster/slurm.sbatch NAME": "not an option",
}


def command(text: str) -> Command:
    (block,) = blocks("page.md", f"```bash\n{text}\n```\n")
    (found,) = commands(block)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("text", BOGUS)
def test_a_bogus_command_is_refused(text: str, world: Path) -> None:
    with pytest.raises(CommandError, match=BOGUS[text]):
        check(command(text), world)


@pytest.mark.slow
def test_bogus_overrides_are_refused() -> None:
    with pytest.raises(CommandError, match="no_such_key"):
        check_overrides(["trainer.no_such_key=1"])


@pytest.mark.parametrize(
    "text",
    [
        "make quickstrat",
        "verl-air frobnicate",
        "verl-air report --markdwon",
        "verl-air report --mark",
        "python benchmarks/no.py",
        "python -m verl_air.no",
    ],
)
def test_a_bogus_mention_is_refused(text: str) -> None:
    (found,) = inline_commands("page.md", f"See `{text}` for more.\n")
    with pytest.raises(CommandError):
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

    a.b=1 +c.d=x
"""


def test_what_a_page_holds_is_found() -> None:
    found = blocks("page.md", PAGE)
    texts = [text.text for block in found if kind(block) == "shell" for text in commands(block)]
    assert texts[:3] == ["make env", "VERL_PLATFORM=cpu .venv/bin/verl-air report runs/a --out b.html", "cd c"]
    assert [block.line for block in found] == [5, 11, 15, 19, 23]
    (report,) = [c for c in commands(found[0]) if c.program == "verl-air"]
    assert (report.variables, report.arguments) == (
        (("VERL_PLATFORM", "cpu"),),
        ("report", "runs/a", "--out", "b.html"),
    )
    assert [c.text for c in inline_commands("page.md", PAGE)] == ["make docs", "verl-air check"]


def test_a_block_of_no_known_kind_is_not_taken_for_data() -> None:
    kinds = {block.text: kind(block) for block in blocks("page.md", PAGE)}
    assert kinds["vrel-air report runs/a"] == "unknown"
    assert kinds["air: {coef: 1}"] == "data"
    single = {text: kind(blocks("p", f"    {text}\n")[0]) for text in ("vrel-air", "quickstrat", "a.b=1 +c.d=x")}
    assert single == {"vrel-air": "unknown", "quickstrat": "unknown", "a.b=1 +c.d=x": "overrides"}
