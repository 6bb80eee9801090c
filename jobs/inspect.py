"""``python -m jobs.inspect`` is ``vidseg inspect``."""

from vidseg_core.cli.main import main_of

main = main_of("inspect")

if __name__ == "__main__":
    raise SystemExit(main())
