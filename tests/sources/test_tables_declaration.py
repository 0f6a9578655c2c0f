"""tables.yaml: what is accepted, what is refused, and in which words."""

from contextlib import suppress

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from synehrgy.errors import UserError
from synehrgy.sources.tables import read_declaration
from synehrgy.sources.tables.declaration import Declaration
from synehrgy.sources.tables.parsing import parse
from tests.sources.hospital import DECLARATION


def read(tmp_path, text):
    file = tmp_path / "tables.yaml"
    file.write_text(text, encoding="utf-8")
    return read_declaration(file)


def refused(tmp_path, text):
    with pytest.raises(UserError) as error:
        read(tmp_path, text)
    message = str(error.value)
    assert message.startswith(str(tmp_path / "tables.yaml"))
    return message


STAYS = "stays: {file: s.csv, subject: p, stay: s, admitted: a}\n"
SERIES = "series: {Pulse: }\nmeasurements: {file: m.csv, stay: s, hours: h}\n"
CODES = "codes: {file: c.csv, stay: s, code: c, system: icd10_diagnosis}\n"

REFUSED = {
    "stay: {file: x}": "has no key 'stay'. Did you mean 'stays'?",
    "name: x": "stays is needed",
    "stays: {file: s.csv, subject: p}": "stays.stay is needed: column of the identifier",
    "stays: {file: s.csv, subject: p, stay: s, admited: a}": "stays has no key 'admited'. Did you",
    "stays: [a, b]": "stays must have keys such as file, subject, stay",
    "stays: {file: [a], subject: p, stay: s}": "stays.file must be one text",
    STAYS + "series: {HR: {unti: bpm}}": "series.HR has no key 'unti'. Did you mean 'unit'?",
    STAYS + "csv: {decimal: ;}": "csv.decimal: ';' is not one of ., ,",
    STAYS + "csv: {encoding: latin1}": "Did you mean 'latin-1'?",
    STAYS + "csv: {delimiter: ;;}": "csv.delimiter must be one character",
    STAYS + "covariates: {w: {range: [3]}}": "covariates.w.range must be the lowest and the hi",
    STAYS + "covariates: {w: {range: [3, 2]}}": "covariates.w.range must be",
    STAYS + "covariates: {w: {range: [a, b]}}": "covariates.w.range must be",
    STAYS + "covariates: {w: {levels: 3, unit: g}}": "levels have no unit and no range",
    STAYS + "covariates: {w: {levels: {F: {x: y}}}}": "covariates.w.levels.F must be a list of sp",
    STAYS + "covariates: {w: {levels: {F: [1], M: ['1.0']}}}": "'1' stands for two things",
    STAYS + "covariates: {w: {levels: [F, F]}}": "covariates.w.levels: 'F' stands there twice",
    STAYS + "covariates: {w: {since: b}}": "since needs a unit, one of hours, days",
    STAYS + "covariates: {w: {since: b, column: c, unit: days}}": "instead of column and levels",
    STAYS + "covariates: {stay_id: }": "'stay_id' is no name for a covariate or label",
    STAYS + "labels: {x: {kind: outcomes}}": "labels.x.kind: 'outcomes' is not one of outcome, ph",
    STAYS + "labels: {x: {codes: [A]}}": "labels.x: system and codes go together",
    STAYS + "labels: {x: {present: [a], absent: [A, a]}}": "'a' stands for two things",
    STAYS
    + CODES
    + "labels: {x: {codes: [A], system: icd10_dx}}": "Did you mean 'icd10_diagnosis'?",
    STAYS + CODES + "labels: {x: {codes: A, system: icd10_diagnosis, column: y}}": "either column",
    STAYS + CODES + "code_systems: {icd10: ICD}": "code_systems.icd10 is the system of no table",
    STAYS + CODES.replace("system: icd10_diagnosis", "position: p"): "give either system or",
    STAYS + CODES.replace("system:", "system_column:"): "system_column and systems, its meanings",
    STAYS + CODES.replace("code: c", "code: c, drop: [duplicate]"): "codes.drop: 'duplicate' is no",
    STAYS + "series: {Pulse: }": "measurements (their tables) and series (what to take",
    STAYS + SERIES.replace("hours: h", ""): "measurements (m.csv): give either hours or time",
    STAYS + SERIES.replace("hours: h", "hours: h, value: v"): "variable and value go together",
    STAYS + SERIES + "labels: [x, y]": "labels must be names with what they mean",
    STAYS + SERIES.replace("Pulse: ", "Pulse: , P2: {called: Pulse}"): "'Pulse' stands for two",
    STAYS.replace(", admitted: a", "") + SERIES.replace("hours: h", "time: t"): "time needs stays",
    STAYS.replace("admitted: a", "discharged: d"): "stays.discharged needs stays.admitted",
    STAYS.replace("admitted: a", "admitted: a, discharged: d, los_hours: l"): "either discharged",
    STAYS + "missing: [[a]]": "missing must be a list of texts",
    STAYS + STAYS: "line 2: this is no YAML: the key 'stays' stands there twice",
    STAYS + "name: [": "line 2: this is no YAML",
    "- stays": "the file must have keys such as stays",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_wrong_is_named(tmp_path, text):
    assert REFUSED[text] in refused(tmp_path, text)


def test_a_file_in_another_encoding_or_none_at_all(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_declaration(tmp_path / "tables.yaml")
    (tmp_path / "tables.yaml").write_bytes("name: Universität".encode("latin-1"))
    with pytest.raises(UserError, match="is not text in UTF-8"):
        read_declaration(tmp_path / "tables.yaml")


def test_scalars_are_the_texts_that_stand_there(tmp_path):
    """YAML itself would make these False, 255, 1.0 and a date."""
    found = read(
        tmp_path,
        STAYS + "covariates: {x: {levels: {no: 0377, yes: [1.0, 2024-01-01]}}}\nlabels: {dead: }\n",
    )
    assert found.covariates["x"].levels == {
        "no": ["no", "0377"],
        "yes": ["yes", "1.0", "2024-01-01"],
    }
    assert found.labels["dead"].present == ["1", "true", "yes"]


def test_one_table_or_several(tmp_path):
    several = (
        STAYS
        + SERIES
        + "codes:\n"
        + "".join(
            f"- {{file: {name}.csv, stay: s, code: c, system: {system}}}\n"
            for name, system in (
                ("dx", "icd10_diagnosis"),
                ("px", "ops"),
                ("more", "icd10_diagnosis"),
            )
        )
    )
    found = read(tmp_path, several)
    assert [table.file for table in found.codes] == ["dx.csv", "px.csv", "more.csv"]
    assert found.systems == ["icd10_diagnosis", "ops"]
    assert len(found.measurements) == 1
    wrong = several.replace("system: ops", "sytem: ops")
    assert "codes[2] has no key 'sytem'. Did you mean 'system'?" in refused(tmp_path, wrong)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["file", "levels", "called", "x"]), inner, max_size=3)
        ),
        max_leaves=6,
    ),
    st.sampled_from(["stays", "covariates", "labels", "codes", "measurements", "series", "csv"]),
)
def test_nothing_but_words_comes_of_nonsense(content, key):
    """Whatever stands at a key, it is taken or refused, and never ends in a traceback."""
    loaded = yaml.load(yaml.safe_dump({**DECLARATION, key: content}), yaml.BaseLoader)
    with suppress(UserError):
        assert isinstance(parse(Declaration, loaded), Declaration)
