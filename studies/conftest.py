"""What the tests of the studies share with those of the product."""

from tests.conftest import playground_files

__all__ = ["playground_files"]
