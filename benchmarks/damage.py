"""Files of a run that go bad, for `chaos`: parts with a flipped bit, parts that are gone."""

from __future__ import annotations

import random
from collections import Counter

from vidseg_core.store.keys import FRAMES_PREFIX
from vidseg_core.store.objects import open_store


def damage_parts(output: str, dice: random.Random, most: int = 3) -> Counter[str]:
    """Delete committed parts and flip a bit in others, by turns; how many of each."""
    store, done = open_store(output), Counter[str]()
    keys = [info.key for info in store.list(FRAMES_PREFIX) if info.key.endswith(".parquet")]
    for number, key in enumerate(dice.sample(keys, min(most, len(keys)))):
        if number % 2 == 0:
            store.delete(key)
            done["part deleted"] += 1
            continue
        data = bytearray(store.get(key))
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        store.put(key, bytes(data))
        done["bit flipped"] += 1
    return done
