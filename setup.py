"""The list of packages; all else is in pyproject.toml, whose ``packages.find`` cannot rename a package.

recipes/ is at the top level of the repository and is installed as ``verl_air.recipes``, so that a recipe elsewhere
finds it by ``hydra: {searchpath: [pkg://verl_air.recipes]}``.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["verl_air", "verl_air.*", "reward_fns", "reward_fns.*"]), "verl_air.recipes"],
    package_dir={"verl_air.recipes": "recipes"},
)
