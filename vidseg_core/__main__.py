"""``python -m vidseg_core VERB`` is ``vidseg VERB``, where the script is not on the path."""

from vidseg_core.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
