"""The block pool against a plain account of references, over random histories; prefix-cache keys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from paddle_internvl.engine.block_pool import BlockPool
from paddle_internvl.engine.prefix_cache import PictureSpan, block_keys, picture_spans

TOTAL = 12


class PoolHistory(RuleBasedStateMachine):
    """Random sequences; the key of each block is also kept beside the pool."""

    def __init__(self):
        super().__init__()
        self.pool = BlockPool(TOTAL)
        self.sequences: dict[int, dict] = {}
        self.content: dict[int, bytes | None] = {}
        self.next = 0

    living = Bundle("living")

    @rule(target=living, text=st.text("ab", min_size=1, max_size=5), more=st.integers(0, 3))
    def begin(self, text, more):
        keys = [text[: i + 1].encode() for i in range(len(text))]
        need = len(keys) + more
        before = self.pool.available
        fits = self.pool.reserve(need)
        assert fits == (need <= before)
        name = self.next
        self.next += 1
        if fits:
            shared = self.pool.share(keys)
            assert [self.content[b] for b in shared] == keys[: len(shared)]
            self.sequences[name] = {"blocks": shared, "reserved": need - len(shared), "keys": keys}
        return name

    @rule(name=living)
    def allocate(self, name):
        sequence = self.sequences.get(name)
        if sequence and sequence["reserved"]:
            (block,) = self.pool.allocate(1)
            assert all(block not in other["blocks"] for other in self.sequences.values())
            self.content[block] = None
            sequence["blocks"].append(block)
            sequence["reserved"] -= 1

    @rule(name=living)
    def register(self, name):
        sequence = self.sequences.get(name)
        for block, key in zip(sequence["blocks"], sequence["keys"]) if sequence else ():
            if self.content.get(block) is None and key not in self.content.values():
                self.content[block] = key
            self.pool.register(block, key)

    @rule(name=consumes(living))
    def end(self, name):
        sequence = self.sequences.pop(name, None)
        if sequence:
            self.pool.release(sequence["blocks"])
            self.pool.unreserve(sequence["reserved"])

    @rule()
    def clear(self):
        self.pool.clear()
        self.content = dict.fromkeys(self.content)

    @invariant()
    def nothing_is_lost(self):
        held = {block for sequence in self.sequences.values() for block in sequence["blocks"]}
        reserved = sum(sequence["reserved"] for sequence in self.sequences.values())
        assert self.pool.used == len(held) and self.pool.reserved == reserved
        assert self.pool.available == TOTAL - len(held) - reserved


TestPoolHistory = PoolHistory.TestCase


def test_the_least_recently_used_block_is_evicted_first():
    pool = BlockPool(2)
    for key in (b"old", b"new"):
        pool.reserve(1)
        (block,) = pool.allocate(1)
        pool.register(block, key)
        pool.release([block])
    pool.reserve(1)
    pool.release(pool.allocate(1))
    pool.reserve(2)
    assert pool.share([b"old"]) == [] and len(pool.share([b"new"])) == 1


def test_unreserving_more_than_is_reserved_is_an_error():
    with pytest.raises(ValueError, match="1 blocks unreserved, but only 0"):
        BlockPool(1).unreserve(1)


@given(st.lists(st.integers(0, 2), max_size=20), st.lists(st.integers(0, 2), max_size=20))
def test_keys_are_equal_exactly_where_texts_are(one, other):
    for i, (a, b) in enumerate(zip(block_keys(one, [], 4), block_keys(other, [], 4))):
        assert (a == b) == (one[: 4 * i + 4] == other[: 4 * i + 4])


def test_keys_differ_by_picture_and_position():
    ids = [5, 9, 9, 9, 9, 6, 7, 8]  # 9: <IMG_CONTEXT>
    assert picture_spans(ids, 9, [b"p", b"q"], [1, 3]) == [PictureSpan(1, 2, b"p"), PictureSpan(2, 5, b"q")]
    cat, dog = (block_keys(ids, [PictureSpan(1, 5, key)], 4) for key in (b"cat", b"dog"))
    assert cat[0] != dog[0] and cat[1] != dog[1]
    early, late = (block_keys([9] * 8, [PictureSpan(start, 8, b"cat")], 4) for start in (0, 4))
    assert early[0] != late[0]
    assert block_keys(ids, [], 4) != cat
