"""``python -m jobs.export`` is ``vidseg export``."""

from vidseg_core.cli.main import main_of

main = main_of("export")

if __name__ == "__main__":
    raise SystemExit(main())
