"""What was studied with the product, one folder each: run from the clone, not in the wheel (docs/studies.md)."""
