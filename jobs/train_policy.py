"""``python -m jobs.train_policy`` is ``vidseg train-policy``."""

from vidseg_core.cli.main import main_of

main = main_of("train-policy")

if __name__ == "__main__":
    raise SystemExit(main())
