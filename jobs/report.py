"""``python -m jobs.report`` is ``vidseg report``."""

from vidseg_core.cli.main import main_of

main = main_of("report")

if __name__ == "__main__":
    raise SystemExit(main())
