"""``python -m jobs.tune`` is ``vidseg tune``."""

from vidseg_core.cli.main import main_of

main = main_of("tune")

if __name__ == "__main__":
    raise SystemExit(main())
