"""The glue to verl: prompts and rollouts in whole meta-groups, their weights, the auxiliary loss, and a run's records.

``trainer.py`` puts it together as a mixin on verl's trainers; ``preflight/`` checks a recipe before anything starts.
docs/how_it_works.md follows a batch through the files and lists which of them lean on verl's private seams.
"""
