"""The rewards that come with verl-air, one file each: read one to write your own (docs/rewards.md).

Every module in this folder is imported at the first look-up of a reward's name, and registers itself.
"""
