"""A choice in words: the table that people read before the job begins."""

from __future__ import annotations

from typing import Any

from vidseg_core.calibration.choice import Choice


def describe(choice: Choice) -> str:
    """The choice as a table for people."""
    asked = "".join(
        f"at most {100 * v:g} % key frames" if name == "budget" else f"at most {v:g} points lost on a clip"
        for name, v in choice.asked.items()
    )
    saved = 1 - choice.key_share
    lines = [
        ("asked", asked),
        ("chosen", describe_settings(choice)),
        ("expected AKI", f"{choice.aki:.1f} frames ({100 * choice.key_share:.1f} % keys)"),
        (
            "expected fidelity",
            f"{choice.fidelity:.2f} of 100 (95 %: {choice.fidelity_low:.2f} to {choice.fidelity_high:.2f}, "
            f"mean over {choice.clips} clips); the worst clip loses {choice.worst_drop:.2f}",
        ),
        (
            "saved",
            f"{100 * saved:.1f} % of the net's calls: {1000 * saved * choice.net_s:.0f} s per 1,000 frames",
        ),
    ]
    if choice.held_out_kept is not None:
        lines.append(("held-out check", f"kept on {choice.held_out_kept} of {choice.clips} clips left out"))
    if choice.note:
        lines.append(("note", choice.note))
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in lines)


def describe_settings(choice: Choice) -> str:
    """``warp_error, threshold 3.2``."""
    settings = dict(choice.settings)
    name = settings.pop("name")
    return ", ".join([str(name), *(f"{key} {value}" for key, value in settings.items())])


def plain_choice(choice: Choice) -> dict[str, Any]:
    names = ("key_share", "fidelity", "fidelity_low", "fidelity_high", "worst_drop", "can_keep")
    facts = choice.to_json()
    return {"settings": facts["settings"]} | {name: facts[name] for name in names}
