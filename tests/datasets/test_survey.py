"""Promise: `vidseg doctor --dataset` says what is there and what is missing, before a training run finds out.

Half-unpacked archives are the usual case: images without labels, one split of two, a file cut short.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jobs.doctor import main
from tests.datasets.miniatures import cityscapes_frame, columns, labelled_video, save
from vidseg_core import doctor
from vidseg_core.config.verbs import DoctorConfig
from vidseg_core.datasets.open import open_dataset
from vidseg_core.datasets.survey import survey
from vidseg_core.doctor import Finding, check_dataset


def findings(text: str) -> dict[str, Finding]:
    return {finding.name: finding for finding in check_dataset(DoctorConfig(dataset=text))}


def cityscapes(root: Path) -> Path:
    for split, city in (("train", "aachen"), ("val", "ulm")):
        cityscapes_frame(root, split, city, 0, 19, [7, 7, 7, 4])
    return root


def test_what_is_there_is_counted(tmp_path: Path) -> None:
    found = findings(f"cityscapes:{cityscapes(tmp_path)}")
    assert all(finding.status == "ok" for finding in found.values())
    assert found["dataset"].value == "cityscapes, 19 classes"
    assert found["split train"].value == "1 frames of 1 clips, 1 labelled"
    assert found["frame size"].value == "24x12"
    assert found["labels"].value == "of 2 frames: road 75.0%, ignored 25.0%"
    assert found["records"].value == "2 of 2 read"


def test_labels_that_were_not_unpacked_are_a_failure_with_the_place(tmp_path: Path) -> None:
    cityscapes(tmp_path)
    (tmp_path / "gtFine").rename(tmp_path / "elsewhere")
    missing = findings(f"cityscapes:{tmp_path}")["missing"]
    assert missing.status == "fail" and missing.value.startswith("gtFine/ not found: ")
    assert str(tmp_path) in missing.value


def test_a_folder_without_masks_is_a_failure(tmp_path: Path) -> None:
    save(tmp_path / "images/1.png", columns([(1, 2, 3)]))
    (tmp_path / "classes.txt").write_text("a\nb\n")
    found = findings(str(tmp_path))
    assert found["missing"].status == "fail" and "masks/ not found" in found["missing"].value
    assert found["labels"].value == "no frame is labelled"


def test_a_missing_split_is_a_warning(tmp_path: Path) -> None:
    cityscapes_frame(tmp_path, "train", "aachen", 0, 19, [7])
    missing = findings(f"cityscapes:{tmp_path}")["missing"]
    assert (missing.status, missing.value) == ("warn", "split val not found")


def test_a_place_without_a_data_set_is_one_failure(tmp_path: Path) -> None:
    (found,) = findings(f"camvid:{tmp_path}").values()
    assert found.status == "fail" and "701_StillsRaw_full" in found.value


def test_records_that_cannot_be_read_are_a_failure_with_their_reason(tmp_path: Path) -> None:
    save(cityscapes(tmp_path) / "gtFine/val/ulm/ulm_000000_000019_gtFine_labelIds.png", columns([99]))
    records = findings(f"cityscapes:{tmp_path}")["records"]
    assert (records.status, records.value) == ("fail", "1 of 2 read")
    assert "label 99 is out of range" in records.hint


def test_the_same_sample_is_drawn_each_time(tmp_path: Path) -> None:
    labelled_video(tmp_path, "one", 12)
    first, second = (survey(open_dataset(f"face:{tmp_path}"), sample=3) for _ in range(2))
    assert first.sampled == 3 and first.pixels.tolist() == second.pixels.tolist()


@pytest.mark.parametrize("whole", [True, False])
def test_the_verdict_is_the_exit_code(
    whole: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "CHECKS", (("dataset", check_dataset),))
    cityscapes(tmp_path)
    if not whole:
        (tmp_path / "gtFine").rename(tmp_path / "elsewhere")
    assert main(["--dataset", str(tmp_path)]) == (0 if whole else 1)
    printed = capsys.readouterr().out
    assert "split train" in printed and ("gtFine/" in printed) is not whole


def test_masks_of_0_and_255_fail_with_the_map_to_write(tmp_path: Path) -> None:
    save(tmp_path / "images/1.png", np.zeros((8, 12, 3), np.uint8))
    save(tmp_path / "masks/1.png", np.eye(8, 12, dtype=np.uint8) * 255)
    verdict = next(check_dataset(DoctorConfig(dataset=f"folder:{tmp_path}")))
    assert verdict.status == "fail" and "255: foreground" in verdict.value
