"""The product's fixtures; and a study is tested in the exhaustive suite, except for its smoke test."""

from tests.conftest import playground_files

__all__ = ["playground_files"]
