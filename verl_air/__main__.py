"""``python -m verl_air`` is ``verl-air``."""

from verl_air.cli import main

raise SystemExit(main())
