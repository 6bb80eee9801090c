"""The five face classes of DVRL 4.1, in the order of their ids."""

from __future__ import annotations

FACE_CLASSES = ("background", "facial skin", "eyes", "outer mouth", "inner mouth")
