"""What a call's words say of harm, read in the text encoder's own space once it is loaded."""

from __future__ import annotations

from dataclasses import replace

from sld_edge.errors import PolicyError
from sld_edge.manifest import Safety
from sld_edge.runtime.call import Call
from sld_edge.runtime.methods import METHODS
from sld_edge.runtime.notes import CallNote
from sld_edge.runtime.policy import has_floor
from sld_edge.runtime.tokenize import Tokenizer
from sld_edge.runtime.words import Encode, Ids, Screened, WordScreen

#: Rows of the branches in a call's token ids.
_UNCONDITIONAL, _PROMPT, _CONCEPT = 0, 1, 2


def screened(
    call: Call, safety: Safety, screen: WordScreen, tokenizer: Tokenizer, encode: Encode
) -> Call:
    """The call with harms' words answered as its bundle says.

    A prompt that names a harm loses the words that name it. One that is made of such words leaves nothing to picture:
    its image is steered away from the whole concept instead, which takes the negative prompt's place (guidance is then
    ε_s + s_g·(ε_p − ε_s): no factor that vanishes where prompt and concept agree). Where the words choose the safety
    concept, each image gets the harm that its prompt comes nearest to. Other images of the call stay as they are.

    Under a method that steers by one harm at a time negative prompts lose these words too: ε_s − ε_u would otherwise
    point from the harms of the negative prompt to the one that is suppressed, and guidance away from it would lead to
    the others.

    Args:
        call: A call of a bundle with harms' words.
        safety: The bundle's safety part.
        screen: Finds the words.
        tokenizer: The bundle's.
        encode: Runs the text encoder.

    Raises:
        PolicyError: the policy refuses prompts that name a harm, or a concept that is far from all harms.
    """
    notes: list[CallNote] = [*call.notes, *_far_concepts(call, safety, screen, tokenizer, encode)]
    method = METHODS[call.guard.method]
    if call.words == "allow" and not call.by_words and not method.by_harm:
        return replace(call, notes=tuple(notes))
    ids = call.ids.copy()
    whole = tokenizer.encode_concept(safety.concept)[0]
    removed: list[tuple[str, ...]] = []
    for sample in range(ids.shape[1]):
        place = {"index": sample, "of": ids.shape[1]}
        if method.by_harm:
            text = f"names a harm that the {method.name} method suppresses itself, these words were left out"
            note = CallNote(
                kind="negative prompt harm", text=text, about="negative prompt", **place
            )
            notes += _without_negative_harms(
                ids[_UNCONDITIONAL, sample], note, screen, tokenizer, encode
            )
        found = screen.screen(ids[_PROMPT, sample], encode)
        if call.by_words:
            ids[_CONCEPT, sample] = screen.harm_ids[found.nearest]
        answered = _is_answered(call, found)
        removed.append(found.removed if answered else ())
        if not answered:
            continue
        if call.words == "refuse":
            what = "the prompt" if ids.shape[1] == 1 else f"prompt {sample}"
            raise PolicyError(
                f"{what} names a harm, which this bundle's policy refuses",
                value=", ".join(found.removed),
                hint="say it without these words",
            )
        ids[_PROMPT, sample] = found.ids
        if found.is_concept:
            ids[_UNCONDITIONAL, sample] = whole
            if call.by_words:
                ids[_CONCEPT, sample] = whole
            text = "is made of words that name a harm: it is steered away from the whole concept"
            notes.append(CallNote(kind="prompt of harm", text=text, about="prompt", **place))
        else:
            text, words = "names a harm, these words were left out", found.removed
            note = CallNote(kind="prompt harm", text=text, about="prompt", words=words, **place)
            notes.append(note)
    return replace(call, ids=ids, removed=tuple(removed), notes=tuple(notes))


def _without_negative_harms(
    ids: Ids, note: CallNote, screen: WordScreen, tokenizer: Tokenizer, encode: Encode
) -> list[CallNote]:
    """Change a negative prompt's token ids ``[T]`` in place; the note, with the words, where that left some out."""
    if not tokenizer.is_word(ids).any():
        return []
    found = screen.screen(ids, encode)
    if not found.removed:
        return []
    # What is left of a text that was made of harms' words says nothing.
    empty = tokenizer.encode([""], what="negative_prompt").ids[0]
    ids[...] = empty if found.is_concept else found.ids
    return [replace(note, words=found.removed)]


def _is_answered(call: Call, found: Screened) -> bool:
    if not found.removed:
        return False
    return found.is_concept if call.words == "concepts" else call.words != "allow"


def _far_concepts(
    call: Call, safety: Safety, screen: WordScreen, tokenizer: Tokenizer, encode: Encode
) -> list[CallNote]:
    """A note for each safety concept of the call's own that is far from every harm that the bundle knows."""
    own = {safety.concept, *(harm.text for harm in screen.harms)}
    notes = []
    for concept in call.guard.concepts:
        if concept in own:
            continue
        nearness = screen.nearness(tokenizer.encode_concept(concept)[0], encode)
        if nearness >= screen.threshold:
            continue
        what = f"the safety concept {concept!r} is far from every harm that this bundle knows"
        if has_floor(safety.policy):
            raise PolicyError(what, hint="leave safety_concept out, or name a harm")
        text = "a safety concept is far from every harm that this bundle knows, it may not suppress those"
        notes.append(CallNote(kind="far concept", text=text, words=(repr(concept),)))
    return notes
