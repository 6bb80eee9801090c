"""``python -m jobs.build_episodes`` is ``vidseg build-episodes``."""

from vidseg_core.cli.main import main_of

main = main_of("build-episodes")

if __name__ == "__main__":
    raise SystemExit(main())
