"""The glue to verl: what is registered with its trainers and its actor. See ``verl_air.plugin`` for the list."""
