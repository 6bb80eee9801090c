"""``python -m jobs.segment`` is ``vidseg segment``."""

from vidseg_core.cli.main import main_of

main = main_of("segment")

if __name__ == "__main__":
    raise SystemExit(main())
