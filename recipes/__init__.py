"""The recipes, installed as ``verl_air.recipes``: a recipe of yours finds them by ``pkg://verl_air.recipes``."""
