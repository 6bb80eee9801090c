"""``python -m jobs.attempt VERB`` is ``python -m vidseg_core.cli.attempt VERB``."""

from vidseg_core.cli.attempt import main

if __name__ == "__main__":
    raise SystemExit(main())
