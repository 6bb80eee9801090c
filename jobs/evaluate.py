"""``python -m jobs.evaluate`` is ``vidseg evaluate``."""

from vidseg_core.cli.main import main_of

main = main_of("evaluate")

if __name__ == "__main__":
    raise SystemExit(main())
