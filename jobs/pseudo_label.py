"""``python -m jobs.pseudo_label`` is ``vidseg pseudo-label``."""

from vidseg_core.cli.main import main_of

main = main_of("pseudo-label")

if __name__ == "__main__":
    raise SystemExit(main())
