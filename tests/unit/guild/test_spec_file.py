"""Guild files: read, written, and everything that can be wrong with them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rustic_ai.core.errors import SpecError, SpecFileError
from rustic_ai.core.guild import AgentSpec, DependencySpec, GuildBuilder, GuildSpec
from rustic_ai.core.guild.spec_file import (
    guild_schema,
    read_guild_file,
    read_guild_text,
    write_json,
    write_yaml,
)
from rustic_ai.core.testing.agents import MultiplyingAgent

ROOT = Path(__file__).parents[3]
AGENT = "rustic_ai.core.testing.agents.MultiplyingAgent"
GOOD = f"""\
id: good
agents:
  - id: a
    name: first
    class_name: {AGENT}
    properties:
      factor: 3
  - name: second
    class_name: {AGENT}
"""


EMBEDDED = (
    "backend_module: rustic_ai.core.messaging.backend.embedded_backend, "
    "backend_class: EmbeddedMessagingBackend"
)


def problems_of(text: str) -> list[tuple[int, int, str, str]]:
    """Return (line, column, message, hint) of all problems of a text."""
    with pytest.raises(SpecFileError) as caught:
        read_guild_text(text)
    return [(p.line, p.column, p.message, p.hint) for p in caught.value.problems]


def with_agent(*lines: str) -> str:
    """Return a guild of one good agent and these lines."""
    return (
        "agents:\n  - name: a\n    class_name: "
        + AGENT
        + "\n"
        + "".join(f"    {x}\n" for x in lines)
    )


def test_a_guild_is_read() -> None:
    """Fields, agents and their properties come as they stand in the file."""
    spec = read_guild_text(GOOD)
    assert spec.id == "good"
    assert [agent.name for agent in spec.agents] == ["first", "second"]
    assert spec.agents[0].properties == {"factor": 3}
    assert GuildBuilder.from_spec_yaml(GOOD).build_spec().agents[0] == spec.agents[0]


@pytest.mark.parametrize(
    ("text", "line", "column", "message", "hint"),
    [
        (
            with_agent("descripton: x"),
            4,
            5,
            "unknown key 'descripton'",
            "did you mean 'description'?",
        ),
        ("nam: x\n", 1, 1, "unknown key 'nam'", "did you mean 'name'?"),
        (
            with_agent("listen_to_default_topic: 3"),
            4,
            30,
            "must be true or false, not the number 3",
            "",
        ),
        (with_agent("additional_topics: x"), 4, 24, "must be a list, not the text 'x'", ""),
        (with_agent("id: 7"), 4, 9, "must be text, not the number 7", "put it in quotes"),
        (with_agent("id: ''"), 4, 9, "must not be empty", ""),
        (with_agent("id: b", "id: c"), 5, 5, "'id'", ""),
        (
            with_agent("properties: {facto: 2}"),
            4,
            18,
            "unknown key 'facto'",
            "did you mean 'factor'?",
        ),
        (with_agent("properties: {factor: two}"), 4, 26, "must be a whole number", ""),
        ("agents:\n  - name: a\n", 2, 5, "missing key 'class_name'", ""),
        ("agents: {\n", 2, 1, "", ""),
        (
            "properties: {execution_engine: multiproces}\n",
            1,
            32,
            "was not found",
            "did you mean 'multiprocess'?",
        ),
        ("properties: {max_processes: 0}\n", 1, 29, "greater than or equal to 1", ""),
        ("dependency_map: {db: {}}\n", 1, 22, "give class_name", ""),
        (
            f"properties: {{messaging: {{{EMBEDDED}, backend_config: {{prt: 1}}}}}}\n",
            1,
            25,
            "backend_config has no setting 'prt'",
            "did you mean 'port'?",
        ),
        (
            "properties: {messaging: {backend_module: nope, backend_class: X}}\n",
            1,
            25,
            "messaging backend nope.X: cannot import 'nope'",
            "",
        ),
        ("name: a\x01b\n", 1, 8, "a character that YAML does not allow: U+0001", "escape"),
        ("name: !!bool maybe\n", 1, 7, "name: cannot be read as '!!bool'", ""),
        ('name: "\\ud800"\n', 1, 7, "name: cannot be read as '!!str'", ""),
        ("name: n\n7: x\n", 2, 1, "the key 7 is not text", "put it in quotes"),
        ("name: n\n? [a]\n: b\n", 2, 3, "this key is not text", ""),
        ("name: a: b\n", 1, 8, "not valid YAML: mapping values are not allowed here", ""),
        ("name: a\n---\nname: b\n", 2, 1, "expected a single document", ""),
        ("agents:\n\t- name: x\n", 2, 1, "not valid YAML", "indent with spaces"),
        ('{"name": "\\ud800"}', 1, 10, "name: cannot be read", ""),
        ('{\n\t"id": "a",\n\t"id": "b"\n}', 3, 2, "key 'id' is given twice", "line 2"),
        ("[" * 9000, 1, 1, "nested too deeply", ""),
    ],
)
def test_each_problem_has_its_place(
    text: str, line: int, column: int, message: str, hint: str
) -> None:
    """Every kind of mistake is told with line, column, what is wrong and what is near."""
    (found,) = problems_of(text)
    assert found[:2] == (line, column), found
    assert message in found[2]
    assert hint in found[3]


def test_names_that_lead_nowhere() -> None:
    """Classes that are not found, or are no agents, are told with what is near."""
    text = (
        "agents:\n"
        "  - {name: a, class_name: rustic_ai.core.testing.agents.MultiplyingAgnt}\n"
        "  - {name: b, class_name: collections.OrderedDict}\n"
        "  - {name: c, class_name: no_such_module.Thing}\n"
    )
    (near, kind, nowhere) = problems_of(text)
    assert near[0] == 2
    assert "did you mean 'MultiplyingAgent'" in near[3]
    assert kind[0] == 3
    assert "no Agent" in kind[2]
    assert nowhere[0] == 4
    assert "no_such_module" in nowhere[2]


def test_duplicate_ids_point_at_the_second() -> None:
    """An id that two agents have is told where it stands again, naming the first place."""
    agent = f"  - {{id: x, name: n, class_name: {AGENT}}}\n"
    ((line, _, message, hint),) = problems_of("agents:\n" + agent + agent)
    assert line == 3
    assert "several agents have the id 'x'" in message
    assert "line 2" in hint


def test_all_problems_come_at_once() -> None:
    """Nobody has to fix one mistake to hear of the next."""
    text = (
        "idd: x\n"
        "agents:\n"
        "  - nme: a\n"
        "    class_name: no_such_module.Thing\n"
        "    act_only_when_tagged: maybe\n"
    )
    assert [p[0] for p in problems_of(text)] == [1, 3, 3, 4, 5]


def test_missing_dependencies_are_found_in_the_file() -> None:
    """What an agent would miss at its launch is told when the file is read."""
    text = "agents:\n  - {name: d, class_name: rustic_ai.core.testing.agents.DependentAgent}\n"
    ((line, _, message, _),) = problems_of(text)
    assert line == 2
    assert "depends on 'offset'" in message


def test_words_of_yaml_1_1_stay_text() -> None:
    """'no', 'on' and 'yes' are words; only true and false are truth values."""
    spec = read_guild_text(with_agent("description: no", "listen_to_default_topic: false"))
    assert spec.agents[0].description == "no"
    assert not spec.agents[0].listen_to_default_topic


def test_yaml_makes_no_objects() -> None:
    """Tags that would build Python objects are refused."""
    problems = problems_of(with_agent("description: !!python/object/apply:os.system [ls]"))
    assert "!!python/object/apply:os.system' is not allowed" in problems[0][2]


def test_json_is_read_with_places_too() -> None:
    """The same mistakes in JSON have lines and columns as well."""
    text = '{\n  "agents": [\n    {"name": "a", "class_nam": "x.Y"}\n  ]\n}\n'
    assert {p[0] for p in problems_of(text)} == {3}
    good = json.dumps({"id": "j", "agents": [{"name": "a", "class_name": AGENT}]})
    assert GuildBuilder.from_spec_json(good).build_spec().id == "j"


def test_broken_json_files_are_told_as_json(tmp_path: Path) -> None:
    """A file called .json is JSON: what is wrong with it is not explained as YAML."""
    file = tmp_path / "guild.json"
    file.write_text('{"name": "n",\n\t"id": }')
    with pytest.raises(SpecFileError) as caught:
        read_guild_file(file)
    (problem,) = caught.value.problems
    assert (problem.line, problem.column) == (2, 8)
    assert problem.message == "not valid JSON: expecting value"
    assert problem.source == ' "id": }'


def test_an_alias_into_itself_is_refused() -> None:
    """A value that contains itself is a problem, not an endless loop; shared values are fine."""
    (found,) = problems_of("dependency_map: {loop: {value: &x [*x]}}\n")
    assert found[2] == "an alias leads back into itself"
    text = "agents:\n- &a {name: a, class_name: " + AGENT + "}\n- *a\n"
    assert [agent.name for agent in read_guild_text(text).agents] == ["a", "a"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("import no_such_dependency\n", "ModuleNotFoundError: No module named"),
        ("x = 1\ndef broken(:\n", "SyntaxError"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
    ],
)
def test_modules_that_cannot_be_imported(tmp_path: Path, body: str, message: str) -> None:
    """What a named module raises is told at the name, with its own file and line."""
    module = f"fails_with_{message.split(':', maxsplit=1)[0].lower()}"
    (tmp_path / f"{module}.py").write_text(body)
    file = tmp_path / "guild.yaml"
    file.write_text(f"agents:\n  - {{name: n, class_name: {module}.Thing}}\n")
    with pytest.raises(SpecFileError) as caught:
        read_guild_file(file)
    (problem,) = caught.value.problems
    assert (problem.line, problem.column) == (2, 27)
    assert message in problem.message
    assert f"{module}.py:{body.count(chr(10))})" in problem.message


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n", "just text\n", "\t- x: {\n"])
def test_files_that_are_no_guild(text: str) -> None:
    """Nothing, a list, a text, or broken syntax is a problem, never a crash."""
    assert problems_of(text)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A file that is missing, a folder, or no UTF-8 is told by its name."""
    (tmp_path / "guild.yaml").write_bytes(b"id: \xff\n")
    with pytest.raises(SpecFileError, match=r"guild.yaml:1:5\nnot UTF-8|not UTF-8: byte 0xff"):
        read_guild_file(tmp_path / "guild.yaml")
    with pytest.raises(SpecFileError, match=r"did you mean 'guild.yaml'"):
        read_guild_file(tmp_path / "gild.yaml")
    with pytest.raises(SpecFileError, match="directory"):
        read_guild_file(tmp_path)


def test_classes_beside_the_file_are_found(tmp_path: Path) -> None:
    """A file may name classes of modules that lie beside it."""
    (tmp_path / "beside_the_file.py").write_text(
        "from rustic_ai.core.guild import Agent\n\n\nclass Neighbour(Agent):\n    pass\n"
    )
    file = tmp_path / "guild.yaml"
    file.write_text("agents:\n  - {name: n, class_name: beside_the_file.Neighbour}\n")
    assert read_guild_file(file).agents[0].class_name == "beside_the_file.Neighbour"


texts = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda x: st.lists(x, max_size=3) | st.dictionaries(texts, x, max_size=3),
    max_leaves=5,
)
agents = st.builds(
    AgentSpec,
    name=texts,
    class_name=st.just(AGENT),
    description=texts,
    properties=st.builds(dict, factor=st.integers()),
    additional_topics=st.lists(texts, max_size=3).map(tuple),
    listen_to_default_topic=st.booleans(),
    dependency_map=st.dictionaries(texts, values.map(DependencySpec.of), max_size=2),
)


@given(st.builds(GuildSpec, id=texts, name=texts, agents=st.lists(agents, max_size=3).map(tuple)))
def test_what_is_written_is_read_again(spec: GuildSpec) -> None:
    """YAML and JSON give the same spec back, whatever words are in it."""
    assert read_guild_text(write_yaml(spec)) == spec
    assert read_guild_text(write_json(spec)) == spec


@pytest.mark.parametrize(
    "text", ["a\x85b", "a\u2028b", "1e3", "0o7", "no", "12:30", "=", "<<", "2020-01-01", " \n"]
)
def test_words_that_mean_something_to_yaml_stay_words(text: str) -> None:
    """Text that YAML would take for something else, or break, comes back as it was."""
    agent = AgentSpec(name="a", class_name=AGENT, dependency_map={"k": DependencySpec.of(text)})
    spec = GuildSpec(agents=(agent,))
    assert read_guild_text(write_yaml(spec)) == spec
    assert read_guild_text(write_json(spec)) == spec


class Colour(StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ({1, 2}, "is a set"),
        (object(), "is a object"),
        ({"deep": [object()]}, r"\['deep'\]\[0\] is a object"),
        ({3: 4}, "is a dict with the key 3"),
        ((1, 2), "is a tuple"),
        (math.nan, "is nan"),
        (Path("x"), "is a PosixPath"),
        (Colour.RED, "is a Colour"),
        ("\ud800", "half a character"),
    ],
)
@pytest.mark.parametrize("write", [write_yaml, write_json])
def test_what_a_file_cannot_hold_is_named(
    write: Callable[[GuildSpec], str], value: Any, what: str
) -> None:
    """A dependency value that would not come back as it was is refused with its path."""
    agent = AgentSpec(name="a", class_name=AGENT, dependency_map={"db": DependencySpec.of(value)})
    with pytest.raises(
        SpecError, match=rf"agents\[0\]\.dependency_map\['db'\]\.value.*{what}"
    ) as caught:
        write(GuildSpec(agents=(agent,)))
    assert "DependencyResolver" in caught.value.hint


def test_typed_properties_are_written_for_their_class() -> None:
    """Properties, which their class reads back, may be paths and dates; objects are refused."""

    def guild(**properties: Any) -> GuildSpec:
        return GuildSpec(agents=(AgentSpec(name="a", class_name=AGENT, properties=properties),))

    text = write_yaml(guild(folder=Path("/data"), day=date(2026, 1, 2), size=(1, 2)))
    properties = yaml.safe_load(text.replace("'2026", "!!str '2026"))["agents"][0]["properties"]
    assert properties == {"folder": "/data", "day": "2026-01-02", "size": [1, 2]}
    with pytest.raises(SpecError, match=r"agents\[0\]\.properties\['x'\] is a object"):
        write_json(guild(x=object()))


def test_the_schema_is_current_and_fits() -> None:
    """The schema in the repository is the one of the code, and the examples follow it."""
    kept = json.loads((ROOT / "schemas" / "guild.schema.json").read_text())
    assert kept == guild_schema()
    jsonschema.Draft202012Validator.check_schema(kept)
    for file in ROOT.glob("examples/**/*.yaml"):
        jsonschema.validate(yaml.safe_load(file.read_text()), kept)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"agnts": []}, kept)
    assert MultiplyingAgent.__name__ in AGENT
