"""``python -m jobs.compact`` is ``vidseg compact``."""

from vidseg_core.cli.main import main_of

main = main_of("compact")

if __name__ == "__main__":
    raise SystemExit(main())
