"""``python -m jobs.status`` is ``vidseg status``."""

from vidseg_core.cli.main import main_of

main = main_of("status")

if __name__ == "__main__":
    raise SystemExit(main())
