"""The recipe that recipes/README.md shows as an example of one's own."""

import re

from tests.conftest import RECIPES

MINE: str = re.findall(r"```yaml\n(.*?)```", (RECIPES / "README.md").read_text(), re.DOTALL)[0]
