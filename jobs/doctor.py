"""``python -m jobs.doctor`` is ``vidseg doctor``."""

from vidseg_core.cli.main import main_of

main = main_of("doctor")

if __name__ == "__main__":
    raise SystemExit(main())
