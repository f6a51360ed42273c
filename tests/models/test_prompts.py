"""Prompts in flat arrays are the prompts that were put in."""

from loraft.models.prompts import Prompt, Prompts, cut_share

PROMPTS = [Prompt([1, 2, 3], 2, 1, 4, 3), Prompt([9]), Prompt([5, 6], 2)]


def test_prompts_come_back_as_they_were_put_in() -> None:
    found = Prompts()
    for one in PROMPTS:
        found.append(one.ids, counts=(one.sentence, one.cut, one.shown, one.shown_cut))
    assert found == PROMPTS
    assert (found[-1], found[:2], list(found.ids)) == (PROMPTS[2], PROMPTS[:2], [one.ids for one in PROMPTS])
    assert cut_share(found) == 1 / 4  # of the tokens of all sentences: 2 and 0 and 2
