import ast

from dfl.app.signature import class_names, definitions_of, exported, signature_of

HERE = "tests.app.commands_to_read"


def _kinds(path: str) -> dict[str, tuple[str, str | None, str]]:
    signature = signature_of(path)
    assert signature is not None
    return {
        each.name: (ast.unparse(each.annotation), each.default, each.text)
        for each in signature.options
    }


def test_signature__of_a_function() -> None:
    signature = signature_of(f"{HERE}.look")
    assert signature is not None
    assert signature.summary == "Look at something."
    assert signature.text == "Longer words.\n\nExample:\n    look --body x \\\n        --out y"
    found = _kinds(f"{HERE}.look")
    assert found["body"] == ("Body", None, "Through what.")
    assert found["crop"] == ("Crop | None", "None", "What is looked at.")
    assert found["mode"] == ("Literal['day', 'night']", "'day'", "When.")
    assert [each.name for each in signature.options if each.is_flag] == ["folder", "sharp"]


def test_signature__of_classes() -> None:
    assert _kinds(f"{HERE}.Lens") == {
        "zoom": ("float", "1.0", "How near."),
        "coated": ("bool", "True", ""),
    }
    assert _kinds(f"{HERE}.LongLens") == _kinds(f"{HERE}.Lens")
    assert _kinds(f"{HERE}.Body")["lens"] == ("Lens", None, "Its lens.")
    assert list(_kinds("dfl.heads.LinearProbeTask")) == ["backbones", "optimizer", "lr_scheduler"]
    assert "max_epochs" in _kinds("lightning.pytorch.Trainer")


def test_signature__of_nothing() -> None:
    assert signature_of(f"{HERE}.Mode") is None
    assert signature_of("dfl.data.Nothing") is None
    assert signature_of("no.such.module") is None


def test_class_names__are_followed_to_where_they_are_defined() -> None:
    signature = signature_of(f"{HERE}.look")
    assert signature is not None
    crop, bodies, times = (signature.option(name) for name in ("crop", "bodies", "times"))
    assert crop is not None
    assert bodies is not None
    assert times is not None
    assert class_names(crop.annotation, crop.module) == ["dfl.data.images.crops.Crop"]
    assert class_names(bodies.annotation, bodies.module) == [f"{HERE}.Body"]
    assert class_names(times.annotation, times.module) == []


def test_definitions__concrete_classes_and_functions() -> None:
    crops = definitions_of("dfl.data.images.crops.Crop")
    assert "dfl.data.Resize" in crops
    assert "dfl.data.Crop" not in crops
    backbones = definitions_of("dfl.backbones.base.Backbone")
    assert {"dfl.backbones.from_zoo", "dfl.backbones.TimmBackbone"} <= set(backbones)
    assert "dfl.heads.estimators.lda" in definitions_of("sklearn.pipeline.Pipeline")


def test_exported__short_and_full_names() -> None:
    assert exported("Resize") == exported("dfl.data.Resize") == "dfl.data.Resize"
    assert exported("lda") is None  # the parser takes functions by their full names only
    assert exported("Nothing") is None
