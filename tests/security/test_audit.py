"""Promise: what is installed fits together and is free of GPL and AGPL; and the audit would see it if not."""

from __future__ import annotations

import pytest

from tests.audit import closure, is_refused, problems


def test_nothing_is_wrong_with_what_is_installed() -> None:
    count, wrong = problems()
    assert count > 50 and not wrong


def test_the_whole_tree_is_looked_through() -> None:
    assert {"vidseg", "ray", "torch", "botocore", "jmespath", "pytest", "jinja2"} <= set(closure()[0])


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("GPL-3.0-or-later", True),
        ("AGPL-3.0", True),
        ("GNU General Public License v3 (GPLv3)", True),
        ("GNU Affero General Public License v3", True),
        ("GPL-2.0-only OR MIT", False),
        ("GNU Lesser General Public License v3 (LGPLv3)", False),
        ("LGPL-2.1", False),
        ("Apache-2.0", False),
    ],
)
def test_licences(text: str, refused: bool) -> None:
    assert is_refused(text) == refused
