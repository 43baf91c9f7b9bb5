"""A model of step time and of whole meta-groups at 8 to 4096 GPUs: simulated, not measured; see README.md."""
