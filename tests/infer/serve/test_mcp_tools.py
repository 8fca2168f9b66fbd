"""What the tools say of themselves."""

from __future__ import annotations

import pytest
from jsonschema import Draft202012Validator

from hbi_infer.serve.mcp_tools import STRONGEST_PAIRS, TOOLS, told_level


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_says_what_it_takes(name: str) -> None:
    listed = TOOLS[name].listed(name)
    schema = listed.input_schema
    Draft202012Validator.check_schema(schema)
    assert set(schema["required"]) <= schema["properties"].keys() >= {"pictures", "collection"}
    assert all(each.get("description") for each in schema["properties"].values())
    assert listed.description
    assert listed.description.endswith(".")


def test_the_strongest_pairs_of_a_level_are_told() -> None:
    level = {
        "name": "entity",
        "rate": 0.5,
        "similarity": 0.2,
        "words": [["a"], ["red"], ["ball"]],
        "frames": [[0.0], [0.5], [1.0, 1.5]],
        "interaction": [[0.0, -1.0, 0.1], [0.7, 0.9, 0.2], [0.3, 0.4, 0.5]],
        "cosines": [],
    }
    told = told_level(level)
    assert told.keys() == {"name", "rate", "similarity", "strongest"}
    assert len(told["strongest"]) == STRONGEST_PAIRS
    assert told["strongest"][:3] == [
        {"words": ["red"], "seconds": [0.5], "interaction": 0.9},
        {"words": ["red"], "seconds": [0.0], "interaction": 0.7},
        {"words": ["ball"], "seconds": [1.0, 1.5], "interaction": 0.5},
    ]
