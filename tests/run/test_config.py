import pytest
from hypothesis import given
from hypothesis import strategies as st

from xclip_module import config
from xclip_module.config import Config, DataConfig, ProbeConfig, RunConfig, override, parse_arguments, resolve
from xclip_module.errors import ConfigError
from xclip_module.run.protocols import PROTOCOLS, find_protocol
from xclip_module.run.user_config import load_config


def test_arguments_win_over_the_file_and_the_file_over_the_protocol():
    user = Config(data=DataConfig(crop="pad", stride_seconds=2.0))
    protocol = {"data.crop": "squash", "data.clip_seconds": 16.0, "data.stride_seconds": 4.0}
    resolved = resolve(user, protocol=protocol, arguments={"data.stride_seconds": "8"})
    assert (resolved.data.crop, resolved.data.clip_seconds, resolved.data.stride_seconds) == ("pad", 16.0, 8.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"data.rot": "x"}, "unknown config key data.rot: did you mean data.root"),
        ({"data.stride": "4"}, "did you mean data.stride_seconds"),
        ({"root": "x"}, "unknown config key root: did you mean run.root"),
        ({"data.stride_seconds": "four"}, "data.stride_seconds=four: expected a number"),
        ({"run.seed": "1.5"}, "run.seed=1.5: expected a whole number"),
        ({"data.skip_unreadable": "perhaps"}, "expected true or false"),
        ({"data.decoder": "decrd"}, "found 'decrd', expected one of .*did you mean decord"),
        ({"data.stride_seconds": "-1"}, "found -1.0, expected at least 0"),
        ({"data.stride_seconds": "nan"}, "found nan, expected at least 0"),
    ],
)
def test_wrong_keys_and_values_name_what_was_found_and_expected(values, message):
    with pytest.raises(ConfigError, match=message) as caught:
        resolve(Config(), arguments=values)
    assert caught.value.exit_code == 2


def test_a_value_of_a_wrong_type_in_the_file_is_refused():
    with pytest.raises(ConfigError, match="config key data.root: found 5, expected text"):
        resolve(Config(data=DataConfig(root=5)))
    with pytest.raises(ConfigError, match="config key run.seed: found True, expected a whole number"):
        resolve(Config(run=RunConfig(seed=True)))
    with pytest.raises(ConfigError, match="config section data"):
        resolve(Config(data="demo"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("CONFIG = Config(data=DataConfig(rot='x'))", "unknown key rot in DataConfig; did you mean root"),
        ("CONFIG = Config(dta=DataConfig())", "unknown key dta in Config; did you mean data"),
        ("CONFIG = Config(", "SyntaxError"),
        ("x = 1", "sets no CONFIG"),
    ],
)
def test_a_broken_config_file_is_one_line_with_the_way_out(tmp_path, text, message):
    path = tmp_path / "xclip_config.py"
    path.write_text(f"from xclip_module.config import Config, DataConfig\n{text}\n")
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path, [])
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_shipped_file_changes_no_default_so_that_protocols_fill_in(request):
    shipped = load_config(request.config.rootpath / "xclip_config.py", [])
    assert shipped == resolve(Config())


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_is_valid_and_names_its_source(name):
    resolve(Config(), protocol=find_protocol(name))
    assert PROTOCOLS[name].source


def test_an_unknown_protocol_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean cholec80_xclip_vitb32"):
        find_protocol("cholec80_xclip_vitb3")


@pytest.mark.parametrize("words", [["data.root=x"], ["--data.root"], ["--data.root", "--run.name=x"], ["-x"]])
def test_malformed_arguments_are_refused(words):
    with pytest.raises(ConfigError, match="expected --section.key=value"):
        parse_arguments(words)


def test_values_may_hold_equal_signs_and_semicolons():
    values, _ = parse_arguments(["--data.queries=a = b; c", "--data.root", "/x y"])
    assert values == {"data.queries": "a = b; c", "data.root": "/x y"}


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("1,2,4", (1, 2, 4)), ("8", (8,)), (" 1 , 2 ,", (1, 2)), ("", ()), ("16,2", (16, 2))],
)
def test_several_whole_numbers_are_read_in_their_order(text, numbers):
    found = resolve(Config(), arguments={"probe.shots": text}).probe.shots
    assert found == numbers
    assert all(type(number) is int for number in found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,x", "--probe.shots=1,x: expected whole numbers with ',' between them"),
        ("1.5", "--probe.shots=1.5: expected whole numbers with ',' between them"),
        ("1;2", "--probe.shots=1;2: expected whole numbers with ',' between them"),
        ("true", "--probe.shots=true: expected whole numbers with ',' between them"),
        ("0", "config key probe.shots: found 0, expected at least 1"),
        ("1,2,-4", "config key probe.shots: found -4, expected at least 1"),
    ],
)
def test_what_is_no_list_of_whole_numbers_is_refused_in_one_line(text, message):
    with pytest.raises(ConfigError) as caught:
        resolve(Config(), arguments={"probe.shots": text})
    assert str(caught.value) == message


@pytest.mark.parametrize("value", [4, [1, 2], (1.0,), (True,), ("1",)])
def test_several_whole_numbers_of_another_type_in_the_file_are_refused(value):
    with pytest.raises(ConfigError, match=r"probe.shots: found .*, expected whole numbers with ',' between them"):
        resolve(Config(probe=ProbeConfig(shots=value)))


@given(st.data())
def test_every_value_survives_being_written_on_the_command_line(data):
    name = data.draw(st.sampled_from(sorted(config.keys())))
    value = config.keys()[name]
    strategies = {
        bool: st.booleans(),
        int: st.integers(0, 10**6),
        float: st.floats(0, 1e6),
        tuple: st.just((1, 4) if name == "probe.shots" else ("val", "test")),
    }
    drawn = data.draw(strategies.get(type(value), st.just(value)))
    text = ",".join(map(str, drawn)) if isinstance(drawn, tuple) else str(drawn)
    assert config.keys(override(Config(), {name: text}))[name] == drawn
