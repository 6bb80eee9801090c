"""``python -m jobs.submit`` is ``vidseg submit``."""

from vidseg_core.cli.main import main_of

main = main_of("submit")

if __name__ == "__main__":
    raise SystemExit(main())
