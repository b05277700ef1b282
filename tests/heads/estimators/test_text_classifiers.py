from pathlib import Path
from typing import get_type_hints

import pytest
from jsonargparse import ArgumentParser
from sklearn.pipeline import Pipeline

from dfl.heads.estimators import text_classifiers
from dfl.heads.estimators.text_classifiers import FAKE_PROMPTS, REAL_PROMPTS

FACTORIES = ["learned_text", "zero_shot"]


@pytest.mark.parametrize("name", FACTORIES)
def test_factory__is_typed_and_is_an_estimator_alone(name: str) -> None:
    factory = getattr(text_classifiers, name)
    hints = get_type_hints(factory)

    pipeline = factory()

    assert hints.pop("return") is Pipeline
    assert len(hints) == factory.__code__.co_argcount
    assert [step for step, _ in pipeline.steps] == ["estimator"]


@pytest.mark.parametrize("name", FACTORIES)
def test_factory__keeps_the_prompts_that_it_uses(name: str) -> None:
    factory = getattr(text_classifiers, name)

    default = factory()[-1]
    own = factory(real_prompts=["a photo"], fake_prompts=["a fake"], weights=Path("a.pt"))[-1]

    assert default.real_prompts == list(REAL_PROMPTS)
    assert default.fake_prompts == list(FAKE_PROMPTS)
    assert (own.real_prompts, own.fake_prompts, own.weights) == (["a photo"], ["a fake"], "a.pt")


@pytest.mark.parametrize(("text", "value"), [("false", False), ("openai", "openai")])
def test_factory__reads_false_and_tags_from_the_command_line(text: str, value: bool | str) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--head", type=Pipeline)
    path = "dfl.heads.estimators.learned_text"
    options = [f"--head={path}", f"--head.pretrained={text}", "--head.real_prompts=[a photo]"]

    head = parser.instantiate(parser.parse_args([*options, "--head.penalty=2"])).head[-1]

    assert head.pretrained == value
    assert head.penalty == 2.0
    assert head.real_prompts == ["a photo"]
