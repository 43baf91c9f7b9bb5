"""One builder a domain: reads sources, returns what :func:`verl_air.data.build.build` needs."""
