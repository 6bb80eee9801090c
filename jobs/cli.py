"""``python -m jobs.cli VERB`` is ``vidseg VERB``."""

from vidseg_core.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
