from avseg.nn.keys import rename


def test_rename_applies_all_substitutions_in_order():
    table = ((r"^head\.(\d)\.", r"conv\1."), (r"^conv1\.", "first."), (r"\.norm\.", ".bn."))
    assert rename("head.1.norm.weight", table) == "first.bn.weight"
    assert rename("head.2.bias", table) == "conv2.bias"
    assert rename("other", table) == "other"
