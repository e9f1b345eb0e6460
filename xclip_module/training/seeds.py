"""Seeds from words: what is random is a function of what it is drawn for, so a resume needs no generator's state."""

import hashlib


def seed_of(*words: object, bits: int = 64) -> int:
    """A seed of `bits` bits, the same for the same words on every machine, which Python's `hash` is not.

    Neighbouring words give unrelated seeds: sums such as seed + step would meet those of another seed.
    """
    digest = hashlib.blake2b("/".join(map(str, words)).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> (64 - bits)
