"""``python -m jobs.demo`` is ``vidseg demo``."""

from vidseg_core.cli.main import main_of

main = main_of("demo")

if __name__ == "__main__":
    raise SystemExit(main())
