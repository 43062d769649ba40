"""Settings from flags, a file and the environment; invalid settings are errors that name the way out."""

import argparse
import subprocess
import sys
from dataclasses import fields

import pytest
import yaml

from paddle_internvl.cli.main import main
from paddle_internvl.media.limits import MediaLimits
from paddle_internvl.serve.settings import KEYS_VARIABLE, Settings, add_flags, from_arguments
from tests.random_checkpoints import ROOT

DEFAULT = ROOT / "configs/serve/default.yaml"


def parsed(*words, environment=None):
    parser = argparse.ArgumentParser()
    add_flags(parser)
    return from_arguments(parser.parse_args(words), environment or {})


def test_defaults_are_safe():
    settings = parsed()
    assert settings == Settings()
    assert (settings.server_name, settings.server_port) == ("127.0.0.1", 23333)
    assert settings.api_keys == settings.allow_origins == () and settings.allowed_local_media_path is None
    assert settings.media_limits() == MediaLimits()


def test_the_shipped_file_holds_every_setting_at_its_default():
    assert parsed("--config", str(DEFAULT)) == Settings()
    assert list(yaml.safe_load(DEFAULT.read_text())) == [setting.name for setting in fields(Settings)]


def test_flags_are_stronger_than_the_file(tmp_path):
    file = tmp_path / "serve.yaml"
    file.write_text("server_port: 1000\nmax_batch_size: 3\nqueue_timeout: 7\n")
    settings = parsed("--config", str(file), "--server-port", "2000", "--disable-remote-media")
    assert (settings.server_port, settings.max_batch_size, settings.queue_timeout) == (2000, 3, 7.0)
    assert not settings.media_limits().remote


def test_media_settings_reach_the_limits(tmp_path):
    limits = parsed(
        "--max-images", "2", "--max-image-pixels", "1000", "--allowed-media-domains", "a.example", "b.example",
        "--allowed-media-ports", "8080", "--allowed-local-media-path", str(tmp_path),
    ).media_limits()  # fmt: skip
    assert (limits.max_images, limits.max_image_pixels, limits.allow_ports) == (2, 1000, (8080,))
    assert limits.allowed_domains == ("a.example", "b.example") and limits.allowed_local_path == tmp_path.resolve()


def test_row_16_keys_come_from_flags_files_and_the_environment(tmp_path):
    file = tmp_path / "keys"
    file.write_text("# of the team\nfirst\n\n second \n")
    assert parsed("--api-keys", "k", f"@{file}").api_keys == ("k", "first", "second")
    assert parsed(environment={KEYS_VARIABLE: f"a, @{file}"}).api_keys == ("a", "first", "second")
    assert "first" not in repr(parsed("--api-keys", f"@{file}"))
    with pytest.raises(ValueError, match="holds no key"):
        file.write_text("#\n")
        parsed("--api-keys", f"@{file}")
    with pytest.raises(ValueError) as caught:
        Settings(api_keys=("secret", 1))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("flag", ["--api-keys", "--allowed-media-domains", "--allowed-hosts", "--allow-origins"])
def test_a_list_flag_without_values_is_an_error(flag, capsys):
    with pytest.raises(SystemExit):
        parsed(flag, environment={KEYS_VARIABLE: "key"})
    assert f"argument {flag}: expected at least one argument" in capsys.readouterr().err


@pytest.mark.parametrize("keys", ["", " ", "a,,b", ","])
def test_an_empty_key_in_the_environment_is_an_error(keys):
    with pytest.raises(ValueError, match=f"empty key.*{KEYS_VARIABLE}"):
        parsed(environment={KEYS_VARIABLE: keys})


@pytest.mark.parametrize(
    ("name", "allowed", "accepted"),
    [
        ("127.0.0.1", (), ()),
        ("::1", (), ()),
        ("localhost", ("Chat.Example.",), ("chat.example",)),
        ("0.0.0.0", (), None),
        ("0.0.0.0", ("chat.example",), ("chat.example",)),
    ],
)
def test_hosts_are_checked_on_loopback_and_where_they_are_configured(name, allowed, accepted):
    assert Settings(server_name=name, allowed_hosts=allowed).accepted_hosts == accepted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot: 1", "'prot' is no setting; known: server_name, server_port"),
        ("server_port: many", "server_port='many' is no whole number"),
        ("server_port: true", "server_port=True is no whole number"),
        ("server_port: 70000", r"server_port=70000 is outside \[0, 65535\]"),
        ("queue_timeout: .nan", "queue_timeout=nan is outside"),
        ("allow_origins: x", "allow_origins='x' is no list of texts"),
        ("log_level: loud", "log_level='loud' is not known; known: debug"),
        ("server_name: null", "server_name=None is no text"),
        ("- a", "holds no settings"),
        ("a: [", "is no YAML"),
    ],
)
def test_invalid_settings(tmp_path, text, message):
    file = tmp_path / "serve.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        parsed("--config", str(file))


@pytest.mark.parametrize(
    ("name", "keys", "open_"), [("127.0.0.1", (), False), ("0.0.0.0", (), True), ("0.0.0.0", ("k",), False)]
)
def test_row_19_another_address_without_a_key_is_seen(name, keys, open_):
    assert Settings(server_name=name, api_keys=keys).is_exposed is open_


def test_errors_come_before_the_model_is_loaded(capsys, tmp_path):
    assert main(["serve", "no-such-folder", "--tp", "4", "--replicas", "2"]) == 2
    assert capsys.readouterr().err.startswith("error: --replicas and --tp 4 exclude each other")
    assert main(["serve", "no-such-folder", "--allowed-local-media-path", str(tmp_path / "none")]) == 2
    assert "is no folder" in capsys.readouterr().err


def test_settings_import_nothing_heavy():
    code = "import sys, paddle_internvl.cli.serve; "
    code += "print([n for n in ('paddle', 'numpy', 'pydantic', 'fastapi', 'yaml', 'PIL') if n in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"
