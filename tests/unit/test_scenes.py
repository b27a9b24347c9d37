"""Procedural clips: exact labels, true words, the padding the network will meet."""

import numpy as np
import pytest
from psalm_stream.psalm.train.clip import CATEGORIES, VOCABULARY, Clip, Thing, categories, sentences
from psalm_stream.psalm.train.scenes import PADDING, draw_clip
from psalm_stream.psalm.train.shapes import body


def clips(n: int, **kwargs) -> list[Clip]:
    return [draw_clip(np.random.default_rng(seed), **kwargs) for seed in range(n)]


@pytest.mark.parametrize(("size", "frames"), [(256, 3), (128, 2), (96, 6)])
def test_a_clip_has_the_asked_size_and_number_of_frames(size, frames):
    clip = draw_clip(np.random.default_rng(0), size, frames)
    assert clip.images.shape == (frames, size, size, 3)
    assert clip.labels.shape == (frames, size, size)
    assert clip.images.dtype == clip.labels.dtype == np.uint8


def test_the_same_generator_draws_the_same_clip():
    one, two = (draw_clip(np.random.default_rng(7), 96) for _ in range(2))
    assert np.array_equal(one.images, two.images)
    assert np.array_equal(one.labels, two.labels)


def test_padding_is_exactly_128_and_unlabelled_on_half_of_the_clips_as_16_to_9():
    drawn = clips(40, size=96)
    for clip in drawn:
        h, w = clip.valid_hw
        padded = np.ones((96, 96), bool)
        padded[:h, :w] = False
        assert (clip.images[:, padded] == PADDING).all()
        assert not clip.labels[:, padded].any()
    assert 10 <= sum(clip.valid_hw == (54, 96) for clip in drawn) <= 30


def test_labels_name_listed_objects_only_and_the_anchor_shows_one():
    for clip in clips(20, size=96):
        ids = {thing.object_id for thing in clip.objects}
        assert set(np.unique(clip.labels)) <= ids | {0}
        assert clip.labels[0].any()


def test_every_word_of_every_sentence_is_in_the_vocabulary():
    said = [sentence for clip in clips(15, size=96) for sentence, _ in sentences(clip, 2)]
    assert len(said) > 50
    assert {word for sentence in said for word in sentence.split()} <= set(VOCABULARY)


def test_no_sentence_is_said_of_two_objects():
    for clip in clips(20, size=96):
        owner: dict[str, int] = {}
        for sentence, object_id in sentences(clip, 1):
            assert owner.setdefault(sentence, object_id) == object_id


def two_things(hidden: tuple[Thing, ...] = ()) -> Clip:
    labels = np.zeros((1, 40, 40), np.uint8)
    labels[0, 5:15, 2:12] = 1
    labels[0, 5:25, 20:38] = 2
    things = (Thing(1, "disc", "red", "striped"), Thing(2, "star", "red", "plain", ("blue",)))
    return Clip(np.zeros((1, 40, 40, 3), np.uint8), labels, things, (40, 40), hidden)


def test_sentences_compare_size_and_side_among_what_the_words_fit():
    said = dict(sentences(two_things(), 0))
    assert said["the disc"] == 1
    assert said["the striped thing"] == 1
    assert said["the largest red thing"] == 2
    assert said["the red thing on the left"] == 1
    assert said["the red and blue thing"] == 2
    assert "the red thing" not in said


def test_nothing_is_said_that_an_unlabelled_thing_also_meets():
    said = dict(sentences(two_things((Thing(3, "disc", "green", "striped"),)), 0))
    assert not {"the disc", "the striped thing", "the largest thing", "the thing on the left"} & set(said)
    assert said["the star"] == 2


def test_categories_join_the_masks_of_a_kind_and_skip_the_nameless():
    clip = two_things()
    same = Clip(clip.images, clip.labels, (Thing(1, "disc", "red", "plain"), Thing(2, "disc", "blue", "plain")), (40, 40))
    assert np.array_equal(categories(same, 0)["disc"], clip.labels[0] > 0)
    nameless = Clip(clip.images, clip.labels, (Thing(1, "", "red", "plain"), Thing(2, "star", "blue", "plain")), (40, 40))
    assert list(categories(nameless, 0)) == ["star"]


@pytest.mark.parametrize("category", [*CATEGORIES, ""])
def test_every_body_stays_near_the_unit_circle_and_hangs_on_earlier_parts(category):
    for seed in range(5):
        parts = body(np.random.default_rng(seed), category)
        assert all(np.abs(part.outline).max() < 3 and part.outline.shape[1] == 2 for part in parts)
        assert all(part.parent < i for i, part in enumerate(parts))
